"""Objectives that predict tokens with the encoder itself: what ELECTRA is compared with.

Source: Clark et al. 2020, section 3.5 and Table 5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax import corruption, losses
from electra_jax.config import ElectraConfig
from electra_jax.flops import discriminator_flops, generator_flops, token_head_flops
from electra_jax.objectives.electra import ElectraObjective, Sums
from electra_jax.objectives.pretraining import (
    DISCRIMINATOR_DROPOUT_KEY,
    Inputs,
    PretrainingObjective,
    detection_sums,
    generate,
    prediction_metrics,
    prediction_sums,
    sampling_uniforms,
    seeds_of,
)
from electra_jax.vocabulary import predict_tokens, token_losses


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModelObjective(PretrainingObjective):
    """BERT's masked language model, on the encoder that ELECTRA would train as discriminator.

    With the masks of the original's `electra_objective=False`: 85 % of the chosen tokens are hidden
    behind [MASK], the others unchanged, none replaced at random.
    """

    model = {"sharing": ("all",)}

    def loss(
        self,
        params: Any,
        inputs: Inputs,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, Sums]:
        """Mean of -log p(x_t | masked x) over masked positions, and the sums behind the metrics."""
        masked = inputs.masked
        how: dict[str, Any] = {"apply_fn": apply_fn, "deterministic": deterministic}
        projection = generate(params, inputs, key, **how)
        loss, predictions = predict_tokens(
            projection,
            masked.labels,
            inputs.generator_weights,
            sampling_uniforms(inputs, key, masked.labels.shape[1]),
            rows_at_once=self.rows_at_once,
        )
        sums = prediction_sums(masked.chosen, predictions, masked.labels)
        sums["tokens"] = masked.attention_mask.sum(dtype=jnp.float32)
        del sums["sampled_correct"]
        return loss, jax.lax.stop_gradient(sums)

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Means over everything that was added up."""
        metrics = prediction_metrics(sums)
        return {"loss": metrics["mlm_loss"]} | metrics

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """As of the base."""
        sizes: dict[str, Any] = {"batch_size": batch_size, "seq_len": seq_len}
        return 3.0 * generator_flops(config, predicted=self.max_masked(seq_len), **sizes)


