"""Runs with other objectives: one's own, a generator trained before, everything scheduled."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from small_run import ROOT, command, run

from electra_jax.checkpoint import load_params


def own_config(directory):
    """The config file of the docs, with an objective in it."""
    (source,) = re.findall(
        r"```python\n(\"\"\"ELECTRA that judges.*?)```",
        (ROOT / "docs" / "objectives.md").read_text(),
        re.DOTALL,
    )
    path = directory / "ordinary.py"
    path.write_text(source)
    return path


EVERYTHING = {
    "model__architecture": "modern",
    "model__sharing": "disentangled",
    "objective__mask_prob": 0.3,
    "objective__final_mask_prob": 0.1,
    "objective__mask_prob_steps": 25,
    "objective__start_temperature": 2.0,
    "objective__temperature_steps": 10,
    "objective__masking": "words",
    "optimizer__name": "muon",
    "optimizer__learning_rate_factors": "(('^generator_', 0.5),)",
    "data__phases": "((17, 32, 4),)",
    "train__num_train_steps": 24,
    "train__keep_checkpoints": 10,
}


def test_an_objective_of_one_s_own_and_all_schedules_resume_bitwise(corpus_path, tmp_path):
    config = own_config(tmp_path)

    def arguments(workdir):
        words = command(corpus_path, workdir, **EVERYTHING)
        return [f"--config={config}" if w.startswith("--config=") else w for w in words]

    result = run(arguments(tmp_path / "whole"))
    assert result.returncode == 0, result.stderr
    assert "(4 x 32 from step 17)" in result.stdout
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[-1]["step"] == 24 and np.isfinite(rows[-1]["loss"])
    described = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert "'name': 'ordinary'" in str(described)

    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for step in (20, 24):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / str(step))
    result = run(arguments(tmp_path / "cut"))
    assert result.returncode == 0, result.stderr
    assert "resuming at step 15" in result.stdout
    whole, cut = (load_params(tmp_path / name)[0] for name in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, cut, whole)


def test_a_generator_trained_before_stays_as_it_is(corpus_path, undisturbed, tmp_path):
    fields = {
        "objective__name": "fast_electra",
        "objective__start_temperature": 2.0,
        "objective__temperature_steps": 5,
        "train__num_train_steps": 8,
    }
    result = run(command(corpus_path, tmp_path / "run", **fields))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "generator_from" in result.stderr
    result = run(command(corpus_path, tmp_path / "run", generator_from=undisturbed, **fields))
    assert result.returncode == 0, result.stderr
    assert f"The generator is that of {undisturbed}." in result.stdout
    before, after = load_params(undisturbed)[0], load_params(tmp_path / "run")[0]
    jax.tree.map(np.testing.assert_array_equal, after["generator_embeddings"], before["embeddings"])
    for part in ("generator_encoder", "generator_head"):
        jax.tree.map(np.testing.assert_array_equal, after[part], before[part])
    assert (after["embeddings"]["word"] != before["embeddings"]["word"]).any()

    # Another objective trains it on.
    fields = {"model__sharing": "apart", "train__num_train_steps": 2, "generator_from": undisturbed}
    result = run(command(corpus_path, tmp_path / "trained", **fields))
    assert result.returncode == 0, result.stderr
    trained = load_params(tmp_path / "trained")[0]["generator_encoder"]
    moved = jax.tree.map(lambda a, b: abs(a - b).max(), trained, before["generator_encoder"])
    assert 0 < max(jax.tree.leaves(moved)) < 0.01


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generator_from": "somewhere"}, "gives the generator no tables of its own: set"),
        ({"objective__name": "mlm", "model__sharing": "none"}, "needs all"),
        (
            {"objective__name": "mlm", "objective__temperature": 2.0},
            "has no such number: leave it at 1.0",
        ),
        ({"objective__name": "uniform", "model__sharing": "all"}, "needs embeddings"),
        ({"objective__name": "bert"}, "objective.name='bert' is unknown: use one of electra, mlm"),
        ({"data__phases": "((20, 32),)"}, "must be (first_step, seq_len, batch_size)"),
        ({"data__phases": "((20, 1024, 8),)"}, "is longer than model.max_positions=512"),
        (
            {"data__phases": "((20, 32, 8),)", "data__on_device": True},
            "not with data.phases",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(corpus_path, tmp_path, fields, message):
    result = run(command(corpus_path, tmp_path / "run", **fields))
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr
    assert not (tmp_path / "run").exists()
