"""From raw text to the table: corpus, pre-trainings at equal cost, fine-tuning on eight tasks.

python experiments/small_wikipedia/run.py --text 'DIR/*.txt.xz' --data DIR [--workdir DIR]
  [--scale cpu|paper] [--only RUN] [-- --config.FIELD=VALUE ...]

--data holds glue/CoLA, SST-2, MRPC, STS-B, RTE and QNLI as GLUE has them, squad/ with
train-v1.1.json and dev-v1.1.json, conll2000/ with train.txt; tasks that are not there are left out.
Every command is printed before it runs, and what is finished is not done again.
"""

from __future__ import annotations

import argparse
import glob
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
from experiments.small_wikipedia import config as sweep_config  # noqa: E402

VOCAB_SIZES = {"cpu": 4096, "paper": 30522}
# Questions of SQuAD at the scale of a CPU.
QUESTIONS = ("--train", 2000, "--dev", 1000)
DIRECTORIES = {
    "cola": "glue/CoLA",
    "sst2": "glue/SST-2",
    "mrpc": "glue/MRPC",
    "stsb": "glue/STS-B",
    "rte": "glue/RTE",
    "qnli": "glue/QNLI",
    "squad": "squad",
    "chunking": "conll2000",
}


def main() -> int:
    """Runs what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", nargs="+", required=True, help="files of text, or globs of them")
    parser.add_argument("--data", type=Path, required=True, help="directory of the tasks")
    parser.add_argument("--workdir", type=Path, default=Path("runs/small_wikipedia"))
    parser.add_argument("--scale", choices=sweep_config.SCALES, default="cpu")
    parser.add_argument("--only", metavar="RUN", help="one row, to run them apart")
    parser.add_argument("fields", nargs="*", help="fields of the sweep, after --")
    arguments = parser.parse_args()
    runs = tuple(sweep_config.get_config(arguments.scale).runs)
    if arguments.only and arguments.only not in runs:
        parser.error(f"--only={arguments.only}: use one of {', '.join(runs)}")
    corpus, sweep = arguments.workdir / "corpus", arguments.workdir / "sweep"
    files = [file for pattern in arguments.text for file in sorted(glob.glob(pattern)) or [pattern]]
    call(
        *("-m", "electra_jax.cli", "prepare", *files),
        *("--output", corpus),
        *("--train-tokenizer", "wordpiece", "--tokenizer-sample-mb", 30),
        *("--vocab-size", VOCAB_SIZES[arguments.scale]),
    )
    directories = task_directories(arguments.data, arguments.workdir / "data", arguments.scale)
    call(
        ROOT / "sweep.py",
        f"--config={HERE / 'config.py'}:{arguments.scale}",
        f"--config.base.data.path={corpus}",
        *(f"--config.probes.{task}.data_dir={path}" for task, path in directories.items()),
        *(
            [f"--config.only=({arguments.only!r},)", "--config.scratch=False"]
            if arguments.only
            else []
        ),
        *arguments.fields,
        f"--workdir={sweep}",
    )
    if not arguments.only:
        patterns = [f"{name}/*/pretraining/curves.png" for name in runs]
        trained = [file.parent for pattern in patterns for file in sorted(sweep.glob(pattern))]
        page = arguments.workdir / "report.html"
        tables = ("--output", page, "--write-csv", arguments.workdir / "curves")
        call("-m", "electra_jax.cli", "report", *trained, *tables)
    return 0


def call(*words: Any) -> None:
    """Runs Python with a program of the repository; its failure is ours."""
    command = [sys.executable, *map(str, words)]
    print("\n$", shlex.join(["python", *command[1:]]), flush=True)
    status = subprocess.run(command).returncode
    if status:
        sys.exit(status)


def task_directories(data: Path, workdir: Path, scale: str) -> dict[str, Path]:
    """Where each task is; SQuAD at the scale of a CPU in a smaller copy."""
    found = {task: data / name for task, name in DIRECTORIES.items() if (data / name).is_dir()}
    if scale == "cpu" and "squad" in found:
        smaller = workdir / "squad"
        call(ROOT / "benchmarks" / "squad_subset.py", found["squad"], smaller, *QUESTIONS)
        found["squad"] = smaller
    return found


if __name__ == "__main__":
    sys.exit(main())
