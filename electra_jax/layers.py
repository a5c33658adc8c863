"""What a Transformer layer is made of: pure functions of arrays, and declarations of parameters.

Dimensions: as in `modeling`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from electra_jax.attention import Mask, attention
from electra_jax.config import ElectraConfig, EncoderConfig
from electra_jax.dropout import dropout
from electra_jax.products import expand_like, matrix_product

# Dropouts of one layer, each a site of its own: attention's probabilities and the two outputs.
SITES_PER_LAYER = 3

_PRODUCT = "product with weights"  # what config.remat="products" keeps


def layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None = None, *, epsilon: float
) -> jax.Array:
    """Normalises the last axis with float32 statistics; returns the dtype of `x`."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normalised = centred * jax.lax.rsqrt(variance + epsilon)
    scaled = normalised * expand_like(x, scale)
    return (scaled if bias is None else scaled + expand_like(x, bias)).astype(x.dtype)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x * Phi(x), exactly (through erf), as in the original.

    The backward pass computes Phi again from `x` instead of keeping it: less memory, and forward
    it fuses with the matrix product before it.
    """
    return x * _normal_cdf(x)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * (1.0 + jax.lax.erf(x * 0.7071067811865476))


def _gelu_forward(x):
    return gelu(x), x


def _gelu_backward(x, cotangent):
    x = jax.lax.optimization_barrier(x)  # or the compiler would keep Phi after all
    density = jnp.exp(-0.5 * jnp.square(x)) * 0.3989422804014327
    return (cotangent * (_normal_cdf(x) + x * density),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def dense(x: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
    """x @ kernel + bias, where there is one, in the dtype of `x`."""
    product = checkpoint_name(matrix_product(x, params["kernel"].astype(x.dtype)), _PRODUCT)
    return product + expand_like(x, params["bias"].astype(x.dtype)) if "bias" in params else product


class Dense(nn.Module):
    """Declares `kernel` [*stack, in, out] and `bias` [*stack, out]; `stack` is (N,) or ()."""

    in_features: int
    features: int
    kernel_init: Callable
    stack: tuple[int, ...] = ()
    use_bias: bool = True

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        shape = self.stack + (self.in_features, self.features)
        params = {"kernel": self.param("kernel", self.kernel_init, shape)}
        if self.use_bias:
            bias_shape = self.stack + (self.features,)
            params["bias"] = self.param("bias", nn.initializers.zeros, bias_shape)
        return params


class LayerNorm(nn.Module):
    """Declares `scale` and `bias` [*stack, features]."""

    features: int
    stack: tuple[int, ...] = ()
    use_bias: bool = True

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        shape = self.stack + (self.features,)
        params = {"scale": self.param("scale", nn.initializers.ones, shape)}
        if self.use_bias:
            params["bias"] = self.param("bias", nn.initializers.zeros, shape)
        return params


class Layers(nn.Module):
    """Declares the tensors of an encoder's layers, [*stack, ...] each, or of one of them."""

    config: ElectraConfig
    encoder: EncoderConfig
    stack: tuple[int, ...] = ()

    @nn.compact
    def __call__(self) -> dict[str, dict[str, jax.Array]]:
        sizes, stack = self.encoder, self.stack
        hidden, intermediate = sizes.hidden_size, sizes.intermediate_size
        init = truncated_normal(self.config.init_stddev)
        return {
            # Query, key and value side by side: one matrix product instead of three.
            "qkv": Dense(hidden, 3 * hidden, init, stack, name="qkv")(),
            "attention_out": Dense(hidden, hidden, init, stack, name="attention_out")(),
            "attention_layer_norm": LayerNorm(hidden, stack, name="attention_layer_norm")(),
            "feed_forward_in": Dense(hidden, intermediate, init, stack, name="feed_forward_in")(),
            "feed_forward_out": Dense(intermediate, hidden, init, stack, name="feed_forward_out")(),
            "output_layer_norm": LayerNorm(hidden, stack, name="output_layer_norm")(),
        }


def truncated_normal(stddev: float) -> Callable:
    """Normal draws of this standard deviation, those beyond two of them drawn again.

    As `tf.truncated_normal_initializer`: `stddev` is that of the normal before it is cut.
    """
    return nn.initializers.truncated_normal(stddev, lower=-2.0, upper=2.0)


