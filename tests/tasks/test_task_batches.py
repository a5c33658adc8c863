"""Batches by length: every row once an epoch, few shapes, and nothing but the step counts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds
from electra_jax.tasks import BucketedBatches, EvaluationBatches, Features, choose_lengths

SPECIAL = SpecialIds(0, 1, 2, 3, 4)


def features_of(lengths, *, tokens=False, max_length=128):
    """Rows that say their own number: [CLS] number ... [SEP]."""
    rows, token_targets = [], []
    for number, length in enumerate(lengths):
        row = np.full(length, 10 + number, np.uint16)
        row[0], row[-1] = SPECIAL.cls, SPECIAL.sep
        rows.append(row)
        token_targets.append(np.arange(length, dtype=np.int32))
    labels = np.arange(1, len(rows) + 1, dtype=np.int32)
    pairs = np.stack([labels, labels], axis=1).astype(np.float32)
    return Features(
        rows,
        {"labels": labels, "pairs": pairs},
        {"tags": token_targets} if tokens else {},
        np.arange(len(rows)),
        SPECIAL,
        max_length,
        {},
    )


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return features_of(np.clip(rng.gamma(3, 12, 1003).astype(int), 5, 128), tokens=True)


def labels_of(batches, steps):
    """Numbers of the rows of some batches that are rows."""
    found = [batches.batch_at(step) for step in steps]
    return np.concatenate([batch["labels"][batch["weights"] > 0] for batch in found])


def test_a_batch(features):
    batches = BucketedBatches(features, batch_size=7, seed=3)
    for step in (0, 5, batches.num_batches - 1, batches.num_batches + 2):
        batch = batches.batch_at(step)
        length = batches.length_at(step)
        assert length in batches.lengths
        assert {name: (values.dtype.name, values.shape) for name, values in batch.items()} == {
            "input_ids": ("uint16", (7, length)),
            "labels": ("int32", (7,)),
            "pairs": ("float32", (7, 2)),
            "tags": ("int32", (7, length)),
            "weights": ("float32", (7,)),
            "row_ids": ("uint32", (7,)),
        }
        assert batch["row_ids"].tolist() == list(range(7 * step, 7 * step + 7))
        for i, number in enumerate(batches.rows_at(step)):
            row = batch["input_ids"][i]
            if number < 0:
                assert row[:2].tolist() == [SPECIAL.cls, SPECIAL.sep] and not row[2:].any()
                assert batch["weights"][i] == 0 and batch["labels"][i] == 0
                assert (batch["tags"][i] == -1).all() and (batch["pairs"][i] == 0).all()
                continue
            expected = features.input_ids[number]
            np.testing.assert_array_equal(row[: len(expected)], expected)
            assert not row[len(expected) :].any() and batch["weights"][i] == 1
            assert batch["labels"][i] == number + 1
            assert batch["pairs"][i].tolist() == [number + 1] * 2
            np.testing.assert_array_equal(
                batch["tags"][i],
                np.where(np.arange(length) < len(expected), np.arange(length), -1),
            )


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1003, 2000])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_epoch_has_every_row_once(features, batch_size, shuffle):
    batches = BucketedBatches(features, batch_size=batch_size, seed=1, shuffle=shuffle)
    n = batches.num_batches
    assert n == -(-1003 // batch_size)
    epochs = [labels_of(batches, range(e * n, (e + 1) * n)).tolist() for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(1, 1004))
    if shuffle:
        assert epochs[0] != epochs[1] != epochs[2]
    else:
        assert epochs == [sorted(epochs[0])] * 3


def test_pure_function_of_seed_and_step(features):
    first, second = (BucketedBatches(features, batch_size=16, seed=5) for _ in range(2))
    expected = [first.batch_at(step) for step in range(150)]
    for step in (149, 0, 77, 77, 3):
        found = second.batch_at(step)
        assert found.keys() == expected[step].keys()
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[step][name])


def test_seed_and_epoch_change_what_meets_and_in_which_order(features):
    def epoch_of(seed, epoch):
        batches = BucketedBatches(features, batch_size=16, seed=seed)
        n = batches.num_batches
        steps = range(epoch * n, (epoch + 1) * n)
        meetings = {frozenset(batches.rows_at(step).tolist()) for step in steps}
        return meetings, [batches.length_at(step) for step in steps]

    base = epoch_of(5, 0)
    for seed, epoch in ((6, 0), (5, 1)):
        meetings, lengths = epoch_of(seed, epoch)
        assert len(meetings & base[0]) <= 1 and lengths != base[1]


@pytest.mark.parametrize("rows", [slice(0, 4), slice(4, 8), slice(3, None), slice(1, 8, 2)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_parts_of_a_batch(features, rows, shuffle):
    """Of the whole batch's length, whatever the part's own rows."""
    batches = BucketedBatches(features, batch_size=8, shuffle=shuffle)
    for step in (0, batches.num_batches - 1, batches.num_batches + 3):
        whole, part = batches.batch_at(step), batches.batch_at(step, rows)
        for name in whole:
            np.testing.assert_array_equal(part[name], whole[name][rows])


def test_rows_of_a_batch_are_of_like_length(features):
    """Fewer than a tenth of the tokens are padding that 8 lengths need not have."""
    lengths = features.lengths
    batches = BucketedBatches(features, batch_size=16, num_lengths=8)
    padded = sum(16 * batches.length_at(step) for step in range(batches.num_batches))
    assert padded < 1.25 * lengths.sum() < 0.5 * 16 * 128 * batches.num_batches
    assert len({batches.length_at(step) for step in range(batches.num_batches)}) <= 8


def test_chance_decides_what_meets_and_when(features):
    """Short and long batches are mixed in time, and rows meet others in the next epoch."""
    batches = BucketedBatches(features, batch_size=8, seed=2)
    n = batches.num_batches
    lengths = np.array([batches.length_at(step) for step in range(n)])
    halves = lengths[: n // 2].mean(), lengths[n // 2 :].mean()
    assert abs(halves[0] - halves[1]) < 0.2 * lengths.mean()
    together = [
        {frozenset(pair) for step in range(e * n, (e + 1) * n)
         for pair in itertools.combinations(batches.rows_at(step).tolist(), 2)}
        for e in range(2)
    ]  # fmt: skip
    assert len(together[0] & together[1]) < 0.1 * len(together[0])


def padding_by_trying_all(lengths, max_length, count, multiple):
    candidates = {min(-(-length // multiple) * multiple, max_length) for length in lengths}
    return min(
        sum(min(bucket for bucket in chosen if bucket >= length) for length in lengths)
        for size in range(1, count + 1)
        for chosen in itertools.combinations(sorted(candidates), min(size, len(candidates)))
        if max(chosen) >= max(lengths)
    )


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    count=st.integers(1, 4),
    multiple=st.sampled_from([1, 8, 16]),
    room=st.integers(0, 10),
)
def test_chosen_lengths_pad_least(lengths, count, multiple, room):
    max_length = max(lengths) + room
    chosen = choose_lengths(lengths, max_length=max_length, count=count, multiple=multiple)
    assert len(chosen) <= count and list(chosen) == sorted(set(chosen))
    assert max(lengths) <= chosen[-1] <= max_length
    assert all(length % multiple == 0 or length == max_length for length in chosen)
    padded = sum(min(bucket for bucket in chosen if bucket >= length) for length in lengths)
    assert padded == padding_by_trying_all(lengths, max_length, count, multiple)


def test_lengths_given(features):
    batches = BucketedBatches(features, batch_size=16, lengths=[128, 64])
    assert batches.lengths == (64, 128)
    assert {batches.length_at(step) for step in range(batches.num_batches)} == {64, 128}
    joint = choose_lengths(np.concatenate([features.lengths, [9]]), max_length=128, count=3)
    for made in (BucketedBatches, EvaluationBatches):
        assert made(features, batch_size=4, lengths=joint).lengths == joint


@pytest.mark.parametrize("made", [BucketedBatches, EvaluationBatches])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be positive"),
        ({"lengths": [8, 16]}, "bucket lengths [8, 16] are shorter than a row of 20 tokens: add a "
         "longer one"),
        ({"num_lengths": 0}, "bucket count=0 and multiple=8 must be positive"),
        ({"features": features_of([])}, "there are no rows to make batches of: check the data"),
    ],
)  # fmt: skip
def test_refuses(made, how, message):
    arguments = {"features": features_of([5, 20]), "batch_size": 2, **how}
    with pytest.raises(UserError) as error:
        made(arguments.pop("features"), **arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("batch_size", [1, 16, 1003, 1100])
def test_evaluation_sees_every_row_once_and_restores_the_order(features, batch_size):
    batches = EvaluationBatches(features, batch_size=batch_size)
    labels, dicts = [], []
    for step in range(batches.num_batches):
        batch = batches.batch_at(step)
        assert batch["input_ids"].shape[1] in batches.lengths
        labels.append(batch["labels"])
        dicts.append({"ids": batch["input_ids"], "labels": batch["labels"]})
    assert sum(int((values > 0).sum()) for values in labels) == 1003
    assert np.stack(batches.restore(labels)).tolist() == list(range(1, 1004))
    for number, row in enumerate(batches.restore(dicts)):
        expected = features.input_ids[number]
        np.testing.assert_array_equal(row["ids"][: len(expected)], expected)
        assert row["labels"] == number + 1
    part = batches.batch_at(0, slice(0, 1))
    np.testing.assert_array_equal(part["input_ids"], batches.batch_at(0)["input_ids"][:1])
    assert not batches.batch_at(batches.num_batches)["weights"].any()
    with pytest.raises(ValueError, match=f"0 outputs for {batches.num_batches} batches"):
        batches.restore([])


def test_long_batches_come_at_other_times_in_the_next_epoch():
    """Ten batches of each length in every epoch, so nothing else sets the epochs apart."""
    batches = BucketedBatches(features_of([8] * 80 + [96] * 80), batch_size=8)
    epochs = [[batches.length_at(20 * e + i) for i in range(20)] for e in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [[8] * 10 + [96] * 10] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_wide_vocabularies():
    features = features_of([5, 6])
    rows = [row.astype(np.uint32) + 70000 for row in features.input_ids]
    wide = Features(rows, features.targets, {}, features.example, SPECIAL, 128, {})
    assert BucketedBatches(wide, batch_size=2).batch_at(0)["input_ids"].dtype == np.uint32
