from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from electra_jax.data import TokenBatches, prepare_corpus
from electra_jax.errors import UserError
from electra_jax.resident import batch_from_tokens

FORMATS = ["segments", "packed"]


def rows_of(batches, steps):
    return np.concatenate([batches.batch_at(step)["input_ids"] for step in steps])


@pytest.mark.parametrize("example_format", FORMATS)
def test_rows_hold_the_corpus_once(corpus, example_format):
    """In order, what lies between [CLS] and [PAD] is the token stream, cut and rejoined."""
    batches = TokenBatches(
        corpus,
        seq_len=32,
        batch_size=7,
        example_format=example_format,
        shuffle=False,
        repeat=False,
    )
    special = corpus.special_ids
    rows = rows_of(batches, range(batches.num_batches))
    assert rows.dtype == np.uint16 and rows.shape == (batches.num_batches * 7, 32)
    assert not np.any(rows[batches.num_examples :] != special.pad)
    rows = rows[: batches.num_examples]
    assert np.all(rows[:, 0] == special.cls)
    stream = []
    two_segments = 0
    for row in rows.tolist():
        length = len(row) - row[::-1].index(next(i for i in row[::-1] if i != special.pad))
        assert special.pad not in row[:length] and row[length - 1] == special.sep
        inner = row[1 : length - 1]
        if example_format == "segments":
            assert inner.count(special.sep) <= 1
            two_segments += special.sep in inner
            inner = [i for i in inner if i != special.sep]
        stream += inner
    tokens = np.concatenate([shard.tokens for shard in corpus.shards("train")])
    if example_format == "segments":
        assert two_segments > 0.5 * len(rows)
        tokens = tokens[tokens != special.sep]
    assert stream == tokens.tolist()


