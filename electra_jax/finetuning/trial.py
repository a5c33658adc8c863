"""One trial: a seed, a learning rate and a number of epochs, through the one loop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from electra_jax import parallel, processes
from electra_jax.checkpoint import load_params, save_params, saved_steps
from electra_jax.curves import draw_curves
from electra_jax.errors import UserError
from electra_jax.finetuning import config as finetune_config
from electra_jax.finetuning.config import Trial
from electra_jax.finetuning.outputs import write_outputs
from electra_jax.finetuning.setup import EvaluatedSplit, Setup
from electra_jax.loop import Cadence, StepLog, fit
from electra_jax.optimizer import learning_rate_schedule, make_optimizer
from electra_jax.run_directory import open_run, open_writers, read_json, recognise, say
from electra_jax.steps import predict_step, train_step
from electra_jax.tasks import BucketedBatches, decode, score
from electra_jax.train_state import TrainState, init_params
from electra_jax.transfer import transfer_params
from electra_jax.writers import read_rows, write_aside


class Programs:
    """The compiled steps, shared by trials: another seed compiles nothing anew."""

    def __init__(self, config: ml_collections.ConfigDict, setup: Setup):
        self._config, self._setup = config, setup
        self._optimizers: dict[tuple[float, int], optax.GradientTransformation] = {}
        run = functools.partial(
            parallel.parallelize, mesh=setup.mesh, backend=config.parallel.backend
        )
        self.train_step = run(functools.partial(train_step, objective=setup.objective))
        predict = functools.partial(
            predict_step, apply_fn=setup.model.apply, objective=setup.objective
        )
        self.predict_step = run(predict, donate_state=False)

    def optimizer(self, learning_rate: float, num_steps: int) -> optax.GradientTransformation:
        """The transformation of a rate and a number of steps, always the same object."""
        key = (learning_rate, num_steps)
        if key not in self._optimizers:
            numbers = dict(self._config.optimizer)
            decay = numbers.pop("layer_decay")
            if decay is None:
                decay = finetune_config.size_defaults(self._setup.model.config).layer_decay
            self._optimizers[key] = make_optimizer(
                learning_rate=learning_rate,
                warmup_steps=round(num_steps * numbers.pop("warmup_proportion")),
                num_train_steps=num_steps,
                layer_decay=decay,
                **numbers,
            )
        return self._optimizers[key]

    def predict(self, params: Any, evaluated: EvaluatedSplit) -> Any:
        """Predictions for all of a split."""
        rows = parallel.local_rows(evaluated.batches.batch_size)
        outputs = [
            self.predict_step(params, evaluated.batches.batch_at(i, rows))
            for i in range(evaluated.batches.num_batches)
        ]
        restored = evaluated.batches.restore(jax.device_get(outputs))
        return decode(self._setup.space, restored, evaluated.split.examples, evaluated.features)

    def score(self, evaluated: EvaluatedSplit, predictions: Any) -> dict[str, float]:
        """Metrics of predictions for a split that has labels."""
        return score(
            evaluated.task,
            self._setup.space,
            evaluated.split.examples,
            predictions,
            null_threshold=self._config.data.null_threshold,
        )

    def metrics(self, params: Any) -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics on the dev splits, the first one's under their own names, and predictions."""
        metrics, predictions = {}, {}
        for number, (name, evaluated) in enumerate(self._setup.dev.items()):
            predictions[name] = self.predict(params, evaluated)
            found = self.score(evaluated, predictions[name])
            suffix = "_" + name.removeprefix("dev_") if number else ""
            metrics |= {f"{metric}{suffix}": value for metric, value in found.items()}
        return metrics, predictions


class Selection:
    """Which evaluation was the best so far, and whether to go on."""

    def __init__(self, metric: str, patience: int | None, rows: list[Mapping[str, Any]]):
        """Takes up the evaluations of a run that is gone on with."""
        self._metric, self._patience = metric, patience
        self._best, self._since = -math.inf, 0
        for row in rows:
            self.improves(row)

    def improves(self, metrics: Mapping[str, Any]) -> bool:
        """Takes an evaluation; returns whether it is the best (of equal ones the last).

        Where a metric has reached its ceiling, more training still makes the model surer.
        """
        value = metrics[self._metric]
        value = -math.inf if value is None or math.isnan(value) else value
        self._since = 0 if value > self._best else self._since + 1
        is_best = value >= self._best
        self._best = max(self._best, value)
        return is_best

    def is_finished(self) -> bool:
        """Whether there have been as many evaluations without a better one as it has patience."""
        return self._patience is not None and self._since >= self._patience


