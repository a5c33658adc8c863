"""Files by name, on a local disk or in an object store, written whole or not at all.

A name with "://" in it (gs://bucket/name, s3://..., hdfs://...) goes through `fsspec`, which needs
the store's own package beside it (gcsfs, s3fs, ...); any other is a path. So the functions that
build a corpus run unchanged in the workers of a cluster that share no disk.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO

from electra_jax.errors import UserError

_ASIDE = ".tmp"


def is_remote(name: str) -> bool:
    """Whether a name is of an object store, not a path."""
    return "://" in name


def absolute(name: str) -> str:
    """The name as any process would have to say it, whatever its directory."""
    return name.rstrip("/") if is_remote(name) else os.path.abspath(name)


def real(name: str) -> str:
    """The absolute name with all links followed."""
    return absolute(name) if is_remote(name) else os.path.realpath(name)


def open_read(name: str) -> BinaryIO:
    """Opens a file for reading bytes; it can be sought.

    Raises:
      OSError: if it cannot be read.
    """
    if is_remote(name):
        system, path = _remote(name)
        return system.open(path, "rb")
    return open(name, "rb")


@contextlib.contextmanager
def create(name: str) -> Iterator[BinaryIO]:
    """A file to write bytes to, which has its name only when the block has ended without error.

    Raises:
      OSError: if it cannot be written; then nothing of it is left.
    """
    # Not by the process's number: on a shared disk, another machine's may have the same.
    aside = f"{name}.{secrets.token_hex(8)}{_ASIDE}"
    if is_remote(name):
        system, path = _remote(aside)
        try:
            with system.open(path, "wb") as file:
                yield file
            system.mv(path, _remote(name)[1])
        except BaseException:
            with contextlib.suppress(Exception):
                system.rm_file(path)
            raise
        return
    if os.path.exists(name) and not os.path.isfile(name):  # a device or a pipe takes bytes as is
        with open(name, "wb") as file:
            yield file
        return
    name = os.path.realpath(name)  # what a link points at is written, and the link left
    aside = f"{name}.{secrets.token_hex(8)}{_ASIDE}"
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def write_bytes(name: str, content: bytes | memoryview) -> None:
    """Writes a whole file, or nothing (`create`)."""
    with create(name) as file:
        file.write(content)


def exists(name: str) -> bool:
    """Whether there is a file or a directory of this name."""
    if is_remote(name):
        system, path = _remote(name)
        return system.exists(path)
    return os.path.exists(name)


def size(name: str) -> int:
    """A file's size in bytes; 0 if its store does not say.

    Raises:
      OSError: if there is none.
    """
    if is_remote(name):
        system, path = _remote(name)
        return system.size(path) or 0
    return os.path.getsize(name)


def list_names(directory: str) -> list[str]:
    """Names of what is in a directory, without the directory's, sorted; [] if there is none."""
    if is_remote(directory):
        system, path = _remote(directory)
        if not system.exists(path):
            return []
        system.invalidate_cache()
        found = [entry.rstrip("/").rsplit("/", 1)[-1] for entry in system.ls(path, detail=False)]
        return sorted(found)
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def is_directory(name: str) -> bool:
    """Whether there is a directory of this name."""
    if is_remote(name):
        system, path = _remote(name)
        return system.isdir(path)
    return os.path.isdir(name)


def find_files(pattern: str) -> list[str]:
    """Files that a name, a pattern or a directory (all below it) stands for, sorted.

    Raises:
      OSError: if a directory cannot be listed.
    """
    if is_remote(pattern):
        system, path = _remote(pattern)
        if system.isdir(path):
            found = system.find(path)
        elif system.isfile(path):
            found = [path]
        else:
            matches = system.glob(path, detail=True)
            found = [name for name, info in matches.items() if info["type"] == "file"]
        return sorted(map(system.unstrip_protocol, found))
    if os.path.isdir(pattern):
        found = [
            os.path.join(directory, name)
            for directory, _, names in _walk(pattern)
            for name in names
        ]
        # A link that leads nowhere is for whoever opens it to report.
        return sorted(name for name in found if os.path.isfile(name) or os.path.islink(name))
    else:
        found = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    return sorted(name for name in found if os.path.isfile(name))


def _walk(directory: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` that follows links, in the order of names, to each place once."""
    seen = {os.path.realpath(directory)}
    for place, directories, names in os.walk(directory, onerror=_raise, followlinks=True):
        yield place, directories, names
        for name in sorted(directories):
            real_name = os.path.realpath(os.path.join(place, name))
            if real_name in seen:
                directories.remove(name)
            seen.add(real_name)
        directories.sort()


def relative(name: str, directory: str) -> str:
    """A name that `find_files(directory)` found, without the directory."""
    if is_remote(directory):
        system, path = _remote(directory)
        directory = system.unstrip_protocol(path)
    return name[len(directory.rstrip("/")) :].lstrip("/")


def remove_file(name: str) -> None:
    """Removes a file of our own making."""
    if is_remote(name):
        system, path = _remote(name)
        system.rm_file(path)
    else:
        os.unlink(name)


def is_aside(name: str) -> bool:
    """Whether a name is one that `create` gives a file before it is whole."""
    return name.endswith(_ASIDE)


def remove_unfinished(directory: str) -> None:
    """Removes what `create` has left in a directory when its process was killed."""
    for name in list_names(directory):
        if is_aside(name):
            remove_file(f"{directory}/{name}")


def make_directory(name: str) -> None:
    """Makes a directory and those above it, where they are missing."""
    if is_remote(name):
        system, path = _remote(name)
        system.makedirs(path, exist_ok=True)
    else:
        os.makedirs(name, exist_ok=True)


def remove_tree(name: str) -> None:
    """Removes a directory of our own making with all that is in it."""
    if is_remote(name):
        system, path = _remote(name)
        if system.exists(path):
            system.rm(path, recursive=True)
    else:
        shutil.rmtree(name, ignore_errors=True)


def _raise(error: OSError) -> None:
    raise error


def _remote(name: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(name, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UserError(f"{name} needs a package that is missing: {error}") from None
