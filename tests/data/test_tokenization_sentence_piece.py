from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_text import nasty_lines

from electra_jax.data.tokenization import (
    SPECIAL_TOKENS,
    SentencePieceTokenizer,
    load_tokenizer,
)
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds

KINDS = ("sentencepiece-unigram", "sentencepiece-bpe")
# Text of the characters that the tests below write, so that none of them is unknown.
LETTERS = "abcdefghijklmnopqrstuvwxyz ABC [ ] < > / . , ! ' é ü 1 2 3 # _ \n" * 200


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def lines(text_file):
    return [*text_file.read_text(encoding="utf-8").splitlines(), *LETTERS.splitlines()]


@pytest.fixture(scope="module")
def trained(kind, lines):
    return SentencePieceTokenizer.train(lines, 400, kind=kind)


def pieces(tokenizer, text):
    return [tokenizer.decode([i]) for i in tokenizer.encode_batch([text])[0]]


def given_model(lines, path, **options):
    """A model as other programs train them."""
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=output,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"vocab_size": 300, "model_type": "bpe"} | options,
    )
    path.write_bytes(output.getvalue())
    return path


def test_trained_model(kind, trained, lines):
    assert trained.special_ids == SpecialIds(0, 1, 2, 3, 4)
    assert 300 < trained.vocab_size <= 400
    assert trained.settings["kind"] == kind and trained.settings["lowercase"] is True
    ids, lengths = trained.encode_flat(lines)
    # Pieces were learnt, none of the text is unknown, and nothing is lost but case.
    assert ids.max() < trained.vocab_size and not np.isin(ids, trained.special_ids).any()
    assert len(ids) < 0.5 * sum(map(len, lines))
    decoded = [trained.decode(text) for text in np.split(ids, np.cumsum(lengths)[:-1])]
    assert decoded[:100] == [line.lower() for line in lines[:100]]


def test_flat_equals_batch_on_any_text(trained):
    def check(texts):
        expected = trained.encode_batch(texts)
        ids, lengths = trained.encode_flat(texts)
        assert ids.dtype == np.uint16 and lengths.dtype == np.int64
        assert lengths.tolist() == [len(text) for text in expected]
        assert ids.tolist() == [i for text in expected for i in text]
        # All of it is text.
        assert not np.isin(ids, np.delete(trained.special_ids, 1)).any()

    check([])
    check([*nasty_lines(), *(chr(code) for code in range(0x300))])
    settings(max_examples=100, deadline=None)(given(st.lists(st.text(st.characters())))(check))()


