"""What the objectives of pre-training have in common: masks, passes through the networks, counts.

An objective is a frozen dataclass of numbers that builds on `PretrainingObjective`: it takes its
`prepare` and writes its own `loss` and `summarize` from the functions here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from electra_jax import corruption, losses
from electra_jax.config import ElectraConfig
from electra_jax.dropout import dropout_seeds
from electra_jax.errors import UserError
from electra_jax.masking import MASKING
from electra_jax.special_ids import SpecialIds
from electra_jax.vocabulary import Predictions

# Each random decision of a step has a key of its own: fold_in(step key, one of these).
MASKING_KEY, SAMPLING_KEY, GENERATOR_DROPOUT_KEY, DISCRIMINATOR_DROPOUT_KEY = range(4)


class Inputs(flax.struct.PyTreeNode):
    """What a loss needs besides parameters: arrays with a row for each of the batch.

    Attributes:
      masked: the batch with its masked positions.
      visible: what networks are given as attention mask: bool [B, L], False at padding, or int32
        [B, L], 0 there and else the number of a token's document in its row.
      row_ids: int [B], a number of its own for each row of the global batch.
      generator_weights: float32 [B, P] (of two towers [B, L]), of each prediction in the
        generator's loss; they sum to one.
      discriminator_weights: float32 [B, L], of each token; they sum to one; 0 at padding.
      temperature: float32 [B, 1, 1], where it changes from step to step; else None.
    """

    masked: corruption.MaskedBatch
    visible: jax.Array
    row_ids: jax.Array
    generator_weights: jax.Array
    discriminator_weights: jax.Array
    temperature: jax.Array | None = None


# field: (test, what it asks)
_CHECKS = {
    "mask_prob": (lambda value: 0 < value < 1, "lie between 0 and 1"),
    "final_mask_prob": (lambda value: 0 < value < 1, "lie between 0 and 1"),
    "mask_prob_steps": (lambda value: value > 0, "be positive"),
    "generator_weight": (lambda value: value >= 0, "not be negative"),
    "discriminator_weight": (lambda value: value >= 0, "not be negative"),
    "temperature": (lambda value: value > 0, "be positive"),
    "start_temperature": (lambda value: value > 0, "be positive"),
    "temperature_steps": (lambda value: value > 0, "be positive"),
}
# Fields that come in twos: the one says where to, the other in how many steps.
_PAIRS = (("final_mask_prob", "mask_prob_steps"), ("start_temperature", "temperature_steps"))


@dataclasses.dataclass(frozen=True)
class PretrainingObjective:
    """Numbers of masking; defaults are those of Clark et al. 2020, Table 6.

    Attributes:
      vocab_size: V; samples lie below it.
      special_ids: the tokenizer's.
      mask_prob: share of the tokens that are masked.
      final_mask_prob, mask_prob_steps: the share changes linearly to this one in so many steps;
        None: it stays.
      masking: what is chosen: "tokens", "words" or "spans"; see `masking`.
      continues_word: bool [V], for "words": `data.tokenization.continues_word`.
      separate_documents: whether tokens look at their own document alone; for rows that several
        share, each with a [SEP] after it.
      rows_at_once: positions whose logits exist at a time, as of `vocabulary.predict_tokens`;
        None: all.

    Raises:
      UserError: for a number out of its range.
    """

    vocab_size: int
    special_ids: SpecialIds
    mask_prob: float = 0.15
    final_mask_prob: float | None = None
    mask_prob_steps: int | None = None
    masking: str = "tokens"
    continues_word: Any = None
    separate_documents: bool = False
    rows_at_once: int | None = None

    # Fields of `ElectraConfig` and the values that the objective can do with, the usual one first.
    model: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # Patterns of parameters that it leaves as they are.
    frozen: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        for field in dataclasses.fields(self):
            valid, wanted = _CHECKS.get(field.name, (None, ""))
            value = getattr(self, field.name)
            # Research code may pass a traced value, to differentiate or map over it.
            if valid and isinstance(value, int | float) and not valid(value):
                raise UserError(f"objective.{field.name}={value} must {wanted}")
        for where, steps in _PAIRS:
            if (getattr(self, where, None) is None) != (getattr(self, steps, None) is None):
                raise UserError(
                    f"objective.{where}={getattr(self, where)} and objective.{steps}="
                    f"{getattr(self, steps)}: give both or none"
                )
        if self.masking not in MASKING:
            raise UserError(
                f"objective.masking={self.masking!r} is unknown: use one of {', '.join(MASKING)}"
            )

    def max_masked(self, seq_len: int) -> int:
        """Slots P for a row's masked positions, enough for the highest share."""
        highest = max(self.mask_prob, self.final_mask_prob or 0.0)
        return corruption.max_masked_positions(seq_len, highest)

    def prepare(
        self,
        key: jax.Array,
        batch: Mapping[str, jax.Array],
        axis_name: str | None = None,
        step: jax.Array | int = 0,
    ) -> Inputs:
        """Masks a batch: `input_ids` int [B, L], `row_ids` int [B]."""
        input_ids, row_ids = batch["input_ids"], batch["row_ids"]
        mask_prob: float | jax.Array = self.mask_prob
        if self.mask_prob_steps is not None and self.final_mask_prob is not None:
            done = jnp.minimum(1.0, jnp.asarray(step, jnp.float32) / self.mask_prob_steps)
            mask_prob = mask_prob + done * (self.final_mask_prob - mask_prob)
        masked = corruption.mask_tokens(
            jax.random.fold_in(key, MASKING_KEY),
            input_ids,
            row_ids,
            mask_prob=mask_prob,
            max_masked=self.max_masked(input_ids.shape[1]),
            pad_id=self.special_ids.pad,
            cls_id=self.special_ids.cls,
            sep_id=self.special_ids.sep,
            mask_id=self.special_ids.mask,
            strategy=self.masking,
            continues_word=self.continues_word,
        )
        visible = masked.attention_mask
        if self.separate_documents:
            visible = corruption.documents(input_ids, visible, self.special_ids.sep)
        return Inputs(
            masked=masked,
            visible=visible,
            row_ids=row_ids,
            generator_weights=losses.shares(self.predicted(masked), axis_name),
            discriminator_weights=losses.shares(self.judged(masked), axis_name),
            temperature=self.temperature_at(step, len(row_ids)),
        )

    def predicted(self, masked: corruption.MaskedBatch) -> jax.Array:
        """Which predictions of the generator count, bool [B, P]."""
        return masked.chosen

    def judged(self, masked: corruption.MaskedBatch) -> jax.Array:
        """Which of the discriminator's verdicts count, bool [B, L]."""
        return masked.attention_mask

    def temperature_at(self, step: jax.Array | int, num_rows: int) -> jax.Array | None:
        """The temperature of each row's samples, where it changes; see `Inputs`."""
        del step, num_rows
        return None

    def loss(
        self,
        params: Any,
        inputs: Inputs,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss, and sums, `tokens` among them."""
        raise NotImplementedError

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """The metrics, `loss` among them, from sums."""
        raise NotImplementedError

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """Matrix-product operations of one update, a multiply-add as two; None: not known."""
        del config, batch_size, seq_len
        return None


def seeds_of(inputs: Inputs, key: jax.Array, purpose: int, deterministic: bool) -> jax.Array | None:
    """Seeds of one network's dropout, uint32 [B, 2]; None where there is none."""
    if deterministic:
        return None
    return dropout_seeds(jax.random.fold_in(key, purpose), inputs.row_ids)


def generate(
    params: Any,
    inputs: Inputs,
    key: jax.Array,
    *,
    apply_fn: Callable,
    deterministic: bool,
    positions: jax.Array | None = None,
    reads: jax.Array | None = None,
    method: str = "project",
) -> Any:
    """The generator on a masked batch.

    Args:
      positions: int [B, P], where predictions are wanted; None: at the masked ones.
      reads: int [B, L], what it reads; None: the masked text.
      method: of the model.
    """
    masked = inputs.masked
    return apply_fn(
        {"params": params},
        masked.masked_ids if reads is None else reads,
        masked.positions if positions is None else positions,
        inputs.visible,
        masked.token_type_ids,
        seeds_of(inputs, key, GENERATOR_DROPOUT_KEY, deterministic),
        method=method,
    )


def discriminate(
    params: Any,
    inputs: Inputs,
    ids: jax.Array,
    key: jax.Array,
    *,
    apply_fn: Callable,
    deterministic: bool,
) -> jax.Array:
    """The discriminator's logits on int [B, L]: float32 [B, L]."""
    return apply_fn(
        {"params": params},
        ids,
        inputs.visible,
        inputs.masked.token_type_ids,
        seeds_of(inputs, key, DISCRIMINATOR_DROPOUT_KEY, deterministic),
        method="discriminate",
    )


def sampling_uniforms(inputs: Inputs, key: jax.Array, count: int) -> jax.Array:
    """What samples follow from: float32 [B, count, 2] in [0, 1)."""
    return corruption.row_uniforms(
        jax.random.fold_in(key, SAMPLING_KEY), inputs.row_ids, (count, 2)
    )


def all_positions(inputs: Inputs) -> jax.Array:
    """0 .. L - 1 in every row, int32 [B, L]."""
    ids = inputs.masked.input_ids
    return jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)


