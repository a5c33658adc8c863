"""What a run takes from the model that it begins with, and what it draws anew."""

import dataclasses

import jax
import numpy as np
import pytest

from electra_jax.modeling import Electra
from electra_jax.pretrained import Pretrained
from electra_jax.warm_start import start_params


class Pieces:
    """As much of a tokenizer as is asked for."""

    settings = {"kind": "wordpiece"}


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"generator_kind": "two_towers", "sharing": "none"},
        {"sharing": "none"},
        {"generator_size": 0.25},
    ],
    ids=str,
)
def test_a_generator_of_another_kind_or_shape_is_drawn_anew(config, random_params, other):
    theirs = dataclasses.replace(config, **other)
    pretrained = Pretrained(theirs, random_params(Electra(theirs), seed=1), Pieces(), {})
    fresh = random_params(Electra(config), seed=2)
    params, notes = start_params(pretrained, config, fresh, Pieces())
    for part in fresh:
        is_fresh = bool(other) and part.startswith("generator_")
        wanted = fresh if is_fresh else pretrained.params
        jax.tree.map(np.testing.assert_array_equal, params[part], wanted[part])
    drawn = ["the generator starts at random (it has one of another kind or shape)"] * bool(other)
    assert [note.partition(":")[0] for note in notes] == drawn
