"""The table against the issue's names, the official files and the paper."""

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.table import KINDS, TASKS, get_task, own_task

NAMES = """cola sst2 mrpc stsb qqp mnli ax qnli rte wnli squad squadv2 newsqa naturalqs triviaqa
searchqa chunking tagging classification regression"""


def test_names():
    assert sorted(TASKS) == sorted(NAMES.split())
    assert all(name == task.name and task.kind in KINDS for name, task in TASKS.items())


def test_the_papers_epochs_and_the_originals_lengths():
    """Clark et al. 2020, Table 7; naturalqs too, which the original forgets."""
    questions = {"squad", "squadv2", "newsqa", "naturalqs", "triviaqa", "searchqa"}
    for name, task in TASKS.items():
        epochs = 10 if name in ("rte", "stsb") else 2 if name in questions else 3
        length = 512 if name in questions else 256 if name == "chunking" else 128
        assert (task.num_epochs, task.max_length) == (epochs, length), name
        assert task.double_unordered == (name in ("mrpc", "stsb"))


def test_label_order_is_the_originals():
    assert TASKS["mnli"].labels == TASKS["ax"].labels == ("contradiction", "entailment", "neutral")
    assert TASKS["rte"].labels == TASKS["qnli"].labels == ("entailment", "not_entailment")
    for name in ("cola", "sst2", "mrpc", "qqp", "wnli"):
        assert TASKS[name].labels == ("0", "1")
    assert TASKS["stsb"].score_range == (0.0, 5.0)


def test_submissions_are_the_leaderboards():
    """Lines of a full submission with their headers, as published instructions list them."""
    lines = {
        files.submission: files.submission_rows + 1
        for task in TASKS.values()
        for files in task.splits.values()
        if files.submission
    }
    assert lines == {
        "AX.tsv": 1105, "CoLA.tsv": 1064, "MNLI-mm.tsv": 9848, "MNLI-m.tsv": 9797,
        "MRPC.tsv": 1726, "QNLI.tsv": 5464, "QQP.tsv": 390966, "RTE.tsv": 3001,
        "SST-2.tsv": 1822, "STS-B.tsv": 1380, "WNLI.tsv": 147,
    }  # fmt: skip


def test_splits():
    assert TASKS["mnli"].dev_splits == ("dev_matched", "dev_mismatched")
    assert TASKS["mnli"].test_splits == ("test_matched", "test_mismatched")
    assert TASKS["cola"].dev_splits == ("dev",)
    assert "train" not in TASKS["ax"].splits and TASKS["ax"].scored_with == "mnli"


def test_own_task_takes_names_of_columns():
    task = own_task(
        "classification", text_column="body", text_b_column="title", label_column="tags",
        id_column="nr", labels=["a", "b"], multilabel=True, label_separator="|",
    )  # fmt: skip
    assert task.kind == "multilabel" and task.labels == ("a", "b")
    assert task.main_metric == "micro_f1"
    columns = task.splits["train"].columns
    assert columns[:4] == ("body", "title", "tags", "nr") and columns.separator == "|"
    assert task.splits["test"].columns.label is None
    assert TASKS["classification"].kind == "classification"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rte"}, "task 'rte' has columns of its own: use classification, regression or "
         "tagging"),
        ({"name": "spam"}, f"task 'spam' is unknown: use one of {', '.join(TASKS)}"),
        ({"name": "regression", "multilabel": True},
         "multilabel means nothing for task 'regression': it is for classification"),
        ({"name": "classification", "score_range": (0, 1)},
         "score_range means nothing for task 'classification': it is for regression"),
        ({"name": "classification", "labels": ["a", "a"]},
         "labels=['a', 'a'] must be different from each other, and two or more"),
        ({"name": "regression", "labels": ["a", "b"]},
         "labels mean nothing for task 'regression': leave them empty"),
        ({"name": "regression", "score_range": (5, 5)},
         "score_range=(5, 5) must be two numbers, the smaller one first"),
        ({"name": "tagging", "tag_scheme": "bilou"},
         "tag_scheme='bilou' is unknown: use one of as_file, bioes"),
    ],
)  # fmt: skip
def test_own_task_refuses(arguments, message):
    with pytest.raises(UserError) as error:
        own_task(**arguments)
    assert str(error.value) == message


def test_unknown_task():
    with pytest.raises(UserError, match="task 'mnli-mm' is unknown: use one of cola, sst2"):
        get_task("mnli-mm")
