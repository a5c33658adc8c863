"""The corpus directory: token shards, their boundaries, the tokenizer, and what vouches for them.

    corpus.json                     counts, checksums, settings; written last
    tokenizer.json, vocab.txt       whatever files the tokenizer has
    train-00000.tokens.npy          uint16 or uint32 [stored tokens]
    train-00000.sentence_ends.npy   int64 [sentences]
    train-00000.document_ends.npy   int64 [documents]
    validation-00000.*.npy          the same

Documents follow each other in the token file, each with one [SEP] after it, so that a row packed
across documents is a plain slice. Ends are offsets just past the last token of a sentence or a
document within the shard; the [SEP] belongs to neither. Every file can be memory-mapped by
`np.load(..., mmap_mode="r")`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.data.tokenization import Tokenizer, load_tokenizer
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds

FORMAT_VERSION = 1
SPLITS = ("train", "validation")
METADATA_FILE = "corpus.json"
_PARTS = ("tokens", "sentence_ends", "document_ends")
_AGAIN = "prepare the corpus again, or copy it again"


class Document(NamedTuple):
    """One encoded document.

    Attributes:
      tokens: integer [tokens], its ids, at least one, without special tokens around them.
      sentence_lengths: integer [sentences], tokens of every sentence, each at least 1.
    """

    tokens: np.ndarray
    sentence_lengths: np.ndarray


class Shard(NamedTuple):
    """The memory-mapped arrays of one shard, as described at the top of this module."""

    tokens: np.ndarray
    sentence_ends: np.ndarray
    document_ends: np.ndarray


def write_shard(
    directory: str | Path,
    split: str,
    index: int,
    documents: Sequence[Document],
    *,
    vocab_size: int,
    sep_id: int,
) -> dict[str, Any]:
    """Writes the three files of a shard: a pure function of its arguments, in any process.

    Args:
      directory: where to; exists.
      split: one of `SPLITS`.
      index: number of the shard in its split.
      documents: its documents in order, at least one.
      vocab_size: below 65,536, tokens are stored as uint16, otherwise as uint32.
      sep_id: id stored after every document.

    Returns:
      The shard's entry in corpus.json: name, num_documents, num_sentences, num_tokens (without
      the [SEP]s), and for every file its size in bytes and SHA-256.

    Raises:
      ValueError: if a document is empty or its sentence lengths do not add up.
    """
    lengths = np.array([len(document.tokens) for document in documents], np.int64)
    sums = [int(np.sum(document.sentence_lengths)) for document in documents]
    if not len(lengths) or lengths.min() < 1 or lengths.tolist() != sums:
        raise ValueError("every document needs tokens, divided completely into sentences")
    document_ends = np.cumsum(lengths + 1) - 1
    dtype = np.uint16 if vocab_size < 1 << 16 else np.uint32
    tokens = np.full(document_ends[-1] + 1, sep_id, dtype)
    for document, end in zip(documents, document_ends.tolist(), strict=True):
        tokens[end - len(document.tokens) : end] = document.tokens
    sentence_ends = np.cumsum(
        np.concatenate([doc.sentence_lengths for doc in documents]), dtype="i8"
    )
    sentence_ends += np.repeat(
        np.arange(len(documents)), [len(document.sentence_lengths) for document in documents]
    )
    name = f"{split}-{index:05d}"
    files = {}
    for part, array in zip(_PARTS, (tokens, sentence_ends, document_ends), strict=True):
        path = Path(directory) / f"{name}.{part}.npy"
        np.save(path, array)
        files[path.name] = _describe(path)
    return {
        "name": name,
        "num_documents": len(documents),
        "num_sentences": len(sentence_ends),
        "num_tokens": int(lengths.sum()),
        "files": files,
    }


class CorpusWriter:
    """Builds a corpus in a directory beside `output` and renames it into place at the end.

    Use as a context manager: leaving it without `finish` removes what was written. A process
    that is killed leaves a hidden directory `.NAME.partial-*`, never a corpus at `output`.
    """

    def __init__(self, output: str | Path, tokenizer: Tokenizer):
        """Creates the directory.

        Raises:
          UserError: if `output` exists and is not an empty directory, or cannot be created.
        """
        self.output = Path(os.path.abspath(output))
        self._tokenizer = tokenizer
        self._splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise UserError(
                f"output {self.output} exists and is no corpus: "
                "name another directory, or remove this one yourself"
            )
        name = f".{self.output.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"
        self.directory = self.output.parent / name
        try:
            self.directory.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"output {self.output} cannot be written ({error.strerror}): name another directory"
            ) from None

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, *exception) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def write_shard(self, split: str, documents: Sequence[Document]) -> None:
        """Writes the next shard of a split (`write_shard` of this module).

        Raises:
          UserError: if the disk is full or cannot be written.
        """
        shards = self._splits[split]
        try:
            entry = write_shard(
                self.directory,
                split,
                len(shards),
                documents,
                vocab_size=self._tokenizer.vocab_size,
                sep_id=self._tokenizer.special_ids.sep,
            )
        except OSError as error:
            raise _unwritable(self.output, error) from None
        shards.append(entry)

    def finish(self, settings: dict[str, Any], summary: dict[str, Any]) -> Corpus:
        """Writes the tokenizer and corpus.json, and renames the directory to `output`.

        Args:
          settings: what the corpus was built with; JSON-compatible.
          summary: what was met while building; JSON-compatible.

        Raises:
          UserError: if the disk is full, or something else has appeared at `output`.
        """
        try:
            names = self._tokenizer.save(self.directory)
            tokenizer = {
                "settings": self._tokenizer.settings,
                "files": {name: _describe(self.directory / name) for name in names},
            }
            metadata = {
                "format_version": FORMAT_VERSION,
                "fingerprint": _fingerprint(tokenizer["settings"], self._splits),
                "tokenizer": tokenizer,
                "splits": self._splits,
                "settings": settings,
                "summary": summary,
            }
            text = json.dumps(metadata, indent=1, ensure_ascii=False) + "\n"
            (self.directory / METADATA_FILE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise _unwritable(self.output, error) from None
        try:
            os.rename(self.directory, self.output)  # Replaces an empty directory, nothing else.
        except OSError:
            raise UserError(
                f"output {self.output} has appeared while the corpus was built: "
                "name another directory"
            ) from None
        return Corpus.open(self.output)


class Corpus:
    """A finished corpus directory, opened for reading.

    Attributes:
      path: the directory.
      metadata: the content of corpus.json.
      fingerprint: hex SHA-256 over format version, tokenizer and shard checksums; equal
        fingerprints mean equal tokens.
      vocab_size: number of ids.
      special_ids: ids of the special tokens.
    """

    def __init__(self, path: Path, metadata: dict[str, Any]):
        """Use `Corpus.open`."""
        self.path = path
        self.metadata = metadata
        self.fingerprint: str = metadata["fingerprint"]
        settings = metadata["tokenizer"]["settings"]
        self.vocab_size: int = settings["vocab_size"]
        self.special_ids = SpecialIds(**settings["special_ids"])
        self._tokenizer: Tokenizer | None = None
        self._shards: dict[str, list[Shard]] = {}

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Opens a corpus and checks, cheaply, that it is whole: sizes of all files, checksums of
        the tokenizer's files, and that corpus.json agrees with itself.

        Raises:
          UserError: naming what is missing, cut short or does not fit, and the remedy.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"corpus {path} does not exist: prepare one, or check data.path")
        try:
            metadata = json.loads((path / METADATA_FILE).read_text(encoding="utf-8"))
            version = metadata["format_version"]
        except FileNotFoundError:
            raise UserError(
                f"corpus {path} has no {METADATA_FILE}: it is unfinished or no corpus; "
                "prepare it again"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path / METADATA_FILE} is damaged: {_AGAIN}") from None
        if version != FORMAT_VERSION:
            raise UserError(
                f"corpus {path} has format version {version}, this program reads "
                f"{FORMAT_VERSION}: prepare the corpus again with this program"
            )
        try:
            corpus = cls(path, metadata)
            expected = _fingerprint(metadata["tokenizer"]["settings"], metadata["splits"])
            corpus._check_files(checksums=False)
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{path / METADATA_FILE} is damaged: {_AGAIN}") from None
        if corpus.fingerprint != expected:
            raise UserError(f"{path / METADATA_FILE} does not match its fingerprint: {_AGAIN}")
        return corpus

    def verify(self) -> None:
        """Checks the SHA-256 of every file; reads the whole corpus.

        Raises:
          UserError: naming the first file that differs.
        """
        self._check_files(checksums=True)

    def num_tokens(self, split: str) -> int:
        """Tokens of text in a split, without the [SEP] stored after every document."""
        return sum(entry["num_tokens"] for entry in self._entries(split))

    def num_documents(self, split: str) -> int:
        """Documents in a split."""
        return sum(entry["num_documents"] for entry in self._entries(split))

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split in order, memory-mapped, nothing read; [] for an empty split.

        Raises:
          UserError: if a file is not the array that corpus.json describes.
        """
        if split not in self._shards:
            self._shards[split] = [self._load(entry) for entry in self._entries(split)]
        return self._shards[split]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer the corpus was built with, loaded at the first call."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.path)
        return self._tokenizer

    def _entries(self, split: str) -> list[dict[str, Any]]:
        if split not in SPLITS:
            raise UserError(f"split={split!r} is unknown: use one of {', '.join(SPLITS)}")
        return self.metadata["splits"][split]

    def _load(self, entry: dict[str, Any]) -> Shard:
        count = entry["num_documents"]
        shapes = (entry["num_tokens"] + count, entry["num_sentences"], count)
        token_dtype = np.uint16 if self.vocab_size < 1 << 16 else np.uint32
        arrays = []
        for part, size in zip(_PARTS, shapes, strict=True):
            path = self.path / f"{entry['name']}.{part}.npy"
            try:
                array = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise UserError(f"{path} cannot be read ({error}): {_AGAIN}") from None
            dtype = token_dtype if part == "tokens" else np.int64
            if array.shape != (size,) or array.dtype != dtype:
                raise UserError(
                    f"{path} is {array.dtype}{list(array.shape)}, not "
                    f"{np.dtype(dtype)}[{size}]: {_AGAIN}"
                )
            # A plain array over the same mapping: slices of np.memmap cost ten times as much.
            arrays.append(array.view(np.ndarray))
        return Shard(*arrays)

    def _check_files(self, checksums: bool) -> None:
        tokenizer_files = self.metadata["tokenizer"]["files"]
        files = dict(tokenizer_files)
        for split in SPLITS:
            for entry in self._entries(split):
                files.update(entry["files"])
        for name, expected in files.items():
            path = self.path / name
            try:
                size = path.stat().st_size
            except OSError:
                raise UserError(f"{path} is missing: {_AGAIN}") from None
            if size != expected["size"]:
                raise UserError(f"{path} has {size} bytes, not {expected['size']}: {_AGAIN}")
            if (checksums or name in tokenizer_files) and _sha256(path) != expected["sha256"]:
                raise UserError(f"{path} does not match its checksum: {_AGAIN}")


def _fingerprint(tokenizer_settings: dict[str, Any], splits: dict[str, list[dict]]) -> str:
    shards = {
        split: [
            [entry[key] for key in ("name", "num_documents", "num_sentences", "num_tokens")]
            + sorted((name, file["sha256"]) for name, file in entry["files"].items())
            for entry in entries
        ]
        for split, entries in splits.items()
    }
    text = json.dumps([FORMAT_VERSION, tokenizer_settings, shards], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _unwritable(output: Path, error: OSError) -> UserError:
    return UserError(
        f"output {output} cannot be written ({error.strerror}): free space there, or name another"
    )
