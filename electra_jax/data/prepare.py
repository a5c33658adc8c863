"""From text files to a corpus: documents, sentences, ids, shards."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.data.corpus import METADATA_FILE, Corpus, CorpusWriter, Document
from electra_jax.data.sentences import split_sentences as split_by_rule
from electra_jax.data.text import ENCODING_ERRORS, ReadingCounts, expand_inputs, read_documents
from electra_jax.data.tokenization import Tokenizer, WordPieceTokenizer
from electra_jax.errors import UserError

TRAINABLE_TOKENIZERS = ("wordpiece",)

# Characters encoded at a time: enough to keep all cores of the tokenizer busy.
_BATCH_CHARACTERS = 1 << 22


class Progress(NamedTuple):
    """How far a build is; all counts are totals so far."""

    files_done: int
    num_files: int
    documents: int
    tokens: int
    text_bytes: int


def prepare_corpus(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    vocab: str | Path | None = None,
    train_tokenizer: str | None = None,
    vocab_size: int = 30522,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    validation_fraction: float = 0.005,
    blank_line_separates: bool = True,
    split_sentences: bool = True,
    encoding_errors: str = "replace",
    shard_tokens: int = 2**26,
    progress: Callable[[Progress], None] | None = None,
) -> Corpus:
    """Builds a corpus directory from text files.

    Args:
      inputs: files, globs and directories (`expand_inputs`).
      output: the directory to make. A finished corpus there that was built with the same settings
        from files of the same names and sizes is returned untouched.
      vocab: a vocab.txt, or None if `train_tokenizer` says how to learn one from the inputs.
      train_tokenizer: None or "wordpiece".
      vocab_size: ids of a trained tokenizer, at most; BERT's 30,522 by default.
      lowercase: whether text is lower-cased.
      strip_accents: whether accents are removed; None means as `lowercase` says.
      validation_fraction: share of the documents in the validation split, in [0, 1); see
        `build_corpus`.
      blank_line_separates: whether a blank line ends a document; otherwise a file is one.
      split_sentences: whether lines are split into sentences; otherwise a line is one.
      encoding_errors: what to do with invalid UTF-8, "replace" or "refuse".
      shard_tokens: a shard is closed when it has this many tokens. Until then it is in memory.
      progress: called after every few megabytes.

    Returns:
      The corpus; `metadata["summary"]` has documents, duplicates, empty_documents, sentences,
      tokens, unknown_rate, text_bytes, invalid_sequences and nul_characters.

    Raises:
      UserError: for anything wrong with the arguments or inputs, before `output` is touched; what
        was at `output` is never removed.
    """
    if (vocab is None) == (train_tokenizer is None):
        raise UserError(
            f"vocab={vocab} and train_tokenizer={train_tokenizer}: give exactly one of them"
        )
    if train_tokenizer not in (None, *TRAINABLE_TOKENIZERS):
        raise UserError(
            f"train_tokenizer={train_tokenizer!r} is unknown: use one of "
            + ", ".join(TRAINABLE_TOKENIZERS)
        )
    if encoding_errors not in ENCODING_ERRORS:
        raise UserError(
            f"encoding_errors={encoding_errors!r} is unknown: use one of "
            + ", ".join(ENCODING_ERRORS)
        )
    _check_numbers(validation_fraction, shard_tokens)
    files = expand_inputs(inputs)
    tokenizer = None
    if vocab is not None:
        tokenizer = WordPieceTokenizer.from_vocab(vocab, lowercase, strip_accents)
    base = os.path.commonpath([os.path.abspath(file.parent) for file in files])
    settings = {
        "inputs": [
            [Path(os.path.relpath(file, base)).as_posix(), file.stat().st_size] for file in files
        ],
        "vocab_sha256": tokenizer.settings["vocab_sha256"] if tokenizer else None,
        "train_tokenizer": train_tokenizer,
        "vocab_size": vocab_size if train_tokenizer else None,
        "lowercase": lowercase,
        "strip_accents": strip_accents,
        "validation_fraction": validation_fraction,
        "blank_line_separates": blank_line_separates,
        "split_sentences": split_sentences,
        "encoding_errors": encoding_errors,
        "shard_tokens": shard_tokens,
    }
    if (Path(output) / METADATA_FILE).exists():
        return _existing(output, settings)

    counts = ReadingCounts()
    files_done = 0

    def documents() -> Iterator[list[str]]:
        nonlocal files_done
        for files_done, file in enumerate(files):  # noqa: B007
            yield from read_documents(
                file,
                blank_line_separates=blank_line_separates,
                encoding_errors=encoding_errors,
                counts=counts,
            )
        files_done = len(files)

    def report(documents: int, tokens: int) -> None:
        if progress:
            progress(Progress(files_done, len(files), documents, tokens, counts.text_bytes))

    if tokenizer is None:
        texts = itertools.chain.from_iterable(documents())
        tokenizer = WordPieceTokenizer.train(texts, vocab_size, lowercase, strip_accents)
        counts = ReadingCounts()
    return build_corpus(
        documents(),
        output,
        tokenizer,
        settings=settings,
        summary=lambda: vars(counts),
        validation_fraction=validation_fraction,
        sentences=split_by_rule if split_sentences else None,
        shard_tokens=shard_tokens,
        progress=report,
    )


def build_corpus(
    documents: Iterable[list[str]],
    output: str | Path,
    tokenizer: Tokenizer,
    *,
    settings: dict[str, Any],
    summary: Callable[[], dict[str, Any]] = dict,
    validation_fraction: float = 0.005,
    sentences: Callable[[str], list[str]] | None = split_by_rule,
    shard_tokens: int = 2**26,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Builds a corpus from documents; `prepare_corpus` without the files.

    A document goes to validation if a hash of its text, a number in [0, 1), is below
    `validation_fraction`: where it goes does not depend on the rest of the corpus. If that selects
    none of two or more, the document with the smallest hash goes there alone. Of documents with
    equal text, only the first is kept.

    Args:
      documents: each a list of paragraphs, or of sentences.
      output: the directory to make.
      tokenizer: saved with the corpus.
      settings: stored in corpus.json; JSON-compatible.
      summary: called at the end for entries to add to the summary in corpus.json.
      validation_fraction: in [0, 1); 0 means no validation split.
      sentences: splits a paragraph into sentences; None means that a paragraph is one.
      shard_tokens: a shard is closed when it has this many tokens.
      progress: called with the numbers of documents and tokens so far.

    Raises:
      UserError: as `CorpusWriter` does, or if nothing is left to train on.
    """
    _check_numbers(validation_fraction, shard_tokens)
    builder = _Builder(tokenizer, validation_fraction, sentences, progress)
    with CorpusWriter(output, tokenizer) as writer:
        pending: dict[str, list[Document]] = {"train": [], "validation": []}
        sizes = dict.fromkeys(pending, 0)
        for split, document in builder.documents(documents):
            pending[split].append(document)
            sizes[split] += len(document.tokens)
            if sizes[split] >= shard_tokens:
                writer.write_shard(split, pending[split])
                pending[split], sizes[split] = [], 0
        for split, rest in pending.items():
            if rest:
                writer.write_shard(split, rest)
        if not builder.kept["train"]:
            raise UserError(
                f"no document is left to train on ({builder.kept['validation']} of validation, "
                f"{builder.empty} empty): check the inputs, or lower "
                f"validation_fraction={validation_fraction}"
            )
        return writer.finish(settings, builder.summary() | summary())


