"""How parameters are updated: the original's AdamW, or Muon for the matrices, with optax.

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
from electra_jax.muon import scale_by_muon

OPTIMIZERS = ("adamw", "muon")

# (pattern, is it decayed?): the first that is found in a parameter's name decides. In the
# original LayerNorm parameters and biases are not decayed, everything else is, embeddings too.
WEIGHT_DECAY_RULES = (
    (r"layer_norm/(scale|bias)$", False),
    (r"(^|/)bias$", False),
    (r"(^|/)kernel$", True),
    (r"(^|/)(word|position|token_type)$", True),
)


# Depth of a parameter for the layer-wise decay of the learning rate: a number, "layer" for tensors
# stacked by layer (layer i has depth i + 1) or "head" (past the last layer). Source:
# `_get_layer_lrs` in `model/optimization.py` of the original.
LAYER_DEPTH_RULES = (
    (r"^embeddings/", 0),
    (r"^encoder/projection/", 0),
    (r"^encoder/layers/", "layer"),
    (r"^encoder/final_layer_norm/", "head"),
    (r"^head/", "head"),
)


# Matrices that a tensor holds side by side, for Muon (query, key and value are three); 0: it has
# AdamW's update, as embeddings and the last vectors of heads have in Jordan et al. 2024.
MUON_RULES = (
    (r"(^|/)(output|start|end_output|answerability_output)/kernel$", 0),
    (r"(^|/)qkv/kernel$", 3),
    (r"(^|/)gated_in/kernel$", 2),
    (r"(^|/)kernel$", 1),
    (r"(^|/)(bias|scale)$", 0),
    (r"(^|/)(word|position|token_type)$", 0),
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


def layer_factors(
    params: Any,
    decay: float,
    *,
    skip_a_depth: bool = False,
    rules: Sequence[tuple[str, int | str]] = LAYER_DEPTH_RULES,
) -> Any:
    """decay ** (the head's depth - depth) for each parameter: 1 for the head, less below it.

    Args:
      params: a tree with layers stacked along a leading axis [N, ...], such as `FineTuned`'s.
      decay: factor from one layer to the one below it.
      skip_a_depth: as in the original, whose head has depth N + 2 instead of N + 1: every other
        parameter gets one more factor of `decay` (google-research/electra#51).
      rules: depths by name, as `LAYER_DEPTH_RULES`; every parameter must match one.

    Returns:
      A tree like `params` of float32 arrays that multiply with its tensors: [] or [N, 1, ...].

    Raises:
      UserError: if a parameter matches no rule, or nothing is stacked by layer.
    """
    depths = rules_by_name(params, rules, what="layer_depth_rules")
    stacked = [
        leaf.shape[0]
        for leaf, depth in zip(jax.tree.leaves(params), jax.tree.leaves(depths), strict=True)
        if depth == "layer"
    ]
    if len(set(stacked)) != 1:
        found = ", ".join(map(str, sorted(set(stacked)))) or "none"
        raise UserError(
            f'layer_depth_rules: numbers of layers of the tensors of depth "layer": {found}: give '
            "rules that find one and the same number"
        )
    head_depth = stacked[0] + (2 if skip_a_depth else 1)

    def factor(leaf, depth):
        if depth == "layer":
            depth = np.arange(1, len(leaf) + 1).reshape((-1,) + (1,) * (leaf.ndim - 1))
        elif depth == "head":
            depth = head_depth
        return np.float32(np.float64(decay) ** (head_depth - depth))

    return jax.tree.map(factor, params, depths)


def scale_by_layer(
    decay: float,
    *,
    skip_a_depth: bool = False,
    rules: Sequence[tuple[str, int | str]] = LAYER_DEPTH_RULES,
) -> optax.GradientTransformation:
    """Multiplies updates by `layer_factors`, which has the arguments."""

    def factors(tree):
        return layer_factors(tree, decay, skip_a_depth=skip_a_depth, rules=rules)

    def init(params):
        factors(params)  # a name that no rule covers is refused here, before anything runs
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        return jax.tree.map(jnp.multiply, updates, factors(updates)), state

    return optax.GradientTransformation(init, update)


def scale_by_name(factors: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
    """Multiplies updates by the factor of the first pattern found in the name; others stay.

    Raises:
      UserError: for a factor that is not positive; at `init`, for a pattern that decides for no
        parameter.
    """
    for pattern, factor in factors:
        if not factor > 0:
            raise UserError(
                f"optimizer.learning_rate_factors: {factor} of {pattern!r} must be positive: to "
                "leave parameters as they are, name them in frozen"
            )

    def init(params):
        numbered = [(pattern, index) for index, (pattern, _) in enumerate(factors)] + [("", -1)]
        decisive = set(
            jax.tree.leaves(rules_by_name(params, numbered, what="learning_rate_factors"))
        )
        for pattern, index in numbered[:-1]:
            if index not in decisive:
                raise UserError(
                    f"optimizer.learning_rate_factors: {pattern!r} is found in no parameter's name "
                    "that no pattern before it is found in: correct it"
                )
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        scales = rules_by_name(updates, [*factors, ("", 1.0)], what="learning_rate_factors")
        return jax.tree.map(jnp.multiply, updates, scales), state

    return optax.GradientTransformation(init, update)


def scale_by_muon_or_adam(
    rules: Sequence[tuple[str, int]], *, momentum: float, b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    """`scale_by_muon` for the tensors that `rules` find matrices in (as `MUON_RULES`), Adam's
    update without bias correction for the others.

    Raises:
      UserError: at `init`, if a name is not covered, or a tensor does not hold such matrices.
    """

    def matrices_of(tree):
        return rules_by_name(tree, rules, what="muon_rules")

    def which(tree):
        return jax.tree.map(lambda count: "muon" if count else "adam", matrices_of(tree))

    transforms = {
        "muon": scale_by_muon(matrices_of, momentum),
        "adam": scale_by_adam_without_bias_correction(b1, b2, eps),
    }
    return optax.partition(transforms, which)


def freeze(patterns: Sequence[str]) -> optax.GradientTransformation:
    """Zeroes the updates of parameters whose name one of the patterns is found in.

    Raises:
      UserError: at `init`, for a pattern that is found in no name.
    """

    def init(params):
        for pattern in patterns:
            rules = ((pattern, True), ("", False))
            if not any(jax.tree.leaves(rules_by_name(params, rules, what="frozen"))):
                raise UserError(f"frozen: {pattern!r} is found in no parameter's name: correct it")
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        rules = [(pattern, True) for pattern in patterns] + [("", False)]
        frozen = rules_by_name(updates, rules, what="frozen")
        return jax.tree.map(lambda u, f: jnp.zeros_like(u) if f else u, updates, frozen), state

    return optax.GradientTransformation(init, update)


def parameter_name(path: Sequence[Any]) -> str:
    """A path of `jax.tree_util` as a name like "encoder/layers/qkv/kernel"."""
    return "/".join(str(getattr(key, "key", key)) for key in path)


def rules_by_name(params: Any, rules: Sequence[tuple[str, Any]], *, what: str) -> Any:
    """A tree like `params` holding, for each parameter, the value of the first rule it matches.

    Args:
      rules: (pattern, value); a pattern is searched in names like "encoder/layers/qkv/kernel".
      what: name of the rule list, for the error.

    Raises:
      UserError: if a parameter matches no rule.
    """

    def value(path, _):
        name = parameter_name(path)
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
    name: str = "adamw",
    muon_momentum: float = 0.95,
    muon_rules: Sequence[tuple[str, int]] = MUON_RULES,
    learning_rate_factors: Sequence[tuple[str, float]] = (),
    weight_decay_rules: Sequence[tuple[str, bool]] = WEIGHT_DECAY_RULES,
    layer_decay: float | None = None,
    layer_decay_skips_a_depth: bool = False,
    layer_depth_rules: Sequence[tuple[str, int | str]] = LAYER_DEPTH_RULES,
    frozen: Sequence[str] = (),
) -> optax.GradientTransformation:
    """Clip by global norm, Adam without bias correction (or Muon), decoupled decay, scheduled rate.

    p -= factor * rate * (m / (sqrt(v) + eps) + weight_decay * p). Defaults: Clark et al. 2020,
    Table 6. The factor is 1 without `layer_decay` and `learning_rate_factors`. With Muon, matrices
    have its update instead of m / (sqrt(v) + eps), of the same size: see `muon`.

    Args:
      name: "adamw" or "muon".
      muon_momentum: `momentum` of `scale_by_muon`.
      muon_rules: the tensors that Muon is for, as `MUON_RULES`; every parameter must match one.
      learning_rate_factors: (pattern, factor): the first pattern that is found in a parameter's
        name multiplies its rate: (("^generator_", 0.5),) halves that of the generator's own
        parameters. Others keep theirs.
      weight_decay_rules: which parameters are decayed, as in `rules_by_name`; every parameter
        must match one.
      layer_decay: factor of the rate from a layer to the one below, as in `layer_factors`; for
        fine-tuning (0.8 for small and base, 0.9 for large models: ibid., Table 7). None: none.
      layer_decay_skips_a_depth: `skip_a_depth` of `layer_factors`.
      layer_depth_rules: `rules` of `layer_factors`.
      frozen: patterns searched in parameters' names; those found are left as they are, and their
        gradients do not count in the norm that is clipped.

    Raises:
      UserError: for a value out of range; at `init`, if a name is not covered.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"optimizer.name={name!r} is unknown: use one of {', '.join(OPTIMIZERS)}")
    if not 0.0 <= muon_momentum < 1.0:
        raise UserError(f"optimizer.muon_momentum={muon_momentum} must lie in [0, 1)")
    if layer_decay is not None and not 0.0 < layer_decay <= 1.0:
        raise UserError(
            f"optimizer.layer_decay={layer_decay} must lie in (0, 1]: use None for no decay"
        )

    def decayed(params):
        return rules_by_name(params, weight_decay_rules, what="weight_decay_rules")

    if name == "adamw":
        scale = scale_by_adam_without_bias_correction(b1, b2, eps)
    else:
        scale = scale_by_muon_or_adam(muon_rules, momentum=muon_momentum, b1=b1, b2=b2, eps=eps)
    if frozen:
        patterns = [(pattern, "frozen") for pattern in frozen] + [("", "trained")]
        scale = optax.partition(
            {"trained": scale, "frozen": optax.set_to_zero()},  # which needs no moments
            lambda params: rules_by_name(params, patterns, what="frozen"),
        )
    transforms = [
        optax.clip_by_global_norm(max_grad_norm),
        scale,
        optax.add_decayed_weights(weight_decay, mask=decayed),
    ]
    if layer_decay is not None:
        skip = layer_decay_skips_a_depth
        transforms.append(scale_by_layer(layer_decay, skip_a_depth=skip, rules=layer_depth_rules))
    if learning_rate_factors:
        transforms.append(scale_by_name(learning_rate_factors))
    if frozen:
        transforms = [freeze(frozen), *transforms, freeze(frozen)]
    schedule = learning_rate_schedule(learning_rate, warmup_steps, num_train_steps)
    return optax.chain(*transforms, optax.scale_by_learning_rate(schedule))
