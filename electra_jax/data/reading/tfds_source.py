"""Documents of TensorFlow datasets, read without TensorFlow: an example is a document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from electra_jax.data import storage
from electra_jax.data.reading.decompression import Damaged
from electra_jax.data.reading.lines import decode_row, row_documents
from electra_jax.data.reading.names import printable
from electra_jax.data.reading.units import Context, ReadingOptions, Unit
from electra_jax.errors import UserError

PREFIX = "tfds:"
# What data sets are prepared as here, and the others that can be read without TensorFlow.
FILE_FORMAT = "array_record"
_READABLE = (FILE_FORMAT, "parquet")
_PATTERN = re.compile(
    r"tfds:(?P<name>\w+(?:/[\w.\-]+)?)"
    r"(?::(?P<version>\d+\.\d+\.\d+))?"
    r"(?::(?P<split>[^#]+))?"
    r"(?:#(?P<field>.+))?"
)


class Specification(NamedTuple):
    """A part of a TensorFlow dataset, `tfds:NAME[/CONFIG][:VERSION][:SPLIT][#FIELD]`.

    Attributes:
      name: NAME or NAME/CONFIG.
      version: as 1.0.0, or None for the newest that there is.
      split: as TFDS writes it: train, train[:10%], train+test.
      field: the feature that holds the text.
    """

    name: str
    version: str | None
    split: str
    field: str

    @property
    def builder_name(self) -> str:
        """What TFDS calls it."""
        return f"{self.name}:{self.version}" if self.version else self.name

    def __str__(self) -> str:
        return f"{PREFIX}{self.builder_name}:{self.split}#{self.field}"


def parse_specification(text: str, options: ReadingOptions) -> Specification:
    """What a specification says, with the defaults (split train, the options' field) filled in.

    Raises:
      UserError: if it is none.
    """
    match = _PATTERN.fullmatch(text)
    if not match:
        raise UserError(
            f"input {text!r} is no TensorFlow dataset: write "
            "tfds:NAME[/CONFIG][:VERSION][:SPLIT][#FIELD], as in tfds:wikipedia/20230601.en:train"
        )
    name, version, split, field = match.groups()
    return Specification(name, version, split or "train", field or options.field)


def plan_tfds(text: str, options: ReadingOptions, unit_bytes: int) -> list[Unit]:
    """The units of a TensorFlow dataset, which is downloaded and prepared if it has to be.

    Args:
      text: its specification.
      options: say where datasets lie, and the field.
      unit_bytes: about how many bytes on disk a unit stands for.

    Returns:
      Units of ranges of examples. Their name says which configuration, version, split and field.

    Raises:
      UserError: if there is no such data set, split or feature, or no example in it; if it cannot
        be prepared, or is prepared in a format that only TensorFlow reads.
    """
    specification = parse_specification(text, options)
    builder = _builder(specification, options)
    if not builder.is_prepared():
        _check_field(builder, specification)  # Rather now than when it has been downloaded.
        _prepare(builder, specification, options)
    _check_format(builder, specification)
    _check_field(builder, specification)
    examples = _num_examples(builder, specification)
    if not examples:
        raise UserError(f"input {specification}: there is no example in it: name another split")
    splits = builder.info.splits.values()
    # A slice's own size is unknown to TFDS.
    num_bytes = sum(split.num_bytes for split in splits) * examples
    num_bytes //= max(1, sum(split.num_examples for split in splits))
    *name, version = builder.info.full_name.split("/")
    name = str(specification._replace(name="/".join(name), version=version))
    count = min(max(1, -(-num_bytes // unit_bytes)), examples)
    edges = [examples * i // count for i in range(count + 1)]
    sizes = [num_bytes * i // count for i in range(count + 1)]
    return [
        Unit("tfds", name, edges[i], edges[i + 1], sizes[i + 1] - sizes[i]) for i in range(count)
    ]


def tfds_documents(unit: Unit, context: Context) -> Iterator[list[str]]:
    """The documents of a range of examples.

    Args:
      unit: the specification of the data set, and the range.
      context: how it is read; `source_bytes` grows by `unit.size` with the examples.

    Yields:
      For each example a document: the lines of its text, stripped, none empty, with NULs dropped.
      An example whose text is empty has none; one whose text is very long has several.

    Raises:
      UserError: as `plan_tfds` does, but that nothing is downloaded or prepared; if the data is
        damaged and `bad_input` is "refuse"; for invalid UTF-8 if `encoding_errors` is "refuse".
    """
    options, counts = context.options, context.counts
    specification = parse_specification(unit.name, options)
    builder = _builder(specification, options)
    if not builder.is_prepared():
        raise UserError(
            f"{unit.name} is not in {builder.data_dir}: give every worker the same "
            "--tfds-data-dir, one that all of them can read"
        )
    _check_format(builder, specification)
    _check_field(builder, specification)
    stop = _num_examples(builder, specification) if unit.stop is None else unit.stop
    consumed = 0
    try:
        for example, text in _texts(builder, specification, unit.start, stop):
            counts.text_bytes += len(text)
            yield from row_documents(decode_row(text, context, "example", example), counts)
            share = unit.size * (example + 1 - unit.start) // (stop - unit.start)
            counts.source_bytes += share - consumed
            consumed = share
    except Damaged as damage:
        damage.settle(context)
    counts.source_bytes += unit.size - consumed


def _texts(
    builder: Any, specification: Specification, start: int, stop: int
) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the example, its text)."""
    try:
        if FILE_FORMAT in _formats(builder):
            source = builder.as_data_source(split=specification.split, file_format=FILE_FORMAT)
            for example in range(start, stop):
                yield example, source[example][specification.field]
        else:
            for example, row in _parquet_rows(builder, specification.split, start, stop):
                yield (
                    example,
                    builder.info.features.deserialize_example_np(row)[specification.field],
                )
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise Damaged(str(specification), printable(_one_line(error))) from None


def _parquet_rows(builder: Any, split: str, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the example, the example as it is stored).

    TFDS's own source would take the whole data set into memory, and ignore slices like [:10%].
    """
    from pyarrow import parquet

    first = 0  # Number of the first example that a file gives.
    for part in builder.info.splits[split].file_instructions:
        count = part.take if part.take >= 0 else part.examples_in_shard - part.skip
        # Rows of the file from begin to end, and the number of its first one.
        begin = part.skip + max(0, start - first)
        end = part.skip + min(count, stop - first)
        number = first - part.skip
        first += count
        if begin >= end:
            continue
        with storage.open_read(str(part.filename)) as opened:
            file, row = parquet.ParquetFile(opened, buffer_size=1 << 20), 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row + rows <= begin or row >= end:
                    row += rows
                    continue
                for batch in file.iter_batches(64, [group], use_threads=False):
                    for data in batch.column(0).to_pylist():
                        if begin <= row < end:
                            yield number + row, data
                        row += 1


def _builder(specification: Specification, options: ReadingOptions) -> Any:
    import tensorflow_datasets as tfds

    def make() -> Any:
        return tfds.builder(specification.builder_name, data_dir=options.tfds_data_dir)

    try:
        try:
            return make()
        except tfds.core.DatasetNotFoundError:
            # Some (wikipedia, c4, glue) are known once this is imported.
            import tensorflow_datasets.text  # noqa: F401

            return make()
    except Exception as error:  # TFDS documents none of them.
        directory = options.tfds_data_dir or "the default directory"
        raise UserError(
            f"input {specification}: no such data set in {directory} or known to TensorFlow "
            f"Datasets ({printable(_one_line(error))}): check its name, configuration and version, "
            "and --tfds-data-dir"
        ) from error


def _prepare(builder: Any, specification: Specification, options: ReadingOptions) -> None:
    import tensorflow_datasets as tfds

    # The copies on Google's servers are of a format that cannot be read here.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(file_format=FILE_FORMAT, download_config=config)
    except Exception as error:  # Whatever the code of the data set may meet.
        raise UserError(
            f"input {specification} cannot be prepared in {builder.data_dir} "
            f"({printable(_one_line(error))}): prepare it where that is possible, with "
            f"download_and_prepare(file_format={FILE_FORMAT!r}), and name the directory with "
            "--tfds-data-dir"
        ) from error


def _check_format(builder: Any, specification: Specification) -> None:
    formats = _formats(builder)
    if not set(formats) & set(_READABLE):
        raise UserError(
            f"input {specification} is prepared as {', '.join(formats)} in {builder.data_dir}, and "
            f"only {' and '.join(_READABLE)} can be read without TensorFlow: name an empty "
            f"directory with --tfds-data-dir, and it is prepared there as {FILE_FORMAT}"
        )


def _formats(builder: Any) -> list[str]:
    """What a prepared data set is there as."""
    return sorted(known.value for known in builder.info.available_file_formats())


def _check_field(builder: Any, specification: Specification) -> None:
    features = builder.info.features
    names = ", ".join(sorted(features)) if hasattr(features, "keys") else "none by name"
    if not hasattr(features, "keys") or specification.field not in features:
        raise UserError(
            f"input {specification}: no feature {specification.field!r} (it has: "
            f"{printable(names)}): name the feature after #, or with --field"
        )
    feature = features[specification.field]
    if str(feature.np_dtype) != "object" or feature.shape != ():
        raise UserError(
            f"input {specification}: feature {specification.field!r} is not a text (it has: "
            f"{printable(names)}): name another after #, or with --field"
        )


def _num_examples(builder: Any, specification: Specification) -> int:
    try:
        return max(0, builder.info.splits[specification.split].num_examples)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"input {specification}: {printable(_one_line(error))}: name a split that it has: "
            f"{', '.join(builder.info.splits)}"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
