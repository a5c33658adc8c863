"""Documents of JSON lines: one object a line, its text in one field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from electra_jax.data.reading.lines import (
    line_number,
    row_documents,
    text_blocks,
    without_nuls,
    without_surrogates,
)
from electra_jax.data.reading.names import printable
from electra_jax.data.reading.units import Context
from electra_jax.errors import UserError

# A row has to be in memory as a whole.
MAX_ROW_BYTES = 2**25

# Python refuses integers of thousands of digits, which a row may well have beside its text.
_decode_row = json.JSONDecoder(parse_int=float).decode
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a truth value",
    float: "a number",
}


class _BadRow(Exception):
    """Why a row cannot be used, and the remedy."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def jsonl_documents(
    chunks: Iterable[bytes], context: Context, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[list[str]]:
    """The documents of a file of JSON lines or of a range of one.

    Args:
      chunks: its bytes, decompressed.
      context: its name, how it is read, where the range begins.
      max_row_bytes: longer rows are bad ones.

    Yields:
      For each row a document: the lines of its text, stripped, none empty, with NULs dropped. A
      row whose text is null or empty has none; one whose text is very long has several.

    Raises:
      UserError: for a row that is no object with a string (or null) in the field, naming the line,
        if `bad_input` is "refuse"; for text that is not UTF-8, if `encoding_errors` is "refuse".
    """
    field, counts = context.options.field, context.counts
    refuses = context.options.encoding_errors == "refuse"
    is_inside = False  # Whether the rest of a row that is too long is still to come.
    for block in text_blocks(chunks, context, max_row_bytes):
        if not block.is_whole:
            if not is_inside:
                reason = f"a row of more than {max_row_bytes} bytes"
                _settle(_BadRow(reason, "split it"), context, block.lines)
            is_inside = not block.text.endswith("\n")
            continue
        for number, line in enumerate(block.text.split("\n")):
            if not line or line.isspace():
                continue
            before = counts.invalid_sequences
            try:
                text = _field_of(line, field)
            except _BadRow as bad:
                _settle(bad, context, block.lines + number)
                continue
            text, size = without_surrogates(without_nuls(text, counts), counts)
            if counts.invalid_sequences > before and refuses:
                raise UserError(
                    f"{context.where}, line {line_number(context, block.lines + number)}: a lone "
                    "surrogate, which is not UTF-8: correct it, or use --encoding-errors=replace"
                )
            counts.text_bytes += size
            yield from row_documents(text, counts)


def _settle(bad: _BadRow, context: Context, lines: int) -> None:
    """Counts a bad row, or raises UserError."""
    if context.options.bad_input == "refuse":
        raise UserError(
            f"{context.where}, line {line_number(context, lines)}: {bad.reason}: {bad.remedy}, or "
            "skip such rows with --bad-input=skip"
        ) from None
    context.counts.bad_rows += 1


def _field_of(line: str, field: str) -> str:
    try:
        row = _decode_row(line)
    except json.JSONDecodeError as error:
        raise _BadRow(f"not JSON ({error.msg} at column {error.colno})", "correct it") from None
    except RecursionError:
        raise _BadRow("JSON nested too deeply", "simplify it") from None
    if not isinstance(row, dict):
        kind = _KINDS.get(type(row), "null")
        raise _BadRow(f"not an object but {kind}", "write one object a line")
    if field not in row:
        names = printable(", ".join(row)) or "nothing"
        raise _BadRow(f"no field {field!r} (it has: {names})", "name the field with --field")
    text = row[field]
    if not isinstance(text, str):
        if text is None:
            return ""
        kind = _KINDS[type(text)]
        raise _BadRow(f"field {field!r} is {kind}, not a string", "name another with --field")
    return text
