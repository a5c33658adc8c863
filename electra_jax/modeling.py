"""The networks: Linen modules whose `apply` is a pure function of (params, arrays).

Dimensions: B batch, L length, P masked positions, V vocabulary, E embedding width, D hidden
width, F feed-forward width, N layers, H heads, K head width.

Every tensor of the layers is stored once, stacked along a leading axis [N, ...]: few tensors for
the optimiser and the checkpoint, and the same parameters whether the layers are scanned or
written out (`layers.unstack_layers` takes them apart, for inference). Dropout runs where
`dropout_seeds` are given (`dropout.dropout_seeds`).
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.architectures import ARCHITECTURES
from electra_jax.attention import Mask
from electra_jax.config import ElectraConfig, EncoderConfig
from electra_jax.embeddings import make_embeddings
from electra_jax.layers import (
    SITES_PER_LAYER,
    Dense,
    LayerNorm,
    dense,
    gelu,
    keeping,
    layer_norm,
    truncated_normal,
    unstack,
)
from electra_jax.vocabulary import Projection, logits_of

# Dropout sites: the generator's begin at 0, the discriminator's here; SITES_PER_LAYER for each
# layer after the one of the embeddings. Those of fine-tuning's heads come after both (`heads`).
DISCRIMINATOR_SITES = 1 << 16
_BACKWARD_TOWER_SITES = 1 << 15


class Encoder(nn.Module):
    """A projection where the widths differ, then N Transformer layers of an architecture."""

    config: ElectraConfig
    encoder: EncoderConfig
    in_features: int

    @nn.compact
    def __call__(
        self, x, attention_mask, dropout_seeds, site: int, positions=None, may_look=None
    ) -> jax.Array:
        """[B, L, E] to [B, L, D]; or, where `positions` int [B, P] are given, to those [B, P, D].

        The last layer then computes no query and no feed-forward at any other position. No position
        looks where `may_look`, bool [1, L, L] (from, to), forbids it.
        """
        config, sizes = self.config, self.encoder
        parts = ARCHITECTURES[config.architecture]
        if self.in_features != sizes.hidden_size:
            glorot = nn.initializers.glorot_uniform()  # tf.layers' default, as in the original
            widths = self.in_features, sizes.hidden_size
            x = dense(x, Dense(*widths, glorot, use_bias=config.biases, name="projection")())
        if config.stacked_layers:
            layers = parts.layers(config, sizes, (sizes.num_layers,), name="layers")()
        # Training rows are padded at their end; others need not be, but know no "cudnn".
        mask = Mask.of_tokens(attention_mask, are_first=config.attention == "cudnn")
        mask = mask if may_look is None else mask.only(may_look)
        context = parts.context(mask, x.shape[1], config, sizes)

        @keeping(config.remat)
        def layer(x, params, index, positions=None):
            layer_site = site + 1 + index * SITES_PER_LAYER
            return parts.layer(
                params, x, index, context, dropout_seeds, layer_site, config, sizes, positions
            )

        last = sizes.num_layers - 1
        if not config.scan_layers:
            if config.stacked_layers:
                layers = unstack(layers, sizes.num_layers)
            else:
                names = [f"layers_{index}" for index in range(sizes.num_layers)]
                layers = [parts.layers(config, sizes, name=name)() for name in names]
            for index in range(last):
                x = layer(x, layers[index], index)
            return parts.finish(layer(x, layers[last], last, positions), config)
        num_scanned = sizes.num_layers if positions is None else last
        scanned = jax.tree.map(lambda tensor: tensor[:num_scanned], layers)
        xs = scanned, jnp.arange(num_scanned)
        x, _ = jax.lax.scan(lambda x, xs: (layer(x, *xs), None), x, xs)
        if positions is not None:
            x = layer(x, jax.tree.map(lambda tensor: tensor[last], layers), last, positions)
        return parts.finish(x, config)


class GeneratorHead(nn.Module):
    """Masked-language-model head: transform to the embedding width, product with its table."""

    config: ElectraConfig
    in_features: int
    features: int

    @nn.compact
    def __call__(self, hidden: jax.Array, table: jax.Array) -> Projection:
        """hidden [B, P, D], table [V, E]; returns what the logits [B, P, V] follow from."""
        config = self.config
        init, biases = truncated_normal(config.init_stddev), config.biases
        widths = self.in_features, self.features
        x = gelu(dense(hidden, Dense(*widths, init, use_bias=biases, name="dense")()))
        norm = LayerNorm(self.features, use_bias=biases, name="layer_norm")()
        x = layer_norm(x, **norm, epsilon=config.layer_norm_epsilon)
        bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))
        return Projection(features=x, table=table, bias=bias)


class DiscriminatorHead(nn.Module):
    """Replaced-token-detection head: one logit a position; positive means "replaced"."""

    config: ElectraConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """[B, L, D] to float32 [B, L]."""
        config, width = self.config, self.config.hidden_size
        init, biases = truncated_normal(config.init_stddev), config.biases
        x = gelu(dense(hidden, Dense(width, width, init, use_bias=biases, name="dense")()))
        if config.architecture == "modern":  # as its token classifiers in Hugging Face have it
            norm = LayerNorm(width, use_bias=biases, name="layer_norm")()
            x = layer_norm(x, **norm, epsilon=config.layer_norm_epsilon)
        output = Dense(width, 1, nn.initializers.glorot_uniform(), name="output")()
        return dense(x.astype(jnp.float32), output)[..., 0]


class Electra(nn.Module):
    """Generator and discriminator with what they share.

    Parameters: `embeddings`, `encoder` and `discriminator_head` are the discriminator;
    `generator_encoder` and `generator_head` (and `generator_embeddings` where the tables are not
    shared, `generator_encoder_backward` of two towers) are the generator. Dropout is on where
    `dropout_seeds` are given (Linen's `rngs` are not used). All methods are pure functions of
    (params, arrays): `model.apply({"params": params}, ..., method="discriminate")`.
    """

    config: ElectraConfig

    def setup(self):
        config, generator = self.config, self.config.generator
        width = config.generator_embedding_size
        self.embeddings = make_embeddings(
            config, config.embedding_size, are_differences=config.sharing == "disentangled"
        )
        self.encoder = Encoder(config, config.discriminator, config.embedding_size)
        self.discriminator_head = DiscriminatorHead(config)
        if config.extra_head == "tokens":
            self.token_head = GeneratorHead(config, config.hidden_size, config.embedding_size)
        if config.generator_kind == "none":
            return
        if config.sharing not in ("embeddings", "all"):
            self.generator_embeddings = make_embeddings(config, width)
        if config.sharing != "all":
            self.generator_encoder = Encoder(config, generator, width)
        num_towers = 1
        if config.generator_kind == "two_towers":
            num_towers = 2
            self.generator_encoder_backward = Encoder(config, generator, width)
        hidden_size = num_towers * generator.hidden_size
        self.generator_head = GeneratorHead(config, hidden_size, width)
        if config.extra_head == "baseline":
            self.generator_baseline = Dense(hidden_size, 1, nn.initializers.zeros)

    def __call__(self, input_ids: jax.Array) -> Any:
        """Runs every part on int [B, L]; exists so that `init` meets every parameter."""
        first_position = jnp.zeros((input_ids.shape[0], 1), jnp.int32)
        outputs: list[Any] = [self.discriminate(input_ids)]
        if self.config.generator_kind != "none":
            outputs.append(self.generate(input_ids, first_position))
        if self.config.extra_head == "tokens":
            outputs.append(self.reconstruct(input_ids))
        if self.config.extra_head == "baseline":
            outputs.append(self.project_and_judge(input_ids, first_position))
        return outputs

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
          attention_mask: bool [B, L], False at padding; None: no padding. Integers are 0 at padding
            and else numbers of the texts that share a row, each of which looks at itself alone.
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
        """As `generate`, but for the product with the table: see `vocabulary`.

        Two towers predict the token at each position from all tokens but that one; the first and
        the last of a row, which are never masked, from themselves, too.
        """
        arrays = (input_ids, attention_mask, token_type_ids, dropout_seeds)
        embeddings, hidden = self._generator_hidden(positions, *arrays)
        return self.generator_head(hidden, embeddings.word)

    def project_and_judge(
        self,
        input_ids: jax.Array,
        positions: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        dropout_seeds: jax.Array | None = None,
    ) -> tuple[Projection, jax.Array]:
        """As `project`, and a logit of each position that sends no gradient to the encoder.

        Needs `extra_head="baseline"`; the second is float32 [B, P].
        """
        arrays = (input_ids, attention_mask, token_type_ids, dropout_seeds)
        embeddings, hidden = self._generator_hidden(positions, *arrays)
        fixed = jax.lax.stop_gradient(hidden).astype(jnp.float32)
        return (
            self.generator_head(hidden, embeddings.word),
            dense(fixed, self.generator_baseline())[..., 0],
        )

    def _generator_hidden(self, positions, input_ids, *arrays) -> tuple[nn.Module, jax.Array]:
        """Tables of the generator, and what its head is given: [B, P, D] (two towers: 2D)."""
        shared = self.config.sharing in ("embeddings", "all")
        embeddings = self.embeddings if shared else self.generator_embeddings
        encoder = self.encoder if self.config.sharing == "all" else self.generator_encoder
        arrays = (input_ids, *arrays)
        if self.config.generator_kind != "two_towers":
            hidden = run_encoder(embeddings, encoder, *arrays, site=0, positions=positions)
            return embeddings, hidden
        last = jnp.asarray(input_ids).shape[1] - 1
        index = jnp.arange(last + 1)
        up_to = (index[:, None] >= index[None])[None]  # [1, L, L]
        forward, backward = (
            functools.partial(encoder, may_look=may_look)
            for encoder, may_look in (
                (encoder, up_to),
                (self.generator_encoder_backward, up_to.swapaxes(1, 2)),
            )
        )
        before, after = jnp.maximum(positions - 1, 0), jnp.minimum(positions + 1, last)
        towers = [
            run_encoder(embeddings, forward, *arrays, site=0, positions=before),
            run_encoder(embeddings, backward, *arrays, site=_BACKWARD_TOWER_SITES, positions=after),
        ]
        return embeddings, jnp.concatenate(towers, axis=-1)

    def reconstruct(
        self,
        input_ids: jax.Array,
        positions: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        dropout_seeds: jax.Array | None = None,
    ) -> tuple[Projection, jax.Array]:
        """What the encoder says of tokens, and its detection logits, at some positions or all.

        Needs `extra_head="tokens"`.

        Args:
          positions: int [B, P]; None: all, P = L.

        Returns:
          What the logits of each position follow from, and float32 [B, P].
        """
        arrays = (input_ids, attention_mask, token_type_ids, dropout_seeds)
        hidden = self._encode(*arrays, positions=positions)
        return self.token_head(hidden, self._word_table()), self.discriminator_head(hidden)

    def _word_table(self) -> jax.Array:
        if self.config.sharing != "disentangled":
            return self.embeddings.word
        return self.embeddings.word + jax.lax.stop_gradient(self.generator_embeddings.word)

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
        return self._encode(input_ids, attention_mask, token_type_ids, dropout_seeds)

    def _encode(self, *arrays, positions=None) -> jax.Array:
        embeddings = self.embeddings
        if self.config.sharing == "disentangled":
            embeddings = functools.partial(embeddings, base=self.generator_embeddings)
        return run_encoder(
            embeddings, self.encoder, *arrays, site=DISCRIMINATOR_SITES, positions=positions
        )


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
    return encoder(x, attention_mask, dropout_seeds, site, positions)
