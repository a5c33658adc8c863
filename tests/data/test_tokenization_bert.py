"""WordPiece against BERT's tokenisation in plain Python, and against Hugging Face's.

Where they differ, it is in Unicode: `DIFFERENT` has every code point, by the reason.
"""

from __future__ import annotations

import importlib.util
import itertools
import lzma
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_text import nasty_lines

from electra_jax.data.tokenization import SPECIAL_TOKENS, WordPieceTokenizer

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
VOCAB = DATA / "vocab/vocab.txt"
needs_data = pytest.mark.skipif(not VOCAB.exists(), reason="the project's data is not here")
needs_unicode_14 = pytest.mark.skipif(
    unicodedata.unidata_version != "14.0.0", reason="written for the Unicode tables of Python 3.11"
)
# (lowercase, strip_accents)
SETTINGS = [(True, None), (True, False), (False, None), (False, True)]

# The library's tables are those of Unicode 8, with two slips; Python 3.11's are of Unicode 14.
DIFFERENT = {
    # Punctuation marks that are new, and one that is none any more: not split off, or split off.
    "punctuation": (
        "61D 9FD A76 C77 C84 1B7D-1B7E 2E43-2E4F 2E52-2E5D 10EAD 10F55-10F59 10F86-10F89 "
        "1144B-1144F 1145A-1145B 1145D 11660-1166C 116B9 1183B 11944-11946 119E2 11A3F-11A46 "
        "11A9A-11A9C 11A9E-11AA2 11C41-11C45 11C70-11C71 11EF7-11EF8 11FFF 12FF1-12FF2 "
        "16E97-16E9A 16FE2 1E95E-1E95F 166D 111C9"
    ),
    # Format characters that are new: not dropped.
    "format": "890-891 8E2 110CD 13430-13438",
    # Ideographs of extension E before 2B920, where the library's block begins: not split off.
    "ideographs": "2B820-2B91F",
}
# Where accents are stripped: marks that are new, and two that are no accents any more.
DIFFERENT_ACCENTS = (
    "7FD 898-89F 8CA-8E1 9FE AFA-AFF B55 C04 C3C D00 D3B-D3C D81 EBA 180F 1885-1886 1ABF-1ACE "
    "1DF6-1DFB A82C A8C5 A8FF A9BD 10D24-10D27 10EAB-10EAC 10F46-10F50 10F82-10F85 11070 "
    "11073-11074 110C2 111CF 1123E 1133B 11438-1143F 11442-11444 11446 1145E 1182F-11837 "
    "11839-1183A 1193B-1193C 1193E 11943 119D4-119D7 119DA-119DB 119E0 11A01-11A0A 11A33-11A38 "
    "11A3B-11A3E 11A47 11A51-11A56 11A59-11A5B 11A8A-11A96 11A98-11A99 11C30-11C36 11C38-11C3D "
    "11C3F 11C92-11CA7 11CAA-11CB0 11CB2-11CB3 11CB5-11CB6 11D31-11D36 11D3A 11D3C-11D3D "
    "11D3F-11D45 11D47 11D90-11D91 11D95 11D97 11EF3-11EF4 16F4F 16FE4 1CF00-1CF2D 1CF30-1CF46 "
    "1E000-1E006 1E008-1E018 1E01B-1E021 1E023-1E024 1E026-1E02A 1E130-1E136 1E2AE 1E2EC-1E2EF "
    "1E944-1E94A 1734 11938"
)


def code_points(ranges: str) -> set[int]:
    codes = set()
    for item in ranges.split():
        first, _, last = item.partition("-")
        codes.update(range(int(first, 16), int(last or first, 16) + 1))
    return codes


CHANGED = set().union(*map(code_points, DIFFERENT.values()))
CHANGED_ACCENTS = CHANGED | code_points(DIFFERENT_ACCENTS)


def is_different(character: str, strips: bool) -> bool:
    """Whether the two tokenise a character otherwise: one of the above, or an unassigned one,
    non-characters among them, which plain Python drops."""
    code = ord(character)
    return code in (CHANGED_ACCENTS if strips else CHANGED) or (
        unicodedata.category(character) == "Cn"
    )


# Python's lower() writes a capital sigma at the end of a word as a final one; the library does not.
CAPITAL_SIGMA = "Σ"


