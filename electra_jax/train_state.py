"""The state of a training run: one pytree."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import train_state


class TrainState(train_state.TrainState):
    """`step`, `params`, `opt_state` and `rng`; `apply_fn` and `tx` are static.

    `step` is the number of steps taken, those left out as not finite included. `rng` never
    changes: a step's key is `fold_in(rng, step)`, so there is no position in a random stream to
    keep.
    """

    rng: jax.Array


@functools.partial(jax.jit, static_argnames=("model", "seq_len"))
def init_params(key: jax.Array, model: nn.Module, *, seq_len: int) -> Any:
    """Fresh float32 parameters. The forward pass is traced only, never run."""
    return model.init(key, jnp.zeros((1, seq_len), jnp.int32))["params"]


def create_train_state(
    key: jax.Array, model: nn.Module, tx: optax.GradientTransformation, *, seq_len: int
) -> TrainState:
    """A fresh state at step 0.

    Args:
      key: PRNG key; parameters and everything random of the run follow from it.
      model: an `Electra` (or any module whose `init` takes int [B, L]).
      tx: an optax transformation.
      seq_len: length of the rows the model is initialised on (tokens).
    """
    init_key, run_key = jax.random.split(key)
    params = init_params(init_key, model=model, seq_len=seq_len)
    return TrainState(
        step=jnp.zeros((), jnp.int32),  # strongly typed, as after a restore: compiles once
        apply_fn=model.apply,
        params=params,
        tx=tx,
        opt_state=jax.jit(tx.init)(params),
        rng=run_key,
    )
