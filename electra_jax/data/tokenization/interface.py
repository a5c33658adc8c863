"""What the rest of the package asks of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from electra_jax.special_ids import SpecialIds

# In the order of `SpecialIds`; tokenizers that are trained here have them as ids 0 to 4.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer(Protocol):
    """Text to ids and back. Any string has ids: what UTF-8 cannot hold is read as U+FFFD."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included; ids are in [0, vocab_size)."""

    @property
    def special_ids(self) -> SpecialIds:
        """Ids of the special tokens."""

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the ids (kind, normalisation, vocabulary checksum), JSON-compatible."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, no special tokens added."""

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same ids one after the other, faster.

        Returns:
          ids: unsigned integer [total].
          lengths: int64 [len(texts)], how many of them each text has.
        """

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of one text, and where in it each comes from.

        Returns:
          ids: unsigned integer [n], those of `encode_batch`.
          offsets: int32 [n, 2], the characters [start, end) of the text as it was given; starts
            and ends never fall. A piece may stand for no character, or for the space before it.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text of ids, special tokens spelled out."""

    def piece(self, i: int) -> str:
        """The piece of an id as the vocabulary spells it: "##ing" and the like."""

    def save(self, directory: str | Path) -> list[str]:
        """Writes the tokenizer's files to an existing directory and returns their names."""


def id_dtype(vocab_size: int) -> np.dtype:
    """The type of ids in flat arrays: uint16 below 65,536 ids, otherwise uint32."""
    return np.dtype(np.uint16 if vocab_size < 1 << 16 else np.uint32)
