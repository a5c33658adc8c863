"""Sentences with a tag a word: CoNLL's columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from electra_jax.errors import UserError
from electra_jax.tasks.examples import BadRow, Reading, TaggedSentence, shown
from electra_jax.tasks.reading.rows import check_text, read_text, text_lines

_DOCUMENT_START = "-DOCSTART-"
# Not str.split(): a no-break space, say, is part of a word.
_COLUMNS = re.compile(r"[^ \t\r\f\v]+")
_TAG = re.compile(r"O|[BIES]-.+")


def read_conll(
    path: Path, reading: Reading, *, labelled: bool = True, tags_known: Sequence[str] = ()
) -> list[TaggedSentence]:
    """The sentences of a file with a word a line and a blank line between sentences.

    The first column is the word and the last one its tag; what lies between is not looked at. The
    last sentence counts whether or not a blank line follows it (the original loses it otherwise).
    Lines that begin with -DOCSTART- are no words.

    Args:
      path: the file.
      reading: sentences with a bad line are settled with it.
      labelled: whether there are tags; otherwise the columns after the word are not looked at.
      tags_known: what a tag may be; () means any.

    Raises:
      UserError: if the file cannot be read; as `reading` says.
    """
    sentences: list[TaggedSentence] = []
    words: list[str] = []
    tags: list[str] = []
    width = 0
    is_bad = False

    def flush() -> None:
        nonlocal is_bad
        if words and not is_bad:
            number = str(len(sentences) + reading.counts.bad_rows)
            given = tuple(tags) if labelled else None
            sentences.append(TaggedSentence(number, tuple(words), given))
        words.clear()
        tags.clear()
        is_bad = False

    for line_number, line in enumerate(read_text(path).split("\n"), start=1):
        columns = _COLUMNS.findall(line)
        if not columns or columns[0] == _DOCUMENT_START:
            flush()
            continue
        width = width or len(columns)
        if is_bad:
            continue
        words.append(columns[0])
        tags.append(columns[-1])
        try:
            _check(columns, width, labelled, tags_known)
        except BadRow as bad:
            reading.settle(f"line {line_number}", bad)
            is_bad = True
    flush()
    return sentences


def read_sentences(path: Path, reading: Reading) -> list[TaggedSentence]:
    """The sentences of a text file with one a line, words apart by white space, without tags.

    Blank lines have no words to tag and are left out; each sentence's id is the number of its line,
    from 0.

    Args:
      path: the file.
      reading: lines that are no text are settled with it.

    Raises:
      UserError: if the file cannot be read, or has a word a line; as `reading` says.
    """
    rows = [_COLUMNS.findall(line) for line in text_lines(path)]
    filled = [row for row in rows if row]
    as_columns = {len(row) for row in filled} == {1} and len(filled) > 1
    if not as_columns and len(filled) > 1 and len({len(row) for row in filled}) == 1:
        as_columns = all(len(row) > 1 and _TAG.fullmatch(row[-1]) for row in filled)
    if as_columns:
        raise UserError(
            f"{path} has a word a line, and a .txt is read as a sentence a line: call it .conll"
        )
    sentences = []
    for number, words in enumerate(rows):
        try:
            for word in words:
                check_text(word)
        except BadRow as bad:
            reading.settle(f"line {number + 1}", bad)
            continue
        if words:
            sentences.append(TaggedSentence(str(number), tuple(words), None))
    return sentences


def _check(columns: list[str], width: int, labelled: bool, tags_known: Sequence[str]) -> None:
    check_text(columns[0])
    if not labelled:
        return
    if len(columns) != width or len(columns) < 2:
        wanted = f"{width}, as on the first line" if width > 1 else "a word and its tag"
        raise BadRow(f"{len(columns)} columns instead of {wanted}", "correct the line")
    tag = check_text(columns[-1])
    if not _TAG.fullmatch(tag):
        raise BadRow(f"tag {shown(tag)} is neither O nor B-, I-, E- or S- and a type", "correct it")
    if tags_known and tag not in tags_known:
        raise BadRow(f"tag {shown(tag)} is unknown", f"use one of {', '.join(tags_known)}")
