"""Pre-training from a config: builds the parts and hands them to the loop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from electra_jax import parallel, processes, run_config
from electra_jax.checkpoint import Checkpointer
from electra_jax.config import ElectraConfig
from electra_jax.corruption import max_masked_positions
from electra_jax.data import Corpus, TokenBatches, documentation_corpus
from electra_jax.flops import train_step_flops
from electra_jax.loop import Cadence, NonFiniteStep, StepLog, compile_step, fit
from electra_jax.modeling import Electra
from electra_jax.objectives import Objective
from electra_jax.optimizer import learning_rate_schedule, make_optimizer
from electra_jax.pretrained import load_pretrained
from electra_jax.run_directory import (
    locked,
    open_devices,
    open_run,
    open_writers,
    say,
    summarize_run,
)
from electra_jax.steps import eval_step, train_step
from electra_jax.train_state import TrainState, create_train_state, init_params
from electra_jax.warm_start import start_params


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run, built and checked; nothing of it is compiled or on disk yet."""

    mesh: Any
    model: Electra
    objective: Objective
    schedule: Callable[[int], Any]
    tx: optax.GradientTransformation
    corpus: Corpus
    batches: TokenBatches
    held_out: TokenBatches
    description: dict[str, Any]  # JSON: the resolved config and what the corpus is


def set_up(config: ml_collections.ConfigDict) -> Setup:
    """Builds the parts of a run from its config.

    Raises:
      UserError: naming the field, its value and the remedy.
    """
    run_config.check_values(config)
    platform, mesh = open_devices(
        config,
        batch_size=config.train.batch_size,
        num_microbatches=config.train.num_microbatches,
    )
    corpus = open_corpus(config)
    model_config = run_config.model_config(config, platform, vocab_size=corpus.vocab_size)
    run_config.check_corpus(model_config, corpus)
    num_train_steps = config.train.num_train_steps
    return Setup(
        mesh=mesh,
        model=Electra(model_config),
        objective=run_config.make_objective(config, corpus.vocab_size, corpus.special_ids),
        schedule=learning_rate_schedule(
            config.optimizer.learning_rate, config.optimizer.warmup_steps, num_train_steps
        ),
        tx=make_optimizer(num_train_steps=num_train_steps, **config.optimizer),
        corpus=corpus,
        batches=make_batches(config, corpus, "train"),
        held_out=make_batches(config, corpus, "validation"),
        description={
            "config": config.to_dict() | {"model": dataclasses.asdict(model_config)},
            "corpus": {"fingerprint": corpus.fingerprint, "path": str(corpus.path)},
        },
    )


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
    begun = any((workdir / "checkpoints").glob("[0-9]*"))
    params = None if begun or config.init_from is None else warm_params(config, setup)
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

        def begin(step: int) -> Position:
            if step:
                kept = checkpointer.metadata(step)
                state = checkpointer.restore(like, step)
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
                step = checkpointer.latest_step() or 0
                position = begin(step)
                skipped = position.skipped_batches + failure.step - step
                position = position._replace(skipped_batches=skipped)
                say(
                    f"The loss or its gradient at step {failure.step:,} is not finite: going on "
                    f"from step {step:,}, without the {failure.step - step:,} batches since."
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
    """The training step, for states that are where `shardings` say."""
    return parallel.parallelize(
        functools.partial(
            train_step,
            objective=setup.objective,
            num_microbatches=config.train.num_microbatches,
        ),
        setup.mesh,
        backend=config.parallel.backend,
        shardings=shardings,
    )


def compile_and_check(
    config: ml_collections.ConfigDict,
    setup: Setup,
    like: TrainState,
    step: parallel.ParallelStep,
) -> None:
    """Compiles a step and says what memory it needs; no data is read.

    Raises:
      UserError: if a device has not so much.
    """
    say("Compiling the training step ...")
    rows = parallel.local_rows(config.train.batch_size)
    seconds = compile_step(step, like, setup.batches.like(rows))
    say(f"Compiled in {seconds:.0f} s; {parallel.check_memory(step.memory_needed(), setup.mesh)}.")


def train_from(run: Run, position: Position, should_stop: Callable[[int], bool]) -> TrainState:
    """Trains to the end, and returns the final state.

    Raises:
      NonFiniteStep, Preempted: as of `fit`.
    """
    config, setup, train = run.config, run.setup, run.config.train
    rows, start = parallel.local_rows(train.batch_size), int(position.state.step)
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
            flops_per_step=flops_per_step(config, setup.model.config),
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
            lambda step: setup.batches.batch_at(step + position.skipped_batches, rows),
            num_steps=train.num_train_steps,
            cadence=Cadence(train.log_every, train.eval_every, train.checkpoint_every),
            log=step_log,
            evaluate=make_evaluate(config, setup, run.shardings),
            save=save,
            should_stop=should_stop,
        )


