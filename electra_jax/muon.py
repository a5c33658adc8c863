"""Muon: momentum that is made orthogonal, matrix by matrix.

Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the size of
the updates: Liu et al. 2025 (arXiv 2502.16982), section 2.2. The orthogonalisation is optax's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from electra_jax.errors import UserError


class MuonState(NamedTuple):
    """The momentum of the gradients, a tree like the parameters."""

    mu: Any


def scale_by_muon(
    matrices_of: Callable[[Any], Any], momentum: float = 0.95, update_rms: float = 0.2
) -> optax.GradientTransformation:
    """update_rms * sqrt(max(in, out)) * orthogonal(momentum * m + (1 - momentum) * g).

    With m = momentum * m + (1 - momentum) * g (Nesterov's form), of each matrix [in, out]. An
    orthogonal matrix has a root mean square of 1 / sqrt(max(in, out)), so the updates have
    `update_rms`: 0.2 is that of AdamW (Liu et al. 2025, section 2.2), and a learning rate and a
    weight decay that suit AdamW suit it.

    Args:
      matrices_of: gives for a tree of tensors how many matrices each holds side by side, as
        integers n: one [..., in, n * out] is n of [in, out] for each of its leading places.
      momentum: share of m that stays.
      update_rms: root mean square of an update before the learning rate.

    Raises:
      UserError: at `init`, for a tensor that has no such matrices.
    """

    def apart(tree):
        def split(x, count):
            return x.reshape(*x.shape[:-1], count, x.shape[-1] // count)

        return jax.tree.map(split, tree, matrices_of(tree))

    def check(x, count):
        if x.ndim < 2 or x.shape[-1] % count:
            raise UserError(
                f"muon_rules: a tensor of shape {x.shape} does not hold {count} matrices side by "
                "side: give it another number, or 0 for AdamW"
            )

    def init(params):
        jax.tree.map(check, params, matrices_of(params))
        return MuonState(jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params=None):
        del params
        mu = optax.tree.update_moment(grads, state.mu, momentum, 1)
        ahead = optax.tree.update_moment(grads, mu, momentum, 1)
        updates = orthogonalize(apart(ahead))
        updates = jax.tree.map(lambda x: update_rms * np.sqrt(max(_sizes(x))) * x, updates)
        return jax.tree.map(lambda x, g: x.reshape(g.shape), updates, grads), MuonState(mu)

    return optax.GradientTransformation(init, update)


def _sizes(x: jax.Array) -> tuple[int, int]:
    """In and out of matrices [..., in, n, out]."""
    return x.shape[-3], x.shape[-1]


def orthogonalize(tree: Any) -> Any:
    """Every matrix [in, out] of tensors [..., in, n, out] with its singular values near one.

    Five steps of optax's Newton-Schulz iteration: they end up between 0.7 and 1.2, or so. Zeros
    stay zeros.
    """
    numbers = optax.contrib.MuonDimensionNumbers(reduction_axis=-3, output_axis=-1)
    # Without momentum, optax's Muon is the orthogonalisation alone, and has nothing to remember.
    muon = optax.contrib.scale_by_muon(
        beta=0.0,
        nesterov=False,
        weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: numbers, tree),
    )
    return muon.update(tree, muon.init(tree))[0]
