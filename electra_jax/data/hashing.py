"""splitmix64's output function, for one number and for arrays: random draws without a state.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014); the
constants are those of its reference implementation.
"""

from __future__ import annotations

import numpy as np

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB


def mix64(value: int) -> int:
    """Scrambles an integer (taken modulo 2^64) to one in [0, 2^64); a bijection."""
    value = (value + GOLDEN) & MASK64
    value = ((value ^ (value >> 30)) * _MULTIPLIER_1) & MASK64
    value = ((value ^ (value >> 27)) * _MULTIPLIER_2) & MASK64
    return value ^ (value >> 31)


def mix64_array(values: np.ndarray) -> np.ndarray:
    """`mix64` of every element of an integer array, as uint64 of the same shape (at least 1-D)."""
    mixed = np.atleast_1d(values).astype(np.uint64)
    mixed += np.uint64(GOLDEN)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(_MULTIPLIER_1)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_MULTIPLIER_2)
    mixed ^= mixed >> np.uint64(31)
    return mixed
