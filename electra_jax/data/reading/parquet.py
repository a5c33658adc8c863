"""Documents of Parquet files: a row is a document, its text in one column."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from electra_jax.data import storage
from electra_jax.data.reading.decompression import (
    Damaged,
    cannot_be_read,
    decompress,
    file_chunks,
)
from electra_jax.data.reading.lines import decode_row, row_documents
from electra_jax.data.reading.names import printable, split_name
from electra_jax.data.reading.units import Context, ReadingCounts, Unit
from electra_jax.errors import UserError

_BATCH_BYTES = 1 << 22
# Where texts repeat, a dictionary (of a megabyte at most) makes them look short.
_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20


def parquet_documents(unit: Unit, context: Context) -> Iterator[list[str]]:
    """The documents of a Parquet file or of some of its row groups.

    Args:
      unit: the file and the range of row groups.
      context: how it is read; `source_bytes` grows by `unit.size` with the rows.

    Yields:
      For each row a document: the lines of its text, stripped, none empty, with NULs dropped. A
      row whose text is null or empty has none; one whose text is very long has several.

    Raises:
      UserError: if there is no column of this name or it has no strings; if the file is damaged
        and `bad_input` is "refuse"; for invalid UTF-8 if `encoding_errors` is "refuse".
    """
    counts = context.counts
    read_rows = consumed = 0
    try:
        for first, rows, texts in _batches(unit, context):
            for number, text in enumerate(texts, start=first):
                if text is None:
                    counts.empty_rows += 1
                    continue
                counts.text_bytes += len(text)
                yield from row_documents(decode_row(text, context, "row", number), counts)
            read_rows += len(texts)
            share = unit.size * read_rows // rows
            counts.source_bytes += share - consumed
            consumed = share
    except Damaged as damage:
        damage.settle(context)
    counts.source_bytes += unit.size - consumed


def row_group_sizes(name: str) -> list[int]:
    """Bytes of each row group, before compression.

    Raises:
      UserError: if the file cannot be read.
      Damaged: if it is no Parquet file.
    """
    with _open(name) as file:
        metadata = file.metadata
        groups = range(metadata.num_row_groups)
        return [metadata.row_group(group).total_byte_size for group in groups]


@contextlib.contextmanager
def _open(name: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`; what pyarrow says of a damaged file becomes `Damaged`."""
    import pyarrow
    from pyarrow import parquet

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_open_file(name))
        except OSError as error:
            raise cannot_be_read(name, error) from None
        try:
            yield parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: names
            if isinstance(error, OSError) and error.errno:
                raise cannot_be_read(name, error) from None
            raise Damaged(name, printable(" ".join(str(error).split()))) from None


@contextlib.contextmanager
def _open_file(name: str) -> Iterator[BinaryIO]:
    """The file; a compressed one as a temporary copy, since Parquet is read from its end."""
    compression = split_name(name).compression
    if not compression:
        with storage.open_read(name) as file:
            yield file
        return
    chunks = file_chunks(name, ReadingCounts())
    with tempfile.TemporaryFile() as file, contextlib.closing(chunks):
        for chunk in decompress(chunks, compression, name):
            file.write(chunk)
        file.seek(0)
        yield file


def _batches(unit: Unit, context: Context) -> Iterator[tuple[int, int, list[bytes | None]]]:
    """Yields (number of the first row, rows of the unit, texts), some megabytes at a time."""
    field = context.options.field
    with _open(unit.name) as file:
        _check_column(file.schema_arrow, context)
        metadata = file.metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        first = 1 + sum(group.num_rows for group in groups[: unit.start])
        chosen = list(range(len(groups)))[unit.start : unit.stop]
        rows = sum(groups[group].num_rows for group in chosen)
        size = sum(groups[group].total_byte_size for group in chosen)
        batch_rows = min(max(1, _BATCH_BYTES * rows // max(1, size)), _BATCH_ROWS)
        for batch in file.iter_batches(batch_rows, chosen, [field], use_threads=False):
            texts = _bytes_of(batch.column(batch.schema.names.index(field)))
            yield first, rows, texts
            first += len(texts)


def _check_column(schema: Any, context: Context) -> None:
    from pyarrow import types

    field = context.options.field
    columns = printable(", ".join(f"{column.name} ({column.type})" for column in schema))
    if field not in schema.names:
        raise UserError(
            f"{context.where}: no column {field!r} (it has: {columns}): "
            "name the column with --field"
        )
    kind = schema.types[schema.names.index(field)]
    if types.is_dictionary(kind):
        kind = kind.value_type
    known = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    if not any(is_known(kind) for is_known in known):
        raise UserError(
            f"{context.where}: column {field!r} has no strings (it has: {columns}): "
            "name another column with --field"
        )


def _bytes_of(column: Any) -> list[bytes | None]:
    """The strings as they are in the file: they need not be UTF-8."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_null(column.type):
        return [None] * len(column)
    return column.cast(pyarrow.large_binary()).to_pylist()
