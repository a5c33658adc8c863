"""Official metrics of classification, regression and tagging.

All rates are in percent, as the original's and the leaderboards' are; `mse` is in the square of
the labels' unit. scikit-learn and SciPy are loaded when they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from electra_jax.tasks.tags import Span, spans_of

_PERCENT = 100.0


def classification_metrics(
    gold: Sequence[str], predicted: Sequence[str], names: Sequence[str]
) -> dict[str, float]:
    """accuracy, mcc, macro_f1 and, where there are two labels, f1 of the second one.

    mcc is Matthews' correlation coefficient, 0 where all labels or all predictions are equal.

    Args:
      gold, predicted: labels [examples], at least one.
      names: the labels in order of their indices.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    index = {name: i for i, name in enumerate(names)}
    gold_ids = np.array([index[label] for label in gold])
    predicted_ids = np.array([index[label] for label in predicted])
    is_defined = len(set(gold)) > 1 and len(set(predicted)) > 1
    metrics = {
        "accuracy": accuracy_score(gold_ids, predicted_ids),
        # scikit-learn warns where only one label occurs.
        "mcc": matthews_corrcoef(gold_ids, predicted_ids) if is_defined else 0.0,
        # Of the labels that occur in either.
        "macro_f1": f1_score(gold_ids, predicted_ids, average="macro", zero_division=0.0),
    }
    if len(names) == 2:
        metrics["f1"] = f1_score(gold_ids, predicted_ids, pos_label=1, zero_division=0.0)
    return {name: _PERCENT * float(value) for name, value in metrics.items()}


def regression_metrics(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """pearson, spearman and mse.

    The correlations are 0 where they have no value: for fewer than two examples, or if all labels
    or all predictions are equal; NaN for predictions that are not finite.

    Args:
      gold, predicted: numbers [examples], at least one, in the labels' unit.
    """
    from scipy.stats import pearsonr, spearmanr

    gold, predicted = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    mse = float(np.mean((gold - predicted) ** 2))
    if not np.isfinite(predicted).all():
        return {"pearson": float("nan"), "spearman": float("nan"), "mse": mse}
    if len(gold) < 2 or _is_constant(gold) or _is_constant(predicted):
        return {"pearson": 0.0, "spearman": 0.0, "mse": mse}
    return {
        "pearson": _PERCENT * float(pearsonr(gold, predicted).statistic),
        "spearman": _PERCENT * float(spearmanr(gold, predicted).statistic),
        "mse": mse,
    }


def _is_constant(values: np.ndarray) -> bool:
    """Whether numbers are equal but for rounding; SciPy warns then, and returns noise."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def multilabel_metrics(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], names: Sequence[str]
) -> dict[str, float]:
    """micro_f1, macro_f1 and exact_match, the share of examples with all labels right.

    A label that occurs neither in gold nor in predictions has an F1 of 0, and counts.

    Args:
      gold, predicted: labels of each example, at least one example.
      names: the labels in order of their indices.
    """

    def indicators(rows: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([[name in row for name in names] for row in rows], bool)

    # Not scikit-learn, which takes a single label's column for two classes.
    gold_sets, predicted_sets = indicators(gold), indicators(predicted)
    right = (gold_sets & predicted_sets).sum(axis=0)
    both = gold_sets.sum(axis=0) + predicted_sets.sum(axis=0)
    metrics = {
        "micro_f1": 2 * right.sum() / max(both.sum(), 1),
        "macro_f1": np.mean(2 * right / np.maximum(both, 1)),
        "exact_match": np.mean((gold_sets == predicted_sets).all(axis=1)),
    }
    return {name: _PERCENT * float(value) for name, value in metrics.items()}


def tagging_metrics(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, float]:
    """precision, recall and f1 of spans, and accuracy of tags, as conlleval computes them.

    A predicted span is right if a gold one has its words and its type. Without predicted spans
    precision is 0, without gold ones recall is.

    Args:
      gold, predicted: tags of each sentence, equally many; see `tags.spans_of`.
    """
    counts = np.zeros(3, np.int64)
    right = total = 0
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        counts += _span_counts(spans_of(gold_tags), spans_of(predicted_tags))
        pairs = list(zip(gold_tags, predicted_tags, strict=True))
        right += sum(one == other for one, other in pairs)
        total += len(pairs)
    return precision_recall_f1(*counts.tolist()) | {"accuracy": _PERCENT * right / max(total, 1)}


def metrics_by_type(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """precision, recall, f1 and support (gold spans) of every type of span, as conlleval lists."""
    counts: dict[str, np.ndarray] = {}
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        gold_spans, predicted_spans = spans_of(gold_tags), spans_of(predicted_tags)
        for kind in {span.type for span in (*gold_spans, *predicted_spans)}:
            of_type = [
                [span for span in spans if span.type == kind]
                for spans in (gold_spans, predicted_spans)
            ]
            counts[kind] = counts.get(kind, np.zeros(3, np.int64)) + _span_counts(*of_type)
    return {
        kind: precision_recall_f1(*counts[kind].tolist()) | {"support": int(counts[kind][1])}
        for kind in sorted(counts)
    }


def precision_recall_f1(right: int, gold: int, predicted: int) -> dict[str, float]:
    """Rates in percent from counts: right ones, gold ones, predicted ones; 0 for 0 / 0."""
    return {
        "precision": _PERCENT * right / predicted if predicted else 0.0,
        "recall": _PERCENT * right / gold if gold else 0.0,
        "f1": _PERCENT * 2 * right / (gold + predicted) if gold + predicted else 0.0,
    }


def _span_counts(gold: Sequence[Span], predicted: Sequence[Span]) -> np.ndarray:
    return np.array([len(set(gold) & set(predicted)), len(gold), len(predicted)], np.int64)
