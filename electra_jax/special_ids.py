"""The ids of special tokens: they come from the tokenizer everywhere, never from constants."""

from __future__ import annotations

from typing import NamedTuple


class SpecialIds(NamedTuple):
    """Ids of [PAD], [UNK], [CLS], [SEP] and [MASK]."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
