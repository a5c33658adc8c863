"""Gradient-disentangled sharing of embeddings, and how it ends.

He et al. 2021 (DeBERTaV3), section 3.2: the discriminator's tables are the generator's, through
which it sends no gradient, plus differences that it alone trains.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from electra_jax.config import ElectraConfig

# Tables that are held as differences; in the code of DeBERTa absolute positions have them too.
_DIFFERENCES = ("word", "position")


def add_differences(config: ElectraConfig, params: Any) -> tuple[ElectraConfig, Any]:
    """What `sharing="disentangled"` holds apart, added up: `sharing="apart"`.

    The networks compute the same; the encoder can then be used without the generator's tables.
    Parameters of another kind of sharing are returned as they are.
    """
    if config.sharing != "disentangled" or "generator_embeddings" not in params:
        return config, params
    ours, base = params["embeddings"], params["generator_embeddings"]
    added = {name: ours[name] + base[name] for name in _DIFFERENCES if name in ours}
    config = dataclasses.replace(config, sharing="apart")
    return config, params | {"embeddings": ours | added}


def take_differences(params: Any) -> Any:
    """The way back of `add_differences`; without tables of a generator its base is the encoder's.

    Args:
      params: with `embeddings`, and perhaps `generator_embeddings` as wide.
    """
    ours = params["embeddings"]
    base = params.get("generator_embeddings", ours)
    differences = {name: ours[name] - base[name] for name in _DIFFERENCES if name in ours}
    return params | {"generator_embeddings": base, "embeddings": ours | differences}