def run_trial(
    config: ml_collections.ConfigDict,
    setup: Setup,
    programs: Programs,
    trial: Trial,
    directory: Path,
    should_stop: Callable[[int], bool],
) -> dict[str, Any]:
    """Trains once, or goes on with it; returns its entry in `results.json`.

    Raises:
      Preempted, NonFiniteStep: as of `fit`.
    """
    batches = BucketedBatches(
        setup.train,
        batch_size=config.batch_size,
        seed=trial.seed,
        num_lengths=config.data.num_lengths,
    )
    num_steps = max(1, round(batches.num_batches * trial.num_epochs))
    eval_every = max(1, round(batches.num_batches / config.evals_per_epoch))
    description = {
        "config": config.to_dict() | {"trial": trial._asdict()},
        "corpus": {"fingerprint": setup.fingerprint},
    }
    description = json.loads(json.dumps(description))
    same = {
        "may_change": finetune_config.MAY_CHANGE,
        "data_fields": "data_dir or pretrained",
    }
    finished = directory / "result.json"
    if finished.exists():
        recognise(directory, description, **same)
        if (directory / "metrics.jsonl").exists():
            read_rows(directory / "metrics.jsonl")  # damage is told before anything else is trained
        return read_json(finished)
    with contextlib.ExitStack() as on_exit:
        checkpointer, start = open_run(
            directory,
            description,
            num_steps=num_steps,
            checkpoint_every=config.train.checkpoint_every,
            keep=1,
            **same,
        )
        on_exit.callback(checkpointer.close)
        say(
            f"trial {trial.number}: seed {trial.seed}, learning rate {trial.learning_rate:g}, "
            f"{trial.num_epochs:g} epochs = {num_steps:,} steps of {config.batch_size}, rows of "
            f"{', '.join(map(str, batches.lengths))} tokens"
            + (f", resuming at step {start:,}" if start else "")
        )
        if start and not (directory / "metrics.jsonl").exists():
            raise UserError(
                f"{directory} has a checkpoint of step {start:,} and no metrics.jsonl, which says "
                "what was best: bring it back, or remove the directory"
            )
        tx = programs.optimizer(trial.learning_rate, num_steps)
        start_state = initial_state(setup, tx, trial.seed, from_scratch=config.from_scratch)
        state = parallel.replicate(start_state, setup.mesh)
        window: Mapping[str, Any] = {}
        if start:
            state = checkpointer.restore(state, start)
            window = checkpointer.metadata(start)["window"]
        writer = open_writers(
            directory,
            description,
            setup.pretrained.tokenizer,
            num_steps=num_steps,
            start=start,
            main_metric=setup.task.main_metric,
        )
        on_exit.callback(writer.close)
        rows = processes.on_main(lambda: read_rows(directory / "metrics.jsonl"))
        selection = Selection(
            setup.task.main_metric,
            config.patience,
            [row for row in rows if row["split"] == "eval"],
        )
        local = parallel.local_rows(config.batch_size)
        log = StepLog(
            writer,
            setup.objective.summarize,
            learning_rate=learning_rate_schedule(
                trial.learning_rate,
                round(num_steps * config.optimizer.warmup_proportion),
                num_steps,
            ),
            num_steps=num_steps,
            window=window,
            raise_if_skipped=config.train.on_nonfinite == "raise",
        )
        keep = functools.partial(keep_model, directory / "best", config, setup)

        def evaluate(state: TrainState) -> dict[str, float]:
            metrics, _ = programs.metrics(state.params)
            if selection.improves(metrics) or config.select == "last":
                keep(state)
            tokens = sum(int(split.features.lengths.sum()) for split in setup.dev.values())
            return metrics | {"tokens": float(tokens)}

        state = fit(
            state,
            programs.train_step,
            lambda step: batches.batch_at(step, local),
            num_steps=num_steps,
            # A row at least at each evaluation: a short training has a curve, too.
            cadence=Cadence(
                min(config.train.log_every, eval_every), eval_every, config.train.checkpoint_every
            ),
            log=log,
            evaluate=evaluate,
            save=lambda state, window: checkpointer.save(
                state, description | {"window": {k: v.tolist() for k, v in window.items()}}
            ),
            is_finished=selection.is_finished,
            should_stop=should_stop,
        )
        if int(state.step) < num_steps:
            say(
                f"trial {trial.number} stopped at step {int(state.step):,} of {num_steps:,}: "
                f"{setup.task.main_metric} has not become better in {config.patience} evaluations"
            )
    return finish_trial(config, setup, programs, trial, directory)


