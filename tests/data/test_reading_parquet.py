from __future__ import annotations

import gzip
import lzma

import fsspec
import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from reading_helpers import LENIENT, message, read

from electra_jax.data.reading import ReadingCounts, ReadingOptions, Unit, plan_units, read_documents
from electra_jax.errors import UserError

TEXTS = ["one\n two \n\n", None, "", " \0\n", "three\0", "é€\u2028😀"]
DOCUMENTS = [["one", "two"], ["three"], ["é€\u2028😀"]]


def write(path, texts=TEXTS, kind=None, row_group_size=2, **options):
    columns = {"id": list(range(len(texts))), "text": pyarrow.array(texts, kind)}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=row_group_size, **options)
    return path


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("unit_bytes", [2**25, 1])
def test_reads(tmp_path, compression, unit_bytes):
    path = write(tmp_path / "a.parquet", compression=compression)
    counts = ReadingCounts()
    assert read(path, counts=counts, unit_bytes=unit_bytes) == DOCUMENTS
    assert counts == ReadingCounts(
        text_bytes=sum(len(text.encode()) for text in TEXTS if text),
        source_bytes=path.stat().st_size,
        empty_rows=3,
        nul_characters=2,
    )


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstandard.compress])
def test_reads_compressed_files(tmp_path, compress):
    content = compress(write(tmp_path / "a.parquet").read_bytes())
    ending = {gzip.compress: "gz", lzma.compress: "xz"}.get(compress, "zst")
    path = tmp_path / f"b.parquet.{ending}"
    path.write_bytes(content)
    counts = ReadingCounts()
    assert read(path, counts=counts, unit_bytes=1) == DOCUMENTS
    assert counts.source_bytes == len(content)
    path.write_bytes(content[:-5])
    assert message(path).startswith(f"{path} is a damaged or cut-short archive")


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        pyarrow.dictionary(pyarrow.int8(), pyarrow.large_string()),
    ],
    ids=str,
)
def test_kinds_of_strings(tmp_path, kind):
    if pyarrow.types.is_dictionary(kind):
        texts = pyarrow.array(TEXTS).dictionary_encode().cast(kind)
    else:
        texts = pyarrow.array(TEXTS, kind)
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == DOCUMENTS


def test_a_column_of_nulls_and_a_file_of_no_rows(tmp_path):
    counts = ReadingCounts()
    assert read(write(tmp_path / "a.parquet", [None, None]), counts=counts) == []
    assert counts.empty_rows == 2
    assert read(write(tmp_path / "b.parquet", [], pyarrow.string()), unit_bytes=1) == []


def test_columns(tmp_path):
    path = write(tmp_path / "a.parquet")
    assert message(path, field="body") == (
        f"{path}: no column 'body' (it has: id (int64), text (string)): name the column with "
        "--field"
    )
    assert message(path, field="id") == (
        f"{path}: column 'id' has no strings (it has: id (int64), text (string)): name another "
        "column with --field"
    )
    # To leave out all rows of a file would be no skipping.
    assert "no column" in message(path, field="body", bad_input="skip")
    table = pyarrow.table({"a.b": ["x"], "a": [["y"]]})
    parquet.write_table(table, tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet", field="a.b") == [["x"]]
    assert "has no strings" in message(tmp_path / "b.parquet", field="a")


def test_row_groups_are_units(tmp_path):
    texts = [f"{n} " + "x" * 1000 for n in range(100)]
    path = write(tmp_path / "a.parquet", texts, row_group_size=10, compression="none")
    size = path.stat().st_size
    for unit_bytes in (1, size // 10, size // 3, size - 1, size):
        units = plan_units([str(path)], ReadingOptions(), unit_bytes).units
        assert sum(unit.size for unit in units) == size
        assert read(path, unit_bytes=unit_bytes) == [[text] for text in texts]
    assert len(units) == 1
    units = plan_units([str(path)], ReadingOptions(), 1).units
    assert [(unit.start, unit.stop) for unit in units] == [(n, n + 1) for n in range(10)]
    units = plan_units([str(path)], ReadingOptions(), size // 3).units
    assert [unit.stop for unit in units] == [4, 8, 10]


def test_invalid_utf8(tmp_path):
    raw = pyarrow.array([b"good", b"good", b"a\xff\xfeb"])
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=1)
    counts = ReadingCounts()
    assert read(path, counts=counts) == [["good"], ["good"], ["a\ufffd\ufffdb"]]
    assert counts.invalid_sequences == 2
    for unit_bytes in (2**25, 1):
        assert message(path, encoding_errors="refuse", unit_bytes=unit_bytes) == (
            f"{path}, row 3 is not UTF-8: convert it, or use --encoding-errors=replace"
        )


@pytest.mark.parametrize("share", [1, 1000])
def test_rows_come_in_batches(tmp_path, share):
    """Long texts, and one that is repeated so often that the file is small."""
    texts = [str(n // share).ljust(20_000, "x") for n in range(5_000)]
    path = write(tmp_path / "a.parquet", texts, row_group_size=5_000)
    assert (path.stat().st_size < 2**21) == (share == 1000)
    documents = read_documents(Unit("parquet", str(path)), ReadingOptions())
    before = pyarrow.total_allocated_bytes()
    assert next(documents) == [texts[0]]
    # A page of 1024 rows is the least that pyarrow has in memory.
    assert pyarrow.total_allocated_bytes() - before < sum(map(len, texts)) / 2
    documents.close()


def test_damaged_files(tmp_path):
    path = write(tmp_path / "a.parquet", ["x" * 1000] * 10, compression="none")
    content = path.read_bytes()
    name = content.replace(b"text", b"\x80ext")
    for damaged in (b"", b"PAR1", content[:-100], content[:50], b"x" * 1000, b"\n" * 20, name):
        path.write_bytes(damaged)
        for unit_bytes in (2**25, 1):
            error = message(path, unit_bytes=unit_bytes)
            assert error.startswith(f"{path} is a damaged or cut-short archive (")
            counts = ReadingCounts()
            assert read(path, unit_bytes=unit_bytes, bad_input="skip", counts=counts) == []
            assert counts.damaged_files == 1 and counts.source_bytes == len(damaged)
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        list(read_documents(Unit("parquet", f"{tmp_path}/none.parquet"), ReadingOptions()))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("fuzz") / "a.parquet", compression="zstd")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for options in (ReadingOptions(), LENIENT):
        try:
            for unit in plan_units([str(path)], options, 1).units:
                list(read_documents(unit, options))
        except UserError as error:
            assert "\n" not in str(error)


def test_object_stores(tmp_path):
    path = write(tmp_path / "a.parquet")
    fsspec.filesystem("memory").pipe("/parquet/a.parquet", path.read_bytes())
    assert read("memory://parquet", unit_bytes=1) == DOCUMENTS
    fsspec.filesystem("memory").rm("/parquet", recursive=True)
