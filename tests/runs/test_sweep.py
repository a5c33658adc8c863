"""Pre-trainings compared: equal cost, a table of medians, nothing done twice."""

import json
import sys

import pytest
from small_run import ROOT, SMALL_RUN, environment, run

from configs.sweeps import objectives
from electra_jax.errors import UserError
from electra_jax.sweep import flops_of_step, planned, table


def test_every_run_costs_what_the_reference_does():
    config = objectives.get_config()
    plans, beginnings = planned(config)
    assert set(plans) == set(config.runs) and not beginnings
    steps = config.base.train.num_train_steps
    budget = steps * flops_of_step(plans["electra"])
    for plan in plans.values():
        half_a_step = flops_of_step(plan) / 2
        assert abs(plan.train.num_train_steps * flops_of_step(plan) - budget) <= half_a_step
        share = plan.train.num_train_steps / steps
        warmup = config.base.optimizer.warmup_steps * share
        assert abs(plan.optimizer.warmup_steps - warmup) <= 1
    assert plans["mlm"].train.num_train_steps > steps > plans["electric"].train.num_train_steps
    config.only = ("electra", "bert")
    with pytest.raises(UserError, match="only, reference or beginnings name bert: use "):
        planned(config)


def test_a_run_and_what_it_begins_with_cost_together_what_the_reference_does():
    config = objectives.get_config()
    config.beginnings.spans = ("mlm", 0.25)
    config.only = ("spans", "mlm")
    plans, beginnings = planned(config)
    assert list(plans) == ["spans", "mlm"] and list(beginnings) == ["spans"]
    first, then = beginnings["spans"], plans["spans"]
    assert first.objective.name == "mlm" and then.objective.masking == "spans"
    costs = [plan.train.num_train_steps * flops_of_step(plan) for plan in (first, then)]
    assert costs[0] / sum(costs) == pytest.approx(0.25, rel=2e-3)
    whole = plans["mlm"]
    assert sum(costs) == pytest.approx(whole.train.num_train_steps * flops_of_step(whole), rel=1e-3)
    for share, other, message in (
        (1.0, "mlm", "beginnings.spans has a share of 1.0: it must lie between 0 and 1"),
        (0.5, "bert", "beginnings name bert: use"),
    ):
        config.beginnings.spans = (other, share)
        with pytest.raises(UserError, match=message):
            planned(config)


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


@pytest.mark.slow
def test_a_sweep_trains_probes_and_does_nothing_twice(corpus_path, tmp_path):
    (tmp_path / "data").mkdir()
    rows = "\n".join(f"ba bera kin,{'ab'[n % 2]}" for n in range(40))
    for split in ("train", "dev"):
        (tmp_path / "data" / f"{split}.csv").write_text(f"text,label\n{rows}\n")
    fields = {f"base.{name}": value for name, value in SMALL_RUN.items()} | {
        "base.data.path": corpus_path,
        "base.train.num_train_steps": 6,
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
