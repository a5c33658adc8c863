"""Tokenizers: one that knows a few words and all letters, and one of the real vocabulary."""

from __future__ import annotations

import string

import pytest

from electra_jax.data.tokenization import WordPieceTokenizer

WORDS = "the a of cat dog sat on mat was born in who when where did paris france 1 ##s ##ing"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    characters = string.ascii_lowercase + string.digits + string.punctuation + "é中"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    tokens += ["##" + character for character in string.ascii_lowercase + string.digits]
    tokens += WORDS.split()
    path.write_text("\n".join(dict.fromkeys(tokens)) + "\n", encoding="utf-8")
    return WordPieceTokenizer.from_vocab(path, strip_accents=False)


@pytest.fixture(scope="session")
def real_tokenizer(shared):
    return WordPieceTokenizer.from_vocab(shared("vocab/vocab.txt"))
