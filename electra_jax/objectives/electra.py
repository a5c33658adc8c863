"""Replaced-token detection: ELECTRA and the ways of choosing the replacements.

    loss = generator_weight * E[-log p_G(x_t | masked x)] over masked positions t
         + discriminator_weight * E[-log p_D(replaced_t | corrupted x)] over all tokens t

(Clark et al. 2020, section 3.1.) The sampling between the two passes no gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax import corruption, losses
from electra_jax.config import ElectraConfig
from electra_jax.errors import UserError
from electra_jax.flops import discriminator_flops, generator_flops, train_step_flops
from electra_jax.objectives.pretraining import (
    Inputs,
    PretrainingObjective,
    all_positions,
    detection_metrics,
    detection_sums,
    discriminate,
    generate,
    prediction_metrics,
    prediction_sums,
    sampling_metrics,
    sampling_uniforms,
)
from electra_jax.vocabulary import Predictions, Projection, predict_tokens

Sums = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class ReplacedTokenDetection(PretrainingObjective):
    """The discriminator's part; where the replacements come from is for others to say (`fill`).

    Attributes:
      discriminator_weight: of its loss.
    """

    discriminator_weight: float = 50.0

    def fill(
        self, params: Any, inputs: Inputs, key: jax.Array, apply_fn: Callable, deterministic: bool
    ) -> tuple[jax.Array | float, jax.Array, Sums]:
        """A weighted loss of the generator, samples int32 [B, P], and sums."""
        raise NotImplementedError

    def loss(
        self,
        params: Any,
        inputs: Inputs,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, Sums]:
        """The weighted sum of the two losses, and the sums behind the metrics."""
        loss, sampled, sums = self.fill(params, inputs, key, apply_fn, deterministic)
        judged_loss, _, judged_sums = self.judge(
            params, inputs, sampled, key, apply_fn, deterministic
        )
        return loss + judged_loss, jax.lax.stop_gradient(sums | judged_sums)

    def judge(
        self,
        params: Any,
        inputs: Inputs,
        sampled: jax.Array,
        key: jax.Array,
        apply_fn: Callable,
        deterministic: bool,
    ) -> tuple[jax.Array, jax.Array, Sums]:
        """The discriminator's weighted loss on text with the samples, of each token, and sums."""
        masked = inputs.masked
        corrupted_ids, is_replaced = corruption.corrupt(masked, sampled)
        how: dict[str, Any] = {"apply_fn": apply_fn, "deterministic": deterministic}
        logits = discriminate(params, inputs, corrupted_ids, key, **how)  # [B, L]
        token_losses = losses.binary_cross_entropy(logits, is_replaced)  # [B, L]
        loss = self.discriminator_weight * (token_losses * inputs.discriminator_weights).sum()
        sums = detection_sums(masked, self.judged(masked), logits, token_losses, is_replaced)
        return loss, token_losses, sums

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Means over everything that was added up; pads and unused slots count nowhere."""
        metrics = detection_metrics(sums)
        return {"loss": self.discriminator_weight * metrics["disc_loss"]} | metrics


@dataclasses.dataclass(frozen=True)
class UniformObjective(ReplacedTokenDetection):
    """Replacements drawn uniformly from the vocabulary; there is no generator.

    Source: `uniform_generator` of the original, special tokens included, as there.
    """

    model = {"generator_kind": ("none",), "sharing": ("embeddings",)}

    def fill(self, params, inputs, key, apply_fn, deterministic):
        """As of the base; no loss and no sums."""
        uniforms = sampling_uniforms(inputs, key, inputs.masked.positions.shape[1])[..., 0]
        drawn = jnp.minimum((uniforms * self.vocab_size).astype(jnp.int32), self.vocab_size - 1)
        return 0.0, drawn, {}

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """As of the base."""
        return 3.0 * discriminator_flops(config, batch_size=batch_size, seq_len=seq_len)


@dataclasses.dataclass(frozen=True)
class ElectraObjective(ReplacedTokenDetection):
    """Replacements from a generator that is trained beside the discriminator.

    Attributes:
      generator_weight: of its loss.
      temperature: the generator's logits are divided by it before sampling.
      start_temperature, temperature_steps: the temperature begins with this one and comes nearer to
        `temperature`, in so many steps by a factor of e; None: it stays.
      disallow_correct: whether the token that was there is never sampled.
    """

    generator_weight: float = 1.0
    temperature: float = 1.0
    start_temperature: float | None = None
    temperature_steps: int | None = None
    disallow_correct: bool = False

    def temperature_at(self, step: jax.Array | int, num_rows: int) -> jax.Array | None:
        """As of the base: T + (T0 - T) exp(-step / steps)."""
        if self.temperature_steps is None or self.start_temperature is None:
            return None
        left = jnp.exp(-jnp.asarray(step, jnp.float32) / self.temperature_steps)
        now = self.temperature + left * (self.start_temperature - self.temperature)
        return jnp.broadcast_to(now, (num_rows, 1, 1))

    def predict(
        self,
        projection: Projection,
        labels: jax.Array,
        inputs: Inputs,
        key: jax.Array,
    ) -> tuple[jax.Array, Predictions]:
        """The generator's loss, and what it predicts and samples."""
        return predict_tokens(
            projection,
            labels,
            inputs.generator_weights,
            sampling_uniforms(inputs, key, labels.shape[1]),
            temperature=self.temperature if inputs.temperature is None else inputs.temperature,
            disallow_correct=self.disallow_correct,
            rows_at_once=self.rows_at_once,
        )

    def fill(self, params, inputs, key, apply_fn, deterministic):
        """As of the base."""
        how: dict[str, Any] = {"apply_fn": apply_fn, "deterministic": deterministic}
        projection = generate(params, inputs, key, **how)
        masked = inputs.masked
        loss, predictions = self.predict(projection, masked.labels, inputs, key)
        sums = prediction_sums(masked.chosen, predictions, masked.labels)
        return self.generator_weight * loss, predictions.sampled, sums

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """As of the base."""
        detected = super().summarize(sums)
        predicted = prediction_metrics(sums)
        loss = self.generator_weight * predicted["mlm_loss"] + detected["loss"]
        return detected | predicted | sampling_metrics(sums) | {"loss": loss}

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """As of the base."""
        predicted = self.max_masked(seq_len)
        return train_step_flops(
            config, batch_size=batch_size, seq_len=seq_len, max_masked=predicted
        )


