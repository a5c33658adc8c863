"""What the generator says of the vocabulary: losses and samples, a few positions at a time.

Dimensions: B batch, P positions, E embedding width, V vocabulary. The logits [B, P, V] are the
largest tensor of a training step (2.4 GB for ELECTRA-Base), and everything that is wanted of them
is small: a loss, a sample and whether the likeliest token is right for each position, and, because
the loss is a plain weighted sum, the gradients of features and table. So they are computed, used
and dropped a few columns of positions at a time, in the forward pass, with no recomputation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from electra_jax.attention import MASKED
from electra_jax.corruption import sample_from_weights
from electra_jax.losses import token_cross_entropy
from electra_jax.products import expand_like, float32_einsum


class Projection(flax.struct.PyTreeNode):
    """Features and the table they are multiplied with: all that the logits follow from.

    Attributes:
      features: [B, P, E] in the compute dtype.
      table: float32 [V, E].
      bias: float32 [V].
    """

    features: jax.Array
    table: jax.Array
    bias: jax.Array


class Predictions(flax.struct.PyTreeNode):
    """What is known of each position, without gradients.

    Attributes:
      losses: float32 [B, P], -log softmax(logits)[label].
      correct: bool [B, P], whether no token is likelier than the label.
      sampled: int32 [B, P], draws from softmax(logits / temperature).
      sampled_losses: float32 [B, P], -log softmax(logits)[sampled].
    """

    losses: jax.Array
    correct: jax.Array
    sampled: jax.Array
    sampled_losses: jax.Array


def logits_of(projection: Projection, *, pad_multiple: int = 1) -> jax.Array:
    """All logits, float32 [B, P, padded V].

    Args:
      pad_multiple: V is padded to a multiple of it. The columns past the vocabulary hold a logit so
        low that they are never sampled and add exactly nothing to a softmax.
    """
    return _logits(projection.features, *_padded(projection, pad_multiple))


def predict_tokens(
    projection: Projection,
    labels: jax.Array,
    weights: jax.Array,
    uniforms: jax.Array,
    *,
    temperature: jax.Array | float = 1.0,
    disallow_correct: bool = False,
    pad_multiple: int = 128,
    rows_at_once: int | None = None,
) -> tuple[jax.Array, Predictions]:
    """Loss of a masked language model, and samples from it.

    Args:
      labels: int [B, P], the tokens that were there.
      weights: float32 [B, P], of each position in the loss.
      uniforms: float32 [B, P, 2] in [0, 1), what the samples follow from.
      temperature: the logits are divided by it before sampling; a number, or float32 [B, 1, 1].
      disallow_correct: whether the label itself is never sampled.
      pad_multiple: as of `logits_of`: matrix products of odd sizes are slow.
      rows_at_once: positions of the whole batch whose logits exist at a time, in whole columns of
        B; None: all. The results do not depend on it, the gradients only through the order in which
        they are added up.

    Returns:
      sum(weights * losses), differentiable in the projection, and the predictions.
    """
    batch, count = labels.shape
    columns = _columns_at_once(batch, count, rows_at_once)
    # Static, so that sampling at temperature 1 can use the softmax's own exponentials.
    fixed = float(temperature) if isinstance(temperature, int | float) else None
    options = (columns, projection.table.shape[0], fixed, disallow_correct)
    table, bias = _padded(projection, pad_multiple)
    arrays = (labels, weights, uniforms, jnp.asarray(temperature, jnp.float32))
    return _predict(options, projection.features, table, bias, *arrays)


def token_losses(
    projection: Projection,
    labels: jax.Array,
    *,
    pad_multiple: int = 128,
    rows_at_once: int | None = None,
) -> jax.Array:
    """-log softmax(logits)[label] of each position, float32 [B, P], differentiable one by one.

    For losses that are no weighted sum known beforehand; the logits are computed twice.

    Args:
      labels: int [B, P].
      pad_multiple, rows_at_once: as of `predict_tokens`.
    """
    batch, count = labels.shape
    columns = _columns_at_once(batch, count, rows_at_once)
    table, bias = _padded(projection, pad_multiple)

    @jax.checkpoint
    def of_part(part):
        features, labels = part
        return token_cross_entropy(_logits(features, table, bias), labels)

    if columns == count:
        return of_part((projection.features, labels))
    split, join = _columns(batch, count, columns)
    return join(jax.lax.map(of_part, jax.tree.map(split, (projection.features, labels))))


def _columns_at_once(batch: int, count: int, rows_at_once: int | None) -> int:
    return count if rows_at_once is None else max(1, min(count, rows_at_once // batch))


def _columns(batch: int, count: int, columns: int) -> tuple[Callable, Callable]:
    """From [B, P, ...] to [parts, B, columns, ...] and back: rows stay where they are."""
    num_parts = -(-count // columns)

    def split(x):
        padding = [(0, 0), (0, num_parts * columns - count)] + [(0, 0)] * (x.ndim - 2)
        return jnp.pad(x, padding).reshape(batch, num_parts, columns, *x.shape[2:]).swapaxes(0, 1)

    def join(x):
        return x.swapaxes(0, 1).reshape(batch, -1, *x.shape[3:])[:, :count]

    return split, join


def _padded(projection: Projection, multiple: int) -> tuple[jax.Array, jax.Array]:
    """Table [padded V, E] in the features' dtype, and bias [padded V]."""
    padding = -projection.table.shape[0] % multiple
    table = jnp.pad(projection.table.astype(projection.features.dtype), ((0, padding), (0, 0)))
    return table, jnp.pad(projection.bias, (0, padding), constant_values=MASKED)


