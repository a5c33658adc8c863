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
    plans = planned(config)
    assert set(plans) == set(config.runs)
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
    with pytest.raises(UserError, match="only or reference names bert: use "):
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
    words += [f"--config={ROOT / 'configs' / 'sweeps' / 'objectives.py'}"]
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
    assert (tmp_path / "sweep" / "electra" / "0" / "pretraining" / "checkpoints" / "6").is_dir()
