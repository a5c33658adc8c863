"""ELECTRA: a generator fills masked positions, the discriminator tells replaced from original.

    loss = generator_weight * E[-log p_G(x_t | masked x)] over masked positions t
         + discriminator_weight * E[-log p_D(replaced_t | corrupted x)] over all tokens t

(Clark et al. 2020, section 3.1.) The sampling between the two passes no gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from electra_jax import corruption, losses
from electra_jax.dropout import dropout_seeds
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds
from electra_jax.vocabulary import predict_tokens

# Each random decision of a step has a key of its own: fold_in(step key, one of these).
_MASKING, _SAMPLING, _GENERATOR_DROPOUT, _DISCRIMINATOR_DROPOUT = range(4)


class Inputs(flax.struct.PyTreeNode):
    """What the loss needs besides parameters.

    Attributes:
      masked: the batch with its masked positions.
      row_ids: int [B], a number of its own for each row of the global batch.
      generator_weights: float32 [B, P], of each masked position; they sum to one.
      discriminator_weights: float32 [B, L], of each token; they sum to one; 0 at padding.
    """

    masked: corruption.MaskedBatch
    row_ids: jax.Array
    generator_weights: jax.Array
    discriminator_weights: jax.Array


@dataclasses.dataclass(frozen=True)
class ElectraObjective:
    """The objective's numbers; defaults are those of Clark et al. 2020, Table 6.

    Attributes:
      vocab_size: V; samples lie below it.
      special_ids: the tokenizer's.
      mask_prob: share of the tokens that are masked.
      generator_weight, discriminator_weight: weights of the two losses (1 and 50).
      temperature: the generator's logits are divided by it before sampling.
      rows_at_once: masked positions whose logits exist at a time, as of
        `vocabulary.predict_tokens`; None: all.

    Raises:
      UserError: for a number out of its range.
    """

    vocab_size: int
    special_ids: SpecialIds
    mask_prob: float = 0.15
    generator_weight: float = 1.0
    discriminator_weight: float = 50.0
    temperature: float = 1.0
    rows_at_once: int | None = None

    def __post_init__(self):
        for name, valid, wanted in (
            ("mask_prob", lambda value: 0 < value < 1, "lie between 0 and 1"),
            ("generator_weight", lambda value: value >= 0, "not be negative"),
            ("discriminator_weight", lambda value: value >= 0, "not be negative"),
            ("temperature", lambda value: value > 0, "be positive"),
        ):
            value = getattr(self, name)
            # Research code may pass a traced value, to differentiate or map over it.
            if isinstance(value, int | float) and not valid(value):
                raise UserError(f"objective.{name}={value} must {wanted}")

    def prepare(
        self,
        key: jax.Array,
        batch: Mapping[str, jax.Array],
        axis_name: str | None = None,
        step: jax.Array | int = 0,
    ) -> Inputs:
        """Masks a batch: `input_ids` int [B, L], `row_ids` int [B]."""
        input_ids, row_ids = batch["input_ids"], batch["row_ids"]
        masked = corruption.mask_tokens(
            jax.random.fold_in(key, _MASKING),
            input_ids,
            row_ids,
            mask_prob=self.mask_prob,
            max_masked=corruption.max_masked_positions(input_ids.shape[1], self.mask_prob),
            pad_id=self.special_ids.pad,
            cls_id=self.special_ids.cls,
            sep_id=self.special_ids.sep,
            mask_id=self.special_ids.mask,
        )
        return Inputs(
            masked=masked,
            row_ids=row_ids,
            generator_weights=losses.shares(masked.chosen, axis_name),
            discriminator_weights=losses.shares(masked.attention_mask, axis_name),
        )

    def loss(
        self,
        params: Any,
        inputs: Inputs,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted sum of the two losses, and the sums behind the metrics."""
        masked, row_ids = inputs.masked, inputs.row_ids

        def seeds(purpose):
            purpose_key = jax.random.fold_in(key, purpose)
            return None if deterministic else dropout_seeds(purpose_key, row_ids)

        projection = apply_fn(
            {"params": params},
            masked.masked_ids,
            masked.positions,
            masked.attention_mask,
            masked.token_type_ids,
            seeds(_GENERATOR_DROPOUT),
            method="project",
        )
        sampling_key = jax.random.fold_in(key, _SAMPLING)
        generator_loss, predictions = predict_tokens(
            projection,
            masked.labels,
            inputs.generator_weights,
            corruption.row_uniforms(sampling_key, row_ids, masked.positions.shape[1:] + (2,)),
            temperature=self.temperature,
            rows_at_once=self.rows_at_once,
        )
        corrupted_ids, is_replaced = corruption.corrupt(masked, predictions.sampled)

        discriminator_logits = apply_fn(  # [B, L]
            {"params": params},
            corrupted_ids,
            masked.attention_mask,
            masked.token_type_ids,
            seeds(_DISCRIMINATOR_DROPOUT),
            method="discriminate",
        )
        replaced_losses = losses.binary_cross_entropy(discriminator_logits, is_replaced)  # [B, L]

        loss = self.generator_weight * generator_loss
        loss += self.discriminator_weight * (replaced_losses * inputs.discriminator_weights).sum()
        sums = _generator_sums(masked, predictions)
        sums |= _discriminator_sums(
            masked.attention_mask, discriminator_logits, replaced_losses, is_replaced
        )
        return loss, jax.lax.stop_gradient(sums)

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Means over everything that was added up; pads and unused slots count nowhere."""
        mlm_loss = losses.ratio(sums["mlm_loss_sum"], sums["masked_tokens"])
        disc_loss = losses.ratio(sums["disc_loss_sum"], sums["tokens"])
        return {
            "loss": self.generator_weight * mlm_loss + self.discriminator_weight * disc_loss,
            "mlm_loss": mlm_loss,
            "mlm_accuracy": losses.ratio(sums["mlm_correct"], sums["masked_tokens"]),
            "sampled_accuracy": losses.ratio(sums["sampled_correct"], sums["masked_tokens"]),
            "disc_loss": disc_loss,
            "disc_accuracy": losses.ratio(sums["disc_correct"], sums["tokens"]),
            "disc_auc": losses.area_under_curve(
                sums["replaced_histogram"], sums["original_histogram"]
            ),
            "disc_precision": losses.ratio(sums["true_positives"], sums["predicted_replaced"]),
            "disc_recall": losses.ratio(sums["true_positives"], sums["replaced"]),
            "replaced_share": losses.ratio(sums["replaced"], sums["tokens"]),
        }


def _generator_sums(masked, predictions) -> dict[str, jax.Array]:
    chosen = masked.chosen.astype(jnp.float32)
    return {
        "masked_tokens": chosen.sum(),
        "mlm_loss_sum": (predictions.losses * chosen).sum(),
        "mlm_correct": (predictions.correct * chosen).sum(),
        "sampled_correct": ((predictions.sampled == masked.labels) * chosen).sum(),
    }


def _discriminator_sums(attention_mask, logits, replaced_losses, is_replaced):
    weights = attention_mask.astype(jnp.float32)
    predicted = logits > 0
    return {
        "tokens": weights.sum(),
        "disc_loss_sum": (replaced_losses * weights).sum(),
        "disc_correct": ((predicted == is_replaced) * weights).sum(),
        "predicted_replaced": (predicted * weights).sum(),
        "replaced": (is_replaced * weights).sum(),
        "true_positives": (predicted * is_replaced * weights).sum(),
        "replaced_histogram": losses.logit_histogram(logits, weights * is_replaced),
        "original_histogram": losses.logit_histogram(logits, weights * ~is_replaced),
    }
