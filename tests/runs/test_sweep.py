"""Pre-trainings compared: equal cost, a table of medians, nothing done twice."""

import json
import sys

import pytest
from small_run import ROOT, SMALL_RUN, environment, run

from configs.sweeps import objectives
from electra_jax.errors import UserError
from electra_jax.sweep import check_beginnings, flops_of_run, flops_of_step, planned, table


def test_every_run_costs_what_the_reference_does():
    config = objectives.get_config()
    stages = planned(config)
    assert list(stages) == list(config.runs)
    assert all(list(parts) == ["pretraining"] for parts in stages.values())
    plans = {name: parts["pretraining"] for name, parts in stages.items()}
    steps = config.base.train.num_train_steps
    budget = steps * flops_of_step(plans["electra"])
    for plan in plans.values():
        half_a_step = flops_of_step(plan) / 2
        assert abs(flops_of_run(plan) - budget) <= half_a_step
        share = plan.train.num_train_steps / steps
        warmup = config.base.optimizer.warmup_steps * share
        assert abs(plan.optimizer.warmup_steps - warmup) <= 1
    assert plans["mlm"].train.num_train_steps > steps > plans["electric"].train.num_train_steps
    config.only = ("electra", "bert")
    with pytest.raises(UserError, match="only, reference or beginnings name bert: use "):
        planned(config)


def test_a_run_has_a_warm_up_of_its_own_but_no_length():
    config = objectives.get_config()
    config.base.model.attention = "cudnn"  # what a step costs is known without a GPU
    config.runs.mlm.optimizer = {"warmup_steps": 100}
    (plan,) = planned(config)["mlm"].values()
    share = plan.train.num_train_steps / config.base.train.num_train_steps
    assert share > 1.1 and plan.optimizer.warmup_steps == round(100 * share)
    config.runs.mlm.train = {"num_train_steps": 17}
    with pytest.raises(UserError, match="runs.mlm has a train.num_train_steps of its own"):
        planned(config)
    del config.runs.mlm.train
    config.base.data.phases = ((10, 32, 4),)
    with pytest.raises(UserError, match="data.phases of electra begin at fixed steps"):
        planned(config)


def test_a_run_and_what_it_begins_with_cost_together_what_the_reference_does():
    config = objectives.get_config()
    config.beginnings.spans = ("mlm", 0.25)
    config.only = ("spans", "mlm")
    stages = planned(config)
    assert {name: list(parts) for name, parts in stages.items()} == {
        "spans": ["beginning", "pretraining"],
        "mlm": ["pretraining"],
    }
    first, then = stages["spans"].values()
    assert first.objective.name == "mlm" and then.objective.masking == "spans"
    costs = [flops_of_run(plan) for plan in (first, then)]
    assert costs[0] / sum(costs) == pytest.approx(0.25, rel=2e-3)
    whole = flops_of_run(stages["mlm"]["pretraining"])
    assert sum(costs) == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(
    ("beginning", "message"),
    [
        (("mlm", 1.0), "beginnings.spans has a share of 1.0: it must lie between 0 and 1"),
        (("bert", 0.5), "beginnings name bert: use"),
        (("electra", 0.5), "beginnings.spans is electra, which has a beginning itself"),
        ("mlm", r"beginnings.spans='mlm': give a run and a share, as in \('mlm', 0.3\)"),
        ((0.3, "mlm"), r"beginnings.spans=\(0.3, 'mlm'\): give a run and a share"),
        (("mlm", "x"), r"beginnings.spans=\('mlm', 'x'\): give a run and a share"),
        (("mlm",), r"beginnings.spans=\('mlm',\): give a run and a share"),
        (("wide", 0.5), "beginnings.spans: model.hidden_size=64 .pretrained: 128"),
        (("mlm", 0.02), "beginnings.spans: 0.02 of a run are .* no more than the warm-up"),
    ],
    ids=str,
)
def test_beginnings_that_are_none_are_refused(beginning, message):
    config = objectives.get_config()
    config.runs.wide = {"model": {"hidden_size": 128}}
    config.beginnings.electra = ("mlm", 0.5)
    config.beginnings.spans = beginning
    with pytest.raises(UserError, match=message):
        planned(config)


def test_a_beginning_of_a_run_that_is_unknown_is_refused():
    config = objectives.get_config()
    config.beginnings.electa = ("mlm", 0.5)
    with pytest.raises(UserError, match="beginnings name electa: use "):
        planned(config)


