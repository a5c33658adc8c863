"""A user's mistake is one line that names it, status 2, and nothing on disk."""

import shutil

import numpy as np
import pytest
from small_run import ROOT, command, run

CASES = {
    "an unknown field": (
        {"train__bach_size": 4},
        "--config.train.bach_size: the config has no field 'bach_size': did you mean 'batch_size'?",
    ),
    "a wrong type": ({"train__batch_size": "many"}, "--config.train.batch_size=many"),
    "a fraction for a count": ({"train__batch_size": 1.5}, "--config.train.batch_size=1.5"),
    "no rows": ({"train__batch_size": 0}, "train.batch_size=0 must be positive"),
    "no steps": ({"train__num_train_steps": 0}, "train.num_train_steps=0 must be positive"),
    "never logging": ({"train__log_every": 0}, "train.log_every=0 must be positive"),
    "heads that do not divide": (
        {"model__num_heads": 3},
        "model.num_heads=3 does not divide model.hidden_size=32",
    ),
    "more tokens than positions": (
        {"data__seq_len": 1024},
        "data.seq_len=1024 is longer than model.max_positions=512",
    ),
    "a vocabulary that is too small": (
        {"model__vocab_size": 50},
        "model.vocab_size=50 is smaller than the vocabulary of ",
    ),
    "masking everything": (
        {"objective__mask_prob": 1.0},
        "objective.mask_prob=1.0 must lie between 0 and 1",
    ),
    "an unknown backend": (
        {"parallel__backend": "pjit"},
        "parallel.backend='pjit' is unknown: use one of jit, pmap",
    ),
    "an unknown objective": ({"objective__name": "bart"}, "objective.name='bart' is unknown"),
    "a platform that is not here": ({"platform": "tpu"}, "platform='tpu' is not available"),
    "micro-batches that do not divide": (
        {"train__num_microbatches": 3},
        "train.batch_size=8 is not divisible by 1 devices x 3 micro-batches: use a multiple of 3",
    ),
    "a corpus that is not there": ({"data__path": "/nowhere/at/all"}, "/nowhere/at/all"),
    "a vocabulary of nothing": ({"model__vocab_size": 0}, "model.vocab_size=0 must be positive"),
    "keeping checkpoints that are never made": (
        {"train__keep_checkpoint_every": 7},
        "train.keep_checkpoint_every=7 must be a multiple of train.checkpoint_every=5",
    ),
    "wandb that is not installed": (
        {"logging__wandb": True},
        "logging.wandb=True but wandb is not",
    ),
    "dropping everything": ({"model__dropout_rate": 1.0}, "model.dropout_rate=1.0 must be in"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_in_the_config(case, corpus_path, tmp_path, monkeypatch):
    overrides, message = CASES[case]
    arguments = command(corpus_path, tmp_path / "run", **overrides)
    status, error = run_here(arguments, monkeypatch)
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


def run_here(arguments, monkeypatch):
    """`train.py` inside this process: a sixth of a second instead of four."""
    import contextlib
    import io
    import runpy

    monkeypatch.setattr("sys.argv", arguments[1:])
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr("electra_jax.parallel.make_mesh", lambda platform: one_device_mesh())
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as exit:
        runpy.run_path(arguments[1], run_name="__main__")
    return exit.value.code, errors.getvalue()


def one_device_mesh():
    import jax

    return jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])


def test_no_config_or_a_missing_one(tmp_path):
    script = str(ROOT / "train.py")
    result = run([*command("x", "y")[:1], script])
    assert result.returncode == 2
    assert result.stderr == "error: --config is missing: for example --config=configs/tiny.py\n"
    result = run([*command("x", "y")[:1], script, f"--config={tmp_path / 'nothing.py'}"])
    assert result.returncode == 2
    assert "nothing.py" in result.stderr and result.stderr.count("\n") == 1


def test_damaged_corpora(corpus_path, tmp_path, monkeypatch):
    """Truncated, then missing, then unfinished."""
    damaged = tmp_path / "corpus"
    shutil.copytree(corpus_path, damaged)
    (tokens,) = damaged.glob("train-00000.tokens.npy")
    tokens.write_bytes(tokens.read_bytes()[:-100])
    for break_it in (lambda: None, tokens.unlink, (damaged / "corpus.json").unlink):
        break_it()
        status, error = run_here(command(damaged, tmp_path / "run"), monkeypatch)
        assert status == 2 and error.count("\n") == 1 and str(damaged) in error
        assert not (tmp_path / "run").exists()


def test_a_workdir_that_is_no_run(corpus_path, tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text("precious\n")
    status, error = run_here(command(corpus_path, tmp_path), monkeypatch)
    assert status == 2 and "holds a metrics.jsonl but no config.json" in error
    assert (tmp_path / "metrics.jsonl").read_text() == "precious\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "metrics.jsonl"]
    status, error = run_here(command(corpus_path, tmp_path / "metrics.jsonl"), monkeypatch)
    assert status == 2 and "is a file: choose a directory" in error


def test_a_run_without_a_checkpoint_is_not_overwritten_by_another(
    corpus_path, tmp_path, monkeypatch
):
    """The start of a run is refused like its end, and lost checkpoints are not a fresh start."""
    import json

    workdir = tmp_path / "run"
    arguments = command(corpus_path, workdir, train__num_train_steps=1, train__log_every=1)
    assert run(arguments).returncode == 0
    shutil.rmtree(workdir / "checkpoints")
    before = (workdir / "metrics.jsonl").read_text()
    status, error = run_here([*arguments, "--config.train.batch_size=16"], monkeypatch)
    assert status == 2 and "train.batch_size=16, but the run in" in error
    assert (workdir / "metrics.jsonl").read_text() == before

    late = json.dumps({"step": 11, "split": "train"}) + "\n"
    (workdir / "metrics.jsonl").write_text(before + late)
    longer = [*arguments, "--config.train.num_train_steps=20"]
    status, error = run_here(longer, monkeypatch)
    assert status == 2
    assert "metrics.jsonl reaches step 11, but the newest checkpoint is of step 0" in error
    assert (workdir / "metrics.jsonl").read_text() == before + late


def test_help_is_the_usage():
    result = run([*command("x", "y")[:2], "--help"])
    assert result.returncode == 0
    assert "python train.py --config=configs/small.py" in result.stdout


def test_a_batch_that_the_devices_cannot_share(corpus_path):
    import jax

    from electra_jax.errors import UserError
    from electra_jax.parallel import check_batch_size, make_mesh

    assert len(jax.devices()) == 8
    with pytest.raises(UserError, match="train.batch_size=12 is not divisible by 8 devices"):
        check_batch_size(12, make_mesh())


def test_a_corpus_with_an_id_past_its_vocabulary_is_found_by_inspect(corpus_path, tmp_path):
    damaged = tmp_path / "corpus"
    shutil.copytree(corpus_path, damaged)
    path = damaged / "train-00000.tokens.npy"
    tokens = np.load(path)
    tokens[5] = 60000
    np.save(path, tokens)
    result = run([command("", "")[0], "-m", "electra_jax.cli", "inspect", str(damaged)])
    assert result.returncode == 2 and "train-00000.tokens.npy" in result.stderr
