"""Readers of one's own tables: their formats, every kind of bad input, and any bytes at all."""

import dataclasses
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.errors import UserError
from electra_jax.tasks import (
    LabelSpace,
    get_task,
    load_task,
    make_features,
    own_task,
    read_file,
    read_split,
)

CSV = 'text,label\n"one, with ""quotes"" and\na line break",yes\nplain,no\n'


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_own_csv(tmp_path, newline, mark):
    write(tmp_path / "train.csv", mark + CSV.replace("\n", newline))
    found = read_split(own_task("classification"), tmp_path, "train")
    assert found.examples == [
        ("0", f'one, with "quotes" and{newline}a line break', None, "yes"),
        ("1", "plain", None, "no"),
    ]


def test_csv_with_bad_quotes(tmp_path):
    path = write(tmp_path / "train.csv", 'text,label\nfine,yes\n"bad" quote,no\nfine,no\n')
    with pytest.raises(UserError, match=f"{path}, line 3: not CSV .*: double the quotes inside"):
        read_split(own_task("classification"), tmp_path, "train")
    found = read_split(own_task("classification"), tmp_path, "train", bad_rows="skip")
    assert [example.label for example in found.examples] == ["yes", "no"]
    assert found.counts.bad_rows == 1
    # A quote that never closes is no way to lose the rest of a file in silence.
    write(path, 'text,label\nfine,yes\n"bad,no\nfine,no\n')
    with pytest.raises(UserError, match="line 3: a quote is opened and never closed"):
        read_split(own_task("classification"), tmp_path, "train")


def test_own_tsv_and_jsonl_say_the_same(tmp_path):
    rows = [("a b", "c", "x"), ('"d', "e", "y")]
    task = own_task("classification", text_column="one", text_b_column="two", label_column="is")
    write(
        tmp_path / "train.tsv",
        "".join("\t".join(row) + "\n" for row in [("one", "two", "is"), *rows]),
    )
    tsv = read_split(task, tmp_path, "train")
    (tmp_path / "train.tsv").unlink()
    lines = [json.dumps(dict(zip(("one", "two", "is"), row, strict=True))) for row in rows]
    write(tmp_path / "train.jsonl", "\n\n".join(lines))
    jsonl = read_split(task, tmp_path, "train")
    assert tsv.examples == jsonl.examples
    assert tsv.examples == [(str(i), *row) for i, row in enumerate(rows)]
    zipped = read_file(task, write(tmp_path / "new.jsonl.gz", "\n".join(lines)), labelled=True)
    assert zipped.examples == jsonl.examples


def test_second_text_is_optional_in_a_file(tmp_path):
    task = own_task("classification")
    write(tmp_path / "train.csv", "text,text_b,label\na,b,x\n")
    write(tmp_path / "dev.csv", "text,label\na,x\n")
    (pair,) = read_split(task, tmp_path, "train").examples
    (single,) = read_split(task, tmp_path, "dev").examples
    assert pair.text_b == "b" and single.text_b is None


def test_a_second_text_that_the_first_row_lacks_is_not_dropped(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "c", "text_b": "d", "label": "y"}]
    write(tmp_path / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="line 2: 'text_b' is given, and the first row has none"):
        read_file(own_task("classification"), tmp_path / "train.jsonl")


def test_pairs_and_single_texts_do_not_mix(tmp_path, tokenizer):
    """A second column that is called otherwise in new data must not go unnoticed."""
    write(tmp_path / "train.csv", "text,text_b,label\na,b,x\nc,d,y\n")
    task = own_task("classification")
    data = load_task(task, tmp_path, dev_share=0.5)
    assert data.space.pairs
    write(tmp_path / "new.csv", "text,second\na,b\n")
    new = read_file(task, tmp_path / "new.csv").examples
    with pytest.raises(UserError) as error:
        make_features(task, new, tokenizer, data.space)
    assert str(error.value) == (
        "the training data has pairs of texts, and row 0 of these data has one: name the columns "
        "of both alike"
    )
    single = LabelSpace("classification", ("x", "y"), pairs=False)
    with pytest.raises(UserError, match="has single texts, and row 0 of these data has two"):
        make_features(task, data.train.examples, tokenizer, single)
    named = own_task("classification", text_b_column="second")
    assert read_file(named, tmp_path / "new.csv").examples[0].text_b == "b"
    with pytest.raises(UserError, match="train.csv has no column 'second' .it has: 'text, text_b"):
        read_split(named, tmp_path, "train")


