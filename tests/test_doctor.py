"""Each rule finds what it is for, and finds nothing in a run that goes well."""

import json
from pathlib import Path

import numpy as np
import pytest

from electra_jax import cli
from electra_jax.data import Corpus, prepare_corpus
from electra_jax.doctor import RULES, diagnose, in_words
from electra_jax.errors import UserError
from electra_jax.run_record import CorpusFacts, RunRecord, corpus_facts, read_run

CONFIG = {
    "model": {"vocab_size": 30522, "generator_size": 0.25, "dtype": "float32"},
    "objective": {"name": "electra", "mask_prob": 0.15, "discriminator_weight": 50.0},
    "optimizer": {"learning_rate": 5e-4, "warmup_steps": 100},
    "data": {"seq_len": 128},
    "train": {"batch_size": 128, "num_train_steps": 1000},
}
FACTS = CorpusFacts(
    num_tokens=100_000_000,
    num_documents=100_000,
    vocab_size=30522,
    unigram_entropy=7.1,
    unknown_share=0.0,
    unused_share=0.01,
    pieces_per_word=1.2,
    duplicate_share=0.0,
)
# Of a run that goes well, at its end.
WELL = {
    "mlm_loss": 2.5,
    "sampled_accuracy": 0.45,
    "replaced_share": 0.08,
    "disc_loss": 0.15,
    "disc_auc": 0.93,
    "disc_recall": 0.5,
    "input_share": 0.02,
    "skipped_steps": 0,
}


def record(facts=None, config=None, held_out=None, beginning=None, **late):
    """A run whose metrics go from a beginning to an end in 20 rows."""
    start = {"mlm_loss": 9.5, "disc_loss": 0.4, "disc_auc": 0.5} | (beginning or {})
    end = WELL | late
    rows = []
    for number in range(1, 21):
        share = min(1.0, number / 10)
        row = {name: start.get(name, v) * (1 - share) + v * share for name, v in end.items()}
        rows.append({"split": "train", "step": 50 * number} | row)
    rows.append({"split": "eval", "step": 1000} | end | (held_out or {}))
    return RunRecord(Path("run"), CONFIG | (config or {}), rows, facts or FACTS)


def rising(run):
    for number, row in enumerate(run.rows[10:20]):
        row["mlm_loss"] += 0.4 * number
    return run


def majority(share=0.1):
    return -(share * np.log(share) + (1 - share) * np.log(1 - share))


MADE_TO_FAIL = {
    "unfinished": record(config={"train": {"batch_size": 128, "num_train_steps": 5000}}),
    "not_finite": record(skipped_steps=1),
    "rate_too_high": rising(record()),
    "rate_too_low": record(mlm_loss=9.2),
    "generator_too_weak": record(mlm_loss=7.05),
    "generator_too_strong": record(sampled_accuracy=0.9, replaced_share=0.015),
    "replacements_too_hard": record(disc_auc=0.66, disc_loss=0.29),
    "majority_class": record(disc_recall=0.0, disc_loss=majority(), replaced_share=0.1),
    "data_small": record(held_out={"mlm_loss": 3.4}),
    "data_duplicated": record(FACTS._replace(duplicate_share=0.2)),
    "vocabulary_mismatch": record(FACTS._replace(pieces_per_word=3.1)),
    "input_starvation": record(input_share=0.9),
}


def test_nothing_is_found_in_a_run_that_goes_well():
    run = record()
    assert diagnose(run) == []
    assert in_words(run, []).endswith("Nothing looks wrong.")
    without = run._replace(corpus=None)
    assert "no longer where it was" in in_words(without, diagnose(without))


@pytest.mark.parametrize("name", RULES)
def test_each_rule_finds_its_own_and_nothing_else(name):
    (finding,) = diagnose(MADE_TO_FAIL[name])
    assert RULES[name](MADE_TO_FAIL[name]) == finding
    words = in_words(MADE_TO_FAIL[name], [finding])
    assert finding.seen in words and finding.remedy in words


