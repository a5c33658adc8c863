from __future__ import annotations

import ast
import dataclasses
import json
import pickle
import sys
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_helpers import message, read, read_file, tar, write

from electra_jax.data.reading import (
    ReadingCounts,
    ReadingOptions,
    Unit,
    plan_units,
    planning,
    read_documents,
)
from electra_jax.errors import UserError

OPTIONS = ReadingOptions()


def names(*inputs, **options) -> list[str]:
    plan = plan_units([str(item) for item in inputs], ReadingOptions(**options))
    return [unit.name for unit in plan.units]


def test_files_of_directories_and_patterns(tmp_path):
    readable = ["a.txt.xz", "b.txt", "deep/c.md", "deep/e.ndjson.zst", "f.gz", "g.parquet", "h.tgz"]
    readable += ["i.tar.zst", "urlsf_subset00-1_data.xz", "g.parquet.gz"]
    hidden = [".hidden.txt", ".git/e.txt", "deep/.git/f.pdf", ".hidden.tsv"]
    others = ["deep/d.tsv", "x.tsv", "a.tsv.gz", "z.pdf", "Makefile"]
    for name in readable + hidden + others:
        write(tmp_path / name, b"x")
    found = [str(tmp_path / name) for name in sorted(readable)]
    plan = plan_units([str(tmp_path)], OPTIONS)
    assert [unit.name for unit in plan.units] == found
    assert plan.left_out == {str(tmp_path): {"": 1, ".pdf": 1, ".tsv": 2, ".tsv.gz": 1}}
    # Each file once, however it is named; what is named itself is not left out.
    plan = plan_units(
        [f"{tmp_path}/x.tsv", f"{tmp_path}/b.txt", f"{tmp_path}/", f"{tmp_path}/deep/../*.txt"],
        OPTIONS,
    )
    assert [unit.name for unit in plan.units] == sorted([*found, str(tmp_path / "x.tsv")])
    assert plan.left_out[f"{tmp_path}/"][".tsv"] == 1
    assert names(tmp_path / "**/*.tsv") == [str(tmp_path / name) for name in sorted(others[:2])]
    assert names(tmp_path / ".hidden.txt") == [str(tmp_path / ".hidden.txt")]


def test_formats_and_sizes(tmp_path):
    formats = {
        "a.txt": "text", "b.md.gz": "text", "c.xz": "text", "d.jsonl": "jsonl", "e": "text",
        "f.ndjson.zst": "jsonl", "g.tar": "archive", "h.TGZ": "archive", "i.tar.xz": "archive",
        "j.parquet": "parquet", "k.tsv": "text",
    }  # fmt: skip
    for size, name in enumerate(formats):
        (tmp_path / name).write_bytes(b"x" * size)
    units = plan_units([str(tmp_path / "*")], OPTIONS).units
    assert units == [
        Unit(form, str(tmp_path / name), size=size)
        for size, (name, form) in enumerate(formats.items())
    ]


def test_units_travel(tmp_path):
    write(tmp_path / "a.txt", b"one\n\ntwo\n\nthree")
    plan = plan_units([str(tmp_path)], OPTIONS, unit_bytes=3)
    assert len(plan.units) == 3
    assert pickle.loads(pickle.dumps(plan)) == plan
    for value in (*plan.units, OPTIONS):
        assert type(value)(**json.loads(json.dumps(dataclasses.asdict(value)))) == value
    assert plan_units([str(tmp_path)], OPTIONS, unit_bytes=3) == plan


