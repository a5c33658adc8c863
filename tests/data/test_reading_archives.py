from __future__ import annotations

import io
import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_helpers import COMPRESS, LENIENT, message, read, tar, write

from electra_jax.data.reading import ReadingCounts, ReadingOptions, Unit, read_documents
from electra_jax.data.reading.decompression import Damaged
from electra_jax.data.reading.tar import begins_like_tar, tar_members
from electra_jax.errors import UserError

MEMBERS = {
    "a.txt": b"one\n\ntwo\n",
    "deep/b.md": b"three",
    "c.jsonl": b'{"text": "four"}\n{"text": "five"}\n',
    "d.txt.xz": b"six",
    "e.ndjson.gz": b'{"text": "seven"}',
    "f.zst": b"eight",
}
DOCUMENTS = [["one"], ["two"], ["three"], ["four"], ["five"], ["six"], ["seven"], ["eight"]]
# A cut at any of these is not at the end of anything.
ARCHIVE = tar(MEMBERS)
ARCHIVE_END = len(ARCHIVE.rstrip(b"\0"))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.txz", "a.tar.zst"])
def test_reads(tmp_path, name):
    content = COMPRESS[{"tgz": "gz", "txz": "xz"}.get(name[2:], name[6:])](ARCHIVE)
    (tmp_path / name).write_bytes(content)
    counts = ReadingCounts()
    assert read(tmp_path / name, counts=counts) == DOCUMENTS
    assert counts.source_bytes == len(content) and counts.skipped_members == 0
    assert counts.text_bytes == len(b"one\n\ntwo\nthreefourfivesixseveneight")
    whole = read(tmp_path, one_document_per_file=True)
    assert whole == [["one", "two"], *DOCUMENTS[2:]]


@pytest.mark.parametrize("name", ["a.xz", "a.gz", "a.zst", "a.txt.xz", "a.jsonl.gz", "a.tsv.zst"])
def test_a_compressed_file_may_be_an_archive(tmp_path, name):
    path = write(tmp_path / name, ARCHIVE)
    assert read(path) == DOCUMENTS


def test_openwebtext(tmp_path):
    """A tar of tars of text, these compressed and named .xz alone."""
    subsets = {}
    for n in range(2):
        for m in range(2):
            texts = {f"{n}{m}-{k}.txt": b"%d%d%d\n\nx" % (n, m, k) for k in range(3)}
            subsets[f"openwebtext/urlsf_subset{n:02}-{m}_data.xz"] = tar(texts)
    (tmp_path / "openwebtext.tar").write_bytes(tar(subsets))
    numbers = [f"{n}{m}{k}" for n in range(2) for m in range(2) for k in range(3)]
    assert read(tmp_path / "openwebtext.tar", one_document_per_file=True) == [
        [number, "x"] for number in numbers
    ]
    for name, content in subsets.items():
        write(tmp_path / name, content)
    assert read(tmp_path / "openwebtext") == [[text] for n in numbers for text in (n, "x")]


def test_members_that_are_not_read(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name: str, content: bytes = b"", **fields):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            for field, value in fields.items():
                setattr(header, field, value)
            archive.addfile(header, io.BytesIO(content))

        add("directory", type=tarfile.DIRTYPE)
        for name in ("a.tsv", "b.pdf", "Makefile", "c.parquet", "d.tsv.gz", "e.zip", "f.json"):
            add(name, b"skipped\n" * 100)
        for name in (".hidden.txt", "._a.txt", ".git/a.txt", "./deep/.b.txt"):
            add(name, b"hidden")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            add("link.txt", linkname="/etc/passwd", type=kind)
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            add("device.txt", type=kind)
        add("./kept.txt", b"kept")
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    counts = ReadingCounts()
    assert read(tmp_path / "a.tar", counts=counts) == [["kept"]]
    assert counts.skipped_members == 7 + 4 + 2 + 3


def test_no_member_leaves_the_archive(tmp_path, monkeypatch):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    monkeypatch.chdir(inside)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        for name in ("../outside/x.txt", f"{outside}/y.txt", "link/z.txt", "..\\outside\\w.txt"):
            header = tarfile.TarInfo(name)
            header.size = 4
            archive.addfile(header, io.BytesIO(b"text"))
    (inside / "a.tar").write_bytes(buffer.getvalue())
    counts = ReadingCounts()
    assert read(inside / "a.tar", counts=counts) == [["text"]] * 4
    assert counts.skipped_members == 1
    assert os.listdir(outside) == [] and os.listdir(inside) == ["a.tar"]


def test_empty_members(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar({"a.txt": b"", "b.txt": b"x", "c.jsonl": b"\n"}))
    counts = ReadingCounts()
    assert read(tmp_path / "a.tar", counts=counts) == [["x"]]
    assert counts.empty_files == 2
    (tmp_path / "a.tar").write_bytes(tar({}))
    assert read(tmp_path / "a.tar") == []


