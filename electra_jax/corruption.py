"""What the networks are shown: masking, sampling and corruption as pure functions of arrays.

Dimensions: B batch, L length, P masked positions, V vocabulary. Random numbers of a row depend on
(key, row id) alone, never on which device holds the row.

Source: Clark et al. 2020, section 3.1, and `pretrain/pretrain_helpers.py` of the original code;
what differs from the latter, and why, is in docs/differences.md.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from electra_jax.errors import UserError
from electra_jax.masking import MASKING, Draws

# Of the chosen positions, the share whose token the generator does not see (the others it sees
# unchanged). The original has no random replacement, unlike BERT.
_HIDDEN_SHARE = 0.85
_SAMPLING_BLOCK = 128


class MaskedBatch(flax.struct.PyTreeNode):
    """A batch with some positions chosen for prediction.

    Attributes:
      input_ids: int32 [B, L], the original tokens.
      masked_ids: int32 [B, L], the same with most of the chosen tokens replaced by [MASK].
      attention_mask: bool [B, L], False at padding.
      token_type_ids: int32 [B, L], the segment of each token, 0 or 1.
      candidates: bool [B, L], what could be chosen: neither padding nor special.
      positions: int32 [B, P], the chosen positions, distinct; unused slots hold 0.
      labels: int32 [B, P], the original tokens there.
      chosen: bool [B, P], False in unused slots.
    """

    input_ids: jax.Array
    masked_ids: jax.Array
    attention_mask: jax.Array
    token_type_ids: jax.Array
    candidates: jax.Array
    positions: jax.Array
    labels: jax.Array
    chosen: jax.Array


def max_masked_positions(seq_len: int, mask_prob: float) -> int:
    """Slots P for a row's masked positions: int((mask_prob + 0.005) * seq_len), in [1, seq_len].

    Source: `max_predictions_per_seq` in `configure_pretraining.py` of the original.
    """
    return max(1, min(seq_len, int((mask_prob + 0.005) * seq_len)))


def token_types(input_ids: jax.Array, attention_mask: jax.Array, sep_id: int) -> jax.Array:
    """The segment of each token, int32 [B, L]: 0 up to the first [SEP] with it, then 1; padding 0.

    So only token ids need to be stored: [CLS] A [SEP] B [SEP] gives 0 0 0 1 1.
    """
    is_separator = (input_ids == sep_id).astype(jnp.int32)
    before = jnp.cumsum(is_separator, axis=1) - is_separator
    return jnp.minimum(before, 1) * attention_mask


def documents(input_ids: jax.Array, attention_mask: jax.Array, sep_id: int) -> jax.Array:
    """Number of each token's document in its row, int32 [B, L], from 1; padding 0.

    A [SEP] is the last token of its document; [CLS] belongs to the first.
    """
    is_separator = (input_ids == sep_id).astype(jnp.int32)
    return (1 + jnp.cumsum(is_separator, axis=1) - is_separator) * attention_mask


def row_uniforms(key: jax.Array, row_ids: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform draws in [0, 1), float32 [B, *shape], those of each row from its own key."""
    draw = lambda row: jax.random.uniform(jax.random.fold_in(key, row), shape)  # noqa: E731
    return jax.vmap(draw)(row_ids)


