"""From a data directory to a task's examples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from electra_jax.data.permutation import permute
from electra_jax.errors import UserError
from electra_jax.tasks.examples import Example, Reading, ReadingCounts, Split, TextExample
from electra_jax.tasks.reading.questions import Purpose, read_mrqa, read_squad
from electra_jax.tasks.reading.tables import read_table
from electra_jax.tasks.reading.tagged import read_conll, read_sentences
from electra_jax.tasks.reading.tfds_glue import PREFIX, read_tfds
from electra_jax.tasks.table import Columns, SplitFiles, Task

TRAIN = "train"


def read_split(
    task: Task,
    data_dir: str | Path,
    split: str,
    *,
    labels: Sequence[str] = (),
    bad_rows: str | None = None,
    tfds_data_dir: str | None = None,
) -> Split:
    """Reads a part of a task's data.

    Args:
      task: the task.
      data_dir: the directory with the task's files, or with the task's directory; or `tfds:glue`.
      split: a name from `task.splits`.
      labels: what a label may be, for a task that finds its labels in the training data; () means
        anything.
      bad_rows: "refuse" or "skip" rows that cannot be used; None: what the task's table says.
      tfds_data_dir: where TensorFlow Datasets have their data; None: their own place.

    Raises:
      UserError: if there is no such file or split, it cannot be read, or has no usable row; for a
        bad row, naming file and line or id, if they are refused.
    """
    files = _files(task, split)
    reading_as = bad_rows or task.bad_rows
    if str(data_dir).startswith(PREFIX):
        reading = Reading(str(data_dir), reading_as)
        examples = read_tfds(task, str(data_dir), split, reading, tfds_data_dir)
    else:
        path = find_file(task, data_dir, split)
        reading = Reading(str(path), reading_as)
        purpose = Purpose(split == TRAIN, files.labelled, task.has_unanswerable)
        examples = _read(task, path, files.columns, purpose, labels, reading)
    return _split(split, reading, examples, files.labelled)


def read_file(
    task: Task,
    path: str | Path,
    *,
    labelled: bool = False,
    labels: Sequence[str] = (),
    bad_rows: str | None = None,
    columns_called: Mapping[str, str] | None = None,
) -> Split:
    """Reads a file of its own in the task's format, for prediction or scoring.

    Args:
      task: the task; its last dev split says what the columns are called.
      path: the file. A .txt file without labels has a text, or a sentence to tag, a line.
      labelled: whether it has labels.
      labels, bad_rows: as in `read_split`.
      columns_called: names of the columns "text", "text_b" and "id", where they are others.

    Raises:
      UserError: as `read_split`.
    """
    columns = task.splits[task.dev_splits[-1]].columns
    if columns is not None and not labelled:
        columns = columns._replace(label=None)
        if Path(path).suffix.lower() == ".txt":
            columns = columns._replace(id=None)
        if columns.without_header:  # GLUE's own test files have one.
            columns = task.splits[task.test_splits[-1]].columns
    if columns_called and columns is None:
        raise UserError(
            f"{', '.join(columns_called)}: files of task {task.name} have no columns to name"
        )
    if columns_called:
        columns = columns._replace(**columns_called)
        if "text_b" in columns_called:
            columns = columns._replace(text_b_is_optional=False)
    reading = Reading(str(path), bad_rows or task.bad_rows)
    purpose = Purpose(False, labelled, task.has_unanswerable)
    if task.format == "conll" and not labelled and Path(path).suffix.lower() == ".txt":
        examples = read_sentences(Path(path), reading)
    else:
        examples = _read(task, Path(path), columns, purpose, labels, reading)
    return _split(Path(path).name, reading, examples, labelled)


def find_file(task: Task, data_dir: str | Path, split: str) -> Path:
    """The file of a split.

    Raises:
      UserError: if there is none; the message says what was looked for, and what there is.
    """
    names = _files(task, split).names
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"data_dir={data_dir} is not a directory: give the one with the data")
    for directory in _directories(task, data_dir):
        for name in names:
            if (directory / name).is_file():
                return directory / name
    there = [name for name in task.splits if name != split and has_split(task, data_dir, name)]
    raise UserError(
        f"data_dir={data_dir} has no {split} data of task {task.name}: put {' or '.join(names)} "
        f"into it, or below it into {task.directories[0]}/"
        + (f" (it has: {', '.join(there)})" if there else "")
    )


def has_split(task: Task, data_dir: str | Path, split: str) -> bool:
    """Whether a directory has the file of a split; of TensorFlow Datasets, whether they have it."""
    files = _files(task, split)
    if str(data_dir).startswith(PREFIX):
        return bool(files.tfds)
    directories = _directories(task, Path(data_dir))
    return any((directory / name).is_file() for directory in directories for name in files.names)


def split_off(train: Split, share: float, seed: int = 0) -> tuple[Split, Split]:
    """Cuts a dev split off the training data, for data that has none.

    Args:
      train: the training data.
      share: how much of it becomes dev, in (0, 1); at least one example, and not all.
      seed: which examples; the same seed takes the same ones.

    Returns:
      (train, dev), each in the file's order. Questions about one text stay together.

    Raises:
      UserError: if `share` is out of range, or there are not two examples to divide.
    """
    if not 0 < share < 1:
        raise UserError(f"dev_share={share} must lie between 0 and 1")
    groups: dict[object, list[int]] = {}
    for i, example in enumerate(train.examples):
        key = example.context if hasattr(example, "context") else i
        groups.setdefault(key, []).append(i)
    if len(groups) < 2:
        raise UserError(f"{train.source} has too few examples to take a dev split from: add one")
    order = permute(range(len(groups)), length=len(groups), seed=seed, epoch=0)
    ordered = list(groups.values())
    count = min(max(1, round(share * len(groups))), len(groups) - 1)
    taken = {i for group in order[:count].tolist() for i in ordered[group]}
    parts = [
        [example for i, example in enumerate(train.examples) if (i in taken) == wanted]
        for wanted in (False, True)
    ]
    dev = Split("dev", train.source, parts[1], train.labelled, ReadingCounts())
    return dataclasses.replace(train, examples=parts[0]), dev


def some_of(train: Split, rows: int, seed: int = 0) -> Split:
    """A sample of the training data without replacement, in the file's order.

    A smaller sample of the same seed is a part of a larger one: learning curves are nested.

    Args:
      train: the training data.
      rows: how many examples are kept.
      seed: which ones.

    Raises:
      UserError: if there are fewer examples than `rows`.
    """
    there = len(train.examples)
    if rows > there:
        raise UserError(
            f"data.train_rows={rows} is more than the {there} of {train.source}: ask for fewer"
        )
    kept = permute(range(rows), length=there, seed=seed, epoch=0)
    examples = [train.examples[i] for i in sorted(kept.tolist())]
    return dataclasses.replace(train, examples=examples)


def find_labels(task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """The labels of a task, in order: the table's, or all that the training data has, sorted.

    Whole numbers are sorted as numbers. Tags of a "bioes" scheme must have been rewritten before.

    Raises:
      UserError: if the training data has fewer than two labels (none, of multilabel).
    """
    if task.labels or task.kind in ("regression", "span"):
        return task.labels
    found: set[str] = set()
    for example in examples:
        if isinstance(example, TextExample):
            label = example.label
            found.update(label if isinstance(label, tuple) else () if label is None else (label,))
        else:
            found.update(example.tags or ())
    if len(found) < (1 if task.kind == "multilabel" else 2):
        raise UserError(
            f"the training data of task {task.name} has the labels {sorted(found)} alone: give it "
            "examples of all"
        )
    numeric = all(label.isascii() and label.lstrip("-").isdigit() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label), label) if numeric else label))


def find_score_range(task: Task, examples: Sequence[TextExample]) -> tuple[float, float]:
    """The numbers that become targets 0 and 1: the table's, or the training data's extremes.

    Raises:
      UserError: if all numbers of the training data are equal.
    """
    if task.score_range is not None:
        return task.score_range
    numbers = [example.label for example in examples]
    low, high = min(numbers), max(numbers)
    if not math.isfinite(high - low):
        raise UserError(
            f"labels of the training data reach from {low} to {high}, farther than a number can "
            "say: scale them"
        )
    if low == high:
        raise UserError(f"all labels of the training data are {low}: there is nothing to learn")
    return low, high


def _read(
    task: Task,
    path: Path,
    columns: Columns | None,
    purpose: Purpose,
    labels: Sequence[str],
    reading: Reading,
) -> list:
    if task.format == "squad":
        return read_squad(path, purpose, reading)
    if task.format == "mrqa":
        return read_mrqa(path, purpose, reading)
    if task.format == "conll":
        return read_conll(path, reading, labelled=purpose.labelled, tags_known=task.labels)
    return read_table(path, columns, task.kind, reading, labels=task.labels or labels)


def _files(task: Task, split: str) -> SplitFiles:
    if split not in task.splits:
        raise UserError(
            f"task {task.name} has no split {split!r}: use one of {', '.join(task.splits)}"
        )
    return task.splits[split]


def _directories(task: Task, data_dir: Path) -> list[Path]:
    return [*(data_dir / name for name in task.directories), data_dir]


def _split(name: str, reading: Reading, examples: list, labelled: bool) -> Split:
    if not examples:
        left_out = reading.counts.bad_rows
        why = f"all of its {left_out} rows are bad" if left_out else "it is empty"
        first = f" (first: {reading.counts.messages[0]})" if reading.counts.messages else ""
        raise UserError(f"{reading.source} has no examples: {why}{first}: correct it")
    return Split(name, reading.source, examples, labelled, reading.counts)
