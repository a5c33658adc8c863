"""Five minutes of faults: `benchmarks/soak.py`."""

import json
import subprocess
import sys

import pytest
from small_run import ROOT, environment


@pytest.mark.slow
def test_five_minutes_of_faults_lose_nothing(corpus_path, tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "soak.py", corpus_path, "--steps", "600"]
    command += ["--minutes", "5", "--workdir", tmp_path]
    result = subprocess.run(
        list(map(str, command)),
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert found["same_devices_bitwise_equal"] and found["steps_lost"] == 0
    assert found["same_devices"]["starts"] > 1 and found["other_devices"]["starts"] > 1
