from __future__ import annotations

import numpy as np
import pytest

import electra_jax.data.examples as examples_module
from electra_jax.data.examples import packed_examples, segment_examples
from electra_jax.data.hashing import GOLDEN, mix64


def random_shard(rng, num_documents, max_sentences, max_length):
    """Sentence ends and document ends of random documents."""
    sentence_ends, document_ends = [], []
    position = 0
    for _ in range(num_documents):
        for length in rng.integers(1, max_length, rng.integers(1, max_sentences)):
            position += int(length)
            sentence_ends.append(position)
        document_ends.append(position)
        position += 1
    return np.array(sentence_ends), np.array(document_ends)


def slow_examples(sentence_ends, document_ends, seq_len, seed, shard_id):
    """The documented rule, token by token, with nothing clever."""
    key = mix64(mix64(seed) ^ shard_id)
    sentence_end = set(sentence_ends.tolist())
    result = []
    start = 0
    for document_end in document_ends.tolist():
        while start < document_end:
            draws = mix64(key + start * GOLDEN)
            short, single = draws % 2**20 < 0.05 * 2**20, (draws >> 20) % 2**20 < 0.1 * 2**20
            coin = (draws >> 40) % 2 == 1
            target = 5 + ((draws >> 41) * (seq_len - 4) >> 23) if short else seq_len
            ends = [e for e in range(start + 1, document_end + 1) if e in sentence_end]
            limit = next((e for e in ends if e >= start + target), document_end)
            near = [e for e in ends if e - start < (target - 3) // 2]
            if single:
                first, second = min(limit - start, seq_len - 2), 0
            else:
                if near:
                    later = ends[len(near) :]
                    first_end = later[0] if coin and later else near[-1]
                else:
                    first_end = ends[0]
                first = first_end - start
                if first_end < limit and first < seq_len - 3:
                    second = min(limit - start, seq_len - 3) - first
                else:
                    first, second = min(first, seq_len - 2), 0
            result.append((start, first, second))
            start += first + second
        start = document_end + 1
    return result


@pytest.mark.parametrize("seq_len", [8, 9, 16, 33, 128])
@pytest.mark.parametrize("few_documents", [0, 10**9, 20])
def test_equals_the_slow_rule(seq_len, few_documents, monkeypatch):
    """For the array form, the one-at-a-time form, and both mixed."""
    monkeypatch.setattr(examples_module, "_FEW_DOCUMENTS", max(1, few_documents))
    rng = np.random.default_rng(seq_len)
    for seed, (max_sentences, max_length) in enumerate([(2, 4), (12, 8), (9, 40), (3, 300)]):
        shard = random_shard(rng, 40, max_sentences, max_length)
        got = segment_examples(*shard, seq_len=seq_len, seed=seed, shard_id=seed + 5)
        expected = slow_examples(*shard, seq_len, seed, seed + 5)
        assert list(zip(*(column.tolist() for column in got), strict=True)) == expected
        assert [column.dtype for column in got] == [np.int64, np.int32, np.int32]


@pytest.mark.parametrize("seq_len", [8, 64, 512])
def test_every_token_once_and_rows_fit(seq_len):
    sentence_ends, document_ends = random_shard(np.random.default_rng(1), 200, 30, 60)
    start, first, second = segment_examples(
        sentence_ends, document_ends, seq_len=seq_len, seed=0, shard_id=0
    )
    times = np.zeros(document_ends[-1] + 1, int)
    for begin, length in zip(start, first + second, strict=True):
        times[begin : begin + length] += 1
    expected = np.ones_like(times)
    expected[document_ends] = 0  # [SEP] is in no example.
    np.testing.assert_array_equal(times, expected)
    assert first.min() >= 1 and second.min() >= 0
    assert np.all(first + second + np.where(second > 0, 3, 2) <= seq_len)
    # A and B of one example are of one document.
    document = np.searchsorted(document_ends, start, "right")
    assert np.all(start + first + second <= document_ends[document])
    # A ends with a sentence wherever B follows.
    assert np.isin((start + first)[second > 0], sentence_ends).all()


def test_shares_of_the_draws():
    sentence_ends = np.cumsum(np.full(400_000, 5))
    start, first, second = segment_examples(
        sentence_ends, sentence_ends[-1:], seq_len=128, seed=4, shard_id=0
    )
    n = len(start)
    full = first + second >= 125
    # About 5 % short targets, of which few are long enough to fill a row anyway.
    assert abs(np.mean(~full) - 0.05) < 0.01
    assert abs(np.mean((second == 0) & full) - 0.095) < 0.01
    # One sentence later is where A reaches the first target, (128 - 3) // 2.
    two = full & (second > 0)
    later = np.mean(first[two] >= 62)
    assert abs(later - 0.5) < 0.03
    assert n > 15_000
    # Short targets are spread evenly over [5, 128].
    lengths = (first + second)[~full]
    assert lengths.min() < 15 and abs(np.mean(lengths) - 66) < 6


def test_seed_and_shard_change_the_cuts():
    shard = random_shard(np.random.default_rng(0), 50, 30, 30)
    tables = [
        segment_examples(*shard, seq_len=64, seed=seed, shard_id=shard_id)
        for seed, shard_id in [(0, 0), (1, 0), (0, 1), (-1, 0)]
    ]
    cuts = {tuple(table.first_length.tolist()) for table in tables}
    assert len(cuts) == 4


def test_packed_covers_the_stream():
    start, first, second = packed_examples(1000, seq_len=64)
    assert start.tolist() == list(range(0, 1000, 62))
    assert first.sum() == 1000 and first[:-1].tolist() == [62] * 16 and first[-1] == 8
    assert not second.any()
    assert len(packed_examples(0, seq_len=64).start) == 0
    assert packed_examples(124, seq_len=64).first_length.tolist() == [62, 62]


def test_no_documents():
    none = np.zeros(0, np.int64)
    assert len(segment_examples(none, none, seq_len=64, seed=0, shard_id=0).start) == 0
