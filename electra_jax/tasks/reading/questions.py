"""Questions about texts: SQuAD's JSON and MRQA's JSON lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.errors import UserError
from electra_jax.tasks.examples import BadRow, QuestionExample, Reading, shown
from electra_jax.tasks.reading.rows import check_text, jsonl_rows, parse_json, read_text

# An offset in bytes or UTF-16 units is off by as many as there are accents and the like before it:
# tens, in a paragraph. What is farther away is more likely another mention than the one meant.
MAX_REPAIR = 64
_SPACE = re.compile(r"\s+")


class Purpose(NamedTuple):
    """What questions are read for.

    Attributes:
      training: whether each needs the place of its answer; then one that has none is bad.
      labelled: whether they have answers; if not, what the file says of them is not looked at.
      has_unanswerable: whether a question may have none, as in SQuAD 2.0.
    """

    training: bool = False
    labelled: bool = True
    has_unanswerable: bool = False


def read_squad(path: Path, purpose: Purpose, reading: Reading) -> list[QuestionExample]:
    """The questions of a file in the JSON of SQuAD 1.1 or 2.0.

    An answer is looked for at its offset and, if it is not there, up to `MAX_REPAIR` characters
    away; the nearest place is taken, and counted. (The original looks at white-space words, and
    leaves out, and only logs, what it cannot find.) The first answer is the one to learn, as in
    the original.

    Args:
      path: the file.
      purpose: what for.
      reading: bad questions are settled with it.

    Raises:
      UserError: if the file cannot be read, or is not of this format; as `reading` says.
    """
    document = _squad_document(path)
    examples = []
    for a, article in enumerate(document):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            raise _not_squad(path, f"data[{a}] has no list of paragraphs")
        for p, paragraph in enumerate(paragraphs):
            place = f"data[{a}].paragraphs[{p}]"
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
                raise _not_squad(path, f"{place} has no list qas")
            examples += _questions(paragraph, place, "id", purpose, reading, _squad_answers)
    return examples


def read_mrqa(path: Path, purpose: Purpose, reading: Reading) -> list[QuestionExample]:
    """The questions of a file of MRQA's JSON lines, perhaps with .gz.

    The place to learn is the first span of the first detected answer, as in the original. Its text
    there may differ from the answer's in case and white space.

    Arguments, raises: as `read_squad`.
    """
    examples = []
    for line, row in jsonl_rows(path, reading):
        if "header" in row:
            continue
        if not isinstance(row.get("qas"), list):
            bad = BadRow("no list qas", "write one paragraph with context and qas a line")
            reading.settle(f"line {line}", bad)
            continue
        examples += _questions(row, f"line {line}", "qid", purpose, reading, _mrqa_answers)
    return examples


def locate(context: str, text: str, start: int) -> tuple[int, int] | None:
    """Where a text lies nearest to an offset, at most `MAX_REPAIR` away: [start, end), or None."""
    before = context.rfind(text, max(0, start - MAX_REPAIR), max(0, start + len(text)))
    after = context.find(text, max(0, start), max(0, start + MAX_REPAIR + len(text)))
    places = [place for place in (before, after) if place >= 0]
    if not text or not places:
        return None
    place = min(places, key=lambda place: (abs(place - start), place))
    return place, place + len(text)


class _Answers(NamedTuple):
    """All right answers, and the one to learn: its text, and [start, end) as the file says."""

    texts: tuple[str, ...]
    text: str | None
    start: int
    end: int


def _squad_document(path: Path) -> list:
    try:
        document = parse_json(check_text(read_text(path)))
    except BadRow as bad:
        raise UserError(f"{path}: {bad.reason}: {bad.remedy}") from None
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise _not_squad(path, "it has no list data")
    return document["data"]


def _not_squad(path: Path, what: str) -> UserError:
    return UserError(f"{path} is not of SQuAD's format: {what}: correct it")


def _questions(
    paragraph: Mapping[str, Any],
    place: str,
    id_field: str,
    purpose: Purpose,
    reading: Reading,
    answers_of: Any,
) -> Iterator[QuestionExample]:
    context = paragraph.get("context")
    for q, question in enumerate(paragraph["qas"]):
        identifier = question.get(id_field) if isinstance(question, dict) else None
        try:
            if not isinstance(identifier, str) or not identifier:
                raise BadRow(f"no {id_field}", "give every question an id, a string")
            example = _example(
                identifier, _string(context, "context"), question, purpose, reading, answers_of
            )
            reading.claim(identifier)
        except BadRow as bad:
            name = f" ({id_field} {shown(identifier)})" if isinstance(identifier, str) else ""
            reading.settle(f"{place}.qas[{q}]{name}", bad)
            continue
        yield example


def _example(
    identifier: str,
    context: str,
    question: Mapping[str, Any],
    purpose: Purpose,
    reading: Reading,
    answers_of: Any,
) -> QuestionExample:
    words = _string(question.get("question"), "question")
    check_text(identifier)
    if not purpose.labelled:
        return QuestionExample(identifier, words, context, (), None, False)
    is_impossible = question.get("is_impossible", False)
    if not isinstance(is_impossible, bool):
        raise BadRow(f"is_impossible is {shown(is_impossible)}", "write true or false")
    answers = answers_of(question, purpose.training)
    if is_impossible and not purpose.has_unanswerable:
        raise BadRow("it has no answer", "use task squadv2 for questions without answers")
    if is_impossible and answers.texts:
        raise BadRow("it is impossible, and has answers", "take out is_impossible or the answers")
    if not is_impossible and not answers.texts:
        raise BadRow("it has no answers", "give it one, or is_impossible with task squadv2")
    if is_impossible:
        return QuestionExample(identifier, words, context, (), None, True)
    span, repaired = _place(context, answers)
    if span is None and purpose.training:
        wanted = "an answer" if answers.text is None else f"the answer {shown(answers.text)}"
        raise BadRow(
            f"the text does not have {wanted} within {MAX_REPAIR} characters of {answers.start}",
            "correct the answer or its offset",
        )
    reading.counts.repaired_offsets += repaired
    reading.counts.unlocated_answers += span is None
    return QuestionExample(identifier, words, context, answers.texts, span, False)


def _place(context: str, answers: _Answers) -> tuple[tuple[int, int] | None, bool]:
    """Where the answer to learn is, and whether that is not where the file says."""
    if answers.text is None:
        return None, False
    start, end = answers.start, answers.end
    if 0 <= start < end <= len(context) and _same(context[start:end], answers.text):
        return (start, end), False
    span = locate(context, answers.text, start)
    return span, span is not None


def _same(one: str, two: str) -> bool:
    return one == two or _SPACE.sub(" ", one).casefold() == _SPACE.sub(" ", two).casefold()


def _string(value: Any, name: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name} is {shown(value)}, not a string", "write a string")
    if not may_be_empty and not value.strip():
        raise BadRow(f"{name} is empty", "give it a text")
    return check_text(value)


def _squad_answers(question: Mapping[str, Any], training: bool) -> _Answers:
    answers = question.get("answers", [])
    if not isinstance(answers, list) or not all(isinstance(item, dict) for item in answers):
        raise BadRow("answers is no list of objects", "write a list of text and answer_start")
    # The official scripts say what an empty answer is worth.
    texts = tuple(_string(answer.get("text"), "an answer", not training) for answer in answers)
    if not texts:
        return _Answers((), None, 0, 0)
    start = answers[0].get("answer_start")
    if not isinstance(start, int) or isinstance(start, bool):
        if training:
            raise BadRow(f"answer_start is {shown(start)}", "write the answer's offset")
        return _Answers(texts, None, 0, 0)
    return _Answers(texts, texts[0], start, start + len(texts[0]))


def _mrqa_answers(question: Mapping[str, Any], training: bool) -> _Answers:
    answers = question.get("answers", [])
    if not isinstance(answers, list):
        raise BadRow("answers is no list", "write a list of strings")
    texts = tuple(_string(answer, "an answer", may_be_empty=True) for answer in answers)
    try:
        detected = question["detected_answers"][0]
        text = _string(detected["text"], "a detected answer")
        start, last = detected["char_spans"][0]
        if not isinstance(start, int) or not isinstance(last, int):
            raise TypeError
    except (KeyError, IndexError, TypeError, ValueError):
        if training and not question.get("is_impossible"):
            remedy = "give it text and char_spans"
            raise BadRow("no detected answer with a span", remedy) from None
        return _Answers(texts, None, 0, 0)
    return _Answers(texts or (text,), text, start, last + 1)
