"""The tasks, one row each: all in which they differ, as data.

Columns and label names of GLUE are those of its official files; label order and `double_unordered`
are the original's (`finetune/classification/classification_tasks.py`); epochs are the paper's
(Clark et al. 2020, Table 7: 10 for RTE and STS-B, 2 for question answering, 3 for the rest).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from electra_jax.errors import UserError

KINDS = ("classification", "regression", "multilabel", "span", "tagging")
TAG_SCHEMES = ("as_file", "bioes")
# Endings of the files of one's own data, in the order in which they are looked for.
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl")
_PAPER_BATCH_SIZE = 32
# Column of the second text, where one's own data has one.
_SECOND_TEXT = "text_b"


class Columns(NamedTuple):
    """Where a table has what.

    Attributes:
      text, text_b, label, id: names in the header (or of JSON fields); None where there is no such
        column. In a file without header, positions from 0.
      without_header: how many columns a file without header has; 0: it has one.
      text_b_is_optional: whether a file may lack `text_b`, and then holds single texts.
      separator: between the labels of a multilabel row, where they are not a JSON list.
    """

    text: str | int
    text_b: str | int | None = None
    label: str | int | None = None
    id: str | int | None = None
    without_header: int = 0
    text_b_is_optional: bool = False
    separator: str = ","


class SplitFiles(NamedTuple):
    """A part of a task's data on disk.

    Attributes:
      names: names the file may have, relative to the task's directory; the first one found counts.
      columns: of a table; None for other formats.
      labelled: whether it has labels.
      tfds: what TensorFlow Datasets call the split; "" if they have none.
      submission: name of GLUE's submission file; "" if there is none.
      submission_rows: how many rows GLUE expects in it.
    """

    names: tuple[str, ...]
    columns: Columns | None = None
    labelled: bool = True
    tfds: str = ""
    submission: str = ""
    submission_rows: int = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
      name: as in `--config=configs/finetune.py:TASK`.
      kind: one of `KINDS`.
      format: of its files: "glue", "own", "squad", "mrqa" or "conll".
      directories: names its directory may have below the data directory; the data directory itself
        is looked in last.
      splits: its parts. Those whose names begin with "dev" are for selection and scores.
      metrics: names of the metrics, the one that models are chosen by first.
      labels: names in order of their indices; () if they are found in the training data.
      score_range: of a regression, the numbers that become targets 0 and 1; None: found likewise.
      has_unanswerable: whether questions may have no answer.
      double_unordered: whether training sees each pair in both orders by default.
      num_epochs, max_length, batch_size: defaults.
      bad_rows: default for rows that cannot be used.
      dev_share: share of the training data that becomes dev where there is no dev file.
      tag_scheme: "as_file", or "bioes": tags are rewritten before they are learned.
      tfds: configuration of `glue` in TensorFlow Datasets, and its names of text and text_b.
      scored_with: the task whose models make its predictions; "" for its own.
    """

    name: str
    kind: str
    format: str
    directories: tuple[str, ...]
    splits: Mapping[str, SplitFiles]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    score_range: tuple[float, float] | None = None
    has_unanswerable: bool = False
    double_unordered: bool = False
    num_epochs: int = 3
    max_length: int = 128
    batch_size: int = _PAPER_BATCH_SIZE
    bad_rows: str = "refuse"
    dev_share: float = 0.0
    tag_scheme: str = "as_file"
    tfds: tuple[str, ...] = ()
    scored_with: str = ""

    @property
    def main_metric(self) -> str:
        """What models are chosen by; more is better."""
        return self.metrics[0]

    @property
    def dev_splits(self) -> tuple[str, ...]:
        """Names of the splits to evaluate on, the one that models are chosen by first."""
        return tuple(name for name in self.splits if name.startswith("dev"))

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Names of the splits to predict."""
        return tuple(name for name in self.splits if name.startswith("test"))


def get_task(name: str) -> Task:
    """The row of a name.

    Raises:
      UserError: if there is none.
    """
    if name not in TASKS:
        raise UserError(f"task {name!r} is unknown: use one of {', '.join(TASKS)}")
    return TASKS[name]


def own_task(
    name: str,
    *,
    text_column: str = "text",
    text_b_column: str = _SECOND_TEXT,
    label_column: str = "label",
    id_column: str = "",
    labels: Sequence[str] = (),
    multilabel: bool = False,
    label_separator: str = ",",
    score_range: tuple[float, float] | None = None,
    tag_scheme: str = "as_file",
) -> Task:
    """The row of `classification`, `regression` or `tagging`, for the user's own data.

    Args:
      name: one of the three.
      text_column: column of the text.
      text_b_column: column of the second text; "": there is none. Files may lack the default one,
        and then hold single texts.
      label_column: column of the label, the labels, or the number.
      id_column: column of ids; "": rows are numbered from 0.
      labels: the labels in order; () means all that the training data has, sorted.
      multilabel: whether a text has any number of the labels, for classification.
      label_separator: between labels in CSV and TSV; JSON may have lists.
      score_range: of a regression, the numbers that become targets 0 and 1; None: the smallest
        and the largest of the training data.
      tag_scheme: of tagging, "as_file" or "bioes".

    Raises:
      UserError: if an argument is wrong, or of another task.
    """
    task = get_task(name)
    given = {
        "multilabel": (multilabel, "classification"),
        "score_range": (score_range is not None, "regression"),
        "tag_scheme": (tag_scheme != "as_file", "tagging"),
    }
    if task.format not in ("own", "conll") or task.name == "chunking":
        raise UserError(
            f"task {name!r} has columns of its own: use classification, regression or tagging"
        )
    for field, (is_given, of_task) in given.items():
        if is_given and name != of_task:
            raise UserError(f"{field} means nothing for task {name!r}: it is for {of_task}")
    if labels and name == "regression":
        raise UserError("labels mean nothing for task 'regression': leave them empty")
    if len(set(labels)) != len(labels) or len(labels) == 1 and not multilabel:
        raise UserError(f"labels={list(labels)} must be different from each other, and two or more")
    if score_range is not None and not score_range[0] < score_range[1]:
        raise UserError(f"score_range={score_range} must be two numbers, the smaller one first")
    if tag_scheme not in TAG_SCHEMES:
        raise UserError(
            f"tag_scheme={tag_scheme!r} is unknown: use one of {', '.join(TAG_SCHEMES)}"
        )
    task = dataclasses.replace(
        task, labels=tuple(labels), score_range=score_range, tag_scheme=tag_scheme
    )
    if name == "tagging":
        return task
    if multilabel:
        metrics = ("micro_f1", "macro_f1", "exact_match")
        task = dataclasses.replace(task, kind="multilabel", metrics=metrics)
    columns = Columns(
        text_column,
        text_b_column or None,
        label_column,
        id_column or None,
        text_b_is_optional=text_b_column == _SECOND_TEXT,
        separator=label_separator,
    )
    splits = {
        split: files._replace(columns=columns if files.labelled else columns._replace(label=None))
        for split, files in task.splits.items()
    }
    return dataclasses.replace(task, splits=splits)


def _glue(name, kind, directories, text, text_b, label, test, metrics, tfds, **others) -> Task:
    """A row of GLUE whose training and dev files have a header; `test` is (file, rows, id)."""
    columns = Columns(text, text_b, label)
    submission, rows, id_column = test
    unlabelled = Columns(text, text_b, id=id_column)
    splits = {
        "train": SplitFiles(("train.tsv",), columns, tfds="train"),
        "dev": SplitFiles(("dev.tsv",), columns, tfds="validation"),
        "test": SplitFiles(("test.tsv",), unlabelled, False, "test", submission, rows),
    }
    return Task(name, kind, "glue", directories, splits, metrics, tfds=tfds, **others)


def _with_splits(task: Task, **splits: SplitFiles) -> Task:
    """The task with some of its splits replaced or added; None takes one out."""
    merged = {**task.splits, **splits}
    return dataclasses.replace(
        task, splits={name: files for name, files in merged.items() if files is not None}
    )


def _cola() -> Task:
    task = _glue(
        "cola", "classification", ("CoLA", "cola"), "sentence", None, None,
        ("CoLA.tsv", 1063, "index"), ("mcc",), ("cola", "sentence"), labels=("0", "1"),
    )  # fmt: skip
    columns = Columns(3, None, 1, without_header=4)
    return _with_splits(
        task,
        train=task.splits["train"]._replace(columns=columns),
        dev=task.splits["dev"]._replace(columns=columns),
    )


def _mnli() -> Task:
    task = _glue(
        "mnli", "classification", ("MNLI", "mnli"), "sentence1", "sentence2", "gold_label",
        ("MNLI-m.tsv", 9796, "index"), ("accuracy",), ("mnli", "premise", "hypothesis"),
        labels=_NLI,
    )  # fmt: skip
    dev, test = task.splits["dev"], task.splits["test"]
    return _with_splits(
        task,
        dev=None,
        test=None,
        dev_matched=dev._replace(names=("dev_matched.tsv",), tfds="validation_matched"),
        dev_mismatched=dev._replace(names=("dev_mismatched.tsv",), tfds="validation_mismatched"),
        test_matched=test._replace(names=("test_matched.tsv",), tfds="test_matched"),
        test_mismatched=test._replace(
            names=("test_mismatched.tsv",),
            tfds="test_mismatched",
            submission="MNLI-mm.tsv",
            submission_rows=9847,
        ),
    )


def _ax() -> Task:
    """GLUE's diagnostics; `diagnostic-full.tsv`, which has labels, is not part of its archive."""
    task = _glue(
        "ax", "classification", ("diagnostic", "AX", "ax", "MNLI", "mnli"), "sentence1",
        "sentence2", "label", ("AX.tsv", 1104, "index"), ("mcc", "accuracy"),
        ("ax", "premise", "hypothesis"), labels=_NLI, scored_with="mnli",
    )  # fmt: skip
    full = Columns("Premise", "Hypothesis", "Label")
    return _with_splits(
        task,
        train=None,
        dev=SplitFiles(("diagnostic-full.tsv",), full),
        test=task.splits["test"]._replace(names=("diagnostic.tsv",)),
    )


