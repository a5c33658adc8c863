"""Masks that are hashes: as good as random, and functions of (key, row, site, element) alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.dropout import dropout, dropout_seeds, mix

ROWS, SIZE = 16, 64 * 64


@jax.jit
def kept(key, row_ids, site):
    """bool [B, 64, 64]: where dropout of ones at rate 0.1 is not zero."""
    seeds = dropout_seeds(key, row_ids)
    return dropout(jnp.ones((row_ids.shape[0], 64, 64)), seeds, site, 0.1) != 0


def masks(key=0, rows=range(ROWS), site=0):
    return np.asarray(kept(jax.random.key(key), jnp.asarray(list(rows)), site)).reshape(-1, SIZE)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_share_of_kept_elements_and_their_scale_are_right(rate):
    seeds = dropout_seeds(jax.random.key(1), jnp.arange(ROWS))
    x = np.full((ROWS, SIZE), 3.0, np.float32)
    y = np.asarray(jax.jit(dropout, static_argnums=3)(x, seeds, 5, rate))
    np.testing.assert_allclose(y[y != 0], 3.0 / (1.0 - rate), rtol=1e-6)
    # Five standard deviations of a binomial, for all elements, each row and each quarter of rows.
    for group in (y.reshape(1, -1), y, y.reshape(ROWS * 4, -1)):
        sigma = np.sqrt(rate * (1 - rate) / group.shape[1])
        assert np.abs((group != 0).mean(axis=1) - (1 - rate)).max() < 5 * sigma


def test_rate_zero_keeps_everything():
    x = np.ones((2, 8), np.float32)
    seeds = dropout_seeds(jax.random.key(0), jnp.arange(2))
    np.testing.assert_array_equal(dropout(x, seeds, 0, 0.0), x)


def test_rows_sites_and_keys_have_independent_masks():
    bound = 5 / np.sqrt(ROWS * SIZE)
    first = masks()
    assert abs(correlation(first, masks(key=1))) < bound
    for site in (1, 2, 3, 1 << 16, (1 << 16) + 1):
        assert abs(correlation(first, masks(site=site))) < bound
    rows = np.corrcoef(first) - np.eye(ROWS)
    assert np.abs(rows).max() < 5 / np.sqrt(SIZE)
    far_apart = masks(rows=[0, 1 << 16, 1 << 30, 2**31 - 1])
    assert np.abs(np.corrcoef(far_apart) - np.eye(4)).max() < 5 / np.sqrt(SIZE)


def test_no_row_is_another_row_shifted_or_its_own_shifted_copy():
    signs = masks().astype(np.float64) - 0.9
    spectra = np.fft.rfft(signs)
    norm = SIZE * 0.09
    for lag_row in range(1, ROWS):
        shifted = np.fft.irfft(spectra * np.roll(spectra, lag_row, axis=0).conj()) / norm
        assert np.abs(shifted).max() < 7 / np.sqrt(SIZE)
    own = np.fft.irfft(spectra * spectra.conj())[:, 1:] / norm
    assert np.abs(own).max() < 7 / np.sqrt(SIZE)


def test_both_words_of_a_seed_decide_the_mask():
    seeds = np.array([[1, 1], [1, 2], [2, 1], [2, 2]], np.uint32)
    mask = np.asarray(jax.jit(dropout, static_argnums=3)(np.ones((4, SIZE)), seeds, 0, 0.1)) != 0
    assert np.abs(np.corrcoef(mask) - np.eye(4)).max() < 5 / np.sqrt(SIZE)


def test_backward_mask_is_the_forward_mask():
    seeds = dropout_seeds(jax.random.key(2), jnp.arange(ROWS))
    x = np.random.default_rng(0).standard_normal((ROWS, 50)).astype(np.float32)

    @jax.jit
    def both(x, cotangent):
        y, pull = jax.vjp(lambda x: dropout(x, seeds, 3, 0.3), x)
        return y, pull(cotangent)[0]

    y, gradient = both(x, np.full_like(x, 2.0))
    np.testing.assert_array_equal(np.asarray(y) != 0, np.asarray(gradient) != 0)
    np.testing.assert_allclose(gradient, np.where(np.asarray(y) != 0, 2.0 / 0.7, 0), rtol=1e-6)


def test_masks_of_a_row_do_not_depend_on_its_neighbours_or_their_order():
    together = masks(rows=range(8))
    np.testing.assert_array_equal(masks(rows=[6, 2, 99, 7, 0, 1, 3, 5])[[1, 3]], together[[2, 7]])
    np.testing.assert_array_equal(masks(rows=[3])[0], together[3])


def test_compiled_masks_are_the_uncompiled_ones():
    seeds = dropout_seeds(jax.random.key(0), jnp.arange(2))
    x = np.ones((2, 64, 64), np.float32)
    np.testing.assert_array_equal(
        np.asarray(dropout(x, seeds, 7, 0.1)).reshape(2, -1) != 0, masks(rows=range(2), site=7)
    )


def test_dtype_is_kept():
    seeds = dropout_seeds(jax.random.key(0), jnp.arange(2))
    assert dropout(jnp.ones((2, 4), jnp.bfloat16), seeds, 0, 0.1).dtype == jnp.bfloat16


def numpy_mix(x):
    x = np.uint32(x)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def test_mix_is_lowbias32_and_one_to_one():
    # Consecutive numbers from several places, the ends included.
    starts = np.array([0, 1 << 16, 1 << 31, 2**32 - (1 << 15)], np.uint32)
    x = (starts[:, None] + np.arange(1 << 15, dtype=np.uint32)[None]).ravel()
    hashed = np.asarray(jax.jit(mix)(x))
    np.testing.assert_array_equal(hashed, numpy_mix(x))
    assert np.unique(hashed).size == np.unique(x).size == x.size


def test_seeds_of_all_rows_are_distinct():
    seeds = np.asarray(dropout_seeds(jax.random.key(3), jnp.arange(1 << 15)))
    assert np.unique(seeds[:, 0]).size == np.unique(seeds[:, 1]).size == 1 << 15
