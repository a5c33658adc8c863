"""What a file holds once it is read: examples of three kinds, and what became of bad rows."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from electra_jax.errors import UserError

BAD_ROWS = ("refuse", "skip")
# Messages about rows that were skipped are kept for a person to read, so not for ever.
_MAX_MESSAGES = 20


class TextExample(NamedTuple):
    """A text or a pair of texts.

    Attributes:
      id: what the file calls it, or its number in the file, from 0.
      text: the text; never empty where the split has labels.
      text_b: the second of a pair, or None.
      label: a name of `labels` (classification), a number (regression), names (multilabel), or
        None where the file gives none.
    """

    id: str
    text: str
    text_b: str | None
    label: str | float | tuple[str, ...] | None


class QuestionExample(NamedTuple):
    """A question about a text.

    Attributes:
      id: the file's.
      question: the question.
      context: the text with the answer. Questions about one text share the object.
      answers: texts of all right answers; none if there is no answer, or none is known.
      span: [start, end) in characters of `context`, of the answer to learn; None where there is
        none, or it cannot be found.
      is_impossible: whether the text holds no answer.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    span: tuple[int, int] | None
    is_impossible: bool


class TaggedSentence(NamedTuple):
    """A sentence in words, each with a tag.

    Attributes:
      id: its number in the file, from 0.
      words: the words, none empty.
      tags: a tag for each word; None where the file gives none.
    """

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None


Example = TextExample | QuestionExample | TaggedSentence


@dataclasses.dataclass
class ReadingCounts:
    """What reading a file met.

    Attributes:
      bad_rows: rows (questions, sentences) that were left out.
      empty_texts: rows without labels whose text is empty: kept, as each needs a prediction.
      repaired_offsets: answers found close to where the file says, not there.
      unlocated_answers: questions to score whose first answer is not in the text near its
        offset: kept, since scoring asks for its words alone.
      messages: about the first rows left out, one line each.
    """

    bad_rows: int = 0
    empty_texts: int = 0
    repaired_offsets: int = 0
    unlocated_answers: int = 0
    messages: list[str] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """What a person should know, a line each; none if there is nothing to say."""
        said = (
            (self.bad_rows, "bad rows left out"),
            (self.empty_texts, "rows with an empty text, predicted all the same"),
            (self.repaired_offsets, "answers found close to their offset, not at it"),
            (self.unlocated_answers, "answers not near their offset: scored, without a loss"),
        )
        return [f"{count:,} {what}" for count, what in said if count]


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of a task's data.

    Attributes:
      name: train, dev, test, or what the task's table calls it.
      source: the file or data set it came from.
      examples: in the file's order.
      labelled: whether the examples have labels (answers, tags).
      counts: what reading met.
    """

    name: str
    source: str
    examples: list
    labelled: bool
    counts: ReadingCounts


class BadRow(Exception):
    """Why a row cannot be used, and the remedy."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class Reading:
    """The reading of one file: where the rule for bad rows is applied.

    Attributes:
      source: the file, for messages.
      counts: what was met so far.
    """

    def __init__(self, source: str, bad_rows: str = "refuse"):
        """Starts counting.

        Raises:
          UserError: if `bad_rows` is unknown.
        """
        if bad_rows not in BAD_ROWS:
            raise UserError(f"bad_rows={bad_rows!r} is unknown: use one of {', '.join(BAD_ROWS)}")
        self.source = source
        self.counts = ReadingCounts()
        self._bad_rows = bad_rows
        self._ids: set[str] = set()

    def settle(self, place: str, bad: BadRow) -> None:
        """Counts a bad row.

        Args:
          place: where in the file it is.
          bad: what is wrong with it.

        Raises:
          UserError: if bad rows are refused.
        """
        what = f"{self.source}, {place}: {bad.reason}"
        if self._bad_rows == "refuse":
            raise UserError(f"{what}: {bad.remedy}, or leave such rows out with bad_rows=skip")
        self.counts.bad_rows += 1
        if len(self.counts.messages) < _MAX_MESSAGES:
            self.counts.messages.append(what)

    def claim(self, identifier: str) -> None:
        """Notes the id of a row.

        Raises:
          BadRow: if another row has it.
        """
        if identifier in self._ids:
            raise BadRow(f"id {shown(identifier)} occurs twice", "give every row an id of its own")
        self._ids.add(identifier)


def shown(value: object, limit: int = 60) -> str:
    """A value from inside a file as a short piece of one line of a message."""
    text = repr(value)
    text = text if text.isprintable() else ascii(value)
    return text if len(text) <= limit else text[:limit] + "..."
