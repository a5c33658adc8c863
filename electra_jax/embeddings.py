"""What tokens become before the first layer."""

from __future__ import annotations

import flax.linen as nn
import jax

from electra_jax.config import ElectraConfig
from electra_jax.layers import LayerNorm, drop, layer_norm, truncated_normal


class Embeddings(nn.Module):
    """Word, position and type tables, summed and normalised.

    With `are_differences` those of words and positions begin at zero, and are added to another
    module's, `base`, to which no gradient goes.
    """

    config: ElectraConfig
    features: int
    are_differences: bool = False

    def setup(self):
        config, init = self.config, truncated_normal(self.config.init_stddev)
        of_tables = nn.initializers.zeros if self.are_differences else init
        self.word = self.param("word", of_tables, (config.vocab_size, self.features))
        self.position = self.param("position", of_tables, (config.max_positions, self.features))
        self.token_type = self.param("token_type", init, (config.type_vocab_size, self.features))
        self.norm = LayerNorm(self.features, name="layer_norm")

    def __call__(self, input_ids, token_type_ids, dropout_seeds, site: int, base=None) -> jax.Array:
        """Returns [B, L, E] in the compute dtype.

        Raises:
          ValueError: if L is more than the positions.
        """
        config, norm = self.config, self.norm()
        check_length(input_ids, config)
        x = self.word[input_ids] + self.token_type[token_type_ids]
        x = x + self.position[None, : input_ids.shape[1]]
        if base is not None:
            x = x + jax.lax.stop_gradient(
                base.word[input_ids] + base.position[None, : input_ids.shape[1]]
            )
        x = layer_norm(x, **norm, epsilon=config.layer_norm_epsilon)
        x = x.astype(config.dtype)
        return drop(x, dropout_seeds, site, config.dropout_rate)


class WordEmbeddings(nn.Module):
    """A word table, normalised: what an architecture with rotary positions reads.

    There is no table of token types; [SEP] alone says where a second segment begins.
    """

    config: ElectraConfig
    features: int
    are_differences: bool = False

    def setup(self):
        init = truncated_normal(self.config.init_stddev)
        of_table = nn.initializers.zeros if self.are_differences else init
        self.word = self.param("word", of_table, (self.config.vocab_size, self.features))
        self.norm = LayerNorm(self.features, use_bias=False, name="layer_norm")

    def __call__(self, input_ids, token_type_ids, dropout_seeds, site: int, base=None) -> jax.Array:
        """As of `Embeddings`; the token types are not looked at."""
        del token_type_ids
        config = self.config
        check_length(input_ids, config)
        x = self.word[input_ids]
        if base is not None:
            x = x + jax.lax.stop_gradient(base.word[input_ids])
        x = layer_norm(x, **self.norm(), epsilon=config.layer_norm_epsilon)
        return drop(x.astype(config.dtype), dropout_seeds, site, config.dropout_rate)


def check_length(input_ids: jax.Array, config: ElectraConfig) -> None:
    """Raises ValueError if L is more than the positions."""
    if input_ids.shape[1] > config.max_positions:
        raise ValueError(
            f"{input_ids.shape[1]} tokens, but model.max_positions={config.max_positions}"
        )


_KINDS = {"bert": Embeddings, "modern": WordEmbeddings}


def make_embeddings(config: ElectraConfig, features: int, **kwargs) -> nn.Module:
    """The embeddings of an architecture, so wide."""
    return _KINDS[config.architecture](config, features, **kwargs)
