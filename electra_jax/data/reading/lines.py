"""Lines, paragraphs and documents: where bytes become text, and long ones are cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from electra_jax.data.reading.decompression import file_chunks
from electra_jax.data.reading.units import MAX_DOCUMENT_BYTES, Context, ReadingCounts
from electra_jax.errors import UserError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_REPLACEMENT = "\ufffd"
_SURROGATES = re.compile("[\ud800-\udfff]")


def line_blocks(
    chunks: Iterable[bytes], max_line_bytes: int = MAX_DOCUMENT_BYTES
) -> Iterator[tuple[bytes, bool]]:
    """Whole lines, many at a time; they end at line feeds.

    Args:
      chunks: the bytes; how they are cut into chunks makes no difference to the lines.
      max_line_bytes: a longer line is cut at white space, or else between two characters.

    Yields:
      (bytes, True): some lines, each with its line feed, but for the last one of all.
      (bytes, False): a part of a line too long; the last part has the line feed.
    """
    unfinished: list[bytes] = []
    held = 0
    is_cut = False
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            if is_cut:
                first = chunk.find(b"\n") + 1
                tail = b"".join((*unfinished, chunk[:first]))
                for part in _parts(tail, max_line_bytes):
                    yield part, False
                unfinished, chunk, end, is_cut = [], chunk[first:], end - first, False
            if end:
                yield from _cut_lines(b"".join((*unfinished, chunk[:end])), max_line_bytes)
            unfinished, held = [], 0
        unfinished.append(chunk[end:])
        held += len(unfinished[-1])
        if held > max_line_bytes:
            *parts, rest = _parts(b"".join(unfinished), max_line_bytes)
            for part in parts:
                yield part, False
            unfinished, held, is_cut = [rest], len(rest), True
    last = b"".join(unfinished)
    if last and is_cut:
        yield last, False
    elif last:
        yield from _cut_lines(last, max_line_bytes)


def _cut_lines(block: bytes, max_line_bytes: int) -> Iterator[tuple[bytes, bool]]:
    if len(block) <= max_line_bytes:
        yield block, True
        return
    *lines, last = block.split(b"\n")
    for line in (*(line + b"\n" for line in lines), last):
        if len(line) - line.endswith(b"\n") > max_line_bytes:
            for part in _parts(line, max_line_bytes):
                yield part, False
        elif line:
            yield line, True


def _parts(line: bytes, max_bytes: int) -> list[bytes]:
    """A line in parts of at most `max_bytes`, its line feed not counted.

    Where it is cut depends on what comes before alone, so a line may be cut before its end is
    known.
    """
    parts = []
    start, end = 0, len(line) - line.endswith(b"\n")
    while end - start > max_bytes:
        middle, cut = start + max_bytes // 2, start + max_bytes
        space = max(line.rfind(white, middle, cut) for white in (b" ", b"\t", b"\r"))
        if space >= 0:
            cut = space + 1
        else:
            while cut > start + max_bytes - 3 and line[cut] & 0xC0 == 0x80:
                cut -= 1
        parts.append(line[start:cut])
        start = cut
    return [*parts, line[start:]]


class Block(NamedTuple):
    """Some lines as text.

    Attributes:
      text: without NULs; each line with its line feed, but for the last one of all.
      is_whole: whether it is whole lines; otherwise it is a part of one that is too long.
      lines: line feeds before it, from `Context.start` on.
      read_bytes: how many bytes it was.
      max_bytes: how many bytes its lines have at most as UTF-8, each with a line feed.
    """

    text: str
    is_whole: bool
    lines: int
    read_bytes: int
    max_bytes: int


def text_blocks(
    chunks: Iterable[bytes], context: Context, max_line_bytes: int = MAX_DOCUMENT_BYTES
) -> Iterator[Block]:
    """The lines of a file, or of a range of one, as text.

    Args:
      chunks: its bytes, decompressed. A byte order mark at its beginning is dropped.
      context: says what to do with invalid UTF-8, and where the range begins.
      max_line_bytes: longer lines come in parts.

    Raises:
      UserError: for invalid UTF-8, if `encoding_errors` is "refuse".
    """
    counts = context.counts
    lines, offset = 0, context.start
    for data, is_whole in line_blocks(chunks, max_line_bytes):
        length, line_feeds, start = len(data), data.count(b"\n"), offset
        if start == 0 and data.startswith(_BYTE_ORDER_MARK):
            start, data = len(_BYTE_ORDER_MARK), data[len(_BYTE_ORDER_MARK) :]
        invalid = counts.invalid_sequences
        text = decode(data, context, lines, start)
        # A replacement has three bytes and stands for at least one.
        max_bytes = length + 1 + 2 * (counts.invalid_sequences - invalid)
        yield Block(text, is_whole, lines, length, max_bytes)
        lines += line_feeds
        offset += length


def decode(data: bytes, context: Context, lines: int = 0, offset: int | None = None) -> str:
    """Decodes UTF-8 and drops NULs; what is met is counted.

    Args:
      data: some lines, or the text of a row.
      context: says what to do with invalid UTF-8.
      lines: line feeds before `data`, from `context.start` on.
      offset: bytes before `data`; None for a row.

    Raises:
      UserError: for invalid UTF-8, if `encoding_errors` is "refuse".
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if context.options.encoding_errors == "refuse":
            position = ""
            if offset is not None:
                number = line_number(context, lines + data.count(b"\n", 0, error.start))
                position = f" at line {number}, byte offset {offset + error.start}"
            raise UserError(
                f"{context.where} is not UTF-8{position}: "
                "convert it, or use --encoding-errors=replace"
            ) from None
        text = data.decode(errors="replace")
        # 0xEF begins a character wherever it stands, so these were there before.
        context.counts.invalid_sequences += text.count(_REPLACEMENT) - data.count(
            _REPLACEMENT.encode()
        )
    return without_nuls(text, context.counts)