@pytest.mark.parametrize("texts", [["ab\ud800cd", "\udfff", "ab"], ["ab\ud800cd"]])
def test_lone_surrogates_are_replacement_characters(trained, texts):
    replaced = [text.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd") for text in texts]
    assert trained.encode_batch(texts) == trained.encode_batch(replaced)
    assert SentencePieceTokenizer.train(texts * 9, 40).vocab_size > 5


@pytest.mark.parametrize("lowercase", [True, False])
def test_text_never_becomes_a_special_token(kind, lines, lowercase):
    tokenizer = SentencePieceTokenizer.train(lines, 200, lowercase, kind)
    spelled = [*SPECIAL_TOKENS, "<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    for text in [*spelled, "a[SEP]", "[SEP]a", "[ＳＥＰ]", " ".join(spelled)]:
        ids = tokenizer.encode_batch([text])[0]
        assert ids and not set(ids) & set(tokenizer.special_ids) - {tokenizer.special_ids.unk}
    if lowercase:
        ids = tokenizer.encode_batch(spelled)
        assert not any(set(text) & set(tokenizer.special_ids) for text in ids)
        assert [tokenizer.decode(text) for text in ids] == [text.lower() for text in spelled]


def test_normalisation(kind, trained, lines):
    assert trained.encode_batch(["ＡＢＣ\u3000ﬁé"]) == trained.encode_batch(["abc fie\u0301"])
    assert trained.encode_batch(["abc é"]) != trained.encode_batch(["abc e"])
    cased = SentencePieceTokenizer.train(lines, 200, lowercase=False, kind=kind)
    assert cased.settings["lowercase"] is False
    assert cased.encode_batch(["ABC"]) != cased.encode_batch(["abc"])
    assert cased.decode(cased.encode_batch(["Ａbc"])[0]) == "Abc"


def test_decode_spells_special_tokens_out(trained):
    ids = [2, *trained.encode_batch(["bada beda."])[0], 3, 4, 1, 0]
    assert trained.decode(ids) == "[CLS] bada beda. [SEP] [MASK] [UNK] [PAD]"
    assert trained.decode(np.array(ids, np.uint16)) == trained.decode(ids)
    assert trained.decode([]) == ""


def test_saved_and_loaded_is_the_same(trained, tmp_path):
    assert trained.save(tmp_path) == ["tokenizer.model", "tokenizer_settings.json"]
    for other in (load_tokenizer(tmp_path), copy.deepcopy(trained)):
        assert other.settings == trained.settings
        assert other.encode_batch(nasty_lines()) == trained.encode_batch(nasty_lines())
    # A directory with the model alone, from elsewhere.
    (tmp_path / "tokenizer_settings.json").unlink()
    bare = load_tokenizer(tmp_path)
    assert bare.settings == trained.settings | {"kind": "sentencepiece", "lowercase": None}


def test_training_is_deterministic(kind, trained, lines, tmp_path):
    """With the texts in another order and otherwise cut, and in another process on one core."""
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    for texts in (lines[::-1], [" ".join(lines)]):
        assert SentencePieceTokenizer.train(texts, 400, kind=kind).settings == trained.settings
    program = (
        "import os, sys; from electra_jax.data.tokenization import SentencePieceTokenizer as T\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "lines = open(sys.argv[1], encoding='utf-8').read().split('\\n')\n"
        "print(T.train(lines, 400, kind=sys.argv[2]).settings['model_sha256'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "text.txt", kind],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.stdout.strip() == trained.settings["model_sha256"]
    assert result.stderr == ""


def test_long_texts_are_trained_on(kind, lines):
    """Without white space, and so longer than the library takes; with it, see above."""
    run = "".join("".join(lines[:-200]).split()).lower()
    assert len(run) > 10_000
    tokenizer = SentencePieceTokenizer.train([run], 300, kind=kind)
    ids = tokenizer.encode_batch([run])[0]
    assert len(ids) < 0.6 * len(run) and not set(ids) & set(tokenizer.special_ids)


def test_training_is_silent(kind, lines, capfd):
    SentencePieceTokenizer.train(lines[:50], 100, kind=kind)
    assert capfd.readouterr() == ("", "")


def test_a_vocabulary_is_no_larger_than_the_text_allows(kind):
    tokenizer = SentencePieceTokenizer.train(["hello world hello word"] * 3, 5000, kind=kind)
    assert 5 + len(set("helowrd▁")) <= tokenizer.vocab_size < 60
    assert tokenizer.decode(tokenizer.encode_batch(["Hello word"])[0]) == "hello word"


def test_rare_characters_are_pieces_while_there_is_room(kind):
    """0.9995 of the text are two letters, but a vocabulary of 400 has room for 25 characters."""
    texts = ["ab " * 20_000 + "çêîôû"]
    tokenizer = SentencePieceTokenizer.train(texts, 400, kind=kind)
    assert 1 not in tokenizer.encode_batch(["çêîôû"])[0]
    common = "".join(map(chr, range(0x4E00, 0x4E10))) * 1000
    rare = "".join(map(chr, range(0x5000, 0x5100)))
    tokenizer = SentencePieceTokenizer.train([common, rare], 400, kind=kind)
    assert 1 not in tokenizer.encode_batch([common])[0]
    assert 1 in tokenizer.encode_batch([rare])[0]


def test_training_refuses(kind):
    with pytest.raises(UserError, match="vocab_size=31 is too small: use at least 32"):
        SentencePieceTokenizer.train(["a"], 31, kind=kind)
    for texts in ([], ["", " \n"], ["\0\x01\u200b"]):
        with pytest.raises(UserError, match="have no words: check the inputs"):
            SentencePieceTokenizer.train(texts, 100, kind=kind)
    ideographs = ["".join(map(chr, range(0x4E00, 0x5000)))] * 2
    with pytest.raises(UserError) as error:
        SentencePieceTokenizer.train(ideographs, 400, kind=kind)
    assert str(error.value) == (
        "vocab_size=400 is too small for texts with 503 common characters: use at least 1006"
    )
    assert SentencePieceTokenizer.train(ideographs, 1006, kind=kind).vocab_size <= 1006


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"], "pad_id": 3, "unk_id": 0},
            SpecialIds(pad=3, unk=0, cls=4, sep=5, mask=6),
        ),
        (
            {"control_symbols": ["<pad>", "<mask>", "<sep>", "<cls>"]},
            SpecialIds(pad=3, unk=0, cls=6, sep=5, mask=4),
        ),
        (
            {
                "control_symbols": ["[PAD]", "[CLS]", "[SEP]"],
                "user_defined_symbols": ["[MASK]"],
                "bos_id": -1,
                "eos_id": -1,
            },
            SpecialIds(pad=1, unk=0, cls=2, sep=3, mask=4),
        ),
    ],
)
def test_special_tokens_of_a_given_model(lines, tmp_path, options, expected):
    path = given_model(lines, tmp_path / "a.model", **options)
    tokenizer = SentencePieceTokenizer.from_model(path)
    assert tokenizer.special_ids == expected
    assert tokenizer.settings["kind"] == "sentencepiece" and tokenizer.settings["lowercase"] is None
    assert tokenizer.decode(expected) == " ".join(SPECIAL_TOKENS)
    ids = tokenizer.encode_batch(["[MASK] a[MASK] [CLS]<sep> [PAD]"])[0]
    assert not set(ids) & set(expected._replace(unk=-1))
    # Its own normalisation: no case folding by default.
    assert tokenizer.encode_batch(["ABC"]) != tokenizer.encode_batch(["abc"])
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).settings == tokenizer.settings
    assert (tmp_path / "tokenizer.model").read_bytes() == path.read_bytes()