@pytest.mark.parametrize(
    ("rule", "run"),
    [
        ("generator_too_weak", record(disc_auc=0.995)),
        ("data_small", record(FACTS._replace(num_tokens=200_000))),
        ("vocabulary_mismatch", record(FACTS._replace(unknown_share=0.03))),
        ("vocabulary_mismatch", record(FACTS._replace(unused_share=0.7))),
    ],
)
def test_other_signs_of_the_same(rule, run):
    assert diagnose(run) == [RULES[rule](run)]


def test_the_corpus_is_read_in_phases_and_unknown_tokens_keep_their_name():
    data = {"seq_len": 128, "phases": [[500, 512, 128]]}
    facts = FACTS._replace(num_tokens=1_000_000, unknown_share=0.03)
    run = record(facts, config={"data": data})
    tokens = 500 * 128 * 128 + 500 * 512 * 128
    assert f"was read {tokens / 1e6:.1f} times" in RULES["data_small"](run).seen
    assert RULES["vocabulary_mismatch"](run).seen == "3.0% of the tokens are [UNK]."


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("learning rate too low", record(mlm_loss=9.2, disc_auc=0.6)),
        ("learning rate too high", rising(record(disc_auc=0.6))),
        ("learning rate too high", rising(record(mlm_loss=9.2, disc_auc=0.6))),
        ("generator too weak", record(mlm_loss=7.05, disc_auc=0.6)),
        (
            "generator too strong",
            record(sampled_accuracy=0.9, replaced_share=0.015, disc_auc=0.66),
        ),
        (
            "discriminator at the majority class",
            record(disc_recall=0.0, disc_loss=majority(), replaced_share=0.1, disc_auc=0.6),
        ),
    ],
)
def test_what_another_finding_explains_is_left_out(name, run):
    assert RULES["replacements_too_hard"](run) is not None
    assert [finding.name for finding in diagnose(run)] == [name]


def test_replacements_are_not_too_hard_before_they_can_be_told():
    early = record(disc_auc=0.6)
    warming_up = {"learning_rate": 5e-4, "warmup_steps": 900}
    assert diagnose(early._replace(config=CONFIG | {"optimizer": warming_up})) == []
    electric = CONFIG["objective"] | {"name": "electric"}
    assert diagnose(early._replace(config=CONFIG | {"objective": electric})) == []
    for row in early.rows:  # as without a generator
        del row["sampled_accuracy"]
    assert diagnose(early) == []


def test_an_objective_without_some_metrics_is_diagnosed_by_the_others():
    run = record()
    for row in run.rows:
        for name in ("sampled_accuracy", "replaced_share", "disc_loss", "disc_auc", "disc_recall"):
            del row[name]
    assert diagnose(run) == []


def test_facts_of_a_corpus_are_counted(tmp_path):
    text = "one two three\n\none two three\n\nfour five\n\nsix one\n"
    (tmp_path / "text.txt").write_text(text)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "th", "##ree", "never"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    arguments = {"vocab": tmp_path / "vocab.txt", "keep_duplicates": True}
    prepare_corpus(
        [tmp_path / "text.txt"], tmp_path / "corpus", validation_fraction=0.0, **arguments
    )
    facts = corpus_facts(Corpus.open(tmp_path / "corpus"))
    assert facts.num_documents == 4 and facts.duplicate_share == 0.25
    assert facts.unknown_share == pytest.approx(3 / 12)
    assert facts.unused_share == pytest.approx(1 / 5)
    assert facts.pieces_per_word == pytest.approx(12 / 10)


def test_it_reads_a_workdir_and_refuses_what_is_none(tmp_path, capsys):
    with pytest.raises(UserError, match="has no metrics.jsonl and config.json"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"config": CONFIG, "corpus": {"path": "/no"}}))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has no row of training yet"):
        read_run(tmp_path)
    rows = MADE_TO_FAIL["rate_too_low"].rows
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["doctor", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("learning rate too low: The generator's loss is 9.20;")
    assert cli.main(["doctor", str(tmp_path / "nothing")]) == 2
