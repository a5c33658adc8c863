"""BERT's ids for many texts at once, by remembering those of every chunk between spaces.

BERT's tokenisation never looks across a space, drops NUL characters, and makes each ASCII
punctuation mark a word of its own. So a batch of texts is joined and cut by three of Python's
fastest operations, each different chunk is tokenised once, and NumPy puts the ids together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

# Stands for the end of a text. In texts it is dropped, as BERT does.
_END = "\0"
# Common punctuation marks get spaces around them: this halves the number of different chunks.
# The bracket is among them so that no chunk but itself can spell a special token.
_SPACED = ',.()":-' + "'["
# Longer chunks hardly ever come back.
_MAX_CHARACTERS = 64
# Bounds of the memory, some 100 MB: when one is passed, everything is forgotten.
_MAX_CHUNKS = 1 << 19
_MAX_IDS = 1 << 22
# Characters that are worked on at a time, so that memory does not grow with the batch.
_SLICE = 1 << 20


class ChunkCache:
    """Encodes batches of texts, equal to BERT's tokenisation of each. Not for several threads."""

    def __init__(
        self,
        encode: Callable[[list[str]], tuple[np.ndarray, np.ndarray]],
        dtype: np.dtype,
    ):
        """Makes an empty cache.

        Args:
          encode: from chunks to their ids, `dtype` [total], and to how many each has, integer
            [chunks]. No chunk has a bracket in it, unless it is just one.
          dtype: type of the ids.
        """
        self._encode = encode
        self._dtype = dtype
        self._forget()

    def _forget(self) -> None:
        self._numbers = _Numbers()
        self._ids = np.zeros(0, self._dtype)
        self._num_ids = 0
        # Chunk i has ids [offsets[i], offsets[i + 1]); chunk 0 is the end of a text and has none.
        self._offsets = np.zeros(2, np.int64)
        self._numbers[_END] = 0
        self._numbers.size = 1

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of texts: (`dtype` [total], int64 [texts])."""
        results = [self._encode_slice(part) for part in _slices(texts)]
        if len(results) == 1:
            return results[0]
        ids, lengths = zip(*results, strict=True) if results else ((), ())
        return (
            np.concatenate([np.zeros(0, self._dtype), *ids]),
            np.concatenate([np.zeros(0, np.int64), *lengths]),
        )

    def _encode_slice(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._numbers.size > _MAX_CHUNKS or self._num_ids > _MAX_IDS:
            self._forget()
        joined = _END.join(texts)
        if joined.count(_END) >= len(texts):
            joined = _END.join([text.replace(_END, "") for text in texts])
        joined += _END
        for mark in (_END, *_SPACED):
            joined = joined.replace(mark, f" {mark} ")
        chunks = joined.split(" ")
        numbers = np.fromiter(map(self._numbers.__getitem__, chunks), np.int64, len(chunks))
        if self._numbers.new:
            try:
                self._learn(self._numbers.take_new())
            except BaseException:
                self._forget()  # Numbers without ids must not stay.
                raise
        # The ids of chunk after chunk: from `start` of each, `length` consecutive ones.
        start = self._offsets[numbers]
        length = self._offsets[numbers + 1] - start
        end = np.cumsum(length)
        positions = np.repeat(start - end + length, length)
        positions += np.arange(len(positions))
        return self._ids[positions], np.diff(end[numbers == 0], prepend=0)

    def _learn(self, chunks: list[str]) -> None:
        """Tokenises chunks and appends them to the tables."""
        ids, lengths = self._encode(chunks)
        first = self._numbers.size - len(chunks)
        offsets = self._num_ids + np.cumsum(lengths)
        self._ids = _put(self._ids, self._num_ids, ids)
        self._offsets = _put(self._offsets, first + 1, offsets)
        self._num_ids += len(ids)


class _Numbers(dict[str, int]):
    """Numbers chunks in the order in which they are first asked for; an unknown one costs a call
    of `__missing__`, a known one none."""

    def __init__(self):
        super().__init__()
        self.size = 0
        self.new: list[str] = []

    def __missing__(self, chunk: str) -> int:
        number = self.size + len(self.new)
        self.new.append(chunk)
        if len(chunk) <= _MAX_CHARACTERS:
            self[chunk] = number
        return number

    def take_new(self) -> list[str]:
        """The chunks that have been numbered since the last call."""
        new, self.new = self.new, []
        self.size += len(new)
        return new


def _slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive texts of about `_SLICE` characters."""
    start = characters = 0
    for i, text in enumerate(texts):
        characters += len(text)
        if characters >= _SLICE:
            yield texts[start : i + 1]
            start, characters = i + 1, 0
    if start < len(texts):
        yield texts[start:]


def _put(table: np.ndarray, size: int, values: np.ndarray) -> np.ndarray:
    """The table with values from position `size` on; if it is full, one of twice the length."""
    if size + len(values) > len(table):
        table = np.concatenate([table[:size], np.zeros(max(size, len(values)), table.dtype)])
    table[size : size + len(values)] = values
    return table
