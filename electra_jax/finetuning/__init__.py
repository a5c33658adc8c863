"""Fine-tuning from a config: trials, each a run of the one loop, and what comes out of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from electra_jax import parallel, processes
from electra_jax.finetuning.config import planned_trials
from electra_jax.finetuning.outputs import check_workdir, write_results
from electra_jax.finetuning.setup import Setup, set_up
from electra_jax.finetuning.trial import Programs, run_trial
from electra_jax.run_directory import locked, say

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
    check_workdir(workdir)
    setup = set_up(config)
    say(describe(config, setup))
    trials = planned_trials(config, setup.task, setup.model.config)
    programs = Programs(config, setup)
    results: list[dict[str, Any]] = []
    with locked(workdir), processes.stop_requests() as should_stop:
        for trial in trials:
            directory = workdir / f"trial-{trial.number}"
            results.append(run_trial(config, setup, programs, trial, directory, should_stop))
            summary = write_results(workdir, setup.task, results)
    say(summarize(summary, workdir))
    return summary


def describe(config: ml_collections.ConfigDict, setup: Setup) -> str:
    """What is about to run, in a few lines."""
    encoder = setup.model.config
    sizes = ", ".join(f"{len(dev.split.examples):,} of {name}" for name, dev in setup.dev.items())
    kind = "" if setup.task.kind == setup.task.name else f" ({setup.task.kind})"
    lines = [
        f"{setup.task.name}{kind} from {config.pretrained}: "
        f"{encoder.num_layers} layers of {encoder.hidden_size}, {encoder.dtype}, "
        f"{parallel.describe_devices(setup.mesh)}",
        f"{len(setup.train):,} rows to train on, examples to evaluate on: {sizes}",
    ]
    return "\n".join(lines + setup.notes)


def summarize(summary: Mapping[str, Any], workdir: Path) -> str:
    """The results in words."""
    main, setting = summary["main_metric"], summary["setting"]
    chosen = [trial for trial in summary["trials"] if setting.items() <= trial.items()]
    count = f"{len(chosen)} trial" + "s" * (len(chosen) != 1)
    if len(chosen) < len(summary["trials"]):
        count += (
            f" of {len(summary['trials'])}, those with learning rate "
            f"{setting['learning_rate']:g} and {setting['num_epochs']:g} epochs"
        )
    lines = ["", f"{summary['task']}, {count}, on dev (models are chosen by {main}):"]
    for name in sorted(summary["median"], key=lambda name: name != main):
        line = f"  {name:20} median {summary['median'][name]:.2f}"
        if len(chosen) > 1:
            deviation = summary["standard_deviation"][name]
            line += f", mean {summary['mean'][name]:.2f} +- {deviation:.2f}"
        lines.append(line)
    best = next(t for t in summary["trials"] if t["number"] == summary["best_trial"])
    for split, metrics in best.get("test_metrics", {}).items():
        found = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        lines.append(f"  {split + ', best trial':20} {found}")
    lines += [
        f"  all results          {workdir / 'results.json'}",
        f"  the best model       {workdir / 'model'}",
        f"Next: electra-jax predict {workdir / 'model'} FILE",
    ]
    return "\n".join(lines)
