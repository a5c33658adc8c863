"""How long a training takes to its first step: with nothing compiled yet, and after that.

python benchmarks/start.py [--config configs/small.py] [--corpus DIR] [--set train.batch_size=8 ...]

Starts `train.py` twice with a compilation cache of its own and stops it at the first row. Pin the
cores (`taskset -c 0`) to see what one of them takes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/small.py")
    parser.add_argument("--corpus", help="a corpus of `electra-jax prepare`")
    parser.add_argument("--set", nargs="*", default=["train.batch_size=8"], metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    fields = [*arguments.set, "train.log_every=1", "train.num_train_steps=10000"]
    fields += ["logging.tensorboard=False"]
    if arguments.corpus:
        fields.append(f"data.path={Path(arguments.corpus).absolute()}")
    print("| start | to the first step, s | of which compiling, s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for kind in ("cold", "warm"):
            command = [sys.executable, "train.py", f"--config={arguments.config}"]
            command += [f"--workdir={directory}/{kind}"]
            command += [f"--config.{field}" for field in fields]
            variables = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{directory}/cache"}
            began, compiling = time.perf_counter(), "?"
            process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True
            )
            for line in process.stdout:
                if found := re.match(r"Compiled in (\d+) s", line):
                    compiling = found[1]
                if line.startswith("step 1/"):
                    break
            else:
                sys.exit("train.py ended before its first step")
            seconds = time.perf_counter() - began
            process.kill()
            process.wait()
            print(f"| {kind} | {seconds:.1f} | {compiling} |", flush=True)


if __name__ == "__main__":
    main()
