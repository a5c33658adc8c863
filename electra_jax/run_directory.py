"""The directory of a run: recognised when it is there, begun when it is not, and its writers."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from electra_jax import parallel, processes, same_run
from electra_jax.checkpoint import Checkpointer, set_damaged_aside
from electra_jax.curves import draw_curves
from electra_jax.data.tokenization import Tokenizer
from electra_jax.errors import UserError
from electra_jax.writers import (
    ConsoleWriter,
    JsonlWriter,
    MetricWriter,
    TensorBoardWriter,
    WandbWriter,
    WriterList,
    read_rows,
    write_aside,
)


def open_devices(
    config: ml_collections.ConfigDict, *, batch_size: int, num_microbatches: int = 1
) -> tuple[str, Any]:
    """Meets the other processes of a run, and takes the devices that it is to have.

    Args:
      config: a run's, of which `platform` and `parallel` count.
      batch_size, num_microbatches: as of `parallel.check_batch_size`.

    Returns:
      The platform, "cpu", "gpu" or "tpu", and the mesh.

    Raises:
      UserError: for what cannot be had.
    """
    numbers = dict(config.parallel)
    backend, fsdp = numbers.pop("backend"), numbers.pop("fsdp", False)
    count = processes.initialize(**numbers)
    if count > 1:
        say(f"{count} processes have met.")
    platform = parallel.choose_platform(config.platform)
    parallel.enable_compilation_cache()
    parallel.check_backend(backend, fsdp=fsdp)
    mesh = parallel.make_mesh(None if config.platform == "auto" else config.platform)
    parallel.check_batch_size(batch_size, mesh, num_microbatches)
    return platform, mesh


def open_run(
    workdir: Path,
    description: Mapping[str, Any],
    *,
    num_steps: int,
    checkpoint_every: int,
    keep: int,
    keep_every: int | None = None,
    may_change: tuple[str, ...] = same_run.MAY_CHANGE,
    data_fields: str = "data.path",
) -> tuple[Checkpointer, int]:
    """Creates a run's directory, or recognises the run in it.

    Args:
      workdir: the directory.
      description: of the run that is asked for, as kept in `config.json` and each checkpoint.
      num_steps: how long it is to be.
      checkpoint_every: how often it is saved.
      keep, keep_every: as of `Checkpointer`.
      may_change, data_fields: as of `same_run.check_same_run`.

    Returns:
      The checkpointer, and the step to go on from (0: a fresh start).

    Raises:
      UserError: if the directory holds another run, or something else that would be overwritten.
    """
    _check_is_a_run_or_new(workdir)
    known, rows = workdir / "config.json", workdir / "metrics.jsonl"
    damaged = processes.on_main(lambda: set_damaged_aside(workdir / "checkpoints"))
    for line in damaged:
        say(line)
    if known.exists():
        before = recognise(workdir, description, may_change=may_change, data_fields=data_fields)
        checkpoint_every = max(checkpoint_every, before["config"]["train"]["checkpoint_every"])
    try:
        checkpointer = Checkpointer(workdir / "checkpoints", keep=keep, keep_every=keep_every)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written ({error.strerror}): choose another"
        ) from error
    start = checkpointer.latest_step() or 0
    logged = max((row["step"] for row in read_rows(rows)), default=0) if rows.exists() else 0
    problem = None
    if start > num_steps:
        problem = (
            f"train.num_train_steps={num_steps}, but the run in {workdir} is already "
            f"at step {start}: raise it, or choose another --workdir"
        )
    elif (
        not damaged and logged - start > 2 * checkpoint_every
    ):  # a kill costs less: one save waits for the other
        problem = (
            f"--workdir={workdir}: metrics.jsonl reaches step {logged}, but the newest checkpoint "
            f"is of step {start}: bring the checkpoints back, or choose another"
        )
    if problem:
        checkpointer.close()
        raise UserError(problem)
    if known.exists() and not start:
        say(f"{workdir} holds no checkpoint yet: starting at step 0.")
    return checkpointer, start


def recognise(
    workdir: Path,
    description: Mapping[str, Any],
    *,
    may_change: tuple[str, ...] = same_run.MAY_CHANGE,
    data_fields: str = "data.path",
) -> dict[str, Any]:
    """The description of the run in a directory, which is the run asked for; says what differs.

    Raises:
      UserError: if it is another one.
    """
    before, now = read_json(workdir / "config.json"), json.loads(json.dumps(description))
    for note in same_run.check_same_run(before, now, workdir, may_change, data_fields):
        say(f"Changed since this run began: {note}")
    return before


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Context in which a directory belongs to this run, whose processes must all see it.

    The lock is the system's: it ends with the process, however that ends.

    Raises:
      UserError: if another run has it, or not all processes see the same directory.
    """
    path, file = workdir / ".lock", None
    token = f"{os.getpid()} on {socket.gethostname()}, {secrets.token_hex(8)}"

    def lock() -> str:
        nonlocal file
        _check_is_a_run_or_new(workdir)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"--workdir={workdir} cannot be written ({error.strerror}): choose another"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().partition(",")[0]
            file.close()
            raise UserError(
                f"--workdir={workdir} is in use by process {owner or '?'}: wait for it, end it, or "
                "choose another"
            ) from None
        except OSError as error:
            say(f"note: {workdir} cannot be locked ({error.strerror}): start no second run on it")
        file.truncate(0)
        file.write(token)
        file.flush()
        return token

    token = processes.on_main(lock)
    try:
        seen = path.exists() and path.read_text(encoding="utf-8") == token
        processes.agree(
            None
            if seen
            else f"--workdir={workdir} is not the same directory in all processes: put it where "
            "all of them see it"
        )
        yield
    finally:
        if file is not None:
            file.close()