def open_corpus(config: ml_collections.ConfigDict) -> Corpus:
    """The corpus at `data.path`, or the default one where there is no path."""
    if config.data.path is not None:
        return Corpus.open(config.data.path)
    say(
        "No data.path: using the default corpus, the English documentation that comes with this "
        "Python and its packages."
    )
    return documentation_corpus(config.data.default_vocab_size, progress=say)


def make_batches(config: ml_collections.ConfigDict, corpus: Corpus, split: str) -> TokenBatches:
    """Batches of a split: endless and shuffled for training, each example once otherwise."""
    return TokenBatches(
        corpus,
        split=split,
        seq_len=config.data.seq_len,
        batch_size=config.train.batch_size,
        seed=config.seed,
        example_format=config.data.example_format,
        repeat=split == "train",
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


def warm_params(config: ml_collections.ConfigDict, setup: Setup) -> Any:
    """The parameters of `init_from`, and drawn ones where it has none; says what is drawn.

    Raises:
      UserError: if there is no model, or it does not fit the one to train or its corpus.
    """
    pretrained = load_pretrained(config.init_from, what="init_from")
    # Scanned layers have the same parameters and compile faster.
    model = Electra(dataclasses.replace(setup.model.config, scan_layers=True))
    init_key, _ = jax.random.split(jax.random.key(config.seed))
    fresh = init_params(init_key, model=model, seq_len=8)
    params, notes = start_params(pretrained, setup.model.config, fresh, setup.corpus.tokenizer())
    say("\n".join([f"Starting from {config.init_from}.", *notes]))
    return jax.tree.map(np.asarray, params)


def fresh_state(config: ml_collections.ConfigDict, setup: Setup) -> TrainState:
    """The state at step 0 that the seed gives."""
    key = jax.random.key(config.seed)
    return create_train_state(key, setup.model, setup.tx, seq_len=config.data.seq_len)


def flops_per_step(config: ml_collections.ConfigDict, model: ElectraConfig) -> float:
    """Matrix-product operations of one update."""
    seq_len = config.data.seq_len
    max_masked = max_masked_positions(seq_len, config.objective.mask_prob)
    return train_step_flops(
        model, batch_size=config.train.batch_size, seq_len=seq_len, max_masked=max_masked
    )


def describe(config: ml_collections.ConfigDict, setup: Setup, state: TrainState, start: int) -> str:
    """What is about to run, in a few lines."""
    corpus, train, batches = setup.corpus, config.train, setup.batches
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    tokens = train.num_train_steps * train.batch_size * config.data.seq_len
    epochs = train.num_train_steps * train.batch_size / batches.num_examples
    model = setup.model.config
    layers = "scanned" if model.scan_layers else "unrolled"
    lines = [
        f"{config.name}: {parameters:,} parameters, {model.dtype}, layers {layers}, "
        f"{parallel.describe_devices(setup.mesh)}, {config.parallel.backend}",
        f"corpus: {corpus.num_tokens('train'):,} tokens in {corpus.num_documents('train'):,} "
        f"documents, {corpus.num_documents('validation'):,} documents held out ({corpus.path})",
        f"steps: {train.num_train_steps:,} of {train.batch_size} x {config.data.seq_len} tokens "
        f"= {tokens:,}, {epochs:.1f} times the corpus",
    ]
    if config.optimizer.warmup_steps >= train.num_train_steps:
        lines.append(
            f"note: optimizer.warmup_steps={config.optimizer.warmup_steps} is not below "
            f"train.num_train_steps={train.num_train_steps}: the rate stays far under its peak"
        )
    if start:
        lines.append(f"resuming at step {start:,}")
    return "\n".join(lines)
