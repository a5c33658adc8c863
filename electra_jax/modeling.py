"""The networks: Linen modules whose `apply` is a pure function of (params, arrays).

Dimensions: B batch, L length, P masked positions, V vocabulary, E embedding width, D hidden
width, F feed-forward width, N layers, H heads, K head width.

Every tensor of the layers is stored once, stacked along a leading axis [N, ...]: few tensors for
the optimiser and the checkpoint, and the same parameters whether the layers are scanned or
written out. Dropout runs where `dropout_seeds` are given (`dropout.dropout_seeds`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.config import ElectraConfig, EncoderConfig
from electra_jax.dropout import dropout

# Large enough that softmax gives exactly 0, finite so that a row of padding gives no NaN.
MASKED = -1e9
# Dropout sites: the generator's begin at 0, the discriminator's here; _SITES_PER_LAYER for each
# layer after the one of the embeddings. Those of fine-tuning's heads come after both (`heads`).
DISCRIMINATOR_SITES = 1 << 16
_SITES_PER_LAYER = 3


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Normalises the last axis with float32 statistics; returns the dtype of `x`."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normalised = centred * jax.lax.rsqrt(variance + epsilon)
    return (normalised * _like(x, scale) + _like(x, bias)).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """x * Phi(x), exactly (through erf), as in the original."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.7071067811865476))


