"""From examples to rows of token ids, with what a row is to learn. Rows keep their own length.

A row is [CLS] a [SEP] or [CLS] a [SEP] b [SEP]. Segments are not stored: they are 0 up to and
with the first [SEP] and 1 after it, and no text turns into a [SEP].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from electra_jax.data.tokenization import Tokenizer
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds
from electra_jax.tasks.examples import TextExample

# Of positions that have nothing to learn.
IGNORED = -1


@dataclasses.dataclass(frozen=True)
class Features:
    """Rows of token ids.

    Attributes:
      input_ids: uint16 (uint32 if the vocabulary needs it) [length], a row each.
      targets: arrays [rows, ...] of what a row is to learn; see `text_features` and the like.
      token_targets: int32 [length] for each row, of what its tokens are to learn, `IGNORED` where
        nothing.
      example: int64 [rows], the number of the example that a row is of.
      special_ids: the tokenizer's.
      max_length: no row is longer.
      counts: what became shorter and the like, by name.
    """

    input_ids: list[np.ndarray]
    targets: Mapping[str, np.ndarray]
    token_targets: Mapping[str, list[np.ndarray]]
    example: np.ndarray
    special_ids: SpecialIds
    max_length: int
    counts: Mapping[str, int]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.input_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every row, special ones included: int64 [rows]."""
        return np.fromiter(map(len, self.input_ids), np.int64, len(self.input_ids))

    def lines(self) -> list[str]:
        """What a person should know, a line each."""
        counts = self.counts.items()
        return [f"{count:,} {name.replace('_', ' ')}" for name, count in counts if count]


def text_features(
    examples: Sequence[TextExample],
    tokenizer: Tokenizer,
    *,
    kind: str,
    max_length: int,
    labels: Sequence[str] = (),
    score_range: tuple[float, float] = (0.0, 1.0),
    both_orders: bool = False,
) -> Features:
    """Rows of texts and pairs of texts, one each.

    A pair that is too long loses tokens at the end of its longer text, one by one; of equally long
    ones, at the end of the second (as in the original). `counts` says of how many rows.

    Args:
      examples: the examples; where one has no label, its target is 0.
      tokenizer: gives ids and special ids.
      kind: "classification", "regression" or "multilabel".
      max_length: most tokens in a row, special ones included.
      labels: names in order of their indices.
      score_range: the numbers that become 0 and 1 (0 and 5 for STS-B).
      both_orders: whether pairs come a second time with a and b exchanged, after all others
        (`double_unordered`: for MRPC and STS-B, whose relation is symmetric).

    Returns:
      `targets["labels"]` is int32 [rows] (classification), float32 [rows] in units of the score
      range (regression), or float32 [rows, labels] of 0 and 1 (multilabel). `counts` has
      `truncated_rows`.

    Raises:
      UserError: if `max_length` leaves no room for text.
    """
    check_max_length(max_length, 8)
    first = encode_texts(tokenizer, [example.text for example in examples])
    pairs = [i for i, example in enumerate(examples) if example.text_b is not None]
    second = dict(
        zip(pairs, encode_texts(tokenizer, [examples[i].text_b for i in pairs]), strict=True)
    )
    special = tokenizer.special_ids
    order = [(i, first[i], second.get(i)) for i in range(len(examples))]
    if both_orders:
        order += [(i, second[i], first[i]) for i in pairs]
    rows, truncated = [], 0
    for _, a, b in order:
        row, is_cut = _pair_row(a, b, special, max_length)
        rows.append(row)
        truncated += is_cut
    example = np.array([i for i, _, _ in order], np.int64)
    target = _targets(examples, kind, labels, score_range)[example]
    counts = {"truncated_rows": truncated}
    return Features(rows, {"labels": target}, {}, example, special, max_length, counts)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Ids of every text, without special ones: uint16 or uint32 [length] each."""
    ids, lengths = tokenizer.encode_flat(texts)
    return np.split(ids, np.cumsum(lengths)[:-1]) if len(texts) else []


def check_max_length(max_length: int, least: int) -> None:
    """Checks the length of rows.

    Raises:
      UserError: if it is below `least`.
    """
    if max_length < least:
        raise UserError(f"max_length={max_length} is too short: use {least} or more")


def _pair_row(
    a: np.ndarray, b: np.ndarray | None, special: SpecialIds, max_length: int
) -> tuple[np.ndarray, bool]:
    """A row, and whether it lost tokens. An empty second text is none, as in the original."""
    if b is None or not len(b):
        kept = a[: max_length - 2]
        return joined(a.dtype, special, kept), len(kept) < len(a)
    excess = len(a) + len(b) - (max_length - 3)
    if excess <= 0:
        return joined(a.dtype, special, a, b), False
    # Popping from the longer one until both fit: it first loses what it is longer by, and then
    # both lose in turn, b first.
    ahead = min(excess, abs(len(a) - len(b)))
    each, odd = divmod(excess - ahead, 2)
    keep_a = len(a) - each - (ahead if len(a) > len(b) else 0)
    keep_b = len(b) - each - odd - (ahead if len(b) > len(a) else 0)
    return joined(a.dtype, special, a[:keep_a], b[:keep_b]), True


def joined(dtype: np.dtype, special: SpecialIds, *parts: np.ndarray) -> np.ndarray:
    """[CLS] and each part with [SEP] after it, in one array."""
    row = np.empty(1 + sum(map(len, parts)) + len(parts), dtype)
    row[0], at = special.cls, 1
    for part in parts:
        row[at : at + len(part)] = part
        at += len(part)
        row[at] = special.sep
        at += 1
    return row


def _targets(
    examples: Sequence[TextExample],
    kind: str,
    labels: Sequence[str],
    score_range: tuple[float, float],
) -> np.ndarray:
    if kind == "regression":
        low, high = score_range
        numbers = [low if example.label is None else example.label for example in examples]
        return ((np.array(numbers, np.float64) - low) / (high - low)).astype(np.float32)
    index = {label: i for i, label in enumerate(labels)}
    if kind == "multilabel":
        result = np.zeros((len(examples), len(labels)), np.float32)
        for row, example in zip(result, examples, strict=True):
            row[[index[label] for label in example.label or ()]] = 1
        return result
    return np.array([index.get(example.label, 0) for example in examples], np.int32)
