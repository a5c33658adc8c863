"""Batches whose length and size change as training goes on: still a pure function of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data.batches import TokenBatches
from electra_jax.data.corpus import Corpus
from electra_jax.data.hashing import MASK64, mix64
from electra_jax.errors import UserError

_ALL_ROWS = slice(None)


class Phase(NamedTuple):
    """From a step on, rows of this length, so many a batch."""

    first_step: int
    seq_len: int
    batch_size: int


class CurriculumBatches:
    """Batches of `TokenBatches`, of one phase after another.

    Step s of a phase that begins at f reads batch s - f of that phase's own batches, whose cuts
    and order follow from (seed, number of the phase): no phase repeats the beginning of another.
    The first phase is what `TokenBatches` with the same seed gives. A step is compiled for the
    shapes of each phase (`like`), so a run of few phases compiles few times.

    Attributes:
      phases: the phases.
      batches: `TokenBatches` of each.
      seq_len: tokens of the longest rows of any phase.
    """

    def __init__(
        self,
        corpus: Corpus,
        phases: Sequence[tuple[int, int, int]],
        *,
        split: str = "train",
        seed: int = 0,
        example_format: str = "segments",
        shuffle: bool = True,
    ):
        """Cuts the corpus into examples for each phase; no text is touched, no token is read.

        Args:
          corpus: where from.
          phases: (first_step, seq_len, batch_size), the first from step 0; batch_size counts the
            rows of all processes together.
          split, seed, example_format, shuffle: as in `TokenBatches`.

        Raises:
          UserError: if phases do not follow one another from step 0, or for what `TokenBatches`
            refuses.
        """
        self.phases = tuple(Phase(*phase) for phase in phases)
        _check(self.phases)
        self.batches = tuple(
            TokenBatches(
                corpus,
                split=split,
                seq_len=phase.seq_len,
                batch_size=phase.batch_size,
                seed=seed if number == 0 else mix64(mix64(seed & MASK64) ^ number),
                example_format=example_format,
                shuffle=shuffle,
            )
            for number, phase in enumerate(self.phases)
        )
        self.seq_len = max(phase.seq_len for phase in self.phases)
        self._first_steps = [phase.first_step for phase in self.phases]

    def phase_at(self, step: int) -> int:
        """The number of the phase that a step is in."""
        return int(np.searchsorted(self._first_steps, step, side="right")) - 1

    def batch_at(self, step: int, rows: slice = _ALL_ROWS) -> dict[str, np.ndarray]:
        """The batch of a step, or some of its rows; only these are read.

        Args:
          step: number of the batch, from 0, without end.
          rows: which rows of the batch of that step, whose size is
            `phases[phase_at(step)].batch_size`.

        Returns:
          `input_ids`, uint16 (uint32 if the vocabulary needs it) [rows, seq_len of the phase],
          and `row_ids`, uint32 [rows], how many rows of the run came before each, modulo 2**32:
          another number for each, in all phases.
        """
        number = self.phase_at(step)
        first_step = self._first_steps[number]
        batch = self.batches[number].batch_at(step - first_step, rows)
        before = self.num_rows(first_step) % (1 << 32)
        return batch | {"row_ids": batch["row_ids"] + np.uint32(before)}

    def like(self, rows: slice = _ALL_ROWS, phase: int = 0) -> dict[str, np.ndarray]:
        """Zeros in the shapes and dtypes of `batch_at` in a phase, without memory."""
        return self.batches[phase].like(rows)

    def num_rows(self, num_steps: int) -> int:
        """Rows in the first steps."""
        return sum(steps * phase.batch_size for steps, phase in self._parts(num_steps))

    def num_tokens(self, num_steps: int) -> int:
        """Tokens of these rows, padding included."""
        return tokens_in_phases(self.phases, num_steps)

    def num_epochs(self, num_steps: int) -> float:
        """How many times the corpus is read in the first steps."""
        return sum(
            steps * phase.batch_size / batches.num_examples
            for (steps, phase), batches in zip(self._parts(num_steps), self.batches, strict=True)
        )

    def _parts(self, num_steps: int) -> list[tuple[int, Phase]]:
        return steps_in_phases(self.phases, num_steps)


def steps_in_phases(phases: Sequence[Phase], num_steps: int) -> list[tuple[int, Phase]]:
    """How many of the first steps are in each phase."""
    ends = [*(phase.first_step for phase in phases[1:]), max(num_steps, phases[-1].first_step)]
    return [
        (max(0, min(num_steps, end) - phase.first_step), phase)
        for phase, end in zip(phases, ends, strict=True)
    ]


def tokens_in_phases(phases: Sequence[Phase], num_steps: int) -> int:
    """Tokens of the rows of the first steps, padding included."""
    return sum(
        steps * phase.batch_size * phase.seq_len
        for steps, phase in steps_in_phases(phases, num_steps)
    )


def _check(phases: Sequence[Phase]) -> None:
    """Raises UserError unless phases follow one another from step 0, with positive sizes."""
    if not phases:
        raise UserError("data.phases is empty: give (first_step, seq_len, batch_size) from step 0")
    for number, phase in enumerate(phases):
        for name, value in phase._asdict().items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise UserError(f"data.phases[{number}]: {name}={value!r} must be an integer")
        if phase.batch_size < 1:
            raise UserError(
                f"data.phases[{number}]: batch_size={phase.batch_size} must be positive"
            )
    if phases[0].first_step != 0:
        raise UserError(
            f"data.phases[0]: first_step={phases[0].first_step} must be 0, where training begins"
        )
    for number in range(1, len(phases)):
        before, here = phases[number - 1].first_step, phases[number].first_step
        if here <= before:
            raise UserError(
                f"data.phases[{number}]: first_step={here} must be larger than {before}, that of "
                "the phase before it"
            )
