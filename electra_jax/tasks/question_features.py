"""From questions to rows of token ids: windows of the text, and where the answer is in them.

A row is [CLS] question [SEP] window [SEP]. Which characters of the text a token stands for is
what the tokenizer says when it encodes the whole text. (The original splits the text at white
space, encodes words one by one, and finds answers and the text of predictions again by joining
pieces and comparing; where that fails it falls back to whole words.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data.tokenization import Tokenizer
from electra_jax.data.tokenization.interface import id_dtype
from electra_jax.errors import UserError
from electra_jax.tasks.examples import QuestionExample
from electra_jax.tasks.features import (
    Features,
    check_max_length,
    encode_texts,
    joined,
)

NO_ANSWER_LABELS = ("window", "question")
# [CLS], [SEP] after the question, [SEP] after the window.
_SPECIAL_TOKENS = 3
_LEAST_WINDOW = 8


class Window(NamedTuple):
    """Tokens [first, first + length) of a text."""

    first: int
    length: int


@dataclasses.dataclass(frozen=True)
class QuestionFeatures(Features):
    """Rows of questions; those of one question follow each other.

    Attributes:
      windows: the window of each row, in tokens of its text.
      window_begin: int64 [rows], where in the row the window begins.
      offsets: int32 [tokens, 2] for each example: the characters [start, end) of its text that
        each token of it stands for. Questions about one text share the array.
    """

    windows: list[Window]
    window_begin: np.ndarray
    offsets: list[np.ndarray]


def question_features(
    examples: Sequence[QuestionExample],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    stride: int = 128,
    max_question_length: int = 64,
    no_answer_label: str = "window",
) -> QuestionFeatures:
    """Rows of questions with windows of their texts; defaults are the original's.

    Args:
      examples: the questions.
      tokenizer: gives ids and their characters.
      max_length: most tokens in a row, special ones included.
      stride: by how many tokens a window begins after the one before.
      max_question_length: a longer question loses tokens at its end.
      no_answer_label: what `is_impossible` means. "window": this window does not hold the answer,
        which is what the smallest `no_answer_logits` of a question's windows asks for. "question":
        the question has no answer, as in the original, where windows beside the answer count as
        answerable.

    Returns:
      `targets` has `start_positions` and `end_positions`, int32 [rows], the places in the row of
      the answer's first and last token, both 0 ([CLS]) where the window does not hold all of it;
      and `is_impossible`, float32 [rows] of 0 and 1. `counts` has `shortened_questions`,
      `windowed_texts` (with more than one window) and `answers_without_tokens` (whose characters
      the tokenizer drops).

    Raises:
      UserError: if a length is out of range, or leaves no room for a window.
    """
    check_max_length(max_length, 1 + _SPECIAL_TOKENS + _LEAST_WINDOW)
    for name, value in (("stride", stride), ("max_question_length", max_question_length)):
        if value < 1:
            raise UserError(f"{name}={value} must be positive")
    if max_question_length > max_length - _SPECIAL_TOKENS - _LEAST_WINDOW:
        raise UserError(
            f"max_question_length={max_question_length} leaves no room for the text in "
            f"max_length={max_length}: use {max_length - _SPECIAL_TOKENS - _LEAST_WINDOW} or less"
        )
    if no_answer_label not in NO_ANSWER_LABELS:
        raise UserError(
            f"no_answer_label={no_answer_label!r} is unknown: use one of "
            + ", ".join(NO_ANSWER_LABELS)
        )
    dtype, special = id_dtype(tokenizer.vocab_size), tokenizer.special_ids
    questions = encode_texts(tokenizer, [example.question for example in examples])
    contexts = {
        context: tokenizer.encode_with_offsets(context)
        for context in dict.fromkeys(example.context for example in examples)
    }
    counts = dict.fromkeys(("shortened_questions", "windowed_texts", "answers_without_tokens"), 0)
    rows, windows, begins, numbers, spans, impossible = [], [], [], [], [], []
    for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
        counts["shortened_questions"] += len(question) > max_question_length
        question = question[:max_question_length]
        ids, offsets = contexts[example.context]
        answer = None if example.span is None else answer_tokens(offsets, example.span)
        counts["answers_without_tokens"] += example.span is not None and answer is None
        capacity = max_length - len(question) - _SPECIAL_TOKENS
        cut = cut_windows(len(ids), capacity, stride)
        counts["windowed_texts"] += len(cut) > 1
        begin = len(question) + 2
        for window in cut:
            piece = ids[window.first : window.first + window.length]
            rows.append(joined(dtype, special, question, piece))
            windows.append(window)
            begins.append(begin)
            numbers.append(number)
            span = _span_in_row(answer, window, begin)
            spans.append(span)
            absent = span == (0, 0) if no_answer_label == "window" else example.is_impossible
            impossible.append(absent)
    starts, ends = np.array(spans, np.int32).reshape(-1, 2).T.copy()
    targets = {
        "start_positions": starts,
        "end_positions": ends,
        "is_impossible": np.array(impossible, np.float32),
    }
    return QuestionFeatures(
        rows,
        targets,
        {},
        np.array(numbers, np.int64),
        special,
        max_length,
        counts,
        windows,
        np.array(begins, np.int64),
        [contexts[example.context][1] for example in examples],
    )


def cut_windows(num_tokens: int, capacity: int, stride: int) -> list[Window]:
    """The windows of a text; the last one ends at its end.

    Args:
      num_tokens: of the text; a text of none has one empty window.
      capacity: most tokens in a window.
      stride: each window begins so many tokens after the one before, or where that one ends.
    """
    windows = []
    first = 0
    while True:
        window = Window(first, min(num_tokens - first, capacity))
        windows.append(window)
        if first + window.length >= num_tokens:
            return windows
        first += min(window.length, stride)


def max_context(windows: Sequence[Window]) -> list[np.ndarray]:
    """Where each window is the one that sees most around a token; every token has one such.

    min(tokens before it, tokens after it) + 0.01 * (the window's length), ties to the earlier
    window: the rule of BERT's run_squad.py, and the original's.

    Args:
      windows: all of a text.

    Returns:
      bool [length] for each window.
    """
    num_tokens = max(window.first + window.length for window in windows)
    best_score, best = np.full(num_tokens, -np.inf), np.zeros(num_tokens, np.int64)
    for i, window in enumerate(windows):
        part = slice(window.first, window.first + window.length)
        before = np.arange(window.length)
        score = np.minimum(before, before[::-1]) + 0.01 * window.length
        is_better = score > best_score[part]
        best[part][is_better] = i
        best_score[part][is_better] = score[is_better]
    return [
        best[window.first : window.first + window.length] == i for i, window in enumerate(windows)
    ]


def answer_tokens(offsets: np.ndarray, span: tuple[int, int]) -> tuple[int, int] | None:
    """The first and the last token that stand for any of a text's characters [start, end).

    Args:
      offsets: int [tokens, 2], as in `QuestionFeatures`.
      span: the characters.

    Returns:
      (first, last), or None if no token stands for any of them.
    """
    first = int(np.searchsorted(offsets[:, 1], span[0], "right"))
    last = int(np.searchsorted(offsets[:, 0], span[1], "left")) - 1
    return (first, last) if first <= last else None


def _span_in_row(answer: tuple[int, int] | None, window: Window, begin: int) -> tuple[int, int]:
    if answer is None or answer[0] < window.first or answer[1] >= window.first + window.length:
        return 0, 0
    shift = begin - window.first
    return answer[0] + shift, answer[1] + shift
