"""Where metrics go: a JSON line a row, the terminal, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from electra_jax.errors import UserError


class MetricWriter:
    """Takes rows of metrics; what a kind of writer does not need, it inherits as doing nothing."""

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Takes a row: `step` is the number of steps taken, `split` "train" or "eval"."""
        raise NotImplementedError

    def advance(self, step: int) -> None:
        """A step has ended, whether or not a row follows."""

    def flush(self) -> None:
        """Everything so far is safe when this returns."""

    def close(self) -> None:
        """Ends the writing."""


class JsonlWriter(MetricWriter):
    """Appends one JSON object a row; what is not a finite number becomes null.

    Rows past `last_step`, and a last line that was cut by a kill, are removed first: the run
    goes on from there and writes them again.
    """

    def __init__(self, path: Path | str, *, last_step: int = 0):
        path = Path(path)
        if path.exists():
            kept = [json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= last_step]
            write_aside(path, "".join(kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        row = {"step": step, "split": split} | {k: _json_number(v) for k, v in metrics.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.flush()
        self._file.close()


# Metrics that follow the clock; all others are the same whenever a run is made again.
TIMES = ("steps_per_second", "tokens_per_second", "input_share", "eta_seconds")


def write_aside(path: Path, text: str) -> None:
    """Writes a whole file or nothing: aside, then renamed."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _json_number(value: float) -> float | int | None:
    return value if isinstance(value, int) or math.isfinite(value) else None


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """Rows of a metrics file; a last line cut by a kill is left out.

    Raises:
      UserError: if another line is no JSON object, naming it.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a {type(row).__name__}")
                rows.append(row)
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: no JSON object: {error}") from error
    return rows


class ConsoleWriter(MetricWriter):
    """A progress bar on a terminal, one plain line a row elsewhere; a star at `main_metric`."""

    def __init__(
        self,
        *,
        num_steps: int,
        first_step: int = 0,
        main_metric: str = "",
        stream: TextIO | None = None,
    ):
        self._stream = stream or sys.stdout
        self._num_steps, self._main_metric = num_steps, main_metric
        self._progress = self._task = None
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn
            from rich.table import Column

            console = Console(file=self._stream)
            whole = Column(no_wrap=True, min_width=len(f"{num_steps}/{num_steps}"))
            columns = [TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=whole)]
            if console.width >= 100:
                columns.append(BarColumn(bar_width=15, table_column=Column(min_width=15)))
            cut = Column(no_wrap=True, overflow="ellipsis")
            columns.append(TextColumn("{task.description}", table_column=cut))
            self._progress = Progress(*columns, console=console)
            self._task = self._progress.add_task("", total=num_steps, completed=first_step)
            self._progress.start()

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        text = _describe(metrics, self._main_metric)
        if self._progress is None:
            self._print(f"step {step}/{self._num_steps}  {split:5}  {text}")
        elif split == "train":
            self._progress.update(self._task, completed=step, description=text)
        else:
            self._print(f"step {step}  {split}  {text}")

    def _print(self, line: str) -> None:
        if self._progress is None:
            print(line, file=self._stream, flush=True)
        else:
            self._progress.console.print(line, highlight=False)

    def advance(self, step: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


# (metric, label, format) in the order of the line.
_COLUMNS = (
    ("loss", "loss", "{:.3f}"),
    ("mlm_loss", "mlm", "{:.3f}"),
    ("encoder_loss", "encoder", "{:.3f}"),
    ("disc_loss", "disc", "{:.4f}"),
    ("disc_auc", "auc", "{:.3f}"),
    # Of fine-tuning, in percent.
    *((name, name, "{:.2f}") for name in ("accuracy", "mcc", "spearman", "pearson", "micro_f1")),
    *((name, name, "{:.2f}") for name in ("best_f1", "f1", "exact_match")),
    ("tokens_per_second", "tok/s", "{:,.0f}"),
    ("model_flops_utilisation", "MFU", "{:.1%}"),
    ("skipped_steps", "skipped", "{:.0f}"),
    ("eta_seconds", "left", None),
)


def _describe(metrics: Mapping[str, float], main_metric: str) -> str:
    parts = []
    for name, label, form in _COLUMNS:
        value = metrics.get(name)
        if value is not None and (value or name != "skipped_steps"):
            star = "*" if name == main_metric else ""
            parts.append(f"{star}{label} {form.format(value) if form else duration(value)}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """For example "2d 03:04:05", or "04:05"."""
    if not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute:02}:{second:02}"


class TensorBoardWriter(MetricWriter):
    """Scalars for TensorBoard; rows past `last_step` of an earlier run are hidden."""

    def __init__(self, directory: Path | str, *, last_step: int = 0):
        from tensorboardX import SummaryWriter

        purge_step = last_step + 1 if last_step else None
        self._writer = SummaryWriter(str(directory), purge_step=purge_step)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{split}/{name}", value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbWriter(MetricWriter):
    """Scalars for Weights & Biases; a resumed run goes on in the one it began."""

    def __init__(self, *, project: str, config: Mapping[str, Any], workdir: Path | str):
        import secrets

        import wandb

        id_file = Path(workdir) / "wandb_id.txt"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(8))
        self._run = wandb.init(
            project=project,
            config=dict(config),
            dir=str(workdir),
            id=id_file.read_text(),
            resume="allow",
        )

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        self._run.log({f"{split}/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


class WriterList(MetricWriter):
    """Passes every row on to several writers."""

    def __init__(self, writers: Sequence[MetricWriter]):
        self._writers = list(writers)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        for writer in self._writers:
            writer.write(step, split, metrics)

    def advance(self, step: int) -> None:
        for writer in self._writers:
            writer.advance(step)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
