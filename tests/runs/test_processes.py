"""Several processes on one machine, on JAX's own distributed runtime: one run, whatever happens."""

import os
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from small_run import NUM_STEPS, command, environment, free_port
from test_resume import assert_same_run, last_step, rows_without_times, wait_for

from electra_jax import parallel, processes
from electra_jax.errors import UserError


class Job:
    """`train.py` in several processes, of one device each unless `devices` says else."""

    def __init__(self, corpus_path, workdir, count, devices=1, **overrides):
        port, self.outputs = free_port(), []
        self.processes = []
        for number in range(count):
            fields = {"train__num_train_steps": NUM_STEPS, "parallel__heartbeat_seconds": 10}
            if count > 1:
                fields |= {
                    "parallel__coordinator_address": f"127.0.0.1:{port}",
                    "parallel__num_processes": count,
                    "parallel__process_id": number,
                }
            path = workdir.parent / f"{workdir.name}-{port}-{number}.txt"
            self.outputs.append(path)
            with path.open("w") as output:
                self.processes.append(
                    subprocess.Popen(
                        command(corpus_path, workdir, **fields | overrides),
                        env=environment() | {"JAX_NUM_CPU_DEVICES": str(devices)},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def wait(self, seconds=240):
        """Exit statuses, and everything printed, of each."""
        end = time.monotonic() + seconds
        try:
            statuses = [p.wait(max(0.1, end - time.monotonic())) for p in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return statuses, [path.read_text() for path in self.outputs]


@pytest.fixture(scope="module")
def undisturbed_pair(corpus_path, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two") / "run"
    statuses, outputs = Job(corpus_path, workdir, 2).wait()
    assert statuses == [0, 0], outputs
    assert "2 processes have met." in outputs[0] and "2 x cpu, jit" in outputs[0]
    # One writer of logs.
    assert not [line for line in outputs[1].splitlines() if not line.startswith("[Gloo]")]
    return workdir


def test_two_processes_log_the_losses_of_one(undisturbed, undisturbed_pair):
    for row, expected in zip(
        rows_without_times(undisturbed_pair), rows_without_times(undisturbed), strict=True
    ):
        # Rounding grows with the steps.
        assert row["loss"] == pytest.approx(
            expected["loss"], rel=1e-5 if row["step"] < 10 else 0.02
        )


@pytest.mark.parametrize(
    "faults",
    [["steps"], pytest.param(["steps", "save", "evaluation"], marks=pytest.mark.slow)],
    ids="-".join,
)
def test_a_job_that_loses_processes_ends_and_goes_on_bitwise(
    faults, corpus_path, undisturbed_pair, tmp_path
):
    """In the middle of these; then a notice of preemption."""
    workdir = tmp_path / "run"
    metrics, checkpoints = workdir / "metrics.jsonl", workdir / "checkpoints"

    def saving():
        return list(checkpoints.glob("*orbax-checkpoint-tmp*"))

    moments = {  # which process is killed, and when
        "steps": (1, lambda: last_step(metrics) >= 7),
        "save": (0, lambda: last_step(metrics) >= 13 and saving()),
        "evaluation": (1, lambda: last_step(metrics) >= 27 and last_step(metrics) % 10 >= 7),
    }
    for number, moment in map(moments.get, faults):
        job = Job(corpus_path, workdir, 2)
        wait_for(moment, job.processes[0])
        job.processes[number].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        statuses, outputs = job.wait()
        assert time.monotonic() - killed < 60
        assert statuses[number] == -signal.SIGKILL, outputs
        survivor = 1 - number
        # In a barrier with the coordinator (process 0), JAX itself ends the others.
        reasons = {
            1: f"error: process {survivor} of 2: another process of this run has ended or cannot "
            "be reached",
            -signal.SIGABRT: "another task died",
        }
        assert reasons[statuses[survivor]] in outputs[survivor], (statuses, outputs[survivor])
    # The notice comes between two calls of several steps.
    job = Job(corpus_path, workdir, 2, train__steps_per_call=5)
    wait_for(lambda: last_step(metrics) >= 40, job.processes[0])
    job.processes[1].send_signal(signal.SIGTERM)
    statuses, outputs = job.wait()
    assert statuses == [0, 0], outputs
    for output in outputs:
        assert "stopped: asked to stop after step" in output
        assert "which is saved; the same command goes on from there" in output
    assert "resuming at step" in outputs[0] and last_step(metrics) < NUM_STEPS
    statuses, outputs = Job(corpus_path, workdir, 2).wait()
    assert statuses == [0, 0], outputs
    assert_same_run(workdir, undisturbed_pair)


def test_a_run_goes_on_in_other_processes_on_other_devices_with_a_sharded_state(
    corpus_path, undisturbed, tmp_path
):
    """One process to step 50, four with fsdp to 55, one with two devices and fsdp to the end."""
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    for step, count, devices in ((50, 4, 1), (55, 1, 2)):
        for checkpoint in (workdir / "checkpoints").iterdir():
            if int(checkpoint.name) > step:
                shutil.rmtree(checkpoint)
        job = Job(corpus_path, workdir, count, devices=devices, parallel__fsdp=True)
        statuses, outputs = job.wait()
        assert not any(statuses), outputs
        assert f"resuming at step {step}" in outputs[0]
        assert f"{len(statuses)} processes have met." in outputs[0] or len(statuses) == 1
    for row, expected in zip(
        rows_without_times(workdir), rows_without_times(undisturbed), strict=True
    ):
        assert row["step"] == expected["step"]
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_explicit_arguments_are_checked_before_anything_is_waited_for():
    for arguments, message in (
        (dict(num_processes=2), "give all three, or none"),
        (dict(coordinator_address="here", num_processes=2, process_id=0), "must be host:port"),
        (
            dict(coordinator_address="here:1", num_processes=2, process_id=2),
            "parallel.process_id=2 must lie in [0, 2)",
        ),
    ):
        with pytest.raises(UserError) as error:
            processes.initialize(**arguments)
        assert message in str(error.value)


def test_one_process_needs_nobody():
    assert processes.initialize() == 1
    assert processes.on_main(lambda: [1, {"a": None}]) == [1, {"a": None}]
    processes.agree(None)
    with pytest.raises(UserError, match="a problem"):
        processes.agree("a problem")


def test_sigterm_is_a_request_once():
    with processes.stop_requests() as should_stop:
        assert not should_stop(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop(2)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)


def test_only_losses_of_processes_are_taken_for_such():
    with pytest.raises(ValueError, match="Gloo"), processes.noticing_losses():
        raise ValueError("UNKNOWN: Gloo all-reduce failed")  # of a single process: a bug


def test_batches_of_processes_are_parts_of_the_batch(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    slices = []
    for number in range(4):
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        slices.append(parallel.local_rows(32))
    np.testing.assert_array_equal(
        np.concatenate([np.arange(32)[rows] for rows in slices]), np.arange(32)
    )