def _check_is_a_run_or_new(workdir: Path) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file: choose a directory")
    if (workdir / "metrics.jsonl").exists() and not (workdir / "config.json").exists():
        raise UserError(
            f"--workdir={workdir} holds a metrics.jsonl but no config.json, so it is no run of "
            "this program: choose another"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a run.

    Raises:
      UserError: if the file holds none.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        value = error
    if not isinstance(value, dict):
        reason = f" ({value})" if isinstance(value, Exception) else ""
        raise UserError(
            f"{path} is damaged{reason}: bring it back from a copy, or remove its directory"
        )
    return value


def open_writers(
    workdir: Path,
    description: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    num_steps: int,
    start: int,
    main_metric: str = "",
) -> WriterList:
    """Everything that takes rows, in the one process that writes; begins the run's files."""
    if not processes.is_main():
        return WriterList([])
    (workdir / "tokenizer").mkdir(parents=True, exist_ok=True)
    tokenizer.save(workdir / "tokenizer")
    write_aside(workdir / "config.json", json.dumps(description, indent=2) + "\n")
    logging = description["config"]["logging"]
    writers: list[MetricWriter] = [JsonlWriter(workdir / "metrics.jsonl", last_step=start)]
    if logging["tensorboard"]:
        writers.append(TensorBoardWriter(workdir / "tensorboard", last_step=start))
    if logging["wandb"]:
        project = logging["wandb_project"]
        writers.append(WandbWriter(project=project, config=description, workdir=workdir))
    console = ConsoleWriter(num_steps=num_steps, first_step=start, main_metric=main_metric)
    return WriterList([*writers, console])


# What objectives report, in words.
_LOSSES = {
    "mlm_loss": "generator loss",
    "encoder_loss": "encoder loss",
    "disc_loss": "discriminator loss",
}


def say(text: str) -> None:
    """Prints in the one process that writes logs."""
    if processes.is_main():
        print(text, flush=True)


def summarize_run(workdir: Path) -> str:
    """Draws the curves and says in words how the run went."""
    rows = read_rows(workdir / "metrics.jsonl") if (workdir / "metrics.jsonl").exists() else []
    if not rows:
        return f"{workdir}: finished; there is no metrics.jsonl to draw curves from"
    draw_curves(rows, workdir / "curves.png", title=workdir.name)
    trained = [row for row in rows if row["split"] == "train"]
    held_out = [row for row in rows if row["split"] == "eval"][-1]
    first, last = trained[0], trained[-1]
    skipped = sum(row["skipped_steps"] for row in trained)
    number = lambda value: "?" if value is None else f"{value:.3f}"  # noqa: E731
    lines = [
        "",
        f"Trained {last['step']:,} steps.",
    ]
    lines += [
        f"  {what:18}  {number(first[name])} -> {number(last[name])} "
        f"(held out {number(held_out[name])})"
        for name, what in _LOSSES.items()
        if name in last
    ]
    if "disc_auc" in last:
        auc = number(held_out["disc_auc"])
        lines.append(f"  discriminator AUC   {auc} held out (0.5 is chance, 1 perfect)")
    if skipped:
        lines.append(f"  steps left out      {skipped} (loss or gradient not finite)")
    lines += [
        f"  checkpoint          {workdir / 'checkpoints' / str(last['step'])}",
        f"  curves              {workdir / 'curves.png'}",
        f"  all metrics         {workdir / 'metrics.jsonl'}",
        "Next: train on text of your own, with a larger model:",
        "  electra-jax prepare TEXTS... --output DIR --train-tokenizer wordpiece",
        "  python train.py --config=configs/small.py --config.data.path=DIR",
    ]
    return "\n".join(lines)
