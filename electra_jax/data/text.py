"""Reading documents from text files, plain or compressed, in bounded memory."""

from __future__ import annotations

import dataclasses
import glob
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from electra_jax.errors import UserError

ENCODING_ERRORS = ("replace", "refuse")
# Endings that a directory given as input is searched for.
TEXT_SUFFIXES = (".txt", ".text", ".md")
COMPRESSED_SUFFIXES = (".gz", ".xz", ".zst")
# Known not to be text; anything else is read as text when it is named itself.
_OTHER_FORMATS = (".bz2", ".zip", ".tar", ".tgz", ".7z", ".jsonl", ".json", ".parquet", ".pdf")

_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass
class ReadingCounts:
    """What reading met, added up over files.

    Attributes:
      text_bytes: bytes of text read, after decompression.
      invalid_sequences: pieces of invalid UTF-8, each replaced by one U+FFFD.
      nul_characters: NULs dropped.
    """

    text_bytes: int = 0
    invalid_sequences: int = 0
    nul_characters: int = 0


def expand_inputs(inputs: Sequence[str | Path]) -> list[Path]:
    """The files that paths, globs and directories name, sorted, each once.

    A directory means the files below it whose names end in one of `TEXT_SUFFIXES`, alone or
    followed by one of `COMPRESSED_SUFFIXES`; hidden ones are left out. A file that is named
    itself, or matched by a glob (`**` included), may have any name.

    Raises:
      UserError: if an input matches nothing, or is of a format that is not text.
    """
    files: set[Path] = set()
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            found = [child for child in path.rglob("*") if _is_text_name(child.relative_to(path))]
            remedy = f"it has no file ending in {', '.join(TEXT_SUFFIXES)} (or these with "
            remedy += f"{', '.join(COMPRESSED_SUFFIXES)})"
        elif path.exists():
            found, remedy = [path], ""
        else:
            found = [Path(match) for match in glob.glob(str(item), recursive=True)]
            remedy = "check the path or the pattern"
        found = [child for child in found if child.is_file()]
        if not found:
            raise UserError(f"input {str(item)!r} matches no file: {remedy}")
        files.update(found)
    if not files:
        raise UserError("inputs is empty: name at least one file, directory or pattern")
    for path in sorted(files):
        if path.suffix.lower() in _OTHER_FORMATS:
            raise UserError(
                f"input {path}: {path.suffix} is not a format that can be read; "
                "convert it to UTF-8 text, plain or .gz, .xz or .zst"
            )
    return sorted(files)


def read_documents(
    path: str | Path,
    *,
    blank_line_separates: bool = True,
    encoding_errors: str = "replace",
    counts: ReadingCounts | None = None,
) -> Iterator[list[str]]:
    """The documents of one UTF-8 text file; .gz, .xz and .zst are decompressed.

    Args:
      path: the file.
      blank_line_separates: whether a blank line ends a document; otherwise the file is one.
      encoding_errors: for invalid UTF-8, "replace" (by U+FFFD, and count) or "refuse".
      counts: what was met is added to it.

    Yields:
      A document: its lines, stripped, none empty, with NULs dropped. Documents have lines.

    Raises:
      UserError: if the file cannot be read, its archive is damaged or cut short, or, with
        "refuse", its text is not UTF-8 (naming line and byte offset).
    """
    if encoding_errors not in ENCODING_ERRORS:
        raise UserError(
            f"encoding_errors={encoding_errors!r} is unknown: use one of "
            + ", ".join(ENCODING_ERRORS)
        )
    counts = ReadingCounts() if counts is None else counts
    path = Path(path)
    document: list[str] = []
    offset = 0
    for number, raw in enumerate(_lines(_chunks(path)), start=1):
        if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
            offset, raw = 3, raw[3:]
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            if encoding_errors == "refuse":
                raise UserError(
                    f"{path} is not UTF-8 at line {number}, byte offset {offset + error.start}: "
                    "convert it, or use encoding_errors=replace"
                ) from None
            line = raw.decode(errors="replace")
            counts.invalid_sequences += line.count("\ufffd") - raw.decode(errors="ignore").count(
                "\ufffd"
            )
        offset += len(raw) + 1
        counts.text_bytes += len(raw) + 1
        if "\0" in line:
            counts.nul_characters += line.count("\0")
            line = line.replace("\0", "")
        line = line.strip()
        if line:
            document.append(line)
        elif document and blank_line_separates:
            yield document
            document = []
    if document:
        yield document


def _is_text_name(path: Path) -> bool:
    name = path.name.lower()
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.endswith(TEXT_SUFFIXES) and not any(part.startswith(".") for part in path.parts)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Joins chunks and splits them at line feeds; a line may span any number of chunks."""
    pieces: list[bytes] = []
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        pieces.append(first)
        if rest:
            yield b"".join(pieces)
            yield from rest[:-1]
            pieces = [rest[-1]]
    last = b"".join(pieces)
    if last:
        yield last


def _chunks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of a file, in pieces."""
    openers: dict[str, Callable] = {".gz": gzip.open, ".xz": lzma.open}
    suffix = path.suffix.lower()
    try:
        if suffix == ".zst":
            yield from _zstd_chunks(path)
            return
        with openers.get(suffix, open)(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} is a damaged or cut-short archive ({error}): copy or download it again"
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"{path} cannot be read ({reason}): check the path and its rights"
        ) from None


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of a .zst file of any number of frames."""
    import zstandard

    # Not `stream_reader`, which takes a cut-short file for a complete one.
    decompressor = None
    try:
        with open(path, "rb") as file:
            while data := file.read(_CHUNK_BYTES):
                while data:
                    if decompressor is None:
                        decompressor = zstandard.ZstdDecompressor().decompressobj()
                    chunk = decompressor.decompress(data)
                    if chunk:
                        yield chunk
                    data = decompressor.unused_data if decompressor.eof else b""
                    if decompressor.eof:
                        decompressor = None
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if decompressor is not None:
        raise EOFError("it ends inside a frame")