def _questions(name, form, directories, names, metrics, **others) -> Task:
    """A row of question answering; in `names`, {} stands for the split."""
    splits = {
        split: SplitFiles(tuple(name.format(split) for name in names), labelled=split != "test")
        for split in ("train", "dev", "test")
    }
    return Task(
        name, "span", form, directories, splits, metrics, num_epochs=2, max_length=512, **others
    )


def _mrqa(name: str, official: str) -> Task:
    # The original's names, then those of the MRQA archive.
    names = ("{}.jsonl", "{}.jsonl.gz", f"{{}}/{official}.jsonl.gz", f"{{}}/{official}.jsonl")
    return _questions(name, "mrqa", (name, official), names, ("f1", "exact_match"))


def _tagging(name: str, directories: tuple[str, ...], endings: tuple[str, ...], **others) -> Task:
    splits = {
        split: SplitFiles(tuple(split + ending for ending in endings))
        for split in ("train", "dev", "test")
    }
    metrics = ("f1", "precision", "recall", "accuracy")
    return Task(name, "tagging", "conll", directories, splits, metrics, **others)


def _own(name: str, kind: str, metrics: tuple[str, ...]) -> Task:
    columns = Columns("text", _SECOND_TEXT, "label", text_b_is_optional=True)
    splits = {
        split: SplitFiles(
            tuple(split + ending for ending in TABLE_ENDINGS),
            columns._replace(label="label" if split != "test" else None),
            labelled=split != "test",
        )
        for split in ("train", "dev", "test")
    }
    return Task(name, kind, "own", (name,), splits, metrics)


