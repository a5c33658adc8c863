"""Faults that really happen to a run of one process: none costs it its data or its meaning."""

import importlib
import shutil
import signal
import subprocess

import jax
import jax.numpy as jnp
import pytest
from small_run import NUM_STEPS, SMALL_RUN, command, environment, run
from test_resume import assert_same_run, last_step, wait_for

from electra_jax import parallel, pretraining
from electra_jax.checkpoint import damage, load_params, set_damaged_aside
from electra_jax.errors import UserError
from electra_jax.objectives import ElectraObjective
from electra_jax.writers import read_rows


@pytest.fixture
def copied(undisturbed, tmp_path):
    """A finished run, to be changed."""
    shutil.copytree(undisturbed, tmp_path / "run")
    return tmp_path / "run"


def largest_file(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def remove(path):
    path.unlink()


def test_sigterm_saves_ends_well_and_goes_on_bitwise(corpus_path, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    arguments = command(corpus_path, workdir, train__num_train_steps=NUM_STEPS)
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: last_step(workdir / "metrics.jsonl") >= 12, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    stopped = output.splitlines()[-1]
    assert stopped.startswith("stopped: asked to stop after step "), output
    assert stopped.endswith("which is saved; the same command goes on from there")
    step = int(stopped.split("step ")[1].split(",")[0])
    assert step < NUM_STEPS and load_params(workdir, step)[1]["window"] != {} or step % 3 == 0
    result = run(arguments)
    assert result.returncode == 0, result.stderr
    assert f"resuming at step {step}" in result.stdout
    assert_same_run(workdir, undisturbed)


@pytest.mark.parametrize("harm", [flip, truncate, remove])
def test_every_harm_to_a_checkpoint_is_noticed(copied, harm):
    newest = copied / "checkpoints" / str(NUM_STEPS)
    assert damage(newest) is None
    assert set_damaged_aside(copied / "checkpoints") == []
    harm(largest_file(newest))
    (line,) = set_damaged_aside(copied / "checkpoints")
    aside = copied / "damaged" / f"{NUM_STEPS}-0"
    assert line.startswith(f"The checkpoint of step {NUM_STEPS} is damaged (")
    assert line.endswith(f"): moved to {aside}.") and aside.is_dir() and not newest.exists()


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "checksums.json"])
def test_a_checkpoint_without_its_label_is_damaged(copied, name):
    """One without checksums is of an earlier version: nothing is known against it."""
    newest = copied / "checkpoints" / str(NUM_STEPS)
    (newest / name).unlink()
    assert damage(newest) == (f"{name} is missing" if name == "_CHECKPOINT_METADATA" else None)


def test_where_all_checkpoints_are_damaged_nothing_begins_anew(corpus_path, copied):
    for checkpoint in (copied / "checkpoints").iterdir():
        flip(largest_file(checkpoint))
    before = sorted(path for path in copied.rglob("*"))
    result = run(command(corpus_path, copied, train__num_train_steps=NUM_STEPS))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "is whole (of step 60, " in result.stderr and "bring one back" in result.stderr
    assert sorted(path for path in copied.rglob("*") if path.name != ".lock") == [
        path for path in before if path.name != ".lock"
    ]


