"""What a model gets wrong, as data for tables and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.tasks.decoding import TagPredictions
from electra_jax.tasks.examples import QuestionExample, TaggedSentence
from electra_jax.tasks.question_decoding import QuestionPrediction
from electra_jax.tasks.squad_metrics import exact_match, f1_v1, f1_v2
from electra_jax.tasks.tags import Span, spans_of


def confusion_matrix(
    gold: Sequence[str], predicted: Sequence[str], names: Sequence[str]
) -> np.ndarray:
    """How often label i was taken for label j: int64 [labels, labels], element (i, j).

    Args:
      gold, predicted: labels [examples].
      names: the labels in order of their indices.
    """
    index = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, ([index[name] for name in gold], [index[name] for name in predicted]), 1)
    return counts


def span_errors(
    sentences: Sequence[TaggedSentence], predictions: TagPredictions
) -> list[dict[str, Any]]:
    """Every gold span that was not found, and every predicted one that is not there.

    Returns:
      Dicts with `id` of the sentence; `error`: "type" (the words are right), "boundary" (words in
      common, and the type is right), "both" (words in common), "missed" or "spurious" (none);
      `gold` and `predicted`: {"type", "start", "end", "text"}, or None. Each wrong span is in one
      of them; a gold one is set beside the wrong predicted one with which it shares most words.
    """
    errors = []
    for sentence, tags in zip(sentences, predictions.tags, strict=True):
        gold, predicted = spans_of(sentence.tags), spans_of(tags)
        wrong = [span for span in predicted if span not in gold]
        for span in gold:
            if span in predicted:
                continue
            partner = max(wrong, key=lambda other: _shared(span, other), default=None)
            if partner is None or not _shared(span, partner):
                errors.append(_span_error("missed", sentence, span, None))
                continue
            wrong.remove(partner)
            kind = "both" if span.type != partner.type else "boundary"
            kind = "type" if span[1:] == partner[1:] else kind
            errors.append(_span_error(kind, sentence, span, partner))
        errors += [_span_error("spurious", sentence, None, span) for span in wrong]
    return errors


SPAN_OUTCOMES = ("right", "boundary", "type", "both", "missed", "spurious")


def span_outcomes(
    sentences: Sequence[TaggedSentence], predictions: TagPredictions
) -> dict[str, dict[str, int]]:
    """What became of the spans of each type, most frequent type first: `SPAN_OUTCOMES`, counted.

    A spurious span counts under its own type, every other one under that of its gold span.
    """
    counts: dict[str, Counter[str]] = {}
    for sentence, tags in zip(sentences, predictions.tags, strict=True):
        for span in set(spans_of(sentence.tags)) & set(spans_of(tags)):
            counts.setdefault(span.type, Counter())["right"] += 1
    for error in span_errors(sentences, predictions):
        span = error["gold"] or error["predicted"]
        counts.setdefault(span["type"], Counter())[error["error"]] += 1
    return _ordered(counts, SPAN_OUTCOMES)


ANSWER_OUTCOMES = ("exact", "partly right", "wrong", "no answer given", "answer invented")
_QUESTION_WORDS = ("what", "who", "when", "where", "which", "why", "how")


def answer_outcomes(
    examples: Sequence[QuestionExample],
    predictions: Sequence[QuestionPrediction],
    *,
    null_threshold: float | None = None,
) -> dict[str, dict[str, int]]:
    """What became of the questions with each question word: `ANSWER_OUTCOMES`, counted.

    Arguments as of `answer_errors`.
    """
    errors = answer_errors(examples, predictions, null_threshold=null_threshold)
    wrong = {error["id"]: error for error in errors}
    counts: dict[str, Counter[str]] = {}
    for example in examples:
        words = example.question.lower().replace("?", " ").split()
        group = next((word for word in words if word in _QUESTION_WORDS), "other")
        outcome = "exact"
        if example.id in wrong:
            error = wrong[example.id]
            outcome = "partly right" if error["f1"] > 0 else "wrong"
            if not error["gold"]:
                outcome = "answer invented"
            elif not error["prediction"]:
                outcome = "no answer given"
        counts.setdefault(group, Counter())[outcome] += 1
    return _ordered(counts, ANSWER_OUTCOMES)


def _ordered(
    counts: Mapping[str, Mapping[str, int]], outcomes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Largest group first, each with those outcomes that occur in any."""
    occurring = [name for name in outcomes if any(group[name] for group in counts.values())]
    largest = sorted(counts, key=lambda group: (-sum(counts[group].values()), group))
    return {group: {name: counts[group][name] for name in occurring} for group in largest}


def answer_errors(
    examples: Sequence[QuestionExample],
    predictions: Sequence[QuestionPrediction],
    *,
    null_threshold: float | None = None,
) -> list[dict[str, Any]]:
    """Every question whose answer is not an exact match, the worst first.

    Args:
      examples: the questions.
      predictions: theirs.
      null_threshold: null odds above it mean "no answer"; None where each question has one.

    Returns:
      Dicts with `id`, `question`, `gold` (texts, [] for no answer), `prediction` ("" for no
      answer), `f1` in percent, `null_odds` and `context`.
    """
    errors = []
    for example, prediction in zip(examples, predictions, strict=True):
        text, score = prediction.answers[0].text, f1_v1
        if null_threshold is not None:
            text, score = "" if prediction.null_odds > null_threshold else text, f1_v2
        golds = example.answers or ("",)
        if max(exact_match(text, gold) for gold in golds):
            continue
        errors.append(
            {
                "id": example.id,
                "question": example.question,
                "gold": list(example.answers),
                "prediction": text,
                "f1": 100.0 * max(score(text, gold) for gold in golds),
                "null_odds": prediction.null_odds,
                "context": example.context,
            }
        )
    return sorted(errors, key=lambda error: error["f1"])


def _shared(one: Span, other: Span) -> int:
    """Words in common."""
    return max(0, min(one.end, other.end) - max(one.start, other.start))


def _span_error(
    kind: str, sentence: TaggedSentence, gold: Span | None, predicted: Span | None
) -> dict[str, Any]:
    def described(span: Span | None) -> dict[str, Any] | None:
        if span is None:
            return None
        text = " ".join(sentence.words[span.start : span.end])
        return span._asdict() | {"text": text}

    return {
        "id": sentence.id,
        "error": kind,
        "gold": described(gold),
        "predicted": described(predicted),
    }
