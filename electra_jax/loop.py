"""The one training loop: the only place with clocks.

Contract. `state.step` = steps taken = label of a checkpoint and of a row. Step n trains on
`batch_at(n)`, so the state alone says where the data stands. Exactly `num_steps - state.step`
steps run, unless a stop is asked for, `steps_per_call` at a time where that meets no evaluation and
no save. After each: log, evaluate, save, in this order. What a step
computed is fetched while later steps run. Before a save, every row up to it is on disk: a killed
run that starts again from its last checkpoint writes the rows that are missing, each once. The
final state is always saved.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from electra_jax.errors import Preempted
from electra_jax.train_state import TrainState
from electra_jax.writers import MetricWriter

# Steps under way before the oldest one's numbers are fetched: the device never waits for the host.
_IN_FLIGHT = 2


class NonFiniteStep(FloatingPointError):  # noqa: N818
    """A step whose loss or gradient is not finite; `step` counts it."""

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How often things happen, in steps.

    With `steps_per_call`, a call of the training step takes up to so many steps, and its batch and
    sums have an axis of steps; None: it takes one, and they have none.
    """

    log_every: int
    eval_every: int
    checkpoint_every: int
    steps_per_call: int | None = None

    def steps_to_take(self, step: int, num_steps: int, boundaries: Sequence[int] = ()) -> int:
        """How many steps the next call takes: after none but the last of them is there more to do.

        Args:
          step: steps taken.
          num_steps: where the run ends.
          boundaries: other steps after which a call ends.
        """
        every = (self.steps_per_call or 1, self.eval_every, self.checkpoint_every)
        ends = [step - step % period + period for period in every]
        return min(ends + [end for end in (num_steps, *boundaries) if end > step]) - step


def fit(
    state: TrainState,
    train_step: Callable[[TrainState, Mapping[str, np.ndarray]], tuple[TrainState, Any]],
    batch_at: Callable[[int], Mapping[str, np.ndarray]],
    *,
    num_steps: int,
    cadence: Cadence,
    log: StepLog,
    evaluate: Callable[[TrainState], Mapping[str, float]],
    save: Callable[[TrainState, Mapping[str, Any]], None],
    is_finished: Callable[[], bool] = lambda: False,
    should_stop: Callable[[int], bool] = lambda step: False,
    boundaries: Sequence[int] = (),
) -> TrainState:
    """Trains up to `num_steps` updates and returns the final state.

    Args:
      state: where to begin; given up (its memory is reused).
      train_step: `(state, batch) -> (state, sums)`, such as `steps.train_step`, or, with
        `cadence.steps_per_call`, `steps.train_steps`.
      batch_at: the batch of update n, counted from 0.
      log: collects the sums and writes rows.
      evaluate: metrics of a state on held-out data, and `tokens`, how many were read for them.
      save: called with a state and the sums that are not in a row yet.
      is_finished: asked at the start and after each evaluation whether the run ends there.
      should_stop: asked after each step whether to save and stop.
      boundaries: steps at which batches change their shapes.

    Raises:
      Preempted: where `should_stop` said so before the end.
      NonFiniteStep: as `log` says.
    """
    step = int(state.step)
    finished = is_finished()

    def batches_at(step: int, count: int):
        if cadence.steps_per_call is None:
            return batch_at(step)
        return jax.tree.map(lambda *x: np.stack(x), *map(batch_at, range(step, step + count)))

    while step < num_steps and not finished:
        count = cadence.steps_to_take(step, num_steps, boundaries)
        began = time.perf_counter()
        batch = batches_at(step, count)
        log.input_seconds += time.perf_counter() - began
        state, sums = train_step(state, batch)
        log.add(step + 1, sums, count, cadence)
        step += count
        last = step == num_steps
        evaluates = last or step % cadence.eval_every == 0
        stops = should_stop(step) and not last
        saves = last or stops or step % cadence.checkpoint_every == 0
        if evaluates or saves:
            with log.pause():
                if evaluates:
                    log.write_evaluation(step, evaluate, state)
                    finished = is_finished()
                if finished:
                    log.end_row(step)
                if saves or finished:
                    log.writer.flush()
                    save(state, log.window)
        if stops and not finished:
            raise Preempted(f"asked to stop after step {step:,}, which is saved")
    return state


def compile_step(step: Any, state: TrainState, batch: Mapping[str, np.ndarray]) -> float:
    """Compiles a step ahead of its first use; returns the seconds it took."""
    began = time.perf_counter()
    step.compile(state, batch)
    return time.perf_counter() - began


