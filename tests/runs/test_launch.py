"""The files that start runs: what of them can be seen without a cluster."""

import signal
import subprocess

import pytest
import yaml
from small_run import ROOT

LAUNCH = ROOT / "launch"


@pytest.mark.parametrize("path", sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")]))
def test_scripts_are_bash(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    if path.suffix == ".sh":
        assert path.stat().st_mode & 0o111


def test_the_manifest_starts_as_many_processes_as_it_says():
    manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (command,) = spec["template"]["spec"]["containers"][0]["args"]
    assert f"--config.parallel.num_processes={spec['completions']}" in command
    assert spec["parallelism"] == spec["completions"]
    first = f"{manifest['metadata']['name']}-{job['name']}-0-0.{manifest['metadata']['name']}"
    assert f"--config.parallel.coordinator_address={first}:8476" in command


def test_what_was_stopped_with_work_left_is_to_be_tried_again(tmp_path):
    script = [str(LAUNCH / "until_finished.sh"), str(tmp_path), "100"]
    assert subprocess.run([*script, "false"]).returncode == 1
    assert subprocess.run([*script, "true"]).returncode == 75
    stopped = "trap 'exit 0' TERM; echo ready; sleep 60 & wait"
    command = [*script, "bash", "-c", stopped]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 75
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    assert subprocess.run([*script, "true"]).returncode == 0


def test_the_table_names_every_file():
    named = (LAUNCH / "README.md").read_text()
    assert all(f"`{path.name}`" in named for path in LAUNCH.iterdir() if path.suffix != ".md")
