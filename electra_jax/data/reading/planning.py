"""Inputs become units: which files there are, and where big ones can be cut."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from electra_jax.data import storage
from electra_jax.data.reading.decompression import Damaged, cannot_be_read
from electra_jax.data.reading.names import KNOWN_ENDINGS, format_of, is_hidden, split_name
from electra_jax.data.reading.parquet import row_group_sizes
from electra_jax.data.reading.tfds_source import PREFIX, parse_specification, plan_tfds
from electra_jax.data.reading.units import MAX_DOCUMENT_BYTES, ReadingOptions, Unit
from electra_jax.errors import UserError

# A line of white space as `str.strip` sees it, with the line feeds around it.
BLANK_LINE = re.compile(
    rb"\n(?:[ \t\r\v\f\0\x1c-\x1f]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]"
    rb"|\xe2\x81\x9f|\xe3\x80\x80)*+\n"
)
_LOOK_BYTES = 1 << 16


class Plan(NamedTuple):
    """What there is to read.

    Attributes:
      units: by name, then in the order of the file. The same inputs give the same units.
      left_out: for each directory that was an input, the endings of the files in it that are of no
        known format, with their numbers; "" stands for files without an ending. Hidden files, and
        files that another input names, are not among them.
    """

    units: list[Unit]
    left_out: dict[str, dict[str, int]]


def plan_units(
    inputs: Sequence[str],
    options: ReadingOptions,
    unit_bytes: int = 2**25,
    exclude: str | None = None,
) -> Plan:
    """Finds what inputs name, and cuts it into pieces of work.

    A directory means the files below it with an ending of a known format, or with no ending but
    .gz, .xz or .zst; links are followed; hidden files, and those of corpora, are left out. A file
    that is named itself, or matched by a pattern (`**` included), may have any name: unknown ones
    are read as text. What is named twice is read once.
    `tfds:NAME[/CONFIG][:VERSION][:SPLIT][#FIELD]` is a TensorFlow dataset, which is downloaded
    and prepared if it is not there.

    Text is cut after blank lines, JSON lines after lines, so that the documents of all units of a
    file are those of the file. Where 16 MB of text have no blank line, it is cut at the end of a
    line: a document of that size comes in several pieces in any case, but not in the same ones.
    Compressed files, archives, and text that is one document per file, are not cut.

    Args:
      inputs: paths, URLs, patterns, directories and TensorFlow datasets.
      options: how they will be read.
      unit_bytes: about how many bytes on disk a unit stands for.
      exclude: an absolute name; nothing below it is taken.

    Raises:
      UserError: if there are no inputs, or one matches nothing, cannot be read, or is of a format
        that cannot be.
    """
    if unit_bytes < 1:
        raise UserError(f"unit_bytes={unit_bytes} must be positive")
    if not inputs:
        raise UserError("inputs is empty: name at least one file, directory or pattern")
    names: set[str] = set()
    datasets: list[str] = []
    others: dict[str, list[str]] = {}
    for item in dict.fromkeys(map(str, inputs)):
        if item.startswith(PREFIX):
            parse_specification(item, options)
            datasets.append(item)
            continue
        try:
            found = storage.find_files(item)
            if storage.is_directory(item):
                found = _without_corpora(found)
            if exclude:
                below = f"{storage.real(exclude)}/"
                found = [name for name in found if not storage.real(name).startswith(below)]
            if storage.is_directory(item):
                found, others[item] = _split_directory(item, found)
        except OSError as error:
            raise cannot_be_read(item, error) from None
        if not found:
            raise UserError(f"input {item!r} matches no file: check the path or the pattern")
        names.update(map(storage.absolute, found))
    units = [unit for name in sorted(names) for unit in _file_units(name, options, unit_bytes)]
    # Last: to prepare one may take hours, after which no mistake should come to light.
    units += [unit for item in datasets for unit in plan_tfds(item, options, unit_bytes)]
    units = sorted(set(units), key=lambda unit: (unit.name, unit.start))
    left_out = {}
    for item, left in others.items():
        endings = [split_name(name).whole_ending for name in left if name not in names]
        left_out[item] = dict(sorted(collections.Counter(endings).items()))
    return Plan(units, left_out)


def _without_corpora(files: list[str]) -> list[str]:
    """Files that are in no corpus, finished or not: a vocabulary is no text."""
    marks = ("/corpus.json", "/building/plan.json")
    corpora = {name[: -len(mark)] + "/" for name in files for mark in marks if name.endswith(mark)}
    return [name for name in files if not name.startswith(tuple(corpora))]


def _split_directory(directory: str, files: Sequence[str]) -> tuple[list[str], list[str]]:
    """A directory's files, without hidden ones: those to read, and the others."""
    readable, others = [], []
    for name in files:
        if is_hidden(storage.relative(name, directory)):
            continue
        (readable if split_name(name).is_known else others).append(storage.absolute(name))
    if not readable:
        endings = sorted({split_name(name).whole_ending or "none" for name in others})
        there = f"; the {len(others)} there have {', '.join(endings)}" if others else ""
        raise UserError(
            f"input {directory!r} matches no file: it has no file ending in {KNOWN_ENDINGS}{there}"
        )
    return readable, others


