"""Dropout whose mask is a hash of (key, row, site, element): cheap, stored nowhere, exact anywhere.

JAX's threefry hashes 20 rounds for every element and keeps the mask for the backward pass. Here
a mask bit costs two multiply-xorshift rounds and the backward pass computes it again. Of the
batch, a row's masks depend on its own `row_id` alone, so they are the same on any number of
devices and processes, under accumulation, and after a resume.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

# Multipliers of the 32-bit mixer "lowbias32" by Chris Wellons (public domain), chosen there by
# search for the least bias between input and output bits.
_MULTIPLIER_1 = 0x7FEB352D
_MULTIPLIER_2 = 0x846CA68B
# 2**32 divided by the golden ratio: consecutive sites get far-apart seeds (Knuth, TAOCP 6.4).
_GOLDEN = 0x9E3779B9


def mix(x: jax.Array) -> jax.Array:
    """Hashes uint32 to uint32, one to one."""
    x = (x ^ (x >> 16)) * jnp.uint32(_MULTIPLIER_1)
    x = (x ^ (x >> 15)) * jnp.uint32(_MULTIPLIER_2)
    return x ^ (x >> 16)


def dropout_seeds(key: jax.Array, row_ids: jax.Array) -> jax.Array:
    """Two random words for each row of a batch.

    Args:
      key: PRNG key of the step.
      row_ids: int [B], a number of its own for each row of the global batch.

    Returns:
      uint32 [B, 2].
    """
    words = jax.random.bits(key, (2,), jnp.uint32)
    rows = jnp.asarray(row_ids, jnp.uint32)[:, None]
    return mix(mix(rows + words[None]) ^ words[None, ::-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def dropout(x: jax.Array, seeds: jax.Array, site: jax.Array | int, rate: float) -> jax.Array:
    """Zeroes elements of `x` with probability `rate` and scales the others by 1 / (1 - rate).

    Args:
      x: float [B, ...].
      seeds: uint32 [B, 2] from `dropout_seeds`.
      site: int [], which of the network's dropouts this is; each has masks of its own.
      rate: probability of dropping, in [0, 1).
    """
    # In float32: 1 / 0.9 in bfloat16 is 0.16 % too small.
    scaled = x.astype(jnp.float32) * (1.0 / (1.0 - rate))
    return jnp.where(_keep(x.shape, seeds, site, rate), scaled, 0).astype(x.dtype)


def _keep(shape: tuple[int, ...], seeds: jax.Array, site: jax.Array | int, rate: float):
    site_seeds = mix(seeds + jnp.asarray(site, jnp.uint32) * jnp.uint32(_GOLDEN))
    site_seeds = site_seeds.reshape(shape[:1] + (2,) + (1,) * (len(shape) - 1))
    size = math.prod(shape[1:])
    x = jax.lax.iota(jnp.uint32, size).reshape(shape[1:])[None] * jnp.uint32(_GOLDEN)
    # Each round starts from a word of the row's own, so that two rows' masks are never the same
    # sequence shifted or permuted.
    x = x ^ site_seeds[:, 0]
    x = (x ^ (x >> 16)) * jnp.uint32(_MULTIPLIER_1)
    x = (x ^ (x >> 15)) + site_seeds[:, 1]
    x = (x ^ (x >> 15)) * jnp.uint32(_MULTIPLIER_2)
    return (x ^ (x >> 16)) >= jnp.uint32(round(rate * 2**32))


def _dropout_forward(x, seeds, site, rate):
    return dropout(x, seeds, site, rate), (seeds, site)


def _dropout_backward(rate, residuals, cotangent):
    return dropout(cotangent, *residuals, rate), None, None


dropout.defvjp(_dropout_forward, _dropout_backward)
