"""Tokenizers: text to ids and back, behind one small interface.

The special ids always come from the tokenizer, never from constants. Text never turns into a
special token, even where it spells one: "[SEP]" in a document is ordinary text. The libraries
behind the tokenizers are imported where they are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from electra_jax.data import storage
from electra_jax.data.tokenization.interface import SPECIAL_TOKENS, Tokenizer
from electra_jax.data.tokenization.sentence_piece import (
    MODEL_FILE,
    SETTINGS_FILE,
    SentencePieceTokenizer,
)
from electra_jax.data.tokenization.wordpiece import TOKENIZER_FILE, WordPieceTokenizer
from electra_jax.data.tokenization.words import continues_word
from electra_jax.errors import UserError

__all__ = [
    "SPECIAL_TOKENS",
    "TRAINABLE_TOKENIZERS",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "continues_word",
    "load_tokenizer",
    "open_tokenizer",
    "train_tokenizer",
]

TRAINABLE_TOKENIZERS = ("wordpiece", "sentencepiece-unigram", "sentencepiece-bpe")


def open_tokenizer(
    path: str | Path, lowercase: bool | None = None, strip_accents: bool | None = None
) -> Tokenizer:
    """A tokenizer from a file or a directory of anybody's, told apart by the ending.

    Args:
      path: a .model of SentencePiece, a .json of the `tokenizers` library with BERT's WordPiece, a
        directory that `Tokenizer.save` wrote to, or else a vocabulary of WordPiece, one token a
        line.
      lowercase: for a vocabulary, whether it is of lower-cased text; None means it is. The others
        know, so it must be None.
      strip_accents: for a vocabulary, whether accents are removed; None means as `lowercase`
        says. For the others it must be None.

    Raises:
      UserError: if there is no tokenizer that can be used, or if an argument does not apply.
    """
    name = os.fspath(path)
    opened: Callable[[str | Path], Tokenizer]
    if name.endswith(".model"):
        opened, what = SentencePieceTokenizer.from_model, "a SentencePiece model"
    elif name.endswith(".json"):
        opened, what = WordPieceTokenizer.from_json, "a tokenizer.json"
    elif os.path.isdir(name) or _find_saved(name):
        opened, what = load_tokenizer, "a saved tokenizer"
    else:
        lowercase = True if lowercase is None else lowercase
        return WordPieceTokenizer.from_vocab(path, lowercase, strip_accents)
    for argument, value in (("lowercase", lowercase), ("strip_accents", strip_accents)):
        if value is not None:
            raise UserError(
                f"{argument}={value} does not apply to {path}: {what} has its own normalisation, "
                f"so leave {argument} out"
            )
    return opened(path)


def train_tokenizer(
    kind: str,
    texts: Iterable[str],
    vocab_size: int,
    lowercase: bool | None = None,
    strip_accents: bool | None = None,
) -> Tokenizer:
    """A tokenizer trained on texts; the same texts, in any order, give the same one.

    Args:
      kind: one of `TRAINABLE_TOKENIZERS`.
      texts: the texts, read once.
      vocab_size: largest size of the vocabulary; it gets smaller if the texts have fewer pieces.
      lowercase: whether text is lower-cased; None means it is.
      strip_accents: whether accents are removed; None means as `lowercase` says for WordPiece.
        SentencePiece keeps them.

    Raises:
      UserError: if an argument cannot be used, or if the texts have no words.
    """
    lowercase = True if lowercase is None else lowercase
    if kind == "wordpiece":
        return WordPieceTokenizer.train(texts, vocab_size, lowercase, strip_accents)
    if kind not in TRAINABLE_TOKENIZERS:
        raise UserError(
            f"train_tokenizer={kind!r} is unknown: use one of {', '.join(TRAINABLE_TOKENIZERS)}"
        )
    if strip_accents:
        raise UserError(
            f"strip_accents=True does not apply to train_tokenizer={kind!r}, which keeps accents: "
            "leave it out, or use 'wordpiece'"
        )
    return SentencePieceTokenizer.train(texts, vocab_size, lowercase, kind)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote to a directory.

    Raises:
      UserError: if there is none, or its files cannot be read.
    """
    found = _find_saved(directory)
    if found == SETTINGS_FILE:
        return SentencePieceTokenizer.load(directory)
    if found == MODEL_FILE:
        return SentencePieceTokenizer.from_model(f"{directory}/{MODEL_FILE}")
    path = f"{directory}/{TOKENIZER_FILE}"
    if found is None:
        raise UserError(f"{path} does not exist: give a directory with a saved tokenizer")
    return WordPieceTokenizer.from_json(path)


def _find_saved(directory: str | Path) -> str | None:
    """The file in a directory that tells which tokenizer was saved there."""
    for name in (SETTINGS_FILE, TOKENIZER_FILE, MODEL_FILE):
        if storage.exists(f"{directory}/{name}"):
            return name
    return None
