"""What `electra-jax inspect` says of a corpus."""

import shutil

import numpy as np
import pytest

from electra_jax.cli import main
from electra_jax.data.inspect import describe_corpus, token_counts, unigram_entropy


def test_unigram_entropy_is_that_of_the_shares():
    assert unigram_entropy(np.array([1, 1, 0, 1, 1])) == pytest.approx(np.log(4))
    shares = np.array([0.5, 0.25, 0.25])
    assert unigram_entropy(np.array([4, 2, 2])) == pytest.approx(-(shares * np.log(shares)).sum())


def test_counts_leave_the_stored_separators_out(corpus):
    counts = token_counts(corpus, "train")
    assert counts.sum() == corpus.num_tokens("train")
    assert counts[corpus.special_ids.sep] == 0


def test_an_intact_corpus_is_described(corpus, capsys):
    assert main(["inspect", str(corpus.path)]) == 0
    printed = capsys.readouterr().out
    assert f"{corpus.num_tokens('train'):,} tokens" in printed
    assert f"{corpus.num_documents('validation'):,} documents" in printed
    assert corpus.fingerprint in printed and printed.endswith("all checksums are right\n")


def test_a_damaged_one_ends_with_status_two_and_one_line(corpus, tmp_path, capsys):
    damaged = tmp_path / "corpus"
    shutil.copytree(corpus.path, damaged)
    path = damaged / "train-00000.tokens.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert main(["inspect", str(damaged)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "train-00000.tokens.npy does not match its checksum" in printed.err


def test_a_picture_is_drawn_whole_or_not_at_all(corpus, tmp_path, capsys):
    for name in ("a.png", "a.svg", "a.pdf"):
        assert main(["inspect", str(corpus.path), "--picture", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 1000
    capsys.readouterr()
    for name in ("none", "a.foo", "no/a.png", ""):
        assert main(["inspect", str(corpus.path), "--picture", f"{tmp_path}/{name}"]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: picture ") and printed.count("\n") == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_a_corpus_without_validation_is_described(text_file, vocab_file, tmp_path):
    from electra_jax.data import prepare_corpus

    corpus = prepare_corpus(
        [text_file], tmp_path / "corpus", vocab=vocab_file, validation_fraction=0
    )
    assert "validation   empty" in describe_corpus(corpus.path)