def initial_state(
    setup: Setup, tx: optax.GradientTransformation, seed: int, *, from_scratch: bool = False
) -> TrainState:
    """The pretrained encoder, or a fresh one of its shape, with a fresh head, at step 0."""
    init_key, run_key = jax.random.split(jax.random.key(seed))
    # Scanned layers have the same parameters and compile faster.
    model = dataclasses.replace(
        setup.model, config=dataclasses.replace(setup.model.config, scan_layers=True)
    )
    fresh = init_params(init_key, model=model, seq_len=8)
    params = fresh if from_scratch else transfer_params(setup.pretrained.params, fresh)
    params = jax.tree.map(jnp.asarray, params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=setup.model.apply,
        params=params,
        tx=tx,
        opt_state=jax.jit(tx.init)(params),
        rng=run_key,
    )


def keep_model(
    directory: Path, config: ml_collections.ConfigDict, setup: Setup, state: TrainState
) -> None:
    """Writes what prediction needs: parameters, architecture, what outputs mean, tokenizer."""
    metadata = {
        "config": {"model": dataclasses.asdict(setup.model.config)},
        "head": {"kind": type(setup.model.head).__name__} | dataclasses.asdict(setup.model.head),
        "space": setup.space.to_json(),
        "task": setup.task.name,
        "data": config.data.to_dict(),
        "model": config.model.to_dict(),
    }
    save_params(directory, int(state.step), state.params, json.loads(json.dumps(metadata)))
    if processes.is_main():
        # For people; programs read it from the checkpoint.
        write_aside(directory / "model.json", json.dumps(metadata, indent=2) + "\n")
        (directory / "tokenizer").mkdir(exist_ok=True)
        setup.pretrained.tokenizer.save(directory / "tokenizer")


def finish_trial(
    config: ml_collections.ConfigDict,
    setup: Setup,
    programs: Programs,
    trial: Trial,
    directory: Path,
) -> dict[str, Any]:
    """Predicts with the state that was kept and writes everything a reader wants."""
    params, _ = load_params(directory / "best")
    params = parallel.replicate(params, setup.mesh)
    metrics, predictions = programs.metrics(params)
    step = saved_steps(directory / "best" / "checkpoints")[-1]
    splits = [(name, setup.dev[name], predictions[name]) for name in setup.dev]
    splits += [(name, test, programs.predict(params, test)) for name, test in setup.test.items()]
    scored = {
        name: programs.score(test, predicted)
        for name, test, predicted in splits[len(setup.dev) :]
        if test.split.labelled
    }
    result = trial._asdict() | {"step": step, "metrics": metrics}
    result |= {"test_metrics": scored} if scored else {}
    if not processes.is_main():
        return result
    for name, evaluated, predicted in splits:
        write_outputs(
            directory / "predictions",
            name,
            evaluated.task,
            setup.space,
            evaluated.split,
            predicted,
            null_threshold=config.data.null_threshold,
        )
    draw_curves(
        read_rows(directory / "metrics.jsonl"),
        directory / "curves.png",
        title=f"{setup.task.name}, trial {trial.number}",
        panels=curve_panels(setup),
    )
    write_aside(directory / "result.json", json.dumps(result, indent=2) + "\n")
    # The optimiser's moments are of no use any more: the model is in `best`.
    shutil.rmtree(directory / "checkpoints")
    return result


def curve_panels(setup: Setup) -> tuple[tuple[str, str], ...]:
    """What is drawn: the loss, and the task's metrics on dev."""
    names = ("loss", *setup.task.metrics)[:4]
    return tuple((name, name.replace("_", " ")) for name in names)