@pytest.mark.parametrize("example_format", FORMATS)
def test_example_at_is_the_row_in_order(corpus, example_format):
    batches = TokenBatches(
        corpus, seq_len=24, batch_size=5, example_format=example_format, shuffle=False
    )
    rows = rows_of(batches, range(batches.num_batches))
    for index in (0, 1, batches.num_examples // 2, batches.num_examples - 1):
        np.testing.assert_array_equal(batches.example_at(index), rows[index])
    for index in (-1, batches.num_examples):
        with pytest.raises(IndexError):
            batches.example_at(index)


def test_pure_function_of_the_step(corpus):
    first = TokenBatches(corpus, seq_len=32, batch_size=8, seed=5)
    second = TokenBatches(corpus, seq_len=32, batch_size=8, seed=5)
    expected = [first.batch_at(step)["input_ids"] for step in range(300)]
    for step in (299, 0, 17, 17, 150):
        np.testing.assert_array_equal(second.batch_at(step)["input_ids"], expected[step])


def test_seed_changes_the_order(corpus):
    """Not only the cuts: packed rows have none to change."""
    one, two = (
        TokenBatches(corpus, seq_len=32, batch_size=64, seed=seed, example_format="packed")
        for seed in (5, 6)
    )
    same = one.batch_at(0)["input_ids"] == two.batch_at(0)["input_ids"]
    assert same.all(axis=1).sum() < 8


@pytest.mark.parametrize("rows", [slice(0, 4), slice(4, 8), slice(3, None), slice(1, 8, 2)])
@pytest.mark.parametrize("repeat", [True, False])
def test_parts_of_a_batch(corpus, rows, repeat):
    batches = TokenBatches(corpus, seq_len=32, batch_size=8, repeat=repeat)
    for step in (0, batches.num_batches - 1, batches.num_batches + 3):
        whole, part = batches.batch_at(step), batches.batch_at(step, rows)
        assert whole["row_ids"].tolist() == list(range(8 * step, 8 * step + 8))
        assert part["row_ids"].dtype == np.uint32
        for name in ("input_ids", "row_ids"):
            np.testing.assert_array_equal(part[name], whole[name][rows])


def test_batch_size_does_not_change_the_sequence(corpus):
    small, large = (TokenBatches(corpus, seq_len=32, batch_size=size) for size in (4, 12))
    np.testing.assert_array_equal(rows_of(small, range(300)), rows_of(large, range(100)))


@pytest.mark.parametrize("batch_size", [7, 5000])
def test_every_epoch_has_every_example_once(corpus, batch_size):
    batches = TokenBatches(corpus, seq_len=32, batch_size=batch_size)
    n = batches.num_examples
    assert n % batch_size and n < 5000
    steps = range(3 * n // batch_size + 1)
    rows = rows_of(batches, steps)[: 3 * n]
    ordered = np.stack([batches.example_at(i) for i in range(n)])
    expected = sorted(map(bytes, ordered))
    epochs = [list(map(bytes, rows[k * n : (k + 1) * n])) for k in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == expected
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(map(bytes, ordered))


@pytest.mark.parametrize("shuffle", [True, False])
def test_evaluation_drops_nothing(corpus, shuffle):
    batches = TokenBatches(
        corpus, split="validation", seq_len=32, batch_size=7, shuffle=shuffle, repeat=False
    )
    n = batches.num_examples
    assert n % 7 and batches.num_batches == n // 7 + 1
    rows = rows_of(batches, range(batches.num_batches + 2))
    assert np.all((rows != corpus.special_ids.pad).any(axis=1) == (np.arange(len(rows)) < n))
    ordered = [bytes(batches.example_at(i)) for i in range(n)]
    assert sorted(map(bytes, rows[:n])) == sorted(ordered)


def test_any_length_from_one_corpus(corpus):
    for seq_len in (8, 128, 512):
        batches = TokenBatches(corpus, seq_len=seq_len, batch_size=3)
        assert batches.batch_at(2)["input_ids"].shape == (3, seq_len)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seq_len": 7}, "data.seq_len=7 is too short: use 8 or more"),
        ({"batch_size": 0}, "batch_size=0 must be positive"),
        (
            {"example_format": "pairs"},
            "data.example_format='pairs' is unknown: use one of segments, packed",
        ),
    ],
)
def test_refuses(corpus, arguments, message):
    with pytest.raises(UserError) as error:
        TokenBatches(corpus, **{"seq_len": 32, "batch_size": 8, **arguments})
    assert str(error.value) == message


def test_refuses_an_empty_split(text_file, vocab_file, tmp_path):
    corpus = prepare_corpus(
        [text_file], tmp_path / "out", vocab=vocab_file, validation_fraction=0.0
    )
    with pytest.raises(UserError) as error:
        TokenBatches(corpus, split="validation", seq_len=32, batch_size=8)
    assert str(error.value) == (
        f"corpus {tmp_path}/out has no validation examples: prepare it from more than one "
        "document, with validation_fraction between 0 and 1"
    )


@pytest.mark.parametrize("example_format", FORMATS)
def test_a_device_that_has_the_tokens_cuts_the_same_rows(corpus, example_format):
    batches = TokenBatches(corpus, seq_len=24, batch_size=5, example_format=example_format, seed=3)
    tokens = batches.tokens()
    assert len(tokens) == batches.num_tokens
    cut = jax.jit(functools.partial(batch_from_tokens, seq_len=24, special_ids=corpus.special_ids))
    steps = (0, 1, batches.num_batches, 10**6)
    for step in steps:
        expected = batches.batch_at(step, slice(1, 4))
        found = cut(batches.places_at(step, slice(1, 4)), tokens)
        np.testing.assert_array_equal(found["input_ids"], expected["input_ids"])
        np.testing.assert_array_equal(found["row_ids"], expected["row_ids"])
    # The places of several steps at once.
    stacked = jax.tree.map(lambda *x: np.stack(x), *map(batches.places_at, steps))
    expected = np.stack([batches.batch_at(step)["input_ids"] for step in steps])
    np.testing.assert_array_equal(cut(stacked, tokens)["input_ids"], expected)
    with pytest.raises(ValueError, match="rows which are nowhere"):
        TokenBatches(corpus, seq_len=24, batch_size=5, repeat=False).places_at(0)
