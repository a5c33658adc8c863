"""The loop's contract, on steps that only count."""

import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.loop import Cadence, StepLog, fit
from electra_jax.writers import TIMES


class State:
    """Stands in for a TrainState: what the loop reads of one is its step."""

    def __init__(self, step):
        self.step = step


class Recorder:
    """Takes rows, and writes down everything that happens, in order."""

    def __init__(self):
        self.events, self.rows, self.steps = [], [], []

    def write(self, step, split, metrics):
        self.events.append((split, step))
        self.rows.append((step, split, dict(metrics)))

    def advance(self, step):
        self.steps.append(step)

    def flush(self):
        self.events.append(("flush",))

    def close(self):
        pass


def count_step(state, batch, skipped_at=()):
    step = state.step + 1
    skipped = float(step in skipped_at)
    sums = {
        "loss_sum": jnp.float32(batch["value"] * (1 - skipped)),
        "tokens": jnp.float32(100.0 * (1 - skipped)),
        "steps": jnp.float32(1.0),
        "skipped_steps": jnp.float32(skipped),
        "grad_norm": jnp.float32(2.0 * (1 - skipped)),
    }
    return State(step), sums


def run(
    start=0,
    num_steps=10,
    cadence=Cadence(2, 4, 5),  # noqa: B008
    window=None,
    skipped_at=(),
    policy=True,
    finishes_at=None,
    boundaries=(),
):
    recorder, saved, asked, calls = Recorder(), [], [], []
    recorder.calls = calls
    log = StepLog(
        recorder,
        lambda sums: {"loss": float(sums["loss_sum"] / sums["tokens"]) if sums["tokens"] else 0.0},
        learning_rate=lambda step: step / 10,
        num_steps=num_steps,
        window=window,
        raise_if_skipped=policy,
        flops_of=lambda step: 1.0,
        peak_flops=1.0,
    )

    def save(state, window):
        recorder.events.append(("save", state.step))
        saved.append((state.step, dict(window)))

    def batch_at(step):
        asked.append(step)
        return {"value": np.float32(step)}

    def take(state, batch):
        if cadence.steps_per_call is None:
            return count_step(state, batch, skipped_at)
        sums = []
        for value in batch["value"]:
            state, one = count_step(state, {"value": value}, skipped_at)
            sums.append(one)
        calls.append(len(sums))
        return state, {name: jnp.stack([one[name] for one in sums]) for name in sums[0]}

    final = fit(
        State(start),
        take,
        batch_at,
        num_steps=num_steps,
        cadence=cadence,
        log=log,
        evaluate=lambda state: {"loss": 2.0 * state.step, "tokens": 4.0},
        save=save,
        is_finished=lambda: ("eval", finishes_at) in recorder.events,
        boundaries=boundaries,
    )
    return final, recorder, saved, asked


def test_runs_exactly_the_steps_that_are_missing_each_on_its_own_batch():
    final, _, _, asked = run(start=3, num_steps=10)
    assert final.step == 10 and asked == list(range(3, 10))


def test_logs_then_evaluates_then_saves_and_always_at_the_end():
    _, recorder, _, _ = run(num_steps=10, cadence=Cadence(5, 5, 5))
    per_five = [("train", 5), ("eval", 5), ("flush",), ("save", 5)]
    assert recorder.events == per_five + [(name, *[10] * len(at)) for name, *at in per_five]
    _, recorder, saved, _ = run(num_steps=7, cadence=Cadence(100, 100, 100))
    assert recorder.events == [("train", 7), ("eval", 7), ("flush",), ("save", 7)]
    assert saved == [(7, {})]


def test_rows_hold_means_over_their_stretch_of_steps():
    _, recorder, _, _ = run(num_steps=6, cadence=Cadence(3, 100, 100))
    rows = [metrics for _, split, metrics in recorder.rows if split == "train"]
    assert [row["loss"] for row in rows] == [(0 + 1 + 2) / 300, (3 + 4 + 5) / 300]
    assert [row["grad_norm"] for row in rows] == [2.0, 2.0]
    assert [row["learning_rate"] for row in rows] == [0.2, 0.5]  # of the row's last update
    assert all(row["tokens_per_second"] > 0 and row["eta_seconds"] >= 0 for row in rows)
    assert all("model_flops_utilisation" in row for row in rows)


