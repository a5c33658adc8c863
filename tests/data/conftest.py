"""Generated text, a vocabulary trained on it, and a small corpus of several shards."""

from __future__ import annotations

import pytest
from generated_text import generate_text

from electra_jax.data import prepare_corpus
from electra_jax.data.tokenization import WordPieceTokenizer


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "generated.txt"
    path.write_text(generate_text(200), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def vocab_file(tmp_path_factory, text_file):
    directory = tmp_path_factory.mktemp("vocab")
    WordPieceTokenizer.train([text_file.read_text(encoding="utf-8")], 400).save(directory)
    return directory / "vocab.txt"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, text_file, vocab_file):
    """200 documents in several training shards and a validation split. Not to be changed."""
    output = tmp_path_factory.mktemp("corpus") / "corpus"
    return prepare_corpus(
        [text_file], output, vocab=vocab_file, validation_fraction=0.1, shard_tokens=4000
    )
