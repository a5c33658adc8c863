from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_helpers import LENIENT, message, read, write

from electra_jax.data.reading import ReadingCounts, ReadingOptions, Unit, read_documents
from electra_jax.data.reading.jsonl import jsonl_documents
from electra_jax.data.reading.units import Context
from electra_jax.errors import UserError

GOOD = b'{"text": "one"}\n'
REMEDY = ", or skip such rows with --bad-input=skip"


def lines(*rows) -> bytes:
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows
    )


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "jsonl.gz", "ndjson.xz", "jsonl.zst"])
def test_reads(tmp_path, suffix):
    rows = (
        {"id": 1, "text": "a\n b \n\n\nc\r\n"},
        {"text": "d"},
        b"",
        b" \r",
        {"text": "é€\u2028x"},
    )
    path = write(tmp_path / f"a.{suffix}", b"\xef\xbb\xbf" + lines(*rows)[:-1])
    counts = ReadingCounts()
    assert read(path, counts=counts) == [["a", "b", "c"], ["d"], ["é€\u2028x"]]
    size = sum(len(row["text"].encode()) for row in rows if isinstance(row, dict))
    assert counts == ReadingCounts(text_bytes=size, source_bytes=path.stat().st_size)


def test_another_field(tmp_path):
    path = write(tmp_path / "a.jsonl", lines({"text": "no", "body": "yes"}))
    assert read(path, field="body") == [["yes"]]


def test_rows_without_text_are_counted(tmp_path):
    rows = ({"text": ""}, {"text": " \n\0\n"}, {"text": None}, {"text": "x\0y"})
    path = write(tmp_path / "a.jsonl", lines(*rows))
    counts = ReadingCounts()
    assert read(path, counts=counts) == [["xy"]]
    assert (counts.empty_rows, counts.nul_characters, counts.empty_files) == (3, 2, 0)
    path = write(tmp_path / "a.jsonl", b"\n\n")
    assert read(path, counts=counts) == []
    assert counts.empty_files == 1


def test_surrogates(tmp_path):
    path = write(
        tmp_path / "a.jsonl", rb'{"text": "\ud83d\ude00 \ud83d x\ude00 \ud83d\ud83d\ude00"}'
    )
    counts = ReadingCounts()
    assert read(path, counts=counts) == [["😀 \ufffd x\ufffd \ufffd😀"]]
    assert counts.invalid_sequences == 3
    assert counts.text_bytes == len("😀 \ufffd x\ufffd \ufffd😀".encode())


def test_invalid_utf8(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD + b'{"text": "a\xffb"}\n')
    counts = ReadingCounts()
    assert read(path, counts=counts) == [["one"], ["a\ufffdb"]]
    assert counts.invalid_sequences == 1
    assert message(path, encoding_errors="refuse").startswith(
        f"{path} is not UTF-8 at line 2, byte offset {len(GOOD) + 11}: "
    )


@pytest.mark.parametrize(
    "row, reason",
    [
        (
            {"id": 1, "body": "x"},
            "no field 'text' (it has: id, body): name the field with --field",
        ),
        ({}, "no field 'text' (it has: nothing): name the field with --field"),
        ({"text": 5}, "field 'text' is a number, not a string: name another with --field"),
        ({"text": ["a"]}, "field 'text' is a list, not a string: name another with --field"),
        (["a"], "not an object but a list: write one object a line"),
        ("a", "not an object but a string: write one object a line"),
        (None, "not an object but null: write one object a line"),
        (b"{'a': 1}", "not JSON (Expecting property name enclosed in double quotes at column 2): "),
        (b'{"text": "a"} x', "not JSON (Extra data at column 15): correct it"),
        (b'{"text": "a', "not JSON (Unterminated string starting at at column 10): correct it"),
        (b"[" * 100_000, "JSON nested too deeply: simplify it"),
    ],
)
def test_bad_rows(tmp_path, row, reason):
    path = write(tmp_path / "a.jsonl", GOOD + b"\n" + lines(row) + GOOD)
    # The number of the line is right in a range of the file, too.
    for unit_bytes in (2**25, 1):
        error = message(path, unit_bytes=unit_bytes)
        assert error.startswith(f"{path}, line 3: {reason}")
        assert error.endswith(REMEDY)
    counts = ReadingCounts()
    assert read(path, counts=counts, bad_input="skip") == [["one"], ["one"]]
    assert counts.bad_rows == 1


