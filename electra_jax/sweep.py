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

from electra_jax import finetuning, pretraining, processes, run_config
from electra_jax.checkpoint import saved_steps
from electra_jax.config import ElectraConfig
from electra_jax.curves import draw_sweep
from electra_jax.data import Corpus
from electra_jax.errors import UserError
from electra_jax.reference_curves import tokens_at
from electra_jax.run_directory import read_json, say
from electra_jax.special_ids import SpecialIds
from electra_jax.transfer import check_same_encoder
from electra_jax.writers import read_rows, write_aside

# What of a run's last evaluation is worth a column.
_HELD_OUT = ("mlm_loss", "encoder_loss", "disc_loss", "disc_auc", "sampled_accuracy")
_SCRATCH = "scratch"
BEGINNING, PRETRAINING = "beginning", "pretraining"  # the stages of a run, the first not of each

Stages = dict[str, ml_collections.ConfigDict]


def run_sweep(config: ml_collections.ConfigDict, workdir: Path | str) -> list[dict[str, Any]]:
    """Trains and probes all runs of a sweep, and writes what came out of them.

    A sweep with beginnings stays where it is: their directories are in the runs' configs.

    Leaves in `workdir`: `NAME/SEED/` with `pretraining/` (and `beginning/`, where there is one) and
    a directory for each probe, `results.json`, `table.md` and `sweep.png`.

    With `config.scratch` the probes are also trained from fresh parameters, in the shape of the
    first run: what they are worth without pre-training.

    Args:
      config: as `configs/sweeps/objectives.py` makes it.
      workdir: directory of the sweep.

    Returns:
      A dict for each run: name, seed, steps, cost, held-out metrics, and the main metric of each
      trial of each probe.

    Raises:
      UserError: for a mistake in the config, before anything is trained; for one in a run's fields
        or a probe's, when its turn comes.
    """
    workdir, results = Path(workdir), []
    plans = planned(config)
    check_beginnings(plans, config.seeds, workdir)
    probes = {name: probe for name, probe in config.probes.items() if probe.data_dir}
    left_out = sorted(set(config.probes) - set(probes))
    if left_out:
        say(f"No data_dir, so these probes are left out: {', '.join(left_out)}")
    for name, stages in plans.items():
        for seed in config.seeds:
            say(f"\n=== {name}, seed {seed}")
            directory, trained = workdir / name / str(seed), {}
            for stage, plan in stages.items():
                run = plan.copy_and_resolve_references()
                run.seed, run.name = _seed_of_stage(seed, len(trained)), name
                if trained:
                    run.init_from = str(next(reversed(trained)).resolve())
                say(f"{stage}: {run.objective.name}, {run.train.num_train_steps:,} steps")
                pretraining.train_and_evaluate(run, directory / stage)
                trained[directory / stage] = run
            result = described(name, seed, trained)
            result["probes"] = probed(probes, directory / PRETRAINING, directory, seed)
            results.append(result)
            write_results(workdir, results)
    if config.scratch:
        say(f"\n=== {_SCRATCH}: without pre-training")
        seed = config.seeds[0]
        shape = workdir / next(iter(plans)) / str(seed) / PRETRAINING
        directory = workdir / _SCRATCH / str(seed)
        results.append(
            {
                "name": _SCRATCH,
                "seed": seed,
                "steps": 0,
                "tokens": 0,
                "operations": 0.0,
                "seconds": 0.0,
                "held_out": {},
                "probes": probed(probes, shape, directory, seed, from_scratch=True),
            }
        )
        write_results(workdir, results)
    return results


def probed(
    probes: Mapping[str, ml_collections.ConfigDict],
    pretrained: Path,
    directory: Path,
    seed: int,
    **fields: Any,
) -> dict[str, list[float]]:
    """Fine-tunes on each probe, below `directory`; returns the main metric of each trial."""
    values = {}
    for task, probe in probes.items():
        trial = probe.copy_and_resolve_references()
        trial.update({"pretrained": str(pretrained), "seed": seed, **fields})
        found = finetuning.train_and_evaluate(trial, directory / task)
        values[task] = [t["metrics"][found["main_metric"]] for t in found["trials"]]
    return values


