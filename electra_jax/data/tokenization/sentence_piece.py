"""SentencePiece, given as a model or trained as a unigram or a BPE one, over its own library."""

from __future__ import annotations

import collections
import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data.tokenization.files import read_bytes, without_surrogates
from electra_jax.data.tokenization.interface import SPECIAL_TOKENS, id_dtype
from electra_jax.errors import UserError
from electra_jax.special_ids import SpecialIds

MODEL_FILE = "tokenizer.model"
SETTINGS_FILE = "tokenizer_settings.json"

_KIND_GIVEN = "sentencepiece"
_MODEL_TYPES = {"sentencepiece-unigram": "unigram", "sentencepiece-bpe": "bpe"}
# What other programs call the special tokens.
_ALIASES = {token: (token, f"<{token[1:-1].lower()}>") for token in SPECIAL_TOKENS}

# Training adds up floating-point numbers thread by thread, so their number is part of the result.
_TRAINING_THREADS = 4
# The library drops longer texts (4,192 bytes), and works hard on long ones.
_MAX_CHUNK_CHARACTERS = 1000
# A trained vocabulary has the characters that make up this share of the text (the library's own
# default), or the commonest thousand if those are more: 0.9995 of English are 70 characters, and
# "é" would be [UNK]. A thousand make unknown pieces nine times rarer, for 0.2 % more pieces.
_CHARACTER_COVERAGE = 0.9995
_MIN_ALPHABET = 1000
# The library asks for at least this share.
_LEAST_COVERAGE = 0.98


