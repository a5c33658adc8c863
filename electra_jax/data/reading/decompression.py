"""The bytes of a file, decompressed, a piece at a time."""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from electra_jax.data import storage
from electra_jax.data.reading.units import Context, ReadingCounts
from electra_jax.errors import UserError

_INPUT_BYTES = 1 << 18
_OUTPUT_BYTES = 1 << 20


class Damaged(Exception):
    """An archive or a compressed file that is damaged or cut short.

    Readers inside one another may all meet the same damage: it is counted once.
    """

    def __init__(self, where: str, reason: str):
        super().__init__(reason)
        self.where = where
        self.reason = reason
        self.is_counted = False

    def settle(self, context: Context) -> None:
        """Counts the damage, or raises `UserError` if `bad_input` is "refuse"."""
        if context.options.bad_input == "refuse":
            raise UserError(
                f"{self.where} is a damaged or cut-short archive ({self.reason}): copy or download "
                "it again, or read what comes before the damage with --bad-input=skip"
            ) from None
        context.counts.damaged_files += not self.is_counted
        self.is_counted = True


def until_damage(chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
    """Chunks up to the first that cannot be had.

    Raises:
      UserError: for damage, if `bad_input` is "refuse".
    """
    try:
        yield from chunks
    except Damaged as damage:
        damage.settle(context)


def cannot_be_read(name: str, error: OSError) -> UserError:
    """What to tell the user when a file cannot be read at all."""
    reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
    return UserError(f"{name} cannot be read ({reason}): check the path and its rights")


def file_chunks(
    name: str, counts: ReadingCounts, start: int = 0, stop: int | None = None
) -> Generator[bytes, None, None]:
    """The bytes from `start` to `stop` of a file as it is on disk.

    Args:
      name: path or URL.
      counts: the bytes are added to its `source_bytes`.
      start: offset of the first byte.
      stop: offset after the last byte; None means at the end of the file.

    Raises:
      UserError: if the file cannot be read.
    """
    left = float("inf") if stop is None else stop - start
    try:
        with storage.open_read(name) as file:
            file.seek(start)
            while chunk := file.read(min(left, _INPUT_BYTES)):
                left -= len(chunk)
                counts.source_bytes += len(chunk)
                yield chunk
    except OSError as error:
        raise cannot_be_read(name, error) from None
    if stop is not None and left:
        raise UserError(
            f"{name} has become {left} bytes shorter since it was looked at: let it be while it is "
            "read, and run the same command again"
        )


def decompress(chunks: Iterable[bytes], compression: str, where: str) -> Iterator[bytes]:
    """The decompressed bytes of a .gz, .xz or .zst file of any number of members or frames.

    Args:
      chunks: the compressed bytes.
      compression: "gz", "xz" or "zst".
      where: the file's name, for messages.

    Yields:
      Pieces of about a megabyte, however well the file is compressed.

    Raises:
      Damaged: if the file is damaged or cut short; all that comes before has been yielded.
    """
    make, errors = _decompressors(compression)
    decompressor = None
    is_empty = True
    for data in chunks:
        while data or decompressor:
            if decompressor is None:
                if not is_empty and compression != "zst":
                    # Both formats may be padded with zeros between members and at the end.
                    data = data.lstrip(b"\0")
                if not data:
                    break
                decompressor, is_empty = make(), False
            try:
                output = decompressor.decompress(data, _OUTPUT_BYTES)
            except errors as error:
                raise Damaged(where, str(error) or "it asks for too much memory") from None
            if output:
                yield output
            if decompressor.eof:
                data, decompressor = decompressor.unused_data, None
            elif decompressor.needs_input:
                break
            else:
                data = b""
    if is_empty:
        raise Damaged(where, "it is empty")
    if decompressor is not None:
        raise Damaged(where, "it ends too early")


def _decompressors(compression: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """What makes a decompressor, with the interface of `lzma.LZMADecompressor`, and its errors."""
    if compression == "gz":
        return _GzipDecompressor, (zlib.error,)
    if compression == "xz":
        return (
            lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ),
            (lzma.LZMAError, MemoryError),
        )
    import zstandard

    # The default refuses what `zstd --long=31` writes, as many large collections were.
    context = zstandard.ZstdDecompressor(max_window_size=2**31)
    return lambda: _ZstdDecompressor(context), (zstandard.ZstdError, MemoryError)


class _GzipDecompressor:
    """One member of a .gz file; checks its length and checksum."""

    def __init__(self):
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


class _ZstdDecompressor:
    """One frame of a .zst file.

    Not zstandard's `stream_reader`, which takes a cut-short file for a complete one. Its
    `decompressobj` knows no `max_length`, so it is given little at a time: four bytes of input may
    stand for 128 KiB.
    """

    _STEP = 1 << 12

    def __init__(self, context: Any):
        self._inner = context.decompressobj()
        self._data = memoryview(b"")

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data:
            self._data = memoryview(data)
        pieces, length = [], 0
        while self._data and length < max_length and not self._inner.eof:
            piece = self._inner.decompress(self._data[: self._STEP])
            self._data = self._data[self._STEP :]
            pieces.append(piece)
            length += len(piece)
        return b"".join(pieces)

    @property
    def needs_input(self) -> bool:
        return not self._data

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data + self._data.tobytes()
