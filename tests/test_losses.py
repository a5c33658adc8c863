"""Losses against closed forms and float64; the area under the curve against its definition."""

import jax
import numpy as np
import pytest

from electra_jax import losses

token_cross_entropy = jax.jit(losses.token_cross_entropy)
binary_cross_entropy = jax.jit(losses.binary_cross_entropy)
logit_histogram = jax.jit(losses.logit_histogram)


def area(logits, is_positive):
    """Through the histograms, as in training."""
    logits = np.float32(logits)
    positive = np.float32(is_positive)
    return losses.area_under_curve(
        np.asarray(logit_histogram(logits, positive)),
        np.asarray(logit_histogram(logits, 1 - positive)),
    )


def pairwise_area(logits, is_positive):
    above = logits[is_positive][:, None] - logits[~is_positive][None]
    return np.mean((above > 0) + 0.5 * (above == 0))


def test_uniform_logits_cost_log_vocabulary():
    loss = token_cross_entropy(np.full((2, 3, 50), 7.0, np.float32), np.ones((2, 3), np.int32))
    np.testing.assert_allclose(loss, np.full((2, 3), np.log(50)), rtol=1e-6)


def test_zero_logits_cost_log_two():
    labels = np.array([[True, False]])
    loss = binary_cross_entropy(np.zeros((1, 2), np.float32), labels)
    np.testing.assert_allclose(loss, np.full((1, 2), np.log(2)), rtol=1e-6)


def test_token_cross_entropy_equals_float64_also_at_extreme_logits():
    rng = np.random.default_rng(0)
    scales = np.array([1, 30, 1e3, 1e5])[:, None, None]
    logits = np.float32(scales * rng.standard_normal((4, 6, 30)))
    labels = rng.integers(0, 30, (4, 6))
    exact = np.float64(logits)
    shifted = exact - exact.max(-1, keepdims=True)
    picked = np.take_along_axis(shifted, labels[..., None], -1)[..., 0]
    expected = np.log(np.exp(shifted).sum(-1)) - picked
    np.testing.assert_allclose(token_cross_entropy(logits, labels), expected, rtol=1e-5, atol=2e-6)


def test_binary_cross_entropy_equals_float64_also_at_extreme_logits():
    logits = np.float32([-1e30, -1e4, -88, -20, -1, 0, 1e-3, 1, 20, 88, 1e4, 1e30])
    for label in (False, True):
        loss = binary_cross_entropy(logits, np.full(logits.shape, label))
        expected = np.logaddexp(0, np.float64(logits) * (-1 if label else 1))
        np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=1e-6)


def test_histogram_holds_every_weight_once_and_outliers_in_the_end_bins():
    logits = np.float32([-1e9, -20, -0.004, 0.004, 0.006, 19.999, 20, 1e9])
    weights = np.arange(1, 9, dtype=np.float32)
    histogram = np.asarray(logit_histogram(logits, weights))
    half = losses.AUC_BINS // 2
    assert histogram.shape == (losses.AUC_BINS,)
    assert histogram[0] == 1 + 2 and histogram[-1] == 6 + 7 + 8
    assert histogram[half - 1] == 3 and histogram[half] == 4 + 5
    assert histogram.sum() == weights.sum()


def test_area_equals_its_pairwise_definition_up_to_the_bin_width():
    rng = np.random.default_rng(1)
    is_positive = rng.random(2000) < 0.1
    logits = np.float32(rng.normal(is_positive * 1.5, 2.0))
    assert abs(area(logits, is_positive) - pairwise_area(logits, is_positive)) < 1e-3


def test_area_is_exact_on_logits_that_are_apart_or_tied():
    rng = np.random.default_rng(2)
    is_positive = rng.random(200) < 0.3
    logits = rng.integers(-8, 8, 200).astype(np.float32)
    assert area(logits, is_positive) == pytest.approx(pairwise_area(logits, is_positive), abs=1e-12)
    assert area(np.where(is_positive, 1.0, -1.0), is_positive) == 1.0
    assert area(np.where(is_positive, -1.0, 1.0), is_positive) == 0.0
    assert area(np.zeros(200), is_positive) == 0.5


def test_area_is_nan_where_a_class_is_missing():
    assert np.isnan(area(np.zeros(4), np.zeros(4, bool)))
    assert np.isnan(area(np.zeros(4), np.ones(4, bool)))