def test_control_symbols_of_a_given_model_are_spelled_out(lines, tmp_path):
    path = given_model(lines, tmp_path / "a.model", control_symbols=["<pad>", *SPECIAL_TOKENS[2:]])
    tokenizer = SentencePieceTokenizer.from_model(path)
    ids = [1, *tokenizer.encode_batch(["bada"])[0], 2]
    assert tokenizer.decode(ids) == "<s> bada </s>"


def test_refuses_a_model_without_special_tokens(lines, tmp_path):
    path = given_model(lines, tmp_path / "a.model", control_symbols=["<cls>"])
    with pytest.raises(UserError) as error:
        SentencePieceTokenizer.from_model(path)
    assert str(error.value) == (
        f"model {path} lacks [PAD] [SEP] [MASK]: train one with --train-tokenizer, or train the "
        "model again with --control_symbols=[PAD],[SEP],[MASK]"
    )


def test_refuses_missing_and_damaged_models(trained, tmp_path):
    with pytest.raises(UserError) as error:
        SentencePieceTokenizer.from_model(tmp_path / "no.model")
    assert str(error.value) == (
        f"model {tmp_path}/no.model does not exist: give the path of a SentencePiece .model"
    )
    trained.save(tmp_path)
    content = (tmp_path / "tokenizer.model").read_bytes()
    path = tmp_path / "bad.model"
    for damaged in (b"", b"hello", content[:-1], content[:100], b"\0" + content, b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(UserError) as error:
            SentencePieceTokenizer.from_model(path)
        assert str(error.value).startswith(f"model {path} is not a SentencePiece model (")
        assert str(error.value).endswith("): give another copy of it")
        assert "\n" not in str(error.value)


def test_refuses_a_saved_tokenizer_that_has_changed(trained, tmp_path):
    trained.save(tmp_path)
    model, settings = tmp_path / "tokenizer.model", tmp_path / "tokenizer_settings.json"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError) as error:
        load_tokenizer(tmp_path)
    assert str(error.value) == (f"{model} has changed since it was saved: save the tokenizer again")
    model.unlink()
    with pytest.raises(UserError, match="tokenizer.model does not exist: save the tokenizer again"):
        load_tokenizer(tmp_path)
    for content in ("", "[]", "{}", json.dumps({"kind": "sentencepiece"})):
        settings.write_text(content)
        with pytest.raises(UserError, match="settings.json is not a tokenizer file .*save it"):
            load_tokenizer(tmp_path)
    assert os.listdir(tmp_path) == ["tokenizer_settings.json"]
