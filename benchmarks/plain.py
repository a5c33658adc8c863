"""ELECTRA's loss written down as plainly as JAX allows, for comparison with the fast form.

Logits at all positions, softmax and cross-entropy from `jax.nn` and optax, Gumbel noise and argmax,
dropout from `jax.random`, a loop over layers: the same parameters, masks and means as
`ElectraObjective`, and none of its shortcuts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from electra_jax import corruption
from electra_jax.config import ElectraConfig, EncoderConfig
from electra_jax.objectives.electra import ElectraObjective

# A function that drops: x -> x, with a key of its own at each call.
Drop = Callable[[jax.Array, float], jax.Array]


@dataclasses.dataclass(frozen=True)
class PlainElectra(ElectraObjective):
    """`ElectraObjective` with another `loss`; the model of `apply_fn` is not used.

    Attributes:
      config: of the model.
      samples: whether tokens are drawn; False: the likeliest ones.
    """

    config: ElectraConfig = ElectraConfig()
    samples: bool = True

    def loss(self, params, inputs, key, *, apply_fn, deterministic=False):
        """As `ElectraObjective.loss`."""
        config, masked = self.config, inputs.masked
        keys = (jax.random.fold_in(key, 100 + i) for i in itertools.count())
        drop = dropper(keys, deterministic)
        mask, types = masked.attention_mask, masked.token_type_ids

        x = embed(params["embeddings"], masked.masked_ids, types, drop, config)
        x = encode(params["generator_encoder"], x, mask, drop, config, config.generator)
        head = params["generator_head"]
        x = jax.nn.gelu(dense(x, head["dense"]), approximate=False)
        x = norm(x, head["layer_norm"], config)
        logits = x @ params["embeddings"]["word"].T + head["bias"]  # [B, L, V]
        at_masked = jnp.take_along_axis(logits, masked.positions[..., None], axis=1)
        token_losses = optax.softmax_cross_entropy_with_integer_labels(at_masked, masked.labels)

        chances = jax.lax.stop_gradient(at_masked)
        if self.samples:
            chances += jax.random.gumbel(next(keys), at_masked.shape)
        sampled = chances.argmax(-1)
        corrupted, replaced = corruption.corrupt(masked, sampled)

        x = embed(params["embeddings"], corrupted, types, drop, config)
        x = encode(params["encoder"], x, mask, drop, config, config.discriminator)
        head = params["discriminator_head"]
        x = jax.nn.gelu(dense(x, head["dense"]), approximate=False)
        scores = dense(x, head["output"])[..., 0]
        replaced_losses = optax.sigmoid_binary_cross_entropy(scores, replaced)

        loss = (token_losses * inputs.generator_weights).sum()
        loss += self.discriminator_weight * (replaced_losses * inputs.discriminator_weights).sum()
        sums = {"loss": loss, "mlm_loss": (token_losses * inputs.generator_weights).sum()}
        return loss, sums | {"tokens": mask.sum()}


def dropper(keys: Iterator[jax.Array], deterministic: bool) -> Drop:
    """Dropout by `jax.random.bernoulli`."""

    def drop(x, rate):
        if deterministic or rate == 0.0:
            return x
        return jnp.where(jax.random.bernoulli(next(keys), 1 - rate, x.shape), x / (1 - rate), 0)

    return drop


def dense(x: jax.Array, params: Any) -> jax.Array:
    """x @ kernel + bias."""
    return x @ params["kernel"] + params["bias"]


def norm(x: jax.Array, params: Any, config: ElectraConfig) -> jax.Array:
    """LayerNorm of the last axis."""
    return params["bias"] + params["scale"] * jax.nn.standardize(
        x, epsilon=config.layer_norm_epsilon
    )


def embed(params: Any, ids: jax.Array, types: jax.Array, drop: Drop, config: ElectraConfig):
    """Word, type and position, normalised."""
    x = params["word"][ids] + params["token_type"][types] + params["position"][: ids.shape[1]]
    return drop(norm(x, params["layer_norm"], config), config.dropout_rate)


def encode(
    params: Any,
    x: jax.Array,
    mask: jax.Array,
    drop: Drop,
    config: ElectraConfig,
    sizes: EncoderConfig,
) -> jax.Array:
    """All layers, at all positions."""
    if "projection" in params:
        x = dense(x, params["projection"])
    for index in range(sizes.num_layers):
        p = jax.tree.map(lambda tensor: tensor[index], params["layers"])  # noqa: B023
        query, key, value = (
            part.reshape(*x.shape[:2], sizes.num_heads, -1)
            for part in jnp.split(dense(x, p["qkv"]), 3, axis=-1)
        )
        scores = jnp.einsum("bqhk,bshk->bhqs", query, key) / jnp.sqrt(query.shape[-1])
        scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
        weights = drop(jax.nn.softmax(scores), config.attention_dropout_rate)
        attended = jnp.einsum("bhqs,bshk->bqhk", weights, value).reshape(x.shape)
        x = x + drop(dense(attended, p["attention_out"]), config.dropout_rate)
        x = norm(x, p["attention_layer_norm"], config)
        hidden = jax.nn.gelu(dense(x, p["feed_forward_in"]), approximate=False)
        x = x + drop(dense(hidden, p["feed_forward_out"]), config.dropout_rate)
        x = norm(x, p["output_layer_norm"], config)
    return x
