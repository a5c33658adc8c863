"""From encoded parts to shards: which documents are kept, which are held out, where each goes.

Everything here depends on the documents and their order alone, not on which process encoded what.
Memory does not grow with the corpus, but for 8 bytes for each duplicate and the names of the parts.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data import storage
from electra_jax.data.build.parts import PartName, read_hashes, read_outline, read_part
from electra_jax.data.shards import (
    Shard,
    document_lengths,
    select_documents,
    sentences_of_documents,
)

# Hashes looked at together: about 70 bytes each while they are sorted.
_BUCKET_HASHES = 1 << 21


class ShardPlan(NamedTuple):
    """One shard to write: the documents of `split` among those numbered first to stop - 1.

    Attributes:
      split: "train" or "validation".
      index: number of the shard in its split.
      first: number of the first document, counted over all parts.
      stop: number of the document after the last one.
      parts: the parts they are in, with the number of the first document of each.
      dropped: int64, ascending: numbers of documents among them that are not kept.
      num_documents: of the shard.
      num_sentences: of the shard.
      num_tokens: of the shard, the [SEP]s left out.
    """

    split: str
    index: int
    first: int
    stop: int
    parts: tuple[tuple[PartName, int], ...]
    dropped: np.ndarray
    num_documents: int
    num_sentences: int
    num_tokens: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.split}-{self.index:05d}"


class Held(NamedTuple):
    """Which documents are held out for validation.

    Attributes:
      threshold: those whose hash, the first of its two numbers, is below this.
      also: number of one more document, or -1.
    """

    threshold: int
    also: int


class Layout(NamedTuple):
    """Where all documents go.

    Attributes:
      shards: in the order of the corpus.
      held: which documents are held out.
      duplicates: number of documents left out because an earlier one has the same text.
      unknown: tokens that are [UNK] in the documents that are kept.
    """

    shards: list[ShardPlan]
    held: Held
    duplicates: int
    unknown: int


def find_duplicates(
    hashes: Iterable[np.ndarray],
    total: int,
    bucket: int = _BUCKET_HASHES,
    directory: str | None = None,
) -> np.ndarray:
    """Numbers of the documents whose hash an earlier document has: int64, ascending.

    Args:
      hashes: uint64 [documents, 2] of consecutive documents.
      total: how many there are at most.
      bucket: how many to have in memory; further ones go through temporary files.
      directory: where those are; None: the system's place.
    """
    num_buckets = -(-total // bucket) or 1
    columns = np.dtype([("high", "u8"), ("low", "u8"), ("number", "i8")])
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(
                tempfile.SpooledTemporaryFile(
                    columns.itemsize * bucket // num_buckets, dir=directory
                )
            )
            for _ in range(num_buckets)
        ]
        number = 0
        for part in hashes:
            rows = np.empty(len(part), columns)
            rows["high"], rows["low"] = part.T
            rows["number"] = np.arange(number, number + len(part))
            number += len(part)
            # Hashes are uniform, and so are the buckets. (Not by the high bits: those also choose
            # what is held out.)
            chosen = rows["low"] % np.uint64(num_buckets)
            for i, file in enumerate(files):
                file.write(rows[chosen == i].tobytes())
        return np.sort(np.concatenate([_repeated(file, columns) for file in files]))


def _repeated(file, columns: np.dtype) -> np.ndarray:
    file.seek(0)
    rows = np.frombuffer(file.read(), columns)
    # Documents are in the order of their numbers, and lexsort keeps it among equals.
    order = np.lexsort((rows["low"], rows["high"]))
    high, low = rows["high"][order], rows["low"][order]
    again = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return rows["number"][order[1:]][again]


def lay_out(
    directory: str,
    parts: Sequence[PartName],
    *,
    validation_fraction: float,
    shard_tokens: int,
    keep_duplicates: bool = False,
) -> Layout:
    """Decides where the documents of a build's parts go.

    A document is held out if its hash, taken as a number in [0, 1), is below
    `validation_fraction`: that does not depend on the rest of the corpus. If it selects none of two
    or more documents, the one with the smallest hash is held out alone.

    Args:
      directory: of the build.
      parts: all of its parts, in order.
      validation_fraction: in [0, 1); 0: none is held out.
      shard_tokens: a shard ends with the document that brings it to so many tokens.
      keep_duplicates: whether documents of equal text are all kept; otherwise the first one is.
    """
    firsts, total, smallest = [], 0, (1 << 64, -1)
    for name in parts:
        hashes = read_hashes(directory, name)
        firsts.append(total)
        if len(hashes):
            at = int(np.argmin(hashes[:, 0]))
            smallest = min(smallest, (int(hashes[at, 0]), total + at))
        total += len(hashes)
    duplicates = np.zeros(0, np.int64)
    if not keep_duplicates:
        hashes_of_parts = (read_hashes(directory, name) for name in parts)
        aside = None if storage.is_remote(directory) else directory
        duplicates = find_duplicates(hashes_of_parts, total, directory=aside)
    # Whether the fraction selects any is decided by the document with the smallest hash.
    threshold = int(validation_fraction * 2.0**64)
    alone = smallest[0] >= threshold > 0 and total - len(duplicates) > 1
    held = Held(threshold, smallest[1] if alone else -1)
    layout = _fill_shards(directory, parts, firsts, total, held, duplicates, shard_tokens)
    return layout._replace(duplicates=len(duplicates))


class _Filling(NamedTuple):
    """A shard that grows: its first document, and what is in it so far."""

    first: int = 0
    documents: int = 0
    sentences: int = 0
    tokens: int = 0


def _fill_shards(directory, parts, firsts, total, held, dropped, shard_tokens) -> Layout:
    filling = {"train": _Filling(), "validation": _Filling()}
    plans: dict[str, list[ShardPlan]] = {split: [] for split in filling}
    unknown = 0

    def close(split: str, stop: int) -> None:
        shard = filling[split]
        low, high = np.searchsorted(dropped, [shard.first, stop])
        begin = max(0, np.searchsorted(firsts, shard.first, "right") - 1)
        end = int(np.searchsorted(firsts, stop))
        covered = tuple(zip(parts[begin:end], firsts[begin:end], strict=True))
        numbers = (covered, dropped[low:high], shard.documents, shard.sentences, shard.tokens)
        plans[split].append(ShardPlan(split, len(plans[split]), shard.first, stop, *numbers))

    for name, first in zip(parts, firsts, strict=True):
        part = read_outline(directory, name)
        lengths = document_lengths(part.shard)
        sentences = sentences_of_documents(part.shard)
        kept = ~_is_dropped(first, len(lengths), dropped)
        unknown += int(part.unknown[kept].sum())
        held_out = _is_held_out(part.hashes, first, held)
        for split, wanted in (("train", ~held_out), ("validation", held_out)):
            chosen = np.flatnonzero(kept & wanted)
            while len(chosen):
                shard = filling[split]
                # The document that fills the shard, if one here does.
                sizes = shard.tokens + np.cumsum(lengths[chosen])
                count = int(np.searchsorted(sizes, shard_tokens)) + 1
                taken, chosen = chosen[:count], chosen[count:]
                filling[split] = _Filling(
                    shard.first,
                    shard.documents + len(taken),
                    shard.sentences + int(sentences[taken].sum()),
                    shard.tokens + int(lengths[taken].sum()),
                )
                if filling[split].tokens >= shard_tokens:
                    stop = first + int(taken[-1]) + 1
                    close(split, stop)
                    filling[split] = _Filling(stop)
    for split, shard in filling.items():
        if shard.documents:
            close(split, total)
    return Layout([*plans["train"], *plans["validation"]], held, 0, unknown)


def shard_pieces(directory: str, plan: ShardPlan, held: Held) -> Iterator[Shard]:
    """The documents of a shard, part by part."""
    for name, first in plan.parts:
        part = read_part(directory, name)
        numbers = first + np.arange(len(part.hashes))
        chosen = (numbers >= plan.first) & (numbers < plan.stop)
        chosen &= ~_is_dropped(first, len(numbers), plan.dropped)
        chosen &= _is_held_out(part.hashes, first, held) == (plan.split == "validation")
        if chosen.any():
            yield select_documents(part.shard, chosen)


def _is_held_out(hashes: np.ndarray, first: int, held: Held) -> np.ndarray:
    result = hashes[:, 0] < np.uint64(held.threshold)
    if first <= held.also < first + len(result):
        result[held.also - first] = True
    return result


def _is_dropped(first: int, count: int, dropped: np.ndarray) -> np.ndarray:
    result = np.zeros(count, bool)
    low, high = np.searchsorted(dropped, [first, first + count])
    result[dropped[low:high] - first] = True
    return result
