"""The objective, against means taken again in NumPy from the two networks' logits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from electra_jax import pretraining_loss
from electra_jax.vocabulary import Projection

ROWS, LENGTH, SLOTS, VOCAB = 8, 32, 4, 100


def with_given_logits(objective, batch, logits, deterministic=False):
    """The loss, its gradients, and what the networks were called with.

    The networks are stubs which return `logits`: {"generate": [B, P, V], "discriminate": [B, L]}.
    """

    @jax.jit
    def run(logits, batch, key):
        inputs = objective.prepare(key, batch)

        def loss_fn(logits):
            seen = {}

            def apply_fn(variables, *arrays, method):
                seen[method] = arrays
                if method == "project":  # logits are features times the identity
                    features = variables["params"]["generate"][..., :VOCAB]
                    return Projection(features, jnp.eye(VOCAB), jnp.zeros(VOCAB))
                return variables["params"][method]

            loss, sums = objective.loss(
                logits, inputs, key, apply_fn=apply_fn, deterministic=deterministic
            )
            return loss, (sums, seen)

        return inputs, jax.value_and_grad(loss_fn, has_aux=True)(logits)

    inputs, ((loss, (sums, seen)), gradients) = run(logits, batch, jax.random.key(7))
    return jax.tree.map(np.asarray, (inputs, loss, sums, seen, gradients))


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(0)
    generated = rng.standard_normal((ROWS, SLOTS, 128)).astype(np.float32) * 2
    generated[..., VOCAB:] = -1e9
    return {
        "generate": generated,
        "discriminate": rng.standard_normal((ROWS, LENGTH)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def result(objective, batch, logits):
    return with_given_logits(objective, batch, logits)


def chosen_positions(inputs):
    """(row, slot, position) of every chosen position."""
    rows, slots = np.nonzero(inputs.masked.chosen)
    return rows, slots, inputs.masked.positions[rows, slots]


def by_hand(batch, logits, inputs, seen):
    """Means over the whole batch, in float64; padding and unused slots left out by indexing."""
    ids = batch["input_ids"]
    rows, slots, positions = chosen_positions(inputs)
    log_p = special.log_softmax(np.float64(logits["generate"][..., :VOCAB]), axis=-1)
    token_losses = -log_p[rows, slots, ids[rows, positions]]
    tokens = ids != 0
    corrupted = seen["discriminate"][0]
    replaced = (corrupted != ids)[tokens]
    scores = np.float64(logits["discriminate"])[tokens]
    predicted = scores > 0
    guesses = logits["generate"].argmax(-1)[rows, slots]
    above = scores[replaced][:, None] - scores[~replaced][None]
    mlm_loss = token_losses.mean()
    disc_loss = np.logaddexp(0, np.where(replaced, -scores, scores)).mean()
    return {
        "loss": mlm_loss + 50 * disc_loss,
        "mlm_loss": mlm_loss,
        "mlm_accuracy": (guesses == ids[rows, positions]).mean(),
        "sampled_accuracy": (corrupted[rows, positions] == ids[rows, positions]).mean(),
        "disc_loss": disc_loss,
        "disc_accuracy": (predicted == replaced).mean(),
        "disc_auc": ((above > 0) + 0.5 * (above == 0)).mean(),
        "disc_precision": replaced[predicted].mean(),
        "disc_recall": predicted[replaced].mean(),
        "replaced_share": replaced.mean(),
    }


def test_loss_and_metrics_are_means_over_the_whole_batch(objective, batch, logits, result):
    inputs, loss, sums, seen, _ = result
    expected = by_hand(batch, logits, inputs, seen)
    metrics = objective.summarize(sums)
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        tolerance = 0.01 if name == "disc_auc" else 1e-5
        assert metrics[name] == pytest.approx(value, rel=tolerance), name
    assert loss == pytest.approx(expected["loss"], rel=1e-5)
    assert loss.shape == ()


def test_right_guesses_count_as_original(objective, batch, logits, result):
    """With a generator that is always right, nothing is replaced."""
    inputs = result[0]
    sure = np.where(np.eye(128)[inputs.masked.labels], 100.0, -100.0).astype(np.float32)
    _, _, sums, seen, _ = with_given_logits(objective, batch, logits | {"generate": sure})
    np.testing.assert_array_equal(seen["discriminate"][0], batch["input_ids"])
    metrics = objective.summarize(sums)
    assert (metrics["sampled_accuracy"], metrics["replaced_share"]) == (1.0, 0.0)
    assert np.isnan(metrics["disc_recall"]) and np.isnan(metrics["disc_auc"])


def test_weights_sum_to_one_over_what_counts(result, batch):
    inputs = result[0]
    tokens = batch["input_ids"] != 0
    np.testing.assert_allclose(inputs.discriminator_weights, tokens / tokens.sum(), rtol=1e-6)
    chosen = inputs.masked.chosen
    np.testing.assert_allclose(inputs.generator_weights, chosen / chosen.sum(), rtol=1e-6)
    assert 0 < chosen.sum() < chosen.size


def test_gradient_is_that_of_the_two_means_alone(logits, result):
    """None reaches the generator through the samples, none reaches padding or unused slots."""
    inputs, _, _, seen, gradients = result
    tokens = inputs.masked.attention_mask
    replaced = seen["discriminate"][0] != inputs.masked.input_ids
    expected = 50 * (special.expit(np.float64(logits["discriminate"])) - replaced)
    expected *= tokens / tokens.sum()
    np.testing.assert_allclose(gradients["discriminate"], expected, rtol=1e-4, atol=1e-8)
    assert (gradients["discriminate"][~tokens] == 0).all()
    chosen = inputs.masked.chosen
    expected = special.softmax(np.float64(logits["generate"]), axis=-1)
    expected = (expected - np.eye(128)[inputs.masked.labels]) * chosen[..., None] / chosen.sum()
    np.testing.assert_allclose(gradients["generate"], expected, rtol=1e-4, atol=1e-7)
    assert (gradients["generate"][~chosen] == 0).all()


def test_networks_see_the_masked_and_the_corrupted_batch(batch, result):
    inputs, _, _, seen, _ = result
    masked = inputs.masked
    ids, positions, attention_mask, types, _ = seen["project"]
    np.testing.assert_array_equal(ids, masked.masked_ids)
    np.testing.assert_array_equal(positions, masked.positions)
    for arrays in ((attention_mask, types), seen["discriminate"][1:3]):
        np.testing.assert_array_equal(arrays[0], batch["input_ids"] != 0)
        np.testing.assert_array_equal(arrays[1], masked.token_type_ids)
    corrupted = seen["discriminate"][0]
    rows, _, positions = chosen_positions(inputs)
    untouched = np.ones(corrupted.shape, bool)
    untouched[rows, positions] = False
    np.testing.assert_array_equal(corrupted[untouched], batch["input_ids"][untouched])
    assert (corrupted < VOCAB).all() and (corrupted != batch["input_ids"]).any()


def test_each_network_has_dropout_of_its_own_in_training_and_none_in_evaluation(
    objective, batch, logits, result
):
    seen = result[3]
    generator_seeds, discriminator_seeds = seen["project"][-1], seen["discriminate"][-1]
    assert generator_seeds.shape == discriminator_seeds.shape == (ROWS, 2)
    assert (generator_seeds != discriminator_seeds).all()
    assert np.unique(np.stack([generator_seeds, discriminator_seeds])).size == 4 * ROWS
    seen = with_given_logits(objective, batch, logits, deterministic=True)[3]
    assert seen["project"][-1] is None and seen["discriminate"][-1] is None


def test_temperature_divides_the_logits_before_sampling_only(objective, batch, logits, result):
    cold = dataclasses.replace(objective, temperature=1e-4)
    inputs, _, sums, seen, _ = with_given_logits(cold, batch, logits)
    rows, slots, positions = chosen_positions(inputs)
    np.testing.assert_array_equal(
        seen["discriminate"][0][rows, positions], logits["generate"].argmax(-1)[rows, slots]
    )
    np.testing.assert_allclose(sums["mlm_loss_sum"], result[2]["mlm_loss_sum"], rtol=1e-6)
    hot = dataclasses.replace(objective, temperature=1e6)
    corrupted = with_given_logits(hot, batch, logits)[3]["discriminate"][0]
    assert np.unique(corrupted[rows, positions]).size > 0.6 * len(rows)  # all but uniform
    assert (corrupted < VOCAB).all()


def test_metrics_of_added_sums_are_those_of_the_batches_pooled(objective, batch, logits, result):
    """Not the mean of two means: the batches have unlike numbers of tokens."""
    short = {k: v[4:] for k, v in batch.items()}
    short_logits = {k: v[:4] for k, v in logits.items()}
    inputs, _, sums, seen, _ = with_given_logits(objective, short, short_logits)
    added = jax.tree.map(np.add, sums, result[2])
    metrics = objective.summarize(added)

    def pool(*arrays):
        return np.concatenate(arrays)

    pooled = by_hand(
        jax.tree.map(pool, batch, short),
        jax.tree.map(pool, logits, short_logits),
        jax.tree.map(pool, result[0], inputs),
        {"discriminate": (pool(result[3]["discriminate"][0], seen["discriminate"][0]),)},
    )
    for name, value in pooled.items():
        tolerance = 0.01 if name == "disc_auc" else 1e-5
        assert metrics[name] == pytest.approx(value, rel=tolerance), name


def test_more_padding_changes_no_sum(objective, batch, logits, result):
    """The same rows and as many of padding alone."""
    doubled = {
        "input_ids": np.concatenate([batch["input_ids"], np.zeros_like(batch["input_ids"])]),
        "row_ids": np.arange(100, 116, dtype=np.int32),
    }
    twice = {k: np.concatenate([v, 3 * v]) for k, v in logits.items()}
    _, loss, sums, _, _ = with_given_logits(objective, doubled, twice)
    np.testing.assert_allclose(loss, result[1], rtol=1e-6)
    for name, value in result[2].items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-6, err_msg=name)


def test_a_batch_of_padding_alone_has_loss_zero_and_metrics_nan(objective, batch, logits):
    nothing = {k: np.zeros_like(v) for k, v in batch.items()}
    _, loss, sums, _, gradients = with_given_logits(objective, nothing, logits)
    assert loss == 0 and not any(g.any() for g in gradients.values())
    assert all(np.isnan(value) for value in objective.summarize(sums).values())


@pytest.fixture(scope="module")
def gradients_by_weight(model, objective, random_params, batch):
    """Gradients of the real networks: of the generator's loss, then of the discriminator's."""

    @jax.jit
    def gradients(params, weights, batch, key):
        weighted = dataclasses.replace(
            objective, generator_weight=weights[0], discriminator_weight=weights[1]
        )
        loss = lambda p: pretraining_loss(  # noqa: E731
            p, batch, key, apply_fn=model.apply, objective=weighted
        )
        return jax.grad(loss, has_aux=True)(params)

    params, key = random_params(model), jax.random.key(3)
    return [
        jax.tree.map(np.asarray, gradients(params, jnp.array(weights), batch, key)[0])
        for weights in ([1.0, 0.0], [0.0, 1.0])
    ]


def all_zero(tree):
    return not any(leaf.any() for leaf in jax.tree.leaves(tree))


def none_zero(tree):
    """Every tensor of it has some gradient."""
    return all(leaf.any() for leaf in jax.tree.leaves(tree))


def test_the_discriminator_s_loss_trains_nothing_of_the_generator_but_shared_tables(
    gradients_by_weight,
):
    gradients = gradients_by_weight[1]
    assert all_zero(gradients["generator_encoder"]) and all_zero(gradients["generator_head"])
    for module in ("embeddings", "encoder", "discriminator_head"):
        assert none_zero(gradients[module]), module


def test_the_generator_s_loss_trains_nothing_of_the_discriminator_but_shared_tables(
    gradients_by_weight,
):
    gradients = gradients_by_weight[0]
    assert all_zero(gradients["encoder"]) and all_zero(gradients["discriminator_head"])
    for module in ("embeddings", "generator_encoder", "generator_head"):
        assert none_zero(gradients[module]), module
