"""From tagged sentences to rows of token ids: every word is predicted in exactly one row.

Words are encoded one by one, so which tokens are a word's is known, not found out. (The original
cleans, lower-cases and splits words by code of its own, whatever the tokenizer does.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from electra_jax.data.tokenization import Tokenizer
from electra_jax.data.tokenization.interface import id_dtype
from electra_jax.tasks.examples import TaggedSentence
from electra_jax.tasks.features import (
    IGNORED,
    Features,
    check_max_length,
    encode_texts,
    joined,
)


@dataclasses.dataclass(frozen=True)
class TaggingFeatures(Features):
    """Rows of tagged sentences.

    Attributes:
      word: int32 [length] for each row: at the first token of a word that this row predicts, the
        word's number in its sentence; -1 elsewhere.
    """

    word: list[np.ndarray]


def tagging_features(
    sentences: Sequence[TaggedSentence],
    tokenizer: Tokenizer,
    *,
    labels: Sequence[str],
    max_length: int,
) -> TaggingFeatures:
    """Rows [CLS] words [SEP] of sentences; a long one has several that overlap.

    A word's tag is learned and predicted at its first token. A sentence longer than a row is cut
    between words into windows that overlap by about half; each word is predicted in the window
    that has the most tokens around it, so every word is, once. (The original drops the end of a
    long sentence, and much of it too early.)

    Args:
      sentences: the sentences; a tag that is not in `labels` (which data to evaluate on may have)
        is nothing to learn.
      tokenizer: gives ids and special ids. A word of no tokens, as one of control characters
        alone is, counts as unknown.
      labels: tags in order of their indices.
      max_length: most tokens in a row, special ones included.

    Returns:
      `token_targets["labels"]` is the index of the tag at the first token of each word that the
      row predicts. `counts` has `split_sentences`, `shortened_words` (words too long for a row,
      which lose tokens at their end) and `unknown_tags`.

    Raises:
      UserError: if `max_length` is too short.
    """
    check_max_length(max_length, 8)
    capacity = max_length - 2
    index = {label: i for i, label in enumerate(labels)}
    pieces = _pieces(sentences, tokenizer)
    dtype, special = id_dtype(tokenizer.vocab_size), tokenizer.special_ids
    rows, targets, words, example = [], [], [], []
    counts = dict.fromkeys(("split_sentences", "shortened_words", "unknown_tags"), 0)
    for number, sentence in enumerate(sentences):
        ids = [pieces[word][:capacity] for word in sentence.words]
        counts["shortened_words"] += sum(len(pieces[word]) > capacity for word in sentence.words)
        tags = sentence.tags or ()
        counts["unknown_tags"] += sum(tag not in index for tag in tags)
        tag_ids = np.array([index.get(tag, IGNORED) for tag in tags] or [IGNORED], np.int32)
        starts = np.concatenate([[0], np.cumsum([len(piece) for piece in ids])])
        windows = cut_windows(starts, capacity)
        counts["split_sentences"] += len(windows) > 1
        for (begin, end), (first, last) in zip(windows, owned(starts, windows), strict=True):
            row = joined(dtype, special, np.concatenate(ids[begin:end]))
            word = np.full(len(row), IGNORED, np.int32)
            predicted = np.arange(first, last)
            places = 1 + starts[predicted] - starts[begin]
            word[places] = predicted
            target = np.full(len(row), IGNORED, np.int32)
            target[places] = tag_ids[predicted] if tags else IGNORED
            rows.append(row)
            targets.append(target)
            words.append(word)
            example.append(number)
    numbers = np.array(example, np.int64)
    return TaggingFeatures(
        rows, {}, {"labels": targets}, numbers, special, max_length, counts, words
    )


def cut_windows(starts: np.ndarray, capacity: int) -> list[tuple[int, int]]:
    """Windows [begin, end) of words that hold all of a sentence.

    Args:
      starts: int [words + 1], the first token of each word, and the number of tokens.
      capacity: most tokens in a window; no word has more.

    Returns:
      At least one. Each but the first begins about half a window after the one before, and no
      word lies outside all of them.
    """
    num_words = len(starts) - 1
    windows = []
    begin = 0
    while True:
        end = int(np.searchsorted(starts, starts[begin] + capacity, "right")) - 1
        windows.append((begin, end))
        if end >= num_words:
            return windows
        # Rounded up, so that no word lies in three windows.
        half = int(np.searchsorted(starts, starts[begin] + -(-capacity // 2), "left"))
        begin = min(max(half, begin + 1), end)


def owned(starts: np.ndarray, windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Which words [first, last) each window predicts: those it has the most context of.

    A word's context in a window is the smaller of the tokens before it and after it there; of
    equal ones, the earlier window has it. The ends of a sentence are context enough.

    Args:
      starts, windows: as in and from `cut_windows`.
    """
    edges = [0]
    for (_, end), (begin, _) in zip(windows, windows[1:], strict=False):
        # Both windows go on beyond the overlap, so what counts in it is what the earlier one has
        # after a word and the later one before it.
        shared = np.arange(begin, end)
        after = starts[end] - starts[shared + 1]
        before = starts[shared] - starts[begin]
        edges.append(begin + int((after >= before).sum()))
    edges.append(windows[-1][1])
    return list(zip(edges, edges[1:], strict=False))


def _pieces(sentences: Sequence[TaggedSentence], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """Ids of every different word, at least one each."""
    words = list(dict.fromkeys(word for sentence in sentences for word in sentence.words))
    unknown = np.array([tokenizer.special_ids.unk], id_dtype(tokenizer.vocab_size))
    return {
        word: ids if len(ids) else unknown
        for word, ids in zip(words, encode_texts(tokenizer, words), strict=True)
    }
