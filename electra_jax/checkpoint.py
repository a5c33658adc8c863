"""What is kept of a run: the only importer of orbax.

A checkpoint is `<directory>/<step>/` with three items: `params` (readable alone, by fine-tuning),
`rest` (step, optimiser state, key) and `metadata` (JSON: the run's config, the corpus's
fingerprint, metrics not logged yet). Orbax writes aside and renames, so a killed save leaves no
checkpoint that looks complete. Before that, `checksums.json` in it says what its files are; a
checkpoint whose files are others is never gone on from.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from electra_jax import processes
from electra_jax.errors import UserError
from electra_jax.train_state import TrainState
from electra_jax.writers import write_aside

# What goes wrong in orbax's threads is raised where it is waited for, and told in one line.
for _logger in (absl.logging.get_absl_logger(), logging.getLogger("asyncio")):
    _logger.addFilter(
        lambda record: (
            record.levelno < logging.ERROR or "orbax" not in record.pathname + record.getMessage()
        )
    )
_CHECKSUMS = "checksums.json"
_LABEL = "_CHECKPOINT_METADATA"  # orbax's own, which it writes to once more at the end


@contextlib.contextmanager
def _reading(directory: Path | str):
    """Tells of a checkpoint that cannot be read in one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the checkpoint in {directory} is damaged ({_reason(error)}): bring it back from a "
            "copy, or remove its directory"
        ) from error


@contextlib.contextmanager
def _writing(directory: Path | str):
    """Tells of a disk that is full and the like in one line; what was saved before is whole."""
    try:
        with processes.noticing_losses():
            yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"a checkpoint cannot be written to {directory} ({_reason(error)}): make room; the one "
            "before is whole, and the same command goes on from it"
        ) from error


def _reason(error: Exception) -> str:
    """The beginning of a message, in one line."""
    found = re.search(r"No space left on device|Permission denied|File too large", str(error))
    return found[0] if found else f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


class _Manager(ocp.CheckpointManager):
    """Orbax's, but for its own questions after a notice of preemption: the loop asks them.

    (It would ask by steps, where `processes.stop_requests` counts questions.)
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpointer:
    """Saves and restores the states of one run, in the background.

    Args:
      directory: created if missing.
      keep: how many of the latest checkpoints stay.
      keep_every: checkpoints at multiples of so many steps stay for good; None: none do.
    """

    def __init__(self, directory: Path | str, *, keep: int = 3, keep_every: int | None = None):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        self._directory = Path(directory).absolute()
        self._manager = _Manager(self._directory, options=options)

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def metadata(self, step: int) -> dict[str, Any]:
        """The JSON saved with a checkpoint."""
        args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
        with _reading(self._directory / str(step)):
            return self._manager.restore(step, args=args)["metadata"]

    def save(self, state: TrainState, metadata: Mapping[str, Any]) -> None:
        """Begins saving a state under its step; returns once it may be overwritten."""
        with _writing(self._directory):
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    rest=ocp.args.StandardSave(_rest(state)),
                    metadata=ocp.args.JsonSave(dict(metadata)),
                ),
            )

    def _seal(self) -> None:
        """Writes the checksums of the checkpoint whose files are written, before its renaming.

        (The one that has no name of its own yet: a save waits for the one before.)
        """
        if processes.is_main():
            (written,) = self._directory.glob("*.orbax-checkpoint-tmp*")
            seal(written)

    def restore(self, like: TrainState, step: int) -> TrainState:
        """The state saved at a step, with the shapes and shardings of `like`.

        Args:
          like: arrays, or their shapes and shardings.
          step: of a complete checkpoint.
        """
        abstract = jax.tree.map(_described, (like.params, _rest(like)))
        with _reading(self._directory / str(step)):
            items = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(abstract[0]),
                    rest=ocp.args.StandardRestore(abstract[1]),
                ),
            )
        rest = items["rest"]
        rng = jax.random.wrap_key_data(rest["rng"])
        return like.replace(
            step=rest["step"], params=items["params"], opt_state=rest["opt_state"], rng=rng
        )

    def wait(self) -> None:
        """Waits until what was saved is on disk."""
        with _writing(self._directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on disk."""
        self.wait()
        self._manager.close()


def _rest(state: TrainState) -> dict[str, Any]:
    if isinstance(state.rng, jax.ShapeDtypeStruct):
        words = jax.eval_shape(jax.random.key_data, state.rng)
        sharding = getattr(state.step, "sharding", None)
        rng: Any = jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=sharding)
    else:
        rng = jax.random.key_data(state.rng)
    return {"step": state.step, "opt_state": state.opt_state, "rng": rng}


