"""What an applied model says of rows of token ids: pure functions of (params, batch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax.objectives.electric import pseudo_log_likelihoods


def discriminate_rows(params: Any, batch: Mapping[str, jax.Array], *, apply_fn, pad: int):
    """Probabilities of having been replaced: float32 [B, L] of `input_ids` int [B, L]."""
    ids = jnp.asarray(batch["input_ids"], jnp.int32)
    logits = apply_fn({"params": params}, ids, ids != pad, method="discriminate")
    return jax.nn.sigmoid(logits)


def generate_rows(params: Any, batch: Mapping[str, jax.Array], *, apply_fn, pad: int, top_k: int):
    """The K likeliest pieces at `positions` int [B, P]: `probabilities` and `ids`, [B, P, K]."""
    ids = jnp.asarray(batch["input_ids"], jnp.int32)
    positions = jnp.asarray(batch["positions"], jnp.int32)
    logits = apply_fn({"params": params}, ids, positions, ids != pad, method="generate")
    probabilities, ids = jax.lax.top_k(jax.nn.softmax(logits), top_k)
    return {"probabilities": probabilities, "ids": ids}


def embed_rows(params: Any, batch: Mapping[str, jax.Array], *, apply_fn, pad: int, pooling: str):
    """Hidden states: float32 [B, L, D] ("tokens"), or [B, D], the mean of all or that of [CLS]."""
    ids = jnp.asarray(batch["input_ids"], jnp.int32)
    mask = ids != pad
    hidden = apply_fn({"params": params}, ids, mask, method="encode").astype(jnp.float32)
    if pooling == "tokens":
        return hidden
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask / mask.sum(axis=1, keepdims=True)
    return jnp.einsum("bl,bld->bd", weights, hidden, precision=jax.lax.Precision.HIGHEST)


def score_rows(params: Any, batch: Mapping[str, jax.Array], *, apply_fn, pad: int, special: tuple):
    """Pseudo-log-likelihoods, float32 [B], by the energies of Electric."""
    ids = jnp.asarray(batch["input_ids"], jnp.int32)
    energies = apply_fn({"params": params}, ids, ids != pad, method="discriminate")
    return pseudo_log_likelihoods(energies, ids, special=special)