def may_differ(line: str, lowercase: bool, strip_accents: bool | None) -> bool:
    strips = lowercase if strip_accents is None else strip_accents
    different = any(is_different(c, strips) for c in set(line) if ord(c) >= 0x80)
    return different or (lowercase and CAPITAL_SIGMA in line)


@pytest.fixture(scope="module")
def plain():
    spec = importlib.util.spec_from_file_location(
        "plain_builder", ROOT / "benchmarks/plain_builder.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def letters_file(tmp_path_factory):
    """A vocabulary of single characters, so that no difference hides behind [UNK]."""
    characters = sorted(set("".join(nasty_lines())) | set(map(chr, range(0x21, 0x250))))
    characters = [c for c in characters if not c.isspace() and c not in "\x85\x1c\x1d\x1e"]
    path = tmp_path_factory.mktemp("letters") / "vocab.txt"
    tokens = [*SPECIAL_TOKENS, *characters, *("##" + character for character in characters)]
    path.write_text("".join(token + "\n" for token in tokens), encoding="utf-8")
    return path


def read_vocab(path):
    tokens = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return {token: i for i, token in enumerate(tokens)}


def real_lines(patterns, lines_per_file):
    for pattern in patterns:
        for path in sorted(DATA.glob(pattern)):
            is_packed = path.suffix == ".xz"
            with (lzma.open if is_packed else open)(path, "rt", encoding="utf-8") as file:
                lines = (line.rstrip("\n") for line in file if line.strip())
                yield from itertools.islice(lines, lines_per_file)


def ids_of_lines(tokenizer, lines):
    ids, lengths = tokenizer.encode_flat(lines)
    return np.split(ids, np.cumsum(lengths)[:-1])


def differing_lines(ours, others, lines):
    return [
        line
        for line, own, other in zip(lines, ours, others, strict=True)
        if own.tolist() != list(other)
    ]


def lines_unlike_plain(plain, vocab_file, lines, lowercase, strip_accents):
    vocab = read_vocab(vocab_file)
    tokenizer = WordPieceTokenizer.from_vocab(vocab_file, lowercase, strip_accents)
    others = (
        [vocab[piece] for piece in plain.plain_tokenize(line, vocab, lowercase, strip_accents)]
        for line in lines
    )
    return differing_lines(ids_of_lines(tokenizer, lines), others, lines)


@pytest.mark.parametrize(("lowercase", "strip_accents"), SETTINGS)
def test_nasty_lines_are_as_in_plain_python(plain, letters_file, lowercase, strip_accents):
    lines = nasty_lines()
    same = [line for line in lines if not may_differ(line, lowercase, strip_accents)]
    assert len(lines) - 20 < len(same) < len(lines)
    assert not lines_unlike_plain(plain, letters_file, same, lowercase, strip_accents)


@pytest.mark.parametrize(("lowercase", "strip_accents"), SETTINGS)
def test_any_text_is_as_in_plain_python(plain, letters_file, lowercase, strip_accents):
    strips = lowercase if strip_accents is None else strip_accents
    vocab = read_vocab(letters_file)
    letters = [piece for piece in vocab if len(piece) == 1]
    characters = st.one_of(st.sampled_from(letters + [" "] * 50), st.characters()).filter(
        lambda c: not is_different(c, strips) and not (lowercase and c == CAPITAL_SIGMA)
    )
    tokenizer = WordPieceTokenizer.from_vocab(letters_file, lowercase, strip_accents)

    @settings(max_examples=300, deadline=None)
    @given(st.text(characters, max_size=30))
    def check(text):
        pieces = plain.plain_tokenize(text, vocab, lowercase, strip_accents)
        assert tokenizer.encode_batch([text])[0] == [vocab[piece] for piece in pieces]

    check()


def words_of_library(tokenizer, text):
    backend = tokenizer._backend
    normalized = backend.normalizer.normalize_str(text)
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized)]


def check_code_points(plain, letters_file, codes, lowercase, strip_accents):
    tokenizer = WordPieceTokenizer.from_vocab(letters_file, lowercase, strip_accents)
    strips = lowercase if strip_accents is None else strip_accents
    wrong = [
        code
        for code in codes
        if not 0xD800 <= code < 0xE000
        and is_different(chr(code), strips)
        == (
            words_of_library(tokenizer, f"a{chr(code)}b")
            == plain.plain_words(f"a{chr(code)}b", lowercase, strip_accents)
        )
    ]
    assert [hex(code) for code in wrong[:20]] == []


