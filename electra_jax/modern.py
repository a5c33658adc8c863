"""A Transformer layer as encoders have it since ModernBERT (Warner et al. 2024, section 2.1).

Normalised before instead of after, rotary positions (Su et al. 2021), a feed-forward layer gated by
GELU (Shazeer 2020), no biases; every third layer looks everywhere, the others at a window. The
first layer does not normalise what it attends with: the embeddings are.

Dimensions: as in `modeling`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.attention import Mask, attention
from electra_jax.config import ElectraConfig, EncoderConfig
from electra_jax.layers import (
    Dense,
    LayerNorm,
    dense,
    drop,
    gelu,
    layer_norm,
    take_positions,
    truncated_normal,
)


class ModernLayers(nn.Module):
    """Declares the tensors of an encoder's layers, [*stack, ...] each, or of one of them."""

    config: ElectraConfig
    encoder: EncoderConfig
    stack: tuple[int, ...] = ()

    @nn.compact
    def __call__(self) -> dict[str, dict[str, jax.Array]]:
        sizes, stack = self.encoder, self.stack
        hidden, intermediate = sizes.hidden_size, sizes.intermediate_size
        init = truncated_normal(self.config.init_stddev)

        def matrix(in_features, features, name):
            return Dense(in_features, features, init, stack, use_bias=False, name=name)()

        def norm(name):
            return LayerNorm(hidden, stack, use_bias=False, name=name)()

        return {
            "attention_layer_norm": norm("attention_layer_norm"),
            "qkv": matrix(hidden, 3 * hidden, "qkv"),
            "attention_out": matrix(hidden, hidden, "attention_out"),
            "feed_forward_layer_norm": norm("feed_forward_layer_norm"),
            # What is activated and what it is multiplied with, side by side.
            "gated_in": matrix(hidden, 2 * intermediate, "gated_in"),
            "feed_forward_out": matrix(intermediate, hidden, "feed_forward_out"),
        }


class View(flax.struct.PyTreeNode):
    """What a layer looks at, and how it turns queries and keys.

    Attributes:
      mask: what each position may look at.
      cosines, sines: float32 [L, K].
    """

    mask: Mask
    cosines: jax.Array
    sines: jax.Array


def views(
    mask: Mask, length: int, config: ElectraConfig, sizes: EncoderConfig
) -> tuple[View, View]:
    """Those of the layers that look everywhere, and of the local ones."""
    place = jnp.arange(length)
    is_near = abs(place[:, None] - place[None]) <= config.local_window // 2
    return (
        View(mask, *rotations(length, sizes, config.rope_theta_global)),
        View(mask.only(is_near[None]), *rotations(length, sizes, config.rope_theta_local)),
    )


def rotations(length: int, sizes: EncoderConfig, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of position * theta ** (-2 i / K), float32 [L, K], each i twice."""
    width = sizes.hidden_size // sizes.num_heads
    frequencies = theta ** -(np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] * np.concatenate([frequencies, frequencies])
    return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)


def rotate(x: jax.Array, cosines: jax.Array, sines: jax.Array, num_heads: int) -> jax.Array:
    """Turns the pairs (i, i + K/2) of each head of [B, P, D], by [P, K] or [B, P, K]."""
    heads = x.reshape(*x.shape[:2], num_heads, -1).astype(jnp.float32)
    first, second = jnp.split(heads, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    of_heads = lambda t: jnp.broadcast_to(t, (x.shape[0], *t.shape[-2:]))[:, :, None]  # noqa: E731
    turned = heads * of_heads(cosines) + turned * of_heads(sines)
    return turned.reshape(x.shape).astype(x.dtype)


def choose(condition: bool | jax.Array, one: Any, other: Any) -> Any:
    """One tree or the other; in a loop over layers, by their traced number."""
    if isinstance(condition, bool):
        return one if condition else other
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def modern_layer(
    params: dict[str, dict[str, jax.Array]],
    x: jax.Array,
    index: jax.Array | int,
    context: tuple[View, View],
    dropout_seeds: jax.Array | None,
    site: jax.Array | int,
    config: ElectraConfig,
    sizes: EncoderConfig,
    positions: jax.Array | None = None,
) -> jax.Array:
    """x + attention(norm(x)), then x + feed-forward(norm(x)).

    Args:
      params: one layer's tensors (without the leading axis).
      x: [B, L, D].
      index: number of the layer.
      context: of `views`.
      dropout_seeds, site, positions: as of `layers.transformer_layer`.

    Returns:
      [B, L, D]; with `positions` [B, P, D].
    """
    epsilon, rate, width = config.layer_norm_epsilon, config.dropout_rate, sizes.hidden_size
    view = choose(index % config.global_every == 0, *context)
    normalised = layer_norm(x, **params["attention_layer_norm"], epsilon=epsilon)
    normalised = choose(index == 0, x, normalised)
    kernel, cosines, sines = params["qkv"]["kernel"], view.cosines, view.sines
    key, value = jnp.split(dense(normalised, {"kernel": kernel[:, width:]}), 2, axis=-1)
    key = rotate(key, cosines, sines, sizes.num_heads)
    mask = view.mask
    if positions is not None:
        x, normalised = (take_positions(tensor, positions) for tensor in (x, normalised))
        cosines, sines = (tensor[positions] for tensor in (cosines, sines))
        mask = mask.at(positions)
    query = dense(normalised, {"kernel": kernel[:, :width]})
    attended = attention(
        rotate(query, cosines, sines, sizes.num_heads),
        key,
        value,
        mask,
        sizes.num_heads,
        dropout_seeds,
        lambda p, seeds: drop(p, seeds, site, config.attention_dropout_rate),
        rows_apart=config.rows_apart,
    )
    x = x + drop(dense(attended, params["attention_out"]), dropout_seeds, site + 1, rate)
    normalised = layer_norm(x, **params["feed_forward_layer_norm"], epsilon=epsilon)
    activated, gate = jnp.split(dense(normalised, params["gated_in"]), 2, axis=-1)
    expanded = dense(gelu(activated) * gate, params["feed_forward_out"])
    return x + drop(expanded, dropout_seeds, site + 2, rate)


def final_norm(x: jax.Array, config: ElectraConfig) -> jax.Array:
    """What comes after the last layer; declares its scale in the module that calls it."""
    norm = LayerNorm(x.shape[-1], use_bias=False, name="final_layer_norm")()
    return layer_norm(x, **norm, epsilon=config.layer_norm_epsilon)
