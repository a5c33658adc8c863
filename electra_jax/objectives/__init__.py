"""What is learned. Each objective is three pure functions, chosen by name.

An objective has

* `prepare(key, batch, axis_name, step)`: everything that does not depend on the parameters: masks,
  labels, what is scheduled by the step, and loss weights that sum to one over the *global* batch.
  So a loss is a plain weighted sum, and adds up over micro-batches, devices and processes without
  further normalising;
* `loss(params, inputs, key, *, apply_fn, deterministic)`: that sum and a dict of sums and counts;
* `summarize(sums)`: the metrics people read, from sums added up over any number of steps.

Those of pre-training say in `model` what fields of the architecture they need, in `frozen` what
parameters they leave alone, and in `flops` what an update costs. One of your own goes into
`OBJECTIVES` under a name, in a config file: docs/objectives.md shows how.

Those of fine-tuning have one more, `predict(params, batch, *, apply_fn)`: outputs row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from electra_jax.objectives.adversarial import AdversarialObjective
from electra_jax.objectives.electra import (
    Electra15Objective,
    ElectraObjective,
    FastElectraObjective,
    TwoTowerObjective,
    UniformObjective,
)
from electra_jax.objectives.electric import ElectricObjective
from electra_jax.objectives.finetuning import FINETUNING_OBJECTIVES, FineTuningObjective
from electra_jax.objectives.language_models import (
    AllTokensMlmObjective,
    MaskedLanguageModelObjective,
    ReplaceMlmObjective,
)
from electra_jax.objectives.pretraining import PretrainingObjective

__all__ = [
    "FINETUNING_OBJECTIVES",
    "OBJECTIVES",
    "FineTuningObjective",
    "Objective",
    "PretrainingObjective",
    "Sums",
    "finetuning_loss",
    "pretraining_loss",
]

Sums = dict[str, jax.Array]


class Objective(Protocol):
    """The signature every objective has; see the module's docstring."""

    def prepare(
        self,
        key: jax.Array,
        batch: Mapping[str, jax.Array],
        axis_name: str | None = None,
        step: jax.Array | int = 0,
    ) -> Any: ...

    def loss(
        self,
        params: Any,
        inputs: Any,
        key: jax.Array,
        *,
        apply_fn: Callable,
        deterministic: bool = False,
    ) -> tuple[jax.Array, Sums]: ...

    def summarize(self, sums: Mapping[str, Any]) -> dict[str, float]: ...


OBJECTIVES: dict[str, type[PretrainingObjective]] = {
    "electra": ElectraObjective,
    "mlm": MaskedLanguageModelObjective,
    "uniform": UniformObjective,
    "two_tower": TwoTowerObjective,
    "electric": ElectricObjective,
    "electra_15": Electra15Objective,
    "replace_mlm": ReplaceMlmObjective,
    "all_tokens_mlm": AllTokensMlmObjective,
    "adversarial": AdversarialObjective,
    "fast_electra": FastElectraObjective,
}


def pretraining_loss(
    params: Any,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
    *,
    apply_fn: Callable,
    objective: Objective,
    deterministic: bool = False,
) -> tuple[jax.Array, Sums]:
    """An objective's loss on a batch of plain token ids, for research code.

    Args:
      params: parameters of the model behind `apply_fn`.
      batch: `input_ids` int [B, L] and `row_ids` int [B].
      key: PRNG key; masks, samples and dropout are functions of it.
      apply_fn: `model.apply`.

    Returns:
      The scalar loss, differentiable in `params`, and the sums behind the metrics.
    """
    return _loss_of_batch(params, batch, key, apply_fn, objective, deterministic)


def finetuning_loss(
    params: Any,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
    *,
    apply_fn: Callable,
    objective: FineTuningObjective,
    deterministic: bool = False,
) -> tuple[jax.Array, Sums]:
    """A fine-tuning objective's loss on a batch, for research code.

    Args:
      params: parameters of the model behind `apply_fn` (a `heads.FineTuned`).
      batch: `input_ids` int [B, L], `row_ids` int [B], `weights` float32 [B] and the arrays that
        the objective's `label_names` name.
      key: PRNG key; dropout is a function of it.
      apply_fn: `model.apply`.

    Returns:
      The scalar loss, differentiable in `params`, and the sums behind the metrics.
    """
    return _loss_of_batch(params, batch, key, apply_fn, objective, deterministic)


def _loss_of_batch(params, batch, key, apply_fn, objective, deterministic):
    inputs = objective.prepare(key, batch)
    return objective.loss(params, inputs, key, apply_fn=apply_fn, deterministic=deterministic)
