"""Fine-tuning's objectives, against weighted means taken again in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from electra_jax.errors import UserError
from electra_jax.heads import FineTuned, SequenceHead, SpanHead, TokenHead
from electra_jax.objectives import FINETUNING_OBJECTIVES, finetuning_loss
from electra_jax.parallel import make_mesh, parallelize
from electra_jax.special_ids import SpecialIds
from electra_jax.steps import predict_step, train_step
from electra_jax.train_state import TrainState

ROWS, LENGTH, CLASSES = 8, 32, 5
SPECIAL_IDS = SpecialIds(0, 1, 2, 3, 4)
# Row 2 and the last one pad the batch; row 4 counts half.
WEIGHTS = np.array([1, 1, 0, 1, 0.5, 1, 1, 0], np.float32)
KINDS = tuple(FINETUNING_OBJECTIVES)


def make(kind, **numbers):
    return FINETUNING_OBJECTIVES[kind](SPECIAL_IDS, **numbers)


@pytest.fixture(scope="module")
def labels(batch):
    """By kind, the arrays that a batch has besides those of every kind."""
    rng = np.random.default_rng(1)
    lengths = (batch["input_ids"] != 0).sum(1)
    tags = rng.integers(-1, CLASSES, (ROWS, LENGTH))
    tags = np.where(np.arange(LENGTH) < lengths[:, None], tags, -1)
    starts = rng.integers(0, lengths)
    return {
        "classification": {"labels": rng.integers(0, CLASSES, ROWS)},
        "regression": {"labels": rng.random(ROWS).astype(np.float32)},
        "multilabel": {"labels": rng.integers(0, 2, (ROWS, CLASSES))},
        "tagging": {"labels": tags},
        "span": {
            "start_positions": starts,
            "end_positions": rng.integers(starts, lengths),
            "is_impossible": rng.integers(0, 2, ROWS),
        },
    }


@pytest.fixture(scope="module")
def outputs():
    """By kind, what the network says."""
    rng = np.random.default_rng(2)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return {
        "classification": draw(ROWS, CLASSES),
        "regression": draw(ROWS, 1),
        "multilabel": draw(ROWS, CLASSES),
        "tagging": draw(ROWS, LENGTH, CLASSES),
        "span": {
            "start_logits": draw(ROWS, LENGTH),
            "end_logits": draw(ROWS, LENGTH),
            "no_answer_logits": draw(ROWS),
        },
    }


@functools.cache
def runner(objective, deterministic=False):
    """(network's outputs, batch, key) to the loss, the sums, what the network was called with
    (it is a stub) and the gradients for its outputs."""

    @jax.jit
    def run(outputs, batch, key):
        def loss_fn(outputs):
            seen = []

            def apply_fn(variables, *arrays, **kwargs):
                seen.append((arrays, kwargs))
                return variables["params"]

            loss, sums = finetuning_loss(
                outputs,
                batch,
                key,
                apply_fn=apply_fn,
                objective=objective,
                deterministic=deterministic,
            )
            return loss, (sums, seen[0])

        return jax.value_and_grad(loss_fn, has_aux=True)(outputs)

    return run


def with_given_outputs(objective, batch, outputs, **arguments):
    """As NumPy arrays: loss, sums, what the network saw, gradients."""
    run = runner(objective, **arguments)
    (loss, (sums, seen)), gradients = run(outputs, batch, jax.random.key(7))
    return jax.tree.map(np.asarray, (loss, sums, seen, gradients))


@pytest.fixture(scope="module")
def batches(batch, labels):
    return {kind: batch | {"weights": WEIGHTS} | labels[kind] for kind in KINDS}


@pytest.fixture(scope="module")
def results(batches, outputs):
    return {kind: with_given_outputs(make(kind), batches[kind], outputs[kind]) for kind in KINDS}


def mean(values, weights=WEIGHTS):
    return (np.float64(values) * weights).sum() / weights.sum()


def cross_entropy(logits, labels):
    picked = np.take_along_axis(special.log_softmax(np.float64(logits), -1), labels[..., None], -1)
    return -picked[..., 0]


def binary_cross_entropy(logits, labels):
    return np.logaddexp(0, np.where(labels == 1, -np.float64(logits), np.float64(logits)))


def metrics_by_hand(kind, outputs, labels):
    if kind == "classification":
        labels = labels["labels"]
        return {
            "loss": mean(cross_entropy(outputs, labels)),
            "accuracy": mean(outputs.argmax(-1) == labels),
        }
    if kind == "regression":
        error = outputs[:, 0] - labels["labels"]
        return {"loss": mean(error**2), "absolute_error": mean(abs(error))}
    if kind == "multilabel":
        right = (outputs > 0) == (labels["labels"] == 1)
        return {
            "loss": mean(binary_cross_entropy(outputs, labels["labels"]).mean(1)),
            "accuracy": mean(right.mean(1)),
            "exact_match": mean(right.all(1)),
        }
    if kind == "tagging":
        rows, positions = np.nonzero(labels["labels"] >= 0)
        tags, logits = labels["labels"][rows, positions], outputs[rows, positions]
        weights = WEIGHTS[rows]
        return {
            "loss": mean(cross_entropy(logits, tags), weights),
            "accuracy": mean(logits.argmax(-1) == tags, weights),
        }
    starts, ends = labels["start_positions"], labels["end_positions"]
    span = cross_entropy(outputs["start_logits"], starts)
    span = mean(span + cross_entropy(outputs["end_logits"], ends)) / 2
    logits, impossible = outputs["no_answer_logits"], labels["is_impossible"]
    answerability = mean(binary_cross_entropy(logits, impossible))
    return {
        "loss": span + 0.5 * answerability,
        "span_loss": span,
        "start_accuracy": mean(outputs["start_logits"].argmax(-1) == starts),
        "end_accuracy": mean(outputs["end_logits"].argmax(-1) == ends),
        "answerability_loss": answerability,
        "answerability_accuracy": mean((logits > 0) == (impossible == 1)),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_metrics_are_weighted_means(kind, labels, outputs, results, batch):
    loss, sums, _, _ = results[kind]
    expected = metrics_by_hand(kind, outputs[kind], labels[kind])
    metrics = make(kind).summarize(sums)
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        in_percent = 100 if "accuracy" in name or "match" in name else 1
        assert metrics[name] == pytest.approx(in_percent * value, rel=1e-5), name
    assert loss == pytest.approx(expected["loss"], rel=1e-5)
    assert sums["tokens"] == (batch["input_ids"] != 0)[WEIGHTS > 0].sum()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_the_weighted_mean(kind, labels, outputs, results):
    found, labels, outputs = results[kind][3], labels[kind], outputs[kind]
    one_hot = lambda positions, size: np.eye(size)[positions]  # noqa: E731
    shares = WEIGHTS / WEIGHTS.sum()
    if kind == "classification":
        expected = special.softmax(np.float64(outputs), -1) - one_hot(labels["labels"], CLASSES)
        expected *= shares[:, None]
    elif kind == "regression":
        expected = 2 * (outputs - labels["labels"][:, None]) * shares[:, None]
    elif kind == "multilabel":
        expected = (special.expit(outputs) - labels["labels"]) / CLASSES * shares[:, None]
    elif kind == "tagging":
        weights = WEIGHTS[:, None] * (labels["labels"] >= 0)
        expected = special.softmax(np.float64(outputs), -1) - one_hot(labels["labels"], CLASSES)
        expected *= (weights / weights.sum())[..., None]
    else:
        expected = {"no_answer_logits": special.expit(outputs["no_answer_logits"])}
        expected["no_answer_logits"] -= labels["is_impossible"]
        expected["no_answer_logits"] *= 0.5 * shares
        for name in ("start", "end"):
            wrong = special.softmax(np.float64(outputs[f"{name}_logits"]), -1)
            wrong -= one_hot(labels[f"{name}_positions"], LENGTH)
            expected[f"{name}_logits"] = wrong * shares[:, None] / 2
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7)
    jax.tree.map(compare, found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_sees_padding_segments_and_dropout_seeds(kind, batches, labels, results):
    (ids, attention_mask, types, seeds), kwargs = results[kind][2]
    np.testing.assert_array_equal(ids, batches[kind]["input_ids"])
    np.testing.assert_array_equal(attention_mask, ids != 0)
    for row, row_types in zip(ids, types, strict=True):
        first, last = np.nonzero(row == 3)[0][[0, -1]]
        assert list(np.nonzero(row_types)[0]) == list(range(first + 1, last + 1))
    assert seeds.shape == (ROWS, 2) and np.unique(seeds).size == 2 * ROWS
    assert set(kwargs) == ({"start_positions"} if kind == "span" else set())


def test_the_ends_are_told_the_gold_starts(batches, results):
    kwargs = results["span"][2][1]
    rows = WEIGHTS > 0
    gold = batches["span"]["start_positions"]
    np.testing.assert_array_equal(kwargs["start_positions"][rows], gold[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_weight_zero_change_nothing_whatever_they_hold(kind, batches, outputs, results):
    """Neither loss, sums nor gradients."""
    spoilt = {}
    for name, array in batches[kind].items():
        bad = np.float32("nan") if array.dtype == np.float32 else 10**6
        is_label = name not in ("input_ids", "row_ids", "weights")
        keep = (WEIGHTS > 0).reshape((-1,) + (1,) * (array.ndim - 1))
        spoilt[name] = np.where(keep, array, bad) if is_label else array
    loss, sums, _, gradients = with_given_outputs(make(kind), spoilt, outputs[kind])
    expected_loss, expected_sums, _, expected_gradients = results[kind]
    assert loss == expected_loss and np.isfinite(loss)
    jax.tree.map(np.testing.assert_array_equal, sums, expected_sums)
    jax.tree.map(np.testing.assert_array_equal, gradients, expected_gradients)
    assert not any(leaf[WEIGHTS == 0].any() for leaf in jax.tree.leaves(gradients))


def test_rows_of_weight_zero_are_as_good_as_none_and_an_evaluation_has_no_dropout(
    batches, outputs, results
):
    rows = np.nonzero(WEIGHTS)[0]
    batch, logits = jax.tree.map(lambda x: x[rows], (batches["tagging"], outputs["tagging"]))
    loss, sums, seen, _ = with_given_outputs(make("tagging"), batch, logits, deterministic=True)
    assert seen[0][3] is None
    np.testing.assert_allclose(loss, results["tagging"][0], rtol=1e-6)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(compare, sums, results["tagging"][1])


def test_a_batch_of_weights_of_zero_has_loss_zero_and_metrics_nan(batches, outputs):
    nothing = batches["tagging"] | {"weights": np.zeros_like(WEIGHTS)}
    objective = make("tagging")
    loss, sums, _, gradients = with_given_outputs(objective, nothing, outputs["tagging"])
    assert loss == 0 and not gradients.any() and sums["tokens"] == 0
    assert all(np.isnan(value) for value in objective.summarize(sums).values())


def test_without_answerability_the_loss_is_the_spans_and_needs_no_label(batches, labels, outputs):
    objective = make("span", answerability_weight=0.0)
    spans = {k: v for k, v in outputs["span"].items() if k != "no_answer_logits"}
    batch = {k: v for k, v in batches["span"].items() if k != "is_impossible"}
    loss, sums, _, _ = with_given_outputs(objective, batch, spans)
    expected = metrics_by_hand("span", outputs["span"], labels["span"])
    assert loss == pytest.approx(expected["span_loss"], rel=1e-5)
    metrics = objective.summarize(sums)
    assert set(metrics) == {"loss", "span_loss", "start_accuracy", "end_accuracy"}
    assert metrics["loss"] == metrics["span_loss"] == pytest.approx(expected["span_loss"])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            {"answerability_weight": -1.0},
            "objective.answerability_weight=-1.0 must not be negative",
        ),
        ({"beam_size": 0}, "objective.beam_size=0 must be at least 1"),
    ],
)
def test_numbers_out_of_their_range_are_refused(numbers, message):
    with pytest.raises(UserError) as error:
        make("span", **numbers)
    assert str(error.value) == message


# With real networks.


def small(config, head):
    return FineTuned(dataclasses.replace(config, num_layers=1, scan_layers=False), head)


@pytest.fixture(scope="module")
def tagger(config, random_params):
    """With dropout in the encoder and before the head; the update is the gradient."""
    model = small(config, TokenHead(CLASSES, dropout_rate=0.3))
    params, tx = random_params(model), optax.sgd(1.0)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=model.apply,
        params=params,
        tx=tx,
        opt_state=tx.init(params),
        rng=jax.random.key_data(jax.random.key(1)),
    )


def spread(step, state, batch, devices, backend, **arguments):
    parallel = parallelize(
        functools.partial(step, **arguments),
        make_mesh(num_devices=devices),
        backend=backend,
        donate_state=False,
    )
    return jax.tree.map(np.asarray, parallel(state, batch))


@pytest.fixture(scope="module")
def one_device(tagger, batches):
    return spread(train_step, tagger, batches["tagging"], 1, "jit", objective=make("tagging"))


@pytest.mark.parametrize(
    ("devices", "backend", "num_microbatches"), [(8, "jit", 1), (8, "pmap", 1), (2, "jit", 4)]
)
def test_a_step_does_not_depend_on_devices_backend_or_microbatches(
    tagger, batches, one_device, devices, backend, num_microbatches
):
    state, sums = spread(
        train_step,
        tagger,
        batches["tagging"],
        devices,
        backend,
        objective=make("tagging"),
        num_microbatches=num_microbatches,
    )
    expected_state, expected_sums = one_device
    compare = functools.partial(np.testing.assert_allclose, rtol=2e-5)
    jax.tree.map(compare, sums, expected_sums)
    assert sums["tokens"] == (batches["tagging"]["input_ids"] != 0)[WEIGHTS > 0].sum()
    for (path, before), after, expected in zip(
        jax.tree_util.tree_leaves_with_path(tagger.params),
        jax.tree.leaves(state.params),
        jax.tree.leaves(expected_state.params),
        strict=True,
    ):
        update, name = expected - np.asarray(before), jax.tree_util.keystr(path)
        assert update.any(), name
        tolerance = 2e-4 * np.abs(update).max() + 1e-7
        np.testing.assert_allclose(after - before, update, rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def gradients_of(tagger, batches):
    """The gradients of a real network on a batch, by leaf."""
    objective = make("tagging")

    @jax.jit
    def gradients(params, batch):
        loss = functools.partial(finetuning_loss, apply_fn=tagger.apply_fn, objective=objective)
        return jax.grad(loss, has_aux=True)(params, batch, jax.random.key(0))[0]

    return lambda batch: jax.tree.map(np.asarray, gradients(tagger.params, batch))


def test_text_in_rows_of_weight_zero_changes_no_gradient(gradients_of, batches):
    batch = batches["tagging"]
    other = np.where(WEIGHTS[:, None] > 0, batch["input_ids"], np.roll(batch["input_ids"], 1, 0))
    assert (other != batch["input_ids"]).any()
    before, after = gradients_of(batch), gradients_of(batch | {"input_ids": other})
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8)
    jax.tree.map(compare, before, after)
    counted = np.where(WEIGHTS > 0, WEIGHTS, np.float32(1e-3))
    changed = gradients_of(batch | {"weights": counted})
    assert np.abs(changed["head"]["output"]["kernel"] - before["head"]["output"]["kernel"]).max()


def test_predictions_are_the_rows_in_order_on_any_number_of_devices(config, random_params, batch):
    """And need no labels."""
    model = small(config, SpanHead(hidden_size=8))
    params, rows = random_params(model), {"input_ids": batch["input_ids"]}
    objective = make("span", beam_size=4)
    predict = functools.partial(predict_step, apply_fn=model.apply, objective=objective)
    expected = spread(predict, params, rows, 1, "jit")
    assert expected["ends"].shape == (ROWS, 4, 4)
    # The first row may end anywhere in its second half, the last one in its last three tokens.
    assert (expected["starts"][0] >= 16).sum() >= 3 and (expected["starts"][-1] <= 6).all()
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    for backend in ("jit", "pmap"):
        found = spread(predict, params, rows, 8, backend)
        jax.tree.map(compare, found, expected)


def test_other_kinds_predict_logits(config, batch):
    model = small(config, SequenceHead(3))
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    predict = functools.partial(
        predict_step, apply_fn=model.apply, objective=make("classification")
    )
    shapes = jax.eval_shape(predict, params, {"input_ids": jnp.asarray(batch["input_ids"])})
    assert {name: x.shape for name, x in shapes.items()} == {"logits": (ROWS, 3)}
