from __future__ import annotations

import numpy as np
import pytest

from electra_jax.data.hashing import mix64, mix64_array
from electra_jax.data.permutation import permute


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 16, 17, 100, 101, 1000, 65_536, 99_991])
def test_is_a_bijection(length):
    result = permute(np.arange(length), length=length, seed=3, epoch=2)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(np.sort(result), np.arange(length))


def test_element_does_not_depend_on_its_neighbours():
    whole = permute(np.arange(1000), length=1000, seed=1, epoch=0)
    part = permute(np.array([[7, 990], [3, 7]]), length=1000, seed=1, epoch=0)
    np.testing.assert_array_equal(part, whole[[[7, 990], [3, 7]]])


def test_seed_and_epoch_change_the_order():
    orders = [
        permute(np.arange(1000), length=1000, seed=seed, epoch=epoch)
        for seed in (0, 1, -1, 2**70 + 5)
        for epoch in (0, 1, 2)
    ]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            # Two random orders agree in one place on average.
            assert np.sum(first == second) < 12


def test_looks_random():
    length = 100_000
    result = permute(np.arange(length), length=length, seed=0, epoch=0)
    assert abs(np.corrcoef(np.arange(length), result)[0, 1]) < 0.02
    assert abs(np.corrcoef(result[:-1], result[1:])[0, 1]) < 0.02
    # A batch of 500 spreads over the whole: 50 in each tenth, standard deviation 7.
    counts = np.bincount(result[:500] * 10 // length, minlength=10)
    assert counts.min() > 15 and counts.max() < 95


def test_small_lengths_reach_every_order():
    orders = {
        tuple(permute(np.arange(3), length=3, seed=seed, epoch=0).tolist()) for seed in range(200)
    }
    assert len(orders) == 6


def test_huge_length():
    indices = np.array([0, 1, 2**40, 2**61])
    result = permute(indices, length=2**62, seed=0, epoch=0)
    assert len(set(result.tolist())) == 4 and result.min() >= 0


@pytest.mark.parametrize("indices", [[-1], [5]])
def test_refuses_indices_outside(indices):
    with pytest.raises(ValueError, match=r"indices must be in \[0, 5\)"):
        permute(np.array(indices), length=5, seed=0, epoch=0)


def test_refuses_no_examples():
    with pytest.raises(ValueError, match="length=0"):
        permute(np.array([0]), length=0, seed=0, epoch=0)


def test_hash_of_arrays_is_the_hash_of_numbers():
    values = [0, 1, 12345, 2**63, 2**64 - 1]
    assert mix64_array(np.array(values, np.uint64)).tolist() == [mix64(value) for value in values]
    # First outputs of the reference implementation of splitmix64 with seed 0.
    assert mix64(0) == 0xE220A8397B1DCDAF
    assert mix64(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4