def test_labels_found_sorted_or_given(tmp_path):
    write(tmp_path / "train.csv", "text,label\na,10\nb,9\nc,10\n")
    write(tmp_path / "dev.csv", "text,label\na,9\nb,11\n")
    with pytest.raises(UserError) as error:
        load_task(own_task("classification"), tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/dev.csv, line 3: label '11' is unknown: use one of 9, 10, or leave such rows "
        "out with bad_rows=skip"
    )
    data = load_task(own_task("classification"), tmp_path, bad_rows="skip")
    assert data.space.labels == ("9", "10") and len(data.dev["dev"].examples) == 1
    data = load_task(own_task("classification", labels=["10", "9", "11"]), tmp_path)
    assert data.space.labels == ("10", "9", "11") and len(data.dev["dev"].examples) == 2
    write(tmp_path / "train.csv", "text,label\na,b\nb,b\n")
    with pytest.raises(UserError, match=r"has the labels \['b'\] alone: give it examples of all"):
        load_task(own_task("classification"), tmp_path)


def test_labels_of_jsonl_are_names(tmp_path):
    lines = [{"text": "a", "label": label} for label in (1, "1", True, 2.5)]
    write(tmp_path / "train.jsonl", "\n".join(map(json.dumps, lines)))
    found = read_split(own_task("classification"), tmp_path, "train")
    assert [example.label for example in found.examples] == ["1", "1", "true", "2.5"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2: not JSON \(Expecting property name.* at column 2\): correct it"),
        ("[1]", r"line 2: not a JSON object but \[1\]: write one object a line"),
        ('{"label": "a"}', "line 2: 'text' is None, not a string: write a string"),
        ('{"text": 1, "label": "a"}', "line 2: 'text' is 1, not a string"),
        ('{"text": "\\ud800", "label": "a"}', "line 2: not UTF-8 at character 1"),
        ('{"text": "a", "label": null}', "line 2: label or id None is no name: write a string or"),
        ('{"text": "a"}', "line 2: label or id None is no name"),
        ("[" * 100_000, "line 2: JSON nested too deeply: simplify it"),
    ],
)
def test_bad_jsonl(tmp_path, line, message):
    good = '{"text": "a", "label": "b"}\n'
    write(tmp_path / "train.jsonl", good + line + "\n" + good)
    with pytest.raises(UserError, match=message):
        read_split(own_task("classification"), tmp_path, "train")
    found = read_split(own_task("classification"), tmp_path, "train", bad_rows="skip")
    assert len(found.examples) == 2 and found.counts.bad_rows == 1


def test_multilabel(tmp_path):
    task = own_task("classification", multilabel=True, label_separator=";")
    write(tmp_path / "train.csv", "text,label\na,x; y\nb,\nc,y\n")
    found = read_split(task, tmp_path, "train")
    assert [example.label for example in found.examples] == [("x", "y"), (), ("y",)]
    (tmp_path / "train.csv").unlink()
    write(
        tmp_path / "train.jsonl",
        '{"text": "a", "label": ["x;", "y"]}\n{"text": "b", "label": []}\n',
    )
    found = read_split(task, tmp_path, "train")
    assert [example.label for example in found.examples] == [("x;", "y"), ()]
    for label, message in (('["x", "x"]', "names one twice"), ("3", "label 3 is no list")):
        write(tmp_path / "train.jsonl", f'{{"text": "a", "label": {label}}}\n')
        with pytest.raises(UserError, match=message):
            read_split(task, tmp_path, "train")


def test_regression(tmp_path):
    task = own_task("regression", label_column="score")
    write(tmp_path / "train.csv", "text,score\na,-1.5\nb,3\n")
    write(tmp_path / "dev.csv", "text,score\na,9\n")
    data = load_task(task, tmp_path)
    assert [example.label for example in data.train.examples] == [-1.5, 3.0]
    assert data.space.score_range == (-1.5, 3.0) and data.space.num_outputs == 1
    for bad in ("high", "nan", "inf", ""):
        write(tmp_path / "train.csv", f"text,score\na,{bad}\n")
        with pytest.raises(UserError, match=f"line 2: label '{bad}' is not a number: write a fin"):
            read_split(task, tmp_path, "train")
    write(tmp_path / "train.csv", "text,score\na,1\nb,1\n")
    with pytest.raises(UserError, match="all labels of the training data are 1.0: there is noth"):
        load_task(task, tmp_path)


def test_a_row_of_a_megabyte(tmp_path):
    text = "word " * 200_000
    for ending, content in (
        ("csv", f"text,label\n{text},x\n"),
        ("tsv", f"text\tlabel\n{text}\tx\n"),
        ("jsonl", json.dumps({"text": text, "label": "x"})),
    ):
        path = write(tmp_path / f"train.{ending}", content)
        (example,) = read_split(own_task("classification"), tmp_path, "train").examples
        assert example.text == text
        path.unlink()


