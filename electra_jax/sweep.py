"""Several pre-trainings at equal cost, each fine-tuned on the same tasks, in one table.

Every run is one of `pretraining` in a workdir of its own, every probe one of `finetuning`; what is
finished is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from electra_jax import finetuning, pretraining, run_config
from electra_jax.curves import draw_sweep
from electra_jax.data import Corpus
from electra_jax.errors import UserError
from electra_jax.reference_curves import tokens_at
from electra_jax.run_directory import say
from electra_jax.special_ids import SpecialIds
from electra_jax.writers import read_rows

# What of a run's last evaluation is worth a column.
_HELD_OUT = ("mlm_loss", "encoder_loss", "disc_loss", "disc_auc", "sampled_accuracy")


def run_sweep(config: ml_collections.ConfigDict, workdir: Path | str) -> list[dict[str, Any]]:
    """Trains and probes all runs of a sweep, and writes what came out of them.

    Leaves in `workdir`: `NAME/SEED/` with `pretraining/` and a directory for each probe,
    `results.json`, `table.md` and `sweep.png`.

    Args:
      config: as `configs/sweeps/objectives.py` makes it.
      workdir: directory of the sweep.

    Returns:
      A dict for each run: name, seed, steps, cost, held-out metrics and the probes' medians.

    Raises:
      UserError: for a mistake in the config, before anything is trained.
    """
    workdir, results = Path(workdir), []
    plans = planned(config)
    probes = {name: probe for name, probe in config.probes.items() if probe.data_dir}
    left_out = sorted(set(config.probes) - set(probes))
    if left_out:
        say(f"No data_dir, so these probes are left out: {', '.join(left_out)}")
    for name, plan in plans.items():
        for seed in config.seeds:
            say(f"\n=== {name}, seed {seed}: {plan.train.num_train_steps:,} steps")
            directory = workdir / name / str(seed)
            run = plan.copy_and_resolve_references()
            run.seed, run.name = seed, name
            pretraining.train_and_evaluate(run, directory / "pretraining")
            result = described(name, seed, run, directory / "pretraining")
            for task, probe in probes.items():
                trial = probe.copy_and_resolve_references()
                trial.pretrained, trial.seed = str(directory / "pretraining"), seed
                found = finetuning.train_and_evaluate(trial, directory / task)
                result["probes"][task] = found["median"][found["main_metric"]]
            results.append(result)
            write_results(workdir, results)
    return results


def planned(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """The pre-training config of each run, all at the cost of the reference's.

    Raises:
      UserError: for a run that is unknown or impossible.
    """
    names = config.only or tuple(config.runs)
    unknown = sorted({config.reference, *names} - set(config.runs))
    if unknown:
        raise UserError(
            f"only or reference names {', '.join(unknown)}: use {', '.join(config.runs)}"
        )
    plans = {}
    for name in {config.reference: None} | dict.fromkeys(names):
        plan = config.base.copy_and_resolve_references()
        with plan.ignore_type():
            plan.update(config.runs[name])
        run_config.check_values(plan)
        plans[name] = plan
    steps, warmup = config.base.train.num_train_steps, config.base.optimizer.warmup_steps
    reference = flops_of_step(plans[config.reference])
    for plan in plans.values():
        share = reference / flops_of_step(plan)
        plan.train.num_train_steps = max(1, round(steps * share))
        plan.optimizer.warmup_steps = round(warmup * share)
    return {name: plans[name] for name in names}


def flops_of_step(plan: ml_collections.ConfigDict) -> float:
    """Matrix-product operations of an update."""
    size = plan.model.vocab_size or plan.data.default_vocab_size
    if plan.model.vocab_size is None and plan.data.path is not None:
        size = Corpus.open(plan.data.path).vocab_size
    objective = run_config.make_objective(plan, size, SpecialIds(0, 1, 2, 3, 4))
    model = run_config.model_config(plan, "cpu", vocab_size=size)
    found = objective.flops(model, batch_size=plan.train.batch_size, seq_len=plan.data.seq_len)
    if found is None:
        raise UserError(
            f"objective.name={plan.objective.name!r} does not say what a step costs: give it a "
            "method flops"
        )
    return found


def described(
    name: str, seed: int, plan: ml_collections.ConfigDict, workdir: Path
) -> dict[str, Any]:
    """What a finished pre-training came to."""
    rows = read_rows(workdir / "metrics.jsonl")
    last = [row for row in rows if row["split"] == "eval"][-1]
    speeds = [row["tokens_per_second"] for row in rows if row["split"] == "train"]
    steps = plan.train.num_train_steps
    tokens = tokens_at(plan.to_dict(), steps)
    return {
        "name": name,
        "seed": seed,
        "steps": steps,
        "tokens": tokens,
        "operations": steps * flops_of_step(plan),
        "seconds": tokens / float(np.median(speeds)),
        "held_out": {metric: last[metric] for metric in _HELD_OUT if metric in last},
        "probes": {},
    }


def write_results(workdir: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """`results.json`, `table.md` and `sweep.png`, anew."""
    (workdir / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (workdir / "table.md").write_text(table(results), encoding="utf-8")
    draw_sweep(results, workdir / "sweep.png")


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Medians over seeds, and from the lowest to the highest where they differ, in Markdown."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["name"], []).append(result)
    metrics = [m for m in _HELD_OUT if any(m in result["held_out"] for result in results)]
    probes = list(dict.fromkeys(task for result in results for task in result["probes"]))
    head = ["run", "seeds", "steps", "minutes", *metrics, *probes]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, group in groups.items():
        cells = [name, str(len(group)), f"{group[0]['steps']:,}"]
        cells.append(_cell([result["seconds"] / 60 for result in group], 1))
        cells += [_cell([result["held_out"].get(m) for result in group], 3) for m in metrics]
        cells += [_cell([result["probes"].get(task) for result in group], 2) for task in probes]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    shown = [f"{value:.{digits}f}" for value in (np.median(known), min(known), max(known))]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"