def test_an_evaluation_is_a_row_with_its_own_speed_and_the_rate_of_the_last_update():
    _, recorder, _, _ = run(num_steps=6, cadence=Cadence(3, 4, 100))
    rows = {step: metrics for step, split, metrics in recorder.rows if split == "eval"}
    assert [(step, row["loss"]) for step, row in rows.items()] == [(4, 8.0), (6, 12.0)]
    assert rows[4]["learning_rate"] == 0.3 and rows[4]["tokens_per_second"] > 0


def test_every_step_moves_the_progress_bar():
    _, recorder, _, _ = run(start=2, num_steps=6)
    assert recorder.steps == [3, 4, 5, 6]


def test_a_row_that_a_save_cut_in_two_is_whole_after_resuming():
    _, whole, saved, _ = run(num_steps=8, cadence=Cadence(4, 100, 6))
    step, window = saved[0]
    assert step == 6 and window["steps"] == 2
    _, resumed, _, _ = run(start=6, num_steps=8, cadence=Cadence(4, 100, 6), window=window)
    losses = {step: row["loss"] for step, split, row in whole.rows if split == "train"}
    assert resumed.rows[0][2]["loss"] == losses[8]


def test_a_step_that_is_not_finite_ends_the_run_by_number_before_anything_is_saved():
    with pytest.raises(FloatingPointError, match="step 4: the loss or its gradient is not finite"):
        run(num_steps=10, skipped_at={4}, cadence=Cadence(2, 100, 4))


def test_or_is_counted_and_left_out_of_the_means():
    _, recorder, _, _ = run(num_steps=4, skipped_at={2, 3}, policy=False, cadence=Cadence(4, 9, 9))
    row = recorder.rows[0][2]
    assert row["skipped_steps"] == 2 and row["loss"] == (0 + 3) / 200 and row["grad_norm"] == 2.0


def test_a_run_that_is_finished_early_writes_its_row_and_is_saved():
    final, recorder, saved, asked = run(cadence=Cadence(3, 4, 5), finishes_at=4)
    assert final.step == 4 and asked == [0, 1, 2, 3]
    assert recorder.events == [("train", 3), ("eval", 4), ("train", 4), ("flush",), ("save", 4)]
    assert saved == [(4, {})] and recorder.rows[-1][2]["loss"] == 3 / 100


def test_a_finished_run_has_nothing_left_to_do():
    final, recorder, saved, asked = run(start=10, num_steps=10)
    assert (final.step, recorder.rows, saved, asked) == (10, [], [], [])


def test_many_steps_a_call_change_nothing_but_the_number_of_calls():
    one = run(start=1, num_steps=23, cadence=Cadence(3, 8, 12), skipped_at={5}, policy=False)
    for at_once in (1, 2, 4, 100):
        cadence = Cadence(3, 8, 12, steps_per_call=at_once)
        many = run(start=1, num_steps=23, cadence=cadence, skipped_at={5}, policy=False)
        times = {"model_flops_utilisation", *TIMES}
        rows = [
            [
                (step, split, {k: v for k, v in row.items() if k not in times})
                for step, split, row in r
            ]
            for r in (one[1].rows, many[1].rows)
        ]
        assert rows[0] == rows[1]
        saves = [[event for event in r.events if event[0] == "save"] for r in (one[1], many[1])]
        assert saves[0] == saves[1] == [("save", 12), ("save", 23)]
        assert many[1].steps == one[1].steps and many[3] == one[3]
    # To the first evaluation, to the save, to the second evaluation, to the end.
    assert many[1].calls == [7, 4, 4, 7]


def test_a_call_ends_where_batches_change_their_shape():
    cadence = Cadence(10, 10, 10, steps_per_call=5)
    _, recorder, _, asked = run(num_steps=10, cadence=cadence, boundaries=(3, 5))
    assert recorder.calls == [3, 2, 5] and asked == list(range(10))


def test_a_step_of_many_that_is_not_finite_is_named():
    with pytest.raises(FloatingPointError, match="step 6: the loss or its gradient is not finite"):
        run(num_steps=10, skipped_at={6}, cadence=Cadence(2, 100, 8, steps_per_call=4))
