from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_text import nasty_lines

from electra_jax.data.tokenization import (
    SPECIAL_TOKENS,
    WordPieceTokenizer,
    chunks,
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


# Every letter is a piece, so that no difference in the text hides behind [UNK].
LETTERS = [chr(code) for code in range(33, 127)] + [
    *"éßıσςāабвгאבגابج中国한글ᄒ\u0301\u0323\u0338\U00020000"
]
SETTINGS = [(True, None), (True, False), (False, None), (False, True)]
AWKWARD = [
    *"\0 \n,.[]\"'-():Σİé中\u0301\u0338\u2028\xa0\ud800\U00020000\ufffd",
    "x" * 101,
    "ab" * 40,
]
TEXTS = st.lists(
    st.one_of(st.sampled_from([*AWKWARD, *SPECIAL_TOKENS]), st.characters(), st.text(max_size=5)),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def letters_file(tmp_path_factory):
    tokens = [*SPECIAL_TOKENS, *LETTERS, *("##" + letter for letter in LETTERS), "the", "##ing"]
    return write_vocab(tmp_path_factory.mktemp("letters") / "vocab.txt", tokens)


def assert_flat_is_the_batch(tokenizer, texts):
    expected = tokenizer.encode_batch(texts)
    ids, lengths = tokenizer.encode_flat(texts)
    assert lengths.dtype == np.int64 and lengths.tolist() == [len(text) for text in expected]
    assert ids.dtype.kind == "u" and ids.tolist() == [i for text in expected for i in text]


@pytest.mark.parametrize(("lowercase", "strip_accents"), SETTINGS)
def test_flat_equals_batch_on_any_text(letters_file, lowercase, strip_accents):
    tokenizer = WordPieceTokenizer.from_vocab(letters_file, lowercase, strip_accents)
    assert_flat_is_the_batch(tokenizer, nasty_lines())
    assert_flat_is_the_batch(tokenizer, [])

    @settings(max_examples=150, deadline=None)
    @given(st.lists(TEXTS, max_size=5))
    def check(texts):
        assert_flat_is_the_batch(tokenizer, texts)

    check()


def test_flat_equals_batch_on_ordinary_text(text_file, vocab_file):
    tokenizer = WordPieceTokenizer.from_vocab(vocab_file)
    lines = text_file.read_text(encoding="utf-8").splitlines()
    ids, lengths = tokenizer.encode_flat(lines)
    assert ids.dtype == np.uint16 and len(lengths) == len(lines) and lengths.sum() == len(ids)
    assert_flat_is_the_batch(tokenizer, lines)
    # From the cache, in another order, and in one text.
    assert_flat_is_the_batch(tokenizer, lines[::-1])
    assert_flat_is_the_batch(tokenizer, [" ".join(lines)])


@pytest.mark.parametrize(
    "limits", [{"_MAX_CHUNKS": 50}, {"_MAX_IDS": 50}, {"_SLICE": 100}, {"_MAX_CHARACTERS": 3}]
)
def test_bounds_of_the_cache_change_nothing(text_file, vocab_file, monkeypatch, limits):
    for name, value in limits.items():
        monkeypatch.setattr(chunks, name, value)
    tokenizer = WordPieceTokenizer.from_vocab(vocab_file)
    lines = text_file.read_text(encoding="utf-8").splitlines()
    for start in range(0, len(lines), 30):
        assert_flat_is_the_batch(tokenizer, lines[start : start + 30])


def test_the_cache_is_bounded(vocab_file, monkeypatch):
    monkeypatch.setattr(chunks, "_MAX_CHUNKS", 500)
    sizes = []
    tokenizer = WordPieceTokenizer.from_vocab(vocab_file)
    for start in range(0, 3000, 100):
        numbers = range(start, start + 100)
        tokenizer.encode_flat([f"word{number} {'long' * 20}{number}" for number in numbers])
        cache = tokenizer._chunks
        sizes.append((len(cache._numbers), len(cache._offsets), len(cache._ids)))
        assert not any("long" in chunk for chunk in cache._numbers)
    # A batch that finds the cache not full adds 200 chunks of up to 100 ids; tables double.
    assert np.all(np.max(sizes, axis=0) < [500, 2 * 700, 2 * 700 * 100])


def test_an_interrupted_batch_leaves_nothing_wrong(vocab_file, monkeypatch):
    tokenizer = WordPieceTokenizer.from_vocab(vocab_file)
    tokenizer.encode_flat(["bada beda"])
    with monkeypatch.context() as patched:
        patched.setattr(tokenizer._chunks, "_encode", lambda chunks: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tokenizer.encode_flat(["gada geda bada"])
    assert_flat_is_the_batch(tokenizer, ["gada geda bada", "beda gada"])


def test_ids_beyond_16_bits(tmp_path):
    tokens = [*SPECIAL_TOKENS, *(f"w{number}" for number in range(70_000))]
    tokenizer = WordPieceTokenizer.from_vocab(write_vocab(tmp_path / "vocab.txt", tokens))
    ids, _ = tokenizer.encode_flat(["w1 w69999, w65531"])
    assert ids.dtype == np.uint32 and ids.tolist() == [6, 70_004, 1, 65_536]


def test_lone_surrogates_are_dropped_like_other_control_characters(tmp_path):
    tokenizer = WordPieceTokenizer.from_vocab(write_vocab(tmp_path / "vocab.txt"))
    texts = ["hel\ud800lo", "\udfff", "un"]
    assert tokenizer.encode_batch(texts) == tokenizer.encode_batch(["hello", "", "un"])
    assert_flat_is_the_batch(tokenizer, texts)
    assert WordPieceTokenizer.train(texts * 2, 50).encode_batch(["hello"]) != [[1]]


def test_a_copy_is_the_same(tmp_path):
    tokenizer = WordPieceTokenizer.from_vocab(write_vocab(tmp_path / "vocab.txt"), False, True)
    copied = copy.deepcopy(tokenizer)
    assert copied.settings == tokenizer.settings
    assert pieces(copied, "É [SEP] Hello") == pieces(tokenizer, "É [SEP] Hello")


def saved_json(tmp_path, **changes):
    """A tokenizer.json with "part.key" or "part" set to other values."""
    WordPieceTokenizer.from_vocab(write_vocab(tmp_path / "vocab.txt")).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *parts, key = name.split(".")
        part = content
        for name in parts:
            part = part[name]
        part[key] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_tokenizer_file_of_other_programs(tmp_path):
    """What it says of templates, truncation and padding does not matter here."""
    path = saved_json(
        tmp_path,
        truncation={
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        padding={
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    )
    tokenizer = WordPieceTokenizer.from_json(path)
    text = "Hello unaffable World! [SEP]"
    assert pieces(tokenizer, text) == (
        pieces(WordPieceTokenizer.from_vocab(tmp_path / "vocab.txt"), text)
    )
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).settings == tokenizer.settings


def added(content):
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    return {"id": 3, "content": content, "special": True} | dict.fromkeys(flags, False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pre_tokenizer.type", "Whitespace", "pre_tokenizer.type='Whitespace'"),
        ("pre_tokenizer", None, "pre_tokenizer.type=None"),
        ("normalizer", None, "normalizer.type=None, normalizer.clean_text=None"),
        ("normalizer.clean_text", False, "normalizer.clean_text=False"),
        ("model.type", "BPE", "model.type='BPE'"),
        ("model.continuing_subword_prefix", "", "model.continuing_subword_prefix=''"),
        ("model.max_input_chars_per_word", 200, "model.max_input_chars_per_word=200"),
        ("added_tokens", [added("<eos>")], "added token '<eos>'"),
        ("model.vocab", {"[PAD]": 0, "a": 7}, "ids with gaps"),
    ],
)
def test_refuses_a_tokenizer_file_that_splits_otherwise(tmp_path, name, value, message):
    path = saved_json(tmp_path, **{name: value})
    with pytest.raises(UserError) as error:
        WordPieceTokenizer.from_json(path)
    assert str(error.value).startswith(f"{path} is not a WordPiece tokenizer as BERT's ({message}")
    assert str(error.value).endswith("): give a vocab.txt or a .model")


MIXED_IDS = '{"model": {"vocab": {"a": null, "b": 1}}, "added_tokens": [], "normalizer": {}}'


@pytest.mark.parametrize(
    "content", ["[]", "{}", "null", '{"model": {"vocab": []}}', "\xff", MIXED_IDS]
)
def test_refuses_what_is_no_tokenizer_file(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="tokenizer.json is not a tokenizer file .*save it again"):
        WordPieceTokenizer.from_json(tmp_path / "tokenizer.json")


def test_refuses_a_tokenizer_file_without_special_tokens(tmp_path):
    path = saved_json(tmp_path, added_tokens=[])
    content = json.loads(path.read_text())
    content["model"]["vocab"] = {"[PAD]": 0, "[UNK]": 1, "a": 2}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        WordPieceTokenizer.from_json(path)
    assert str(error.value) == (f"{path} lacks [CLS] [SEP] [MASK]: add each to its vocabulary")