class _Builder:
    """Encodes documents and decides where each goes."""

    def __init__(self, tokenizer, validation_fraction, sentences, progress):
        self.tokenizer = tokenizer
        self.threshold = int(validation_fraction * 2.0**64)
        self.sentences = sentences
        self.progress = progress
        self.kept = {"train": 0, "validation": 0}
        self.duplicates = self.empty = self.num_sentences = self.num_tokens = self.unknown = 0
        self.seen: set[bytes] = set()  # About 1 GB for ten million documents.

    def documents(self, texts: Iterable[list[str]]) -> Iterator[tuple[str, Document]]:
        """Yields (split, document)."""
        # Until validation has a document, the one with the smallest hash is held back for it.
        held: tuple[int, Document] | None = None
        for digest, document in self._encoded(texts):
            split = "validation" if digest < self.threshold else "train"
            if split == "train" and self.threshold and not self.kept["validation"]:
                if held is None:
                    held = digest, document
                    continue
                if digest < held[0]:
                    held, document = (digest, document), held[1]
            self.kept[split] += 1
            yield split, document
        if held:
            needed = self.kept["train"] and not self.kept["validation"]
            split = "validation" if needed else "train"
            self.kept[split] += 1
            yield split, held[1]

    def summary(self) -> dict[str, Any]:
        return {
            "documents": sum(self.kept.values()),
            "validation_documents": self.kept["validation"],
            "duplicates": self.duplicates,
            "empty_documents": self.empty,
            "sentences": self.num_sentences,
            "tokens": self.num_tokens,
            "unknown_rate": self.unknown / max(1, self.num_tokens),
        }

    def _encoded(self, texts: Iterable[list[str]]) -> Iterator[tuple[int, Document]]:
        for batch in self._batches(texts):
            ids = self.tokenizer.encode_batch([text for _, texts in batch for text in texts])
            lengths = np.fromiter(map(len, ids), np.int64, len(ids))
            flat = np.fromiter(itertools.chain.from_iterable(ids), np.uint32, lengths.sum())
            if self.tokenizer.vocab_size < 1 << 16:
                flat = flat.astype(np.uint16)
            self.unknown += int(np.count_nonzero(flat == self.tokenizer.special_ids.unk))
            first_text = first_token = 0
            for digest, texts_of in batch:
                part = lengths[first_text : first_text + len(texts_of)]
                tokens = flat[first_token : first_token + int(part.sum())]
                first_text += len(texts_of)
                first_token += len(tokens)
                if not len(tokens):
                    self.empty += 1
                    continue
                part = part[part > 0].astype(np.int32)
                self.num_sentences += len(part)
                self.num_tokens += len(tokens)
                yield digest, Document(tokens, part)
            if self.progress:
                self.progress(sum(self.kept.values()), self.num_tokens)

    def _batches(self, texts: Iterable[list[str]]) -> Iterator[list[tuple[int, list[str]]]]:
        """Unique documents as (hash, sentences), some megabytes at a time."""
        batch: list[tuple[int, list[str]]] = []
        characters = 0
        for paragraphs in texts:
            text = "\n".join(paragraphs)
            content = hashlib.blake2b(
                text.encode("utf-8", "surrogatepass"), digest_size=16
            ).digest()
            if content in self.seen:
                self.duplicates += 1
                continue
            self.seen.add(content)
            if self.sentences:
                paragraphs = [s for paragraph in paragraphs for s in self.sentences(paragraph)]
            batch.append((int.from_bytes(content[:8], "big"), paragraphs))
            characters += len(text)
            if characters >= _BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
        if batch:
            yield batch


def _check_numbers(validation_fraction: float, shard_tokens: int) -> None:
    if not 0.0 <= validation_fraction < 1.0:
        raise UserError(f"validation_fraction={validation_fraction} must be in [0, 1)")
    if shard_tokens < 1:
        raise UserError(f"shard_tokens={shard_tokens} must be positive")


def _existing(output: str | Path, settings: dict[str, Any]) -> Corpus:
    """The finished corpus at `output` if it was built with these settings."""
    corpus = Corpus.open(output)
    stored = corpus.metadata["settings"]
    different = [name for name, value in settings.items() if stored.get(name) != value]
    if different:
        raise UserError(
            f"output {output} is a corpus built with other {', '.join(different)}: "
            "name another directory, or remove this one yourself"
        )
    return corpus
