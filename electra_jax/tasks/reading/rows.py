"""From a file's bytes to rows of named fields: TSV, CSV, JSON lines, plain lines."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.examples import BadRow, Reading, shown

_SURROGATES = re.compile("[\ud800-\udfff]")
# A field may be as large as memory allows; the csv module's own limit is 128 KiB.
_MAX_FIELD = 2**31 - 1
# Python refuses to read integers of thousands of digits; no label has hundreds.
_MAX_DIGITS = 300


def read_bytes(path: Path) -> bytes:
    """A file's bytes; .gz is decompressed.

    Raises:
      UserError: if the file cannot be read, or is damaged.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} is a damaged or cut-short archive ({error}): copy or download it again"
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"{path} cannot be read ({reason}): check the path and its rights"
        ) from None


def read_text(path: Path) -> str:
    """A file's text, without byte-order mark; bytes that are not UTF-8 become lone surrogates.

    Raises:
      UserError: as `read_bytes`.
    """
    return read_bytes(path).decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def check_text(text: str) -> str:
    """The text, if it can be encoded.

    Raises:
      BadRow: if it has lone surrogates, as bytes that are not UTF-8 have become.
    """
    if not text.isascii() and (found := _SURROGATES.search(text)):
        raise BadRow(f"not UTF-8 at character {found.start() + 1}", "save the file as UTF-8 text")
    return text


def parse_json(text: str) -> Any:
    """The value of a JSON text; integers too long for Python become infinite.

    Raises:
      BadRow: if it is none.
    """
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in text else ""
        raise BadRow(
            f"not JSON ({error.msg} at {place}column {error.colno})", "correct it"
        ) from None
    except RecursionError:
        raise BadRow("JSON nested too deeply", "simplify it") from None


def tsv_rows(path: Path, reading: Reading, without_header: int) -> Iterator[tuple[int, dict]]:
    """Rows of a tab-separated file in which quotes mean nothing, as in GLUE.

    Args:
      path: the file.
      reading: rows of the wrong width, or not UTF-8, are settled with it.
      without_header: how many columns there are, if there is no header; else 0.

    Yields:
      (line, fields by name), or by position from 0 where there is no header. Blank lines are left
      out.

    Raises:
      UserError: if the file cannot be read or has no header; as `reading` says.
    """
    # Not splitlines(): U+2028 and the like are part of a text.
    lines = ((number, line.rstrip("\r").split("\t")) for number, line in _lines(path))
    return _rows(lines, reading, without_header)


def csv_rows(path: Path, reading: Reading) -> Iterator[tuple[int, dict]]:
    """Rows of a comma-separated file with quotes (RFC 4180) and a header.

    Arguments, yields, raises: as `tsv_rows`. A field in quotes may have line breaks; the line is
    the last one of the row.
    """
    return _rows(iter(_csv_lists(path, reading)), reading, 0)


def jsonl_rows(path: Path, reading: Reading) -> Iterator[tuple[int, dict]]:
    """Rows of a file with a JSON object a line; arguments, yields, raises: as `tsv_rows`."""
    for number, line in _lines(path):
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise BadRow(f"not a JSON object but {shown(row)}", "write one object a line")
        except BadRow as bad:
            reading.settle(f"line {number}", bad)
            continue
        yield number, row


def text_rows(path: Path, column: str) -> Iterator[tuple[int, dict]]:
    """Every line of a text file as the one field `column`, blank ones, too: none is lost."""
    for number, line in enumerate(text_lines(path), start=1):
        yield number, {column: line}


def text_lines(path: Path) -> list[str]:
    """The lines of a text file, without their ends.

    Raises:
      UserError: if it cannot be read.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line and not line.isspace():
            yield number, line


def _csv_lists(path: Path, reading: Reading) -> list[tuple[int, list[str]]]:
    rows = []
    limit = csv.field_size_limit(_MAX_FIELD)
    try:
        reader = csv.reader([line + "\n" for line in read_text(path).split("\n")], strict=True)
        while (fields := _next_fields(reader, reading, path)) is not None:
            if fields:
                rows.append((reader.line_num, fields))
    finally:
        csv.field_size_limit(limit)  # The limit is the whole process's.
    return rows


def _next_fields(reader: Any, reading: Reading, path: Path) -> list[str] | None:
    """The next row that is CSV; None at the end."""
    while True:
        first = reader.line_num + 1
        try:
            return next(reader, None)
        except csv.Error as error:
            if "unexpected end" in str(error):  # skipping the row would lose all that follow
                raise UserError(
                    f"{path}, line {first}: a quote is opened and never closed: close it, or "
                    "double it if it is part of the text"
                ) from None
            remedy = "double the quotes inside a field, and put it in quotes"
            reading.settle(f"line {reader.line_num}", BadRow(f"not CSV ({error})", remedy))


def _rows(
    lists: Iterator[tuple[int, Sequence[str]]], reading: Reading, without_header: int
) -> Iterator[tuple[int, dict]]:
    if without_header:
        names: Sequence[str | int] = range(without_header)
    else:
        number, names = next(lists, (1, []))
        if len(set(names)) != len(names) or not names:
            what = "names a column twice" if names else "is empty"
            raise UserError(
                f"{reading.source}, line {number}: the header {what}: give every column a name"
            )
    for number, fields in lists:
        if len(fields) == len(names):
            yield number, dict(zip(names, fields, strict=True))
            continue
        count = f"{len(fields)} columns instead of {len(names)}"
        remedy = "take tabs, line breaks and unquoted commas out of the texts"
        reading.settle(f"line {number}", BadRow(count, remedy))


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float("inf")


_decode = json.JSONDecoder(parse_int=_integer).decode
