"""The original's AdamW, one update after another by hand."""

import jax
import numpy as np
import optax
import pytest

from electra_jax.errors import UserError
from electra_jax.optimizer import (
    WEIGHT_DECAY_RULES,
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
