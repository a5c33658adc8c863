"""The directory of a build under way: recognised again after a kill, and used by one at a time."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator, Mapping
from typing import Any

from electra_jax.data import storage
from electra_jax.data.build import parts, stages
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
    directory = f"{output}/{DIRECTORY}"
    plan = json.loads(json.dumps(plan))
    if storage.exists(f"{directory}/{_PLAN}"):
        with storage.open_read(f"{directory}/{_PLAN}") as file:
            _check_same(json.loads(file.read()), plan, output)
    elif storage.exists(output) and not _is_empty(output):
        raise UserError(
            f"output {output} exists and is no corpus: "
            "name another directory, or remove this one yourself"
        )
    try:
        for name in _PARTS:
            storage.make_directory(f"{directory}/{name}")
        with _lock(directory, output):
            for name in (output, *(f"{directory}/{part}" for part in _PARTS)):
                storage.remove_unfinished(name)
            storage.write_bytes(f"{directory}/{_PLAN}", json.dumps(plan, indent=1).encode())
            yield directory
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"output {output} cannot be written ({reason}): free space there, or name another, "
            "and run the same command again to go on"
        ) from None


def remove_leftovers(output: str) -> None:
    """Removes the workspace of a build that was killed when its corpus was just complete."""
    directory = f"{output}/{DIRECTORY}"
    if storage.exists(f"{directory}/{_PLAN}"):
        with _lock(directory, output):
            storage.remove_tree(directory)


def _is_empty(output: str) -> bool:
    """Whether a place holds nothing, or what a build leaves that is killed as it begins."""
    names = storage.list_names(output)
    inner = set(storage.list_names(f"{output}/{DIRECTORY}"))
    return storage.is_directory(output) and set(names) <= {DIRECTORY} and inner <= {*_PARTS, _LOCK}


def _check_same(before: dict[str, Any], now: dict[str, Any], output: str) -> None:
    different = [
        name
        for name in {**before, **now}
        if before.get(name) != now.get(name) and before.get(name) != _STRICT.get(name, before)
    ]
    if different:
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
