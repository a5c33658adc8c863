"""BERT's tokenisation in plain Python, one rule after the other, as the original does it.

Slow and obvious on purpose: the tests compare `electra_jax.data.tokenization` with it, and the
speed benchmark takes it as the baseline. It depends on nothing but Python's own Unicode tables.
"""

from __future__ import annotations

import random
import struct
import unicodedata
from collections.abc import Container, Iterable
from pathlib import Path

# Ideographs, each of which is a word: the blocks of the original.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def plain_tokenize(
    text: str,
    vocab: Container[str],
    lowercase: bool = True,
    strip_accents: bool | None = None,
    max_word_characters: int = 100,
) -> list[str]:
    """The pieces of a text.

    Args:
      text: any text; lone surrogates are dropped as control characters are.
      vocab: the pieces, those inside a word with "##" before them.
      lowercase: whether the text is lower-cased.
      strip_accents: whether accents are removed; None means as `lowercase` says.
      max_word_characters: a longer word is [UNK].

    Returns:
      Pieces, each of them in the vocabulary or "[UNK]".
    """
    pieces = []
    for word in plain_words(text, lowercase, strip_accents):
        pieces += _pieces_of_word(word, vocab, max_word_characters)
    return pieces


def build_plainly(
    paragraphs: Iterable[str], vocab_file: str | Path, output: Path, seq_len: int = 128
) -> int:
    """Writes examples as the original's builder does, one paragraph after another.

    Tokens are gathered until there are enough for an example, cut in two segments, padded, and
    written as 32-bit integers: ids, mask and segments. Returns the number of examples.
    """
    lines = Path(vocab_file).read_text(encoding="utf-8").splitlines()
    vocab = {token: number for number, token in enumerate(lines)}
    cls, sep = vocab["[CLS]"], vocab["[SEP]"]
    count = 0
    with output.open("wb") as file:
        sentences: list[list[int]] = []
        for paragraph in paragraphs:
            sentences.append([vocab[piece] for piece in plain_tokenize(paragraph, vocab)])
            if sum(map(len, sentences)) < seq_len:
                continue
            target = 100000 if random.random() < 0.1 else (seq_len - 3) // 2
            first: list[int] = []
            second: list[int] = []
            for sentence in sentences:
                if not first or len(first) + len(sentence) < target:
                    first += sentence
                else:
                    second += sentence
            first = first[: seq_len - 2]
            second = second[: max(0, seq_len - len(first) - 3)]
            ids = [cls, *first, sep]
            segments = [0] * len(ids)
            if second:
                ids += [*second, sep]
                segments += [1] * (len(second) + 1)
            padding = [0] * (seq_len - len(ids))
            row = [*ids, *padding, *[1] * len(ids), *padding, *segments, *padding]
            file.write(struct.pack(f"{len(row)}i", *row))
            count += 1
            sentences = []
    return count


def plain_words(text: str, lowercase: bool = True, strip_accents: bool | None = None) -> list[str]:
    """The words of a text before they are cut into pieces; punctuation marks are words."""
    if strip_accents is None:
        strip_accents = lowercase
    words = []
    for word in _spaced(text).split():
        if lowercase:
            word = word.lower()
        if strip_accents:
            decomposed = unicodedata.normalize("NFD", word)
            word = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        words += _split_at_punctuation(word)
    return words


def _spaced(text: str) -> str:
    """Without control characters, white space made spaces, and spaces around ideographs."""
    characters = []
    for character in text:
        if _is_space(character):
            characters.append(" ")
        elif character in "\0\ufffd" or unicodedata.category(character).startswith("C"):
            continue
        elif _is_ideograph(character):
            characters += [" ", character, " "]
        else:
            characters.append(character)
    return "".join(characters)


def _split_at_punctuation(word: str) -> list[str]:
    words = []
    start_new = True
    for character in word:
        if _is_punctuation(character):
            words.append(character)
            start_new = True
        elif start_new:
            words.append(character)
            start_new = False
        else:
            words[-1] += character
    return words


def _pieces_of_word(word: str, vocab: Container[str], max_word_characters: int) -> list[str]:
    """The longest piece that the word begins with, then the longest of the rest, and so on."""
    if len(word) > max_word_characters:
        return ["[UNK]"]
    pieces = []
    start = 0
    while start < len(word):
        end = len(word)
        while start < end:
            piece = word[start:end] if start == 0 else "##" + word[start:end]
            if piece in vocab:
                break
            end -= 1
        else:
            return ["[UNK]"]
        pieces.append(piece)
        start = end
    return pieces


def _is_space(character: str) -> bool:
    return character in " \t\n\r" or unicodedata.category(character) == "Zs"


def _is_punctuation(character: str) -> bool:
    """Category P, and whatever in ASCII is no letter, digit, space or control character."""
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(character).startswith("P")


def _is_ideograph(character: str) -> bool:
    code = ord(character)
    return any(first <= code <= last for first, last in _IDEOGRAPHS)