def test_numbers_of_thousands_of_digits_are_no_bad_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"n": ' + b"9" * 10_000 + b', "text": "one"}\n')
    assert read(path) == [["one"]]


def test_rows_have_a_greatest_length():
    def documents(content: bytes, **options):
        here = Context("FILE", ReadingOptions(**options), ReadingCounts())
        chunks = [content[i : i + 7] for i in range(0, len(content), 7)]
        return list(jsonl_documents(chunks, here, max_row_bytes=20)), here.counts

    long = b'{"text": "' + b"x" * 100 + b'"}\n'
    found, counts = documents(GOOD + long + GOOD + long[:-1], bad_input="skip")
    assert found == [["one"], ["one"]] and counts.bad_rows == 2
    with pytest.raises(UserError, match="^FILE, line 2: a row of more than 20 bytes: split it, or"):
        documents(GOOD + long)
    with pytest.raises(UserError, match="^FILE, line 4: not JSON"):
        documents(GOOD + b"\n" + GOOD + b"x\n" + GOOD)


def test_a_text_of_many_megabytes_comes_in_pieces(tmp_path):
    text = "\n".join(["x" * 1000] * 10_000) + "\n" + "word " * 4_000_000
    counts = ReadingCounts()
    pieces = read(write(tmp_path / "a.jsonl", lines({"text": text})), counts=counts)
    assert counts.cut_documents == 1 and counts.text_bytes == len(text)
    assert [sum(len(line) + 1 for line in piece) <= 2**24 for piece in pieces] == [True] * 3
    joined = " ".join(line for piece in pieces for line in piece)
    assert joined.split() == text.split()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
rows = st.one_of(
    st.binary(max_size=20),
    st.fixed_dictionaries({"text": st.text(max_size=10)}).map(lambda row: json.dumps(row).encode()),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"text": json_values}).map(lambda row: json.dumps(row).encode()),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(rows, max_size=8))
def test_any_bytes_are_read_or_refused(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(b"\n".join(rows))
    counts = ReadingCounts()
    unit = Unit("jsonl", str(path), size=path.stat().st_size)
    lenient = list(read_documents(unit, LENIENT, counts))
    assert counts.source_bytes == unit.size
    try:
        strict = list(read_documents(unit, ReadingOptions(encoding_errors="refuse")))
    except UserError as error:
        assert "\n" not in str(error)
        assert counts.bad_rows or counts.invalid_sequences
    else:
        assert strict == lenient and not counts.bad_rows


# A byte order mark is dropped at the beginning of a file alone.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff")


@settings(deadline=None)
@given(st.lists(st.text(characters, max_size=10), max_size=8))
def test_rows_are_as_text_files_of_one_document(tmp_path_factory, texts):
    directory = tmp_path_factory.mktemp("rows")
    (directory / "a.jsonl").write_bytes(lines(*({"text": text} for text in texts)))
    counts = ReadingCounts()
    found = read(directory / "a.jsonl", counts=counts)
    expected = []
    for text in texts:
        (directory / "a.txt").write_bytes(text.encode())
        expected += read(directory / "a.txt", one_document_per_file=True)
    assert found == expected
    assert len(found) + counts.empty_rows == len(texts)


def test_lone_surrogates_are_refused_where_invalid_text_is(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "a \\ud800"}\n')
    assert read(path) == [["a"], ["a \ufffd"]]
    assert message(path, encoding_errors="refuse").startswith(f"{path}, line 2: a lone surrogate")
