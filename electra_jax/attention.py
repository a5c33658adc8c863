"""Attention: what a position may look at, and the products, plain or by a fused kernel.

Dimensions: B batch, P positions that look, L positions that are looked at, D width, H heads, K head
width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from electra_jax.products import float32_einsum

# Large enough that softmax gives exactly 0, finite so that a row of padding gives no NaN.
MASKED = -1e9
# With `rows_apart` a row with more scores than this is worked on alone, so that they stay in the
# cache (measured on a CPU: from 256 tokens of 4 heads, 128 of 12).
_SCORES_AT_ONCE = 1 << 17


class Mask(flax.struct.PyTreeNode):
    """What each position may look at.

    Attributes:
      bias: float32 [B, 1, 1 or P, L], added to the scores: 0, or very negative where not.
      lengths: int32 [B] where a row's tokens are its first ones and all of them are looked at from
        everywhere, which is what a fused kernel can be told; None: something else.
    """

    bias: jax.Array
    lengths: jax.Array | None = None

    @classmethod
    def of_tokens(cls, attention_mask: jax.Array, *, are_first: bool = False) -> Mask:
        """From [B, L], True or not 0 at tokens.

        Integers are numbers of texts that share a row: a position looks at its own text alone.

        Args:
          are_first: whether padding only ever follows the tokens.
        """
        if jnp.issubdtype(attention_mask.dtype, jnp.integer):
            tokens = cls.of_tokens(attention_mask != 0)
            return tokens.only(attention_mask[:, :, None] == attention_mask[:, None])
        bias = jnp.where(attention_mask, 0.0, MASKED)[:, None, None, :]
        lengths = attention_mask.sum(axis=1, dtype=jnp.int32) if are_first else None
        return cls(bias, lengths)

    def only(self, may_look: jax.Array) -> Mask:
        """The mask without what bool [B or 1, L, L] (from, to) forbids."""
        return Mask(self.bias + jnp.where(may_look, 0.0, MASKED)[:, None])

    def at(self, positions: jax.Array) -> Mask:
        """The mask of some of the positions that look, int [B, P]."""
        if self.bias.shape[2] == 1:
            return self
        return self.replace(
            bias=jnp.take_along_axis(self.bias, positions[:, None, :, None], axis=2)
        )


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: Mask,
    num_heads: int,
    dropout_seeds: jax.Array | None,
    drop: Callable,
    *,
    implementation: str = "xla",
    rows_apart: bool = False,
) -> jax.Array:
    """Scaled dot-product attention, softmax in float32.

    Args:
      query: [B, P, D].
      key: [B, L, D].
      value: [B, L, D].
      mask: what each position may look at.
      num_heads: H.
      dropout_seeds: uint32 [B, 2] or None.
      drop: from probabilities [B, H, P, L] and the seeds to what dropout leaves of them.
      implementation: "xla", or "cudnn", the flash kernel of NVIDIA's library: it never writes the
        probabilities down, so there is nothing to drop, and it takes no mask but `lengths`.
      rows_apart: whether long rows are computed one after another ("xla" only).

    Returns:
      [B, P, D].

    Raises:
      ValueError: where the kernel cannot do what is asked for.
    """
    if implementation == "cudnn":
        return flash_attention(query, key, value, mask, num_heads)
    batch = (query, key, value, mask.bias, dropout_seeds)
    of_rows = functools.partial(_attention_of_rows, num_heads=num_heads, drop=drop)
    if not rows_apart or num_heads * query.shape[1] * key.shape[1] <= _SCORES_AT_ONCE:
        return of_rows(batch)
    return jax.lax.map(lambda row: of_rows(jax.tree.map(lambda x: x[None], row))[0], batch)


def flash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: Mask,
    num_heads: int,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> jax.Array:
    """Attention by one kernel that keeps scores and probabilities on the chip; as `attention`.

    Args:
      implementation: of `jax.nn.dot_product_attention`.

    Raises:
      ValueError: if there is more to the mask than padding that follows the tokens.
    """
    if mask.lengths is None:
        raise ValueError("the cuDNN kernel takes no mask but padding that follows the tokens")
    heads = lambda x: x.reshape(*x.shape[:2], num_heads, -1)  # noqa: E731  [B, L, H, K]
    attended = jax.nn.dot_product_attention(
        heads(query),
        heads(key),
        heads(value),
        # A row of padding alone looks at its first position: at nothing, it would give NaN.
        key_value_seq_lengths=jnp.maximum(mask.lengths, 1),
        query_seq_lengths=jnp.full_like(mask.lengths, query.shape[1]),
        implementation=implementation,
    )
    return attended.reshape(query.shape)


def _attention_of_rows(batch: tuple, *, num_heads: int, drop: Callable) -> jax.Array:
    query, key, value, bias, dropout_seeds = batch
    heads = lambda x: x.reshape(*x.shape[:2], num_heads, -1)  # noqa: E731  [B, L, H, K]
    head_size = query.shape[-1] // num_heads
    scores = float32_einsum("bqhk,bshk->bhqs", heads(query), heads(key))
    scores = scores * head_size**-0.5 + bias
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    dropped = drop(weights.astype(query.dtype), dropout_seeds)
    # Divided by their sum after the product with the values, which is smaller than they are.
    attended = jnp.einsum("bhqs,bshk->bqhk", dropped, heads(value))
    total = weights.sum(axis=-1).swapaxes(1, 2)[..., None]  # float32 [B, P, H, 1]
    return (attended / total).astype(query.dtype).reshape(query.shape)
