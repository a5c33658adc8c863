"""BERT's WordPiece, over the `tokenizers` library."""

from __future__ import annotations

import collections
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data.tokenization.chunks import ChunkCache
from electra_jax.data.tokenization.files import read_bytes, without_surrogates
from electra_jax.data.tokenization.interface import SPECIAL_TOKENS, id_dtype
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds

TOKENIZER_FILE = "tokenizer.json"

# Hugging Face's BertTokenizer; the original's own tokenizer had 200.
_MAX_WORD_CHARACTERS = 100
# Different characters a trained vocabulary has at most (the default of HF's WordPiece trainer).
_MAX_ALPHABET = 1000
_VOCAB_FILE = "vocab.txt"
# What makes a tokenizer.json one of BERT's.
_BERT = {
    ("normalizer", "type"): "BertNormalizer",
    ("normalizer", "clean_text"): True,
    ("normalizer", "handle_chinese_chars"): True,
    ("pre_tokenizer", "type"): "BertPreTokenizer",
    ("model", "type"): "WordPiece",
    ("model", "unk_token"): "[UNK]",
    ("model", "continuing_subword_prefix"): "##",
    ("model", "max_input_chars_per_word"): _MAX_WORD_CHARACTERS,
}
# Chunks that are given to the library as one text: a text costs it more than a word does.
_CHUNKS_PER_TEXT = 100


