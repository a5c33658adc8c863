"""ELECTRA in JAX: pre-training, fine-tuning and use, as small pure functions.

config -> corpus -> batch_at(step) -> train_step(state, batch) -> metrics, checkpoint
"""

from electra_jax.config import ElectraConfig
from electra_jax.data import Corpus, TokenBatches, documentation_corpus, prepare_corpus
from electra_jax.dropout import dropout_seeds
from electra_jax.errors import UserError
from electra_jax.modeling import Electra
from electra_jax.objectives import OBJECTIVES, pretraining_loss
from electra_jax.objectives.electra import ElectraObjective
from electra_jax.optimizer import make_optimizer
from electra_jax.parallel import make_mesh, parallelize, replicate
from electra_jax.special_ids import SpecialIds
from electra_jax.steps import eval_step, train_step
from electra_jax.train_state import TrainState, create_train_state

__version__ = "0.1.0"

__all__ = [
    "OBJECTIVES",
    "SpecialIds",
    "Corpus",
    "Electra",
    "ElectraConfig",
    "ElectraObjective",
    "TokenBatches",
    "TrainState",
    "UserError",
    "create_train_state",
    "documentation_corpus",
    "dropout_seeds",
    "eval_step",
    "make_mesh",
    "make_optimizer",
    "parallelize",
    "prepare_corpus",
    "pretraining_loss",
    "replicate",
    "train_step",
]
