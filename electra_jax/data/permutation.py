"""A shuffled order that is computed, not stored: position -> example, for any number of examples.

A shuffle buffer or a stored permutation has a state that a resumed or resized job must restore;
here the order is a pure function of (length, seed, epoch), evaluated for a batch at a time.
"""

from __future__ import annotations

import math

import numpy as np

from electra_jax.data.hashing import MASK64, mix64

# Luby and Rackoff (1988): four rounds make a Feistel network a strong pseudo-random permutation
# if the round function is random; two more make up for a round function that is merely a hash.
_ROUNDS = 6
# Multipliers of splitmix64 (Steele, Lea and Flood 2014).
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_29, _SHIFT_32 = np.uint64(29), np.uint64(32)


def _below(values: np.ndarray, key: int, bound: np.uint64) -> np.ndarray:
    """Hashes uint64 `values` (< 2^32) with `key` to uint64 in [0, bound), bound <= 2^32."""
    hashed = values + np.uint64(key)
    hashed *= _MULTIPLIER_1
    hashed ^= hashed >> _SHIFT_29
    hashed *= _MULTIPLIER_2
    hashed >>= _SHIFT_32
    hashed *= bound
    hashed >>= _SHIFT_32
    return hashed


def permute(indices: np.ndarray, *, length: int, seed: int, epoch: int) -> np.ndarray:
    """Where each position of a shuffled epoch reads from: a bijection of [0, length).

    A Feistel network of six rounds over pairs (left, right) in [0, rows) x [0, columns), with
    rows = ceil(sqrt(length)) and rows * columns just above `length`; a result past the end is
    fed in again ("cycle walking": Black and Rogaway 2002), which keeps it a bijection. Sides
    that are not powers of two leave fewer than sqrt(length) such results, so walking costs
    nothing, where a power of two could send three in four of them round again.

    Args:
      indices: positions in the epoch, integers in [0, length), any shape.
      length: number of examples, in [1, 2^62].
      seed: any integer.
      epoch: any integer; every epoch has its own order.

    Returns:
      int64, of the shape of `indices`.

    Raises:
      ValueError: if `length` is out of range or an index is not in [0, length).
    """
    if not 1 <= length <= 1 << 62:
        raise ValueError(f"length={length} must be in [1, 2^62]")
    positions = np.asarray(indices, np.int64)
    if positions.size and not 0 <= positions.min() <= positions.max() < length:
        raise ValueError(f"indices must be in [0, {length})")
    rows = math.isqrt(length - 1) + 1
    columns = -(-length // rows)
    key = mix64(mix64(seed & MASK64) ^ (epoch & MASK64))
    keys = [mix64(key + i) for i in range(1, _ROUNDS + 1)]
    result = _feistel(positions.reshape(-1).astype(np.uint64), rows, columns, keys)
    outside = np.flatnonzero(result >= length)
    while outside.size:
        walked = _feistel(result[outside], rows, columns, keys)
        result[outside] = walked
        outside = outside[walked >= length]
    return result.astype(np.int64).reshape(positions.shape)


def _feistel(values: np.ndarray, rows: int, columns: int, keys: list[int]) -> np.ndarray:
    """One pass of the network over uint64 values in [0, rows * columns)."""
    bounds = np.uint64(rows), np.uint64(columns)
    left, right = np.divmod(values, bounds[1])
    sides = [left, right]
    for i, key in enumerate(keys):
        # Adding a hash of the other side, modulo this side's size, can always be undone.
        side = sides[i % 2]
        side += _below(sides[1 - i % 2], key, bounds[i % 2])
        side -= np.where(side >= bounds[i % 2], bounds[i % 2], np.uint64(0))
    return sides[0] * bounds[1] + sides[1]