def _logits(features, table, bias):
    logits = float32_einsum("bpe,ve->bpv", features, table)
    return logits + expand_like(logits, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _predict(options, features, table, bias, labels, weights, uniforms, temperature):
    arrays = (labels, weights, uniforms)
    return _by_columns(options, features, table, bias, arrays, temperature, gradients=False)[0]


def _predict_forward(options, features, table, bias, labels, weights, uniforms, temperature):
    arrays = (labels, weights, uniforms)
    return _by_columns(options, features, table, bias, arrays, temperature, gradients=True)


def _predict_backward(options, gradients, cotangents):
    scale = cotangents[0]  # the predictions have no gradient
    to_features, to_table, to_bias = gradients
    return (
        (to_features * scale).astype(to_features.dtype),
        (to_table * scale).astype(to_features.dtype),
        to_bias * scale,
        *(None,) * 4,
    )


_predict.defvjp(_predict_forward, _predict_backward)


def _by_columns(options, features, table, bias, arrays, temperature, *, gradients: bool) -> Any:
    """((loss, predictions), gradients to features, table and bias or None)."""
    columns = options[0]
    batch, count = features.shape[:2]
    of_part = functools.partial(_part, options, table, bias, temperature, gradients=gradients)
    if columns == count:
        loss, predictions, to_features, sums = of_part((features, *arrays))
        return (loss, predictions), (to_features, *sums) if gradients else None

    split, join = _columns(batch, count, columns)

    def add(carry, part):
        loss, predictions, to_features, sums = of_part(part)
        return jax.tree.map(jnp.add, carry, (loss, sums)), (predictions, to_features)

    zeros = lambda x: jnp.zeros(x.shape, jnp.float32)  # noqa: E731
    begin = jnp.zeros(()), (zeros(table), zeros(bias)) if gradients else ()
    parts = jax.tree.map(split, (features, *arrays))
    (loss, sums), (predictions, to_features) = jax.lax.scan(add, begin, parts)
    predictions, to_features = jax.tree.map(join, (predictions, to_features))
    return (loss, predictions), (to_features, *sums) if gradients else None


def _part(options, table, bias, temperature, part, *, gradients: bool) -> Any:
    """Loss, predictions, gradient to the features, and gradients to table and bias (float32)."""
    _, vocab_size, fixed_temperature, disallow_correct = options
    features, labels, weights, uniforms = part
    logits = _logits(features, table, bias)
    is_label = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == labels[..., None]
    highest = logits.max(axis=-1, keepdims=True)
    exponentials = jnp.exp(logits - highest)
    total = exponentials.sum(axis=-1, keepdims=True)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    losses = (jnp.log(total) + highest - picked)[..., 0]

    chances = exponentials
    if fixed_temperature != 1.0:
        chances = jnp.exp((logits - highest) / temperature)
    if disallow_correct:
        chances = jnp.where(is_label, 0.0, chances)
    sampled = jnp.minimum(sample_from_weights(uniforms, chances), vocab_size - 1)
    of_sampled = jnp.take_along_axis(logits, sampled[..., None], axis=-1)
    predictions = Predictions(
        losses=losses,
        correct=(picked >= highest)[..., 0],
        sampled=sampled,
        sampled_losses=(jnp.log(total) + highest - of_sampled)[..., 0],
    )
    loss = (losses * weights).sum()
    if not gradients:
        return loss, predictions, None, ()
    to_logits = weights[..., None] * (exponentials / total - is_label)
    low = to_logits.astype(features.dtype)
    to_features = jnp.einsum("bpv,ve->bpe", low, table)
    to_table = jnp.einsum("bpv,bpe->ve", low, features, preferred_element_type=jnp.float32)
    return loss, predictions, to_features, (to_table, to_logits.sum(axis=(0, 1)))