def test_new_text_to_predict(tmp_path):
    """No labels are needed, and those that are there are not looked at; ids if there are."""
    task = own_task("classification", labels=["x", "y"], id_column="nr")
    path = write(tmp_path / "new.csv", "nr,text,label\nq7,hello,?\nq8,,\n")
    found = read_file(task, path)
    assert found.examples == [("q7", "hello", None, None), ("q8", "", None, None)]
    task = own_task("classification", labels=["x", "y"])
    path = write(tmp_path / "new.txt", "first text\n\nsecond, text\n")
    assert read_file(task, path).examples == [
        ("0", "first text", None, None), ("1", "", None, None), ("2", "second, text", None, None),
    ]  # fmt: skip
    with pytest.raises(UserError, match="one text a line, and 'sentence2' is needed, too"):
        read_file(get_task("rte"), path)
    path = write(tmp_path / "new.tsv", "index\tsentence\n5\tno header in training\n")
    assert read_file(get_task("cola"), path).examples == [
        ("5", "no header in training", None, None)]  # fmt: skip


def test_columns_may_be_called_otherwise_in_new_files(tmp_path):
    path = write(tmp_path / "new.csv", "key,first,second\nq7,hello,you\n")
    called = {"id": "key", "text": "first", "text_b": "second"}
    for task in (own_task("classification", labels=["x", "y"]), get_task("rte")):
        assert read_file(task, path, columns_called=called).examples == [
            ("q7", "hello", "you", None)
        ]
    with pytest.raises(UserError, match="has no column 'none'"):
        read_file(own_task("classification"), path, columns_called={"text": "none"})
    with pytest.raises(UserError, match="files of task tagging have no columns to name"):
        read_file(get_task("tagging"), path, columns_called={"text": "none"})


def test_damaged_archive(tmp_path):
    path = tmp_path / "new.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    with pytest.raises(UserError, match="is a damaged or cut-short archive"):
        read_file(own_task("classification"), path)


def test_a_part_of_train_where_there_is_no_dev(tmp_path):
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40))
    write(tmp_path / "train.csv", "text,label\n" + rows)
    task = own_task("classification")
    with pytest.raises(
        UserError, match="dev.csv or dev.tsv or dev.jsonl .*, or evaluate on a part"
    ):
        load_task(task, tmp_path)
    data, again = (load_task(task, tmp_path, dev_share=0.2, seed=3) for _ in range(2))
    dev = data.dev["dev"]
    assert (len(data.train.examples), len(dev.examples)) == (32, 8)
    assert data == dataclasses.replace(again, train=data.train) and data.train == again.train
    both = {example.text for part in (data.train, dev) for example in part.examples}
    assert len(both) == 40
    other = load_task(task, tmp_path, dev_share=0.2, seed=4)
    assert other.dev["dev"].examples != dev.examples
    with pytest.raises(UserError, match="dev_share=1.5 must lie between 0 and 1"):
        load_task(task, tmp_path, dev_share=1.5)
    write(tmp_path / "dev.csv", "text,label\nx,a\n")
    assert len(load_task(task, tmp_path, dev_share=0.2).train.examples) == 40


def test_some_of_train(tmp_path):
    rows = "".join(f"text {i},{'ab'[i % 20 == 0]}\n" for i in range(40))
    write(tmp_path / "train.csv", "text,label\n" + rows)
    task = own_task("classification")
    whole = load_task(task, tmp_path, dev_share=0.2)
    few, more = (load_task(task, tmp_path, dev_share=0.2, train_rows=n) for n in (15, 20))
    assert few.dev["dev"].examples == whole.dev["dev"].examples
    assert few.space == whole.space
    assert [len(data.train.examples) for data in (few, more)] == [15, 20]
    places = [whole.train.examples.index(example) for example in more.train.examples]
    assert places == sorted(set(places))
    assert set(few.train.examples) < set(more.train.examples)
    with pytest.raises(UserError, match="data.train_rows=33 is more than the 32 of"):
        load_task(task, tmp_path, dev_share=0.2, train_rows=33)


CELL = st.text(alphabet="ab,\t\"\n\r '\u2028é\0", max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.lists(CELL, min_size=1, max_size=3), max_size=6).map(
            lambda rows: ("text,label\n" + "\n".join(map(",".join, rows))).encode()
        ),
        st.lists(st.dictionaries(st.sampled_from(["text", "label"]), st.text() | st.none()),
                 max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    ),
    ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".txt"]),
)  # fmt: skip
def test_any_bytes_are_rows_or_a_named_error(tmp_path_factory, content, ending):
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(content)
    task = own_task("classification")
    for bad_rows in ("refuse", "skip"):
        try:
            found = read_file(task, path, labelled=ending != ".txt", bad_rows=bad_rows)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert found.examples
            for example in found.examples:
                example.text.encode()
                assert example.text.strip() or ending == ".txt"