class SentencePieceTokenizer:
    """A SentencePiece model whose special tokens are known."""

    def __init__(
        self,
        model: bytes,
        kind: str = _KIND_GIVEN,
        lowercase: bool | None = None,
        name: str = "the model",
    ):
        """Use `from_model`, `load` or `train`.

        Args:
          model: the content of a .model file.
          kind: "sentencepiece" for a given model, or how it was trained.
          lowercase: whether its normalisation folds case; None if that is not known.
          name: what messages call the model.

        Raises:
          UserError: if it is no model, or if special tokens are missing.
        """
        import sentencepiece

        self._model = model
        self._kind = kind
        self._lowercase = lowercase
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(
                f"{name} is not a SentencePiece model ({_reason(error)}): give another copy of it"
            ) from None
        self._special_ids = _find_special_ids(self._processor, name)
        # From the ids that the library gives a text to ours. It gives no control symbols, but
        # where a model has a special token as a "user-defined symbol", text can spell it.
        size = self._processor.get_piece_size()
        self._ids_of_text = np.arange(size, dtype=id_dtype(size))
        self._ids_of_text[list(self._special_ids)] = self._special_ids.unk

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self._model, self._kind, self._lowercase)

    @classmethod
    def from_model(cls, path: str | Path) -> SentencePieceTokenizer:
        """A tokenizer from a .model file; its own normalisation applies.

        [PAD] and [UNK] are what the model says they are. [CLS], [SEP] and [MASK] are found by
        name, or as <cls>, <sep> and <mask>.

        Raises:
          UserError: if the file is missing or damaged, or if it lacks special tokens.
        """
        content = read_bytes(path, "model", "give the path of a SentencePiece .model")
        return cls(content, name=f"model {path}")

    @classmethod
    def load(cls, directory: str | Path) -> SentencePieceTokenizer:
        """What `save` wrote.

        Raises:
          UserError: if a file is missing or damaged.
        """
        path = f"{directory}/{SETTINGS_FILE}"
        content = read_bytes(path, "tokenizer", "save it again")
        try:
            settings = json.loads(content)
            kind, lowercase, checksum = (
                settings[key] for key in ("kind", "lowercase", "model_sha256")
            )
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path} is not a tokenizer file ({error!r}): save it again") from None
        path = f"{directory}/{MODEL_FILE}"
        model = read_bytes(path, "model", "save the tokenizer again")
        if hashlib.sha256(model).hexdigest() != checksum:
            raise UserError(f"{path} has changed since it was saved: save the tokenizer again")
        return cls(model, kind, lowercase, name=f"model {path}")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        lowercase: bool = True,
        kind: str = "sentencepiece-unigram",
    ) -> SentencePieceTokenizer:
        """Learns a model; the same texts, in any order, give the same bytes on any number of cores
        (with the same version of the library).

        As the pieces of words are learned, only words and their counts matter: texts are cut at
        white space, and equal words are counted. The alphabet is what makes up 0.9995 of the
        text, or the commonest thousand characters (a sixteenth of a vocabulary below 16,000) if
        those are more; other characters are [UNK].

        Args:
          texts: the texts, read once. A unigram model takes 20 bytes of memory for each byte of
            them, a BPE one only what it takes to hold their different words.
          vocab_size: largest size of the vocabulary. It gets smaller if the texts have fewer
            pieces. [PAD] [UNK] [CLS] [SEP] [MASK] are ids 0 to 4.
          lowercase: whether text is case-folded: normalisation "nmt_nfkc_cf" rather than
            "nmt_nfkc". Accents are kept.
          kind: "sentencepiece-unigram" or "sentencepiece-bpe".

        Raises:
          UserError: if the texts have no words, or more characters than half of `vocab_size`.
        """
        if vocab_size < 32:
            raise UserError(f"vocab_size={vocab_size} is too small: use at least 32")
        import sentencepiece

        rule = "nmt_nfkc_cf" if lowercase else "nmt_nfkc"
        words = _count_words(texts, sentencepiece.SentencePieceNormalizer(rule_name=rule))
        if not words:
            raise UserError("the texts to train a tokenizer on have no words: check the inputs")
        output = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(f"{word}\t{count}" for word, count in words.items()),
                input_format="tsv",
                model_writer=output,
                model_type=_MODEL_TYPES[kind],
                vocab_size=vocab_size,
                # Fewer pieces than that are no error.
                hard_vocab_limit=False,
                character_coverage=_character_coverage(words, vocab_size),
                normalization_rule_name=rule,
                pad_id=0,
                unk_id=1,
                bos_id=-1,
                eos_id=-1,
                pad_piece=SPECIAL_TOKENS[0],
                unk_piece=SPECIAL_TOKENS[1],
                # Control symbols: no text becomes one. They get the ids that are free.
                control_symbols=list(SPECIAL_TOKENS[2:]),
                num_threads=_TRAINING_THREADS,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(
                f"SentencePiece cannot learn vocab_size={vocab_size} from these texts "
                f"({_reason(error)}): use more text or another size"
            ) from None
        return cls(output.getvalue(), kind, lowercase)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return len(self._ids_of_text)

    @property
    def special_ids(self) -> SpecialIds:
        """Ids of the special tokens."""
        return self._special_ids

    @property
    def settings(self) -> dict[str, Any]:
        """kind, lowercase (None if not known), vocab_size, special_ids and model_sha256."""
        return {
            "kind": self._kind,
            "lowercase": self._lowercase,
            "vocab_size": self.vocab_size,
            "special_ids": self.special_ids._asdict(),
            "model_sha256": hashlib.sha256(self._model).hexdigest(),
        }

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, no special tokens added; lone surrogates are read as U+FFFD."""
        return [self._ids_of_text[ids].tolist() for ids in self._encode(texts)]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same ids one after the other.

        Args:
          texts: any texts.

        Returns:
          ids: uint16 [total], or uint32 if there are more than 65,535.
          lengths: int64 [len(texts)], how many of them each text has.
        """
        encoded = self._encode(texts)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter(itertools.chain.from_iterable(encoded), np.int64, lengths.sum())
        return self._ids_of_text[ids], lengths

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            return self._processor.encode(list(texts), out_type=int, num_threads=1)
        except (TypeError, RuntimeError, UnicodeError):  # What it says of a lone surrogate.
            texts = [without_surrogates(text) for text in texts]
            return self._processor.encode(texts, out_type=int, num_threads=1)

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of one text, and where in it each comes from.

        Returns:
          ids: uint16 [n], or uint32 if there are more than 65,535.
          offsets: int32 [n, 2], the characters [start, end) of the text as it was given. A piece
            that begins a word has the space before it, too; one of several bytes of a character
            may have none.
        """
        # One character for one, so offsets stay what they are.
        encoded = self._processor.encode(without_surrogates(text), out_type="offset_mapping")
        ids = self._ids_of_text[np.array(encoded["ids"], np.int64)]
        return ids, np.array(encoded["offsets"], np.int32).reshape(-1, 2)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids: pieces joined to words, special tokens and control symbols spelled out."""
        parts = []
        for spelled, run in itertools.groupby(map(int, ids), self._is_spelled):
            if spelled:
                parts += [self._spell(i) for i in run]
            else:
                parts.append(self._processor.decode(list(run)).strip())
        return " ".join(filter(None, parts))

    def _is_spelled(self, i: int) -> bool:
        return i in self._special_ids or self._processor.is_control(i)

    def _spell(self, i: int) -> str:
        if i in self._special_ids:
            return SPECIAL_TOKENS[self._special_ids.index(i)]
        return self._processor.id_to_piece(i)

    def piece(self, i: int) -> str:
        """The piece of an id as the vocabulary spells it."""
        return self._processor.id_to_piece(int(i))

    def save(self, directory: str | Path) -> list[str]:
        """Writes tokenizer.model and tokenizer_settings.json; returns the names."""
        directory = Path(directory)
        (directory / MODEL_FILE).write_bytes(self._model)
        settings = json.dumps(self.settings, indent=1) + "\n"
        (directory / SETTINGS_FILE).write_text(settings, encoding="utf-8")
        return [MODEL_FILE, SETTINGS_FILE]


