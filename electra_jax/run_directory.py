"""The directory of a run: recognised when it is there, begun when it is not, and its writers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax import parallel, run_config
from electra_jax.checkpoint import Checkpointer
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


def open_run(
    workdir: Path,
    description: Mapping[str, Any],
    *,
    num_steps: int,
    checkpoint_every: int,
    keep: int,
    keep_every: int | None = None,
    may_change: tuple[str, ...] = run_config.MAY_CHANGE,
    data_fields: str = "data.path",
) -> tuple[Checkpointer, int]:
    """Creates a run's directory, or recognises the run in it.

    Args:
      workdir: the directory.
      description: of the run that is asked for, as kept in `config.json` and each checkpoint.
      num_steps: how long it is to be.
      checkpoint_every: how often it is saved.
      keep, keep_every: as of `Checkpointer`.
      may_change, data_fields: as of `run_config.check_same_run`.

    Returns:
      The checkpointer, and the step to go on from (0: a fresh start).

    Raises:
      UserError: if the directory holds another run, or something else that would be overwritten.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file: choose a directory")
    known, rows = workdir / "config.json", workdir / "metrics.jsonl"
    if rows.exists() and not known.exists():
        raise UserError(
            f"--workdir={workdir} holds a metrics.jsonl but no config.json, so it is no run of "
            "this program: choose another"
        )
    if known.exists():
        before, now = read_json(known), json.loads(json.dumps(description))
        for note in run_config.check_same_run(before, now, workdir, may_change, data_fields):
            say(f"Changed since this run began: {note}")
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
    elif logged - start > 2 * checkpoint_every:  # a kill costs less: one save waits for the other
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
) -> WriterList:
    """Everything that takes rows, in the one process that writes; begins the run's files."""
    if not parallel.is_main_process():
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
    return WriterList([*writers, ConsoleWriter(num_steps=num_steps, first_step=start)])


def say(text: str) -> None:
    """Prints in the one process that writes logs."""
    if parallel.is_main_process():
        print(text, flush=True)