def test_a_damaged_checkpoint_is_said_and_gone_behind_whatever_the_clock_says(
    corpus_path, copied, undisturbed, tmp_path
):
    """The clock is ten years back, and the machine has another name."""
    flip(largest_file(copied / "checkpoints" / str(NUM_STEPS)))
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed" / "sitecustomize.py").write_text(
        "import os, platform, socket, time\n"
        "now = time.time\n"
        "time.time = lambda: now() - 315_360_000\n"
        "socket.gethostname = platform.node = lambda: 'elsewhere'\n"
    )
    result = run(
        command(corpus_path, copied, train__num_train_steps=NUM_STEPS),
        env=environment() | {"PYTHONPATH": str(tmp_path / "changed")},
    )
    assert result.returncode == 0, result.stderr
    assert "The checkpoint of step 60 is damaged (" in result.stdout
    assert f"resuming at step {NUM_STEPS - 5}" in result.stdout
    assert "elsewhere" in (copied / ".lock").read_text()
    assert_same_run(copied, undisturbed)


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(
    corpus_path, copied, undisturbed
):
    """No file may grow past 30 kB: the system refuses what a save writes."""
    for step in (NUM_STEPS, NUM_STEPS - 5):
        shutil.rmtree(copied / "checkpoints" / str(step))
    arguments = command(corpus_path, copied, train__num_train_steps=NUM_STEPS)
    result = run(["bash", "-c", 'ulimit -f 30; exec "$@"', "limited", *arguments])
    assert result.returncode == 2, result.stdout + result.stderr
    # Orbax may leave behind a coroutine, of which Python says something more at its end.
    (last,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert last.startswith(f"error: a checkpoint cannot be written to {copied}/checkpoints (")
    assert "File too large" in last and last.endswith("the same command goes on from it")
    assert [path.name for path in (copied / "checkpoints").glob("[0-9]*[0-9]")] == ["50"]
    assert damage(copied / "checkpoints" / "50") is None
    result = run(arguments)
    assert result.returncode == 0, result.stderr
    assert_same_run(copied, undisturbed)


def test_a_run_keeps_a_second_one_off_and_ends_when_its_corpus_changes(corpus_path, tmp_path):
    corpus, workdir = tmp_path / "corpus", tmp_path / "run"
    shutil.copytree(corpus_path, corpus)
    process = subprocess.Popen(
        command(corpus, workdir, train__num_train_steps=100_000),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: last_step(workdir / "metrics.jsonl") >= 6, process)
    second = run(command(corpus, workdir, train__num_train_steps=100_000))
    assert second.returncode == 2 and second.stderr.count("\n") == 1, second.stderr
    assert second.stderr.startswith(
        f"error: --workdir={workdir} is in use by process {process.pid} on "
    )
    shard = next(corpus.glob("train-*.tokens.npy"))
    with shard.open("r+b") as file:
        file.seek(-2, 2)
        last = file.read(1)
        file.seek(-2, 2)
        file.write(last)  # even by itself
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 2, error
    assert error.splitlines()[-1].startswith(f"error: {shard} has changed since this run began")


@pytest.fixture
def config(corpus_path):
    """Of a run of 12 steps in this process, on its eight devices."""
    config = importlib.import_module("configs.tiny").get_config()
    numbers = {"data.path": str(corpus_path), "train.num_train_steps": 12, "train.log_every": 1}
    config.update_from_flattened_dict(SMALL_RUN | numbers)
    return config


@pytest.fixture
def poisoned(monkeypatch):
    """The losses of batches 7 and 9 (rows 48 to 55 and 64 to 71, from 0) are not numbers."""
    loss = ElectraObjective.loss

    def changed(self, params, inputs, key, **kwargs):
        value, sums = loss(self, params, inputs, key, **kwargs)
        harm = jnp.where(
            jnp.isin(inputs.row_ids, jnp.array([50, 66])).any()
            & (not kwargs.get("deterministic", False)),
            jnp.nan,
            0,
        )
        return value + harm, sums

    monkeypatch.setattr(ElectraObjective, "loss", changed)


def test_a_loss_that_is_no_number_rolls_back_and_passes_over_the_batches(
    config, poisoned, tmp_path, capsys
):
    config.train.on_nonfinite = "rollback"
    state = pretraining.train_and_evaluate(config, tmp_path / "run")
    assert int(state.step) == 12
    printed = capsys.readouterr().out
    # Batches 6 and 7 are passed over, then 8 and 9, which come in their places.
    line = "at step 7 is not finite: going on from step 5, without the 2 batches since"
    assert printed.count(line) == 2
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if row["split"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert not any(row["skipped_steps"] for row in rows)
    _, metadata = load_params(tmp_path / "run")
    assert metadata["skipped_batches"] == 4
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


def test_rollbacks_are_not_endless_and_stopping_is_the_default(config, poisoned, tmp_path):
    config.train.on_nonfinite = "rollback"
    config.train.max_rollbacks = 0
    with pytest.raises(FloatingPointError, match="step 7: the loss or its gradient is not finite"):
        pretraining.train_and_evaluate(config, tmp_path / "run")
    assert load_params(tmp_path / "run", 5)[1]["skipped_batches"] == 0  # the last good state


def test_what_cannot_fit_is_refused_before_it_is_tried(config, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "memory_of_a_device", lambda mesh: 1 << 17)
    with pytest.raises(UserError, match=r"needs \d+ MiB on each device .* which has 0: lower"):
        pretraining.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