def test_messages_name_the_member(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"x\ny.txt": b"good\n\xff"}))
    assert message(path, encoding_errors="refuse").startswith(
        f"{path}, member x\\ny.txt is not UTF-8 at line 2, byte offset 5: "
    )
    path.write_bytes(tar({"x.tar": tar({"y.jsonl": b"\n{}"})}))
    assert message(path).startswith(
        f"{path}, member x.tar, member y.jsonl, line 2: no field 'text'"
    )


def test_a_damaged_member_does_not_hide_the_others(tmp_path):
    path = tmp_path / "a.tar"
    packed = COMPRESS["gz"](b"damaged\n\n" * 3)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in (("a.txt", b"one"), ("b.txt.gz", packed[:-9]), ("c.txt", b"two")):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    path.write_bytes(buffer.getvalue())
    assert message(path).startswith(f"{path}, member b.txt.gz is a damaged or cut-short archive (")
    counts = ReadingCounts()
    documents = read(path, counts=counts, bad_input="skip")
    assert documents[0] == ["one"] and documents[-1] == ["two"] and ["damaged"] in documents
    assert counts.damaged_files == 1


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tar.zst"])
def test_a_cut_archive(tmp_path, ending):
    whole = COMPRESS[ending[4:]](ARCHIVE)
    path = tmp_path / f"a.{ending}"
    step = 101 if ending == "tar" else 7
    stop = ARCHIVE_END if ending == "tar" else len(whole)
    previous: list = []
    for length in (*range(0, stop, step), *range(0, stop, 512)):
        path.write_bytes(whole[:length])
        error = message(path)
        assert error.startswith(f"{path} is a damaged or cut-short archive ("), length
        assert error.endswith("with --bad-input=skip")
    for length in range(0, stop, step):
        path.write_bytes(whole[:length])
        counts = ReadingCounts()
        documents = read(path, counts=counts, bad_input="skip")
        assert counts.damaged_files == 1  # Once, though a member is cut, too.
        assert counts.source_bytes == length
        assert len(documents) >= len(previous)
        assert documents[:-1] == DOCUMENTS[: max(0, len(documents) - 1)]
        previous = documents
    # All of it is one block of zstd, which comes whole or not at all.
    assert len(previous) >= len(DOCUMENTS) - 1 or ending == "tar.zst"


def test_damaged_headers(tmp_path):
    path = tmp_path / "a.tar"
    second = ARCHIVE.index(b"deep/b.md")
    path.write_bytes(ARCHIVE[:second] + b"X" + ARCHIVE[second + 1 :])
    assert "(bad checksum)" in message(path)
    assert read(path, bad_input="skip") == DOCUMENTS[:2]
    path.write_bytes(ARCHIVE + b"garbage" * 100)
    assert "damaged or cut-short archive" in message(path)
    assert read(path, bad_input="skip") == DOCUMENTS


def test_archives_joined_end_to_end(tmp_path):
    (tmp_path / "a.tar").write_bytes(ARCHIVE * 2)
    assert read(tmp_path / "a.tar") == DOCUMENTS * 2
    (tmp_path / "a.tar.gz").write_bytes(COMPRESS["gz"](ARCHIVE) * 2)
    assert read(tmp_path / "a.tar.gz") == DOCUMENTS * 2
    end = ARCHIVE_END + -ARCHIVE_END % 512
    (tmp_path / "a.tar").write_bytes(ARCHIVE + ARCHIVE[:end])
    assert "(it ends without the mark of its end)" in message(tmp_path / "a.tar")
    assert read(tmp_path / "a.tar", bad_input="skip") == DOCUMENTS * 2


