"""What each kind of task does with its examples: one function a step, the same for all tasks.

examples -> label_space, make_features -> batches -> model -> decode -> score
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.data.tokenization import Tokenizer
from electra_jax.errors import UserError
from electra_jax.tasks import metrics
from electra_jax.tasks.decoding import (
    LabelPredictions,
    LabelSetPredictions,
    NumberPredictions,
    TagPredictions,
    decode_label_sets,
    decode_labels,
    decode_numbers,
    decode_tags,
)
from electra_jax.tasks.examples import Example, TaggedSentence, TextExample
from electra_jax.tasks.features import Features, text_features
from electra_jax.tasks.question_decoding import QuestionPrediction, decode_answers
from electra_jax.tasks.question_features import question_features
from electra_jax.tasks.reading import find_labels, find_score_range
from electra_jax.tasks.squad_metrics import NULL_THRESHOLD, squad_v1_metrics, squad_v2_metrics
from electra_jax.tasks.table import Task
from electra_jax.tasks.tagging_features import tagging_features
from electra_jax.tasks.tags import to_bioes, to_iob2

Predictions = (
    LabelPredictions
    | NumberPredictions
    | LabelSetPredictions
    | TagPredictions
    | list[QuestionPrediction]
)


@dataclasses.dataclass(frozen=True)
class LabelSpace:
    """What a model's outputs mean; kept beside its parameters.

    Attributes:
      kind: as of the task.
      labels: names in order of their indices; of tagging, the tags that are learned.
      score_range: of regression, the numbers that outputs 0 and 1 mean.
      tag_scheme: "as_file" or "bioes", which tags are learned.
      pairs: whether the training data has pairs of texts; None if that does not matter.
    """

    kind: str
    labels: tuple[str, ...] = ()
    score_range: tuple[float, float] = (0.0, 1.0)
    tag_scheme: str = "as_file"
    pairs: bool | None = None

    @property
    def num_outputs(self) -> int:
        """Outputs of a sequence's or a token's head; 0 for questions, whose head is another."""
        return {"regression": 1, "span": 0}.get(self.kind, len(self.labels))

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> LabelSpace:
        """What `to_json` returned, perhaps by way of a file.

        Raises:
          UserError: if fields are missing or unknown.
        """
        try:
            made = cls(**fields)
        except TypeError as error:
            raise UserError(
                f"label space {dict(fields)} is not one ({error}): train again"
            ) from None
        return dataclasses.replace(
            made, labels=tuple(made.labels), score_range=tuple(made.score_range)
        )


def label_space(task: Task, train: Sequence[Example]) -> LabelSpace:
    """What the outputs of a model for a task mean: by its table, or found in the training data.

    Raises:
      UserError: if the training data has too few different labels.
    """
    pairs = None
    if train and isinstance(train[0], TextExample):
        pairs = any(example.text_b is not None for example in train)
    if task.kind == "regression":
        return LabelSpace(task.kind, score_range=find_score_range(task, train), pairs=pairs)
    labels = find_labels(task, _tagged_as(task.tag_scheme, train))
    return LabelSpace(task.kind, labels, tag_scheme=task.tag_scheme, pairs=pairs)


def make_features(
    task: Task,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    space: LabelSpace,
    *,
    max_length: int | None = None,
    training: bool = False,
    double_unordered: bool | None = None,
    stride: int = 128,
    max_question_length: int = 64,
    no_answer_label: str = "window",
) -> Features:
    """Rows of token ids of examples, by the task's kind.

    Args:
      task: the task.
      examples: its examples.
      tokenizer: the model's.
      space: what labels there are.
      max_length: most tokens in a row; None: the table's.
      training: whether rows are to be learned from, and pairs come in both orders if
        `double_unordered` says so.
      double_unordered: None: as the table says.
      stride, max_question_length, no_answer_label: as in `question_features`.

    Raises:
      UserError: if an argument is out of range, or if the model has learned pairs of texts, and
        these are single ones, or the other way round.
    """
    max_length = max_length or task.max_length
    if task.kind == "span":
        return question_features(
            examples,
            tokenizer,
            max_length=max_length,
            stride=stride,
            max_question_length=max_question_length,
            no_answer_label=no_answer_label,
        )
    if task.kind == "tagging":
        sentences = _tagged_as(space.tag_scheme, examples)
        return tagging_features(sentences, tokenizer, labels=space.labels, max_length=max_length)
    if space.pairs is not None:
        _check_pairs(space.pairs, examples)
    doubled = task.double_unordered if double_unordered is None else double_unordered
    return text_features(
        examples,
        tokenizer,
        kind=task.kind,
        max_length=max_length,
        labels=space.labels,
        score_range=space.score_range,
        both_orders=training and doubled,
    )


def decode(
    space: LabelSpace,
    outputs: Sequence[Any],
    examples: Sequence[Example],
    features: Features,
    *,
    threshold: float = 0.5,
    n_best: int = 20,
    max_answer_length: int = 30,
) -> Predictions:
    """Predictions for examples from a model's outputs.

    Args:
      space: what the outputs mean.
      outputs: of each row in the features' order (`EvaluationBatches.restore`), what the
        objective's `predict` gives: {"logits": ...} with logits [labels] (classification,
        multilabel), a number [1] (regression) or logits [L, tags] (tagging); or a dict as in
        `decode_answers` (span). An array may stand for {"logits": array}, and of tagging indices
        [L] for logits.
      examples: the examples, in order.
      features: their rows, not in both orders.
      threshold: of a label's probability (multilabel).
      n_best, max_answer_length: as in `decode_answers`.
    """
    if space.kind == "span":
        return decode_answers(
            outputs, examples, features, n_best=n_best, max_answer_length=max_answer_length
        )
    outputs = [out["logits"] if isinstance(out, Mapping) else out for out in outputs]
    if space.kind == "tagging":
        predictions = decode_tags(outputs, features, space.labels)
        if space.tag_scheme == "bioes":
            tags = [to_iob2(tags) for tags in predictions.tags]
            predictions = dataclasses.replace(predictions, tags=tags)
        return predictions
    stacked = np.stack([np.asarray(output) for output in outputs])
    if space.kind == "regression":
        return decode_numbers(stacked, space.score_range)
    if space.kind == "multilabel":
        return decode_label_sets(stacked, space.labels, threshold)
    return decode_labels(stacked, space.labels)


def score(
    task: Task,
    space: LabelSpace,
    examples: Sequence[Example],
    predictions: Predictions,
    *,
    null_threshold: float = NULL_THRESHOLD,
) -> dict[str, float]:
    """The task's metrics, `task.metrics` first; rates in percent.

    Args:
      task: the task.
      space: what labels there are.
      examples: with labels, in the predictions' order.
      predictions: from `decode`.
      null_threshold: of SQuAD 2.0, above which null odds mean "no answer".
    """
    if task.kind == "classification":
        gold = [example.label for example in examples]
        found = metrics.classification_metrics(gold, predictions.labels, space.labels)
    elif task.kind == "regression":
        gold = [example.label for example in examples]
        found = metrics.regression_metrics(gold, predictions.values)
    elif task.kind == "multilabel":
        gold = [example.label for example in examples]
        found = metrics.multilabel_metrics(gold, predictions.labels, space.labels)
    elif task.kind == "tagging":
        gold = [sentence.tags for sentence in examples]
        return metrics.tagging_metrics(gold, predictions.tags)
    else:
        texts, odds = best_texts(predictions), null_odds(predictions)
        if not task.has_unanswerable:
            return squad_v1_metrics(examples, texts, skip_unanswered=task.format == "mrqa")
        return squad_v2_metrics(examples, texts, odds, threshold=null_threshold)
    return {name: found[name] for name in task.metrics}


def best_texts(predictions: Sequence[QuestionPrediction]) -> dict[str, str]:
    """The best answer to each question, "no answer" not among them, by id."""
    return {prediction.id: prediction.answers[0].text for prediction in predictions}


def null_odds(predictions: Sequence[QuestionPrediction]) -> dict[str, float]:
    """How much speaks for "no answer", by id."""
    return {prediction.id: prediction.null_odds for prediction in predictions}


def _check_pairs(pairs: bool, examples: Sequence[TextExample]) -> None:
    for example in examples:
        if (example.text_b is not None) != pairs:
            learned, given = ("pairs of texts", "one") if pairs else ("single texts", "two")
            raise UserError(
                f"the training data has {learned}, and row {example.id} of these data has {given}: "
                "name the columns of both alike"
            )


def _tagged_as(scheme: str, examples: Sequence[Example]) -> Sequence[Example]:
    if scheme != "bioes":
        return examples
    return [
        example._replace(tags=to_bioes(example.tags))
        if isinstance(example, TaggedSentence) and example.tags
        else example
        for example in examples
    ]
