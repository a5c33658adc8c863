"""How a build tells its user how far it is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from electra_jax.data.build.stages import Progress

_SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay:
    """Shows stages, one after another, each with its share done, MB/s of text and time left."""

    def __init__(self, stream: TextIO | None = None):
        """Shows on `stream`, standard error by default."""
        self._stream = stream or sys.stderr
        self._bar = self._task = None
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f}%  {task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
            )
            self._bar.start()
        self.begin("", 0)

    def begin(self, stage: str, total: int) -> None:
        """A stage begins that has to do `total`, counted in the unit of its reports."""
        total = total or 1  # not known
        self._stage, self._total, self._done = stage, total, Progress()
        self._began = self._printed = time.monotonic()
        if self._bar:
            if self._task is not None:
                self._bar.update(self._task, completed=self._bar.tasks[self._task].total)
            self._task = self._bar.add_task(stage, total=total, rate="") if stage else None

    def report(self, progress: Progress) -> None:
        """Something has been done."""
        done = Progress(*map(sum, zip(self._done, progress, strict=True)))
        self._done = done
        amount = done.source_bytes or done.tokens
        now = time.monotonic()
        seconds = max(now - self._began, 1e-6)
        rate = f"{done.text_bytes / 1e6 / seconds:.1f} MB/s" if done.text_bytes else ""
        if self._bar:
            self._bar.update(self._task, completed=amount, rate=rate)
        elif now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            left = seconds * max(self._total - amount, 0) / max(amount, 1)
            share = min(1.0, amount / max(self._total, 1))
            text = f"{self._stage}: {share:.0%}"
            if done.tokens and done.documents:
                text += f", {done.documents:,} documents, {done.tokens:,} tokens"
            print(f"{text}  {rate}  {left:.0f} s left", file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """Something the user should know."""
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._stream, flush=True)

    def close(self, finished: bool = True) -> None:
        """Ends the display."""
        if self._bar:
            if finished:
                self.begin("", 0)
            self._bar.stop()

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, kind, *exception) -> None:
        self.close(finished=kind is None)