def _file_units(name: str, options: ReadingOptions, unit_bytes: int) -> list[Unit]:
    form = format_of(name)
    is_compressed = bool(split_name(name).compression)
    try:
        size = storage.size(name)
        whole = Unit(form, name, size=size)
        if size <= unit_bytes or is_compressed or form == "archive":
            return [whole]
        if form == "parquet":
            return _row_group_units(whole, unit_bytes)
        if form == "text" and options.one_document_per_file:
            return [whole]
        cuts = _cuts(name, size, unit_bytes, form)
    except OSError as error:
        raise cannot_be_read(name, error) from None
    starts = [0, *cuts]
    stops = [*cuts, size]
    if not cuts:
        return [whole]
    return [
        Unit(form, name, start, stop, stop - start)
        for start, stop in zip(starts, stops, strict=True)
    ]


def _row_group_units(whole: Unit, unit_bytes: int) -> list[Unit]:
    try:
        sizes = row_group_sizes(whole.name)
    except Damaged:
        return [whole]  # Whoever reads it says or counts so.
    total = max(1, sum(sizes))
    units: list[Unit] = []
    start = before = done = 0
    for group, size in enumerate(sizes, start=1):
        before += size
        share = whole.size * before // total
        if share - done >= unit_bytes or group == len(sizes):
            units.append(Unit(whole.format, whole.name, start, group, share - done))
            start, done = group, share
    return units or [whole]


def _cuts(name: str, size: int, unit_bytes: int, form: str) -> list[int]:
    """Offsets, in order, at which a file of text or JSON lines can be cut in two."""
    cuts: list[int] = []
    position = unit_bytes
    with storage.open_read(name) as file:
        while position < size:
            step = 0
            if form == "jsonl":
                cut, is_end = _after_line(file, position), True
            else:
                cut, searched = _after_blank_line(file, position)
                is_end = len(searched) < MAX_DOCUMENT_BYTES
            if cut is None and is_end:
                break  # The rest is one row or one document.
            if cut is None:
                # No blank line in sight. To look for one at every step would be to read half of
                # the file.
                cut, step = position + searched.find(b"\n") + 1, 8 * MAX_DOCUMENT_BYTES
            if position < cut < size:
                cuts.append(cut)
            position = (cut + step) // unit_bytes * unit_bytes + unit_bytes
    return cuts


def _after_line(file: BinaryIO, position: int) -> int | None:
    """Offset of the first line that begins after `position`; None if none does."""
    file.seek(position)
    while window := file.read(_LOOK_BYTES):
        end = window.find(b"\n") + 1
        if end:
            return position + end
        position += len(window)
    return None


def _after_blank_line(file: BinaryIO, position: int) -> tuple[int | None, bytes]:
    """Offset behind the first blank line after `position`, or None; and the bytes searched.

    It searches to the end of the file or so far that a document would be cut in any case.
    """
    file.seek(position)
    searched = b""
    look = _LOOK_BYTES
    while window := file.read(min(look, MAX_DOCUMENT_BYTES - len(searched))):
        searched += window
        if found := BLANK_LINE.search(searched):
            return position + found.end(), searched
        look = 3 * len(searched)
    return None, searched
