"""The experiment: its parts, and all of it on text and tasks of a few lines."""

import importlib.util
import json
import sys

import pytest
from small_run import ROOT, environment, generated_text, run

from benchmarks.squad_subset import some_questions
from electra_jax.sweep import flops_of_run, planned

EXPERIMENT = ROOT / "experiments" / "small_wikipedia"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_all_pretrainings_cost_the_same(scale):
    config = load("config").get_config(scale)
    stages = planned(config)
    assert list(stages) == list(config.runs)
    (mlm,) = stages["mlm"].values()
    for parts in stages.values():
        assert sum(map(flops_of_run, parts.values())) == pytest.approx(flops_of_run(mlm), rel=1e-3)
    assert all(
        probe.num_trials == 3 and probe.task == name for name, probe in config.probes.items()
    )
    with pytest.raises(ValueError, match="'tpu' is unknown: use one of cpu, paper"):
        load("config").get_config("tpu")


def test_a_row_or_a_task_that_there_is_not_is_refused_or_seen():
    for scale, name in (("paper", "electra_after_mlm"), ("cpu", "bert")):
        words = [sys.executable, EXPERIMENT / "run.py", "--text", "t", "--data", "d"]
        result = run([*map(str, words), f"--scale={scale}", f"--only={name}"], env=environment())
        assert result.returncode == 2 and f"--only={name}: use one of electra, " in result.stderr
    assert set(load("run").DIRECTORIES) == set(load("config").TASKS)


def test_the_paper_s_scale_is_the_paper_s():
    config = load("config").get_config("paper")
    base = config.base
    assert base.train.num_train_steps * base.train.batch_size * base.data.seq_len == 1_024_000_000
    assert base.model.hidden_size == 256 and base.model.architecture == "bert"
    assert config.probes.rte.learning_rate is None and config.probes.rte.num_epochs is None


def test_the_committed_curves_are_drawn(tmp_path):
    load("picture").main(str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_questions_are_taken_evenly():
    squad = {
        "version": "1.1",
        "data": [
            {
                "title": str(a),
                "paragraphs": [{"context": f"{a}", "qas": [{"id": 5 * a + q} for q in range(5)]}],
            }
            for a in range(4)
        ],
    }
    chosen = some_questions(squad, 8)
    paragraphs = [article["paragraphs"][0] for article in chosen["data"]]
    assert [p["qas"][0]["id"] for p in paragraphs] == [0, 2, 5, 7, 10, 12, 15, 17]
    assert [p["context"] for p in paragraphs] == list("00112233")
    assert some_questions(squad, 100)["data"][-1]["title"] == "3"


@pytest.mark.slow
def test_it_runs_from_text_to_table(tmp_path):
    (tmp_path / "text.txt").write_text(generated_text(120, seed=0))
    (tmp_path / "data" / "glue" / "CoLA").mkdir(parents=True)
    rows = "".join(f"s\t{n % 2}\t\tba bera kin\n" for n in range(8))
    for split in ("train", "dev"):
        (tmp_path / "data" / "glue" / "CoLA" / f"{split}.tsv").write_text(rows)
    fields = {
        "base.train.num_train_steps": 4,
        "base.optimizer.warmup_steps": 0,
        "base.train.checkpoint_every": 4,
        "base.model.hidden_size": 32,
        "probes.cola.num_epochs": 1.0,
        "probes.cola.data.train_rows": 4,
    }
    words = [sys.executable, EXPERIMENT / "run.py", "--text", tmp_path / "*.txt"]
    words += ["--data", tmp_path / "data", "--workdir", tmp_path / "out", "--"]
    words += [f"--config.{name}={value}" for name, value in fields.items()]
    result = run([*map(str, words)], env=environment() | {"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "out" / "sweep" / "results.json").read_text())
    runs = ["electra", "electra_after_mlm", "mlm"]
    assert [row["name"] for row in results] == [*runs, "scratch"]
    assert all(len(row["probes"]["cola"]) == 3 for row in results)
    table = (tmp_path / "out" / "sweep" / "table.md").read_text()
    assert "| scratch | 1 | 0 | 0.0 |" in table
    assert (tmp_path / "out" / "report.html").is_file()
    assert {path.name for path in (tmp_path / "out" / "curves").iterdir()} == {
        f"{name}-0-pretraining.csv" for name in runs
    }