def planned(config: ml_collections.ConfigDict) -> dict[str, Stages]:
    """What each run trains, stage after stage, all runs at the cost of the reference's.

    Returns:
      By the runs' names, their stages in order: "pretraining", where `config.beginnings` names the
      run after a "beginning", which is another run for a share of the cost.

    Raises:
      UserError: for a run or a beginning that is unknown or impossible.
    """
    names = config.only or tuple(config.runs)
    begun = _beginnings(config)
    plans = {name: _plan(config, name) for name in _wanted(config, names, begun)}
    for name, (first, _) in begun.items():
        try:
            check_same_encoder(_model(plans[first]), _model(plans[name]))
        except UserError as error:
            raise UserError(f"beginnings.{name}: {error}") from None
    flops = {name: flops_of_step(plan) for name, plan in plans.items()}
    for name, plan in plans.items():
        steps_for_one = flops[config.reference] / flops[name]
        plan.train.num_train_steps = max(1, round(plan.train.num_train_steps * steps_for_one))
        plan.optimizer.warmup_steps = round(plan.optimizer.warmup_steps * steps_for_one)
    stages = {name: {PRETRAINING: plans[name]} for name in names}
    for name, (first, share) in begun.items():
        if name in stages:
            stages[name] = {
                BEGINNING: _part(plans[first], share, name),
                PRETRAINING: _part(plans[name], 1 - share, name),
            }
    return stages


def _beginnings(config: ml_collections.ConfigDict) -> dict[str, tuple[str, float]]:
    """By the names of the runs that have one, the run they begin with and its share of the cost."""
    begun = dict(config.beginnings)
    for name, beginning in begun.items():
        match beginning:
            case (str(first), int(share) | float(share)):
                pass
            case _:
                raise UserError(
                    f"beginnings.{name}={beginning!r}: give a run and a share, as in ('mlm', 0.3)"
                )
        if not 0 < share < 1:
            raise UserError(
                f"beginnings.{name} has a share of {share}: it must lie between 0 and 1"
            )
        if first in begun:
            raise UserError(
                f"beginnings.{name} is {first}, which has a beginning itself: name a run without"
            )
    return begun


def _wanted(
    config: ml_collections.ConfigDict,
    names: Sequence[str],
    begun: Mapping[str, tuple[str, float]],
) -> Sequence[str]:
    """Names of all runs whose plan is needed: trained, compared with or begun with."""
    firsts = [first for first, _ in begun.values()]
    wanted = dict.fromkeys([config.reference, *names, *begun, *firsts])
    unknown = sorted(set(wanted) - set(config.runs))
    if unknown:
        raise UserError(
            f"only, reference or beginnings name {', '.join(unknown)}: use {', '.join(config.runs)}"
        )
    if _SCRATCH in config.runs:
        raise UserError(
            f"runs has {_SCRATCH}, which names the probes without pre-training: rename it"
        )
    return list(wanted)


