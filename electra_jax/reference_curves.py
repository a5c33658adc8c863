"""Curves in small CSV files: written from runs, read to be laid under others.

Those of this project's own runs are in `reference/`: `small_wikipedia-NAME.csv` of
experiments/small_wikipedia.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.data.curriculum import Phase, tokens_in_phases
from electra_jax.errors import UserError

METRICS = (
    "loss mlm_loss encoder_loss disc_loss disc_auc mlm_accuracy sampled_accuracy disc_recall "
    "replaced_share grad_norm learning_rate"
).split()
_MOST_ROWS = 200
_REFERENCE = Path(__file__).parent / "reference"


def tokens_at(config: Mapping[str, Any], step: int) -> int:
    """Tokens of the first steps of a run, padding included."""
    data = config["data"]
    first = Phase(0, data["seq_len"], config["train"]["batch_size"])
    later = [Phase(*phase) for phase in data.get("phases", ())]
    return tokens_in_phases([first, *later], step)


def write_curves(path: Path, rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> None:
    """Writes a run's metrics: at most 200 rows of each split, evenly spread, with the last."""
    metrics = [name for name in METRICS if any(name in row for row in rows)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", "step", "tokens", *metrics])
        for split in ("train", "eval"):
            found = [row for row in rows if row["split"] == split]
            every = -(-len(found) // _MOST_ROWS) or 1
            for row in found[(len(found) - 1) % every :: every]:
                values = [row.get(name) for name in metrics]
                shown = ["" if value is None else f"{value:.5g}" for value in values]
                writer.writerow([split, row["step"], tokens_at(config, row["step"]), *shown])


def read_curves(path: Path | str) -> dict[str, list[dict[str, Any]]]:
    """Rows of each CSV file at a path, by the file's name.

    Args:
      path: a file, or a directory of them; "reference": the project's own,
        "reference:NAME": the one of that name, or those whose names begin so.

    Raises:
      UserError: if there is none, or one is no such file.
    """
    name, _, beginning = str(path).partition(":")
    is_reference = name == "reference" and not Path(path).exists()
    path = _REFERENCE if is_reference else Path(path)
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if is_reference:
        known = sorted({file.stem.partition("-")[0] for file in files})
        exact = [file for file in files if file.stem == beginning]
        files = exact or [file for file in files if file.stem.startswith(beginning)]
        if not files:
            raise UserError(f"against=reference:{beginning} is unknown: use {', '.join(known)}")
    if not files or not files[0].exists():
        raise UserError(f"against={path}: there is no .csv: give a file or a directory")
    curves = {}
    for file in files:
        try:
            with open(file, newline="", encoding="utf-8") as opened:
                rows = list(csv.DictReader(opened))
            curves[file.stem] = [
                {"split": row.pop("split")}
                | {name: float(value) for name, value in row.items() if value}
                for row in rows
            ]
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise UserError(
                f"against={file} holds no curves ({error}): --write-csv writes such files"
            ) from None
    return curves
