"""Parts: what encoding leaves on disk, a few million tokens a file, until shards are made of them.

parts/000012-0000.npz        the first documents of job 12
parts/000012-0001-last.npz   its last ones, perhaps none
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from electra_jax.data import storage
from electra_jax.data.shards import Shard
from electra_jax.errors import UserError

DIRECTORY = "parts"
_NAME = re.compile(r"(\d{6,})-(\d{4,})(-last)?\.npz\Z")


class Part(NamedTuple):
    """Some consecutive documents of a job.

    Attributes:
      shard: the encoded documents.
      hashes: uint64 [documents, 2], of each document's text.
      unknown: int32 [documents], tokens of each that are [UNK].
      state: what has been met since the job began, JSON-compatible.
    """

    shard: Shard
    hashes: np.ndarray
    unknown: np.ndarray
    state: dict[str, Any]


class PartName(NamedTuple):
    """A part's file: sorts in the order of the corpus."""

    job: int
    index: int
    is_last: bool

    def path(self, directory: str) -> str:
        """Its name below a directory of a build."""
        last = "-last" if self.is_last else ""
        return f"{directory}/{DIRECTORY}/{self.job:06d}-{self.index:04d}{last}.npz"


def list_parts(directory: str) -> list[PartName]:
    """The parts of a build so far, in the order of the corpus."""
    matches = map(_NAME.match, storage.list_names(f"{directory}/{DIRECTORY}"))
    return sorted(PartName(int(m[1]), int(m[2]), bool(m[3])) for m in matches if m)


def whole_beginning(parts: Sequence[PartName]) -> list[PartName]:
    """Of one job's parts, those before the first that is missing."""
    ordered = sorted(parts, key=lambda part: part.index)
    kept: list[PartName] = []
    for part in ordered:
        if part.index != len(kept) or (kept and kept[-1].is_last):
            break
        kept.append(part)
    return kept


def check_complete(parts: Sequence[PartName], num_jobs: int) -> None:
    """Raises UserError unless every job has all of its parts."""
    by_job = group_by_job(parts)
    for job in range(num_jobs):
        found = by_job.get(job, [])
        if not found or not found[-1].is_last or whole_beginning(found) != found:
            raise UserError(
                f"parts of job {job} of the build are missing: run the same command again"
            )


def group_by_job(parts: Sequence[PartName]) -> dict[int, list[PartName]]:
    """The parts of each job, in order."""
    groups: dict[int, list[PartName]] = {}
    for part in parts:
        groups.setdefault(part.job, []).append(part)
    return groups


def write_part(directory: str, name: PartName, part: Part) -> None:
    """Writes a part whole, or not at all.

    Raises:
      OSError: if the disk is full or cannot be written.
    """
    buffer = io.BytesIO()
    arrays = part.shard._asdict() | {"hashes": part.hashes, "unknown": part.unknown}
    np.savez(buffer, **arrays, state=np.array(json.dumps(part.state)))
    storage.write_bytes(name.path(directory), buffer.getbuffer())


def read_part(directory: str, name: PartName) -> Part:
    """Reads a part."""
    with _open(directory, name) as arrays:
        shard = Shard(*(arrays[field] for field in Shard._fields))
        return Part(shard, arrays["hashes"], arrays["unknown"], json.loads(str(arrays["state"])))


def read_outline(directory: str, name: PartName) -> Part:
    """Reads a part without its tokens."""
    with _open(directory, name) as arrays:
        ends = (arrays["sentence_ends"], arrays["document_ends"])
        shard = Shard(np.zeros(0, np.uint16), *ends)
        return Part(shard, arrays["hashes"], arrays["unknown"], json.loads(str(arrays["state"])))


def read_hashes(directory: str, name: PartName) -> np.ndarray:
    """The documents' hashes alone."""
    with _open(directory, name) as arrays:
        return arrays["hashes"]


def read_state(directory: str, name: PartName) -> dict[str, Any]:
    """What has been met since the job began, alone."""
    with _open(directory, name) as arrays:
        return json.loads(str(arrays["state"]))


@contextlib.contextmanager
def _open(directory: str, name: PartName) -> Iterator[Mapping[str, np.ndarray]]:
    path = name.path(directory)
    try:
        with storage.open_read(path) as file, np.load(file) as arrays:
            yield arrays
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it, and prepare again to make it anew"
        ) from None
