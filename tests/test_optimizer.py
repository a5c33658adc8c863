"""The original's AdamW, one update after another by hand."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from electra_jax.errors import UserError
from electra_jax.heads import FineTuned, SequenceHead
from electra_jax.optimizer import (
    WEIGHT_DECAY_RULES,
    layer_factors,
    learning_rate_schedule,
    make_optimizer,
    rules_by_name,
)


def test_schedule_multiplies_warm_up_and_decay_both_from_step_zero():
    schedule = learning_rate_schedule(2.0, warmup_steps=4, num_train_steps=10)
    warming_up = [0, 2 * 0.9 * 1 / 4, 2 * 0.8 * 2 / 4, 2 * 0.7 * 3 / 4]
    expected = warming_up + [1.2, 1.0, 0.8, 0.6, 0.4, 0.2, 0, 0]
    steps = np.arange(12, dtype=np.int32)
    np.testing.assert_allclose(jax.vmap(schedule)(steps), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose([float(schedule(step)) for step in range(12)], expected, atol=1e-6)


def test_schedule_without_warm_up_begins_at_the_peak():
    schedule = learning_rate_schedule(3.0, warmup_steps=0, num_train_steps=4)
    np.testing.assert_allclose([schedule(step) for step in range(5)], [3, 2.25, 1.5, 0.75, 0])


def numpy_adamw(params, gradients, *, rate, decay, b1, b2, eps, max_norm):
    """Float64; `rate` is a function of the step."""
    params = {k: np.float64(v) for k, v in params.items()}
    m = {k: np.zeros_like(v) for k, v in params.items()}
    v = {k: np.zeros_like(v) for k, v in params.items()}
    for step, gradient in enumerate(gradients):
        norm = np.sqrt(sum((np.float64(g) ** 2).sum() for g in gradient.values()))
        for k in params:
            g = np.float64(gradient[k]) * max_norm / max(norm, max_norm)
            m[k] = b1 * m[k] + (1 - b1) * g
            v[k] = b2 * v[k] + (1 - b2) * g**2
            update = m[k] / (np.sqrt(v[k]) + eps)
            if not k.endswith(("bias", "scale")):
                update = update + decay * params[k]
            params[k] = params[k] - rate(step) * update
    return params


def test_updates_equal_the_original_s_by_hand():
    rng = np.random.default_rng(0)
    names = ("dense/kernel", "dense/bias", "layer_norm/scale", "layer_norm/bias", "word")
    params = {k: rng.standard_normal((3, 2)).astype(np.float32) for k in names}
    # The first gradients are so small that eps matters, the third is long and clipped.
    gradients = [
        {k: (size * rng.standard_normal((3, 2))).astype(np.float32) for k in names}
        for size in (1e-4, 1e-5, 10.0, 0.1, 0.0)
    ]
    numbers = dict(b1=0.9, b2=0.999, eps=1e-6)
    tx = make_optimizer(
        learning_rate=0.1,
        warmup_steps=2,
        num_train_steps=8,
        weight_decay=0.3,
        max_grad_norm=1.0,
        **numbers,
    )

    @jax.jit
    def update(params, opt_state, gradient):
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    ours, opt_state = params, tx.init(params)
    for step, gradient in enumerate(gradients):
        ours, opt_state = update(ours, opt_state, gradient)
        expected = numpy_adamw(
            params,
            gradients[: step + 1],
            rate=lambda step: 0.1 * (1 - step / 8) * min(1.0, step / 2),
            decay=0.3,
            max_norm=1.0,
            **numbers,
        )
        for name in names:
            np.testing.assert_allclose(ours[name], expected[name], rtol=2e-5, atol=1e-6)
    # The rate is 0 at the first step, but its gradient counts.
    assert any(np.abs(ours[name] - params[name]).max() > 0.1 for name in names)


def test_only_layer_norms_and_biases_are_spared_from_decay(params):
    mask = rules_by_name(params, WEIGHT_DECAY_RULES, what="WEIGHT_DECAY_RULES")
    spared = {
        "/".join(key.key for key in path)
        for path, decayed in jax.tree_util.tree_leaves_with_path(mask)
        if not decayed
    }
    names = {
        "/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    assert spared == {name for name in names if name.endswith(("bias", "scale"))}
    assert {"embeddings/word", "embeddings/position", "embeddings/token_type"} <= names - spared
    assert "generator_head/bias" in spared and "encoder/projection/kernel" in names - spared


def test_a_parameter_that_no_rule_covers_is_refused_by_name():
    tx = make_optimizer(learning_rate=1.0, warmup_steps=0, num_train_steps=1)
    with pytest.raises(UserError) as error:
        tx.init({"head": {"kernel": np.zeros(2), "temperature": np.zeros(2)}})
    assert str(error.value) == (
        "weight_decay_rules: no rule matches the parameter 'head/temperature': add one that does"
    )


def test_rules_of_ones_own_decide_what_is_decayed():
    tx = make_optimizer(
        learning_rate=1.0,
        warmup_steps=0,
        num_train_steps=10,
        weight_decay=0.5,
        weight_decay_rules=[("table", True), ("", False)],
    )
    params = {"table": np.ones(2, np.float32), "other": np.ones(2, np.float32)}
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["table"], -0.5)
    np.testing.assert_array_equal(updates["other"], 0.0)


# Layer-wise decay and freezing.


@pytest.fixture(scope="module")
def fine_tuned(config, random_params):
    """Parameters of three layers under a head."""
    config = dataclasses.replace(config, num_layers=3)
    return random_params(FineTuned(config, SequenceHead(2, hidden_layer=True)))


def names_of(tree):
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize(
    ("skip_a_depth", "head", "layers", "embeddings"),
    [
        (False, 1.0, [0.8**3, 0.8**2, 0.8], 0.8**4),
        # The original's factors (electra-facts: the last layer decay^2, the embeddings
        # decay^(n + 2)).
        (True, 1.0, [0.8**4, 0.8**3, 0.8**2], 0.8**5),
    ],
)
def test_layers_have_their_factors(fine_tuned, skip_a_depth, head, layers, embeddings):
    factors = layer_factors(fine_tuned, 0.8, skip_a_depth=skip_a_depth)
    params = names_of(fine_tuned)
    for name, factor in names_of(factors).items():
        part = name.split("/")[0] if "layers" not in name else "layers"
        if part == "layers":
            assert factor.shape == (3,) + (1,) * (params[name].ndim - 1), name
            np.testing.assert_allclose(factor.ravel(), layers, rtol=1e-6)
        else:
            expected = head if part == "head" else embeddings
            assert factor.shape == () and factor == pytest.approx(expected), name
        assert factor.dtype == np.float32
    assert {"encoder/projection/kernel", "head/dense/bias"} <= set(params)


def one_update(params, gradient, **arguments):
    """The change of each parameter by one update at a rate of 1."""
    tx = make_optimizer(learning_rate=1.0, warmup_steps=0, num_train_steps=10, **arguments)
    update = jax.jit(lambda params, gradient: tx.update(gradient, tx.init(params), params)[0])
    return names_of(jax.tree.map(np.asarray, update(params, gradient)))


def test_layer_decay_multiplies_adam_s_update_and_the_weight_decay(fine_tuned):
    gradient = jax.tree.map(np.ones_like, fine_tuned)
    plain = one_update(fine_tuned, gradient, weight_decay=0.3)
    decayed = one_update(fine_tuned, gradient, weight_decay=0.3, layer_decay=0.5)
    factors = names_of(layer_factors(fine_tuned, 0.5))
    for name, update in plain.items():
        np.testing.assert_allclose(decayed[name], update * factors[name], rtol=1e-5, err_msg=name)
    skipping = one_update(
        fine_tuned, gradient, weight_decay=0.3, layer_decay=0.5, layer_decay_skips_a_depth=True
    )
    name = "encoder/layers/qkv/kernel"
    np.testing.assert_allclose(skipping[name], decayed[name] / 2, rtol=1e-5)
    np.testing.assert_allclose(skipping["head/output/kernel"], plain["head/output/kernel"])
    kept = one_update(fine_tuned, gradient, weight_decay=0.3, layer_decay=1.0)
    for name, update in plain.items():
        np.testing.assert_array_equal(kept[name], update)


def test_weight_decay_covers_every_head(fine_tuned):
    mask = names_of(rules_by_name(fine_tuned, WEIGHT_DECAY_RULES, what="WEIGHT_DECAY_RULES"))
    head = {name: decayed for name, decayed in mask.items() if name.startswith("head/")}
    assert head == {
        f"head/{layer}/{leaf}": leaf == "kernel"
        for layer in ("dense", "output")
        for leaf in ("kernel", "bias")
    }


def test_parameters_of_no_known_depth_are_refused_by_name(params):
    arguments = dict(learning_rate=1.0, warmup_steps=0, num_train_steps=1, layer_decay=0.8)
    with pytest.raises(UserError) as error:
        make_optimizer(**arguments).init(params)  # those of pre-training
    assert str(error.value) == (
        "layer_depth_rules: no rule matches the parameter 'discriminator_head/dense/bias': add "
        "one that does"
    )
    with pytest.raises(UserError, match='depth "layer": none: give rules'):
        make_optimizer(**arguments).init({"head": {"kernel": np.zeros((2, 2))}})
    two_stacks = {"a": {"kernel": np.zeros((2, 2))}, "b": {"kernel": np.zeros((3, 2))}}
    with pytest.raises(UserError, match='depth "layer": 2, 3: give rules'):
        make_optimizer(**arguments, layer_depth_rules=[("", "layer")]).init(two_stacks)


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5])
def test_a_layer_decay_out_of_range_is_refused(decay):
    with pytest.raises(UserError) as error:
        make_optimizer(learning_rate=1.0, warmup_steps=0, num_train_steps=1, layer_decay=decay)
    assert str(error.value) == (
        f"optimizer.layer_decay={decay} must lie in (0, 1]: use None for no decay"
    )


def test_frozen_parameters_stay_and_do_not_count_in_the_clipped_norm():
    params = {k: np.ones(2, np.float32) for k in ("word", "kernel")}
    gradient = {"word": np.full(2, 1e6, np.float32), "kernel": np.full(2, 0.1, np.float32)}
    alone = {"kernel": gradient["kernel"]}
    frozen = one_update(params, gradient, frozen=["^wo"], eps=1.0)
    assert not frozen["word"].any()
    expected = one_update({"kernel": params["kernel"]}, alone, eps=1.0)["kernel"]
    np.testing.assert_allclose(frozen["kernel"], expected, rtol=1e-6)
    assert (one_update(params, gradient, eps=1.0)["kernel"] != expected).all()
    with pytest.raises(UserError) as error:
        one_update(params, gradient, frozen=["^word$", "encoder"])
    assert str(error.value) == "frozen: 'encoder' is found in no parameter's name: correct it"


def test_parameters_have_learning_rates_of_their_own(params):
    """The first pattern decides; weight decay is multiplied, too."""
    gradient = jax.tree.map(np.ones_like, params)
    plain = one_update(params, gradient, weight_decay=0.3)
    factors = [("^generator_head/", 2.0), ("^generator_", 0.5), ("layer_norm/", 0.1)]
    tuned = one_update(params, gradient, weight_decay=0.3, learning_rate_factors=factors)
    seen = set()
    for name, update in plain.items():
        if name.startswith("generator_head/"):
            factor = 2.0
        elif name.startswith("generator_"):
            factor = 0.5
        else:
            factor = 0.1 if "layer_norm/" in name else 1.0
        seen.add(factor)
        np.testing.assert_allclose(tuned[name], factor * update, rtol=1e-6, err_msg=name)
    assert len(seen) == 4
    same = one_update(params, gradient, weight_decay=0.3, learning_rate_factors=[("^gen", 1.0)])
    for name, update in plain.items():
        np.testing.assert_array_equal(same[name], update)


def test_factors_that_cannot_be_are_refused(params):
    arguments = dict(learning_rate=1.0, warmup_steps=0, num_train_steps=1)
    for factor in (0, -1.0, float("nan")):
        with pytest.raises(UserError) as error:
            make_optimizer(**arguments, learning_rate_factors=[("^generator_", factor)])
        assert str(error.value) == (
            f"optimizer.learning_rate_factors: {factor} of '^generator_' must be positive: to "
            "leave parameters as they are, name them in frozen"
        )
    for factors in ([("kernels", 0.5)], [("kernel", 2.0), ("dense/kernel", 0.5)]):
        with pytest.raises(UserError) as error:
            make_optimizer(**arguments, learning_rate_factors=factors).init(params)
        assert str(error.value) == (
            f"optimizer.learning_rate_factors: {factors[-1][0]!r} is found in no parameter's name "
            "that no pattern before it is found in: correct it"
        )
