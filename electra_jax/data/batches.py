"""Batches as a pure function of the step: no iterator, no state, nothing to save or restore."""

from __future__ import annotations

from typing import Any

import numpy as np

from electra_jax.data.corpus import Corpus
from electra_jax.data.examples import packed_examples, segment_examples
from electra_jax.data.permutation import permute
from electra_jax.errors import UserError

EXAMPLE_FORMATS = ("segments", "packed")
SHORTEST_SEQ_LEN = 8
_ALL_ROWS = slice(None)


class TokenBatches:
    """Batches of token rows [CLS] A [SEP] (B [SEP]) [PAD]... cut from a corpus.

    Row i of the batch of step s is number g = s * batch_size + i of an endless sequence; epoch
    g // n of it holds all n examples once, in an order of its own. So a job that stops, resumes,
    or continues on another number of processes sees the same rows.

    Attributes:
      num_examples: examples in one epoch.
      num_batches: batches that hold one epoch, the last one perhaps partly.
      seq_len: tokens per row.
      batch_size: rows per batch, of all processes together.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        split: str = "train",
        seq_len: int,
        batch_size: int,
        seed: int = 0,
        example_format: str = "segments",
        shuffle: bool = True,
        repeat: bool = True,
    ):
        """Cuts the corpus into examples; no text is touched, no token is read.

        Args:
          corpus: where from.
          split: "train" or "validation".
          seq_len: tokens per row, special ones included; at least 8.
          batch_size: rows per batch, of all processes together.
          seed: of the cuts into examples and of the order.
          example_format: "segments" (`segment_examples`) or "packed" (`packed_examples`).
          shuffle: whether each epoch is shuffled; otherwise every one is in the corpus's order.
          repeat: whether epochs follow each other without end; otherwise rows past the first are
            all [PAD], so that an evaluation drops no example.

        Raises:
          UserError: if an argument is out of range, or the split is empty.
        """
        if seq_len < SHORTEST_SEQ_LEN:
            raise UserError(f"data.seq_len={seq_len} is too short: use {SHORTEST_SEQ_LEN} or more")
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be positive")
        if example_format not in EXAMPLE_FORMATS:
            raise UserError(
                f"data.example_format={example_format!r} is unknown: use one of "
                + ", ".join(EXAMPLE_FORMATS)
            )
        shards = corpus.shards(split)
        if not shards:
            raise UserError(
                f"corpus {corpus.path} has no {split} examples: prepare it from more than one "
                "document, with validation_fraction between 0 and 1"
            )
        self.seq_len = seq_len
        self.batch_size = batch_size
        self._seed, self._shuffle, self._repeat = seed, shuffle, repeat
        self._special = corpus.special_ids
        self._tokens = [shard.tokens for shard in shards]
        tables = [
            packed_examples(len(shard.tokens), seq_len=seq_len)
            if example_format == "packed"
            else segment_examples(
                shard.sentence_ends, shard.document_ends, seq_len=seq_len, seed=seed, shard_id=i
            )
            for i, shard in enumerate(shards)
        ]
        columns = zip(*tables, strict=True)
        self._start, self._first, self._second = (np.concatenate(column) for column in columns)
        self._shard_ends = np.cumsum([len(table.start) for table in tables])
        self.num_examples = len(self._start)
        self.num_batches = -(-self.num_examples // batch_size)

    def batch_at(self, step: int, rows: slice = _ALL_ROWS) -> dict[str, np.ndarray]:
        """The batch of a step, or some of its rows; only these are read.

        Args:
          step: number of the batch, from 0, without end.
          rows: which rows of the global batch, for a process that holds a part of it.

        Returns:
          `input_ids`, uint16 (uint32 if the vocabulary needs it) [rows, seq_len], and `row_ids`,
          uint32 [rows], each row's place in the endless sequence, modulo 2**32: a number to draw
          random numbers from that do not depend on how rows are spread over devices.
        """
        places = self._places(step, rows)
        return {
            "input_ids": self._rows(self._indices(places)),
            "row_ids": places.astype(np.uint32),
        }

    def places_at(self, step: int, rows: slice = _ALL_ROWS) -> dict[str, np.ndarray]:
        """Where the rows of a batch are, for a device that holds `tokens()`; nothing is read.

        Returns:
          start, first, second: int32 [rows], as of `resident.batch_from_tokens`.
          row_ids: as of `batch_at`.

        Raises:
          ValueError: for batches that do not repeat, which have rows of nothing.
        """
        if not self._repeat:
            raise ValueError("batches that end have rows which are nowhere")
        places = self._places(step, rows)
        indices = self._indices(places)
        shard = np.searchsorted(self._shard_ends, indices, "right")
        before = np.cumsum([0] + [len(tokens) for tokens in self._tokens])
        return {
            "start": (self._start[indices] + before[shard]).astype(np.int32),
            "first": self._first[indices].astype(np.int32),
            "second": self._second[indices].astype(np.int32),
            "row_ids": places.astype(np.uint32),
        }

    @property
    def num_tokens(self) -> int:
        """Tokens of the split, special ones left out."""
        return sum(len(tokens) for tokens in self._tokens)

    def tokens(self) -> np.ndarray:
        """All of them in one array, uint16 or uint32 [num_tokens]: a copy in memory."""
        return np.concatenate(self._tokens)

    def like(self, rows: slice = _ALL_ROWS) -> dict[str, np.ndarray]:
        """Zeros in the shapes and dtypes of `batch_at`, without memory; nothing is read."""
        count = len(range(*rows.indices(self.batch_size)))
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "input_ids": ((count, self.seq_len), self._tokens[0].dtype),
            "row_ids": ((count,), np.uint32),
        }
        return {
            name: np.broadcast_to(np.zeros((), dtype), shape)
            for name, (shape, dtype) in shapes.items()
        }

    def example_at(self, index: int) -> np.ndarray:
        """Row number `index` in the corpus's order: uint16 or uint32 [seq_len].

        Raises:
          IndexError: if `index` is not in [0, num_examples).
        """
        if not 0 <= index < self.num_examples:
            raise IndexError(f"index={index} is not in [0, {self.num_examples})")
        return self._rows(np.array([index]))[0]

    def _places(self, step: int, rows: slice) -> np.ndarray:
        return step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)[rows]

    def _indices(self, places: np.ndarray) -> np.ndarray:
        """Examples at places of the endless sequence: int64 [rows], -1 where there is none."""
        epochs, indices = np.divmod(places, self.num_examples)
        if self._shuffle:
            for epoch in np.unique(epochs).tolist():
                of_epoch = epochs == epoch
                indices[of_epoch] = permute(
                    indices[of_epoch], length=self.num_examples, seed=self._seed, epoch=epoch
                )
        if not self._repeat:
            indices[epochs > 0] = -1
        return indices

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        """Reads examples: integer [rows, seq_len]; all [PAD] where the index is -1."""
        result = np.full((len(indices), self.seq_len), self._special.pad, self._tokens[0].dtype)
        present = np.flatnonzero(indices >= 0)
        indices = indices[present]
        start, first, second = self._start[indices], self._first[indices], self._second[indices]
        shard = np.searchsorted(self._shard_ends, indices, "right")
        # Two copies a row are faster than index arithmetic for every token, for any number of
        # shards, and read only what they need.
        columns = (present, shard, start, first, second)
        for row, k, begin, a, b in zip(*(column.tolist() for column in columns), strict=True):
            tokens, target = self._tokens[k], result[row]
            middle = begin + a
            target[1 : a + 1] = tokens[begin:middle]
            if b:
                target[a + 2 : a + 2 + b] = tokens[middle : middle + b]
        result[present, 0] = self._special.cls
        result[present, first + 1] = self._special.sep
        # Without B this is the same place.
        result[present, first + second + 1 + (second > 0)] = self._special.sep
        return result
