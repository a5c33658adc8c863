"""Opening, training and loading tokenizers of any kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.data.tokenization import (
    SPECIAL_TOKENS,
    TRAINABLE_TOKENIZERS,
    SentencePieceTokenizer,
    WordPieceTokenizer,
    load_tokenizer,
    open_tokenizer,
    train_tokenizer,
)
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds


@pytest.fixture(scope="module")
def texts(text_file):
    return text_file.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("kind", TRAINABLE_TOKENIZERS)
def test_trained_saved_and_opened_again(kind, texts, tmp_path):
    tokenizer = train_tokenizer(kind, texts, 300)
    assert tokenizer.special_ids == SpecialIds(0, 1, 2, 3, 4)
    assert tokenizer.settings["kind"] == kind and tokenizer.settings["lowercase"] is True
    assert tokenizer.encode_batch(["BADA"]) == tokenizer.encode_batch(["bada"])
    tokenizer.save(tmp_path)
    for other in (
        load_tokenizer(tmp_path),
        open_tokenizer(tmp_path),
        open_tokenizer(str(tmp_path)),
    ):
        assert other.settings == tokenizer.settings
        assert other.encode_batch(texts) == tokenizer.encode_batch(texts)
    cased = train_tokenizer(kind, texts, 300, lowercase=False)
    assert cased.settings["lowercase"] is False
    assert cased.encode_batch(["BADA"]) != cased.encode_batch(["bada"])


def test_opened_by_the_ending(texts, tmp_path):
    """Each as the file says; the vocabulary as the arguments say."""
    train_tokenizer("sentencepiece-bpe", texts, 300).save(tmp_path)
    tokenizer = open_tokenizer(tmp_path / "tokenizer.model")
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert tokenizer.settings["kind"] == "sentencepiece"
    train_tokenizer("wordpiece", texts, 300, lowercase=False, strip_accents=True).save(tmp_path)
    from_json = open_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(from_json, WordPieceTokenizer)
    assert from_json.settings["lowercase"] is False and from_json.settings["strip_accents"] is True
    vocabulary = open_tokenizer(tmp_path / "vocab.txt")
    assert vocabulary.settings == from_json.settings | {"lowercase": True, "strip_accents": None}
    assert open_tokenizer(tmp_path / "vocab.txt", False, True).settings == from_json.settings


@pytest.mark.parametrize(("argument", "value"), [("lowercase", False), ("strip_accents", True)])
@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        ("sentencepiece-bpe", "tokenizer.model", "a SentencePiece model"),
        ("wordpiece", "tokenizer.json", "a tokenizer.json"),
        ("wordpiece", ".", "a saved tokenizer"),
    ],
)
def test_refuses_arguments_that_the_file_decides(
    texts, tmp_path, argument, value, kind, name, what
):
    train_tokenizer(kind, texts, 300).save(tmp_path)
    with pytest.raises(UserError) as error:
        open_tokenizer(tmp_path / name, **{argument: value})
    assert str(error.value) == (
        f"{argument}={value} does not apply to {tmp_path / name}: {what} has its own "
        f"normalisation, so leave {argument} out"
    )


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="vocabulary .*/vocab.txt does not exist: give the path of"):
        open_tokenizer(tmp_path / "vocab.txt")
    with pytest.raises(UserError, match="model .*/a.model does not exist: give the path of"):
        open_tokenizer(tmp_path / "a.model")
    with pytest.raises(UserError, match="tokenizer .*/a.json does not exist: give the path of"):
        open_tokenizer(tmp_path / "a.json")
    with pytest.raises(UserError, match="tokenizer.json does not exist: give a directory with a"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="tokenizer.json does not exist: give a directory with a"):
        open_tokenizer(tmp_path)
    (tmp_path / "a.model").mkdir()
    with pytest.raises(UserError, match="model .*/a.model cannot be read .Is a directory"):
        open_tokenizer(tmp_path / "a.model")


def test_training_refuses(texts):
    with pytest.raises(UserError) as error:
        train_tokenizer("bpe", texts, 300)
    assert str(error.value) == (
        "train_tokenizer='bpe' is unknown: use one of wordpiece, sentencepiece-unigram, "
        "sentencepiece-bpe"
    )
    with pytest.raises(UserError) as error:
        train_tokenizer("sentencepiece-bpe", texts, 300, strip_accents=True)
    assert str(error.value) == (
        "strip_accents=True does not apply to train_tokenizer='sentencepiece-bpe', which keeps "
        "accents: leave it out, or use 'wordpiece'"
    )
    assert train_tokenizer("sentencepiece-bpe", texts, 300, strip_accents=False).vocab_size <= 300


def test_the_libraries_are_imported_where_they_are_used():
    program = (
        "import sys, electra_jax.data.tokenization as t\n"
        "heavy = {'tokenizers', 'sentencepiece', 'jax'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()


def test_special_tokens_are_in_the_order_of_their_ids():
    assert tuple(token[1:-1].lower() for token in SPECIAL_TOKENS) == SpecialIds._fields
