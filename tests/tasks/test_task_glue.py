"""Readers of GLUE's files: the real ones, and every kind of bad input."""

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks import get_task, has_split, read_split
from electra_jax.tasks.examples import TextExample

# Rows per split, from the data's own README and GLUE's paper (Wang et al. 2018, Table 1).
GLUE = {
    "cola": ("glue", {"train": 8551, "dev": 1043, "test": 1063}),
    "sst2": ("glue", {"train": 67349, "dev": 872, "test": 1821}),
    "mrpc": ("glue", {"train": 3668, "dev": 408, "test": 1725}),
    "stsb": ("glue", {"train": 5749, "dev": 1500, "test": 1379}),
    "rte": ("glue", {"train": 2490, "dev": 277, "test": 3000}),
    "wnli": ("glue", {"train": 635, "dev": 71, "test": 146}),
    "qnli": ("glue", {"dev": 5463, "test": 5463}),
    "qqp": ("glue_subset", {"train": 8999, "dev": 1000}),
    "mnli": ("glue_subset", {"train": 8999, "dev_matched": 1000}),
}


@pytest.mark.parametrize("name", GLUE)
def test_real_files(shared, name):
    directory, counts = GLUE[name]
    task = get_task(name)
    for split in task.splits:
        assert has_split(task, shared(directory), split) == (split in counts)
    for split, count in counts.items():
        found = read_split(task, shared(directory), split, bad_rows="refuse")
        assert len(found.examples) == count and not found.counts.lines()
        labels = {type(example.label) for example in found.examples}
        expected = float if name == "stsb" else str
        assert labels == {expected if found.labelled else type(None)}
        if not found.labelled:
            assert [example.id for example in found.examples] == list(map(str, range(count)))


def test_real_examples(shared):
    """One row of each layout, as the files have it."""

    def row(name, split, number, directory="glue"):
        return read_split(get_task(name), shared(directory), split).examples[number]

    assert row("cola", "train", 1) == (
        "1", "One more pseudo generalization and I'm giving up.", None, "1")  # fmt: skip
    assert row("cola", "test", 0) == ("0", "Bill whistled past the house.", None, None)
    assert row("sst2", "train", 1)[1:] == ("contains no wit , only labored gags ", None, "0")
    # Quotes mean nothing: this text begins with one and has no second.
    assert row("mrpc", "dev", 0)[2:] == (
        '" The foodservice pie business does not fit our long-term growth strategy .', "1",
    )  # fmt: skip
    assert row("stsb", "train", 1)[1:] == (
        "A man is playing a large flute.", "A man is playing a flute.", 3.8)  # fmt: skip
    assert row("qnli", "dev", 0)[3] == "entailment"
    assert row("mnli", "train", 1, "glue_subset")[1:] == (
        "yeah or working in the system", "Working as a part of the system.", "entailment",
    )  # fmt: skip
    assert row("qqp", "dev", 1, "glue_subset")[1] == "If I want to change my name what should I do?"


def test_original_directory_names(tmp_path):
    (tmp_path / "sst").mkdir()
    (tmp_path / "sst" / "train.tsv").write_text("sentence\tlabel\ngood\t1\n")
    (example,) = read_split(get_task("sst2"), tmp_path, "train").examples
    assert example == TextExample("0", "good", None, "1")


def test_official_layouts_that_are_not_at_hand(tmp_path):
    """MNLI's 16 columns, QQP's test, and the diagnostics with and without labels."""
    files = {
        "MNLI/dev_mismatched.tsv": "index promptID pairID genre sentence1_binary_parse "
        "sentence2_binary_parse sentence1_parse sentence2_parse sentence1 sentence2 label1 label2 "
        "label3 label4 label5 gold_label",
        "QQP/test.tsv": "id question1 question2",
        "diagnostic/diagnostic.tsv": "index sentence1 sentence2",
    }
    for name, header in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        names = header.split()
        row = ["neutral" if "label" in name else name + "!" for name in names]
        row[0] = "7"
        path.write_text("\t".join(names) + "\n" + "\t".join(row) + "\n")
    (tmp_path / "diagnostic" / "diagnostic-full.tsv").write_text(
        "Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\tPremise\t"
        "Hypothesis\tLabel\n\t\tNegation\t\tNews\tThe cat sat.\tThe cat did not.\tcontradiction\n"
    )

    def only(task, split):
        (example,) = read_split(get_task(task), tmp_path, split).examples
        return tuple(example)

    assert only("mnli", "dev_mismatched") == ("0", "sentence1!", "sentence2!", "neutral")
    assert only("qqp", "test") == ("7", "question1!", "question2!", None)
    assert only("ax", "test") == ("7", "sentence1!", "sentence2!", None)
    assert only("ax", "dev") == ("0", "The cat sat.", "The cat did not.", "contradiction")