def mask_tokens(
    key: jax.Array,
    input_ids: jax.Array,
    row_ids: jax.Array,
    *,
    mask_prob: float | jax.Array,
    max_masked: int,
    pad_id: int,
    cls_id: int,
    sep_id: int,
    mask_id: int,
    strategy: str = "tokens",
    continues_word: jax.Array | None = None,
) -> MaskedBatch:
    """Chooses positions to predict and hides most of them.

    In a row of n tokens (padding excluded, [CLS] and [SEP] included), round(n * mask_prob)
    positions, at least 1 and at most `max_masked`, are chosen among those that hold none of [CLS],
    [SEP], [MASK] and padding.

    Args:
      key: PRNG key of the step.
      input_ids: int [B, L].
      row_ids: int [B], a number of its own for each row of the global batch.
      mask_prob: share of the tokens to choose; may be traced, for a rate that changes.
      max_masked: P.
      strategy: what is drawn uniformly without replacement: "tokens", "words" (whole ones: a little
        less than the share is chosen) or "spans"; as `masking` says.
      continues_word: bool [V], for "words": whether an id goes on with the word before it
        (`data.tokenization.continues_word`).

    Raises:
      UserError: for an unknown strategy, or for "words" without `continues_word`.
    """
    if strategy not in MASKING:
        raise UserError(f"masking={strategy!r} is unknown: use one of {', '.join(MASKING)}")
    if strategy == "words" and continues_word is None:
        raise UserError(
            "masking='words' needs to know which tokens continue a word: give continues_word, or "
            "use tokens or spans"
        )
    input_ids = jnp.asarray(input_ids, jnp.int32)
    attention_mask = input_ids != pad_id
    special = (input_ids == cls_id) | (input_ids == sep_id) | (input_ids == mask_id)
    candidates = attention_mask & ~special
    num_tokens = attention_mask.sum(axis=1)
    wanted = jnp.clip(jnp.round(num_tokens * mask_prob), 1, max_masked)
    wanted = jnp.minimum(wanted, candidates.sum(axis=1))  # [B]

    length = input_ids.shape[1]
    num_draws = length + max_masked + (length if strategy == "spans" else 0)
    uniforms = row_uniforms(key, row_ids, (num_draws,))
    draws = Draws(*jnp.split(uniforms, [length, length + max_masked], axis=1))
    continues = None if strategy != "words" else jnp.asarray(continues_word)[input_ids]
    positions, used, hide = MASKING[strategy](draws, candidates, wanted, continues)
    chosen = jnp.arange(max_masked)[None] < used[:, None]  # [B, P]
    positions = jnp.where(chosen, positions, 0)
    labels = jnp.take_along_axis(input_ids, positions, axis=1)
    hidden = chosen & (hide < _HIDDEN_SHARE)
    return MaskedBatch(
        input_ids=input_ids,
        masked_ids=put_tokens(input_ids, positions, jnp.full_like(labels, mask_id), hidden),
        attention_mask=attention_mask,
        token_type_ids=token_types(input_ids, attention_mask, sep_id),
        candidates=candidates,
        positions=positions,
        labels=labels,
        chosen=chosen,
    )


def put_tokens(ids: jax.Array, positions: jax.Array, tokens: jax.Array, where: jax.Array):
    """`ids` [B, L] with `tokens` [B, P] at `positions` [B, P], those for which `where` [B, P]."""
    target = jnp.where(where, positions, ids.shape[1])  # past the end: dropped
    rows = jnp.arange(ids.shape[0])[:, None]
    return ids.at[rows, target].set(tokens, mode="drop")


def chosen_tokens(masked: MaskedBatch) -> jax.Array:
    """Where the chosen positions are, bool [B, L]."""
    nowhere = jnp.zeros(masked.input_ids.shape, bool)
    return put_tokens(nowhere, masked.positions, jnp.ones_like(masked.chosen), masked.chosen)


def sample_tokens(uniforms: jax.Array, logits: jax.Array, *, vocab_size: int) -> jax.Array:
    """Draws tokens from softmax(logits), as `sample_from_weights`.

    Args:
      uniforms: float32 [..., 2] in [0, 1).
      logits: float32 [..., padded V].
      vocab_size: V; the logits past it count as minus infinity.

    Returns:
      int32 [...].
    """
    logits = jnp.where(jnp.arange(logits.shape[-1]) < vocab_size, logits, -jnp.inf)
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    return jnp.minimum(sample_from_weights(uniforms, weights), vocab_size - 1)


def sample_from_weights(
    uniforms: jax.Array, weights: jax.Array, *, block_size: int = _SAMPLING_BLOCK
) -> jax.Array:
    """Draws indices in proportion to weights by inverting the distribution in two levels.

    One uniform picks a block of the vocabulary, the other a token inside it: the same
    distribution as Gumbel noise and argmax, with two random numbers a position instead of V.

    Args:
      uniforms: float32 [..., 2] in [0, 1).
      weights: float32 [..., V], not negative, not all of them zero. (One of zero is drawn where
        rounding says so, less than once in 10**6.)

    Returns:
      int32 [...].
    """
    padding = -weights.shape[-1] % block_size
    weights = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, padding)])
    weights = weights.reshape(weights.shape[:-1] + (-1, block_size))
    block = _invert(weights.sum(axis=-1), uniforms[..., 0])
    inside = jnp.take_along_axis(weights, block[..., None, None], axis=-2)[..., 0, :]
    return block * block_size + _invert(inside, uniforms[..., 1])


def _invert(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
    """First index whose cumulative weight exceeds the uniform's share of the total."""
    cumulative = jnp.cumsum(weights, axis=-1)
    total = cumulative[..., -1:]
    index = (cumulative <= uniforms[..., None] * total).sum(axis=-1, dtype=jnp.int32)
    return jnp.minimum(index, weights.shape[-1] - 1)


def corrupt(masked: MaskedBatch, sampled: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Puts sampled tokens at the chosen positions of the original text.

    Args:
      sampled: int32 [B, P].

    Returns:
      The corrupted ids, int32 [B, L], and where they differ from the original, bool [B, L]: a
      token the generator guessed right counts as original (Clark et al. 2020, section 3.1).
    """
    corrupted = put_tokens(masked.input_ids, masked.positions, sampled, masked.chosen)
    return corrupted, corrupted != masked.input_ids