_NLI = ("contradiction", "entailment", "neutral")
_RTE = ("entailment", "not_entailment")
_BINARY = ("0", "1")
_PAIR = ("sentence1", "sentence2")

_ROWS = (
    _cola(),
    _glue(
        "sst2", "classification", ("SST-2", "sst"), "sentence", None, "label",
        ("SST-2.tsv", 1821, "index"), ("accuracy",), ("sst2", "sentence"), labels=_BINARY,
    ),
    _glue(
        "mrpc", "classification", ("MRPC", "mrpc"), "#1 String", "#2 String", "Quality",
        ("MRPC.tsv", 1725, "index"), ("accuracy", "f1"), ("mrpc", *_PAIR), labels=_BINARY,
        double_unordered=True,
    ),
    _glue(
        "stsb", "regression", ("STS-B", "sts"), *_PAIR, "score", ("STS-B.tsv", 1379, "index"),
        ("spearman", "pearson", "mse"), ("stsb", *_PAIR), score_range=(0.0, 5.0),
        double_unordered=True, num_epochs=10,
    ),
    # The official train.tsv has a few rows with line breaks inside a question.
    _glue(
        "qqp", "classification", ("QQP", "qqp"), "question1", "question2", "is_duplicate",
        ("QQP.tsv", 390965, "id"), ("accuracy", "f1"), ("qqp", "question1", "question2"),
        labels=_BINARY, bad_rows="skip",
    ),
    _mnli(),
    _ax(),
    _glue(
        "qnli", "classification", ("QNLI", "qnli"), "question", "sentence", "label",
        ("QNLI.tsv", 5463, "index"), ("accuracy",), ("qnli", "question", "sentence"), labels=_RTE,
    ),
    _glue(
        "rte", "classification", ("RTE", "rte"), *_PAIR, "label", ("RTE.tsv", 3000, "index"),
        ("accuracy",), ("rte", *_PAIR), labels=_RTE, num_epochs=10,
    ),
    _glue(
        "wnli", "classification", ("WNLI", "wnli"), *_PAIR, "label", ("WNLI.tsv", 146, "index"),
        ("accuracy",), ("wnli", *_PAIR), labels=_BINARY,
    ),
    _questions(
        "squad", "squad", ("squadv1", "squad"), ("{}-v1.1.json", "{}.json"), ("f1", "exact_match"),
    ),
    _questions(
        "squadv2", "squad", ("squadv2", "squad"), ("{}-v2.0.json", "{}.json"),
        ("best_f1", "best_exact", "f1", "exact"), has_unanswerable=True,
    ),
    _mrqa("newsqa", "NewsQA"),
    _mrqa("naturalqs", "NaturalQuestions"),
    _mrqa("triviaqa", "TriviaQA"),
    _mrqa("searchqa", "SearchQA"),
    # CoNLL-2000 has no dev set.
    _tagging("chunking", ("chunk", "chunking", "conll2000"), (".txt",), max_length=256,
             dev_share=0.1),
    _tagging("tagging", ("tagging", "ner"), (".txt", ".conll", ".bio", ".tsv")),
    _own("classification", "classification", ("accuracy", "macro_f1")),
    _own("regression", "regression", ("pearson", "spearman", "mse")),
)  # fmt: skip

TASKS: dict[str, Task] = {task.name: task for task in _ROWS}