RTE = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n"
BAD_ROWS = [
    ("1\ta\tb\n", "line 3: 3 columns instead of 4: take tabs, line breaks and unquoted commas out "
     "of the texts"),
    ("1\ta\tb\tc\tentailment\n", "line 3: 5 columns instead of 4: take tabs, line breaks and "
     "unquoted commas out of the texts"),
    ("1\ta\tb\tmaybe\n", "line 3: label 'maybe' is unknown: use one of entailment, "
     "not_entailment"),
    ("1\ta\tb\t\n", "line 3: the label is empty: give the row a label"),
    ("1\t \tb\tentailment\n", "line 3: 'sentence1' is empty: give it a text"),
    ("1\ta\t\tentailment\n", "line 3: 'sentence2' is empty: give it a text"),
    ("1\ta\t\udce9b\tentailment\n", "line 3: not UTF-8 at character 1: save the file as UTF-8 "
     "text"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows(tmp_path, row, message):
    path = tmp_path / "train.tsv"
    text = RTE + row + "2\tc\td\tnot_entailment\n"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as error:
        read_split(get_task("rte"), tmp_path, "train")
    assert str(error.value) == f"{path}, {message}, or leave such rows out with bad_rows=skip"
    skipped = read_split(get_task("rte"), tmp_path, "train", bad_rows="skip")
    # Ids are places in the file, so the row that was left out has one.
    assert [(example.id, example.label) for example in skipped.examples] == [
        ("0", "entailment"), ("2", "not_entailment"),
    ]  # fmt: skip
    assert skipped.counts.bad_rows == 1 and skipped.counts.lines() == ["1 bad rows left out"]
    assert skipped.counts.messages == [f"{path}, {message}".rpartition(": ")[0]]


def test_qqp_leaves_bad_rows_out_by_default(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    rows = "0\t1\t2\ta\tb\t1\n1\t3\t4\tbroken\n here\tb\t0\n2\t5\t6\tc\td\t0\n"
    (tmp_path / "train.tsv").write_text(header + rows)
    found = read_split(get_task("qqp"), tmp_path, "train")
    assert [example.text for example in found.examples] == ["a", "c"]
    assert found.counts.bad_rows == 2
    with pytest.raises(UserError, match="line 3: 4 columns instead of 6"):
        read_split(get_task("qqp"), tmp_path, "train", bad_rows="refuse")


def test_a_row_to_predict_may_be_empty(tmp_path):
    """A submission needs all rows."""
    (tmp_path / "test.tsv").write_text("index\tsentence1\tsentence2\n0\t\tb\n1\ta\tb\n")
    found = read_split(get_task("rte"), tmp_path, "test")
    assert [example.text for example in found.examples] == ["", "a"]
    assert found.counts.lines() == ["1 rows with an empty text, predicted all the same"]


def test_ids_that_occur_twice(tmp_path):
    (tmp_path / "test.tsv").write_text("index\tsentence1\tsentence2\n0\ta\tb\n0\tc\td\n")
    with pytest.raises(UserError, match="line 3: id '0' occurs twice: give every row an id of its"):
        read_split(get_task("rte"), tmp_path, "test")


def test_files_that_are_not_there(tmp_path):
    task = get_task("mnli")
    with pytest.raises(UserError, match="data_dir=/none is not a directory: give the one with"):
        read_split(task, "/none", "train")
    (tmp_path / "train.tsv").touch()
    with pytest.raises(UserError) as error:
        read_split(task, tmp_path, "dev_matched")
    assert str(error.value) == (
        f"data_dir={tmp_path} has no dev_matched data of task mnli: put dev_matched.tsv into it, "
        "or below it into MNLI/ (it has: train)"
    )
    with pytest.raises(UserError, match="task mnli has no split 'dev': use one of train, dev_ma"):
        read_split(task, tmp_path, "dev")
    with pytest.raises(UserError, match="train.tsv, line 1: the header is empty: give every col"):
        read_split(task, tmp_path, "train")
    (tmp_path / "train.tsv").write_text(RTE)
    with pytest.raises(UserError) as error:
        read_split(task, tmp_path, "train")
    assert str(error.value) == (
        f"{tmp_path}/train.tsv has no column 'gold_label' (it has: 'index, sentence1, sentence2, "
        "label'): name its columns, or check that the file is of this task and split"
    )
    with pytest.raises(UserError, match="bad_rows='drop' is unknown: use one of refuse, skip"):
        read_split(get_task("rte"), tmp_path, "train", bad_rows="drop")
    (tmp_path / "train.tsv").write_text("a\tb\ta\n")
    with pytest.raises(UserError, match="line 1: the header names a column twice"):
        read_split(get_task("rte"), tmp_path, "train")


def test_nothing_usable(tmp_path):
    (tmp_path / "train.tsv").write_text(RTE.partition("\n")[0] + "\n1\ta\tb\tmaybe\n")
    with pytest.raises(UserError) as error:
        read_split(get_task("rte"), tmp_path, "train", bad_rows="skip")
    assert str(error.value) == (
        f"{tmp_path}/train.tsv has no examples: all of its 1 rows are bad (first: {tmp_path}/"
        "train.tsv, line 2: label 'maybe' is unknown): correct it"
    )
