from __future__ import annotations

import gzip
import lzma

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data.text import ReadingCounts, _lines, expand_inputs, read_documents
from electra_jax.errors import UserError

TEXT = b"first line\n  second \n\n\n\nnext document\r\n\r\nlast"
DOCUMENTS = [["first line", "second"], ["next document"], ["last"]]


def write(path, content: bytes):
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".xz":
        content = lzma.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


SUFFIXES = ["txt", "txt.gz", "txt.xz", "txt.zst"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reads(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", TEXT)
    assert list(read_documents(path)) == DOCUMENTS
    assert list(read_documents(path, blank_line_separates=False)) == [sum(DOCUMENTS, [])]


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_reads_archives_of_several_members(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", TEXT)
    path.write_bytes(path.read_bytes() * 2)
    joined = ["last" + DOCUMENTS[0][0], DOCUMENTS[0][1]]
    assert list(read_documents(path)) == [*DOCUMENTS[:2], joined, *DOCUMENTS[1:]]


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_refuses_a_cut_archive(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", bytes(i * i % 251 for i in range(100_000)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError) as error:
        list(read_documents(path))
    assert str(error.value).startswith(f"{path} is a damaged or cut-short archive (")
    assert str(error.value).endswith("): copy or download it again")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_refuses_what_is_no_archive(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(TEXT)
    with pytest.raises(UserError, match="damaged or cut-short archive"):
        list(read_documents(tmp_path / f"a.{suffix}"))


def test_empty_files_have_no_documents(tmp_path):
    for content in (b"", b"\n\n", b" \n\0\n", b"\xef\xbb\xbf"):
        (tmp_path / "a.txt").write_bytes(content)
        assert list(read_documents(tmp_path / "a.txt")) == []


def test_invalid_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfgood \xef\xbf\xbd\nb\xff\xfed \xe2\x82\n\0nul\0s\n")
    counts = ReadingCounts()
    expected = [["good \ufffd", "b\ufffd\ufffdd \ufffd", "nuls"]]
    assert list(read_documents(path, counts=counts)) == expected
    assert (counts.invalid_sequences, counts.nul_characters) == (3, 2)
    with pytest.raises(UserError) as error:
        list(read_documents(path, encoding_errors="refuse"))
    assert str(error.value) == (
        f"{path} is not UTF-8 at line 2, byte offset 13: convert it, or use encoding_errors=replace"
    )
    with pytest.raises(UserError, match="encoding_errors='drop' is unknown: use one of replace"):
        list(read_documents(path, encoding_errors="drop"))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none.txt cannot be read \(No such file or directory\)"):
        list(read_documents(tmp_path / "none.txt"))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"a", b"\n"))))
def test_lines_do_not_depend_on_chunks(chunks):
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert list(_lines(chunks)) == expected


def test_expand_inputs(tmp_path):
    names = ["b.txt", "a.txt.xz", "deep/c.md", "deep/d.tsv", ".hidden.txt", ".git/e.txt", "f.gz"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [tmp_path / name for name in ("a.txt.xz", "b.txt", "deep/c.md")]
    assert expand_inputs([tmp_path]) == found
    assert expand_inputs([tmp_path / "b.txt", tmp_path, str(tmp_path / "*.txt")]) == found
    assert expand_inputs([str(tmp_path / "**/*.tsv")]) == [tmp_path / "deep/d.tsv"]


def test_expand_inputs_refuses(tmp_path):
    with pytest.raises(UserError) as error:
        expand_inputs([str(tmp_path / "*.txt")])
    assert str(error.value) == (
        f"input '{tmp_path}/*.txt' matches no file: check the path or the pattern"
    )
    with pytest.raises(UserError, match=r"has no file ending in .txt, .text, .md \(or these with"):
        expand_inputs([tmp_path])
    with pytest.raises(UserError, match="name at least one file"):
        expand_inputs([])
    (tmp_path / "a.zip").write_text("x")
    with pytest.raises(UserError, match=".zip is not a format that can be read"):
        expand_inputs([tmp_path / "a.zip"])
