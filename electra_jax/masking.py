"""Which positions of a row are chosen for prediction: a function of uniform draws for each way.

Dimensions: B batch, L length, P slots for chosen positions.

A way gets `draws`, what may be chosen (`candidates`, bool [B, L]), how many tokens are wanted
(`wanted`, int or float [B], at most P and at most the candidates) and which tokens go on with the
word before (`continues`, bool [B, L], or None). It gives `positions` int32 [B, P], the number of
slots in use [B] (the first ones) and the draws [B, P] that decide what of them is hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Span lengths: geometric with this p, at most so many tokens, which gives 3.8 on average. Source:
# Joshi et al. 2020 (SpanBERT), section 3.1.
SPAN_P = 0.2
LONGEST_SPAN = 10
# A longer word is taken apart into pieces of this length: where words are not told apart (Chinese,
# say) a "word" would be a sentence.
LONGEST_WORD = 10


class Draws(NamedTuple):
    """Uniform draws in [0, 1): those of a row depend on nothing but the key and the row's id.

    Attributes:
      scores: float32 [B, L]; what has the higher score is chosen first.
      hide: float32 [B, P], below the share that is hidden: the generator does not see the token.
      lengths: float32 [B, L] for "spans", else [B, 0].
    """

    scores: jax.Array
    hide: jax.Array
    lengths: jax.Array


def choose_tokens(draws: Draws, candidates: jax.Array, wanted: jax.Array, continues=None):
    """Tokens, drawn uniformly without replacement (Clark et al. 2020, section 3.1)."""
    del continues
    # The candidates with the highest scores are a uniform draw without replacement.
    scores = jnp.where(candidates, draws.scores, -1.0)
    _, positions = jax.lax.top_k(scores, draws.hide.shape[1])
    return positions, wanted, draws.hide


def choose_words(draws: Draws, candidates: jax.Array, wanted: jax.Array, continues: jax.Array):
    """Whole words, drawn uniformly without replacement until the next one would be too many.

    The first word drawn is always taken, also where it alone has more tokens than wanted (up to
    P). So a little less than wanted is chosen: of English text in BERT's pieces, with a share of
    0.15 wanted, 0.148 in rows of 128 tokens and 0.150 in rows of 512 (tokens: 0.149 and 0.150);
    with 6,434 pieces of SentencePiece 0.145 and 0.149. As in BERT's whole word masking, each token
    of a word is hidden or not on its own.
    """
    start = _starts(~continues, candidates)
    begins = (_indices(candidates) - start) % LONGEST_WORD == 0
    positions, ends, _ = _in_order(draws, candidates, begins)
    fitting = jnp.where(ends <= wanted[:, None], ends, 0).max(axis=1)
    return positions, jnp.maximum(fitting, ends[:, 0]), draws.hide


def choose_spans(draws: Draws, candidates: jax.Array, wanted: jax.Array, continues=None):
    """Spans of tokens, drawn uniformly without replacement; the last one is cut to fit.

    A row is taken apart into spans of random lengths, and again where a special token is, so
    that none crosses one. The tokens of a span are hidden together or not at all. Source: Joshi
    et al. 2020, section 3.1, and their code (fairseq's `PairWithSpanMaskingScheme`); there lengths
    count words, and spans begin anywhere. As cutting keeps beginnings, the first tokens of a
    segment are chosen a little more often: 0.167 of the times against 0.151 elsewhere in rows of
    128 tokens; in rows of 512 there is no difference to be seen.
    """
    del continues
    probabilities = SPAN_P * (1 - SPAN_P) ** np.arange(LONGEST_SPAN)
    cumulative = np.float32(np.cumsum(probabilities / probabilities.sum())[:-1])
    next_begin = jnp.cumsum(1 + jnp.searchsorted(cumulative, draws.lengths, side="right"), axis=1)
    rows = jnp.arange(len(next_begin))[:, None]
    begins = jnp.zeros(candidates.shape, bool).at[rows, next_begin].set(True, mode="drop")
    positions, _, groups = _in_order(draws, candidates, begins)
    return positions, wanted, jnp.take_along_axis(draws.hide, groups, axis=1)


MASKING: dict[str, Callable[..., tuple[jax.Array, jax.Array, jax.Array]]] = {
    "tokens": choose_tokens,
    "words": choose_words,
    "spans": choose_spans,
}


def _starts(begins: jax.Array, candidates: jax.Array) -> jax.Array:
    """Where the group of each position begins, int32 [B, L]; what is no candidate is alone."""
    apart = jnp.pad(~candidates, ((0, 0), (1, 0)), constant_values=True)
    begins = begins | apart[:, 1:] | apart[:, :-1]
    return jax.lax.cummax(jnp.where(begins, _indices(candidates), 0), axis=1)


def _indices(array: jax.Array) -> jax.Array:
    """The number of each column, int32 [1, L]."""
    return jnp.arange(array.shape[1], dtype=jnp.int32)[None]


def _in_order(draws: Draws, candidates: jax.Array, begins: jax.Array):
    """The first P positions, group by group in the order of the groups' scores.

    Args:
      begins: bool [B, L], where groups begin; beside what is no candidate they do anyway.

    Returns:
      positions: int32 [B, P]; what is in a slot past the last group means nothing.
      ends: int32 [B, P], the slots taken by the first 1, 2, ... groups.
      groups: int32 [B, P], the number in that order of the group in each slot.
    """
    num_slots = draws.hide.shape[1]
    start = _starts(begins, candidates)
    first = candidates & (start == _indices(candidates))
    sizes = jnp.zeros(start.shape, jnp.int32)
    sizes = sizes.at[jnp.arange(len(start))[:, None], start].add(1)
    # Only first tokens are ordered, so that nothing depends on the order of equal scores.
    scores, starts = jax.lax.top_k(jnp.where(first, draws.scores, -1.0), num_slots)
    sizes = jnp.where(scores < 0, 0, jnp.take_along_axis(sizes, starts, axis=1))
    ends = jnp.cumsum(sizes, axis=1)
    slots = _indices(draws.hide)
    groups = (ends[:, None, :] <= slots[:, :, None]).sum(axis=-1, dtype=jnp.int32)
    groups = jnp.minimum(groups, num_slots - 1)
    begin = jnp.take_along_axis(starts - (ends - sizes), groups, axis=1)
    return begin + slots, ends, groups
