"""GLUE from TensorFlow Datasets, read without TensorFlow."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from electra_jax.errors import UserError
from electra_jax.tasks.examples import BadRow, Reading, TextExample, shown
from electra_jax.tasks.reading.rows import check_text
from electra_jax.tasks.table import Task

PREFIX = "tfds:"
# The one format of TFDS that can be read in any order and without TensorFlow.
_FILE_FORMAT = "array_record"
_PATTERN = re.compile(r"tfds:(?P<name>\w+)(?:/(?P<config>\w+))?(?::(?P<version>\d+\.\d+\.\d+))?")


class _Features(NamedTuple):
    """Names of the features of text and text_b; names of the labels, none for numbers."""

    text: str
    text_b: str | None
    label_names: tuple[str, ...]


def read_tfds(
    task: Task, specification: str, split: str, reading: Reading, data_dir: str | None = None
) -> list[TextExample]:
    """The examples of a split of a GLUE task, in the order of the official file.

    TFDS shuffles what it prepares, and its labels are numbers in an order of its own: examples
    are put back into order by their `idx`, which is their id, and labels are taken by name (or,
    where GLUE's names are 0 and 1, by number).

    Args:
      task: a GLUE task.
      specification: `tfds:glue`, `tfds:glue/rte`, `tfds:glue/rte:2.0.0`.
      split: a split of the task.
      reading: bad rows are settled with it.
      data_dir: where TFDS has its data; None: its own place. What is not there is downloaded.

    Raises:
      UserError: if there is no such data, or it cannot be had; as `reading` says.
    """
    files = task.splits[split]
    builder = _builder(_name(task, specification, files.tfds), specification, data_dir)
    _prepare(builder, specification)
    if files.tfds not in builder.info.splits:
        has = ", ".join(builder.info.splits)
        raise UserError(
            f"{specification} has no split {files.tfds} (it has: {has}): choose another"
        )
    features = _features(task, builder)
    source = builder.as_data_source(split=files.tfds, file_format=_FILE_FORMAT)
    rows = sorted((source[i] for i in range(len(source))), key=lambda row: int(row["idx"]))
    examples = []
    for row in rows:
        try:
            examples.append(_example(row, features, task, files.labelled, reading))
        except BadRow as bad:
            reading.settle(f"split {files.tfds}, idx {int(row['idx'])}", bad)
    return examples


def _name(task: Task, specification: str, split: str) -> str:
    match = _PATTERN.fullmatch(specification)
    if not match or not task.tfds or match["name"] != "glue":
        raise UserError(
            f"data_dir={specification!r} is not GLUE in TensorFlow Datasets: write tfds:glue, for "
            "a task of GLUE, or name a directory"
        )
    if match["config"] not in (None, task.tfds[0]):
        raise UserError(
            f"data_dir={specification!r} is not of task {task.name}: write tfds:glue/{task.tfds[0]}"
        )
    if not split:
        raise UserError(
            f"data_dir={specification!r}: TensorFlow Datasets lack this split of {task.name}: name "
            "a directory with its files"
        )
    version = f":{match['version']}" if match["version"] else ""
    return f"glue/{task.tfds[0]}{version}"


def _builder(name: str, specification: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # noqa: F401  GLUE is known only once this is imported.

    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS documents none of them.
        raise UserError(
            f"data_dir={specification!r}: TensorFlow Datasets have no {name} ({_line(error)}): "
            "check its version, and where their data is"
        ) from error


def _prepare(builder: Any, specification: str) -> None:
    import tensorflow_datasets as tfds

    if not builder.is_prepared():
        # The copies on Google's servers are of a format that cannot be read here.
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        try:
            builder.download_and_prepare(file_format=_FILE_FORMAT, download_config=config)
        except Exception as error:  # Whatever downloading may meet.
            raise UserError(
                f"data_dir={specification!r} cannot be prepared in {builder.data_dir} "
                f"({_line(error)}): prepare it where that is possible, with "
                f"download_and_prepare(file_format={_FILE_FORMAT!r}), or name a directory of TSVs"
            ) from error
    formats = sorted(known.value for known in builder.info.available_file_formats())
    if _FILE_FORMAT not in formats:
        raise UserError(
            f"data_dir={specification!r} is prepared as {', '.join(formats)} in "
            f"{builder.data_dir}, and only {_FILE_FORMAT} can be read without TensorFlow: prepare "
            "it again in another directory"
        )


def _features(task: Task, builder: Any) -> _Features:
    text, text_b = (*task.tfds[1:], None)[:2]
    label = builder.info.features["label"]
    return _Features(text, text_b, tuple(getattr(label, "names", None) or ()))


def _example(
    row: dict[str, Any], features: _Features, task: Task, labelled: bool, reading: Reading
) -> TextExample:
    texts = []
    for name in (features.text, features.text_b):
        if name is None:
            texts.append(None)
            continue
        text = check_text(bytes(row[name]).decode("utf-8", "surrogateescape"))
        if not text.strip():
            if labelled:
                raise BadRow(f"{name} is empty", "use another copy")
            reading.counts.empty_texts += 1
        texts.append(text)
    label = _label(row["label"], features, task) if labelled else None
    return TextExample(str(int(row["idx"])), *texts, label)


def _label(value: Any, features: _Features, task: Task) -> str | float:
    if task.kind == "regression":
        return float(value)
    index = int(value)
    if not 0 <= index < len(features.label_names):
        raise BadRow(f"label {shown(index)} is unknown", "use a split with labels")
    name = features.label_names[index]
    return name if name in task.labels else task.labels[index]


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split()), 200)[1:-1]