@needs_unicode_14
@pytest.mark.parametrize(("lowercase", "strip_accents"), SETTINGS[:3:2])
def test_code_points_that_differ(plain, letters_file, lowercase, strip_accents):
    """Those that are listed differ, and no other does."""
    # Every one of most blocks, some of the long ones.
    codes = [*range(0x3400), *range(0x3400, 0xFB00, 7), *range(0xFB00, 0x13000)]
    codes += [*range(0x13000, 0x32000, 5), *range(0xE0000, 0xE0200)]
    codes += sorted(CHANGED_ACCENTS - set(codes))
    codes += [plane + end for plane in range(0x30000, 0x110000, 0x10000) for end in (0, 0xFFFF)]
    check_code_points(plain, letters_file, codes, lowercase, strip_accents)


@needs_unicode_14
@pytest.mark.slow
@pytest.mark.parametrize(("lowercase", "strip_accents"), SETTINGS)
def test_all_code_points_that_differ(plain, letters_file, lowercase, strip_accents):
    check_code_points(plain, letters_file, range(0x110000), lowercase, strip_accents)


def test_final_sigma_differs(plain, letters_file):
    tokenizer = WordPieceTokenizer.from_vocab(letters_file)
    assert words_of_library(tokenizer, "ΑΣ Σ.") == ["ασ", "σ", "."]
    assert plain.plain_words("ΑΣ Σ.") == ["ας", "σ", "."]
    # Text that has the final form already keeps it in both.
    assert words_of_library(tokenizer, "ας") == plain.plain_words("ας") == ["ας"]


@needs_data
@pytest.mark.parametrize(("lowercase", "strip_accents"), SETTINGS)
def test_real_lines_are_as_in_plain_python(plain, lowercase, strip_accents):
    lines = real_lines(("wikipedia_en/*.xz", "wikitext-2/*.txt"), 40)
    lines = [*lines, *real_lines(("books_en/*.xz",), 10)]
    assert len(lines) > 1600
    assert not lines_unlike_plain(plain, VOCAB, lines, lowercase, strip_accents)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("lowercase", "strip_accents"), SETTINGS)
def test_100_000_real_lines_are_as_in_plain_python(plain, lowercase, strip_accents):
    lines = list(real_lines(("wikipedia_en/*.xz", "wikitext-2/*.txt"), 3300))
    lines += real_lines(("books_en/*.xz",), 500)
    assert len(lines) > 100_000
    different = lines_unlike_plain(plain, VOCAB, lines[:100_000], lowercase, strip_accents)
    assert [line for line in different if not may_differ(line, lowercase, strip_accents)] == []
    assert len(different) < 10


@needs_data
@pytest.mark.parametrize(("lowercase", "strip_accents"), SETTINGS)
def test_lines_are_as_in_transformers(lowercase, strip_accents):
    """Version 5 runs the same library; version 4 is plain Python, with rules of its own."""
    transformers = pytest.importorskip("transformers")
    is_plain = transformers.__version__.startswith("4.")
    # The argument has been renamed.
    argument = {"vocab_file" if is_plain else "vocab": str(VOCAB)}
    other = transformers.BertTokenizer(
        **argument, do_lower_case=lowercase, strip_accents=strip_accents
    )
    lines = [*nasty_lines(), *real_lines(("wikipedia_en/*.xz",), 100)]
    tokenizer = WordPieceTokenizer.from_vocab(VOCAB, lowercase, strip_accents)
    others = (
        other.convert_tokens_to_ids(other.tokenize(line, split_special_tokens=True))
        for line in lines
    )
    different = differing_lines(ids_of_lines(tokenizer, lines), others, lines)
    if not is_plain:
        assert different == []
        return
    strips = lowercase if strip_accents is None else strip_accents
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    for line in different:
        assert (
            any(is_different(character, strips) for character in line)
            # It takes a special token between spaces for one.
            or special.search(line)
            # It composes letters and marks first.
            or (not strips and not unicodedata.is_normalized("NFC", line))
        ), line
    assert len(different) < 20
