from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data.sentences import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["One sentence."],
        ["It rains.", "We stay."],
        ["Does it?", "It does!", "Well…", "Then."],
        ['He said "Go."', "Then he went."],
        ["He left (at once.)", '"Why?" she asked.', "“No.”", "(Perhaps.)"],
        ["It was 1984.", "1985 followed."],
        ["Mr. Smith met Dr. Jones, e.g. J. R. Smith, of the U.S. Navy.", "They talked."],
        ["See Fig. 3 and vol. 2 of it.", "It is 3.14 or so. and more."],
        ["Élan vital.", "Über alles.", "Это так.", "И это.", "Abc. étude"],
        ["これは文です。", "次の文です。", "「はい。」", "終わり"],
        ["真的吗？", "真的！", "好。"],
        ["Then.", "No stop at the end"],
        ["Wait...", "What?!", "Yes."],
    ],
)
def test_splits(sentences):
    joined = "" if re.match("[「これ真]", sentences[0]) else " "
    assert split_sentences(joined.join(sentences)) == sentences


def test_blank_text_has_no_sentences():
    assert split_sentences("") == split_sentences(" \t\n") == []


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("aBé1 .!?…。」\"')(\n\t\u3000\u00a0MrİßU")))
def test_only_white_space_is_lost(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    position = 0
    for sentence in sentences:
        assert sentence and sentence == sentence.strip()
        position = text.index(sentence, position) + len(sentence)


@settings(deadline=None)
@given(st.text())
def test_any_text_survives(text):
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def test_time_is_linear():
    """A long run of what could be part of a boundary must not be searched again and again."""
    for text in ("." * 200_000, ".) " * 70_000, '."' * 100_000 + "a", "。」" * 100_000):
        begin = time.perf_counter()
        split_sentences(text)
        assert time.perf_counter() - begin < 3.0