def test_a_beginning_in_use_is_not_lengthened(tmp_path):
    config = objectives.get_config()
    config.only = ("spans",)
    config.beginnings.spans = ("mlm", 0.25)
    plans = planned(config)
    directory = tmp_path / "spans" / "0"
    (directory / "beginning").mkdir(parents=True)
    description = {"config": plans["spans"]["beginning"].to_dict()}
    (directory / "beginning" / "config.json").write_text(json.dumps(description))
    (directory / "pretraining" / "checkpoints" / "1").mkdir(parents=True)
    check_beginnings(plans, (0,), tmp_path)
    config.beginnings.spans = ("mlm", 0.5)
    with pytest.raises(UserError, match="beginnings.spans: the run in .* began with"):
        check_beginnings(planned(config), (0,), tmp_path)
    check_beginnings(planned(config), (1,), tmp_path)
    (directory / "beginning" / "config.json").unlink()
    with pytest.raises(UserError, match="began with 0 steps"):
        check_beginnings(plans, (0,), tmp_path)


def test_the_table_holds_medians_and_what_lies_around_them():
    results = [
        {
            "name": name,
            "seed": seed,
            "steps": 1000,
            "seconds": 60.0,
            "held_out": {"disc_auc": 0.5 + 0.1 * seed} if name == "electra" else {},
            "probes": {"rte": [60.0 + seed, 61.0]},
        }
        for name in ("electra", "mlm")
        for seed in range(3)
    ]
    assert table(results).splitlines() == [
        "| run | seeds | steps | minutes | disc_auc | rte |",
        "|---|---|---|---|---|---|",
        "| electra | 3 | 1,000 | 1.0 | 0.600 (0.500 to 0.700) | 61.00 ± 0.63 |",
        "| mlm | 3 | 1,000 | 1.0 |  | 61.00 ± 0.63 |",
    ]
    for result in results[:3]:
        result["probes"]["cola"] = [30.0, 30.0]
    whole, part = table(results).splitlines()[2:]
    assert whole.endswith("| 61.00 ± 0.63 | 30.00 ± 0.00 | 45.50 |")
    assert part.endswith("| 61.00 ± 0.63 |  |  |")


@pytest.mark.slow
def test_a_sweep_trains_probes_and_does_nothing_twice(corpus_path, tmp_path):
    (tmp_path / "data").mkdir()
    rows = "\n".join(f"ba bera kin,{'ab'[n % 2]}" for n in range(40))
    for split in ("train", "dev"):
        (tmp_path / "data" / f"{split}.csv").write_text(f"text,label\n{rows}\n")
    fields = {f"base.{name}": value for name, value in SMALL_RUN.items()} | {
        "base.data.path": corpus_path,
        "base.train.num_train_steps": 6,
        "base.optimizer.warmup_steps": 1,
        "only": "('electra','mlm')",
        "seeds": "(0,)",
        "probes.sst2.data_dir": tmp_path / "nowhere",
    }
    words = [sys.executable, str(ROOT / "sweep.py"), f"--workdir={tmp_path / 'sweep'}"]
    (tmp_path / "sweep_config.py").write_text(
        "from configs.sweeps import objectives\n\n\ndef get_config():\n"
        "    config = objectives.get_config()\n"
        "    config.beginnings.electra = ('mlm', 0.5)\n    return config\n"
    )
    words += [f"--config={tmp_path / 'sweep_config.py'}"]
    words += [f"--config.{name}={value}" for name, value in fields.items()]
    result = run(words, env=environment() | {"PYTHONPATH": str(ROOT)})
    assert result.returncode == 2 and "nowhere" in result.stderr  # after the first pre-training
    words = [word for word in words if "nowhere" not in word]
    result = run(words, env=environment() | {"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    assert "these probes are left out" in result.stdout
    results = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert [row["name"] for row in results] == ["electra", "mlm"]
    assert (tmp_path / "sweep" / "sweep.png").stat().st_size > 1000
    assert [row["steps"] for row in results] == [8 + 3, 17]
    electra = tmp_path / "sweep" / "electra" / "0"
    assert (electra / "pretraining" / "checkpoints" / "3").is_dir()
    config = json.loads((electra / "pretraining" / "config.json").read_text())["config"]
    assert config["init_from"] == str(electra / "beginning")
    assert config["seed"] not in (0, 1, 2)  # other batches than the beginning's
