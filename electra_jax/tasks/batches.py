"""Batches of rows of like length, as a pure function of the step.

The shapes of batches are few, since each costs a compilation: rows are padded to one of a handful
of lengths, chosen so that the padding is least. A batch is as large as every other one; where an
epoch's rows run out, rows of weight 0 fill it, and no row is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from electra_jax.data.permutation import permute
from electra_jax.errors import UserError
from electra_jax.tasks.features import IGNORED, Features

_ALL_ROWS = slice(None)
# Rows are sorted by length within so many batches: enough for batches of one padded length, few
# enough that when a row is seen is left to chance.
_WINDOW_BATCHES = 50
# Batch orders are drawn under a seed of their own.
_ORDER_SEED = 0x6F726465


def choose_lengths(
    lengths: Sequence[int] | np.ndarray, *, max_length: int, count: int = 6, multiple: int = 8
) -> tuple[int, ...]:
    """The lengths to pad rows to that need the fewest padding tokens.

    Args:
      lengths: int [rows], tokens of the rows to come.
      max_length: no length is larger.
      count: at most so many lengths.
      multiple: lengths are multiples of it, but for `max_length`.

    Returns:
      Lengths, smallest first; the last one holds the longest row.

    Raises:
      UserError: if `count` or `multiple` is not positive, or a row is longer than `max_length`.
    """
    if count < 1 or multiple < 1:
        raise UserError(f"bucket count={count} and multiple={multiple} must be positive")
    rounded = -(-np.asarray(lengths, np.int64) // multiple) * multiple
    if len(rounded) and max(lengths) > max_length:
        raise UserError(f"max_length={max_length} is shorter than a row of {max(lengths)} tokens")
    candidates, rows = np.unique(np.minimum(rounded, max_length), return_counts=True)
    if not len(candidates):
        return (max_length,)
    # cost[k]: fewest tokens of all rows up to candidate k, which is one of the chosen.
    total = np.concatenate([[0], np.cumsum(rows)])
    cost = candidates * total[1:]
    choices = []
    for _ in range(min(count, len(candidates)) - 1):
        # One more length: the best j < k that comes before k.
        options = cost[:, None] + candidates[None] * (total[1:][None] - total[1:][:, None])
        options[np.tril_indices(len(candidates))] = np.iinfo(np.int64).max
        choices.append(options.argmin(axis=0))
        cost = np.minimum(cost, options.min(axis=0))
    chosen = [len(candidates) - 1]
    for choice in reversed(choices):
        chosen.append(int(choice[chosen[-1]]))
    return tuple(int(candidates[k]) for k in sorted(set(chosen)))


class _PaddedRows:
    """Rows of features as arrays of one length."""

    def __init__(self, features: Features, lengths: Sequence[int] | None, count: int):
        longest = int(features.lengths.max(initial=1))
        if lengths is None:
            lengths = choose_lengths(features.lengths, max_length=features.max_length, count=count)
        self.lengths = tuple(sorted(lengths))
        if not self.lengths or self.lengths[-1] < longest:
            raise UserError(
                f"bucket lengths {list(self.lengths)} are shorter than a row of {longest} tokens: "
                "add a longer one"
            )
        self.features = features
        self.row_lengths = features.lengths

    def length_of(self, rows: np.ndarray) -> int:
        """The smallest of the lengths that holds rows given by number; -1 is no row."""
        present = rows[rows >= 0]
        longest = self.row_lengths[present].max() if len(present) else 1
        return self.lengths[int(np.searchsorted(self.lengths, longest))]

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The arrays of rows given by number; -1 makes a row of weight 0."""
        features, special = self.features, self.features.special_ids
        is_row = rows >= 0
        dtype = features.input_ids[0].dtype if len(features) else np.uint16
        input_ids = np.full((len(rows), length), special.pad, dtype)
        # A row of padding alone would have nothing to attend to.
        input_ids[~is_row, 0], input_ids[~is_row, 1] = special.cls, special.sep
        padded = {name: np.full((len(rows), length), IGNORED, np.int32)
                  for name in features.token_targets}  # fmt: skip
        for i in np.flatnonzero(is_row):
            row = rows[i]
            size = self.row_lengths[row]
            input_ids[i, :size] = features.input_ids[row]
            for name, target in padded.items():
                target[i, :size] = features.token_targets[name][row]
        targets = {}
        for name, values in features.targets.items():
            targets[name] = np.zeros((len(rows), *values.shape[1:]), values.dtype)
            targets[name][is_row] = values[rows[is_row]]
        return {
            "input_ids": input_ids,
            **targets,
            **padded,
            "weights": is_row.astype(np.float32),
        }