def dense(x: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
    """x @ kernel + bias in the dtype of `x`."""
    return x @ params["kernel"].astype(x.dtype) + _like(x, params["bias"].astype(x.dtype))


def _like(x: jax.Array, vector: jax.Array) -> jax.Array:
    """A vector with leading axes of length one, as many as `x` has axes."""
    return jnp.expand_dims(vector, range(x.ndim - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def float32_einsum(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """An einsum with a float32 result, whose backward products run in the inputs' dtype.

    (By itself, a float32 result would make both backward products of bfloat16 inputs float32.)
    """
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _float32_einsum_forward(spec, x, y):
    return float32_einsum(spec, x, y), (x, y)


def _float32_einsum_backward(spec, inputs, cotangent):
    x, y = inputs
    cotangent = cotangent.astype(x.dtype)
    to_x = jax.linear_transpose(lambda x: jnp.einsum(spec, x, y), x)
    to_y = jax.linear_transpose(lambda y: jnp.einsum(spec, x, y), y)
    return to_x(cotangent) + to_y(cotangent)


float32_einsum.defvjp(_float32_einsum_forward, _float32_einsum_backward)


class Dense(nn.Module):
    """Declares `kernel` [*stack, in, out] and `bias` [*stack, out]; `stack` is (N,) or ()."""

    in_features: int
    features: int
    kernel_init: Callable
    stack: tuple[int, ...] = ()

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        shape = self.stack + (self.in_features, self.features)
        bias_shape = self.stack + (self.features,)
        return {
            "kernel": self.param("kernel", self.kernel_init, shape),
            "bias": self.param("bias", nn.initializers.zeros, bias_shape),
        }


class LayerNorm(nn.Module):
    """Declares `scale` and `bias` [*stack, features]."""

    features: int
    stack: tuple[int, ...] = ()

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        shape = self.stack + (self.features,)
        return {
            "scale": self.param("scale", nn.initializers.ones, shape),
            "bias": self.param("bias", nn.initializers.zeros, shape),
        }


def truncated_normal(stddev: float) -> Callable:
    """Normal draws of this standard deviation, those beyond two of them drawn again.

    As `tf.truncated_normal_initializer`: `stddev` is that of the normal before it is cut.
    """
    return nn.initializers.truncated_normal(stddev, lower=-2.0, upper=2.0)


class Embeddings(nn.Module):
    """Word, position and type tables, summed and normalised."""

    config: ElectraConfig
    features: int

    def setup(self):
        config, init = self.config, truncated_normal(self.config.init_stddev)
        self.word = self.param("word", init, (config.vocab_size, self.features))
        self.position = self.param("position", init, (config.max_positions, self.features))
        self.token_type = self.param("token_type", init, (config.type_vocab_size, self.features))
        self.norm = LayerNorm(self.features, name="layer_norm")

    def __call__(self, input_ids, token_type_ids, dropout_seeds, site: int) -> jax.Array:
        """Returns [B, L, E] in the compute dtype.

        Raises:
          ValueError: if L is more than the positions.
        """
        config, norm = self.config, self.norm()
        if input_ids.shape[1] > config.max_positions:
            raise ValueError(
                f"{input_ids.shape[1]} tokens, but model.max_positions={config.max_positions}"
            )
        x = self.word[input_ids] + self.token_type[token_type_ids]
        x = x + self.position[None, : input_ids.shape[1]]
        x = layer_norm(x, norm["scale"], norm["bias"], config.layer_norm_epsilon)
        x = x.astype(config.dtype)
        return drop(x, dropout_seeds, site, config.dropout_rate)


class Encoder(nn.Module):
    """A projection where the widths differ, then N post-LayerNorm Transformer layers."""

    config: ElectraConfig
    encoder: EncoderConfig
    in_features: int

    @nn.compact
    def __call__(self, x, attention_mask, dropout_seeds, site: int) -> jax.Array:
        """[B, L, E] to [B, L, D]."""
        config, sizes = self.config, self.encoder
        if self.in_features != sizes.hidden_size:
            glorot = nn.initializers.glorot_uniform()  # tf.layers' default, as in the original
            x = dense(x, Dense(self.in_features, sizes.hidden_size, glorot, name="projection")())
        layers = Layers(config, sizes, name="layers")()
        bias = jnp.where(attention_mask, 0.0, MASKED)[:, None, None, :]  # [B, 1, 1, L]

        def layer(x, params, index):
            layer_site = site + 1 + index * _SITES_PER_LAYER
            return transformer_layer(params, x, bias, dropout_seeds, layer_site, config, sizes)

        if config.scan_layers:
            indices = jnp.arange(sizes.num_layers)
            x, _ = jax.lax.scan(lambda x, xs: (layer(x, *xs), None), x, (layers, indices))
        else:
            for index, params in enumerate(unstack(layers, sizes.num_layers)):
                x = layer(x, params, index)
        return x


class Layers(nn.Module):
    """Declares the tensors of all layers of an encoder, stacked: [N, ...] each."""

    config: ElectraConfig
    encoder: EncoderConfig

    @nn.compact
    def __call__(self) -> dict[str, dict[str, jax.Array]]:
        sizes, stack = self.encoder, (self.encoder.num_layers,)
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


def unstack(layers: Any, num_layers: int) -> list[Any]:
    """The tree of stacked tensors [N, ...] as N trees; its transpose is one concatenation."""
    split = jax.tree.map(lambda x: [s[0] for s in jax.lax.split(x, (1,) * num_layers)], layers)
    is_list = lambda x: isinstance(x, list)  # noqa: E731
    return [jax.tree.map(lambda s: s[i], split, is_leaf=is_list) for i in range(num_layers)]  # noqa: B023


def transformer_layer(
    params: dict[str, dict[str, jax.Array]],
    x: jax.Array,
    attention_bias: jax.Array,
    dropout_seeds: jax.Array | None,
    site: jax.Array | int,
    config: ElectraConfig,
    sizes: EncoderConfig,
) -> jax.Array:
    """Self-attention and feed-forward, each followed by dropout, residual and LayerNorm.

    Args:
      params: one layer's tensors (without the leading axis).
      x: [B, L, D].
      attention_bias: float32 [B, 1, 1, L], 0 at tokens and very negative at padding.
      dropout_seeds: uint32 [B, 2] or None for no dropout.
      site: first of this layer's `_SITES_PER_LAYER` dropout sites.

    Returns:
      [B, L, D].
    """
    eps, rate = config.layer_norm_epsilon, config.dropout_rate
    attended = attention(
        dense(x, params["qkv"]),
        attention_bias,
        sizes.num_heads,
        lambda p: drop(p, dropout_seeds, site, config.attention_dropout_rate),
    )
    attended = dense(attended, params["attention_out"])
    x = x + drop(attended, dropout_seeds, site + 1, rate)
    x = layer_norm(x, **params["attention_layer_norm"], epsilon=eps)
    expanded = gelu(dense(x, params["feed_forward_in"]))
    x = x + drop(dense(expanded, params["feed_forward_out"]), dropout_seeds, site + 2, rate)
    return layer_norm(x, **params["output_layer_norm"], epsilon=eps)


def attention(qkv: jax.Array, bias: jax.Array, num_heads: int, drop: Callable) -> jax.Array:
    """Scaled dot-product attention, softmax in float32; [B, L, 3D] to [B, L, D]."""
    batch, length, width = qkv.shape
    head_size = width // 3 // num_heads
    qkv = qkv.reshape(batch, length, 3, num_heads, head_size)
    query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]  # [B, L, H, K]
    scores = float32_einsum("bqhk,bshk->bhqs", query, key)
    probabilities = jax.nn.softmax(scores * head_size**-0.5 + bias, axis=-1).astype(qkv.dtype)
    attended = jnp.einsum("bhqs,bshk->bqhk", drop(probabilities), value)
    return attended.reshape(batch, length, width // 3)


def drop(x: jax.Array, seeds: jax.Array | None, site: jax.Array | int, rate: float) -> jax.Array:
    """`dropout.dropout`, or `x` itself where there are no seeds or the rate is zero."""
    return x if seeds is None or rate == 0.0 else dropout(x, seeds, site, rate)


class GeneratorHead(nn.Module):
    """Masked-language-model head: transform to the embedding width, product with its table."""

    config: ElectraConfig
    in_features: int
    features: int

    @nn.compact
    def __call__(self, hidden: jax.Array, table: jax.Array) -> jax.Array:
        """hidden [B, P, D], table [V, E]; returns float32 logits [B, P, padded V].

        Columns past the vocabulary hold a logit so low that they are never sampled and add
        exactly nothing to a softmax.
        """
        config = self.config
        init = truncated_normal(config.init_stddev)
        x = gelu(dense(hidden, Dense(self.in_features, self.features, init, name="dense")()))
        norm = LayerNorm(self.features, name="layer_norm")()
        x = layer_norm(x, norm["scale"], norm["bias"], config.layer_norm_epsilon)
        bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))
        padding = config.padded_vocab_size - config.vocab_size
        table = jnp.pad(table.astype(x.dtype), ((0, padding), (0, 0)))
        bias = jnp.pad(bias, (0, padding), constant_values=MASKED)
        logits = float32_einsum("bpe,ve->bpv", x, table)
        return logits + _like(logits, bias)


class DiscriminatorHead(nn.Module):
    """Replaced-token-detection head: one logit a position; positive means "replaced"."""

    config: ElectraConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """[B, L, D] to float32 [B, L]."""
        width, init = self.config.hidden_size, truncated_normal(self.config.init_stddev)
        x = gelu(dense(hidden, Dense(width, width, init, name="dense")()))
        output = Dense(width, 1, nn.initializers.glorot_uniform(), name="output")()
        return dense(x.astype(jnp.float32), output)[..., 0]


class Electra(nn.Module):
    """Generator and discriminator with what they share.

    Parameters: `embeddings`, `encoder` and `discriminator_head` are the discriminator;
    `generator_encoder` and `generator_head` (and `generator_embeddings` where the tables are not
    shared) are the generator. Dropout is on where `dropout_seeds` are given (Linen's `rngs` are not
    used). Both `generate` and `discriminate` are pure functions of
    (params, arrays): `model.apply({"params": params}, ..., method="discriminate")`.
    """

    config: ElectraConfig

    def setup(self):
        config, generator = self.config, self.config.generator
        self.embeddings = Embeddings(config, config.embedding_size)
        self.encoder = Encoder(config, config.discriminator, config.embedding_size)
        self.discriminator_head = DiscriminatorHead(config)
        generator_width = config.embedding_size
        if config.sharing == "none":
            generator_width = generator.hidden_size
            self.generator_embeddings = Embeddings(config, generator_width)
        if config.sharing != "all":
            self.generator_encoder = Encoder(config, generator, generator_width)
        self.generator_head = GeneratorHead(config, generator.hidden_size, generator_width)

    def __call__(self, input_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs both networks on int [B, L]; exists so that `init` meets every parameter."""
        first_position = jnp.zeros((input_ids.shape[0], 1), jnp.int32)
        return self.generate(input_ids, first_position), self.discriminate(input_ids)

    def generate(
        self,
        input_ids: jax.Array,
        positions: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        dropout_seeds: jax.Array | None = None,
    ) -> jax.Array:
        """The generator's logits at some positions.

        Args:
          input_ids: int [B, L], with [MASK] where tokens are hidden.
          positions: int [B, P], where predictions are wanted.
          attention_mask: bool [B, L], False at padding; None: no padding.
          token_type_ids: int [B, L], the segment of each token; None: all 0.
          dropout_seeds: uint32 [B, 2]; None: no dropout.

        Returns:
          float32 [B, P, padded V].
        """
        shared = self.config.sharing != "none"
        embeddings = self.embeddings if shared else self.generator_embeddings
        encoder = self.encoder if self.config.sharing == "all" else self.generator_encoder
        arrays = (input_ids, attention_mask, token_type_ids, dropout_seeds)
        hidden = run_encoder(embeddings, encoder, *arrays, site=0)
        gathered = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)  # [B, P, D]
        return self.generator_head(gathered, embeddings.word)

    def discriminate(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        dropout_seeds: jax.Array | None = None,
    ) -> jax.Array:
        """The discriminator's logits, float32 [B, L]: positive where a token looks replaced."""
        hidden = self.encode(input_ids, attention_mask, token_type_ids, dropout_seeds)
        return self.discriminator_head(hidden)

    def encode(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        dropout_seeds: jax.Array | None = None,
    ) -> jax.Array:
        """The discriminator's last hidden states, [B, L, D] in the compute dtype."""
        arrays = (input_ids, attention_mask, token_type_ids, dropout_seeds)
        return run_encoder(self.embeddings, self.encoder, *arrays, site=DISCRIMINATOR_SITES)


def run_encoder(
    embeddings, encoder, input_ids, attention_mask, token_type_ids, dropout_seeds, *, site
) -> jax.Array:
    """Hidden states [B, L, D]; no mask means no padding, no token types mean one segment."""
    input_ids = jnp.asarray(input_ids, jnp.int32)
    if attention_mask is None:
        attention_mask = jnp.ones(input_ids.shape, bool)
    if token_type_ids is None:
        token_type_ids = jnp.zeros_like(input_ids)
    x = embeddings(input_ids, token_type_ids, dropout_seeds, site)
    return encoder(x, attention_mask.astype(bool), dropout_seeds, site)
