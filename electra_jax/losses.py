"""Losses and the counts behind the metrics: arrays in, arrays or sums out.

Whatever leaves the device is a sum or a count, so that it adds up over rows, micro-batches,
devices and steps; means are taken once, at the end (`electra_jax.objectives`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Bins over [-_AUC_RANGE, _AUC_RANGE] of the discriminator's logits, for the area under its
# receiver operating characteristic: 0.01 of a logit a bin. Logits past the range (a probability
# within 2e-9 of 0 or 1) count as equal.
AUC_BINS = 4000
_AUC_RANGE = 20.0


def token_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label]: float32 [..., V] and int [...] to float32 [...]."""
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log sigmoid(logit) where the label is true, -log(1 - sigmoid(logit)) where not; [...]."""
    return jax.nn.softplus(logits) - logits * labels


def shares(weights: jax.Array, axis_name: str | None = None) -> jax.Array:
    """Weights (or a mask) divided by their sum over the global batch; float32, same shape.

    Args:
      weights: not negative, [...]; where all are zero, so are the shares.
      axis_name: the axis over which devices hold the other rows (`pmap`); None: there are none.
    """
    weights = weights.astype(jnp.float32)
    total = weights.sum()
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return weights / jnp.where(total > 0, total, 1.0)


def ratio(total: Any, count: Any) -> float:
    """A mean from two sums; NaN where nothing was counted."""
    return float(total) / float(count) if float(count) else float("nan")


def logit_histogram(logits: jax.Array, weights: jax.Array) -> jax.Array:
    """Weights summed by bin of the logit, float32 [AUC_BINS]."""
    scaled = (logits + _AUC_RANGE) * (AUC_BINS / (2 * _AUC_RANGE))
    bins = jnp.clip(scaled.astype(jnp.int32), 0, AUC_BINS - 1)
    return jnp.zeros(AUC_BINS, jnp.float32).at[bins.ravel()].add(weights.ravel())


def area_under_curve(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Probability that a positive's logit lies above a negative's, ties counting one half.

    Args:
      positives: histogram [bins] of the positives' logits, lowest first.
      negatives: the same of the negatives.

    Returns:
      The area in [0, 1]; NaN where there are no positives or no negatives.
    """
    positives, negatives = (np.asarray(x, np.float64) for x in (positives, negatives))
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + 0.5 * negatives)).sum() / pairs) if pairs else float("nan")