class WordPieceTokenizer:
    """BERT's tokenizer, equal to Hugging Face's `BertTokenizer`, over the `tokenizers` library."""

    def __init__(self, vocab: dict[str, int], lowercase: bool, strip_accents: bool | None):
        """Use `from_vocab`, `from_json` or `train`.

        Args:
          vocab: ids of the pieces, 0, 1, ... without a gap, the special tokens among them.
          lowercase: as in `from_vocab`.
          strip_accents: as in `from_vocab`.
        """
        self._vocab = vocab
        self._lowercase = lowercase
        self._strip_accents = strip_accents
        self._backend = _backend(vocab, lowercase, strip_accents)
        # Text that spells a special token is text.
        self._backend.encode_special_tokens = True
        self._chunks: ChunkCache | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return WordPieceTokenizer, (self._vocab, self._lowercase, self._strip_accents)

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
        content = read_bytes(path, "vocabulary", "give the path of a vocab.txt")
        try:
            text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise UserError(
                f"vocabulary {path} is not UTF-8 at byte {error.start}: save it as UTF-8 text"
            ) from None
        # Not splitlines(): U+2028 and the like may be tokens.
        tokens = text.rstrip("\n").split("\n")
        if tokens == [""]:
            raise UserError(f"vocabulary {path} is empty: it needs one token a line")
        return cls(_vocab_ids(tokens, str(path)), lowercase, strip_accents)

    @classmethod
    def from_json(cls, path: str | Path) -> WordPieceTokenizer:
        """A tokenizer from a tokenizer.json of the `tokenizers` library, if it is one of BERT's.

        What it says of templates, truncation and padding is left out: here, ids are of text alone.

        Raises:
          UserError: if the file is missing or damaged, or if it splits text in any other way than
            BERT does.
        """
        content = read_bytes(path, "tokenizer", "give the path of a tokenizer.json")
        try:
            saved = json.loads(content)
            vocab = dict(saved["model"]["vocab"])
            added = {token["content"]: token["id"] for token in saved["added_tokens"]}
            normalizer = saved["normalizer"] or {}
            vocab |= added
            has_gaps = sorted(vocab.values()) != list(range(len(vocab)))
            found = {f"{part}.{key}": (saved[part] or {}).get(key) for part, key in _BERT}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            reason = repr(error)[:100]
            raise UserError(f"{path} is not a tokenizer file ({reason}): save it again") from None
        differences = [
            f"{name}={value!r}"
            for (name, value), expected in zip(found.items(), _BERT.values(), strict=True)
            if value != expected
        ]
        differences += [f"added token {name!r}" for name in added if name not in SPECIAL_TOKENS]
        if has_gaps:
            differences.append("ids with gaps")
        if differences:
            raise UserError(
                f"{path} is not a WordPiece tokenizer as BERT's ({', '.join(differences[:3])}): "
                "give a vocab.txt or a .model"
            )
        missing = [token for token in SPECIAL_TOKENS if token not in vocab]
        if missing:
            raise UserError(f"{path} lacks {' '.join(missing)}: add each to its vocabulary")
        lowercase, strip = normalizer.get("lowercase", True), normalizer.get("strip_accents")
        if not isinstance(lowercase, bool) or not isinstance(strip, bool | None):
            raise UserError(
                f"{path} has lowercase={lowercase!r} and strip_accents={strip!r}: each has to be "
                "true or false"
            )
        return cls(vocab, lowercase, strip)

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
        return cls(vocab, lowercase, strip_accents)

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
            "lowercase": self._lowercase,
            "strip_accents": self._strip_accents,
            "vocab_size": self.vocab_size,
            "special_ids": self.special_ids._asdict(),
            "vocab_sha256": hashlib.sha256(self._vocab_text().encode()).hexdigest(),
        }

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, no special tokens added; the library uses all cores."""
        return [encoding.ids for encoding in _encode(self._backend, list(texts))]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same ids one after the other, several times as fast on ordinary text.

        It remembers the ids of half a million chunks of text (some 100 MB), and is not for
        several threads at once.

        Args:
          texts: any texts.

        Returns:
          ids: uint16 [total], or uint32 if there are more than 65,535.
          lengths: int64 [len(texts)], how many of them each text has.
        """
        if self._chunks is None:
            # One that takes "[SEP]" for what it is, to tell where chunks end.
            separating = _backend(self._vocab, self._lowercase, self._strip_accents)
            dtype = id_dtype(self.vocab_size)
            self._chunks = ChunkCache(functools.partial(self._encode_chunks, separating), dtype)
        return self._chunks(texts)

    def _encode_chunks(
        self, separating: Any, chunks: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of chunks without "[", and how many each has; chunks share a text of the library."""
        sep = SPECIAL_TOKENS[3]
        texts = [
            sep.join([*chunks[i : i + _CHUNKS_PER_TEXT], ""])
            for i in range(0, len(chunks), _CHUNKS_PER_TEXT)
        ]
        parts = [np.array(encoding.ids) for encoding in _encode(separating, texts)]
        ids = np.concatenate(parts)
        is_end = ids == self._vocab[sep]
        lengths = np.diff(np.flatnonzero(is_end), prepend=-1) - 1
        assert len(lengths) == len(chunks)
        return ids[~is_end], lengths

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of one text, and where in it each comes from.

        Returns:
          ids: uint16 [n], or uint32 if there are more than 65,535.
          offsets: int32 [n, 2], the characters [start, end) of the text as it was given; those of
            a word that is [UNK] are the word.
        """
        # One character for one, so offsets stay what they are.
        encoding = self._backend.encode(without_surrogates(text), add_special_tokens=False)
        ids = np.array(encoding.ids, id_dtype(self.vocab_size))
        return ids, np.array(encoding.offsets, np.int32).reshape(-1, 2)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids: pieces joined to words, special tokens spelled out."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def piece(self, i: int) -> str:
        """The piece of an id as the vocabulary spells it."""
        return self._backend.id_to_token(int(i))

    def save(self, directory: str | Path) -> list[str]:
        """Writes tokenizer.json (of the `tokenizers` library) and vocab.txt; returns the names."""
        directory = Path(directory)
        (directory / TOKENIZER_FILE).write_text(self._backend.to_str(), encoding="utf-8")
        (directory / _VOCAB_FILE).write_bytes(self._vocab_text().encode())
        return [TOKENIZER_FILE, _VOCAB_FILE]

    def _vocab_text(self) -> str:
        tokens = sorted(self._vocab, key=self._vocab.__getitem__)
        return "".join(f"{token}\n" for token in tokens)


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


def _encode(backend: Any, texts: list[str]) -> list[Any]:
    """The library's encodings of texts, whatever they are."""
    try:
        return backend.encode_batch_fast(texts, add_special_tokens=False)
    except TypeError:  # What it says of a lone surrogate.
        texts = [without_surrogates(text) for text in texts]
        return backend.encode_batch_fast(texts, add_special_tokens=False)


def _count_words(texts: Iterable[str], backend: Any) -> dict[str, int]:
    """Words, as the normaliser and the word splitter see them, and how often each occurs."""
    chunks: collections.Counter[str] = collections.Counter()
    for text in texts:
        text = backend.normalizer.normalize_str(without_surrogates(text))
        chunks.update(text.split())
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
