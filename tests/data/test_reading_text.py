from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_helpers import COMPRESS, LENIENT, message, read, read_file, write

from electra_jax.data import storage
from electra_jax.data.reading import ReadingCounts, ReadingOptions, Unit, read_documents
from electra_jax.data.reading.decompression import Damaged, decompress
from electra_jax.data.reading.lines import cut_document, line_blocks, utf8_size
from electra_jax.data.reading.text import text_documents
from electra_jax.data.reading.units import Context
from electra_jax.errors import UserError

TEXT = b"first line\n  second \n\n\n\nnext document\r\n\r\nlast"
DOCUMENTS = [["first line", "second"], ["next document"], ["last"]]
SUFFIXES = ["txt", "txt.gz", "txt.xz", "txt.zst"]
INCOMPRESSIBLE = random.Random(0).randbytes(100_000)
# Bytes in which what matters is frequent: line feeds, white space, NULs, invalid UTF-8.
tricky_bytes = st.lists(
    st.sampled_from(
        [
            b"\n",
            b"\n\n",
            b" ",
            b"\r",
            b"\0",
            b"\xff",
            b"\xe2\x82",
            b"\xc2\xa0",
            b"ab",
            "é€".encode(),
        ]
    )
    | st.binary(max_size=4),
    max_size=40,
).map(b"".join)