def prediction_sums(
    counted: jax.Array, predictions: Predictions, labels: jax.Array
) -> dict[str, jax.Array]:
    """Counts of a masked language model.

    Args:
      counted: bool [B, P], which predictions count.
      labels: int [B, P], the tokens that were there.
    """
    counted = counted.astype(jnp.float32)
    return {
        "masked_tokens": counted.sum(),
        "mlm_loss_sum": (predictions.losses * counted).sum(),
        "mlm_correct": (predictions.correct * counted).sum(),
        "sampled_correct": ((predictions.sampled == labels) * counted).sum(),
    }


def detection_sums(
    masked: corruption.MaskedBatch,
    judged: jax.Array,
    logits: jax.Array,
    token_losses: jax.Array,
    is_replaced: jax.Array,
) -> dict[str, jax.Array]:
    """Counts of a discriminator over the tokens that it judges; all arrays [B, L]."""
    weights = judged.astype(jnp.float32)
    predicted = logits > 0
    return {
        "tokens": masked.attention_mask.sum(dtype=jnp.float32),
        "judged_tokens": weights.sum(),
        "disc_loss_sum": (token_losses * weights).sum(),
        "disc_correct": ((predicted == is_replaced) * weights).sum(),
        "predicted_replaced": (predicted * weights).sum(),
        "replaced": (is_replaced * weights).sum(),
        "true_positives": (predicted * is_replaced * weights).sum(),
        "replaced_histogram": losses.logit_histogram(logits, weights * is_replaced),
        "original_histogram": losses.logit_histogram(logits, weights * ~is_replaced),
    }


