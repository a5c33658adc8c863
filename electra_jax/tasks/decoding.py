"""From a model's numbers to labels, numbers and tags; `question_decoding` is for answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from electra_jax.tasks.tagging_features import TaggingFeatures


@dataclasses.dataclass(frozen=True)
class LabelPredictions:
    """Of a classification.

    Attributes:
      labels: the likeliest label of each example.
      probabilities: float64 [examples, labels].
      names: the labels in order of their indices.
    """

    labels: list[str]
    probabilities: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NumberPredictions:
    """Of a regression.

    Attributes:
      values: float64 [examples], in the labels' own units.
    """

    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class LabelSetPredictions:
    """Of a multilabel classification.

    Attributes:
      labels: those of each example whose probability reaches the threshold.
      probabilities: float64 [examples, labels], each for itself.
      names: the labels in order of their indices.
    """

    labels: list[tuple[str, ...]]
    probabilities: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TagPredictions:
    """Of a tagging.

    Attributes:
      tags: a tag for each word of each sentence.
      probabilities: float64 [words] of each sentence, of the tags; None if they are not known.
    """

    tags: list[tuple[str, ...]]
    probabilities: list[np.ndarray] | None


def decode_labels(logits: np.ndarray, names: Sequence[str]) -> LabelPredictions:
    """The likeliest labels; of equal ones the first.

    Args:
      logits: [examples, labels], any float type.
      names: the labels in order of their indices.
    """
    probabilities = softmax(logits)
    labels = [names[i] for i in np.asarray(logits).argmax(axis=1).tolist()]
    return LabelPredictions(labels, probabilities, tuple(names))


def decode_numbers(outputs: np.ndarray, score_range: tuple[float, float]) -> NumberPredictions:
    """Numbers in the labels' own units, not held to their range.

    Args:
      outputs: [examples] or [examples, 1], in units of the score range.
      score_range: the numbers that 0 and 1 stand for.
    """
    low, high = score_range
    return NumberPredictions(np.asarray(outputs, np.float64).reshape(-1) * (high - low) + low)


def decode_label_sets(
    logits: np.ndarray, names: Sequence[str], threshold: float = 0.5
) -> LabelSetPredictions:
    """All labels that are likely enough.

    Args:
      logits: [examples, labels], any float type.
      names: the labels in order of their indices.
      threshold: the probability a label needs.
    """
    probabilities = sigmoid(logits)
    labels = [
        tuple(names[i] for i in np.flatnonzero(row >= threshold).tolist()) for row in probabilities
    ]
    return LabelSetPredictions(labels, probabilities, tuple(names))


def decode_tags(
    outputs: Sequence[np.ndarray], features: TaggingFeatures, names: Sequence[str]
) -> TagPredictions:
    """A tag for every word, from the one row that predicts it. Any sequence of tags may come out.

    Args:
      outputs: for each row of the features logits [L, tags], or indices of tags, int [L]; L at
        least the row's length.
      features: the rows.
      names: the tags in order of their indices.

    Returns:
      Predictions; their probabilities are known if logits are given.
    """
    indices: dict[int, list[np.ndarray]] = {}
    probabilities: dict[int, list[np.ndarray]] = {}
    has_logits = len(outputs) > 0 and np.ndim(outputs[0]) == 2
    rows = zip(outputs, features.word, features.example.tolist(), strict=True)
    # A sentence's rows, and the words in each, are in order.
    for output, word, number in rows:
        at_words = np.asarray(output)[np.flatnonzero(word >= 0)]
        if has_logits:
            probabilities.setdefault(number, []).append(softmax(at_words).max(axis=1))
            at_words = at_words.argmax(axis=1)
        indices.setdefault(number, []).append(at_words)
    tags = [tuple(names[i] for i in np.concatenate(parts).tolist()) for parts in indices.values()]
    known = [np.concatenate(parts) for parts in probabilities.values()]
    return TagPredictions(tags, known if has_logits else None)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float64."""
    logits = np.asarray(logits, np.float64)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), float64; no overflow."""
    logits = np.asarray(logits, np.float64)
    return np.exp(-np.logaddexp(0.0, -logits))
