"""Tokenizers: text to ids and back, behind one small interface.

The special ids always come from the tokenizer, never from constants. Text never turns into a
special token, even where it spells one: "[SEP]" in a document is three ordinary words.
"""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Hugging Face's BertTokenizer; the original's own tokenizer had 200.
_MAX_WORD_CHARACTERS = 100
# Different characters a trained vocabulary has at most (the default of HF's WordPiece trainer).
_MAX_ALPHABET = 1000
_TOKENIZER_FILE = "tokenizer.json"
_VOCAB_FILE = "vocab.txt"


class Tokenizer(Protocol):
    """What the rest of the package asks of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included; ids are in [0, vocab_size)."""

    @property
    def special_ids(self) -> SpecialIds:
        """Ids of the special tokens."""

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the ids (kind, normalisation, vocabulary checksum), JSON-compatible."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, no special tokens added."""

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text of ids, special tokens spelled out."""

    def save(self, directory: str | Path) -> list[str]:
        """Writes the tokenizer's files to an existing directory and returns their names."""


class WordPieceTokenizer:
    """BERT's tokenizer, equal to Hugging Face's `BertTokenizer`, over the `tokenizers` library."""

    def __init__(self, backend: Any):
        """Wraps a `tokenizers.Tokenizer`; use `from_vocab`, `train` or `load_tokenizer`."""
        self._backend = backend
        # Not part of the backend's own file, so it is set at every load.
        backend.encode_special_tokens = True
        self._vocab = backend.get_vocab(with_added_tokens=True)
        self._normalizer = json.loads(backend.to_str())["normalizer"]

    @classmethod
    def from_vocab(
        cls, path: str | Path, lowercase: bool = True, strip_accents: bool | None = None
    ) -> WordPieceTokenizer:
        """A tokenizer from a vocabulary file with one token a line; the line number is the id.

        Args:
          path: the vocab.txt.
          lowercase: whether the vocabulary is of lower-cased text ("uncased").
          strip_accents: whether accents are removed; None means as `lowercase` says.

        Raises:
          UserError: if the file is missing, empty or not UTF-8, if a token occurs twice, or a
            special token does not occur.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise UserError(
                f"vocabulary {path} does not exist: give the path of a vocab.txt"
            ) from None
        except UnicodeDecodeError as error:
            raise UserError(
                f"vocabulary {path} is not UTF-8 at byte {error.start}: save it as UTF-8 text"
            ) from None
        except OSError as error:
            raise UserError(f"vocabulary {path} cannot be read ({error.strerror})") from None
        # Not splitlines(): U+2028 and the like may be tokens.
        tokens = [line.strip("\r") for line in text.rstrip("\r\n").split("\n")]
        if tokens == [""]:
            raise UserError(f"vocabulary {path} is empty: it needs one token a line")
        return cls(_backend(_vocab_ids(tokens, str(path)), lowercase, strip_accents))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        lowercase: bool = True,
        strip_accents: bool | None = None,
    ) -> WordPieceTokenizer:
        """Learns a vocabulary; the same texts, in any order, give the same one.

        Args:
          texts: the texts, read once; memory grows with the number of different words only.
          vocab_size: largest size of the vocabulary. It gets smaller if the texts have fewer
            pieces that occur twice. [PAD] [UNK] [CLS] [SEP] [MASK] are ids 0 to 4.
          lowercase: as in `from_vocab`.
          strip_accents: as in `from_vocab`.

        Raises:
          UserError: if the texts have no words or `vocab_size` is below 32.
        """
        if vocab_size < 32:
            raise UserError(f"vocab_size={vocab_size} is too small: use at least 32")
        from tokenizers import Tokenizer as Backend
        from tokenizers import models, pre_tokenizers, trainers

        words = _count_words(
            texts, _backend(_vocab_ids(SPECIAL_TOKENS, ""), lowercase, strip_accents)
        )
        if not words:
            raise UserError("the texts to train a tokenizer on have no words: check the inputs")
        # The library's own choice of the alphabet depends on the order of a hash map, so both
        # forms of each character are given to it as if they were special tokens, sorted.
        alphabet, inner = _alphabet(words, min(_MAX_ALPHABET, vocab_size // 4))
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[*SPECIAL_TOKENS, *alphabet, *("##" + character for character in inner)],
            limit_alphabet=len(alphabet),
            initial_alphabet=alphabet,
        )
        learner = Backend(models.WordPiece(unk_token="[UNK]"))
        learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        learner.train_from_iterator(_repeated(words), trainer)
        vocab = learner.get_vocab(with_added_tokens=True)
        return cls(_backend(vocab, lowercase, strip_accents))

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return len(self._vocab)

    @property
    def special_ids(self) -> SpecialIds:
        """Ids of the special tokens."""
        return SpecialIds(*(self._vocab[token] for token in SPECIAL_TOKENS))

    @property
    def settings(self) -> dict[str, Any]:
        """kind, lowercase, strip_accents, vocab_size, special_ids and vocab_sha256."""
        return {
            "kind": "wordpiece",
            "lowercase": self._normalizer["lowercase"],
            "strip_accents": self._normalizer["strip_accents"],
            "vocab_size": self.vocab_size,
            "special_ids": self.special_ids._asdict(),
            "vocab_sha256": hashlib.sha256(self._vocab_text().encode()).hexdigest(),
        }

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, no special tokens added; the library uses all cores."""
        return [
            encoding.ids
            for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids: pieces joined to words, special tokens spelled out."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def save(self, directory: str | Path) -> list[str]:
        """Writes tokenizer.json (of the `tokenizers` library) and vocab.txt; returns the names."""
        directory = Path(directory)
        (directory / _TOKENIZER_FILE).write_text(self._backend.to_str(), encoding="utf-8")
        (directory / _VOCAB_FILE).write_bytes(self._vocab_text().encode())
        return [_TOKENIZER_FILE, _VOCAB_FILE]

    def _vocab_text(self) -> str:
        tokens = sorted(self._vocab, key=self._vocab.__getitem__)
        return "".join(f"{token}\n" for token in tokens)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote to a directory.

    Raises:
      UserError: if there is none, or its file cannot be read.
    """
    from tokenizers import Tokenizer as Backend

    path = Path(directory) / _TOKENIZER_FILE
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a directory with a saved tokenizer")
    try:
        backend = Backend.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # The library raises bare Exception.
        raise UserError(f"{path} is not a tokenizer file ({error}): save it again") from None
    return WordPieceTokenizer(backend)


def _vocab_ids(tokens: Sequence[str], path: str) -> dict[str, int]:
    """Maps tokens to their positions, refusing duplicates and missing special tokens."""
    ids: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if token in ids:
            raise UserError(
                f"vocabulary {path} has {token!r} on lines {ids[token] + 1} and {i + 1}: "
                "every token must occur once"
            )
        ids[token] = i
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        raise UserError(
            f"vocabulary {path} lacks {' '.join(missing)}: add each as a line of its own"
        )
    return ids


def _backend(vocab: dict[str, int], lowercase: bool, strip_accents: bool | None) -> Any:
    """BERT's normaliser, word splitter, WordPiece model and decoder over a vocabulary."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    backend = Backend(
        models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARACTERS)
    )
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return backend


def _count_words(texts: Iterable[str], backend: Any) -> dict[str, int]:
    """Words, as the normaliser and the word splitter see them, and how often each occurs."""
    chunks: collections.Counter[str] = collections.Counter()
    for text in texts:
        chunks.update(backend.normalizer.normalize_str(text).split())
    words: collections.Counter[str] = collections.Counter()
    for chunk, count in chunks.items():
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(chunk):
            if len(word) <= _MAX_WORD_CHARACTERS:
                words[word] += count
    return dict(sorted(words.items()))


def _alphabet(words: dict[str, int], limit: int) -> tuple[list[str], list[str]]:
    """The commonest characters, and those of them that occur inside words; both sorted."""
    counts: collections.Counter[str] = collections.Counter()
    inner: set[str] = set()
    for word, count in words.items():
        for character in word:
            counts[character] += count
        inner.update(word[1:])
    alphabet = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:limit])
    return alphabet, [character for character in alphabet if character in inner]


def _repeated(words: dict[str, int]) -> Iterator[str]:
    """Every word as often as it occurs, in texts of bounded length."""
    for word, count in words.items():
        while count > 0:
            yield " ".join([word] * min(count, 1000))
            count -= 1000
