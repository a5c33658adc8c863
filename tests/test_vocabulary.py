"""The generator's loss in parts, against all logits at once and against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from electra_jax import corruption, losses
from electra_jax.vocabulary import Projection, logits_of, predict_tokens

ROWS, SLOTS, WIDTH, VOCAB = 4, 5, 8, 300


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    projection = Projection(
        rng.standard_normal((ROWS, SLOTS, WIDTH)).astype(np.float32),
        # Small enough for float32's rounding to stay below the bounds, whatever the CPU adds first.
        (0.5 * rng.standard_normal((VOCAB, WIDTH))).astype(np.float32),
        rng.standard_normal(VOCAB).astype(np.float32),
    )
    labels = rng.integers(0, VOCAB, (ROWS, SLOTS))
    weights = rng.random((ROWS, SLOTS)).astype(np.float32) * (rng.random((ROWS, SLOTS)) < 0.8)
    uniforms = rng.random((ROWS, SLOTS, 2)).astype(np.float32)
    return projection, labels, weights.astype(np.float32), uniforms


def run(arrays, **options):
    projection, *others = arrays

    def loss_fn(projection):
        loss, predictions = predict_tokens(projection, *others, **options)
        return 3.0 * loss, predictions

    (loss, predictions), gradients = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(projection)
    return jax.tree.map(np.asarray, (loss, predictions, gradients))


def plainly(arrays):
    """The same through all logits, JAX's own derivative, and `corruption.sample_tokens`."""
    projection, labels, weights, uniforms = arrays

    def loss_fn(projection):
        logits = logits_of(projection, pad_multiple=128)
        return 3.0 * (losses.token_cross_entropy(logits, labels) * weights).sum(), logits

    (loss, logits), gradients = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(projection)
    sampled = corruption.sample_tokens(uniforms, logits, vocab_size=VOCAB)
    return jax.tree.map(np.asarray, (loss, logits, sampled, gradients))


@pytest.mark.parametrize("rows_at_once", [None, 1, 8, 12, 1000])
def test_parts_give_what_all_at_once_does(arrays, rows_at_once):
    loss, predictions, gradients = run(arrays, rows_at_once=rows_at_once)
    expected_loss, logits, sampled, expected = plainly(arrays)
    labels = arrays[1]
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    np.testing.assert_array_equal(predictions.sampled, sampled)
    np.testing.assert_array_equal(predictions.correct, logits.argmax(-1) == labels)
    for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.abs(wanted).max() > 0.01
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_losses_are_numpys(arrays):
    projection, labels, weights, _ = arrays
    logits = np.float64(projection.features) @ np.float64(projection.table).T + projection.bias
    log_p = special.log_softmax(logits, axis=-1)
    expected = -np.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    loss, predictions, _ = run(arrays, rows_at_once=4)
    np.testing.assert_allclose(predictions.losses, expected, rtol=1e-5)
    np.testing.assert_allclose(loss, 3 * (expected * weights).sum(), rtol=1e-5)


def test_temperature_is_that_of_the_samples_alone(arrays):
    hot = run(arrays, temperature=2.0, rows_at_once=8)
    as_array = run(arrays, temperature=jnp.float32(2.0), rows_at_once=8)
    _, logits, _, _ = plainly(arrays)
    sampled = corruption.sample_tokens(arrays[3], logits / 2.0, vocab_size=VOCAB)
    for loss, predictions, _ in (hot, as_array):
        np.testing.assert_array_equal(predictions.sampled, sampled)
        np.testing.assert_array_equal(loss, run(arrays, rows_at_once=8)[0])
    assert (sampled != run(arrays)[1].sampled).any()


def test_the_label_is_never_sampled_where_that_is_forbidden(arrays):
    projection, labels, weights, _ = arrays
    sure = projection.replace(bias=np.full(VOCAB, -5, np.float32))
    sure.bias[:3] = 20.0
    labels = labels % 3
    uniforms = np.random.default_rng(1).random((ROWS, SLOTS, 2)).astype(np.float32)
    allowed = run((sure, labels, weights, uniforms))[1].sampled
    assert (allowed == labels).any()
    forbidden = run((sure, labels, weights, uniforms), disallow_correct=True)[1].sampled
    assert (forbidden != labels).all() and (forbidden < 3).all()


def test_without_a_gradient_the_same_comes_out(arrays):
    projection, *others = arrays
    loss, predictions = jax.jit(lambda p: predict_tokens(p, *others, rows_at_once=8))(projection)
    expected_loss, expected, _ = run(arrays, rows_at_once=8)
    np.testing.assert_allclose(3 * loss, expected_loss, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, predictions, expected)


def test_bfloat16_stays_close(arrays):
    """Products in bfloat16, everything else in float32: gradients within a few percent."""
    projection, *others = arrays
    low = (projection.replace(features=jnp.asarray(projection.features, jnp.bfloat16)), *others)
    loss, _, gradients = run(low, rows_at_once=8)
    expected_loss, _, expected = run(arrays)
    np.testing.assert_allclose(loss, expected_loss, rtol=0.01)
    assert gradients.table.dtype == np.float32
    for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(
            np.float32(found), wanted, atol=0.03 * np.abs(wanted).max(), rtol=0.05
        )
