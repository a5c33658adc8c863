"""The commands and code of docs/, run as they stand, page after page, in one directory.

Only sizes are made small: what a training reads, how long it is, how many pieces a vocabulary has.
"""

import re
import shlex
import shutil
import sys

import pytest
from documented import PAGES, ROOT, blocks, commands
from small_run import SHORTENED, environment, generated_text, run

pytestmark = pytest.mark.slow

# In the order in which a reader would come by; later ones use what earlier ones have made.
ORDER = (
    "corpus",
    "language",
    "diagnosis",
    "experiments",
    "using",
    "finetuning",
    "domain",
    "modern",
    "objectives",
)
# Placeholders, and what costs hours.
SMALLER = {
    "--vocab-size 32000": "--vocab-size 150",
    "num_trials=5": "num_trials=1",
    "num_train_steps=50_000": "num_train_steps=2",
    "=runs/small_wikipedia/corpus": "=corpora/mine",
    "=DIR": "=corpora/mine",
    " MODEL": " runs/mine",
}
FINE_TUNING = " --config.num_epochs=1 --config.data.num_lengths=1 --config.data.max_length=16"
# Beginnings of commands that are not run here, and why.
ELSEWHERE = {
    "python benchmarks/": "minutes each: figures, not behaviour",
    "python experiments/": "an hour; its parts: test_sweep.py, test_experiment.py",
    "python sweep.py": "test_sweep.py",
    "electra-jax prepare wiki": "text that is not here",
    "electra-jax prepare gs://": "a cloud's",
    "electra-jax prepare INPUT": "a pattern, not a command",
    "electra-jax serve": "test_readme.py, test_service.py",
    "python finetune.py --config=configs/finetune.py:TASK": "a pattern, not a command",
    "python finetune.py --config=configs/finetune.py:squad": "half an hour, of a model not here",
}


def small(command: str) -> list[str]:
    for before, after in SMALLER.items():
        command = command.replace(before, after)
    command += SHORTENED if command.startswith("python train.py") else ""
    command += FINE_TUNING if command.startswith("python finetune.py") else ""
    words = shlex.split(command)
    if words[0] == "electra-jax":
        return [sys.executable, "-m", "electra_jax.cli", *words[1:]]
    return [sys.executable, *words[1:]]


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Runs a command in a directory that has what the pages take for granted."""
    directory = tmp_path_factory.mktemp("docs")
    variables = environment() | {"PYTHONPATH": str(ROOT)}

    def call(command):
        words = []
        for word in small(command):
            if word.endswith("*.txt"):  # as a shell would
                words += [str(p.relative_to(directory)) for p in sorted(directory.glob(word))]
            else:
                words.append(word)
        result = run(words, env=variables, cwd=directory)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        return result.stdout

    for name in ("configs", "experiments", "train.py", "finetune.py", "sweep.py"):
        (directory / name).symlink_to(ROOT / name)
    for seed in range(3):
        for place in ("texts", "openwebtext"):
            (directory / place).mkdir(exist_ok=True)
            (directory / place / f"{seed}.txt").write_text(generated_text(60, seed=seed))
    (directory / "texts.txt").write_text("ba bera\n\nkin\n")
    (directory / "lists.jsonl").write_text('{"texts": ["ba", "kin"], "scores": [1.0, 2.0]}\n')
    (directory / "new.csv").write_text("text\nba bera\n")
    for name in ("mine", "reviews"):
        (directory / "data" / name).mkdir(parents=True)
        for split in ("train", "dev"):
            rows = "\n".join(f"ba bera kin,{'ab'[n % 2]}" for n in range(8))
            (directory / "data" / name / f"{split}.csv").write_text(f"text,label\n{rows}\n")
    # A vocabulary, a published model, a run to compare with, and one that scores.
    call(
        "electra-jax prepare texts --output corpora/pieces --train-tokenizer wordpiece "
        "--vocab-size 150"
    )
    shutil.copy(directory / "corpora" / "pieces" / "vocab.txt", directory / "vocab.txt")
    of_pieces = "python train.py --config=configs/small.py --config.data.path=corpora/pieces"
    call(f"{of_pieces} --workdir=runs/other")
    call(f"{of_pieces} --workdir=runs/electric --config.objective.name=electric")
    call("electra-jax convert to-hf runs/other hf/electra")
    call("electra-jax report runs/other --output other.html --write-csv curves")
    return call


@pytest.mark.parametrize("page", ORDER)
def test_the_commands_of_a_page_run(call, page):
    (path,) = [path for path in PAGES if path.stem == page]
    for command in commands(path):
        if not command.startswith(tuple(ELSEWHERE)):
            call(command)


def test_the_code_of_the_pages_runs(call):
    for page in ("corpus", "using"):
        (path,) = [path for path in PAGES if path.stem == page]
        for code in blocks(path, "python"):
            code = code.replace('"MODEL"', '"runs/other"')
            call(f"python -c {shlex.quote(code)}")


def test_no_page_is_forgotten():
    forgotten = {
        path.stem: command
        for path in PAGES
        for command in commands(path)
        if path.stem not in ORDER and not command.startswith(tuple(ELSEWHERE))
    }
    assert not forgotten
    code = {path.stem for path in PAGES if blocks(path, "python")}
    assert code == {"corpus", "using", "objectives", "research"}  # the last: test_readme.py
    assert not re.search(r"\bTODO\b", "".join(path.read_text("utf-8") for path in PAGES))
