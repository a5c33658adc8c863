"""Documents of tar archives and of compressed files, one inside the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from electra_jax.data.reading.decompression import Damaged, decompress, until_damage
from electra_jax.data.reading.jsonl import jsonl_documents
from electra_jax.data.reading.names import NameParts, is_hidden, printable, split_name
from electra_jax.data.reading.tar import begins_like_tar, tar_members
from electra_jax.data.reading.text import text_documents
from electra_jax.data.reading.units import Context
from electra_jax.errors import UserError

# OpenWebText is tars of text, compressed, in a tar.
MAX_DEPTH = 4

_READERS: dict[str, Callable[[Iterable[bytes], Context], Iterator[list[str]]]] = {
    "text": text_documents,
    "jsonl": jsonl_documents,
}


def file_documents(
    chunks: Iterable[bytes], parts: NameParts, context: Context, depth: int = 0
) -> Iterator[list[str]]:
    """The documents of a file, be it text or JSON lines, compressed or not, or an archive of these.

    Args:
      chunks: its bytes.
      parts: what its name says; what is compressed is looked into, and may be an archive.
      context: its name, how it is read, where a range of it begins.
      depth: how many archives it is in.

    Raises:
      UserError: as `text_documents` and `jsonl_documents` do; for damage, or for archives in
        archives more than `MAX_DEPTH` deep, if `bad_input` is "refuse".
    """
    form = parts.format or "text"
    if parts.compression:
        chunks = decompress(chunks, parts.compression, context.where)
        is_archive, chunks = begins_like_tar(chunks)
        form = "archive" if is_archive else form
    if form == "archive":
        yield from _archive_documents(chunks, context, depth + 1)
        return
    is_empty = not context.is_part
    for document in _READERS[form](until_damage(chunks, context), context):
        is_empty = False
        yield document
    context.counts.empty_files += is_empty


def _archive_documents(
    chunks: Iterable[bytes], context: Context, depth: int
) -> Iterator[list[str]]:
    if depth > MAX_DEPTH:
        if context.options.bad_input == "refuse":
            raise UserError(
                f"{context.where} is an archive inside {MAX_DEPTH} others, which is too deep: "
                "unpack some of them, or leave it out with --bad-input=skip"
            )
        context.counts.damaged_files += 1
        return
    try:
        for member in tar_members(chunks, context.where):
            if member.is_directory:
                continue
            parts = split_name(member.name)
            is_readable = parts.is_known and parts.format != "parquet"
            if not member.is_file or not is_readable or is_hidden(member.name):
                context.counts.skipped_members += 1
                continue
            inner = context._replace(where=f"{context.where}, member {printable(member.name)}")
            yield from file_documents(member.content, parts, inner, depth)
    except Damaged as damage:
        damage.settle(context)
