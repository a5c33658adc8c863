from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.data.tokenization import (
    SPECIAL_TOKENS,
    WordPieceTokenizer,
    load_tokenizer,
)
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds

SHARED_VOCAB = Path(__file__).parents[2].parent / "shared/data/vocab/vocab.txt"

TOKENS = [*SPECIAL_TOKENS, "hello", "un", "##aff", "##able", "wor", "##ld", "!", "é", "e", "E"]
TOKENS += ["[", "]", "sep", "中", "x", "##x"]


def write_vocab(path, tokens=TOKENS):
    path.write_text("".join(token + "\n" for token in tokens), encoding="utf-8")
    return path


def pieces(tokenizer, text):
    return [TOKENS[i] for i in tokenizer.encode_batch([text])[0]]


def test_known_pieces(tmp_path):
    tokenizer = WordPieceTokenizer.from_vocab(write_vocab(tmp_path / "vocab.txt"))
    assert pieces(tokenizer, "Hello unaffable World!") == (
        ["hello", "un", "##aff", "##able", "wor", "##ld", "!"]
    )
    assert pieces(tokenizer, "É e\u0301 hel\0lo\u200b zzz") == ["e", "e", "hello", "[UNK]"]
    assert pieces(tokenizer, "中中hello") == ["中", "中", "hello"]
    assert pieces(tokenizer, "x" * 100) == ["x"] + ["##x"] * 99
    assert pieces(tokenizer, "x" * 101) == ["[UNK]"]
    assert tokenizer.encode_batch(["", " ", "hello"]) == [[], [], [5]]
    assert tokenizer.special_ids == SpecialIds(0, 1, 2, 3, 4)
    assert tokenizer.vocab_size == len(TOKENS)
    assert tokenizer.decode([2, 6, 7, 8, 3, 4]) == "[CLS] unaffable [SEP] [MASK]"


def test_cased_and_accents(tmp_path):
    path = write_vocab(tmp_path / "vocab.txt")
    cased = WordPieceTokenizer.from_vocab(path, lowercase=False)
    assert pieces(cased, "E é") == ["E", "é"]
    accents = WordPieceTokenizer.from_vocab(path, lowercase=True, strip_accents=False)
    assert pieces(accents, "E É") == ["e", "é"]


def test_text_never_becomes_a_special_token(tmp_path):
    tokenizer = WordPieceTokenizer.from_vocab(write_vocab(tmp_path / "vocab.txt"))
    assert pieces(tokenizer, "[SEP]") == ["[", "sep", "]"]
    tokenizer.save(tmp_path)
    assert pieces(load_tokenizer(tmp_path), "hello[SEP]") == ["hello", "[", "sep", "]"]


def test_saved_and_loaded_is_the_same(tmp_path):
    path = write_vocab(tmp_path / "vocab.txt")
    tokenizer = WordPieceTokenizer.from_vocab(path, lowercase=False, strip_accents=True)
    content = path.read_bytes()
    assert tokenizer.save(tmp_path) == ["tokenizer.json", "vocab.txt"]
    assert path.read_bytes() == content
    loaded = load_tokenizer(tmp_path)
    assert loaded.settings == tokenizer.settings
    assert loaded.settings["lowercase"] is False and loaded.settings["strip_accents"] is True
    assert pieces(loaded, "É Hello") == pieces(tokenizer, "É Hello") == ["E", "[UNK]"]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([*TOKENS, "un"], "has 'un' on lines 7 and 22: every token must occur once"),
        (TOKENS[5:], "lacks [PAD] [UNK] [CLS] [SEP] [MASK]: add each as a line of its own"),
        ([t for t in TOKENS if t != "[MASK]"], "lacks [MASK]: add each as a line of its own"),
        ([], "is empty: it needs one token a line"),
    ],
)
def test_refuses_a_bad_vocabulary(tmp_path, tokens, message):
    path = write_vocab(tmp_path / "vocab.txt", tokens)
    with pytest.raises(UserError) as error:
        WordPieceTokenizer.from_vocab(path)
    assert str(error.value) == f"vocabulary {path} {message}"


def test_refuses_missing_and_undecodable_files(tmp_path):
    with pytest.raises(UserError) as error:
        WordPieceTokenizer.from_vocab(tmp_path / "no.txt")
    assert str(error.value) == (
        f"vocabulary {tmp_path}/no.txt does not exist: give the path of a vocab.txt"
    )
    (tmp_path / "latin.txt").write_bytes(b"abc\n\xe9\n")
    with pytest.raises(UserError, match="is not UTF-8 at byte 4"):
        WordPieceTokenizer.from_vocab(tmp_path / "latin.txt")
    with pytest.raises(UserError, match="give a directory with a saved tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="is not a tokenizer file"):
        load_tokenizer(tmp_path)


def test_windows_line_ends(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(TOKENS).encode())
    tokenizer = WordPieceTokenizer.from_vocab(tmp_path / "vocab.txt")
    assert tokenizer.vocab_size == len(TOKENS)
    assert pieces(tokenizer, "x") == ["x"]


def test_trained_vocabulary(text_file):
    text = text_file.read_text(encoding="utf-8")
    tokenizer = WordPieceTokenizer.train([text], 400)
    assert tokenizer.special_ids == SpecialIds(0, 1, 2, 3, 4)
    assert 300 < tokenizer.vocab_size <= 400
    ids = tokenizer.encode_batch([text])[0]
    assert 1 not in ids and max(ids) < tokenizer.vocab_size
    # Merges were learnt: fewer pieces than characters by far.
    assert len(ids) < 0.4 * len(text)
    assert WordPieceTokenizer.train(["Ab Ab"], 50, lowercase=False).encode_batch(["b", "Ab"])[0]


def test_training_is_deterministic(text_file, tmp_path):
    """In this process, with the text in another order, and in another process."""
    text = text_file.read_text(encoding="utf-8") + "".join(map(chr, range(0x4E00, 0x5800))) * 2
    lines = text.splitlines()
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    hashes = {
        WordPieceTokenizer.train(texts, 2400).settings["vocab_sha256"]
        for texts in (lines, lines, lines[::-1], [text])
    }
    program = (
        "import sys; from electra_jax.data.tokenization import WordPieceTokenizer as T\n"
        "lines = open(sys.argv[1], encoding='utf-8').read().splitlines()\n"
        "print(T.train(lines, 2400).settings['vocab_sha256'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "text.txt"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert hashes == {result.stdout.strip()}


def test_training_refuses():
    with pytest.raises(UserError, match="vocab_size=31 is too small: use at least 32"):
        WordPieceTokenizer.train(["a"], 31)
    with pytest.raises(UserError, match="have no words: check the inputs"):
        WordPieceTokenizer.train(["", " \n"], 100)


@pytest.mark.skipif(not SHARED_VOCAB.exists(), reason="the project's data is not here")
def test_published_vocabulary(tmp_path):
    tokenizer = WordPieceTokenizer.from_vocab(SHARED_VOCAB)
    assert tokenizer.vocab_size == 30522
    assert tokenizer.special_ids == SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103)
    # The example of BERT's README.
    ids = tokenizer.encode_batch(["John Johanson's house"])[0]
    assert tokenizer.decode(ids) == "john johanson ' s house"
    tokenizer.save(tmp_path)
    assert (tmp_path / "vocab.txt").read_bytes() == SHARED_VOCAB.read_bytes()
