"""The networks: Linen modules whose `apply` is a pure function of (params, arrays).

Dimensions: B batch, L length, P masked positions, V vocabulary, E embedding width, D hidden
width, F feed-forward width, N layers, H heads, K head width.

Every tensor of the layers is stored once, stacked along a leading axis [N, ...]: few tensors for
the optimiser and the checkpoint, and the same parameters whether the layers are scanned or
written out (`unstack_layers` takes them apart, for inference). Dropout runs where `dropout_seeds`
are given (`dropout.dropout_seeds`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.attention import Mask
from electra_jax.config import ElectraConfig, EncoderConfig
from electra_jax.layers import (
    SITES_PER_LAYER,
    Dense,
    LayerNorm,
    dense,
    drop,
    gelu,
    layer_norm,
    transformer_layer,
    truncated_normal,
)
from electra_jax.vocabulary import Projection, logits_of

# Dropout sites: the generator's begin at 0, the discriminator's here; SITES_PER_LAYER for each
# layer after the one of the embeddings. Those of fine-tuning's heads come after both (`heads`).
DISCRIMINATOR_SITES = 1 << 16


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
    def __call__(self, x, attention_mask, dropout_seeds, site: int, positions=None) -> jax.Array:
        """[B, L, E] to [B, L, D]; or, where `positions` int [B, P] are given, to those [B, P, D].

        The last layer then computes no query and no feed-forward at any other position.
        """
        config, sizes = self.config, self.encoder
        if self.in_features != sizes.hidden_size:
            glorot = nn.initializers.glorot_uniform()  # tf.layers' default, as in the original
            x = dense(x, Dense(self.in_features, sizes.hidden_size, glorot, name="projection")())
        if config.stacked_layers:
            layers = Layers(config, sizes, (sizes.num_layers,), name="layers")()
        # Training rows are padded at their end; others need not be, but know no "cudnn".
        mask = Mask.of_tokens(attention_mask, are_first=config.attention == "cudnn")

        @keeping(config.remat)
        def layer(x, params, index, positions=None):
            layer_site = site + 1 + index * SITES_PER_LAYER
            return transformer_layer(
                params, x, mask, dropout_seeds, layer_site, config, sizes, positions
            )

        last = sizes.num_layers - 1
        if not config.scan_layers:
            if config.stacked_layers:
                layers = unstack(layers, sizes.num_layers)
            else:
                names = [f"layers_{index}" for index in range(sizes.num_layers)]
                layers = [Layers(config, sizes, name=name)() for name in names]
            for index in range(last):
                x = layer(x, layers[index], index)
            return layer(x, layers[last], last, positions)
        num_scanned = sizes.num_layers if positions is None else last
        scanned = jax.tree.map(lambda tensor: tensor[:num_scanned], layers)
        xs = scanned, jnp.arange(num_scanned)
        x, _ = jax.lax.scan(lambda x, xs: (layer(x, *xs), None), x, xs)
        if positions is None:
            return x
        return layer(x, jax.tree.map(lambda tensor: tensor[last], layers), last, positions)


def keeping(remat: str) -> Callable:
    """A decorator of layers: what of them the backward pass finds, and what it computes again."""
    if remat == "none":
        return lambda layer: layer
    policy = {
        # The matrix products with weights; attention and everything elementwise again.
        "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        # The input of each layer alone.
        "layers": jax.checkpoint_policies.nothing_saveable,
    }[remat]
    return functools.partial(jax.checkpoint, policy=policy)


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


class GeneratorHead(nn.Module):
    """Masked-language-model head: transform to the embedding width, product with its table."""

    config: ElectraConfig
    in_features: int
    features: int

    @nn.compact
    def __call__(self, hidden: jax.Array, table: jax.Array) -> Projection:
        """hidden [B, P, D], table [V, E]; returns what the logits [B, P, V] follow from."""
        config = self.config
        init = truncated_normal(config.init_stddev)
        x = gelu(dense(hidden, Dense(self.in_features, self.features, init, name="dense")()))
        norm = LayerNorm(self.features, name="layer_norm")()
        x = layer_norm(x, norm["scale"], norm["bias"], config.layer_norm_epsilon)
        bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))
        return Projection(features=x, table=table, bias=bias)


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
          float32 [B, P, padded V]; the columns past V are never likely.
        """
        arrays = (input_ids, positions, attention_mask, token_type_ids, dropout_seeds)
        return logits_of(self.project(*arrays), pad_multiple=self.config.vocab_pad_multiple)

    def project(
        self,
        input_ids: jax.Array,
        positions: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        dropout_seeds: jax.Array | None = None,
    ) -> Projection:
        """As `generate`, but for the product with the table: see `vocabulary`."""
        shared = self.config.sharing != "none"
        embeddings = self.embeddings if shared else self.generator_embeddings
        encoder = self.encoder if self.config.sharing == "all" else self.generator_encoder
        arrays = (input_ids, attention_mask, token_type_ids, dropout_seeds)
        hidden = run_encoder(embeddings, encoder, *arrays, site=0, positions=positions)
        return self.generator_head(hidden, embeddings.word)

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
    embeddings,
    encoder,
    input_ids,
    attention_mask,
    token_type_ids,
    dropout_seeds,
    *,
    site,
    positions=None,
) -> jax.Array:
    """Hidden states [B, L, D], or [B, P, D] at `positions` int [B, P].

    No mask means no padding, no token types mean one segment.
    """
    input_ids = jnp.asarray(input_ids, jnp.int32)
    if attention_mask is None:
        attention_mask = jnp.ones(input_ids.shape, bool)
    if token_type_ids is None:
        token_type_ids = jnp.zeros_like(input_ids)
    x = embeddings(input_ids, token_type_ids, dropout_seeds, site)
    return encoder(x, attention_mask.astype(bool), dropout_seeds, site, positions)
