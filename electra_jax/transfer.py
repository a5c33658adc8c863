"""From pre-trained parameters to those of another network: by name, all or nothing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from electra_jax.config import ElectraConfig
from electra_jax.errors import UserError
from electra_jax.optimizer import parameter_name

# What fine-tuning makes anew, and what it does not need of a pre-trained tree.
FRESH = (r"^head/",)
IGNORED = (r"^generator_", r"^(discriminator|token)_head/")

# Two encoders that agree in these compute the same; the rest is about generators and training.
_ENCODER_FIELDS = (
    "architecture vocab_size embedding_size hidden_size num_layers num_heads intermediate_size "
    "max_positions type_vocab_size layer_norm_epsilon local_window global_every rope_theta_global "
    "rope_theta_local"
).split()


def check_same_encoder(pretrained: ElectraConfig, wanted: ElectraConfig) -> None:
    """Refuses to put one encoder's parameters into another, also where the shapes would fit.

    Raises:
      UserError: listing every field that differs, with both values.
    """
    ours, theirs = dataclasses.asdict(wanted), dataclasses.asdict(pretrained)
    different = [
        f"model.{name}={ours[name]} (pretrained: {theirs[name]})"
        for name in _ENCODER_FIELDS
        if ours[name] != theirs[name]
    ]
    if different:
        raise UserError(
            f"{', '.join(different)}: the model is not the pretrained one: take its values"
        )


def transfer_params(
    pretrained: Any,
    initialised: Any,
    *,
    fresh: Sequence[str] = FRESH,
    ignored: Sequence[str] = IGNORED,
) -> Any:
    """Pre-trained values where the names match, fresh ones where they are meant to be fresh.

    Args:
      pretrained: a tree of arrays, such as `checkpoint.load_params` gives.
      initialised: the new network's parameters.
      fresh: patterns searched in names like "head/output/kernel". Parameters of these names are
        taken from `initialised`, whatever `pretrained` holds of them.
      ignored: patterns of names that `pretrained` may hold in excess.

    Returns:
      A tree like `initialised`, with its shapes and dtypes.

    Raises:
      UserError: listing every parameter that only one side has and every unequal shape.
    """
    ours, theirs = _by_name(initialised), _by_name(pretrained)

    def is_any(patterns, name):
        return any(re.search(pattern, name) for pattern in patterns)

    wanted = {name for name in ours if not is_any(fresh, name)}
    given = {name for name in theirs if not is_any(fresh, name)}
    missing = sorted(wanted - given)
    unexpected = sorted(name for name in given - wanted if not is_any(ignored, name))
    unequal = [
        f"{name} {list(np.shape(theirs[name]))} for {list(np.shape(ours[name]))}"
        for name in sorted(wanted & given)
        if np.shape(theirs[name]) != np.shape(ours[name])
    ]
    problems = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape than the model's", unequal),
    )
    if any(names for _, names in problems):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems if names)
        raise UserError(
            f"the pretrained parameters do not fit the model: {listed}. Give the model the sizes "
            "of the pretrained one, or another pretrained one"
        )

    def take(path, leaf):
        name = parameter_name(path)
        return theirs[name].astype(leaf.dtype) if name in wanted else leaf

    return jax.tree_util.tree_map_with_path(take, initialised)


def _by_name(tree: Any) -> dict[str, Any]:
    return {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