@dataclasses.dataclass(frozen=True)
class Electra15Objective(ElectraObjective):
    """ELECTRA 15 %: the discriminator judges the masked positions alone.

    Source: Clark et al. 2020, section 3.5 and Table 5.
    """

    def judged(self, masked: corruption.MaskedBatch) -> jax.Array:
        """As of the base."""
        return corruption.chosen_tokens(masked)


@dataclasses.dataclass(frozen=True)
class TwoTowerObjective(ElectraObjective):
    """Replacements from two encoders, one reading to each side of a position.

    Such a generator needs no [MASK]: it reads the text itself, and learns from all its tokens.
    Source: `two_tower_generator` of the original; Clark et al. 2020b (Electric), section 2.3.
    """

    model = {"generator_kind": ("two_towers",)}

    def predicted(self, masked: corruption.MaskedBatch) -> jax.Array:
        """As of the base; every position but special tokens."""
        return masked.candidates

    def predict_all(
        self, params, inputs, key, apply_fn, deterministic
    ) -> tuple[jax.Array, Predictions]:
        """The generator's loss over all positions, and its predictions [B, L]."""
        ids = inputs.masked.input_ids
        where: dict[str, Any] = {"positions": all_positions(inputs), "reads": ids}
        how: dict[str, Any] = {"apply_fn": apply_fn, "deterministic": deterministic}
        projection = generate(params, inputs, key, **where, **how)
        return self.predict(projection, ids, inputs, key)

    def fill(self, params, inputs, key, apply_fn, deterministic):
        """As of the base."""
        masked = inputs.masked
        loss, predictions = self.predict_all(params, inputs, key, apply_fn, deterministic)
        sampled = jnp.take_along_axis(predictions.sampled, masked.positions, axis=1)
        sums = prediction_sums(masked.candidates, predictions, masked.input_ids)
        return self.generator_weight * loss, sampled, sums

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """As of the base."""
        return train_step_flops(config, batch_size=batch_size, seq_len=seq_len, max_masked=seq_len)


@dataclasses.dataclass(frozen=True)
class FastElectraObjective(ElectraObjective):
    """Replacements from a generator that was trained before and stays as it is.

    With `start_temperature` above 1 they grow harder as training goes on. Source: Dong et al. 2024
    (Fast-ELECTRA); with temperature 1 the second stage of "two-stage" training of Clark et al.
    2020, section 3.2.
    """

    model = {"sharing": ("apart", "none")}
    frozen = ("^generator_",)

    def __post_init__(self):
        super().__post_init__()
        if self.generator_weight != 1.0:
            raise UserError(
                f"objective.generator_weight={self.generator_weight}, but the generator of "
                "'fast_electra' is not trained: leave it out"
            )

    def fill(self, params, inputs, key, apply_fn, deterministic):
        """As of the base; no loss, and no dropout in the generator."""
        del deterministic
        fixed = jax.lax.stop_gradient(params)
        projection = generate(fixed, inputs, key, apply_fn=apply_fn, deterministic=True)
        masked = inputs.masked
        _, predictions = self.predict(projection, masked.labels, inputs, key)
        return (
            0.0,
            predictions.sampled,
            prediction_sums(masked.chosen, predictions, masked.labels),
        )

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """As of the base; the loss is the discriminator's alone."""
        metrics = super().summarize(sums)
        return metrics | {"loss": self.discriminator_weight * metrics["disc_loss"]}

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """As of the base; the generator runs forward alone."""
        sizes: dict[str, Any] = {"batch_size": batch_size, "seq_len": seq_len}
        predicted = self.max_masked(seq_len)
        forward = generator_flops(config, predicted=predicted, **sizes)
        return forward + 3.0 * discriminator_flops(config, **sizes)
