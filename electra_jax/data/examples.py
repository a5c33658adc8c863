"""Cutting a shard of tokens into training examples of any length, without touching text again.

Pure functions of arrays. An example is a slice of the token stream in two contiguous parts:
A = tokens[start : start + a] and B = tokens[start + a : start + a + b], where b may be 0.
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

import numpy as np

from electra_jax.data.hashing import GOLDEN, MASK64, mix64, mix64_array

# The original's `ExampleBuilder` (build_pretraining_dataset.py): share of examples with a shorter
# target, the shortest such target, and share of examples that are one segment.
SHORT_PROBABILITY = 0.05
SHORTEST_TARGET = 5
SINGLE_PROBABILITY = 0.1

# One 64-bit hash makes all four draws of an example, from separate bits.
_DRAW_BITS = 20
_SHORT_BELOW = round(SHORT_PROBABILITY * (1 << _DRAW_BITS))
_SINGLE_BELOW = round(SINGLE_PROBABILITY * (1 << _DRAW_BITS))
_DRAW_MASK = (1 << _DRAW_BITS) - 1
_TARGET_SHIFT, _TARGET_BITS = 41, 23

# With fewer documents than this left, one example at a time in Python is faster than NumPy.
_FEW_DOCUMENTS = 20


class Examples(NamedTuple):
    """A table of examples, sorted by `start`.

    Attributes:
      start: int64 [n], offset of the first token in the shard.
      first_length: int32 [n], tokens of segment A, at least 1.
      second_length: int32 [n], tokens of segment B, 0 where there is none.
    """

    start: np.ndarray
    first_length: np.ndarray
    second_length: np.ndarray


def packed_examples(num_tokens: int, *, seq_len: int) -> Examples:
    """Contiguous rows of seq_len - 2 tokens over a stream, whatever the document boundaries.

    Args:
      num_tokens: length of the stored stream, with the [SEP] after every document.
      seq_len: tokens per training row, of which [CLS] and the final [SEP] are two.

    Returns:
      Examples of one segment; the last one may be shorter.
    """
    capacity = seq_len - 2
    start = np.arange(0, num_tokens, capacity, dtype=np.int64)
    first = np.minimum(capacity, num_tokens - start).astype(np.int32)
    return Examples(start, first, np.zeros_like(first))


def segment_examples(
    sentence_ends: np.ndarray,
    document_ends: np.ndarray,
    *,
    seq_len: int,
    seed: int,
    shard_id: int,
) -> Examples:
    """The original's two-segment examples, every token of a document in exactly one of them.

    An example that starts at token p of a document which ends at D:

    * Its target T is `seq_len`, but with probability 0.05 a uniform integer in [5, seq_len].
    * It takes sentences until it has T tokens: up to E, the first sentence end >= p + T, or D.
    * With probability 0.1 it is one segment: A = [p, min(E, p + seq_len - 2)).
    * Otherwise A ends at the last sentence end e with e - p < (T - 3) // 2, or at the first
      sentence end if none is that near; in the first case, with probability 0.5, one sentence
      later. B follows: [e, min(E, p + seq_len - 3)). Where nothing is left for B (A reaches E, or
      is at least seq_len - 3 long), A = [p, min(e, p + seq_len - 2)) is alone.
    * The next example starts where this one ends.

    Three differences to the original (`_create_example`): a sentence that follows B's first one
    never goes back to A, so that A and B are in order; what is cut off starts the next example,
    where the original drops it; and the target length is drawn for an example, not for its
    successor. The draws are a hash of (seed, shard_id, p), so examples do not depend on how, or in
    what order, they are computed.

    Args:
      sentence_ends: int64 [sentences], ascending: offset just past each sentence.
      document_ends: int64 [documents], ascending: offset just past each document's last token;
        each is a sentence end too, and one [SEP], in no example, follows it.
      seq_len: tokens per training row, special ones included; at least 8.
      seed: any integer.
      shard_id: number of the shard, so that shards draw independently.

    Returns:
      Examples, sorted by start.
    """
    sentence_ends = np.asarray(sentence_ends, np.int64)
    document_ends = np.asarray(document_ends, np.int64)
    key = mix64(mix64(seed & MASK64) ^ (shard_id & MASK64))
    parts = []
    start = np.concatenate([np.zeros(1, np.int64), document_ends[:-1] + 1])[: len(document_ends)]
    end = document_ends
    while len(start) >= _FEW_DOCUMENTS:
        first_end, example_end = _next_examples(start, end, sentence_ends, seq_len, key)
        parts.append((start, first_end - start, example_end - first_end))
        active = example_end < end
        start, end = example_end[active], end[active]
    for document_start, document_end in zip(start.tolist(), end.tolist(), strict=True):
        low, high = np.searchsorted(sentence_ends, [document_start, document_end], "right")
        ends = sentence_ends[low:high].tolist()
        parts.append(_document_examples(document_start, ends, seq_len, key))
    if not parts:
        return packed_examples(0, seq_len=seq_len)
    start, first, second = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(start, kind="stable")
    return Examples(start[order], first[order].astype(np.int32), second[order].astype(np.int32))


def _next_examples(start, document_end, sentence_ends, seq_len, key):
    """One example for each of many documents: (ends of A, ends of the examples), int64 [n]."""
    draws = mix64_array(np.uint64(key) + start.astype(np.uint64) * np.uint64(GOLDEN))
    short = (draws & np.uint64(_DRAW_MASK)) < _SHORT_BELOW
    single = ((draws >> np.uint64(_DRAW_BITS)) & np.uint64(_DRAW_MASK)) < _SINGLE_BELOW
    coin = ((draws >> np.uint64(2 * _DRAW_BITS)) & np.uint64(1)).astype(bool)

    limit = document_end  # E in the rule
    first_target = np.full(len(start), (seq_len - 3) // 2, np.int64)
    rows = np.flatnonzero(short)
    if rows.size:
        span = np.uint64(seq_len - SHORTEST_TARGET + 1)
        drawn = ((draws[rows] >> np.uint64(_TARGET_SHIFT)) * span) >> np.uint64(_TARGET_BITS)
        target = SHORTEST_TARGET + drawn.astype(np.int64)
        first_target[rows] = (target - 3) // 2
        reach = np.minimum(start[rows] + target, document_end[rows])
        limit = limit.copy()
        limit[rows] = sentence_ends[np.searchsorted(sentence_ends, reach, "left")]

    # The sentence that contains `start`, and the last one that ends less than a target further.
    first = np.searchsorted(sentence_ends, start, "right")
    last = np.searchsorted(sentence_ends, start + first_target, "left") - 1
    fits = last >= first
    index = np.where(fits, last, first)
    first_end = np.minimum(sentence_ends[index], document_end)
    index += coin & fits & (first_end < document_end)
    first_end = np.minimum(sentence_ends[index], document_end)

    alone = single | (first_end >= limit) | (first_end - start >= seq_len - 3)
    first_end = np.where(single, limit, first_end)
    first_end = np.minimum(first_end, start + (seq_len - 2))
    example_end = np.where(alone, first_end, np.minimum(limit, start + (seq_len - 3)))
    return first_end, example_end


def _document_examples(start, sentence_ends, seq_len, key):
    """All examples of one document, by the same rule as `_next_examples`, one at a time.

    `sentence_ends` is a list of the document's own. Returns three int64 [n]: starts, lengths of A
    and lengths of B.
    """
    document_end = sentence_ends[-1]
    search = bisect.bisect_left
    starts, firsts, seconds = [], [], []
    sentence = 0
    while start < document_end:
        draws = mix64(key + start * GOLDEN)
        limit, target = document_end, seq_len
        # A sentence has at least one token, so seq_len sentences on is as far as one can reach.
        high = min(sentence + seq_len, len(sentence_ends))
        if (draws & _DRAW_MASK) < _SHORT_BELOW:
            span = seq_len - SHORTEST_TARGET + 1
            target = SHORTEST_TARGET + (((draws >> _TARGET_SHIFT) * span) >> _TARGET_BITS)
            reach = min(start + target, document_end)
            limit = sentence_ends[search(sentence_ends, reach, sentence, high)]
        if ((draws >> _DRAW_BITS) & _DRAW_MASK) < _SINGLE_BELOW:
            first_end = end = min(limit, start + seq_len - 2)
        else:
            index = search(sentence_ends, start + (target - 3) // 2, sentence, high) - 1
            if index < sentence:
                index = sentence
            elif (draws >> (2 * _DRAW_BITS)) & 1 and index + 1 < len(sentence_ends):
                index += 1
            first_end = sentence_ends[index]
            if first_end >= limit or first_end - start >= seq_len - 3:
                first_end = end = min(first_end, start + seq_len - 2)
            else:
                end = min(limit, start + seq_len - 3)
        starts.append(start)
        firsts.append(first_end - start)
        seconds.append(end - first_end)
        start = end
        while sentence < len(sentence_ends) and sentence_ends[sentence] <= start:
            sentence += 1
    return tuple(np.array(column, np.int64) for column in (starts, firsts, seconds))
