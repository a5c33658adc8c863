"""The README's code and commands do what it says."""

import json
import re
import shlex
import subprocess
import sys
import urllib.request

import pytest
from documented import blocks
from small_run import ROOT, SHORTENED, environment, generated_text, run

PAGE = ROOT / "README.md"
README = PAGE.read_text(encoding="utf-8")


def test_the_library_example_runs_as_it_stands(tmp_path):
    """And what docs/research.md adds to it."""
    (example,) = blocks(PAGE, "python")
    (more,) = blocks(ROOT / "docs" / "research.md", "python")
    variables = environment() | {"XDG_CACHE_HOME": str(tmp_path)}
    result = run([sys.executable, "-c", example + more], env=variables, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    loss, *shown = result.stdout.splitlines()[-3:]
    assert 20 < float(loss) < 60
    assert shown == ["(8, 32, 256)", "(4,)"]


def commands_of(beginning: str) -> list[list[str]]:
    """The words of each command of the block that begins so; training only shortened."""
    (block,) = [block for block in blocks(PAGE, "") if block.startswith(beginning)]
    commands = []
    for command in block.strip().splitlines():
        command = command.replace(".venv/bin/electra-jax", f"{sys.executable} -m electra_jax.cli")
        if "train.py" in command:
            command = command.replace(
                ".venv/bin/python train.py", f"{sys.executable} {ROOT}/train.py"
            )
            command = re.sub(r"=(configs|experiments)/", rf"={ROOT}/\1/", command) + SHORTENED
        commands.append(shlex.split(command))
    return commands


def test_the_commands_for_your_own_text_and_the_model_run_as_they_stand(tmp_path):
    (tmp_path / "texts").mkdir()
    for seed in range(3):
        (tmp_path / "texts" / f"{seed}.txt").write_text(generated_text(60, seed=seed))
    (tmp_path / "texts.txt").write_text("ba bera\n\nkin\n")
    variables = environment() | {"PYTHONPATH": str(ROOT)}

    def run_all(beginning):
        printed = []
        for command in commands_of(beginning):
            arguments = [
                str(path)
                for word in command
                for path in (sorted(tmp_path.glob(word)) if "*" in word else [word])
            ]
            result = run(arguments, env=variables, cwd=tmp_path)
            assert result.returncode == 0, result.stderr
            printed.append(result.stdout)
        return printed

    for name in ("mine", "mine_small"):
        run_all(f".venv/bin/electra-jax prepare texts/*.txt --output corpora/{name} --train")
        assert (tmp_path / "runs" / name / "checkpoints" / "2").is_dir()
    inspect = [sys.executable, "-m", "electra_jax.cli", "inspect", "corpora/mine"]
    result = run(inspect, env=variables, cwd=tmp_path)
    assert result.returncode == 0 and "all checksums are right" in result.stdout

    detected, filled, embedded, *_ = run_all(".venv/bin/electra-jax detect")
    assert len(detected.splitlines()) == 2 * (len(detected.splitlines()) // 2) > 0
    assert json.loads(filled)[0][0]["probability"] > 0
    assert embedded == "3 texts: vectors.npy\n"
    assert (tmp_path / "hf" / "mine" / "generator" / "model.safetensors").is_file()

    _install, serve = commands_of(".venv/bin/pip install -e")
    with subprocess.Popen(
        [*serve, "--port", "0"], env=variables, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        # Answers are given once the server has taken over the signals.
        with urllib.request.urlopen(url.split()[0], timeout=60) as page:
            assert page.status == 200
        process.terminate()
        assert process.wait(30) == 0

    (tmp_path / "runs" / "mine").rename(tmp_path / "runs" / "before")
    *_, trained = run_all(".venv/bin/electra-jax prepare texts/*.txt --output corpora/domain")
    assert "Starting from hf/mine." in trained


@pytest.mark.slow
def test_the_commands_of_other_objectives_run_as_they_stand(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "0.txt").write_text(generated_text(120, seed=0))
    variables = environment() | {"PYTHONPATH": str(ROOT)}
    first, *_ = commands_of(
        ".venv/bin/electra-jax prepare texts/*.txt --output corpora/mine --train"
    )
    first = [w for word in first for w in ([str(tmp_path / "texts")] if "*" in word else [word])]
    others = commands_of(
        ".venv/bin/python train.py --config=configs/small.py --config.objective.name=mlm"
    )
    for command in (first, *others):
        result = run(command, env=variables, cwd=tmp_path)
        assert result.returncode == 0, result.stderr


def test_every_file_it_links_to_exists():
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / target).exists(), target


def test_its_table_holds_the_numbers_of_the_configs():
    import importlib

    import jax
    import jax.numpy as jnp

    from electra_jax import Electra, run_config

    rows = re.findall(
        r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| (\d+) \| (\d+) \| ([\dkM,]+) \|$", README, re.M
    )
    assert {row[0] for row in rows} == {
        path.stem
        for path in (ROOT / "configs").glob("*.py")
        if path.stem not in ("common", "finetune")
    }
    for name, encoder, everything, seq_len, batch_size, steps in rows:
        config = importlib.import_module(f"configs.{name}").get_config()
        vocab_size = config.data.default_vocab_size if name == "tiny" else 30522
        model = Electra(run_config.model_config(config, "cpu", vocab_size=vocab_size))
        ids = jax.ShapeDtypeStruct((1, 8), jnp.int32)
        params = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
        count = lambda tree: f"{sum(x.size for x in jax.tree.leaves(tree)):,}"  # noqa: E731
        assert encoder == count((params["embeddings"], params["encoder"]))
        assert everything == count(params)
        assert (int(seq_len), int(batch_size)) == (config.data.seq_len, config.train.batch_size)
        number = int(steps.replace(",", "").replace("k", "000").replace("M", "000000"))
        assert number == config.train.num_train_steps


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"@\w+@|TODO|TBD", README)
