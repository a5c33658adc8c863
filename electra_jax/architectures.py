"""What an encoder is made of, by the name of its architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from electra_jax.layers import Layers, transformer_layer
from electra_jax.modern import ModernLayers, final_norm, modern_layer, views


class Architecture(NamedTuple):
    """Parts of an encoder.

    Attributes:
      layers: the module that declares their tensors.
      context: from (mask, length, config, sizes) to what all layers share.
      layer: from (params, x, index, context, dropout seeds, site, config, sizes, positions) to
        [B, L, D], or [B, P, D] at `positions`.
      finish: from (x, config) to what comes out of the encoder.
    """

    layers: type[nn.Module]
    context: Callable[..., Any]
    layer: Callable[..., Any]
    finish: Callable[..., Any]


def _bert_layer(params, x, index, mask, dropout_seeds, site, config, sizes, positions):
    del index  # they are all alike
    return transformer_layer(params, x, mask, dropout_seeds, site, config, sizes, positions)


ARCHITECTURES = {
    "bert": Architecture(
        layers=Layers,
        context=lambda mask, length, config, sizes: mask,
        layer=_bert_layer,
        finish=lambda x, config: x,
    ),
    "modern": Architecture(ModernLayers, views, modern_layer, final_norm),
}
