"""How a state is updated: pure functions, the same on one device and on many.

With `axis_name=None` a step sees the global batch (`jit` over a mesh). With an axis name it sees
one device's rows (`pmap`) and adds up over the axis.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from electra_jax.objectives import FineTuningObjective, Objective, Sums
from electra_jax.train_state import TrainState

# Folded into the run's key instead of a step number: no step ever has it.
_EVALUATION = 2**32 - 1


def train_step(
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    objective: Objective,
    num_microbatches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Sums]:
    """One update.

    A step whose loss or gradient is not finite leaves parameters and moments as they were and
    counts as skipped; its counters still advance, so the schedule follows `state.step`.

    Args:
      batch: arrays [B, ...], among them `row_ids` int [B].
      num_microbatches: the batch is split in so many parts whose gradients are added up.

    Returns:
      The new state, and sums over the batch: the objective's, `steps`, `skipped_steps` and
      `grad_norm`.
    """
    key = jax.random.fold_in(state.rng, state.step)
    inputs = objective.prepare(key, batch, axis_name, state.step)

    def loss_fn(params, inputs):
        return objective.loss(params, inputs, key, apply_fn=state.apply_fn)

    (loss, sums), grads = accumulate(
        jax.value_and_grad(loss_fn, has_aux=True), state.params, inputs, num_microbatches
    )
    if axis_name is not None:
        (loss, sums), grads = jax.lax.psum(((loss, sums), grads), axis_name)

    updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    new_state = state.replace(
        step=state.step + 1,
        params=keep_unless(finite, optax.apply_updates(state.params, updates), state.params),
        opt_state=keep_unless(finite, opt_state, state.opt_state),
    )
    sums = jax.tree.map(lambda x: jnp.where(finite, x, 0), sums | {"grad_norm": grad_norm})
    return new_state, sums | {"steps": jnp.ones(()), "skipped_steps": 1.0 - finite}


def train_steps(
    state: TrainState,
    batches: Mapping[str, jax.Array],
    *,
    objective: Objective,
    num_microbatches: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Sums]:
    """K updates in one program, so that the host is asked for something K times less often.

    The results do not depend on K, bit for bit.

    Args:
      batches: those of K steps, arrays [K, B, ...].

    Returns:
      The new state, and the sums of each step, [K, ...]: those of K calls of `train_step`.
    """
    step = functools.partial(
        train_step, objective=objective, num_microbatches=num_microbatches, axis_name=axis_name
    )
    if len(batches["row_ids"]) > 1:
        return jax.lax.scan(step, state, batches)
    # The compiler would write out a loop of one step, fuse the step with what is around it, and
    # round otherwise than in a longer loop: it is not told that there is only one.
    count = jnp.minimum(1, state.step + 2)
    batch = jax.tree.map(lambda x: x[0], batches)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, state, batch)[1]
    )
    state, sums = jax.lax.fori_loop(0, count, lambda i, c: step(c[0], batch), (state, zeros))
    return state, jax.tree.map(lambda x: x[None], sums)


def eval_step(
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    objective: Objective,
    axis_name: str | None = None,
) -> Sums:
    """The objective's sums on a batch, without dropout and without an update.

    Masks and samples follow from `state.rng` and the rows' ids, not from the step, and what is
    scheduled is as at the end of training: every evaluation of a run asks the same questions.
    """
    key = jax.random.fold_in(state.rng, _EVALUATION)
    inputs = objective.prepare(key, batch, axis_name, _EVALUATION)
    _, sums = objective.loss(state.params, inputs, key, apply_fn=state.apply_fn, deterministic=True)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def predict_step(
    params: Any,
    batch: Mapping[str, jax.Array],
    *,
    apply_fn: Callable,
    objective: FineTuningObjective,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """What a fine-tuned network says of each row, to be decoded on the host.

    Args:
      batch: `input_ids` int [B, L]; anything else is not looked at.
      apply_fn: `model.apply`.

    Returns:
      The objective's `predict`: arrays [B, ...] of the global batch, in its order.
    """
    outputs = objective.predict(params, batch, apply_fn=apply_fn)
    return outputs if axis_name is None else jax.lax.all_gather(outputs, axis_name, tiled=True)


def in_parts(step: Callable, params: Any, batch: Mapping[str, jax.Array], *, tokens: int) -> Any:
    """`step(params, batch)`, a few rows at a time: what a CPU's cache holds is computed faster.

    Args:
      step: gives arrays [B, ...], each row of which depends on that row of the batch alone.
      batch: arrays [B, ...], `input_ids` int [B, L] among them.
      tokens: at a time, padding included; but at least one row.
    """
    rows, length = batch["input_ids"].shape
    size = max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n * length <= tokens))
    if size == rows:
        return step(params, batch)
    parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)
    outputs = jax.lax.map(lambda part: step(params, part), parts)
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), outputs)


def keep_unless(condition: jax.Array, new: Any, old: Any) -> Any:
    """`new` where the condition holds, else `old`; integers (counters) are always new."""

    def select(new, old):
        return jnp.where(condition, new, old) if jnp.issubdtype(new.dtype, jnp.inexact) else new

    return jax.tree.map(select, new, old)


def accumulate(fn: Callable, params: Any, inputs: Any, num_microbatches: int) -> Any:
    """Sum of `fn(params, part)` over parts of `inputs` (arrays [B, ...]) one after another.

    Part m holds rows m, m + num_microbatches, ...: every device keeps an equal share of each.
    """
    if num_microbatches == 1:
        return fn(params, inputs)
    parts = jax.tree.map(
        lambda x: x.reshape((-1, num_microbatches) + x.shape[1:]).swapaxes(0, 1), inputs
    )
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(fn, params, jax.tree.map(lambda x: x[0], parts)),
    )
    add = lambda total, part: (jax.tree.map(jnp.add, total, fn(params, part)), None)  # noqa: E731
    return jax.lax.scan(add, zeros, parts)[0]
