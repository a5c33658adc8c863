"""How parameters are updated: the original's AdamW, from optax transformations.

Differences from `optax.adamw`: no bias correction, and the learning rate's linear decay runs
from step 0, multiplied by the warm-up. Source: `model/optimization.py` of the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.errors import UserError

# (pattern, is it decayed?): the first that is found in a parameter's name decides. In the
# original LayerNorm parameters and biases are not decayed, everything else is, embeddings too.
WEIGHT_DECAY_RULES = (
    (r"layer_norm/(scale|bias)$", False),
    (r"(^|/)bias$", False),
    (r"(^|/)kernel$", True),
    (r"(^|/)(word|position|token_type)$", True),
)


class AdamState(NamedTuple):
    """First and second moments of the gradients, trees like the parameters."""

    mu: Any
    nu: Any


def scale_by_adam_without_bias_correction(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6
) -> optax.GradientTransformation:
    """m / (sqrt(v) + eps) with m = b1 m + (1 - b1) g and v = b2 v + (1 - b2) g^2."""

    def init(params):
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
        return AdamState(mu=zeros(), nu=zeros())

    def update(grads, state, params=None):
        del params
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu), AdamState(mu, nu)

    return optax.GradientTransformation(init, update)


def learning_rate_schedule(
    learning_rate: float, warmup_steps: int, num_train_steps: int
) -> Callable[[jax.Array | int], jax.Array]:
    """Rate at a step (counted from 0): peak * (1 - step / total) * min(1, step / warm-up).

    Both factors run from step 0, as in the original: the very first update has rate 0 (its
    moments count), and the peak itself is never quite reached.
    """

    def schedule(step):
        xp = np if isinstance(step, int) else jnp  # a number asks nothing of the device
        decay = 1.0 - xp.minimum(step, num_train_steps) / num_train_steps
        warmup = xp.minimum(1.0, step / warmup_steps) if warmup_steps else 1.0
        return learning_rate * decay * warmup

    return schedule


def rules_by_name(params: Any, rules: Sequence[tuple[str, Any]], *, what: str) -> Any:
    """A tree like `params` holding, for each parameter, the value of the first rule it matches.

    Args:
      rules: (pattern, value); a pattern is searched in names like "encoder/layers/qkv/kernel".
      what: name of the rule list, for the error.

    Raises:
      UserError: if a parameter matches no rule.
    """

    def value(path, _):
        name = "/".join(str(getattr(key, "key", key)) for key in path)
        for pattern, rule in rules:
            if re.search(pattern, name):
                return rule
        raise UserError(f"{what}: no rule matches the parameter {name!r}: add one that does")

    return jax.tree_util.tree_map_with_path(value, params)


def make_optimizer(
    *,
    learning_rate: float,
    warmup_steps: int,
    num_train_steps: int,
    weight_decay: float = 0.01,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    max_grad_norm: float = 1.0,
    weight_decay_rules: Sequence[tuple[str, bool]] = WEIGHT_DECAY_RULES,
) -> optax.GradientTransformation:
    """Clip by global norm, Adam without bias correction, decoupled decay, scheduled rate.

    p -= rate * (m / (sqrt(v) + eps) + weight_decay * p). Defaults: Clark et al. 2020, Table 6.

    Args:
      weight_decay_rules: which parameters are decayed, as in `rules_by_name`; every parameter
        must match one.
    """

    def decayed(params):
        return rules_by_name(params, weight_decay_rules, what="weight_decay_rules")

    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm),
        scale_by_adam_without_bias_correction(b1, b2, eps),
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.scale_by_learning_rate(
            learning_rate_schedule(learning_rate, warmup_steps, num_train_steps)
        ),
    )
