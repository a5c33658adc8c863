"""What a fine-tuning run leaves for people: results, predictions, pictures of mistakes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import processes
from electra_jax.curves import draw_confusion, draw_scatter, draw_shares
from electra_jax.errors import UserError
from electra_jax.tasks import LabelSpace, Split, Task
from electra_jax.tasks.error_listings import (
    answer_errors,
    answer_outcomes,
    confusion_matrix,
    span_errors,
    span_outcomes,
)
from electra_jax.tasks.outputs import (
    submission_problem,
    write_answers,
    write_predictions,
    write_rows,
    write_submission,
)
from electra_jax.writers import write_aside

_SETTING = ("learning_rate", "num_epochs")


def check_workdir(workdir: Path) -> None:
    """Refuses a directory in which something that is not of such a run would be overwritten.

    Raises:
      UserError: naming it.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file: choose a directory")
    is_run = (workdir / "trial-1" / "config.json").exists()
    foreign = [
        name
        for name, is_ours in (
            ("results.json", is_run),
            ("model", is_run and (workdir / "model" / "trial.txt").exists()),
        )
        if (workdir / name).exists() and not is_ours
    ]
    if foreign:
        raise UserError(
            f"--workdir={workdir} holds {' and '.join(foreign)}, and no run of finetune.py: they "
            "would be overwritten; choose another"
        )


def write_results(workdir: Path, task: Task, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Writes `results.json` of the trials so far, and keeps the best one's model as `model/`.

    With a grid, `median` and the like are those of the setting (learning rate and epochs) whose
    median of the main metric is the best.

    Returns:
      What was written: `task`, `main_metric`, `trials`, `setting`, `median`, `mean`,
      `standard_deviation` (None of a single trial), `best_trial`.
    """
    settings: dict[tuple, list[Mapping[str, Any]]] = {}
    for trial in trials:
        settings.setdefault(tuple(trial[name] for name in _SETTING), []).append(trial)

    def value(trial) -> float:
        found = trial["metrics"][task.main_metric]
        return -math.inf if found is None or math.isnan(found) else found

    chosen = max(settings.values(), key=lambda group: float(np.median([*map(value, group)])))
    best = max(chosen, key=value)
    columns = {
        name: np.array([trial["metrics"][name] for trial in chosen], np.float64)
        for name in best["metrics"]
    }
    summary = {
        "task": task.name,
        "main_metric": task.main_metric,
        "trials": list(trials),
        "setting": {name: best[name] for name in _SETTING},
        "median": {name: float(np.median(values)) for name, values in columns.items()},
        "mean": {name: float(values.mean()) for name, values in columns.items()},
        "standard_deviation": {
            name: float(values.std(ddof=1)) if len(values) > 1 else None
            for name, values in columns.items()
        },
        "best_trial": best["number"],
    }
    if processes.is_main():
        _keep_best(workdir, best["number"])
        write_aside(workdir / "results.json", json.dumps(_finite(summary), indent=2) + "\n")
    return summary


def _finite(value: Any) -> Any:
    """With None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _keep_best(workdir: Path, number: int) -> None:
    """Copies a trial's model to `model/`: aside first, so that it is whole at any time."""
    source, target = workdir / f"trial-{number}" / "best", workdir / "model"
    mark = target / "trial.txt"
    if mark.exists() and mark.read_text() == str(number):
        return
    aside = workdir / "model.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside)
    (aside / "trial.txt").write_text(str(number))
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def write_outputs(
    directory: Path,
    name: str,
    task: Task,
    space: LabelSpace,
    split: Split,
    predictions: Any,
    *,
    null_threshold: float,
) -> None:
    """Writes predictions for a split in every format that its kind has, and lists its mistakes.

    Args:
      directory: where to; created if missing.
      name: beginning of the files' names.
      task: whose split it is.
      space: what outputs mean.
      split: the examples.
      predictions: from `tasks.decode`.
      null_threshold: as in `tasks.score`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    examples = split.examples
    write_predictions(directory / f"{name}.jsonl", examples, predictions)
    threshold = null_threshold if task.has_unanswerable else None
    if space.kind == "span":
        write_answers(directory, predictions, null_threshold=threshold, prefix=f"{name}_")
    files = task.splits.get(split.name)
    if files and files.submission and submission_problem(task, split.name, examples) is None:
        write_submission(directory, task, split.name, examples, predictions)
    if not split.labelled:
        return
    if space.kind == "classification":
        gold = [example.label for example in examples]
        counts = confusion_matrix(gold, predictions.labels, space.labels)
        draw_confusion(counts, space.labels, directory / f"{name}_confusion.png")
    elif space.kind == "regression":
        gold = [example.label for example in examples]
        draw_scatter(gold, predictions.values.tolist(), directory / f"{name}_scatter.png")
    elif space.kind == "tagging":
        write_rows(directory / f"{name}_errors.jsonl", span_errors(examples, predictions))
        outcomes = span_outcomes(examples, predictions)
        path = directory / f"{name}_errors.png"
        draw_shares(outcomes, path, right="right", title="Spans by type")
    elif space.kind == "span":
        errors = answer_errors(examples, predictions, null_threshold=threshold)
        write_rows(directory / f"{name}_errors.jsonl", errors)
        outcomes = answer_outcomes(examples, predictions, null_threshold=threshold)
        path = directory / f"{name}_errors.png"
        draw_shares(outcomes, path, right="exact", title="Questions by question word")
