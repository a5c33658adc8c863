"""Electric: an energy for every token, by noise-contrastive estimation.

The encoder gives an energy E(x)_t, and p(x_t | the rest) is exp(-E(x)_t) without normalising. Of
the n tokens of a row, k are replaced by draws from a noise distribution q, that of a two-tower
generator; that a token is noise has the logit

    E(noised x)_t + log q(noised x_t | the rest of x) + log(k / (n - k))

and is trained by binary cross-entropy; a draw that happens to be the token that was there is noise
all the same. Source: Clark et al. 2020b, section 2.5 and Algorithm 2, and `electric_objective` of
the original (which takes mask_prob / (1 - mask_prob) for k / (n - k), and counts special tokens,
which are never noise).

k is fixed, so where a network can tell noise from text it learns to count: in text without any it
takes every token for noise sooner, and gives it a higher energy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax import corruption, losses
from electra_jax.errors import UserError
from electra_jax.objectives.electra import Sums, TwoTowerObjective
from electra_jax.objectives.pretraining import (
    Inputs,
    detection_sums,
    discriminate,
    prediction_sums,
)


@dataclasses.dataclass(frozen=True)
class ElectricObjective(TwoTowerObjective):
    """Electric; `energies` and `pseudo_log_likelihoods` are what it is trained for."""

    def __post_init__(self):
        super().__post_init__()
        if self.temperature_steps is not None or self.disallow_correct or self.temperature != 1.0:
            raise UserError(
                "objective.temperature, start_temperature and disallow_correct change what the "
                "noise is, and objective.name='electric' must know that: leave them as they are"
            )

    def judged(self, masked: corruption.MaskedBatch) -> jax.Array:
        """As of the base; what is never noise tells nothing."""
        return masked.candidates

    def loss(
        self,
        params: Any,
        inputs: Inputs,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, Sums]:
        """As of the base."""
        masked = inputs.masked
        loss, predictions = self.predict_all(params, inputs, key, apply_fn, deterministic)
        sampled = jnp.take_along_axis(predictions.sampled, masked.positions, axis=1)
        noised_ids, _ = corruption.corrupt(masked, sampled)
        is_noise = corruption.chosen_tokens(masked)
        log_q = -jnp.where(is_noise, predictions.sampled_losses, predictions.losses)  # [B, L]
        num_noise = is_noise.sum(axis=1, keepdims=True).astype(jnp.float32)
        num_data = masked.candidates.sum(axis=1, keepdims=True) - num_noise
        # At least 1: a row without tokens has weights of zero, and is to give no NaN.
        odds = jnp.log(jnp.maximum(num_noise, 1.0) / jnp.maximum(num_data, 1.0))

        how: dict[str, Any] = {"apply_fn": apply_fn, "deterministic": deterministic}
        energies = discriminate(params, inputs, noised_ids, key, **how)  # [B, L]
        logits = energies + jax.lax.stop_gradient(log_q) + odds
        token_losses = losses.binary_cross_entropy(logits, is_noise)
        loss = self.generator_weight * loss
        loss += self.discriminator_weight * (token_losses * inputs.discriminator_weights).sum()
        sums = prediction_sums(masked.candidates, predictions, masked.input_ids)
        sums |= detection_sums(masked, masked.candidates, logits, token_losses, is_noise)
        return loss, jax.lax.stop_gradient(sums)


def pseudo_log_likelihoods(
    logits: jax.Array, input_ids: jax.Array, *, special: tuple[int, ...]
) -> jax.Array:
    """sum_t -E(x)_t over tokens that are not special: float32 [B].

    Args:
      logits: float32 [B, L], the energies: what the discriminator of Electric gives.
      input_ids: int [B, L].
      special: ids of padding and the like.
    """
    counted = ~jnp.isin(input_ids, jnp.asarray(special))
    return -jnp.where(counted, logits, 0.0).sum(axis=1)
