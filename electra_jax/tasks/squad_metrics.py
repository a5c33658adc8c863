"""Scores of answers, as the official scripts of SQuAD 1.1, SQuAD 2.0 and MRQA define them.

They differ where nothing is left of an answer once it is normalised ("the", "?"): in 1.1 and MRQA
it then has an F1 of 0 whatever is predicted, and in 2.0 such gold answers do not count and an
empty prediction is right (F1 1) where there is no other. All scores are in percent.
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Mapping, Sequence

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.examples import QuestionExample

# ASCII alone: quotation marks and dashes of other kinds stay.
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
# "No answer" is predicted where null_odds are larger (the original's `qa_na_threshold`).
NULL_THRESHOLD = -2.75


def normalize_answer(text: str) -> str:
    """Lower-cased, without ASCII punctuation, then without articles, single spaces between words.

    In this order: "A.N." is the article "an".
    """
    text = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 if the two are the same once normalised, else 0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def f1_v1(prediction: str, gold: str) -> float:
    """Harmonic mean of the shares of common words, as multisets; 0 where there are none."""
    words = normalize_answer(prediction).split(), normalize_answer(gold).split()
    common = (collections.Counter(words[0]) & collections.Counter(words[1])).total()
    if not common:
        return 0.0
    precision, recall = common / len(words[0]), common / len(words[1])
    return 2 * precision * recall / (precision + recall)


def f1_v2(prediction: str, gold: str) -> float:
    """As `f1_v1`, but 1 where nothing is left of both."""
    if not normalize_answer(prediction) and not normalize_answer(gold):
        return 1.0
    return f1_v1(prediction, gold)


def squad_v1_metrics(
    examples: Sequence[QuestionExample],
    predictions: Mapping[str, str],
    *,
    skip_unanswered: bool = False,
) -> dict[str, float]:
    """exact_match and f1 of SQuAD 1.1 and MRQA: means over questions of the best over gold answers.

    Args:
      examples: the questions, each with gold answers.
      predictions: texts by question id.
      skip_unanswered: whether a question without prediction is left out (MRQA in the original);
        otherwise it counts 0.
    """
    exact = f1 = total = 0.0
    for example in examples:
        prediction = predictions.get(example.id)
        if prediction is None:
            total += not skip_unanswered
            continue
        total += 1
        exact += max(exact_match(prediction, gold) for gold in example.answers)
        f1 += max(f1_v1(prediction, gold) for gold in example.answers)
    total = max(total, 1.0)
    return {"exact_match": 100.0 * exact / total, "f1": 100.0 * f1 / total}


def squad_v2_metrics(
    examples: Sequence[QuestionExample],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    *,
    threshold: float = NULL_THRESHOLD,
) -> dict[str, float]:
    """All that the official script of SQuAD 2.0 prints, with its names.

    Args:
      examples: the questions; those without prediction are left out, as the script does.
      predictions: texts by question id, "" for no answer; where `null_odds` are given, the best
        answers all the same.
      null_odds: by question id, large where there is no answer; None: no threshold is applied, and
        none searched for.
      threshold: above it a prediction counts as "no answer".

    Returns:
      exact, f1 and total; the same of questions with and without answers (HasAns_, NoAns_), where
      there are such; and best_exact, best_exact_thresh, best_f1, best_f1_thresh, the best that any
      threshold reaches, and it.
    """
    scored = [example for example in examples if example.id in predictions]
    has_answer = np.array([bool(example.answers) for example in scored], bool)
    texts = [predictions[example.id] for example in scored]
    raw = {
        "exact": _best_scores(scored, texts, exact_match),
        "f1": _best_scores(scored, texts, f1_v2),
    }
    applied = raw
    if null_odds is not None:
        odds = np.array([_odds(null_odds, example.id) for example in scored], np.float64)
        applied = {
            name: np.where(odds > threshold, ~has_answer, scores).astype(np.float64)
            for name, scores in raw.items()
        }
    metrics = _summary(applied, np.ones(len(scored), bool), "")
    for prefix, mask in (("HasAns_", has_answer), ("NoAns_", ~has_answer)):
        if mask.any():
            metrics |= _summary(applied, mask, prefix)
    if null_odds is not None:
        # Of equal odds the script takes the one first that comes first in their file.
        places = {example.id: i for i, example in enumerate(scored)}
        order = np.array([places[key] for key in null_odds if key in places], np.int64)
        is_empty = np.array([not text for text in texts], bool)
        for name, scores in raw.items():
            best, best_threshold = _best_threshold(
                scores[order], odds[order], has_answer[order], is_empty[order]
            )
            metrics |= {f"best_{name}": best, f"best_{name}_thresh": best_threshold}
    return metrics


def _odds(null_odds: Mapping[str, float], identifier: str) -> float:
    if identifier not in null_odds:
        raise UserError(f"null_odds lack question {identifier!r}: give those of all predictions")
    return null_odds[identifier]


def _best_scores(examples, texts, score) -> np.ndarray:
    """The best score of each text over its question's gold answers: float64 [questions]."""
    result = []
    for example, text in zip(examples, texts, strict=True):
        golds = [gold for gold in example.answers if normalize_answer(gold)] or [""]
        result.append(max(score(text, gold) for gold in golds))
    return np.array(result, np.float64)


def _summary(scores: Mapping[str, np.ndarray], mask: np.ndarray, prefix: str) -> dict[str, float]:
    count = int(mask.sum())
    # Python's sum, as the script's: NumPy's differs from it in the last digit.
    means = {
        f"{prefix}{name}": 100.0 * sum(values[mask].tolist()) / max(count, 1)
        for name, values in scores.items()
    }
    return means | {f"{prefix}total": count}


def _best_threshold(
    scores: np.ndarray, odds: np.ndarray, has_answer: np.ndarray, is_empty: np.ndarray
) -> tuple[float, float]:
    """The best mean score any threshold reaches, and the smallest such threshold.

    From "all are without answer" upwards, each question's prediction is let in in the order of its
    odds: one with answers gains its score, one without loses its point if anything is predicted.
    """
    order = np.argsort(odds, kind="stable")
    gains = np.where(has_answer, scores, -1.0 * ~is_empty)[order]
    # Sequential sums of doubles, as the script's.
    sums = np.cumsum(np.concatenate([[float((~has_answer).sum())], gains]))
    best = int(sums.argmax())
    threshold = float(odds[order][best - 1]) if best else 0.0
    return 100.0 * float(sums[best]) / max(len(scores), 1), threshold
