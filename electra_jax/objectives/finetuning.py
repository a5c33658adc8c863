"""What fine-tuning learns: one objective a kind of task, all from the same three functions.

Every kind is `measure`: from a network's outputs and labels to a loss and to what the metrics
count, for each row (for each token in tagging). The rest is the same for all: padding, segments
and dropout as in pre-training, and the mean of the losses under the batch's `weights`, over the
global batch. (The original sums the losses of a batch, so that its clipping at norm 1 is as many
times tighter as a batch has rows.) A row of weight 0 pads a batch, and counts nowhere.

A batch has `input_ids` int [B, L], `row_ids` int [B], `weights` float32 [B] and the objective's
`label_names`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from electra_jax import corruption, losses
from electra_jax.dropout import dropout_seeds
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds

# The one random decision of a step: fold_in(step key, this).
_DROPOUT = 0
# Endings of the names of metrics that are rates: in percent, as the tasks' official metrics are.
_IN_PERCENT = ("accuracy", "match")

Arrays = dict[str, jax.Array]


class Inputs(flax.struct.PyTreeNode):
    """What the loss needs besides parameters.

    Attributes:
      input_ids: int32 [B, L].
      attention_mask: bool [B, L], False at padding.
      token_type_ids: int32 [B, L], the segment of each token, 0 or 1.
      row_ids: int [B], a number of its own for each row of the global batch.
      labels: the batch's labels by name, zeros in rows of weight 0.
      row_weights: float32 [B], the batch's.
      weights: float32 [B], or [B, L] in tagging: of each loss.
      shares: float32, shaped like `weights`: the same divided by its sum over the global batch.
    """

    input_ids: jax.Array
    attention_mask: jax.Array
    token_type_ids: jax.Array
    row_ids: jax.Array
    labels: Arrays
    row_weights: jax.Array
    weights: jax.Array
    shares: jax.Array


@dataclasses.dataclass(frozen=True)
class FineTuningObjective:
    """What the kinds have in common.

    Attributes:
      special_ids: the tokenizer's.
      label_names: the arrays of a batch that are labels.
      metrics: names of the means that `summarize` gives.
    """

    special_ids: SpecialIds

    label_names: ClassVar[tuple[str, ...]] = ("labels",)
    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    def measure(self, outputs: Any, labels: Arrays) -> tuple[jax.Array, Arrays]:
        """Losses, and what the metrics other than "loss" count; float32, shaped like `weights`."""
        raise NotImplementedError

    def weigh(self, row_weights: jax.Array, labels: Arrays) -> jax.Array:
        """The weight of each loss, from those of the rows."""
        del labels
        return row_weights

    def arguments(self, labels: Arrays) -> Arrays:
        """What the network is told of the labels while it learns."""
        del labels
        return {}

    def prepare(
        self,
        key: jax.Array,
        batch: Mapping[str, jax.Array],
        axis_name: str | None = None,
        step: jax.Array | int = 0,
    ) -> Inputs:
        """Masks, segments and weights of a batch; nothing here is random."""
        del key
        arrays = self._arrays(batch)
        row_weights = jnp.asarray(batch["weights"], jnp.float32)
        # Whatever a padding row holds, its loss must be finite: zero times infinity is no zero.
        labels = {name: _where(row_weights, batch[name]) for name in self.label_names}
        weights = self.weigh(row_weights, labels)
        return Inputs(
            *arrays,
            row_ids=batch["row_ids"],
            labels=labels,
            row_weights=row_weights,
            weights=weights,
            shares=losses.shares(weights, axis_name),
        )

    def loss(
        self,
        params: Any,
        inputs: Inputs,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, Arrays]:
        """The weighted mean of the losses, and the sums behind the metrics."""
        dropout_key = jax.random.fold_in(key, _DROPOUT)
        outputs = apply_fn(
            {"params": params},
            inputs.input_ids,
            inputs.attention_mask,
            inputs.token_type_ids,
            None if deterministic else dropout_seeds(dropout_key, inputs.row_ids),
            **self.arguments(inputs.labels),
        )
        row_losses, counts = self.measure(outputs, inputs.labels)
        counts = {"loss": row_losses} | counts
        sums = {f"{name}_sum": (inputs.weights * counts[name]).sum() for name in self.metrics}
        is_row = (inputs.row_weights > 0)[:, None]
        sums["tokens"] = (inputs.attention_mask & is_row).sum(dtype=jnp.float32)
        sums["weights"] = inputs.weights.sum()
        return (row_losses * inputs.shares).sum(), jax.lax.stop_gradient(sums)

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Weighted means over everything that was added up; those of right answers in percent."""
        return {
            name: losses.ratio(sums[f"{name}_sum"], sums["weights"])
            * (100.0 if name.endswith(_IN_PERCENT) else 1.0)
            for name in self.metrics
        }

    def predict(
        self, params: Any, batch: Mapping[str, jax.Array], *, apply_fn: Callable
    ) -> dict[str, jax.Array]:
        """The network's outputs on a batch without labels: `logits` [B, C] or [B, L, C]."""
        return {"logits": apply_fn({"params": params}, *self._arrays(batch))}

    def _arrays(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Ids, attention mask and token types."""
        input_ids = jnp.asarray(batch["input_ids"], jnp.int32)
        attention_mask = input_ids != self.special_ids.pad
        types = corruption.token_types(input_ids, attention_mask, self.special_ids.sep)
        return input_ids, attention_mask, types


class ClassificationObjective(FineTuningObjective):
    """One class of C for each row: cross-entropy. `labels` int [B]; logits [B, C]."""

    def measure(self, outputs: jax.Array, labels: Arrays) -> tuple[jax.Array, Arrays]:
        """Losses [B] and right answers."""
        classes = labels["labels"]
        right = outputs.argmax(axis=-1) == classes
        return losses.token_cross_entropy(outputs, classes), {"accuracy": right}


class RegressionObjective(FineTuningObjective):
    """A number for each row: squared error. `labels` float [B]; logits [B, 1]."""

    metrics = ("loss", "absolute_error")

    def measure(self, outputs: jax.Array, labels: Arrays) -> tuple[jax.Array, Arrays]:
        """Losses [B] and absolute errors."""
        error = outputs.squeeze(-1) - labels["labels"]
        return jnp.square(error), {"absolute_error": jnp.abs(error)}


class MultilabelObjective(FineTuningObjective):
    """Any of C labels for each row: mean of C binary cross-entropies. `labels` [B, C] of 0 and 1.

    `accuracy` is the share of labels that are right, `exact_match` that of rows all of whose are.
    """

    metrics = ("loss", "accuracy", "exact_match")

    def measure(self, outputs: jax.Array, labels: Arrays) -> tuple[jax.Array, Arrays]:
        """Losses [B] and right answers."""
        wanted = labels["labels"].astype(jnp.float32)
        right = jnp.equal(outputs > 0, wanted > 0.5)
        row_losses = losses.binary_cross_entropy(outputs, wanted).mean(axis=-1)
        counts = {"accuracy": right.mean(axis=-1), "exact_match": right.all(axis=-1)}
        return row_losses, counts


class TaggingObjective(FineTuningObjective):
    """One tag of C at each labelled position: cross-entropy, the mean over these positions.

    `labels` int [B, L], -1 where there is none; logits [B, L, C].
    """

    def weigh(self, row_weights: jax.Array, labels: Arrays) -> jax.Array:
        """The row's weight at each labelled position, [B, L]."""
        return row_weights[:, None] * (labels["labels"] >= 0)

    def measure(self, outputs: jax.Array, labels: Arrays) -> tuple[jax.Array, Arrays]:
        """Losses [B, L] and right answers; those at positions without a label mean nothing."""
        tags = jnp.maximum(labels["labels"], 0)
        right = outputs.argmax(axis=-1) == tags
        return losses.token_cross_entropy(outputs, tags), {"accuracy": right}


@dataclasses.dataclass(frozen=True)
class SpanObjective(FineTuningObjective):
    """Where an answer starts and ends, and whether there is one.

        loss = (CE(start) + CE(end)) / 2 + answerability_weight * BCE(no answer)

    `start_positions` and `end_positions` int [B] (0, [CLS], where the row holds no answer) and
    `is_impossible` [B] of 0 and 1. The ends are told the gold start, in evaluation as well, so
    `end_accuracy` is given the start. Source: `qa_tasks.py` of the original.

    Attributes:
      answerability_weight: 0.5 in the original; 0 for a head without answerability, and then no
        `is_impossible` is needed.
      beam_size: K of `predict`.

    Raises:
      UserError: for a number out of its range.
    """

    answerability_weight: float = 0.5
    beam_size: int = 20

    def __post_init__(self):
        if self.answerability_weight < 0:
            raise UserError(
                f"objective.answerability_weight={self.answerability_weight} must not be negative"
            )
        if self.beam_size < 1:
            raise UserError(f"objective.beam_size={self.beam_size} must be at least 1")

    @property
    def label_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The arrays of a batch that are labels."""
        positions = ("start_positions", "end_positions")
        return (*positions, "is_impossible") if self.answerability_weight else positions

    @property
    def metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the means."""
        names = ("loss", "span_loss", "start_accuracy", "end_accuracy")
        answerability = ("answerability_loss", "answerability_accuracy")
        return names + answerability if self.answerability_weight else names

    def arguments(self, labels: Arrays) -> Arrays:
        """The gold starts."""
        return {"start_positions": labels["start_positions"]}

    def measure(self, outputs: Arrays, labels: Arrays) -> tuple[jax.Array, Arrays]:
        """Losses [B], their parts and right answers."""
        counts: Arrays = {}
        span_loss: Any = 0.0
        for name in ("start", "end"):
            logits, positions = outputs[f"{name}_logits"], labels[f"{name}_positions"]
            span_loss += losses.token_cross_entropy(logits, positions) / 2
            counts[f"{name}_accuracy"] = logits.argmax(axis=-1) == positions
        counts["span_loss"] = span_loss
        if not self.answerability_weight:
            return span_loss, counts
        logits, impossible = outputs["no_answer_logits"], labels["is_impossible"]
        impossible = impossible.astype(jnp.float32)
        answerability_loss = losses.binary_cross_entropy(logits, impossible)
        counts["answerability_loss"] = answerability_loss
        counts["answerability_accuracy"] = (logits > 0) == (impossible > 0.5)
        return span_loss + self.answerability_weight * answerability_loss, counts

    def predict(
        self, params: Any, batch: Mapping[str, jax.Array], *, apply_fn: Callable
    ) -> dict[str, jax.Array]:
        """The beams of `heads.FineTuned.predict_spans`."""
        arrays = self._arrays(batch)
        return apply_fn(
            {"params": params}, *arrays, beam_size=self.beam_size, method="predict_spans"
        )


def _where(row_weights: jax.Array, labels: jax.Array) -> jax.Array:
    """The labels [B, ...], zeros in rows of weight 0."""
    labels = jnp.asarray(labels)
    is_row = jnp.expand_dims(row_weights > 0, range(1, labels.ndim))
    return jnp.where(is_row, labels, jnp.zeros_like(labels))


# By kind of task. The heads: `heads.SequenceHead` for the first three (with one output for
# "regression"), `heads.TokenHead`, `heads.SpanHead`.
FINETUNING_OBJECTIVES: dict[str, Callable[..., FineTuningObjective]] = {
    "classification": ClassificationObjective,
    "regression": RegressionObjective,
    "multilabel": MultilabelObjective,
    "tagging": TaggingObjective,
    "span": SpanObjective,
}