def _find_special_ids(processor: Any, name: str) -> SpecialIds:
    """The special tokens of a model: [PAD] and [UNK] by its own ids, the others by name."""

    def find(token: str) -> int | None:
        for piece in _ALIASES[token]:
            i = processor.piece_to_id(piece)  # That of the unknown piece if there is none.
            if processor.id_to_piece(i) == piece:
                return i
        return None

    ids = [find(token) for token in SPECIAL_TOKENS]
    if processor.pad_id() >= 0:
        ids[0] = processor.pad_id()
    ids[1] = processor.unk_id()
    missing = [token for token, i in zip(SPECIAL_TOKENS, ids, strict=True) if i is None]
    if missing:
        raise UserError(
            f"{name} lacks {' '.join(missing)}: train one with --train-tokenizer, or train the "
            f"model again with --control_symbols={','.join(missing)}"
        )
    return SpecialIds(*[i for i in ids if i is not None])


def _count_words(texts: Iterable[str], normalizer: Any) -> dict[str, int]:
    """Words, as the model will see them, and how often each occurs; sorted."""
    chunks: collections.Counter[str] = collections.Counter()
    for text in texts:
        chunks.update(text.split())
    words: collections.Counter[str] = collections.Counter()
    while chunks:  # One of the two tables shrinks as the other grows.
        chunk, count = chunks.popitem()
        for part in _parts(without_surrogates(chunk)):
            normalized = normalizer.normalize(part).replace("\0", "")
            for word in normalized.replace("\u2581", " ").split():
                words[word] += count
    return dict(sorted(words.items()))


def _parts(chunk: str) -> Iterator[str]:
    """A chunk of text in parts of bounded length."""
    for start in range(0, len(chunk), _MAX_CHUNK_CHARACTERS):
        yield chunk[start : start + _MAX_CHUNK_CHARACTERS]


def _character_coverage(words: dict[str, int], vocab_size: int) -> float:
    """The share of the text that is made up by the characters to have as pieces.

    Raises:
      UserError: if they are more than half of the vocabulary.
    """
    counts: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    counts["\u2581"] = sum(words.values())  # The mark at the start of a word.
    covered = np.cumsum(sorted(counts.values(), reverse=True)) / counts.total()
    least, wanted = np.searchsorted(covered, [_LEAST_COVERAGE, _CHARACTER_COVERAGE]) + 1
    if least > vocab_size // 2:
        raise UserError(
            f"vocab_size={vocab_size} is too small for texts with {least} common characters: "
            f"use at least {2 * least}"
        )
    size = min(max(wanted, min(_MIN_ALPHABET, vocab_size // 16)), vocab_size // 2, len(covered))
    return float(covered[size - 1])


def _reason(error: Exception) -> str:
    """The library's message in one line."""
    return " ".join(str(error).split())
