"""The directory of a build under way: recognised again after a kill, and used by one at a time."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator, Mapping
from typing import Any

from electra_jax.data import storage
from electra_jax.data.build import parts, stages
from electra_jax.data.corpus import METADATA_FILE
from electra_jax.errors import UserError

DIRECTORY = "building"
_PLAN = "plan.json"
_LOCK = "lock"
_PARTS = (parts.DIRECTORY, stages.TOKENIZER, stages.SAMPLE, stages.SHARDS)
# Settings that may become more lenient in the middle of a build: until then nothing has met them.
_STRICT = {"encoding_errors": "refuse", "bad_input": "refuse"}


@contextlib.contextmanager
def open_workspace(output: str, plan: Mapping[str, Any]) -> Iterator[str]:
    """The directory of the build of `output`, new or with what an earlier one has left.

    Args:
      output: of the build; the workspace is in it.
      plan: everything that the work in progress depends on, settings among it; JSON-compatible.

    Raises:
      UserError: if `output` holds something else, another build, or one that is running, or
        cannot be written.
    """
    check_output(output)
    directory = f"{output}/{DIRECTORY}"
    plan = json.loads(json.dumps(plan))
    try:
        storage.make_directory(directory)
        with _lock(directory, output):
            _check_same(directory, plan, output)
            for name in (output, directory, *(f"{directory}/{part}" for part in _PARTS)):
                storage.remove_unfinished(name)
            for name in _PARTS:
                storage.make_directory(f"{directory}/{name}")
            storage.write_bytes(f"{directory}/{_PLAN}", json.dumps(plan, indent=1).encode())
            yield directory
    except OSError as error:
        remedy = "free space there, or name another"
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "check the place and its rights, or name another"
        raise UserError(
            f"output {output} cannot be written ({error.strerror or error}): {remedy}, and run the "
            "same command again to go on"
        ) from None


def check_output(output: str) -> None:
    """Raises UserError if there is something at `output` that is neither a corpus nor a build."""
    if not storage.exists(output) or storage.exists(f"{output}/{METADATA_FILE}"):
        return
    names = set(storage.list_names(output))
    is_build = DIRECTORY in names and _is_workspace(f"{output}/{DIRECTORY}")
    if not storage.is_directory(output) or (names and not is_build):
        raise UserError(
            f"output {output} exists and is no corpus: "
            "name another directory, or remove this one yourself"
        )


def remove_leftovers(output: str) -> None:
    """Removes the workspace of a build that was killed when its corpus was just complete."""
    directory = f"{output}/{DIRECTORY}"
    if storage.exists(directory) and _is_workspace(directory):
        with _lock(directory, output):
            storage.remove_tree(directory)


def _is_workspace(directory: str) -> bool:
    """Whether a directory holds nothing but what a build leaves there."""
    known = {*_PARTS, _LOCK, _PLAN, stages.FILTER_FILE, "failures"}
    names = storage.list_names(directory)
    return all(name in known or storage.is_aside(name) for name in names)


def _check_same(directory: str, now: dict[str, Any], output: str) -> None:
    """Refuses to go on with another build; one that has made nothing yet is begun anew."""
    if not storage.exists(f"{directory}/{_PLAN}"):
        return
    try:
        with storage.open_read(f"{directory}/{_PLAN}") as file:
            before = dict(json.loads(file.read()))
    except (ValueError, TypeError):
        raise UserError(
            f"{directory}/{_PLAN} is damaged: remove {output} yourself, and prepare again"
        ) from None
    different = [
        name
        for name in {**before, **now}
        if before.get(name) != now.get(name) and before.get(name) != _STRICT.get(name, before)
    ]
    if not different:
        return
    if not parts.list_parts(directory):
        for name in _PARTS:
            storage.remove_tree(f"{directory}/{name}")
        return
    raise UserError(
        f"output {output} holds an unfinished build with other {', '.join(different)}: "
        "give it the same again, name another directory, or remove this one yourself"
    )


@contextlib.contextmanager
def _lock(directory: str, output: str) -> Iterator[None]:
    """Keeps a second build of this machine out; the system lets go of it when the process ends."""
    if storage.is_remote(directory):
        yield
        return
    import fcntl

    with open(f"{directory}/{_LOCK}", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"output {output} is being built by another process: wait for it, or name another"
            ) from None
        except OSError as error:  # Some network file systems have no locks.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield
