"""The tokenizer of a directory of Hugging Face's: WordPiece, as BERT and ELECTRA have it."""

from __future__ import annotations

from pathlib import Path

from electra_jax.data.tokenization import Tokenizer, WordPieceTokenizer
from electra_jax.errors import UserError
from electra_jax.hugging_face.files import read_json

_TOKENIZER, _VOCAB, _SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"


def load_hugging_face_tokenizer(directory: Path | str) -> Tokenizer | None:
    """The tokenizer of a directory, or None if there is none.

    `tokenizer.json` comes first, without what it says of cutting and padding: that is the task's
    business, and some cut to 128 tokens. Else `vocab.txt`, with `do_lower_case` and
    `strip_accents` of `tokenizer_config.json`. As in transformers, text is lower-cased where
    nothing is said of it.

    Raises:
      UserError: for another kind of tokenizer, and for files that contradict each other.
    """
    directory = Path(directory)
    settings = read_json(directory / _SETTINGS) if (directory / _SETTINGS).is_file() else {}
    if (directory / _TOKENIZER).is_file():
        tokenizer = WordPieceTokenizer.from_json(directory / _TOKENIZER)
    elif (directory / _VOCAB).is_file():
        if settings.get("tokenize_chinese_chars", True) is not True:
            raise UserError(
                f"{directory / _SETTINGS}: tokenize_chinese_chars=false, expected true: a "
                "tokenizer of this kind cannot be read"
            )
        return WordPieceTokenizer.from_vocab(
            directory / _VOCAB,
            lowercase=settings.get("do_lower_case", True),
            strip_accents=settings.get("strip_accents"),
        )
    else:
        return None
    for theirs, ours in (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents")):
        said, done = settings.get(theirs), tokenizer.settings[ours]
        if said is not None and done is not None and said != done:
            raise UserError(
                f"{directory}: {_SETTINGS} says {theirs}={said}, but {_TOKENIZER} has "
                f"{ours}={done}: make them agree"
            )
    if (directory / _VOCAB).is_file():
        other = WordPieceTokenizer.from_vocab(directory / _VOCAB)
        if other.settings["vocab_sha256"] != tokenizer.settings["vocab_sha256"]:
            raise UserError(
                f"{directory}: the vocabularies of {_VOCAB} ({other.vocab_size} tokens) and "
                f"{_TOKENIZER} ({tokenizer.vocab_size}) differ: bring both from one model"
            )
    return tokenizer
