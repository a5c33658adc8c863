"""A run that is killed and started again ends as if nothing had happened, bit for bit."""

import json
import random
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from small_run import NUM_STEPS, command, environment, run

from electra_jax.checkpoint import load_params
from electra_jax.writers import TIMES, read_rows


def rows_without_times(workdir):
    rows = read_rows(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def assert_same_run(workdir, other):
    (params, metadata), (other_params, other_metadata) = load_params(workdir), load_params(other)
    jax.tree.map(np.testing.assert_array_equal, params, other_params)
    assert metadata["window"] == other_metadata["window"] == {}
    assert rows_without_times(workdir) == rows_without_times(other)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None and not condition():
        time.sleep(0.005)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_started_again_ends_bitwise_equal(
    seed, corpus_path, undisturbed, tmp_path
):
    """Kills at random moments: between steps, inside a save, inside an evaluation."""
    rng, workdir = random.Random(seed), tmp_path / "run"
    arguments = command(corpus_path, workdir, train__num_train_steps=NUM_STEPS)
    metrics = workdir / "metrics.jsonl"
    killed_at = []
    for _ in range(3):
        before = last_step(metrics)
        process = subprocess.Popen(
            arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wanted = before + rng.randrange(1, 12)
        wait_for(lambda: last_step(metrics) >= wanted, process)  # noqa: B023
        time.sleep(rng.random() * 0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed_at.append(last_step(metrics))
        process.wait()
    assert len(killed_at) >= 2 and max(killed_at) < NUM_STEPS, killed_at
    result = run(arguments)
    assert result.returncode == 0, result.stderr
    assert "resuming at step" in result.stdout
    assert_same_run(workdir, undisturbed)


def last_step(metrics):
    return read_rows(metrics)[-1]["step"] if metrics.exists() and metrics.stat().st_size else 0


def test_each_step_is_logged_once(undisturbed):
    steps = [(row["step"], row["split"]) for row in read_rows(undisturbed / "metrics.jsonl")]
    assert len(steps) == len(set(steps))
    assert [step for step, split in steps if split == "train"] == list(range(3, NUM_STEPS + 1, 3))
    assert [step for step, split in steps if split == "eval"] == list(range(10, NUM_STEPS + 1, 10))


def test_many_steps_a_call_on_a_corpus_that_the_device_holds_are_the_same_run(
    corpus_path, undisturbed, tmp_path
):
    arguments = command(
        corpus_path,
        tmp_path,
        train__num_train_steps=NUM_STEPS,
        train__steps_per_call=5,
        data__on_device=True,
    )
    result = run(arguments, env=environment() | {"JAX_LOG_COMPILES": "1"})
    assert result.returncode == 0, result.stderr
    assert "5 steps a call, corpus on the device" in result.stdout
    # Nothing is compiled twice, whatever is saved and evaluated: state, step and evaluation.
    assert result.stderr.count("Finished XLA compilation of") == 3
    assert_same_run(tmp_path, undisturbed)


def test_four_devices_under_pmap_log_the_same_losses(corpus_path, undisturbed, tmp_path):
    arguments = command(
        corpus_path, tmp_path, train__num_train_steps=NUM_STEPS, parallel__backend="pmap"
    )
    result = run(arguments, env=environment() | {"JAX_NUM_CPU_DEVICES": "4"})
    assert result.returncode == 0, result.stderr
    assert "4 x cpu, pmap" in result.stdout
    for row, expected in zip(
        rows_without_times(tmp_path), rows_without_times(undisturbed), strict=True
    ):
        # Rounding grows with the steps.
        assert row["loss"] == pytest.approx(
            expected["loss"], rel=1e-5 if row["step"] < 10 else 0.02
        )


def test_a_run_can_be_made_longer_and_says_so(corpus_path, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    longer = NUM_STEPS + 3
    result = run(command(corpus_path, tmp_path / "run", train__num_train_steps=longer))
    assert result.returncode == 0, result.stderr
    note = f"Changed since this run began: train.num_train_steps: {NUM_STEPS} before, {longer} now"
    assert note in result.stdout
    assert last_step(tmp_path / "run" / "metrics.jsonl") == longer


def test_the_last_step_is_saved_and_the_run_describes_itself(undisturbed, corpus_path):
    assert (undisturbed / "checkpoints" / str(NUM_STEPS)).is_dir()
    assert (undisturbed / "curves.png").stat().st_size > 1000
    assert (undisturbed / "tokenizer" / "vocab.txt").exists()
    description = json.loads((undisturbed / "config.json").read_text())
    assert description["config"]["model"]["hidden_size"] == 32
    assert description["corpus"]["path"] == str(corpus_path)


def test_a_finished_run_started_again_changes_nothing(undisturbed, corpus_path):
    before = rows_without_times(undisturbed)
    result = run(command(corpus_path, undisturbed, train__num_train_steps=NUM_STEPS))
    assert result.returncode == 0 and f"Trained {NUM_STEPS} steps" in result.stdout
    assert rows_without_times(undisturbed) == before


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            {"model__hidden_size": 64},
            "model.hidden_size=64, but the run in {workdir} has 32: restore the value, or choose "
            "another --workdir",
        ),
        (
            {"optimizer__learning_rate": 0.5},
            "optimizer.learning_rate=0.5, but the run in {workdir} has 0.002: restore the value, "
            "or choose another --workdir",
        ),
        (
            {"train__num_train_steps": 20},
            "train.num_train_steps=20, but the run in {workdir} is already at step 60: raise it, "
            "or choose another --workdir",
        ),
    ],
)
def test_a_workdir_with_another_run_is_refused(overrides, message, corpus_path, undisturbed):
    before = rows_without_times(undisturbed)
    fields = {"train__num_train_steps": NUM_STEPS} | overrides
    result = run(command(corpus_path, undisturbed, **fields))
    assert result.returncode == 2
    assert result.stderr == f"error: {message.format(workdir=undisturbed)}\n"
    assert rows_without_times(undisturbed) == before


def test_another_corpus_is_refused_with_both_fingerprints(undisturbed, corpus_path, tmp_path):
    from small_run import generated_text

    from electra_jax.data import Corpus, prepare_corpus

    (tmp_path / "text.txt").write_text(generated_text(100, seed=1))
    other = prepare_corpus(
        [tmp_path / "text.txt"],
        tmp_path / "corpus",
        train_tokenizer="wordpiece",
        vocab_size=200,
        validation_fraction=0.1,
    )
    result = run(command(other.path, undisturbed, train__num_train_steps=NUM_STEPS))
    prints = other.fingerprint[:12], Corpus.open(corpus_path).fingerprint[:12]
    assert result.returncode == 2
    assert all(fingerprint in result.stderr for fingerprint in prints)
    assert result.stderr.startswith("error: data.path: ") and result.stderr.count("\n") == 1