def context(**options) -> Context:
    return Context("FILE", ReadingOptions(**options), ReadingCounts())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reads(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", TEXT)
    counts = ReadingCounts()
    assert read(path, counts=counts) == DOCUMENTS
    assert counts == ReadingCounts(text_bytes=len(TEXT), source_bytes=path.stat().st_size)
    assert read(path, one_document_per_file=True) == [sum(DOCUMENTS, [])]


def test_an_unknown_ending_is_text_when_it_is_named(tmp_path):
    assert read(write(tmp_path / "a.tsv", TEXT)) == DOCUMENTS
    assert read(write(tmp_path / "README", TEXT)) == DOCUMENTS
    assert read(write(tmp_path / "a.tsv.gz", TEXT)) == DOCUMENTS


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_reads_archives_of_several_members(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", TEXT)
    path.write_bytes(path.read_bytes() * 2)
    joined = ["last" + DOCUMENTS[0][0], DOCUMENTS[0][1]]
    assert read(path) == [*DOCUMENTS[:2], joined, *DOCUMENTS[1:]]


def test_reads_padding_and_frames_to_skip(tmp_path):
    for suffix in SUFFIXES[1:3]:
        path = write(tmp_path / f"a.{suffix}", TEXT)
        path.write_bytes((path.read_bytes() + bytes(8)) * 2)
        assert len(read(path)) == 5
    for suffix in SUFFIXES[1:]:
        path = write(tmp_path / f"a.{suffix}", INCOMPRESSIBLE)
        path.write_bytes(path.read_bytes() * 3)
        counts = ReadingCounts()
        read(path, counts=counts)
        assert counts.text_bytes == 3 * len(INCOMPRESSIBLE)
    frame = zstandard.compress(TEXT)
    skipped = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    (tmp_path / "a.txt.zst").write_bytes(skipped + frame + skipped)
    assert read(tmp_path / "a.txt.zst") == DOCUMENTS


def test_reads_zstd_of_a_long_window(tmp_path):
    """As `zstd --long=31` writes it."""
    parameters = zstandard.ZstdCompressionParameters(
        window_log=28, hash_log=10, chain_log=10, strategy=zstandard.STRATEGY_FAST
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = packer.compress(TEXT) + packer.flush()
    assert zstandard.get_frame_parameters(content).window_size == 2**28
    (tmp_path / "a.txt.zst").write_bytes(content)
    assert read(tmp_path / "a.txt.zst") == DOCUMENTS


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_refuses_a_cut_archive(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", INCOMPRESSIBLE)
    path.write_bytes(path.read_bytes()[:-20])
    error = message(path)
    assert error.startswith(f"{path} is a damaged or cut-short archive (")
    assert error.endswith(
        "): copy or download it again, or read what comes before the damage with --bad-input=skip"
    )


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_reads_a_cut_archive_as_far_as_it_goes(tmp_path, suffix):
    text = b"".join(b"%d line\n\n" % i**5 for i in range(50_000))
    path = write(tmp_path / f"a.{suffix}", text)
    whole = read(path)
    content = path.read_bytes()
    previous = -1
    for share in (0.0, 0.3, 0.6, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        counts = ReadingCounts()
        documents = read(path, counts=counts, bad_input="skip")
        # The last line may be cut.
        assert documents[:-1] == whole[: max(0, len(documents) - 1)]
        assert counts.damaged_files == 1 and counts.source_bytes == path.stat().st_size
        assert previous < len(documents) < len(whole)
        previous = len(documents)


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_refuses_what_is_no_archive(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(TEXT)
    assert "damaged or cut-short archive" in message(tmp_path / f"a.{suffix}")
    write(tmp_path / f"a.{suffix}", TEXT)
    with open(tmp_path / f"a.{suffix}", "ab") as file:
        file.write(b"garbage")
    assert "damaged or cut-short archive" in message(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    assert "(it is empty)" in message(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("form", ["text", "parquet"])
def test_the_file_is_closed_at_damage(tmp_path, monkeypatch, form):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(TEXT)
    opened = []

    def open_read(name):
        opened.append(open(name, "rb"))
        return opened[-1]

    monkeypatch.setattr(storage, "open_read", open_read)
    with pytest.raises(UserError) as error:  # Holds the traceback, and with it the frames.
        read_file(path, form, field="text")
    assert "damaged or cut-short" in str(error.value)
    assert opened and all(file.closed for file in opened)


@pytest.mark.parametrize("compression", ["gz", "xz", "zst"])
def test_a_bomb_comes_in_small_pieces(compression):
    content = bytes(64 << 20)
    packed = COMPRESS[compression](content)
    assert len(packed) < len(content) / 500
    sizes = [len(piece) for piece in decompress([packed], compression, "FILE")]
    assert sum(sizes) == len(content)
    # 4 KiB of zstd are given at a time, which these zeros do not even fill.
    assert compression == "zst" or max(sizes) <= 1 << 20


@pytest.mark.parametrize("compression", ["gz", "xz", "zst"])
@settings(deadline=None, max_examples=50)
@given(content=st.binary(max_size=300), data=st.data())
def test_decompression_does_not_depend_on_chunks(compression, content, data):
    packed = COMPRESS[compression](content)
    edges = sorted(data.draw(st.sets(st.integers(0, len(packed)), max_size=5)) | {0, len(packed)})
    chunks = [packed[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    assert b"".join(decompress(chunks, compression, "FILE")) == content
    for length in range(len(packed)):
        with pytest.raises(Damaged):
            list(decompress([packed[:length]], compression, "FILE"))


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \n\0\n", b"\xef\xbb\xbf"])
def test_empty_files_have_no_documents(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    counts = ReadingCounts()
    assert read(tmp_path / "a.txt", counts=counts) == []
    assert counts.empty_files == 1


def test_invalid_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfgood \xef\xbf\xbd\nb\xff\xfed \xe2\x82\n\0nul\0s\n")
    counts = ReadingCounts()
    expected = [["good \ufffd", "b\ufffd\ufffdd \ufffd", "nuls"]]
    assert read(path, counts=counts) == expected
    assert (counts.invalid_sequences, counts.nul_characters) == (3, 2)
    assert message(path, encoding_errors="refuse") == (
        f"{path} is not UTF-8 at line 2, byte offset 13: convert it, or use "
        "--encoding-errors=replace"
    )


def test_options_are_checked():
    with pytest.raises(UserError, match="--encoding-errors=drop is unknown: use one of replace"):
        ReadingOptions(encoding_errors="drop")
    with pytest.raises(UserError, match="--bad-input=drop is unknown: use one of refuse, skip"):
        ReadingOptions(bad_input="drop")


@settings(deadline=None)
@given(before=tricky_bytes, after=tricky_bytes, unit_bytes=st.integers(1, 30))
def test_positions_of_invalid_utf8_do_not_depend_on_units(
    tmp_path_factory, before, after, unit_bytes
):
    path = tmp_path_factory.mktemp("utf8") / "a.txt"
    path.write_bytes(before + b"\xff" + after)
    text = path.read_bytes()
    try:
        text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        position = f"{path} is not UTF-8 at line {line}, byte offset {error.start}: "
    assert message(path, encoding_errors="refuse", unit_bytes=unit_bytes).startswith(position)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none.txt cannot be read \(No such file or directory\)"):
        read_file(tmp_path / "none.txt")


def expected_documents(content: bytes) -> list[list[str]]:
    """What a text means, said as simply as possible."""
    documents: list[list[str]] = [[]]
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        text = line.decode(errors="replace").replace("\0", "").strip()
        if text:
            documents[-1].append(text)
        else:
            documents.append([])
    return [document for document in documents if document]


@settings(deadline=None, max_examples=300)
@given(tricky_bytes, st.data())
def test_any_bytes_are_text(content, data):
    edges = sorted(data.draw(st.sets(st.integers(0, len(content)), max_size=5)) | {0, len(content)})
    chunks = [content[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    here = context(bad_input="skip")
    assert list(text_documents(chunks, here)) == expected_documents(content)
    assert here.counts.nul_characters == content.count(b"\0")
    assert here.counts.text_bytes == len(content)
    # An invalid piece is what an incremental decoder meets: each becomes one character.
    text = content.decode(errors="replace")
    assert here.counts.invalid_sequences == text.count("\ufffd") - content.count(b"\xef\xbf\xbd")


@settings(deadline=None, max_examples=200)
@given(content=tricky_bytes | st.binary(max_size=100), suffix=st.sampled_from(SUFFIXES))
def test_any_file_is_read_or_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"a.{suffix}"
    path.write_bytes(content)
    unit = Unit("text", str(path))
    list(read_documents(unit, LENIENT))
    try:
        list(read_documents(unit, ReadingOptions(encoding_errors="refuse")))
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("compression", ["gz", "xz", "zst"])
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_flipped_bits_are_damage_or_nothing(compression, data):
    packed = bytearray(COMPRESS[compression](TEXT * 20))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        content = b"".join(decompress([bytes(packed)], compression, "FILE"))
    except Damaged:
        return
    # These two have checksums.
    assert content == TEXT * 20 or compression == "zst"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"a", b"\n"))))
def test_lines_do_not_depend_on_chunks(chunks):
    whole = b"".join(chunks)
    blocks = list(line_blocks(chunks))
    assert all(is_whole for _, is_whole in blocks)
    assert b"".join(data for data, _ in blocks) == whole
    # Only the last block may end without a line feed.
    assert all(data.endswith(b"\n") for data, _ in blocks[:-1])


@settings(deadline=None, max_examples=300)
@given(tricky_bytes, st.integers(4, 20), st.data())
def test_long_lines_are_cut_and_nothing_is_lost(content, limit, data):
    edges = sorted(data.draw(st.sets(st.integers(0, len(content)), max_size=5)) | {0, len(content)})
    chunks = [content[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    parts = list(line_blocks(chunks, limit))
    assert b"".join(part for part, _ in parts) == content
    assert all(len(part.rstrip(b"\n")) <= limit for part, is_whole in parts if not is_whole)
    for part, is_whole in parts:
        if is_whole:
            assert max(map(len, part.split(b"\n"))) <= limit
    # Where a line is cut does not depend on the chunks.
    cut = [part for part, is_whole in parts if not is_whole]
    assert cut == [part for part, is_whole in line_blocks([content], limit) if not is_whole]


def test_a_long_line_is_cut_at_white_space_or_between_characters():
    parts = [part for part, _ in line_blocks([b"word " * 8 + b"\n"], 16)]
    assert parts == [b"word word word ", b"word word word ", b"word word \n"]
    text = "日本語テキスト" * 20
    here = context()
    documents = list(text_documents([text.encode()], here, 16))
    assert documents == [[text[i : i + 5]] for i in range(0, len(text), 5)]
    assert here.counts == ReadingCounts(text_bytes=len(text.encode()), cut_documents=1)
    # A part of a line is no blank line, even if it is white space alone.
    assert list(text_documents([b"a" + b" " * 40 + b"b\n"], here, 16)) == [["a", "b"]]


@settings(deadline=None, max_examples=300)
@given(tricky_bytes, st.integers(4, 30), st.booleans(), st.data())
def test_long_documents_are_cut_at_lines(content, limit, one_document_per_file, data):
    edges = sorted(data.draw(st.sets(st.integers(0, len(content)), max_size=5)) | {0, len(content)})
    chunks = [content[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    here = context(one_document_per_file=one_document_per_file)
    documents = list(text_documents(chunks, here, limit))
    for document in documents:
        assert document and all(document)
        assert utf8_size(document) == len("\n".join(document).encode()) <= limit
    # The same lines, if none had to be cut; and the same pieces whatever the chunks.
    if max(map(len, content.split(b"\n"))) * 3 < limit:
        whole = [line for document in expected_documents(content) for line in document]
        assert [line for document in documents for line in document] == whole
        if not one_document_per_file:
            expected = [
                piece
                for document in expected_documents(content)
                for piece in cut_document(document, limit)
            ]
            assert documents == expected
            cut = [len(cut_document(d, limit)) > 1 for d in expected_documents(content)]
            assert here.counts.cut_documents == sum(cut)
    again = context(one_document_per_file=one_document_per_file)
    assert documents == list(text_documents([content], again, limit))
    assert here.counts == again.counts


def test_pieces_of_documents_do_not_depend_on_chunks():
    content = b"ab\n\nabcdef\nabcdef\nabcdef\n\nabc\nabcdef\n\nab\n"
    for limit in range(7, 40):
        expected = [piece for d in expected_documents(content) for piece in cut_document(d, limit)]
        for size in range(1, len(content)):
            chunks = [content[i : i + size] for i in range(0, len(content), size)]
            assert list(text_documents(chunks, context(), limit)) == expected


def test_a_document_of_many_megabytes_comes_in_pieces(tmp_path):
    line = "x" * 1000
    path = write(tmp_path / "a.txt", f"{line}\n".encode() * 40_000 + b"\nshort\n")
    counts = ReadingCounts()
    *pieces, last = read(path, counts=counts, one_document_per_file=False)
    assert last == ["short"]
    assert [len(piece) for piece in pieces] == [2**24 // 1001] * 2 + [40_000 - 2 * (2**24 // 1001)]
    assert counts.cut_documents == 1
