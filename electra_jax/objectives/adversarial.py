"""A generator that is trained to make the discriminator fail, by policy gradient.

With R_t the discriminator's loss at a masked position t and b_t a learned guess of it,

    loss of the generator = - sum_t (R_t - b_t) log p_G(sample_t | masked x)

so that samples which were hard to tell become likelier. exp(-b_t) is a sigmoid of the generator's
hidden state, trained by cross-entropy towards exp(-R_t). Source: Clark et al. 2020, Appendix F; it
leaves open how R and the loss are weighted, and whether the baseline trains the generator's encoder
(here it does not). The paper found it worse than maximum likelihood.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax import losses
from electra_jax.config import ElectraConfig
from electra_jax.objectives.electra import ElectraObjective, Sums
from electra_jax.objectives.pretraining import (
    Inputs,
    generate,
    prediction_sums,
    sampling_uniforms,
)
from electra_jax.vocabulary import predict_tokens


@dataclasses.dataclass(frozen=True)
class AdversarialObjective(ElectraObjective):
    """As `ElectraObjective`, but for the generator's loss.

    Attributes:
      generator_weight: of the policy gradient's and the baseline's losses.
    """

    model = {"extra_head": ("baseline",)}

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
        how: dict[str, Any] = {"apply_fn": apply_fn, "deterministic": deterministic}
        projection, guesses = generate(params, inputs, key, method="project_and_judge", **how)
        fixed = jax.lax.stop_gradient(projection)
        _, predictions = self.predict(fixed, masked.labels, inputs, key)
        loss, token_losses, sums = self.judge(
            params, inputs, predictions.sampled, key, apply_fn, deterministic
        )

        rewards = jnp.take_along_axis(token_losses, masked.positions, axis=1)  # [B, P]
        rewards = jax.lax.stop_gradient(rewards)
        baselines = jax.nn.softplus(-guesses)  # -log sigmoid
        advantages = jax.lax.stop_gradient(rewards - baselines)
        policy_loss, _ = predict_tokens(  # of what was sampled, not of what was there
            projection,
            predictions.sampled,
            inputs.generator_weights * advantages,
            sampling_uniforms(inputs, key, masked.labels.shape[1]),
            rows_at_once=self.rows_at_once,
        )
        baseline_losses = losses.binary_cross_entropy(guesses, jnp.exp(-rewards))
        baseline_loss = (baseline_losses * inputs.generator_weights).sum()
        loss += self.generator_weight * (policy_loss + baseline_loss)
        chosen = masked.chosen.astype(jnp.float32)
        sums |= prediction_sums(masked.chosen, predictions, masked.labels) | {
            "reward_sum": (rewards * chosen).sum(),
            "baseline_sum": (baselines * chosen).sum(),
            "policy_loss_sum": (advantages * predictions.sampled_losses * chosen).sum(),
            "baseline_loss_sum": (baseline_losses * chosen).sum(),
        }
        return loss, jax.lax.stop_gradient(sums)

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """As of the base; the loss holds what is trained, not the loss of a language model."""
        metrics = super().summarize(sums)
        means = {
            name: losses.ratio(sums[f"{name}_sum"], sums["masked_tokens"])
            for name in ("reward", "baseline", "policy_loss", "baseline_loss")
        }
        loss = self.discriminator_weight * metrics["disc_loss"]
        loss += self.generator_weight * (means["policy_loss"] + means["baseline_loss"])
        return metrics | means | {"loss": loss}

    def flops(self, config: ElectraConfig, *, batch_size: int, seq_len: int) -> float | None:
        """As of the base; the logits are computed once more, for sampling."""
        update = super().flops(config, batch_size=batch_size, seq_len=seq_len) or 0.0
        predicted = batch_size * self.max_masked(seq_len)
        return update + 2 * predicted * config.generator_embedding_size * config.vocab_size
