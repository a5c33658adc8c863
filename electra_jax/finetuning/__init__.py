"""Fine-tuning from a config: trials, each a run of the one loop, and what comes out of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from electra_jax import parallel
from electra_jax.finetuning.config import planned_trials
from electra_jax.finetuning.outputs import write_results
from electra_jax.finetuning.setup import Setup, set_up
from electra_jax.finetuning.trial import Programs, run_trial
from electra_jax.run_directory import say

__all__ = ["Setup", "set_up", "train_and_evaluate"]


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: Path | str) -> dict[str, Any]:
    """Fine-tunes as a config says; called again with the same arguments, goes on where it was.

    Leaves in `workdir`: `results.json`, `model/` (the best trial's), and for each trial a
    directory `trial-N/` with metrics, curves, checkpoints and predictions.

    Args:
      config: as `configs/finetune.py` makes it.
      workdir: directory of the run; created if missing.

    Returns:
      The content of `results.json`.

    Raises:
      UserError: for a mistake in the config, the data or the workdir, before anything is compiled
        or overwritten.
      FloatingPointError: for a step that is not finite, where `train.on_nonfinite` is "raise".
    """
    workdir = Path(workdir)
    setup = set_up(config)
    say(describe(config, setup))
    trials = planned_trials(config, setup.task, setup.model.config)
    programs = Programs(config, setup)
    results: list[dict[str, Any]] = []
    for trial in trials:
        results.append(run_trial(config, setup, programs, trial, workdir / f"trial-{trial.number}"))
        summary = write_results(workdir, setup.task, results)
    say(summarize(summary, workdir))
    return summary


def describe(config: ml_collections.ConfigDict, setup: Setup) -> str:
    """What is about to run, in a few lines."""
    encoder = setup.model.config
    sizes = ", ".join(f"{len(dev.split.examples):,} of {name}" for name, dev in setup.dev.items())
    lines = [
        f"{setup.task.name} ({setup.task.kind}) from {config.pretrained}: "
        f"{encoder.num_layers} layers of {encoder.hidden_size}, {encoder.dtype}, "
        f"{parallel.describe_devices(setup.mesh)}",
        f"{len(setup.train):,} rows to train on, examples to evaluate on: {sizes}",
    ]
    return "\n".join(lines + setup.notes)


def summarize(summary: Mapping[str, Any], workdir: Path) -> str:
    """The results in words."""
    lines = ["", f"{summary['task']}, {len(summary['trials'])} trials, on dev:"]
    for name, value in summary["median"].items():
        spread = f"mean {summary['mean'][name]:.2f} +- {summary['standard_deviation'][name]:.2f}"
        lines.append(f"  {name:20} median {value:.2f}, {spread}")
    lines += [
        f"  all results          {workdir / 'results.json'}",
        f"  the best model       {workdir / 'model'}",
        f"Next: electra-jax predict {workdir / 'model'} FILE",
    ]
    return "\n".join(lines)
