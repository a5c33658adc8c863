"""What is to be read, how, and what was met: plain values that travel between processes."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from electra_jax.errors import UserError

FORMATS = ("text", "jsonl", "parquet", "archive", "tfds")
ENCODING_ERRORS = ("replace", "refuse")
BAD_INPUT = ("refuse", "skip")

# Longer documents are stored as several, and longer lines of text as several paragraphs: what a
# process holds at a time has to have a bound.
MAX_DOCUMENT_BYTES = 2**24


@dataclasses.dataclass(frozen=True)
class Unit:
    """A piece of work: a file, a range of a file or a range of a TensorFlow dataset.

    Attributes:
      format: one of `FORMATS`; "text" also stands for a compressed file that turns out to be an
        archive when it is opened.
      name: path or URL, absolute; or the specification of a TensorFlow dataset, tfds:...
      start: where to begin: a byte (text and jsonl, uncompressed), a row group (parquet) or an
        example (tfds).
      stop: where to end, not included; None means at the end.
      size: bytes on disk that it stands for, for progress and for sharing out.
    """

    format: str
    name: str
    start: int = 0
    stop: int | None = None
    size: int = 0


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How inputs are read.

    Attributes:
      field: the field, column or feature that holds the text (jsonl, parquet, tfds).
      one_document_per_file: whether a text file, or a member of an archive, is one document;
        otherwise a blank line separates documents.
      encoding_errors: for invalid UTF-8, "replace" (by U+FFFD, and count) or "refuse".
      bad_input: for rows and files that cannot be read, "refuse" or "skip" (and count; of a
        damaged file what comes before the damage is read).
      tfds_data_dir: where TensorFlow datasets lie; None means TFDS's own directory.

    Raises:
      UserError: if `encoding_errors` or `bad_input` is none of the above.
    """

    field: str = "text"
    one_document_per_file: bool = False
    encoding_errors: str = "replace"
    bad_input: str = "refuse"
    tfds_data_dir: str | None = None

    def __post_init__(self):
        for flag, value, known in (
            ("--encoding-errors", self.encoding_errors, ENCODING_ERRORS),
            ("--bad-input", self.bad_input, BAD_INPUT),
        ):
            if value not in known:
                raise UserError(f"{flag}={value} is unknown: use one of {', '.join(known)}")


@dataclasses.dataclass
class ReadingCounts:
    """What reading met, added up over units.

    Attributes:
      text_bytes: UTF-8 bytes of text read, after decompression; of rows the text alone.
      source_bytes: bytes on disk consumed; for a whole unit about its `size`.
      invalid_sequences: pieces of invalid UTF-8 and lone surrogates, each replaced by one U+FFFD.
      nul_characters: NULs dropped.
      empty_files: files and members of archives in which there is no document.
      empty_rows: rows (jsonl, parquet, tfds) whose text is null, or white space alone.
      bad_rows: rows skipped: no JSON, no object, or without a string in the field.
      damaged_files: files and members of archives damaged or cut short, read as far as they go.
      skipped_members: members of archives that are links, devices, sparse, hidden, or of formats
        that are not read there.
      cut_documents: documents of more than `MAX_DOCUMENT_BYTES`, stored as several.
    """

    text_bytes: int = 0
    source_bytes: int = 0
    invalid_sequences: int = 0
    nul_characters: int = 0
    empty_files: int = 0
    empty_rows: int = 0
    bad_rows: int = 0
    damaged_files: int = 0
    skipped_members: int = 0
    cut_documents: int = 0


class Context(NamedTuple):
    """What every reader needs to know.

    Attributes:
      where: what messages call the file, or the member of an archive.
      options: how it is read.
      counts: what is met is added to it.
      start: the byte at which reading begins.
      is_part: whether it is a part of a file that is read.
    """

    where: str
    options: ReadingOptions
    counts: ReadingCounts
    start: int = 0
    is_part: bool = False