def _described(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else ocp.utils.to_shape_dtype_struct(leaf)


def seal(checkpoint: Path) -> None:
    """Writes size and SHA-256 of every file of a complete checkpoint into `checksums.json`."""
    files = {
        str(path.relative_to(checkpoint)): {"size": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name not in (_CHECKSUMS, _LABEL)
    }
    write_aside(checkpoint / _CHECKSUMS, json.dumps(files, indent=1) + "\n")


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where all are as they were written.

    One without `checksums.json` was written by an earlier version: nothing is known against it.
    """
    if not (checkpoint / _CHECKSUMS).exists():
        return None
    try:
        files = json.loads((checkpoint / _CHECKSUMS).read_text("utf-8"))
        json.loads((checkpoint / _LABEL).read_text("utf-8"))
        for name, expected in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["size"]:
                return f"{name} has {path.stat().st_size} bytes, not {expected['size']}"
            if _sha256(path) != expected["sha256"]:
                return f"{name} does not match its checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{_CHECKSUMS} or {_LABEL} cannot be read ({type(error).__name__})"
    return None


def saved_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints there, in order; what a save left behind half done is none.

    Args:
      directory: of the checkpoints; may be missing.
    """
    return sorted(int(path.name) for path in directory.glob("[0-9]*") if path.name.isdigit())


def set_damaged_aside(directory: Path) -> list[str]:
    """Moves damaged checkpoints that are newer than the newest whole one to `../damaged/`.

    Args:
      directory: of the checkpoints; may be missing.

    Returns:
      A line for each.

    Raises:
      UserError: if there are checkpoints and all of them are damaged.
    """
    found = []
    for step in reversed(saved_steps(directory)):
        reason = damage(directory / str(step))
        if reason is None:
            break
        found.append((step, reason))
    else:
        if found:
            step, reason = found[0]
            raise UserError(
                f"no checkpoint in {directory} is whole (of step {step}, {reason}): bring one back "
                "from a copy, or remove the run's directory to begin anew"
            )
    lines = []
    for step, reason in found:
        aside = directory.parent / "damaged"
        aside.mkdir(exist_ok=True)
        name = next(n for i in itertools.count() if not (n := aside / f"{step}-{i}").exists())
        (directory / str(step)).rename(name)
        lines.append(f"The checkpoint of step {step:,} is damaged ({reason}): moved to {name}.")
    return lines


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_params(workdir: Path | str, step: int, params: Any, metadata: Mapping[str, Any]) -> None:
    """Keeps parameters without an optimiser, for `load_params`; what was there before goes.

    Args:
      workdir: gets a directory `checkpoints/` with one checkpoint.
      step: its label.
      params: a tree of arrays.
      metadata: JSON-compatible.
    """
    directory = Path(workdir).absolute() / "checkpoints"
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with _writing(directory), ocp.CheckpointManager(directory, options=options) as manager:
        if step in manager.all_steps():
            manager.delete(step)
        manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params), metadata=ocp.args.JsonSave(dict(metadata))
            ),
            force=True,
        )


def load_params(workdir: Path | str, step: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Parameters and metadata of a run, without its optimiser.

    Args:
      workdir: of the run.
      step: None: the latest.

    Returns:
      The tree of parameters as NumPy arrays, and the metadata.

    Raises:
      UserError: if there is no such checkpoint.
    """
    directory = Path(workdir).absolute() / "checkpoints"
    if not directory.is_dir():
        raise UserError(f"{workdir}: holds no checkpoints/: give the --workdir of a training run")
    # "rest" is not read: it has a handler so that orbax does not warn of having none.
    handlers = {name: ocp.PyTreeCheckpointHandler() for name in ("params", "rest")}
    handlers["metadata"] = ocp.JsonCheckpointHandler()
    with ocp.CheckpointManager(directory, item_handlers=handlers) as manager:
        step = manager.latest_step() if step is None else step
        if step is None:
            raise UserError(f"{workdir}: its checkpoints/ is empty: give a run that has saved one")
        if step not in manager.all_steps():
            raise UserError(
                f"{workdir}: no checkpoint at step {step}, there are {sorted(manager.all_steps())}"
            )
        with _reading(directory / str(step)):
            saved = manager.item_metadata(step)["params"].tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
            items = manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.PyTreeRestore(restore_args=as_numpy),
                    metadata=ocp.args.JsonRestore(),
                ),
            )
    return items["params"], items["metadata"]
