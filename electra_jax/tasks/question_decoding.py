"""From a model's numbers for windows to answers, with alternatives and the odds of none."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.tasks.decoding import softmax
from electra_jax.tasks.examples import QuestionExample
from electra_jax.tasks.question_features import QuestionFeatures, Window, max_context

# Spans of a window that are looked at, times `n_best`: some have the same text.
_SPARE = 4


class Answer(NamedTuple):
    """A candidate.

    Attributes:
      text: as it stands in the context; "" for the last resort where there is no candidate.
      start, end: its characters [start, end) there.
      score: start_score + end_score.
      start_score, end_score: logits or log-probabilities of the two ends.
      probability: of all candidates of the question, by their scores.
    """

    text: str
    start: int
    end: int
    score: float
    start_score: float
    end_score: float
    probability: float


class QuestionPrediction(NamedTuple):
    """What is predicted for a question.

    Attributes:
      id: the question's.
      answers: different texts, best first, at least one.
      null_odds: how much speaks for "no answer": large for none.
    """

    id: str
    answers: list[Answer]
    null_odds: float


class _Span(NamedTuple):
    """Tokens of a text, from `first` to `last`."""

    score: float
    start_score: float
    end_score: float
    first: int
    last: int


def decode_answers(
    outputs: Sequence[Mapping[str, np.ndarray]],
    examples: Sequence[QuestionExample],
    features: QuestionFeatures,
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[QuestionPrediction]:
    """The best answers to every question; defaults are the original's.

    A span counts if both ends are in the window, its start is where the window sees most around
    (`max_context`), and it is not longer than `max_answer_length` tokens. Texts come from the
    context itself, by the tokens' characters.

    null_odds is the smallest `no_answer_logits` of the question's windows where there are such;
    otherwise the smallest score of [CLS] as start and end, less the best answer's score.

    Args:
      outputs: for each row of the features, of a joint head `starts` and `start_log_probs` [K],
        `ends` and `end_log_probs` [K, K], and `null_log_probs` [] (`FineTuned.predict_spans`); or,
        of the plain head, `start_logits` and `end_logits` [L], whose best spans are found among
        all. In both cases perhaps `no_answer_logits` [].
      examples: the questions.
      features: their rows.
      n_best: most answers to a question.
      max_answer_length: most tokens in an answer.

    Returns:
      A prediction for each example, in order. Where no span counts, the only answer is "" with
      score 0 (the original's is the word "empty").
    """
    rows_of: list[list[int]] = [[] for _ in examples]
    for row, number in enumerate(features.example.tolist()):
        rows_of[number].append(row)
    return [
        _predict(
            example,
            [outputs[row] for row in rows],
            [features.windows[row] for row in rows],
            [int(features.window_begin[row]) for row in rows],
            offsets,
            n_best,
            max_answer_length,
        )
        for example, rows, offsets in zip(examples, rows_of, features.offsets, strict=True)
    ]


def _predict(
    example: QuestionExample,
    outputs: Sequence[Mapping[str, np.ndarray]],
    windows: Sequence[Window],
    begins: Sequence[int],
    offsets: np.ndarray,
    n_best: int,
    max_answer_length: int,
) -> QuestionPrediction:
    spans: list[_Span] = []
    for output, window, begin, allowed in zip(
        outputs, windows, begins, max_context(windows), strict=True
    ):
        if "starts" in output:
            found = _beam_spans(output, begin, allowed, max_answer_length)
        else:
            found = _best_spans(output, begin, allowed, max_answer_length, _SPARE * n_best)
        spans += [
            _Span(*scores, first + window.first, last + window.first)
            for scores, first, last in found
        ]
    spans.sort(key=lambda span: (-span.score, span.first, span.last))
    answers = _distinct(spans, example.context, offsets, n_best)
    return QuestionPrediction(example.id, answers, _null_odds(outputs, answers[0].score))


def _beam_spans(output, begin, allowed, max_answer_length):
    """Yields ((score, start score, end score), first, last), tokens counted from the window's."""
    starts, ends = np.asarray(output["starts"]), np.asarray(output["ends"])  # [K], [K, K]
    first = starts[:, None] - begin
    last = ends - begin
    inside = (first >= 0) & (first < len(allowed)) & (last < len(allowed))
    good = inside & (last >= first) & (last - first < max_answer_length)
    good[inside] &= allowed[np.broadcast_to(first, last.shape)[inside]]
    start_scores = np.asarray(output["start_log_probs"], np.float64)
    end_scores = np.asarray(output["end_log_probs"], np.float64)
    for i, j in zip(*np.nonzero(good), strict=True):
        start, end = float(start_scores[i]), float(end_scores[i, j])
        yield (start + end, start, end), int(first[i, 0]), int(last[i, j])


def _best_spans(output, begin, allowed, max_answer_length, count):
    """As `_beam_spans`: the `count` best of all spans of a window, by two independent logits."""
    length = len(allowed)
    start_scores = np.asarray(output["start_logits"], np.float64)[begin : begin + length]
    end_scores = np.asarray(output["end_logits"], np.float64)[begin : begin + length]
    first = np.flatnonzero(allowed)
    if not len(first):
        return
    width = min(max_answer_length, length)
    padded = np.concatenate([end_scores, np.full(width, -np.inf)])
    last = first[:, None] + np.arange(width)
    scores = start_scores[first][:, None] + padded[last]
    count = min(count, scores.size)
    for k in np.argpartition(scores, scores.size - count, axis=None)[-count:].tolist():
        i, j = divmod(k, width)
        if last[i, j] < length:
            start, end = float(start_scores[first[i]]), float(end_scores[last[i, j]])
            yield (start + end, start, end), int(first[i]), int(last[i, j])


def _distinct(
    spans: Sequence[_Span], context: str, offsets: np.ndarray, n_best: int
) -> list[Answer]:
    """The best spans with different texts."""
    answers: list[Answer] = []
    texts: set[str] = set()
    for span in spans:
        if len(answers) == n_best:
            break
        start, end = int(offsets[span.first, 0]), int(offsets[span.last, 1])
        # Accents that stand alone and that the tokenizer drops belong to what they stand on.
        while end < len(context) and unicodedata.combining(context[end]):
            end += 1
        text = context[start:end].strip()
        if not text or text in texts:
            continue
        texts.add(text)
        start = context.index(text, start)
        scores = (span.score, span.start_score, span.end_score)
        answers.append(Answer(text, start, start + len(text), *scores, 0.0))
    if not answers:
        return [Answer("", 0, 0, 0.0, 0.0, 0.0, 1.0)]
    probabilities = softmax(np.array([answer.score for answer in answers])).tolist()
    return [
        answer._replace(probability=probability)
        for answer, probability in zip(answers, probabilities, strict=True)
    ]


def _null_odds(outputs: Sequence[Mapping[str, np.ndarray]], best_score: float) -> float:
    if "no_answer_logits" in outputs[0]:
        return min(float(output["no_answer_logits"]) for output in outputs)
    if "null_log_probs" in outputs[0]:
        return min(float(output["null_log_probs"]) for output in outputs) - best_score
    null_scores = [
        float(output["start_logits"][0]) + float(output["end_logits"][0]) for output in outputs
    ]
    return min(null_scores) - best_score
