"""A corpus of SentencePiece's can be pre-trained on, as those of WordPiece in the other runs."""

import json
import sys

from small_run import ROOT, command, environment, generated_text, run


def test_it_pre_trains(tmp_path):
    kind = "sentencepiece-unigram"
    (tmp_path / "text.txt").write_text(generated_text(120, seed=0))
    prepare = [sys.executable, "-m", "electra_jax.cli", "prepare", str(tmp_path / "text.txt")]
    prepare += ["--output", str(tmp_path / "corpus"), "--train-tokenizer", kind]
    prepare += ["--vocab-size", "150", "--validation-fraction", "0.1"]
    result = run(prepare, cwd=ROOT, env=environment() | {"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    options = {"train__num_train_steps": 150, "train__eval_every": 150, "train__log_every": 50}
    options |= {"train__checkpoint_every": 150, "model__vocab_size": 150}
    result = run(command(tmp_path / "corpus", tmp_path / "run", **options))
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [row["mlm_loss"] for row in map(json.loads, lines) if row["split"] == "train"]
    assert losses[-1] < losses[0] - 0.15
    saved = json.loads((tmp_path / "corpus" / "corpus.json").read_text())["tokenizer"]
    assert set(saved["files"]) <= {path.name for path in (tmp_path / "run" / "tokenizer").iterdir()}
    assert saved["settings"]["kind"] == kind
