"""ELECTRA in JAX: pre-training, fine-tuning and use, as small pure functions.

config -> corpus -> batch_at(step) -> train_step(state, batch) -> metrics, checkpoint
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from electra_jax.config import ElectraConfig
    from electra_jax.data import Corpus, TokenBatches, documentation_corpus, prepare_corpus
    from electra_jax.dropout import dropout_seeds
    from electra_jax.errors import UserError
    from electra_jax.heads import FineTuned, SequenceHead, SpanHead, TokenHead
    from electra_jax.inference import TextModel
    from electra_jax.modeling import Electra
    from electra_jax.objectives import (
        FINETUNING_OBJECTIVES,
        OBJECTIVES,
        finetuning_loss,
        pretraining_loss,
    )
    from electra_jax.objectives.electra import ElectraObjective
    from electra_jax.optimizer import make_optimizer
    from electra_jax.parallel import make_mesh, parallelize, replicate
    from electra_jax.pretrained import Pretrained, from_pretrained, load_pretrained
    from electra_jax.special_ids import SpecialIds
    from electra_jax.steps import eval_step, predict_step, train_step
    from electra_jax.train_state import TrainState, create_train_state
    from electra_jax.transfer import transfer_params

__version__ = "0.1.0"

# Where each public name is. They are imported at their first use: preparing a corpus needs no JAX,
# which takes seconds and two hundred megabytes in each of its processes.
_MODULES = {
    "config": ("ElectraConfig",),
    "data": ("Corpus", "TokenBatches", "documentation_corpus", "prepare_corpus"),
    "dropout": ("dropout_seeds",),
    "errors": ("UserError",),
    "heads": ("FineTuned", "SequenceHead", "SpanHead", "TokenHead"),
    "modeling": ("Electra",),
    "objectives": ("FINETUNING_OBJECTIVES", "OBJECTIVES", "finetuning_loss", "pretraining_loss"),
    "objectives.electra": ("ElectraObjective",),
    "optimizer": ("make_optimizer",),
    "parallel": ("make_mesh", "parallelize", "replicate"),
    "inference": ("TextModel",),
    "pretrained": ("Pretrained", "from_pretrained", "load_pretrained"),
    "special_ids": ("SpecialIds",),
    "steps": ("eval_step", "predict_step", "train_step"),
    "train_state": ("TrainState", "create_train_state"),
    "transfer": ("transfer_params",),
}

__all__ = [
    "Corpus",
    "Electra",
    "ElectraConfig",
    "ElectraObjective",
    "FINETUNING_OBJECTIVES",
    "FineTuned",
    "OBJECTIVES",
    "Pretrained",
    "SequenceHead",
    "SpanHead",
    "SpecialIds",
    "TextModel",
    "TokenBatches",
    "TokenHead",
    "TrainState",
    "UserError",
    "create_train_state",
    "documentation_corpus",
    "dropout_seeds",
    "eval_step",
    "finetuning_loss",
    "from_pretrained",
    "load_pretrained",
    "make_mesh",
    "make_optimizer",
    "parallelize",
    "predict_step",
    "prepare_corpus",
    "pretraining_loss",
    "replicate",
    "train_step",
    "transfer_params",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"electra_jax.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'electra_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
