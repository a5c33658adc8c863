"""Generated text, a vocabulary trained on it, and a small corpus of several shards."""

from __future__ import annotations

import numpy as np
import pytest

from electra_jax.data import prepare_corpus
from electra_jax.data.tokenization import WordPieceTokenizer


def generate_text(num_documents: int, seed: int = 0) -> str:
    """Documents of made-up words, a blank line between them; every sentence ends with a stop."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(300)]
    documents = []
    for _ in range(num_documents):
        lines = []
        for _ in range(rng.integers(1, 6)):
            sentences = [
                " ".join(rng.choice(words, rng.integers(2, 25))).capitalize() + "."
                for _ in range(rng.integers(1, 6))
            ]
            lines.append(" ".join(sentences))
        documents.append("\n".join(lines))
    return "\n\n".join(documents) + "\n"


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
