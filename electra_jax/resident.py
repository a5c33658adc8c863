"""Rows cut on the device, from a corpus that it holds: the host sends three numbers a row."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from electra_jax.special_ids import SpecialIds


def batch_from_tokens(
    places: Mapping[str, jax.Array],
    tokens: jax.Array,
    *,
    seq_len: int,
    special_ids: SpecialIds,
) -> dict[str, jax.Array]:
    """What `TokenBatches.batch_at` gives for what `TokenBatches.places_at` does.

    Args:
      places: `start`, `first` and `second` int [..., B], where a row's tokens begin in the corpus
        and how many are in its two segments (`second` may be 0), and `row_ids` [..., B].
      tokens: unsigned [T], the whole corpus; fewer than 2**31.
      seq_len: L.
      special_ids: the tokenizer's.

    Returns:
      `input_ids` int32 [..., B, L] and `row_ids`.
    """
    start, first, second = (places[name][..., None] for name in ("start", "first", "second"))
    ranks = (1,) * (start.ndim - 1)
    column = jnp.arange(seq_len, dtype=jnp.int32).reshape(*ranks, seq_len)
    between, end = first + 1, first + second + 1 + (second > 0)
    source = start + column - 1 - (column > between)
    ids = tokens[jnp.clip(source, 0, len(tokens) - 1)].astype(jnp.int32)
    ids = jnp.where((column == between) | (column == end), special_ids.sep, ids)
    ids = jnp.where(column > end, special_ids.pad, ids)
    ids = jnp.where(column == 0, special_ids.cls, ids)
    return {"input_ids": ids, "row_ids": places["row_ids"]}
