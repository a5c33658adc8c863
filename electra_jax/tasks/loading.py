"""What training on a task starts from: its data, and what its outputs will mean."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from electra_jax.errors import UserError
from electra_jax.tasks.examples import Split
from electra_jax.tasks.kinds import LabelSpace, label_space
from electra_jax.tasks.reading import TRAIN, find_file, has_split, read_split, some_of, split_off
from electra_jax.tasks.table import Task


@dataclasses.dataclass(frozen=True)
class TaskData:
    """The labelled data of a task.

    Attributes:
      train: to learn from.
      dev: to evaluate on, by name; models are chosen by the first.
      space: what outputs mean.
      absent: dev splits that the directory lacks (MNLI's mismatched one, say).
    """

    train: Split
    dev: dict[str, Split]
    space: LabelSpace
    absent: tuple[str, ...]


def load_task(
    task: Task,
    data_dir: str | Path,
    *,
    dev_share: float | None = None,
    train_rows: int | None = None,
    seed: int = 0,
    bad_rows: str | None = None,
    tfds_data_dir: str | None = None,
) -> TaskData:
    """Reads the training data and what there is to evaluate on.

    Args:
      task: the task.
      data_dir: as in `read_split`.
      dev_share: share of the training data to evaluate on where there is no dev file; None: the
        table's; 0: a dev file is needed. Not looked at where there is one.
      train_rows: examples to learn from, drawn from the training data; None: all. Labels are those
        of all, and dev is what it would be with all.
      seed: which share, and which examples.
      bad_rows, tfds_data_dir: as in `read_split`.

    Raises:
      UserError: as `read_split` and `some_of`; if the task is not one to train; if there is nothing
        to evaluate on.
    """
    if TRAIN not in task.splits:
        raise UserError(
            f"task {task.name} has no training data: score it with a model of {task.scored_with}"
        )
    how = {"bad_rows": bad_rows, "tfds_data_dir": tfds_data_dir}
    train = read_split(task, data_dir, TRAIN, **how)
    space = label_space(task, train.examples)
    present = [name for name in task.dev_splits if has_split(task, data_dir, name)]
    absent = tuple(name for name in task.dev_splits if name not in present)
    main = task.dev_splits[0]
    if main in present:
        dev = {
            name: read_split(task, data_dir, name, labels=space.labels, **how) for name in present
        }
    else:
        share = task.dev_share if dev_share is None else dev_share
        if not share:
            try:
                find_file(task, data_dir, main)
            except UserError as error:
                raise UserError(
                    f"{error}, or evaluate on a part of train with dev_share=0.1"
                ) from None
        train, part = split_off(train, share, seed)
        dev = {main: part}
    if train_rows is not None:
        train = some_of(train, train_rows, seed)
    return TaskData(train, dev, space, absent)
