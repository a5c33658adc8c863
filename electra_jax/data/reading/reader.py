"""The documents of a unit, whatever its format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from electra_jax.data.reading.archives import file_documents
from electra_jax.data.reading.decompression import file_chunks
from electra_jax.data.reading.names import split_name
from electra_jax.data.reading.parquet import parquet_documents
from electra_jax.data.reading.tfds_source import tfds_documents
from electra_jax.data.reading.units import Context, ReadingCounts, ReadingOptions, Unit


def read_documents(
    unit: Unit, options: ReadingOptions, counts: ReadingCounts | None = None
) -> Iterator[list[str]]:
    """The documents of a unit, in order, in bounded memory.

    Args:
      unit: as `plan_units` makes them.
      options: how it is read.
      counts: what is met is added to it, as it is met.

    Yields:
      A document: its paragraphs, stripped, none empty, with NULs dropped; there is at least one.
      Together they have at most `MAX_DOCUMENT_BYTES`, as longer documents come as several.

    Raises:
      UserError: if the file or data set cannot be read or has no such field; for damage and bad
        rows, if `bad_input` is "refuse"; for invalid UTF-8, if `encoding_errors` is "refuse".
    """
    counts = ReadingCounts() if counts is None else counts
    is_part = unit.start > 0 or unit.stop is not None
    context = Context(unit.name, options, counts, 0, is_part)
    if unit.format == "tfds":
        return tfds_documents(unit, context)
    if unit.format == "parquet":
        return parquet_documents(unit, context)
    return _documents_of_file(unit, context._replace(start=unit.start))


def _documents_of_file(unit: Unit, context: Context) -> Iterator[list[str]]:
    chunks = file_chunks(unit.name, context.counts, unit.start, unit.stop)
    # At damage too: the error's traceback would keep the file open.
    with contextlib.closing(chunks):
        yield from file_documents(chunks, split_name(unit.name), context)
