"""Shards of a corpus: encoded documents as three arrays, and their files.

Documents follow each other in the token array, each with one [SEP] after it, so that a row packed
across documents is a plain slice. Ends are offsets just past the last token of a sentence or a
document within the shard; the [SEP] belongs to neither.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from electra_jax.data import storage


class Shard(NamedTuple):
    """Encoded documents.

    Attributes:
      tokens: uint16 or uint32 [stored tokens], of all documents, with a [SEP] after each.
      sentence_ends: int64 [sentences], ascending.
      document_ends: int64 [documents], ascending; each is a sentence end too.
    """

    tokens: np.ndarray
    sentence_ends: np.ndarray
    document_ends: np.ndarray


PARTS = Shard._fields


def make_shard(
    ids: np.ndarray, sentence_lengths: np.ndarray, num_sentences: np.ndarray, *, sep_id: int
) -> tuple[Shard, np.ndarray]:
    """Lays out encoded documents; sentences and documents without a token are left out.

    Args:
      ids: integer [tokens], of all documents; its type is the shard's.
      sentence_lengths: integer [sentences], tokens of each.
      num_sentences: integer [documents], sentences of each, at least 1.
      sep_id: the id stored after every document.

    Returns:
      The shard, and bool [documents]: which documents are in it.

    Raises:
      ValueError: if the numbers do not add up.
    """
    if sentence_lengths.sum() != len(ids) or num_sentences.sum() != len(sentence_lengths):
        raise ValueError("documents have to be divided completely into sentences")
    if not len(num_sentences):
        empty = np.zeros(0, np.int64)
        return Shard(ids, empty, empty), np.zeros(0, bool)
    first_sentences = np.cumsum(num_sentences) - num_sentences
    document_lengths = np.add.reduceat(sentence_lengths.astype(np.int64), first_sentences)
    kept = document_lengths > 0
    document_ends = np.cumsum(document_lengths[kept] + 1) - 1
    tokens = np.full(len(ids) + len(document_ends), sep_id, ids.dtype)
    is_text = np.ones(len(tokens), bool)
    is_text[document_ends] = False
    tokens[is_text] = ids
    number = np.repeat(np.cumsum(kept) - 1, num_sentences)  # of the document of each sentence
    not_empty = sentence_lengths > 0
    sentence_ends = np.cumsum(sentence_lengths, dtype=np.int64)[not_empty] + number[not_empty]
    return Shard(tokens, sentence_ends, document_ends), kept


def document_lengths(shard: Shard) -> np.ndarray:
    """Tokens of each document, its [SEP] left out: int64 [documents]."""
    return np.diff(shard.document_ends, prepend=-1) - 1


def sentences_of_documents(shard: Shard) -> np.ndarray:
    """Sentences of each document: int64 [documents]."""
    last = np.searchsorted(shard.sentence_ends, shard.document_ends, "right")
    return np.diff(last, prepend=0)


def select_documents(shard: Shard, chosen: np.ndarray) -> Shard:
    """The shard of some of a shard's documents; `chosen` is bool [documents]."""
    if chosen.all():
        return shard
    stored = document_lengths(shard) + 1
    tokens = shard.tokens[np.repeat(chosen, stored)]
    moved = np.cumsum(np.where(chosen, 0, stored))  # tokens left out up to each document
    counts = sentences_of_documents(shard)
    of_chosen = np.repeat(chosen, counts)
    sentence_ends = shard.sentence_ends[of_chosen] - np.repeat(moved, counts)[of_chosen]
    return Shard(tokens, sentence_ends, shard.document_ends[chosen] - moved[chosen])


def concatenate(shards: Sequence[Shard]) -> Shard:
    """One shard of the documents of several, at least one."""
    offsets = np.cumsum([0, *(len(shard.tokens) for shard in shards[:-1])])
    moved = list(zip(shards, offsets.tolist(), strict=True))
    return Shard(
        np.concatenate([shard.tokens for shard in shards]),
        np.concatenate([shard.sentence_ends + offset for shard, offset in moved]),
        np.concatenate([shard.document_ends + offset for shard, offset in moved]),
    )


def write_shard(
    directory: str, name: str, pieces: Iterable[Shard], *, num_tokens: int, num_sentences: int,
    num_documents: int, dtype: np.dtype,
) -> dict[str, Any]:  # fmt: skip
    """Writes the three files of a shard, piece after piece: a pure function, in any process.

    Args:
      directory: where to; exists.
      name: of the shard, for example "train-00000".
      pieces: shards whose documents make this one; one is in memory at a time.
      num_tokens: of all pieces together, the [SEP]s left out; the next two likewise.
      num_sentences: of all pieces together.
      num_documents: of all pieces together.
      dtype: of the tokens (`tokenization.interface.id_dtype`).

    Returns:
      The shard's entry in corpus.json: the name, the three numbers, and for every file its size in
      bytes and SHA-256.

    Raises:
      OSError: if the disk is full or cannot be written; no file is left with its final name that
        is not whole.
      ValueError: if the pieces are not what the numbers say.
    """
    shapes = (num_tokens + num_documents, num_sentences, num_documents)
    dtypes = (dtype, np.int64, np.int64)
    with contextlib.ExitStack() as files:
        arrays = [
            _ArrayFile(files.enter_context(storage.create(f"{directory}/{name}.{part}.npy")), *kind)
            for part, *kind in zip(PARTS, shapes, dtypes, strict=True)
        ]
        offset = 0
        for piece in pieces:
            arrays[0].write(piece.tokens)
            arrays[1].write(piece.sentence_ends + offset)
            arrays[2].write(piece.document_ends + offset)
            offset += len(piece.tokens)
        described = {
            f"{name}.{part}.npy": array.close() for part, array in zip(PARTS, arrays, strict=True)
        }
    return {
        "name": name,
        "num_documents": num_documents,
        "num_sentences": num_sentences,
        "num_tokens": num_tokens,
        "files": described,
    }


class _ArrayFile:
    """A .npy file of known length, written bit by bit with its checksum."""

    def __init__(self, file: BinaryIO, length: int, dtype: Any):
        self._file, self._left, self._dtype = file, length, np.dtype(dtype)
        self._digest, self._size = hashlib.sha256(), 0
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self, header)

    def write(self, content: bytes | np.ndarray) -> None:
        """Bytes of the header, or the next elements."""
        if isinstance(content, np.ndarray):
            self._left -= len(content)
            content = np.ascontiguousarray(content, self._dtype).data.cast("B")
        self._digest.update(content)
        self._size += len(content)
        self._file.write(content)

    def close(self) -> dict[str, Any]:
        """The file's entry in corpus.json."""
        if self._left:
            raise ValueError(f"{self._left} elements of a shard are missing")
        return {"size": self._size, "sha256": self._digest.hexdigest()}