def test_relative_names_become_absolute(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", b"x")
    monkeypatch.chdir(tmp_path)
    for item in ("a.txt", "./a.txt", "*.txt", "."):
        assert names(item) == [str(tmp_path / "a.txt")]
    write(tmp_path / "a[1].txt", b"x")
    assert names("a[1].txt") == [str(tmp_path / "a[1].txt")]


def test_heavy_packages_are_imported_where_they_are_used():
    for path in Path(planning.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                tops = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                tops = {node.module.partition(".")[0]}
            else:
                continue
            assert tops <= sys.stdlib_module_names | {"electra_jax"}, path


def test_what_matches_nothing(tmp_path):
    assert message(tmp_path / "*.txt") == (
        f"input '{tmp_path}/*.txt' matches no file: check the path or the pattern"
    )
    assert message(tmp_path / "none.txt").endswith("check the path or the pattern")
    known = ".txt, .text, .md, .jsonl, .ndjson, .tar, .parquet (or these with .gz, .xz, .zst)"
    assert message(tmp_path).endswith(f"it has no file ending in {known}")
    write(tmp_path / "a.tsv", b"x")
    write(tmp_path / "b", b"x")
    assert message(tmp_path).endswith("; the 2 there have .tsv, none")
    with pytest.raises(UserError, match="name at least one file"):
        plan_units([], OPTIONS)
    with pytest.raises(UserError, match="unit_bytes=0 must be positive"):
        plan_units([str(tmp_path)], OPTIONS, 0)


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("a.json", "rename it to .jsonl"),
        ("a.json.gz", "rename it to .jsonl"),
        ("a.zip", "unpack it"),
        ("a.7z", "unpack it"),
        ("a.txt.bz2", "recompress it"),
        ("a.tar.bz2", "recompress it"),
        ("a.PDF", "convert it to UTF-8 text"),
        ("a.tfrecord", "tfds:NAME"),
    ],
)
def test_formats_that_cannot_be_read(tmp_path, name, remedy):
    path = write(tmp_path / name, b"x")
    write(tmp_path / "b.txt", b"x")
    for item in (path, tmp_path / "*"):
        error = message(item)
        assert error.startswith(f"input {path}: ") and remedy in error
    assert read(tmp_path) == [["x"]]  # In a directory it is left out.


text_pieces = st.sampled_from(
    [b"\n", b"\n\n", b"\n \t\n", b"\r\n\r\n", b"\n\0\n", b"\n\xc2\xa0\xe3\x80\x80\n", b"\n\xff\n"]
    + [b"a", b"bc d", b"\xff", "é\n".encode(), b" ", b"\0", b"\xef\xbb\xbf", b"x" * 50]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(text_pieces, max_size=60).map(b"".join), st.integers(1, 200), st.booleans())
def test_units_of_a_text_have_its_documents(tmp_path_factory, content, unit_bytes, one_document):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(content)
    options = {"one_document_per_file": one_document}
    counts, whole_counts = ReadingCounts(), ReadingCounts()
    whole = read_file(path, counts=whole_counts, **options)
    assert read(path, unit_bytes=unit_bytes, counts=counts, **options) == whole
    whole_counts.empty_files = counts.empty_files = 0  # A part of a file is no empty file.
    assert counts == whole_counts
    units = plan_units([str(path)], ReadingOptions(**options), unit_bytes).units
    check_units(units, len(content))
    assert len(units) == 1 or not one_document


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([b"\n", b'{"text": "a"}\n', b"{}\n", b"x\n", b"\xff\n", b"yy"])),
    st.integers(1, 100),
)
def test_units_of_json_lines_have_its_rows(tmp_path_factory, rows, unit_bytes):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_bytes(b"".join(rows))
    counts, whole_counts = ReadingCounts(), ReadingCounts()
    whole = read_file(path, "jsonl", counts=whole_counts, bad_input="skip")
    assert read(path, unit_bytes=unit_bytes, counts=counts, bad_input="skip") == whole
    whole_counts.empty_files = counts.empty_files = 0
    assert counts == whole_counts
    check_units(plan_units([str(path)], OPTIONS, unit_bytes).units, path.stat().st_size)


def check_units(units: list[Unit], size: int) -> None:
    """Units tile a file."""
    assert sum(unit.size for unit in units) == size
    if units[0].stop is None:
        assert len(units) == 1
        return
    assert [unit.start for unit in units] == [0, *(unit.stop for unit in units[:-1])]
    assert units[-1].stop == size and all(unit.start < unit.stop for unit in units)