@dataclasses.dataclass(frozen=True)
class ReplaceMlmObjective(ElectraObjective):
    """Replace MLM: a masked language model that reads a generator's samples instead of [MASK].

    Attributes:
      discriminator_weight: of the encoder's loss. (The paper does not say; 1 is that of the
        generator's, which is trained as in ELECTRA.)
    """

    discriminator_weight: float = 1.0

    model = {"extra_head": ("tokens",)}

    def loss(
        self,
        params: Any,
        inputs: Inputs,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, Sums]:
        """The weighted sum of the generator's loss and the encoder's, and sums."""
        masked = inputs.masked
        loss, sampled, sums = self.fill(params, inputs, key, apply_fn, deterministic)
        ids, is_replaced = corruption.corrupt(masked, sampled)
        projection, _ = _reconstruct(params, inputs, ids, key, apply_fn, deterministic)
        encoder_loss, predictions = predict_tokens(
            projection,
            masked.labels,
            inputs.generator_weights,
            sampling_uniforms(inputs, key, masked.labels.shape[1]),
            rows_at_once=self.rows_at_once,
        )
        chosen = masked.chosen.astype(jnp.float32)
        sums |= {
            "encoder_loss_sum": (predictions.losses * chosen).sum(),
            "encoder_correct": (predictions.correct * chosen).sum(),
            "replaced": is_replaced.sum(dtype=jnp.float32),
            "tokens": masked.attention_mask.sum(dtype=jnp.float32),
        }
        loss += self.discriminator_weight * encoder_loss
        return loss, jax.lax.stop_gradient(sums)

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Means over everything that was added up."""
        metrics = prediction_metrics(sums) | {
            "encoder_loss": losses.ratio(sums["encoder_loss_sum"], sums["masked_tokens"]),
            "encoder_accuracy": losses.ratio(sums["encoder_correct"], sums["masked_tokens"]),
            "replaced_share": losses.ratio(sums["replaced"], sums["tokens"]),
        }
        loss = self.generator_weight * metrics["mlm_loss"]
        loss += self.discriminator_weight * metrics["encoder_loss"]
        return {"loss": loss} | metrics

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """As of the base."""
        predicted = self.max_masked(seq_len)
        sizes: dict[str, Any] = {"batch_size": batch_size, "seq_len": seq_len}
        return 3.0 * (
            generator_flops(config, predicted=predicted, **sizes)
            + discriminator_flops(config, judged=predicted, head=False, **sizes)
            + token_head_flops(config, batch_size * predicted)
        )


@dataclasses.dataclass(frozen=True)
class AllTokensMlmObjective(ElectraObjective):
    """All-Tokens MLM: predicts the token of every position, with a gate that copies the input.

        p(x_t | corrupted x) = D_t [corrupted_t = x_t] + (1 - D_t) softmax_t(x_t)

    where D_t = 1 - sigmoid(the discriminator's logit). The loss is the mean over all tokens.

    Attributes:
      discriminator_weight: of that loss. (The paper does not say; a mean over all tokens is as many
        times smaller than ELECTRA's generator's as ELECTRA's own, for which 50 was found.)
    """

    model = {"extra_head": ("tokens",)}

    def loss(
        self,
        params: Any,
        inputs: Inputs,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, Sums]:
        """The weighted sum of the generator's loss and the encoder's, and sums."""
        masked = inputs.masked
        loss, sampled, sums = self.fill(params, inputs, key, apply_fn, deterministic)
        ids, is_replaced = corruption.corrupt(masked, sampled)
        projection, logits = _reconstruct(
            params, inputs, ids, key, apply_fn, deterministic, everywhere=True
        )
        from_table = token_losses(projection, masked.input_ids, rows_at_once=self.rows_at_once)
        # log of D and of 1 - D; the gate's "replaced" is the logit's sign.
        copied = jnp.where(is_replaced, -jnp.inf, jax.nn.log_sigmoid(-logits))
        of_tokens = -jnp.logaddexp(copied, jax.nn.log_sigmoid(logits) - from_table)  # [B, L]
        loss += self.discriminator_weight * (of_tokens * inputs.discriminator_weights).sum()
        gates = losses.binary_cross_entropy(logits, is_replaced)
        sums |= detection_sums(masked, masked.attention_mask, logits, gates, is_replaced)
        sums["encoder_loss_sum"] = (of_tokens * masked.attention_mask).sum()
        return loss, jax.lax.stop_gradient(sums)

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Means over everything that was added up; `disc_` are those of the gate."""
        metrics = super().summarize(sums)
        encoder_loss = losses.ratio(sums["encoder_loss_sum"], sums["tokens"])
        loss = self.generator_weight * metrics["mlm_loss"]
        loss += self.discriminator_weight * encoder_loss
        return metrics | {"loss": loss, "encoder_loss": encoder_loss}

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """As of the base; the product with the table is computed again backwards."""
        sizes: dict[str, Any] = {"batch_size": batch_size, "seq_len": seq_len}
        tokens = batch_size * seq_len
        again = 2 * tokens * config.embedding_size * config.vocab_size
        return again + 3.0 * (
            generator_flops(config, predicted=self.max_masked(seq_len), **sizes)
            + discriminator_flops(config, **sizes)
            + token_head_flops(config, tokens)
        )


def _reconstruct(params, inputs, ids, key, apply_fn, deterministic, *, everywhere=False) -> Any:
    masked = inputs.masked
    return apply_fn(
        {"params": params},
        ids,
        None if everywhere else masked.positions,
        inputs.visible,
        masked.token_type_ids,
        seeds_of(inputs, key, DISCRIMINATOR_DROPOUT_KEY, deterministic),
        method="reconstruct",
    )
