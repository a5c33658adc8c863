"""How inputs are shared out, and what a build remembers of them."""

from __future__ import annotations

import collections
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.data import storage
from electra_jax.data.build.stages import Job
from electra_jax.data.reading import Unit

# Text of a job: small enough to go round, large enough to be worth a process's while.
JOB_BYTES = 1 << 25
# Bytes of text in a byte of such a file, about: for planning alone.
# Of more inputs than this, a corpus keeps a checksum of the list instead of the list.
_NAMED_INPUTS = 1000
_EXPANSION = {".gz": 3, ".tgz": 3, ".xz": 4, ".txz": 4, ".zst": 3, ".parquet": 2}


def group_units(units: Sequence[Unit]) -> list[Job]:
    """Jobs of about `JOB_BYTES` of text, each of consecutive units."""
    groups, size = [], 0
    for unit in units:
        grown = size + text_bytes([unit])
        if not groups or grown > JOB_BYTES:
            groups.append([])
            grown -= size
        groups[-1].append(unit)
        size = grown
    return [Job(index, tuple(group)) for index, group in enumerate(groups)]


def text_bytes(units: Iterable[Unit]) -> int:
    """Bytes of text in units, by the endings of their names; a guess."""
    return sum(unit.size * _EXPANSION.get(Path(unit.name).suffix.lower(), 1) for unit in units)


def describe_inputs(units: Sequence[Unit]) -> list[list]:
    """Name, relative to what all share, and size of every input; equal for a moved copy."""
    sizes = collections.Counter()
    for unit in units:
        sizes[unit.name] += unit.size
    local = [name for name in sizes if not (storage.is_remote(name) or name.startswith("tfds:"))]
    base = os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in local] or ["/"])
    relative = {name: Path(os.path.relpath(name, base)).as_posix() for name in local}
    described = [[relative.get(name, name), size] for name, size in sizes.items()]
    if len(described) <= _NAMED_INPUTS:
        return described
    digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    return [[f"{len(described)} inputs, sha256 {digest}", sum(sizes.values())]]


def changed_inputs(units: Sequence[Unit], conditions: Mapping[str, Any]) -> list[str]:
    """Names of the inputs that are not as they were when `resume_conditions` was called."""
    names = dict.fromkeys(unit.name for unit in units)
    before = conditions["sizes and modification times of inputs"]
    return [name for name, was in zip(names, before, strict=True) if _size_and_time(name) != was]


def _size_and_time(name: str) -> list[int] | None:
    """Of a local file; None where there is none."""
    try:
        status = os.stat(name)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def resume_conditions(units: Sequence[Unit]) -> dict[str, Any]:
    """What must not change while a build is under way, beside its settings."""
    packages = ("electra-jax", "tokenizers", "sentencepiece", "numpy")
    return {
        "sizes and modification times of inputs": [
            _size_and_time(name) for name in dict.fromkeys(unit.name for unit in units)
        ],
        "job_bytes": JOB_BYTES,
        "package versions": [importlib.metadata.version(name) for name in packages],
    }