def test_units_have_about_the_size_that_is_asked_for(tmp_path):
    path = write(tmp_path / "a.txt", b"a line of text\n\n" * 100_000)
    sizes = [unit.size for unit in plan_units([str(path)], OPTIONS, 100_000).units]
    assert len(sizes) == 16 and max(sizes) < 100_100
    path = write(tmp_path / "a.jsonl", b'{"text": "row"}\n' * 100_000)
    sizes = [unit.size for unit in plan_units([str(path)], OPTIONS, 100_000).units]
    assert len(sizes) == 16 and max(sizes) < 100_100


def test_the_pattern_of_blank_lines_is_that_of_strip():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if 0xD800 <= code < 0xE000 or character == "\n":
            continue
        is_blank = planning.BLANK_LINE.search(f"\n{character}\n".encode()) is not None
        assert is_blank == (not character.replace("\0", "").strip()), hex(code)


def test_text_without_blank_lines_is_cut_at_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "MAX_DOCUMENT_BYTES", 1000)
    path = write(tmp_path / "a.txt", b"a line of text\n" * 10_000)
    units = plan_units([str(path)], OPTIONS, 500).units
    check_units(units, 150_000)
    # It looks for blank lines in an eighth of the file at most.
    assert max(unit.size for unit in units) <= 8 * 1000 + 500 + 15
    assert len(units) <= 150_000 / (8 * 1000) + 1
    documents = read(path, unit_bytes=500)
    assert [line for document in documents for line in document] == ["a line of text"] * 10_000
    # Without a line feed there is no place to cut.
    path = write(tmp_path / "b.txt", b"x" * 20_000 + b"\n\nnext" * 4000)
    units = plan_units([str(path)], OPTIONS, 500).units
    assert units[0].stop > 20_000 and len(units) > 2
    assert read(path, unit_bytes=500) == read_file(path)


def test_compressed_files_and_archives_are_not_cut(tmp_path):
    for name in ("a.txt.gz", "b.jsonl.xz", "c.tar.zst", "d.tar"):
        (tmp_path / name).write_bytes(b"could be cut\n\n" * 1000)
    assert [unit.stop for unit in plan_units([str(tmp_path)], OPTIONS, 1).units] == [None] * 4


def test_object_stores():
    system = fsspec.filesystem("memory")
    files = {
        "/store/a.txt": b"one\n\ntwo",
        "/store/deep/b.jsonl": b'{"text": "three"}\n',
        "/store/.hidden/c.txt": b"hidden",
        "/store/d.tsv": b"four",
        "/store/e.tar": tar({"x.txt": b"five"}),
    }
    for name, content in files.items():
        system.pipe(name, content)
    for item in ("memory://store", "memory://store/", "memory:///store"):
        for unit_bytes in (2**25, 1):
            assert read(item, unit_bytes=unit_bytes) == [["one"], ["two"], ["three"], ["five"]]
        assert plan_units([item], OPTIONS).left_out == {item: {".tsv": 1}}
    assert read("memory://store/*.txt", "memory://store/d.tsv") == [["one"], ["two"], ["four"]]
    assert read("memory://store/**/*.jsonl") == [["three"]]
    assert "matches no file" in message("memory://store/*.md")
    assert "matches no file" in message("memory://store/none.txt")
    system.rm("/store", recursive=True)


def test_a_store_without_its_package():
    assert "needs a package that is missing" in message("nosuchstore://a/b.txt")


def test_links_are_followed_and_a_broken_one_is_an_error(tmp_path):
    write(tmp_path / "real" / "a.txt", b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path / "in")
    found = [unit.name for unit in plan_units([str(tmp_path / "in")], OPTIONS).units]
    assert found == [str(tmp_path / "in" / "link" / "a.txt")]
    (tmp_path / "in" / "b.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match="b.txt cannot be read"):
        plan_units([str(tmp_path / "in")], OPTIONS)


def test_a_range_that_has_become_shorter_is_an_error(tmp_path):
    path = write(tmp_path / "a.txt", b"word word\n\n" * 100)
    units = plan_units([str(path)], OPTIONS, 300).units
    write(path, b"word word\n\n" * 30)
    with pytest.raises(UserError, match="bytes shorter since it was looked at"):
        [list(read_documents(unit, OPTIONS)) for unit in units]