class StepLog:
    """Adds up what steps report and writes one row for every stretch of steps.

    Args:
      writer: takes the rows.
      summarize: metrics from sums (an objective's).
      learning_rate: schedule, a function of the step counted from 0.
      num_steps: where the run ends, for the time left.
      tokens: name of the sum that counts tokens, for the speed.
      window: sums of the row under way, from a checkpoint.
      raise_if_skipped: whether a step that was not finite ends the run.
      flops_of: operations of a step, counted from 0, for the utilisation; gives None: not known.
      peak_flops: of all devices, a second; None: not known.
    """

    def __init__(
        self,
        writer: MetricWriter,
        summarize: Callable[[Mapping[str, Any]], dict[str, float]],
        *,
        learning_rate: Callable[[int], Any],
        num_steps: int,
        tokens: str = "tokens",
        window: Mapping[str, Any] | None = None,
        raise_if_skipped: bool = True,
        flops_of: Callable[[int], float | None] = lambda step: None,
        peak_flops: float | None = None,
    ):
        self.writer = writer
        self.window: dict[str, Any] = {k: np.float64(v) for k, v in (window or {}).items()}
        self._summarize, self._learning_rate = summarize, learning_rate
        self._num_steps, self._tokens = num_steps, tokens
        self._raise_if_skipped = raise_if_skipped
        self._flops_of, self._peak_flops = flops_of, peak_flops
        self._pending: collections.deque = collections.deque()
        self._clock, self._timed_steps = time.perf_counter(), 0
        self.input_seconds = 0.0  # spent on batches since the last row

    def add(self, first: int, sums: Mapping[str, jax.Array], count: int, cadence: Cadence) -> None:
        """Takes the sums of `count` steps, the first of which is `first`; they may still run."""
        for value in sums.values():
            value.copy_to_host_async()
        self._pending.append((first, sums, count, cadence))
        self._fetch(down_to=_IN_FLIGHT)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Context in which everything so far is written and the speed's clock stands still."""
        self._fetch(down_to=0)
        began = time.perf_counter()
        yield
        self._clock += time.perf_counter() - began

    def write_evaluation(
        self, step: int, evaluate: Callable[[TrainState], Mapping[str, float]], state: TrainState
    ) -> None:
        """Evaluates a state and writes the row."""
        began = time.perf_counter()
        metrics = dict(evaluate(state))
        seconds = time.perf_counter() - began
        row = {
            "learning_rate": float(self._learning_rate(step - 1)),
            "tokens_per_second": metrics.pop("tokens") / seconds,
        }
        self.writer.write(step, "eval", metrics | row)

    def end_row(self, step: int) -> None:
        """Writes the row under way, if there is one."""
        if self.window:
            self._write_row(step)

    def _fetch(self, down_to: int) -> None:
        while len(self._pending) > down_to:
            first, sums, count, cadence = self._pending.popleft()
            sums = {name: np.asarray(value, np.float64) for name, value in sums.items()}
            for i in range(count):
                is_plain = cadence.steps_per_call is None
                of_step = sums if is_plain else {name: x[i] for name, x in sums.items()}
                self._take(first + i, of_step, cadence.log_every)

    def _take(self, step: int, sums: Mapping[str, np.ndarray], log_every: int) -> None:
        self._check(step, sums)
        self.window = {k: v + self.window.get(k, 0.0) for k, v in sums.items()}
        self._timed_steps += 1
        self.writer.advance(step)
        if step == self._num_steps or step % log_every == 0:
            self._write_row(step)

    def _check(self, step: int, sums: Mapping[str, np.ndarray]) -> None:
        if sums["skipped_steps"] > 0 and self._raise_if_skipped:
            self.writer.flush()
            raise NonFiniteStep(
                step,
                f"step {step}: the loss or its gradient is not finite. The update was left out and "
                "nothing was saved since. Lower the learning rate, or set "
                "train.on_nonfinite=skip to leave such steps out and go on",
            )

    def _write_row(self, step: int) -> None:
        now = time.perf_counter()
        seconds = max(now - self._clock, 1e-9)
        steps_per_second = self._timed_steps / seconds
        input_share, self.input_seconds = min(1.0, self.input_seconds / seconds), 0.0
        window, self.window = self.window, {}
        self._clock, self._timed_steps = now, 0
        steps = float(window["steps"])
        row = self._summarize(window) | {
            "grad_norm": float(window["grad_norm"]) / max(steps - window["skipped_steps"], 1.0),
            "skipped_steps": int(window["skipped_steps"]),
            "learning_rate": float(self._learning_rate(step - 1)),
            "steps_per_second": steps_per_second,
            "tokens_per_second": float(window[self._tokens]) / steps * steps_per_second,
            "input_share": input_share,  # of the time, in which the host made batches
            "eta_seconds": (self._num_steps - step) / steps_per_second,
        }
        operations = self._flops_of(step - 1)
        if operations is not None and self._peak_flops is not None:
            utilisation = operations * steps_per_second / self._peak_flops
            row["model_flops_utilisation"] = utilisation
        self.writer.write(step, "train", row)