class BucketedBatches:
    """Batches to train on: epoch after epoch without end, each with every row once.

    In an epoch rows are shuffled, sorted by padded length within stretches of 50 batches, cut into
    batches, and the batches shuffled. So all depends on the seed and the number of the step alone,
    and a run that resumes, or goes on with another number of processes, sees the same rows.

    Attributes:
      batch_size: rows per batch, of all processes together.
      num_rows: rows in one epoch.
      num_batches: batches in one epoch.
      lengths: the lengths that batches may have.
    """

    def __init__(
        self,
        features: Features,
        *,
        batch_size: int,
        seed: int = 0,
        lengths: Sequence[int] | None = None,
        num_lengths: int = 6,
        shuffle: bool = True,
    ):
        """Prepares the order; no batch is made.

        Args:
          features: the rows.
          batch_size: rows per batch, of all processes together.
          seed: of the order.
          lengths: the lengths to pad to; None: at most `num_lengths`, by `choose_lengths`.
          num_lengths: how many to choose.
          shuffle: whether there is any order but the features' own; for tests and timing.

        Raises:
          UserError: if there are no rows, an argument is out of range, or a row is longer than
            all lengths.
        """
        _check(features, batch_size)
        self._padded = _PaddedRows(features, lengths, num_lengths)
        self.lengths = self._padded.lengths
        self.batch_size = batch_size
        self.num_rows = len(features)
        self.num_batches = -(-self.num_rows // batch_size)
        self._seed, self._shuffle = seed, shuffle
        self._epoch: tuple[int, np.ndarray] | None = None

    def rows_at(self, step: int) -> np.ndarray:
        """The numbers of a batch's rows: int64 [batch_size], -1 where there is none."""
        epoch, batch = divmod(step, self.num_batches)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        return self._epoch[1][batch]

    def batch_at(self, step: int, rows: slice = _ALL_ROWS) -> dict[str, np.ndarray]:
        """The batch of a step, or some of its rows, which are as long as the whole batch's.

        Args:
          step: number of the batch, from 0, without end.
          rows: which rows of the global batch, for a process that holds a part of it.

        Returns:
          input_ids: uint16 or uint32 [rows, L], L one of `lengths`; rows of weight 0 are [CLS]
            [SEP].
          weights: float32 [rows], 1, or 0 for a row that fills the batch.
          row_ids: uint32 [rows], the row's place in the endless sequence, modulo 2**32: a number
            to draw random numbers from that does not depend on how rows are spread over devices.
          And the features' targets, [rows, ...], 0 in rows of weight 0, and token targets, int32
            [rows, L], `IGNORED` beyond the row and in rows of weight 0.
        """
        numbers = self.rows_at(step)
        batch = self._padded.batch(numbers[rows], self._padded.length_of(numbers))
        places = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)[rows]
        return batch | {"row_ids": places.astype(np.uint32)}

    def length_at(self, step: int) -> int:
        """How long the rows of a batch are."""
        return self._padded.length_of(self.rows_at(step))

    def _order(self, epoch: int) -> np.ndarray:
        """Rows of every batch of an epoch: int64 [num_batches, batch_size], -1 where none."""
        order = np.arange(self.num_rows, dtype=np.int64)
        result = np.full(self.num_batches * self.batch_size, -1, np.int64)
        if not self._shuffle:
            result[: self.num_rows] = order
            return result.reshape(self.num_batches, self.batch_size)
        order = permute(order, length=self.num_rows, seed=self._seed, epoch=epoch)
        stretch = _WINDOW_BATCHES * self.batch_size
        for start in range(0, self.num_rows, stretch):
            part = order[start : start + stretch]
            # By what they are padded to: among equals chance decides, at no cost.
            padded = np.searchsorted(self.lengths, self._padded.row_lengths[part])
            result[start : start + len(part)] = part[np.argsort(padded, kind="stable")]
        batches = result.reshape(self.num_batches, self.batch_size)
        seed = self._seed ^ _ORDER_SEED
        return batches[
            permute(np.arange(self.num_batches), length=self.num_batches, seed=seed, epoch=epoch)
        ]


class EvaluationBatches:
    """Batches to predict: every row once, by length, and a way back to the rows' own order.

    Attributes:
      batch_size: rows per batch, of all processes together.
      num_batches: how many there are.
      lengths: the lengths that batches may have.
    """

    def __init__(
        self,
        features: Features,
        *,
        batch_size: int,
        lengths: Sequence[int] | None = None,
        num_lengths: int = 6,
    ):
        """Sorts the rows; arguments and errors as of `BucketedBatches`."""
        _check(features, batch_size)
        self._padded = _PaddedRows(features, lengths, num_lengths)
        self.lengths = self._padded.lengths
        self.batch_size = batch_size
        self.num_batches = -(-len(features) // batch_size)
        self._order = np.argsort(features.lengths, kind="stable")

    def rows_at(self, step: int) -> np.ndarray:
        """The numbers of a batch's rows: int64 [batch_size], -1 where there is none."""
        numbers = np.full(self.batch_size, -1, np.int64)
        part = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        numbers[: len(part)] = part
        return numbers

    def batch_at(self, step: int, rows: slice = _ALL_ROWS) -> dict[str, np.ndarray]:
        """A batch, as `BucketedBatches.batch_at`; past the last one all rows have weight 0."""
        numbers = self.rows_at(step)
        batch = self._padded.batch(numbers[rows], self._padded.length_of(numbers))
        places = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)[rows]
        return batch | {"row_ids": places.astype(np.uint32)}

    def restore(self, outputs: Sequence[Any]) -> list[Any]:
        """What was computed of each row, in the features' order.

        Args:
          outputs: of every batch in order, an array [batch_size, ...] or a dict of such arrays,
            whole batches.

        Returns:
          Of every row an array [...] or a dict of arrays, as long as its batch was.

        Raises:
          ValueError: if there are not as many outputs as batches.
        """
        if len(outputs) != self.num_batches:
            raise ValueError(f"{len(outputs)} outputs for {self.num_batches} batches")
        result: list[Any] = [None] * len(self._order)
        for step, output in enumerate(outputs):
            if isinstance(output, dict):
                output = {name: np.asarray(values) for name, values in output.items()}
            else:
                output = np.asarray(output)
            for i, row in enumerate(self.rows_at(step).tolist()):
                if row < 0:
                    break
                if isinstance(output, dict):
                    result[row] = {name: values[i] for name, values in output.items()}
                else:
                    result[row] = output[i]
        return result


def _check(features: Features, batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be positive")
    if not len(features):
        raise UserError("there are no rows to make batches of: check the data")