def transformer_layer(
    params: dict[str, dict[str, jax.Array]],
    x: jax.Array,
    mask: Mask,
    dropout_seeds: jax.Array | None,
    site: jax.Array | int,
    config: ElectraConfig,
    sizes: EncoderConfig,
    positions: jax.Array | None = None,
) -> jax.Array:
    """Self-attention and feed-forward, each followed by dropout, residual and LayerNorm.

    Args:
      params: one layer's tensors (without the leading axis).
      x: [B, L, D].
      mask: what each position may look at.
      dropout_seeds: uint32 [B, 2] or None for no dropout.
      site: first of this layer's `SITES_PER_LAYER` dropout sites.
      positions: int [B, P], where the output is wanted; None: everywhere.

    Returns:
      [B, L, D]; with `positions` [B, P, D].
    """
    eps, rate, width = config.layer_norm_epsilon, config.dropout_rate, sizes.hidden_size
    if positions is None:
        query, key, value = jnp.split(dense(x, params["qkv"]), 3, axis=-1)
    else:
        for_query, for_others = (
            {name: tensor[..., part] for name, tensor in params["qkv"].items()}
            for part in (slice(width), slice(width, None))
        )
        key, value = jnp.split(dense(x, for_others), 2, axis=-1)
        x, mask = take_positions(x, positions), mask.at(positions)
        query = dense(x, for_query)
    attended = attention(
        query,
        key,
        value,
        mask,
        sizes.num_heads,
        dropout_seeds,
        lambda p, seeds: drop(p, seeds, site, config.attention_dropout_rate),
        implementation=config.attention,
        rows_apart=config.rows_apart,
    )
    attended = dense(attended, params["attention_out"])
    x = x + drop(attended, dropout_seeds, site + 1, rate)
    x = layer_norm(x, **params["attention_layer_norm"], epsilon=eps)
    expanded = gelu(dense(x, params["feed_forward_in"]))
    x = x + drop(dense(expanded, params["feed_forward_out"]), dropout_seeds, site + 2, rate)
    return layer_norm(x, **params["output_layer_norm"], epsilon=eps)


def take_positions(hidden: jax.Array, positions: jax.Array) -> jax.Array:
    """[B, L, D] at int [B, P]: [B, P, D]."""
    return jnp.take_along_axis(hidden, positions[:, :, None], axis=1)


def drop(x: jax.Array, seeds: jax.Array | None, site: jax.Array | int, rate: float) -> jax.Array:
    """`dropout.dropout`, or `x` itself where there are no seeds or the rate is zero."""
    return x if seeds is None or rate == 0.0 else dropout(x, seeds, site, rate)


def keeping(remat: str) -> Callable:
    """A decorator of layers: what of them the backward pass finds, and what it computes again."""
    if remat == "none":
        return lambda layer: layer
    policy = {
        # The matrix products with weights; attention and everything elementwise again.
        "products": jax.checkpoint_policies.save_only_these_names(_PRODUCT),
        # The input of each layer alone.
        "layers": jax.checkpoint_policies.nothing_saveable,
    }[remat]
    return functools.partial(jax.checkpoint, policy=policy)


def unstack(layers: Any, num_layers: int) -> list[Any]:
    """The tree of stacked tensors [N, ...] as N trees; its transpose is one concatenation."""
    split = jax.tree.map(lambda x: [s[0] for s in jax.lax.split(x, (1,) * num_layers)], layers)
    is_list = lambda x: isinstance(x, list)  # noqa: E731
    return [jax.tree.map(lambda s: s[i], split, is_leaf=is_list) for i in range(num_layers)]  # noqa: B023


def unstack_layers(params: Any) -> Any:
    """Parameters as a model without `stacked_layers` has them, from those of one with."""
    result = {}
    for name, subtree in params.items():
        if name == "layers":
            num_layers = len(jax.tree.leaves(subtree)[0])
            for index in range(num_layers):
                result[f"layers_{index}"] = jax.tree.map(lambda x: x[index], subtree)  # noqa: B023
        else:
            result[name] = unstack_layers(subtree) if isinstance(subtree, dict) else subtree
    return result