def _plan(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """The base config with the run's fields."""
    plan = config.base.copy_and_resolve_references()
    with plan.ignore_type():
        plan.update(config.runs[name])
    steps = config.base.train.num_train_steps
    if plan.train.num_train_steps != steps:
        raise UserError(
            f"runs.{name} has a train.num_train_steps of its own, but runs train for what costs as "
            f"much as {steps:,} steps of {config.reference}: leave it out"
        )
    if plan.data.phases:
        raise UserError(
            f"data.phases of {name} begin at fixed steps, and a sweep's runs differ in their "
            "numbers of steps: leave them out"
        )
    run_config.check_values(plan)
    return plan


def _part(plan: ml_collections.ConfigDict, share: float, name: str) -> ml_collections.ConfigDict:
    """A run of a share of the steps; its warm-up is a whole run's, as its schedule is its own."""
    part = plan.copy_and_resolve_references()
    part.train.num_train_steps = max(1, round(share * plan.train.num_train_steps))
    if part.optimizer.warmup_steps >= part.train.num_train_steps:
        raise UserError(
            f"beginnings.{name}: {share:g} of a run are {part.train.num_train_steps:,} steps, no "
            f"more than the warm-up of {part.optimizer.warmup_steps:,}: raise "
            "base.train.num_train_steps or lower base.optimizer.warmup_steps"
        )
    return part


def _seed_of_stage(seed: int, stage: int) -> int:
    """The run's own seed first, then others: no stage reads the batches of an earlier one."""
    return seed if not stage else int(np.random.SeedSequence([seed, stage]).generate_state(1)[0])


def check_beginnings(
    plans: Mapping[str, Stages], seeds: Sequence[int], workdir: Path | str
) -> None:
    """Refuses to add, or to lengthen, a beginning of a run that is under way.

    (That a run is trained for more steps than before is otherwise allowed.)

    Raises:
      UserError: for a beginning of another number of steps than the one that a run began with.
    """
    for name, stages in plans.items():
        for seed in seeds:
            directory = Path(workdir) / name / str(seed)
            if BEGINNING not in stages or not saved_steps(directory / PRETRAINING / "checkpoints"):
                continue
            known = directory / BEGINNING / "config.json"
            before = read_json(known)["config"]["train"]["num_train_steps"] if known.exists() else 0
            now = stages[BEGINNING].train.num_train_steps
            if before != now:
                raise UserError(
                    f"beginnings.{name}: the run in {directory} began with {before:,} steps, now "
                    f"it would be {now:,}: restore the share and the steps, or choose another "
                    "--workdir"
                )


def _model(plan: ml_collections.ConfigDict) -> ElectraConfig:
    """The architecture; its vocabulary is the config's, else the corpus's."""
    size = plan.data.default_vocab_size
    if plan.model.vocab_size is None and plan.data.path is not None:
        size = Corpus.open(plan.data.path).vocab_size
    return run_config.model_anywhere(plan, vocab_size=size)


def flops_of_step(plan: ml_collections.ConfigDict) -> float:
    """Matrix-product operations of an update."""
    model = _model(plan)
    objective = run_config.make_objective(plan, model.vocab_size, SpecialIds(0, 1, 2, 3, 4))
    found = objective.flops(model, batch_size=plan.train.batch_size, seq_len=plan.data.seq_len)
    if found is None:
        raise UserError(
            f"objective.name={plan.objective.name!r} does not say what a step costs: give it a "
            "method flops"
        )
    return found


def flops_of_run(plan: ml_collections.ConfigDict) -> float:
    """Matrix-product operations of all updates."""
    return plan.train.num_train_steps * flops_of_step(plan)


def described(
    name: str, seed: int, stages: Mapping[Path, ml_collections.ConfigDict]
) -> dict[str, Any]:
    """What finished pre-trainings, one after another, came to: costs of all, metrics of the last.

    Args:
      name, seed: of the run.
      stages: the config of each, by its workdir.
    """
    result: dict[str, Any] = {"name": name, "seed": seed}
    result |= dict.fromkeys(("steps", "tokens", "operations", "seconds"), 0)
    last: Mapping[str, Any] = {}
    for workdir, plan in stages.items():
        rows = read_rows(workdir / "metrics.jsonl")
        last = [row for row in rows if row["split"] == "eval"][-1]
        speeds = [row["steps_per_second"] for row in rows if row["split"] == "train"]
        steps = plan.train.num_train_steps
        result["steps"] += steps
        result["tokens"] += tokens_at(plan.to_dict(), steps)
        result["operations"] += flops_of_run(plan)
        result["seconds"] += steps / float(np.median(speeds))
    held_out = {metric: last[metric] for metric in _HELD_OUT if metric in last}
    return result | {"held_out": held_out, "probes": {}}


def write_results(workdir: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """`results.json`, `table.md` and `sweep.png`, anew."""
    if not processes.is_main():
        return
    write_aside(workdir / "results.json", json.dumps(results, indent=1) + "\n")
    write_aside(workdir / "table.md", table(results))
    draw_sweep(results, workdir / "sweep.png")


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Medians over seeds and trials, and how they differ, in Markdown.

    Held-out metrics with the lowest and highest, probes with the standard deviation; "mean" is that
    of the probes' medians, though their metrics differ (as GLUE's score is), empty where one is
    missing.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["name"], []).append(result)
    metrics = [m for m in _HELD_OUT if any(m in result["held_out"] for result in results)]
    probes = list(dict.fromkeys(task for result in results for task in result["probes"]))
    several = ["mean"] if len(probes) > 1 else []
    head = ["run", "seeds", "steps", "minutes", *metrics, *probes, *several]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, group in groups.items():
        cells = [name, str(len(group)), f"{group[0]['steps']:,}"]
        cells.append(_cell([result["seconds"] / 60 for result in group], 1))
        cells += [_cell([result["held_out"].get(m) for result in group], 3) for m in metrics]
        scores = [
            [v for result in group for v in result["probes"].get(task, ())] for task in probes
        ]
        cells += [_score(values) for values in scores]
        if several:
            cells.append(
                f"{np.mean([np.median(values) for values in scores]):.2f}" if all(scores) else ""
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _score(values: Sequence[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.median(values):.2f}{deviation}"


def _cell(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    shown = [f"{value:.{digits}f}" for value in (np.median(known), min(known), max(known))]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"