def prediction_metrics(sums: Mapping[str, Any]) -> dict[str, float]:
    """Means of `prediction_sums`."""
    return {
        "mlm_loss": losses.ratio(sums["mlm_loss_sum"], sums["masked_tokens"]),
        "mlm_accuracy": losses.ratio(sums["mlm_correct"], sums["masked_tokens"]),
    }


def sampling_metrics(sums: Mapping[str, Any]) -> dict[str, float]:
    """How often the generator's samples were right."""
    return {"sampled_accuracy": losses.ratio(sums["sampled_correct"], sums["masked_tokens"])}


def detection_metrics(sums: Mapping[str, Any]) -> dict[str, float]:
    """Means of `detection_sums`."""
    return {
        "disc_loss": losses.ratio(sums["disc_loss_sum"], sums["judged_tokens"]),
        "disc_accuracy": losses.ratio(sums["disc_correct"], sums["judged_tokens"]),
        "disc_auc": losses.area_under_curve(sums["replaced_histogram"], sums["original_histogram"]),
        "disc_precision": losses.ratio(sums["true_positives"], sums["predicted_replaced"]),
        "disc_recall": losses.ratio(sums["true_positives"], sums["replaced"]),
        "replaced_share": losses.ratio(sums["replaced"], sums["judged_tokens"]),
    }
