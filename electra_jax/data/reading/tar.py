"""Members of a tar archive as they stream by: nothing is extracted to disk.

Not `tarfile`'s own stream reader: it takes a damaged header for the end of the archive, reads a
header of any length into memory, and keeps a list of all members.
"""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

from electra_jax.data.reading.decompression import Damaged

_BLOCK = 512
_MAGIC = slice(257, 262)
# Of extended headers, which hold long names.
_MAX_HEADER_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18
_NAME_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX_HEADERS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
      name: as in the archive; it is never used as a path.
      is_file: whether it is a regular file, its content as it stands in the archive.
      is_directory: whether it is a directory.
      content: its bytes; what is not read of them is skipped.
    """

    name: str
    is_file: bool
    is_directory: bool
    content: Iterable[bytes]


def begins_like_tar(chunks: Iterable[bytes]) -> tuple[bool, Iterator[bytes]]:
    """Whether bytes are a tar archive, by its magic number; and all the bytes."""
    chunks = iter(chunks)
    start = b""
    try:
        while len(start) < _MAGIC.stop and (chunk := next(chunks, None)) is not None:
            start += chunk
    except Damaged as damage:
        chunks = _raise(damage)
    return start[_MAGIC] == b"ustar", itertools.chain((start,), chunks)


def tar_members(chunks: Iterable[bytes], where: str) -> Iterator[Member]:
    """The members of a tar archive, in order; archives after its end are read too.

    Args:
      chunks: its bytes.
      where: its name, for messages.

    Raises:
      Damaged: if it is damaged or cut short; all that comes before has been yielded. Without the
        zeros that mark its end it may have been cut.
    """
    reader = _Reader(chunks, where)
    name, pax, is_ended = None, {}, False
    while block := reader.read(_BLOCK):
        if not block.strip(b"\0"):
            is_ended = True
            continue
        header = _header(block, reader)
        is_ended = False
        if header.type in _NAME_HEADERS:
            content = reader.read_header(header.size)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = content.partition(b"\0")[0].decode(errors="replace")
            continue
        if header.type in _PAX_HEADERS:
            content = reader.read_header(header.size)
            if header.type != tarfile.XGLTYPE:
                pax = _pax_records(content, reader)
            continue
        is_sparse = header.type == tarfile.GNUTYPE_SPARSE or any(
            key.startswith("GNU.sparse.") for key in pax
        )
        if header.type == tarfile.GNUTYPE_SPARSE:
            reader.skip_sparse_map(block)
        content = _Content(reader, _stored_bytes(header, pax, reader))
        is_file = header.isreg() and not is_sparse
        yield Member(pax.get("path", name or header.name), is_file, header.isdir(), content)
        content.skip()
        name, pax = None, {}
    if not is_ended:
        reader.fail("it ends without the mark of its end")


class _Reader:
    """Reads any number of bytes from chunks. After damage, every read raises the same `Damaged`."""

    def __init__(self, chunks: Iterable[bytes], where: str):
        self._chunks = iter(chunks)
        self._where = where
        self._rest = memoryview(b"")
        self._damage: Damaged | None = None

    def read(self, count: int) -> bytes:
        """The next bytes; fewer than `count` at the end alone."""
        pieces = []
        while count and self._has_more():
            piece = self._rest[:count]
            self._rest = self._rest[count:]
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def read_header(self, size: int) -> bytes:
        """The content of an extended header."""
        if not 0 <= size <= _MAX_HEADER_BYTES:
            self.fail(f"it has a header of {size} bytes")
        content = self.read(size + -size % _BLOCK)
        if len(content) < size:
            self.fail("it ends inside a header")
        return content[:size]

    def skip_sparse_map(self, block: bytes) -> None:
        """Skips the blocks between the header of a GNU sparse file and its content."""
        is_continued = block[482]
        while is_continued:
            block = self.read(_BLOCK)
            if len(block) < _BLOCK:
                self.fail("it ends inside a header")
            is_continued = block[504]

    def fail(self, reason: str) -> NoReturn:
        self._rest = memoryview(b"")
        self._damage = Damaged(self._where, reason)
        raise self._damage

    def _has_more(self) -> bool:
        while not self._rest:
            if self._damage:
                raise self._damage
            try:
                chunk = next(self._chunks, None)
            except Damaged as damage:
                self._damage = damage
                raise
            if chunk is None:
                return False
            self._rest = memoryview(chunk)
        return True


class _Content:
    """The content of a member, and the zeros behind it."""

    def __init__(self, reader: _Reader, size: int):
        self._reader = reader
        self._left = size
        self._padding = -size % _BLOCK

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            piece = self._reader.read(min(self._left, _PIECE_BYTES))
            if not piece:
                self._reader.fail("it ends inside a member")
            self._left -= len(piece)
            yield piece

    def skip(self) -> None:
        for _ in self:
            pass
        if len(self._reader.read(self._padding)) < self._padding:
            self._reader.fail("it ends inside a member")


def _header(block: bytes, reader: _Reader) -> tarfile.TarInfo:
    if len(block) < _BLOCK:
        reader.fail("it ends inside a header")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        reader.fail(str(error))


def _stored_bytes(header: tarfile.TarInfo, pax: dict[str, str], reader: _Reader) -> int:
    """How many bytes of content follow a header."""
    if not header.isreg() and header.type in tarfile.SUPPORTED_TYPES:
        return 0  # Some give links a size.
    size = pax.get("size", header.size)
    try:
        size = int(size)
    except ValueError:
        size = -1
    if size < 0:
        reader.fail("it has a member of no possible size")
    return size


def _pax_records(content: bytes, reader: _Reader) -> dict[str, str]:
    """The records of a pax header, each `length key=value` and a line feed."""
    records = {}
    while content.strip(b"\0"):
        length, _, _ = content.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 10 else 0
        key, is_record, value = content[len(length) + 1 : end].partition(b"=")
        if not is_record or not value.endswith(b"\n"):
            reader.fail("it has a bad extended header")
        records[key.decode(errors="replace")] = value[:-1].decode(errors="replace")
        content = content[end:]
    return records


def _raise(damage: Damaged) -> Iterator[bytes]:
    raise damage
    yield
