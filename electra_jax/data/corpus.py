"""The corpus directory: token shards, their boundaries, the tokenizer, and what vouches for them.

    corpus.json                     counts, checksums, settings; written last
    tokenizer.json, vocab.txt       whatever files the tokenizer has
    train-00000.tokens.npy          uint16 or uint32 [stored tokens]
    train-00000.sentence_ends.npy   int64 [sentences]
    train-00000.document_ends.npy   int64 [documents]
    validation-00000.*.npy          the same

What the three arrays of a shard hold says `shards`. Every file can be memory-mapped by
`np.load(..., mmap_mode="r")`.
"""

from __future__ import annotations

import hashlib
import json
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data import storage
from electra_jax.data.shards import PARTS, Shard
from electra_jax.data.tokenization import Tokenizer, load_tokenizer
from electra_jax.data.tokenization.interface import id_dtype
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds

FORMAT_VERSION = 1
SPLITS = ("train", "validation")
METADATA_FILE = "corpus.json"
_AGAIN = "prepare the corpus again, or copy it again"


def write_metadata(
    directory: str,
    tokenizer: Tokenizer,
    entries: Sequence[dict[str, Any]],
    *,
    settings: dict[str, Any],
    summary: dict[str, Any],
) -> dict[str, Any]:
    """Makes a corpus of a directory that has its shards: adds the tokenizer and corpus.json.

    Args:
      directory: where the shards are; a path or the name of a place in an object store.
      tokenizer: what the shards were encoded with.
      entries: of all shards, as `shards.write_shard` returns them, in order.
      settings: what the corpus was built with; JSON-compatible.
      summary: what was met while building; JSON-compatible.

    Returns:
      The content of corpus.json.

    Raises:
      OSError: if the disk is full; corpus.json, written last, is then not there.
    """
    described = {"settings": tokenizer.settings, "files": save_tokenizer(tokenizer, directory)}
    splits = {
        split: [entry for entry in entries if entry["name"].startswith(f"{split}-")]
        for split in SPLITS
    }
    metadata = {
        "format_version": FORMAT_VERSION,
        "fingerprint": _fingerprint(tokenizer.settings, splits),
        "tokenizer": described,
        "splits": splits,
        "settings": settings,
        "summary": summary,
        "description_sha256": _description_sha256(settings, summary),
    }
    text = json.dumps(metadata, indent=1) + "\n"
    storage.write_bytes(f"{directory}/{METADATA_FILE}", text.encode())
    return metadata


def save_tokenizer(tokenizer: Tokenizer, directory: str) -> dict[str, Any]:
    """Writes a tokenizer's files, each whole or not at all.

    Returns:
      For each name, the size in bytes and the SHA-256.
    """
    files = {}
    with tempfile.TemporaryDirectory() as aside:
        for name in tokenizer.save(aside):
            content = Path(aside, name).read_bytes()
            storage.write_bytes(f"{directory}/{name}", content)
            files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return files


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

    def __init__(self, path: str | Path, metadata: dict[str, Any]):
        """Use `Corpus.open`."""
        self.path: str | Path = path if storage.is_remote(str(path)) else Path(path)
        self.metadata = metadata
        self.fingerprint: str = metadata["fingerprint"]
        settings = metadata["tokenizer"]["settings"]
        self.vocab_size: int = settings["vocab_size"]
        self.special_ids = SpecialIds(**settings["special_ids"])
        self._tokenizer: Tokenizer | None = None
        self._shards: dict[str, list[Shard]] = {}
        self._files: dict[Path, tuple[int, ...] | None] = {}  # in use, and what they were

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Opens a corpus and checks, cheaply, that it is whole: sizes of all files, checksums of
        the tokenizer's files, and that corpus.json agrees with itself.

        Raises:
          UserError: naming what is missing, cut short or does not fit, and the remedy.
        """
        path = str(path)
        if not storage.exists(path):
            raise UserError(f"corpus {path} does not exist: prepare one, or check data.path")
        described = f"{path}/{METADATA_FILE}"
        try:
            with storage.open_read(described) as file:
                metadata = json.loads(file.read())
            version = metadata["format_version"]
        except OSError:
            raise UserError(
                f"corpus {path} has no {METADATA_FILE}: it is unfinished or no corpus; "
                "prepare it again"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{described} is damaged: {_AGAIN}") from None
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
            raise UserError(f"{described} is damaged: {_AGAIN}") from None
        description = _description_sha256(metadata.get("settings"), metadata.get("summary"))
        # Corpora of earlier versions have none.
        if metadata.get("description_sha256", description) != description:
            raise UserError(f"{described} has been altered: {_AGAIN}")
        if corpus.fingerprint != expected:
            raise UserError(f"{described} does not match its fingerprint: {_AGAIN}")
        return corpus

    def verify(self) -> None:
        """Checks the SHA-256 of every file; reads the whole corpus.

        Raises:
          UserError: naming the first file that differs.
        """
        self._check_files(checksums=True)

    def check_unchanged(self) -> None:
        """Checks, without reading them, that the shards in use are the files they were at first.

        Raises:
          UserError: naming the first one that was written to, replaced or removed since.
        """
        for path, before in self._files.items():
            if _signature(path) != before:
                raise UserError(
                    f"{path} has changed since this run began: nothing was saved since; bring the "
                    "corpus back, and the same command goes on from the last checkpoint"
                )

    def num_tokens(self, split: str) -> int:
        """Tokens of text in a split, without the [SEP] stored after every document."""
        return sum(entry["num_tokens"] for entry in self._entries(split))

    def num_documents(self, split: str) -> int:
        """Documents in a split."""
        return sum(entry["num_documents"] for entry in self._entries(split))

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split in order, memory-mapped, nothing read; [] for an empty split.

        Raises:
          UserError: if a file is not the array that corpus.json describes, or in an object store.
        """
        if storage.is_remote(str(self.path)):
            raise UserError(f"corpus {self.path} is in an object store: copy it to a local disk")
        if split not in self._shards:
            _allow_open_files(len(PARTS) * len(self._entries(split)))
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
        arrays = []
        for part, size in zip(PARTS, shapes, strict=True):
            path = Path(self.path) / f"{entry['name']}.{part}.npy"
            try:
                array = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise UserError(f"{path} cannot be read ({error}): {_AGAIN}") from None
            dtype = id_dtype(self.vocab_size) if part == "tokens" else np.int64
            if array.shape != (size,) or array.dtype != dtype:
                raise UserError(
                    f"{path} is {array.dtype}{list(array.shape)}, not "
                    f"{np.dtype(dtype)}[{size}]: {_AGAIN}"
                )
            self._files[path] = _signature(path)
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
            path = f"{self.path}/{name}"
            try:
                size = storage.size(path)
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


def _description_sha256(settings: Any, summary: Any) -> str:
    """A checksum of what corpus.json says that the fingerprint does not depend on."""
    return hashlib.sha256(json.dumps([settings, summary], sort_keys=True).encode()).hexdigest()


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with storage.open_read(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _signature(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written to or replaced; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _allow_open_files(count: int) -> None:
    """Raises the limit of open files, as far as allowed: a mapped file stays open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + count
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
