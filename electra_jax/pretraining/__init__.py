"""Pre-training from a config: builds the parts and hands them to the loop."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from electra_jax import parallel, processes
from electra_jax.checkpoint import Checkpointer, saved_steps
from electra_jax.errors import UserError
from electra_jax.loop import Cadence, NonFiniteStep, StepLog, compile_step, fit
from electra_jax.pretraining.setup import (
    Setup,
    batch_for,
    describe,
    flops_of,
    fresh_state,
    set_up,
    warm_params,
)
from electra_jax.resident import batch_from_tokens
from electra_jax.run_directory import locked, open_run, open_writers, say, summarize_run
from electra_jax.steps import eval_step, train_steps
from electra_jax.train_state import TrainState


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: Path | str) -> TrainState:
    """Pre-trains as a config says; called again with the same arguments, goes on where it was.

    Leaves in `workdir`: `config.json`, `checkpoints/`, `metrics.jsonl`, `curves.png`,
    `tokenizer/` and `tensorboard/`.

    Args:
      config: as `configs/common.py` makes it.
      workdir: directory of the run; created if missing.

    Returns:
      The final state.

    Raises:
      UserError: for a mistake in the config or the workdir, before anything is compiled or
        overwritten.
      FloatingPointError: for a step that is not finite, where `train.on_nonfinite` is "raise".
    """
    workdir, train = Path(workdir), config.train
    setup = set_up(config)
    begun = bool(saved_steps(workdir / "checkpoints"))
    is_warm = config.init_from is not None or config.generator_from is not None
    params = warm_params(config, setup) if is_warm and not begun else None
    with contextlib.ExitStack() as on_exit:
        on_exit.enter_context(locked(workdir))
        checkpointer, start = open_run(
            workdir,
            setup.description,
            num_steps=train.num_train_steps,
            checkpoint_every=train.checkpoint_every,
            keep=train.keep_checkpoints,
            keep_every=train.keep_checkpoint_every,
        )
        on_exit.callback(checkpointer.close)
        make_state = functools.partial(fresh_state, config, setup)
        shardings_of = functools.partial(
            parallel.state_shardings, mesh=setup.mesh, fsdp=config.parallel.fsdp
        )
        like = parallel.abstract(make_state, shardings_of)
        say(describe(config, setup, like, start))
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        step = over_all_devices(config, setup, shardings)
        if start < train.num_train_steps:
            compile_and_check(config, setup, like, step)
        run = Run(config, workdir, setup, checkpointer, shardings, step)

        def begin(saved: int) -> Position:
            if saved:
                kept = checkpointer.metadata(saved)
                state = checkpointer.restore(like, saved)
                return Position(state, kept["window"], kept.get("skipped_batches", 0))
            state = parallel.create(make_state, shardings)
            if params is not None:
                state = state.replace(params=parallel.put(params, shardings.params))
            return Position(state, {}, 0)

        should_stop = on_exit.enter_context(processes.stop_requests())
        position, rollbacks = begin(start), 0
        while True:
            try:
                state = train_from(run, position, should_stop)
                break
            except NonFiniteStep as failure:
                if train.on_nonfinite != "rollback" or rollbacks == train.max_rollbacks:
                    raise
                rollbacks += 1
                checkpointer.wait()
                saved = checkpointer.latest_step() or 0
                # Those that the attempt passed over, of which the checkpoint need not know.
                skipped = position.skipped_batches + failure.step - saved
                position = begin(saved)._replace(skipped_batches=skipped)
                say(
                    f"The loss or its gradient at step {failure.step:,} is not finite: going on "
                    f"from step {saved:,}, without the {failure.step - saved:,} batches since."
                )
    if processes.is_main():
        say(summarize_run(workdir))
    return state


class Position(NamedTuple):
    """Where a run stands: its state, the sums of the row under way, and batches passed over."""

    state: TrainState
    window: dict[str, Any]
    skipped_batches: int


class Run(NamedTuple):
    """What stays the same while a run goes on."""

    config: ml_collections.ConfigDict
    workdir: Path
    setup: Setup
    checkpointer: Checkpointer
    shardings: TrainState  # where each array of a state is
    train_step: parallel.ParallelStep


def over_all_devices(
    config: ml_collections.ConfigDict, setup: Setup, shardings: TrainState
) -> parallel.ParallelStep:
    """The training step, or steps, for states that are where `shardings` say."""
    on_device = setup.choices.on_device
    step = functools.partial(
        train_steps,
        objective=setup.objective,
        num_microbatches=config.train.num_microbatches,
    )
    if on_device:
        rows = {"seq_len": setup.batches.seq_len, "special_ids": setup.corpus.special_ids}

        def step_on_places(state, places, tokens, **kwargs):
            return step(state, batch_from_tokens(places, tokens, **rows), **kwargs)

    return parallel.parallelize(
        step_on_places if on_device else step,
        setup.mesh,
        backend=config.parallel.backend,
        shardings=shardings,
        rows_axis=1,
        resident=setup.batches.batches[0].tokens() if on_device else None,
    )


def compile_and_check(
    config: ml_collections.ConfigDict,
    setup: Setup,
    like: TrainState,
    step: parallel.ParallelStep,
) -> None:
    """Compiles a step and says what memory it needs; no data is read.

    Raises:
      UserError: if a device has not so much, or cuDNN's attention does not compile.
    """
    say("Compiling the training step ...")
    count = setup.choices.steps_per_call
    for number, phase in enumerate(setup.batches.phases):
        if phase.first_step >= config.train.num_train_steps:
            break
        if setup.choices.on_device:
            batch = batch_for(setup, 0)
        else:
            batch = setup.batches.like(parallel.local_rows(phase.batch_size), number)
        batch = {name: np.broadcast_to(x, (count, *x.shape)) for name, x in batch.items()}
        try:
            seconds = compile_step(step, like, batch)
        except jax.errors.JaxRuntimeError as error:
            if setup.model.config.attention != "cudnn":
                raise
            reason = str(error).splitlines()[0]
            raise UserError(
                f"model.attention='cudnn' does not compile here ({reason}): set model.attention=xla"
            ) from None
        memory = parallel.check_memory(step.memory_needed(), setup.mesh)
        say(f"Compiled in {seconds:.0f} s; {memory}.")


def train_from(run: Run, position: Position, should_stop: Callable[[int], bool]) -> TrainState:
    """Trains to the end, and returns the final state.

    Raises:
      NonFiniteStep, Preempted: as of `fit`.
    """
    config, setup, train = run.config, run.setup, run.config.train
    start = int(position.state.step)
    with contextlib.closing(
        open_writers(
            run.workdir,
            setup.description,
            setup.corpus.tokenizer(),
            num_steps=train.num_train_steps,
            start=start,
        )
    ) as writer:
        step_log = StepLog(
            writer,
            setup.objective.summarize,
            learning_rate=setup.schedule,
            num_steps=train.num_train_steps,
            window=position.window,
            raise_if_skipped=train.on_nonfinite != "skip",
            flops_of=functools.partial(flops_of, setup),
            peak_flops=parallel.peak_flops(setup.mesh),
        )

        def save(state: TrainState, window: Mapping[str, Any]) -> None:
            setup.corpus.check_unchanged()
            kept = {
                "window": {name: value.tolist() for name, value in window.items()},
                "skipped_batches": position.skipped_batches,
            }
            run.checkpointer.save(state, setup.description | kept)

        return fit(
            position.state,
            run.train_step,
            lambda step: batch_for(setup, step + position.skipped_batches),
            num_steps=train.num_train_steps,
            cadence=Cadence(
                train.log_every,
                train.eval_every,
                train.checkpoint_every,
                setup.choices.steps_per_call,
            ),
            log=step_log,
            evaluate=make_evaluate(config, setup, run.shardings),
            save=save,
            should_stop=should_stop,
            boundaries=[
                phase.first_step - position.skipped_batches for phase in setup.batches.phases
            ],
        )


def make_evaluate(
    config: ml_collections.ConfigDict, setup: Setup, shardings: TrainState
) -> Callable[[TrainState], dict[str, float]]:
    """A function from a state to its metrics on `train.eval_batches` held-out batches."""
    run_eval_step = parallel.parallelize(
        functools.partial(eval_step, objective=setup.objective),
        setup.mesh,
        backend=config.parallel.backend,
        donate_state=False,
        shardings=shardings,
    )
    held_out = setup.held_out
    num_batches = min(config.train.eval_batches, held_out.num_batches)
    rows = parallel.local_rows(held_out.batch_size)

    def evaluate(state: TrainState) -> dict[str, float]:
        sums = [run_eval_step(state, held_out.batch_at(i, rows)) for i in range(num_batches)]
        add = lambda *parts: np.sum(np.float64(parts), axis=0)  # noqa: E731
        total = jax.tree.map(add, *jax.device_get(sums))
        return setup.objective.summarize(total) | {"tokens": float(total["tokens"])}

    return evaluate