def decode_row(data: bytes, context: Context, kind: str, number: int) -> str:
    """`decode` for the text of a row; messages call it, say, "row 3"."""
    try:
        return without_nuls(data.decode(), context.counts)
    except UnicodeDecodeError:
        return decode(data, context._replace(where=f"{context.where}, {kind} {number}"))


def line_number(context: Context, lines: int) -> int:
    """Number, from 1, of the line that has so many lines before it from `context.start` on.

    A range of a file has to count the lines before it; only messages pay for that.
    """
    if context.start:
        before = file_chunks(context.where, ReadingCounts(), stop=context.start)
        lines += sum(chunk.count(b"\n") for chunk in before)
    return lines + 1


def without_nuls(text: str, counts: ReadingCounts) -> str:
    """The text without NULs, which are counted."""
    if "\0" not in text:
        return text
    counts.nul_characters += text.count("\0")
    return text.replace("\0", "")


def without_surrogates(text: str, counts: ReadingCounts) -> tuple[str, int]:
    """The text with lone surrogates replaced, and its length as UTF-8; they are counted."""
    try:
        return text, len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        text, replaced = _SURROGATES.subn(_REPLACEMENT, text)
        counts.invalid_sequences += replaced
        return text, len(text.encode())


def row_documents(text: str, counts: ReadingCounts) -> list[list[str]]:
    """The document in a row's text, without NULs: none if it is empty, several if it is long."""
    paragraphs = [line for line in map(str.strip, text.split("\n")) if line]
    if not paragraphs:
        counts.empty_rows += 1
        return []
    if 4 * len(text) <= MAX_DOCUMENT_BYTES:
        return [paragraphs]
    pieces = cut_document(paragraphs)
    counts.cut_documents += len(pieces) > 1
    return pieces


def cut_document(paragraphs: Sequence[str], max_bytes: int = MAX_DOCUMENT_BYTES) -> list[list[str]]:
    """A document in pieces of at most `max_bytes`, cut between paragraphs where that is possible.

    As UTF-8, with a line feed between paragraphs. The first pieces do not depend on what follows,
    so the beginning of a document may be cut before the rest of it is known.
    """
    pieces: list[list[str]] = [[]]
    size = 0
    for paragraph in paragraphs:
        parts = [paragraph]
        if _utf8_length(paragraph) > max_bytes:
            raw = _parts(paragraph.encode(), max_bytes)
            parts = [part for part in (piece.decode().strip() for piece in raw) if part]
        for part in parts:
            length = _utf8_length(part)
            if pieces[-1] and size + 1 + length > max_bytes:
                pieces.append([])
                size = 0
            size += length + bool(pieces[-1])
            pieces[-1].append(part)
    return pieces


def utf8_size(paragraphs: Sequence[str]) -> int:
    """Bytes of a document as `cut_document` counts them."""
    return sum(map(_utf8_length, paragraphs)) + max(0, len(paragraphs) - 1)


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