def test_depth(tmp_path):
    content = tar({"a.txt": b"deep"})
    for depth in range(2, 7):
        (tmp_path / "a.tar").write_bytes(content)
        if depth <= 5:
            assert read(tmp_path / "a.tar") == [["deep"]]
        else:
            error = message(tmp_path / "a.tar")
            assert "is an archive inside 4 others, which is too deep: unpack some of them" in error
            assert error.count("member") == 4
            counts = ReadingCounts()
            assert read(tmp_path / "a.tar", counts=counts, bad_input="skip") == [["last"]]
            assert counts.damaged_files == 1
        content = tar({"inner.tar.gz": content} | ({"z.txt": b"last"} if depth == 5 else {}))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_members_are_those_that_tarfile_finds(form, data):
    limit = 90 if form == tarfile.USTAR_FORMAT else 400
    name = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
    names = st.tuples(name, st.integers(0, limit - 20)).map(lambda parts: parts[0] + "n" * parts[1])
    if form == tarfile.USTAR_FORMAT:
        names = st.text("abc/.", min_size=1, max_size=99)
    kinds = st.sampled_from([tarfile.REGTYPE] * 3 + [tarfile.SYMTYPE, tarfile.DIRTYPE])
    member = st.tuples(names, kinds, st.binary(max_size=1100))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, content in data.draw(st.lists(member, max_size=5)):
            header = tarfile.TarInfo(name)
            header.type = kind
            if kind == tarfile.REGTYPE:
                header.size = len(content)
            elif kind == tarfile.SYMTYPE:
                header.linkname = name
            archive.addfile(header, io.BytesIO(content))
    content = buffer.getvalue()
    with tarfile.open(fileobj=io.BytesIO(content), encoding="utf-8", errors="replace") as archive:
        expected = [
            (m.name, m.isreg(), archive.extractfile(m).read() if m.isreg() else b"")
            for m in archive
        ]
    size = data.draw(st.integers(1, 2000))
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    found = [(m.name.rstrip("/"), m.is_file, b"".join(m.content)) for m in tar_members(chunks, "")]
    assert found == [(name.rstrip("/"), is_file, data) for name, is_file, data in expected]
    # What is not read of a member is skipped.
    assert [m.name for m in tar_members(chunks, "")] == [
        m.name for m in [*tar_members([content], "")]
    ]


def test_sparse_members_are_skipped(tmp_path):
    header = tarfile.TarInfo("sparse.txt")
    header.size = 512
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[482] = 1  # More blocks of the map follow.
    checksum = sum(block[:148]) + 8 * 32 + sum(block[156:])
    block[148:156] = b"%06o\0 " % checksum
    rest = tar({"a.txt": b"after"})
    maps = bytes(504) + b"\x01" + bytes(7) + bytes(512)
    (tmp_path / "a.tar").write_bytes(bytes(block) + maps + b"x" * 512 + rest)
    counts = ReadingCounts()
    assert read(tmp_path / "a.tar", counts=counts) == [["after"]]
    assert counts.skipped_members == 1
    header = tarfile.TarInfo("sparse.txt")
    header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    header.size = 5
    sparse = header.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n5".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(sparse + rest)
    assert read(tmp_path / "a.tar") == [["after"]]


def test_sizes(tmp_path):
    """The size in a pax header counts; sizes that cannot be are damage."""
    rest = tar({"a.txt": b"after"})
    header = tarfile.TarInfo("big.txt")
    header.pax_headers = {"size": "3"}
    content = b"big".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.PAX_FORMAT) + content + rest)
    assert read(tmp_path / "a.tar") == [["big"], ["after"]]
    link = tarfile.TarInfo("link.txt")
    link.type, link.size = tarfile.SYMTYPE, 1000  # Of what it points to: nothing follows.
    (tmp_path / "a.tar").write_bytes(link.tobuf(tarfile.GNU_FORMAT) + rest)
    assert read(tmp_path / "a.tar") == [["after"]]
    for size in ("-1", "x", ""):
        header.pax_headers = {"size": size}
        (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.PAX_FORMAT) + content + rest)
        assert "(it has a member of no possible size)" in message(tmp_path / "a.tar")
    header.pax_headers, header.size = {}, -1
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + content + rest)
    assert "(it has a member of no possible size)" in message(tmp_path / "a.tar")


def test_headers_have_a_greatest_length():
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    block = header.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(Damaged, match="it has a header of 1099511627776 bytes"):
        list(tar_members([block], "FILE"))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_bytes_are_read_or_damaged(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a.tar"
    content = bytearray(ARCHIVE[: ARCHIVE_END + 1024])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        content[place : place + len(piece)] = piece
    if data.draw(st.booleans()):  # So that headers are believed.
        for start in range(0, len(content) - 511, 512):
            if content[start + 257 : start + 262] == b"ustar":
                block = content[start : start + 512]
                checksum = sum(block[:148]) + 8 * 32 + sum(block[156:])
                content[start + 148 : start + 156] = b"%06o\0 " % checksum
    path.write_bytes(content)
    unit = Unit("archive", str(path), size=len(content))
    counts = ReadingCounts()
    list(read_documents(unit, LENIENT, counts))
    assert counts.source_bytes == unit.size
    try:
        list(read_documents(unit, ReadingOptions()))
    except UserError as error:
        assert "\n" not in str(error)
        assert counts.damaged_files or counts.bad_rows
    else:
        assert not counts.damaged_files


@given(st.binary(max_size=600), st.integers(1, 300))
def test_looking_into_bytes_loses_none(content, size):
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    is_archive, again = begins_like_tar(chunks)
    assert b"".join(again) == content
    assert is_archive == (content[257:262] == b"ustar")
