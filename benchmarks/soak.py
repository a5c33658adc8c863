"""A training under kills, preemptions, damaged checkpoints and changes of devices and processes.

python benchmarks/soak.py CORPUS [--steps 2000] [--interval STEPS] [--seed 0] [--workdir DIR]
                          [--minutes 60]

Trains a small model three times: undisturbed; disturbed on the same devices, which must end with
the same parameters and the same logged rows, bit for bit; and disturbed with other devices and
processes at every start, which must log the same losses to rounding. Faults and moments follow from
the seed (and from how fast the machine is). Prints what was injected and what came of it; the exit
status is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from electra_jax.checkpoint import load_params
from electra_jax.writers import TIMES, read_rows

ROOT = Path(__file__).parents[1]
SMALL = {
    "model.hidden_size": 32,
    "model.num_heads": 2,
    "model.embedding_size": 16,
    "model.num_layers": 1,
    "data.seq_len": 16,
    "train.batch_size": 8,
    "train.log_every": 10,
    "train.eval_every": 100,
    "train.eval_batches": 2,
    "train.checkpoint_every": 50,
    "train.keep_checkpoints": 3,
    "logging.tensorboard": False,
    "parallel.heartbeat_seconds": 10,
}
# (processes, devices of each, other fields)
TOPOLOGIES = (
    (1, 1, {}),
    (1, 2, {}),
    (1, 4, {"parallel.fsdp": True}),
    (1, 2, {"parallel.backend": "pmap"}),
    (1, 1, {"train.num_microbatches": 4}),
    (2, 1, {}),
    (2, 2, {"parallel.fsdp": True}),
)


class Run:
    """One start of `train.py`, in one process or several."""

    def __init__(self, arguments: argparse.Namespace, workdir: Path, topology):
        count, devices, fields = topology
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        fields = SMALL | {"data.path": arguments.corpus, "train.num_train_steps": arguments.steps}
        fields |= topology[2]
        self._processes = []
        for number in range(count):
            one = dict(fields)
            if count > 1:
                one |= {
                    "parallel.coordinator_address": address,
                    "parallel.num_processes": count,
                    "parallel.process_id": number,
                }
            command = [sys.executable, str(ROOT / "train.py"), f"--workdir={workdir}"]
            command += [f"--config={ROOT / 'configs' / 'tiny.py'}"]
            command += [f"--config.{name}={value}" for name, value in one.items()]
            environment = os.environ | {
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "XLA_FLAGS": "--xla_backend_optimization_level=1",
            }
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

    def is_over(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    def signal(self, number: int, which: int) -> None:
        self._processes[number % len(self._processes)].send_signal(which)

    def wait(self) -> tuple[list[int], str]:
        """Exit statuses, and what was printed."""
        outputs = [process.communicate(timeout=300)[0] for process in self._processes]
        return [process.returncode for process in self._processes], "\n".join(outputs)


def last_step(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    rows = read_rows(path) if path.exists() else []
    return rows[-1]["step"] if rows else 0


def harm(workdir: Path, rng: random.Random) -> bool:
    """Flips a bit of a file of the newest checkpoint, if there is one before it."""
    steps = sorted(
        int(p.name) for p in (workdir / "checkpoints").glob("[0-9]*") if p.name.isdigit()
    )
    if len(steps) < 2:
        return False
    newest = workdir / "checkpoints" / str(steps[-1])
    files = sorted(path for path in newest.rglob("d/*") if path.stat().st_size)
    path = rng.choice(files)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return True


def disturb(arguments, workdir: Path, topologies, rng: random.Random, until: float) -> Counter:
    """Starts a run again and again until it is finished; counts what was done to it."""
    done: Counter = Counter()
    while True:
        run = Run(arguments, workdir, rng.choice(topologies))
        done["starts"] += 1
        fault = rng.choice(("kill", "kill", "preemption", "damage"))
        wanted = last_step(workdir) + rng.randrange(1, arguments.interval)
        calm = time.monotonic() > until or wanted > arguments.steps - 20
        while not run.is_over() and (calm or last_step(workdir) < wanted):
            time.sleep(0.02)
        if not run.is_over():
            time.sleep(rng.random() * 0.2)
            run.signal(
                rng.randrange(4), signal.SIGTERM if fault == "preemption" else signal.SIGKILL
            )
            done["preemptions" if fault == "preemption" else "kills"] += 1
        statuses, output = run.wait()
        if "is damaged (" in output:
            done["damages noticed"] += output.count("is damaged (")
        if all(status == 0 for status in statuses) and "stopped:" not in output:
            return done
        if any(status == 2 for status in statuses) and "do not find each other" not in output:
            raise SystemExit(f"a run refused to go on:\n{output}")
        if fault == "damage" and harm(workdir, rng):
            done["damages"] += 1


def rows_of(workdir: Path) -> list[dict]:
    rows = read_rows(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="a corpus of `electra-jax prepare`")
    parser.add_argument("--steps", type=int, default=2000, help="of each training")
    parser.add_argument("--interval", type=int, help="most steps from a start to a fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nothing is done")
    parser.add_argument("--workdir", help="where the runs are kept")
    parser.add_argument("--output", help="a file to append a JSON line to")
    arguments = parser.parse_args(argv)
    arguments.interval = arguments.interval or max(2, arguments.steps // 12)
    began, rng = time.monotonic(), random.Random(arguments.seed)
    root = Path(arguments.workdir or tempfile.mkdtemp())

    statuses, output = Run(arguments, root / "undisturbed", TOPOLOGIES[0]).wait()
    if statuses != [0]:
        raise SystemExit(output)
    expected, expected_rows = load_params(root / "undisturbed")[0], rows_of(root / "undisturbed")

    def half(share: float) -> float:
        return began + 60 * arguments.minutes * share

    same = disturb(arguments, root / "same", TOPOLOGIES[:1], rng, half(0.5))
    other = disturb(arguments, root / "other", TOPOLOGIES, rng, half(1.0))
    import jax

    equal = jax.tree.map(np.array_equal, load_params(root / "same")[0], expected)
    bitwise = all(jax.tree.leaves(equal)) and rows_of(root / "same") == expected_rows
    found = rows_of(root / "other")
    each_once = [row["step"] for row in found] == [row["step"] for row in expected_rows]
    differences = [
        abs(row["loss"] / wanted["loss"] - 1)
        for row, wanted in zip(found, expected_rows, strict=each_once)
    ]
    result = {
        "steps": arguments.steps,
        "seed": arguments.seed,
        "same_devices": dict(same),
        "other_devices": dict(other),
        "same_devices_bitwise_equal": bitwise,
        "steps_lost": 0 if bitwise and each_once else "some",
        "other_devices_largest_relative_difference_of_a_loss": max(differences),
        "minutes": (time.monotonic() - began) / 60,
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        with open(arguments.output, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
    return 0 if bitwise and each_once and max(differences) < 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
