"""What the tests of `data.reading` share: writing files, and reading them back."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard

from electra_jax.data.reading import (
    ReadingCounts,
    ReadingOptions,
    Unit,
    plan_units,
    read_documents,
)
from electra_jax.errors import UserError

LENIENT = ReadingOptions(bad_input="skip", encoding_errors="replace")
COMPRESS = {
    "": lambda content: content,
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


def compress(content: bytes, name: str) -> bytes:
    """As the ending of the name says."""
    ending = name.rpartition(".")[2]
    return COMPRESS[ending if ending in COMPRESS else ""](content)


def write(path: Path, content: bytes) -> Path:
    """Writes a file, compressed as its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(content, path.name))
    return path


def tar(members: dict[str, bytes], **kwargs) -> bytes:
    """A tar archive of files, compressed as their endings say."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **kwargs) as archive:
        for name, content in members.items():
            content = compress(content, name)
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def read(
    *inputs: Path | str,
    counts: ReadingCounts | None = None,
    unit_bytes: int = 2**25,
    **options,
) -> list[list[str]]:
    """All documents of inputs. Checks what holds for all: nothing empty, and the progress."""
    options = ReadingOptions(**options)
    counts = ReadingCounts() if counts is None else counts
    found = []
    for unit in plan_units([str(item) for item in inputs], options, unit_bytes).units:
        before = counts.source_bytes
        documents = list(read_documents(unit, options, counts))
        if options.bad_input == "refuse":
            assert counts.source_bytes - before == unit.size
        for document in documents:
            assert document
            assert all(line and line == line.strip() and "\0" not in line for line in document)
        found += documents
    return found


def read_file(path: Path | str, form: str = "text", counts=None, **options) -> list[list[str]]:
    """The documents of one file read as one unit."""
    return list(read_documents(Unit(form, str(path)), ReadingOptions(**options), counts))


def message(*args, **kwargs) -> str:
    """The one line that `read` is refused with."""
    with pytest.raises(UserError) as error:
        read(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)
