from __future__ import annotations

import numpy as np
import pytest

from electra_jax.data import CurriculumBatches, TokenBatches
from electra_jax.errors import UserError

PHASES = [(0, 16, 8), (20, 32, 4), (25, 64, 6)]
NUM_STEPS = 40


@pytest.fixture(scope="module")
def batches(corpus):
    return CurriculumBatches(corpus, PHASES, seed=5)


def phase_of(step):
    return max(number for number, phase in enumerate(PHASES) if step >= phase[0])


def test_every_step_has_the_shape_of_its_phase(batches):
    for step in range(NUM_STEPS):
        number = phase_of(step)
        assert batches.phase_at(step) == number
        _, seq_len, batch_size = PHASES[number]
        batch, like = batches.batch_at(step), batches.like(phase=number)
        assert batch["input_ids"].shape == (batch_size, seq_len)
        for name, rows in like.items():
            assert (rows.shape, rows.dtype) == (batch[name].shape, batch[name].dtype)
    assert batches.phases[2].seq_len == batches.seq_len == 64
    assert batches.phase_at(10**12) == 2


def test_each_phase_reads_its_own_batches_from_their_beginning(batches):
    """One phase after another, its own examples: none is left out, none comes twice in an epoch."""
    for number, (first, _, _) in enumerate(PHASES):
        own = batches.batches[number]
        for step in (first, first + 1, first + 4):
            np.testing.assert_array_equal(
                batches.batch_at(step)["input_ids"], own.batch_at(step - first)["input_ids"]
            )


def test_the_first_phase_is_what_plain_batches_are(corpus):
    alone = CurriculumBatches(corpus, [(0, 32, 8)], seed=7, example_format="packed")
    plain = TokenBatches(corpus, seq_len=32, batch_size=8, seed=7, example_format="packed")
    for step in (0, 3, 500):
        for name, rows in plain.batch_at(step).items():
            np.testing.assert_array_equal(alone.batch_at(step)[name], rows)


@pytest.mark.parametrize("example_format", ["segments", "packed"])
def test_a_later_phase_does_not_repeat_the_order_of_the_first(corpus, example_format):
    """Also where nothing but the number of the phase differs."""
    phases = [(0, 32, 8), (10, 32, 8), (20, 32, 8)]
    batches = CurriculumBatches(corpus, phases, seed=5, example_format=example_format)
    rows = [
        {bytes(row) for step in range(first, first + 10) for row in _ids(batches, step)}
        for first in (0, 10, 20)
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        # 80 of several hundred examples: some may be in both.
        assert len(rows[one] & rows[other]) < 40
    assert (_ids(batches, 0) != _ids(batches, 10)).any(axis=1).all()
    other_seed = CurriculumBatches(corpus, phases, seed=6, example_format=example_format)
    assert (_ids(other_seed, 10) != _ids(batches, 10)).any()


def _ids(batches, step):
    return batches.batch_at(step)["input_ids"]


def test_row_ids_count_the_rows_of_the_whole_run(batches):
    row_ids = np.concatenate([batches.batch_at(step)["row_ids"] for step in range(NUM_STEPS)])
    assert row_ids.dtype == np.uint32
    assert row_ids.tolist() == list(range(20 * 8 + 5 * 4 + 15 * 6))
    for steps, rows in ((0, 0), (7, 56), (20, 160), (22, 168), (25, 180), (40, 270)):
        assert batches.num_rows(steps) == rows


def test_row_ids_go_round_at_two_to_the_32(corpus):
    phases = [(0, 8, 1 << 20), (5000, 8, 2)]  # 5,242,880,000 rows before the second
    batches = CurriculumBatches(corpus, phases)
    first = 5000 * (1 << 20) % (1 << 32)
    assert batches.batch_at(5001)["row_ids"].tolist() == [first + 2, first + 3]


def test_pure_function_of_the_step(corpus, batches):
    """A run that was killed goes on with the same rows, in whatever order they are asked for."""
    again = CurriculumBatches(corpus, PHASES, seed=5)
    for step in (39, 0, 24, 25, 19, 20, 20):
        for name, rows in batches.batch_at(step).items():
            np.testing.assert_array_equal(again.batch_at(step)[name], rows)


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 4), slice(1, None, 2)])
def test_parts_of_a_batch(batches, rows):
    for step in (3, 21, 30):
        whole, part = batches.batch_at(step), batches.batch_at(step, rows)
        like = batches.like(rows, phase=batches.phase_at(step))
        for name in whole:
            np.testing.assert_array_equal(part[name], whole[name][rows])
            assert like[name].shape == part[name].shape


def test_epochs_are_added_up(batches):
    examples = [own.num_examples for own in batches.batches]
    assert examples[0] > examples[1] > examples[2]
    for steps, parts in ((10, (10, 0, 0)), (22, (20, 2, 0)), (30, (20, 5, 5))):
        expected = sum(
            count * size / n for count, (_, _, size), n in zip(parts, PHASES, examples, strict=True)
        )
        assert batches.num_epochs(steps) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "data.phases is empty: give (first_step, seq_len, batch_size) from step 0"),
        ([(1, 16, 8)], "data.phases[0]: first_step=1 must be 0, where training begins"),
        (
            [(0, 16, 8), (9, 32, 8), (9, 64, 8)],
            "data.phases[2]: first_step=9 must be larger than 9, that of the phase before it",
        ),
        ([(0, 16, 8), (9, 32, 0)], "data.phases[1]: batch_size=0 must be positive"),
        ([(0, 16.0, 8)], "data.phases[0]: seq_len=16.0 must be an integer"),
        ([(0, 16, 8), (9, 4, 8)], "data.seq_len=4 is too short: use 8 or more"),
    ],
)
def test_refuses(corpus, phases, message):
    with pytest.raises(UserError) as error:
        CurriculumBatches(corpus, phases)
    assert str(error.value) == message
