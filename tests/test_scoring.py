"""Pseudo-log-likelihoods of texts by a model of Electric, and n-best lists in a new order."""

import json

import numpy as np
import pytest
from test_convert import TEXT
from test_convert import tokenizer as tokenizer  # noqa: PLC0414 (a fixture)
from test_inference import alone
from test_inference import run_directory as run_directory  # noqa: PLC0414 (a fixture)

from electra_jax import cli
from electra_jax.errors import UserError
from electra_jax.inference import TextModel
from electra_jax.pretrained import load_pretrained
from electra_jax.reranking import read_hypotheses, rerank

TEXTS = ["the quick fox", "the lazy dog while seven wizards mix", TEXT, "fox"]


@pytest.fixture(scope="module")
def electric(run_directory):
    """The model, as if trained with the objective of Electric."""
    pretrained = load_pretrained(run_directory)
    metadata = {"config": {"objective": {"name": "electric"}}}
    return TextModel(pretrained._replace(metadata=metadata), batch_size=4)


def test_a_text_s_score_is_minus_the_sum_of_its_energies(electric):
    for text, score in zip(TEXTS, electric.score(TEXTS), strict=True):
        energies = alone(electric, text)[1:-1]
        assert score == pytest.approx(-float(np.float64(energies).sum()), abs=1e-3)


def test_texts_without_a_score_and_models_without_energies_are_told(electric, run_directory):
    with pytest.raises(UserError, match="text '' has 0 tokens, and the model scores 1 to 30"):
        list(electric.score([""]))
    found = list(electric.score(["fox", "fox " * 40, "fox"], strict=False))
    assert found[0] == found[2] and "has 40 tokens" in str(found[1])
    with pytest.raises(UserError, match="was trained with objective.name=None"):
        list(TextModel(run_directory).score(["fox"]))


def test_hypotheses_are_ordered_by_the_weighted_sum():
    assert rerank([-3.0, -1.0, -2.0], [2.0, 0.0, 1.0], weight=0.5) == ([0, 2, 1], [0.5, -0.5, 0.0])
    assert rerank([-1.0, -1.0], [0.0, 0.0], weight=1.0)[0] == [0, 1]
    line = json.dumps({"texts": ["a", "b"], "scores": [1, 2]})
    assert read_hypotheses(line, where="f:1") == (["a", "b"], [1.0, 2.0])
    assert read_hypotheses('{"texts": ["a"]}', where="f:1") == (["a"], [0.0])
    for wrong in (
        "[]",
        "{",
        '{"texts": []}',
        '{"texts": ["a"], "scores": [1, 2]}',
        '{"texts": [1]}',
    ):
        with pytest.raises(UserError, match="^f:7: is no "):
            read_hypotheses(wrong, where="f:7")


def test_the_program_prints_a_line_a_text(electric, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("electra_jax.cli_inference._model", lambda arguments: electric)
    (tmp_path / "texts.txt").write_text("the quick fox\n\nfox\n")
    assert cli.main(["score", str(tmp_path / "texts.txt"), "--model", "any"]) == 0
    first, empty, last = map(json.loads, capsys.readouterr().out.splitlines())
    expected = list(electric.score(["the quick fox", "fox"]))
    assert [first["score"], last["score"]] == pytest.approx(expected, abs=1e-3)
    assert "0 tokens" in empty["error"]
    lists = {"texts": ["the quick fox", "fox"], "scores": [0.0, 1000.0]}
    (tmp_path / "lists.jsonl").write_text(json.dumps(lists) + "\n")
    words = ["score", str(tmp_path / "lists.jsonl"), "--model", "any", "--rerank", "--weight", "0"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["best"] == "fox"
