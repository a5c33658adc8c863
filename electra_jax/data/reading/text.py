"""Documents of UTF-8 text: a line is a paragraph, a blank line separates documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from electra_jax.data.reading.lines import cut_document, text_blocks, utf8_size
from electra_jax.data.reading.units import MAX_DOCUMENT_BYTES, Context


def text_documents(
    chunks: Iterable[bytes],
    context: Context,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[list[str]]:
    """The documents of a text file or of a range of one.

    Args:
      chunks: its bytes, decompressed.
      context: its name, how it is read, where the range begins.
      max_document_bytes: longer documents are stored as several, and longer lines are cut.

    Yields:
      A document: its lines, stripped, none empty, with NULs dropped. Documents have lines.

    Raises:
      UserError: for text that is not UTF-8, naming line and byte offset, if `encoding_errors` is
        "refuse".
    """
    counts = context.counts
    separates = not context.options.one_document_per_file
    document: list[str] = []
    size = 0  # An upper bound on the bytes of `document`.
    is_cut = False  # Whether pieces of it were yielded.

    def pieces() -> list[list[str]]:
        if size <= max_document_bytes:
            return [document]
        found = cut_document(document, max_document_bytes)
        counts.cut_documents += len(found) > 1 and not is_cut
        return found

    for block in text_blocks(chunks, context, max_document_bytes):
        counts.text_bytes += block.read_bytes
        size += block.max_bytes
        lines = block.text.split("\n")
        if not lines[-1]:
            del lines[-1]  # What follows the last line feed is no blank line.
        for line in map(str.strip, lines):
            if line:
                document.append(line)
            elif document and separates and block.is_whole:
                yield from pieces()
                document, size, is_cut = [], block.max_bytes, False
        if size > max_document_bytes:
            *full, document = pieces()
            yield from full
            size, is_cut = utf8_size(document), is_cut or bool(full)
    if document:
        yield from pieces()
