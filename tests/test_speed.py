"""What is lost by accident makes a step slower without making it wrong: bounds on the program.

Products and their dtypes are counted in test_parallel.py and test_modeling.py, compilations in
runs/test_resume.py.
"""

import functools
import re

import jax
import numpy as np
import pytest

from electra_jax.objectives.electra import ElectraObjective
from electra_jax.optimizer import make_optimizer
from electra_jax.parallel import abstract, make_mesh, parallelize, state_shardings
from electra_jax.steps import train_steps
from electra_jax.train_state import create_train_state


@pytest.fixture(scope="module")
def compiled(model, objective, batch):
    """Two steps in one program for one device, with the real optimiser."""
    mesh = make_mesh(num_devices=1)
    tx = make_optimizer(learning_rate=1e-3, warmup_steps=2, num_train_steps=10)

    def make():
        return create_train_state(jax.random.key(0), model, tx, seq_len=32)

    objective = ElectraObjective(objective.vocab_size, objective.special_ids, rows_at_once=16)
    step = parallelize(functools.partial(train_steps, objective=objective), mesh, rows_axis=1)
    state = abstract(make, functools.partial(state_shardings, mesh=mesh))
    step.compile(state, {name: np.stack([x, x]) for name, x in batch.items()})
    return step, state


def size(tree):
    return sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def test_the_new_state_takes_the_place_of_the_old_one(compiled):
    step, state = compiled
    assert step.memory_reused() >= size((state.params, state.opt_state))


def test_temporary_memory_is_bounded(compiled):
    """3.3 MB when this was written: activations of 8 x 32 tokens, and gradients."""
    assert compiled[0].memory_needed()["temporary"] < 4_000_000


def test_the_program_has_few_parts(compiled):
    """792 fusions and 71 products when this was written: what is not fused goes through memory once
    more, and a product too many is work done twice.
    """
    text = compiled[0].compiled_text()
    assert len(re.findall(r" fusion\(", text)) < 950
    assert len(re.findall(r" dot\(", text)) <= 75
