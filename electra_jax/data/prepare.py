"""From text of any kind and size to a corpus.

    inputs -> jobs -> parts of encoded documents -> layout -> shards -> corpus.json

Jobs and shards are worked on by a runner: here, in a pool of processes, or on Apache Beam. Which
one, and how many processes, changes no byte. Work in progress is kept in `OUTPUT/building`, so that
the same command goes on after a kill; corpus.json, without which it is no corpus, comes last.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from electra_jax.data import storage, tokenization
from electra_jax.data.build import assembly, stages, workspace
from electra_jax.data.build.assembly import Display, Silent
from electra_jax.data.build.jobs import (
    changed_inputs,
    describe_inputs,
    group_units,
    resume_conditions,
    text_bytes,
)
from electra_jax.data.build.runners import RUNNERS, open_runner, run_here
from electra_jax.data.build.stages import Job, Reader, Recipe
from electra_jax.data.corpus import METADATA_FILE, Corpus
from electra_jax.data.reading import ReadingCounts, ReadingOptions, plan_units
from electra_jax.data.tokenization import TRAINABLE_TOKENIZERS, Tokenizer
from electra_jax.errors import UserError

# A shard ends with the document that brings it to so many tokens: 256 MB.
_SHARD_TOKENS = 1 << 27
# BERT's.
_VOCAB_SIZE = 30522
_VOCAB_SIZES = (32, 10_000_000)
# Text that a tokenizer is trained on: what keeps the memory of the training below a gigabyte
# (docs/benchmarks.md); for a vocabulary of words or pieces, more of it would change little.
SAMPLE_MB = {"wordpiece": 100.0, "sentencepiece-unigram": 30.0, "sentencepiece-bpe": 100.0}


def prepare_corpus(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    vocab: str | Path | None = None,
    train_tokenizer: str | None = None,
    vocab_size: int | None = None,
    lowercase: bool | None = None,
    strip_accents: bool | None = None,
    tokenizer_sample_mb: float | None = None,
    field: str = "text",
    one_document_per_file: bool = False,
    split_sentences: bool = True,
    encoding_errors: str = "replace",
    bad_input: str = "refuse",
    tfds_data_dir: str | Path | None = None,
    min_characters: int = 0,
    keep_duplicates: bool = False,
    filter: str | None = None,
    validation_fraction: float = 0.005,
    shard_tokens: int = _SHARD_TOKENS,
    num_workers: int = 1,
    runner: str = "local",
    beam_options: Sequence[str] = (),
    display: Display | None = None,
) -> Corpus:
    """Builds a corpus directory from text.

    The same inputs and settings give the same bytes, with any runner and number of workers. An
    unfinished build of theirs at `output` is gone on with; a finished one is returned untouched.

    Args:
      inputs: files, globs, directories and TensorFlow datasets (`reading.plan_units`).
      output: the directory to make; with an object store's name ("gs://..."), a place there.
      vocab: a vocab.txt of WordPiece or a .model of SentencePiece (`tokenization.open_tokenizer`),
        or None if `train_tokenizer` says how to learn one from the inputs.
      train_tokenizer: None or one of `tokenization.TRAINABLE_TOKENIZERS`.
      vocab_size: ids of a trained tokenizer, at most; None: BERT's 30,522.
      lowercase: whether text is lower-cased; None means it is, but for a model of SentencePiece,
        which knows.
      strip_accents: whether accents are removed; None means as `lowercase` says.
      tokenizer_sample_mb: megabytes of text, about, that a tokenizer is trained on: documents
        chosen by a hash of their text, all of them if there is less. None: `SAMPLE_MB`.
      field: of JSON lines, Parquet columns and TensorFlow datasets: which one is the text.
      one_document_per_file: whether a text file is one document; otherwise blank lines end one.
      split_sentences: whether lines are split into sentences (`sentences`); otherwise a line is
        one.
      encoding_errors: what to do with invalid UTF-8: "replace" (and count) or "refuse".
      bad_input: what to do with rows that have no text and with damaged archives: "refuse", or
        "skip" (and count).
      tfds_data_dir: where TensorFlow datasets are; None: tensorflow-datasets' own place.
      min_characters: documents with fewer are left out.
      keep_duplicates: whether documents of equal text are all kept; otherwise the first one is.
      filter: "FILE.py:FUNCTION": a function from a document's text to whether it is kept.
      validation_fraction: share of the documents that training never sees, in [0, 1), chosen by a
        hash of their text, so that a document stays where it is when the corpus grows. If it
        selects none of two or more, the document with the smallest hash is taken.
      shard_tokens: a shard ends with the document that brings it to so many tokens.
      num_workers: processes, with the local runner.
      runner: "local" or "beam" (Apache Beam, with `beam_options`; see docs/corpus.md).
      beam_options: Beam's pipeline options, as on a command line.
      display: is told how far the build is.

    Returns:
      The corpus; `metadata["summary"]` has what was met: documents, validation_documents,
      duplicates, sentences, tokens, unknown_rate, what else `stages.Reader` and
      `reading.ReadingCounts` count.

    Raises:
      UserError: for anything wrong with arguments or inputs; what was at `output` before is never
        removed.
    """
    if (vocab is None) == (train_tokenizer is None):
        raise UserError(
            f"vocab={vocab} and train_tokenizer={train_tokenizer}: give exactly one of them"
        )
    _check_choice("train_tokenizer", train_tokenizer, (None, *TRAINABLE_TOKENIZERS))
    _check_choice("encoding_errors", encoding_errors, ("replace", "refuse"))
    _check_choice("bad_input", bad_input, ("refuse", "skip"))
    _check_choice("runner", runner, RUNNERS)
    _check_numbers(validation_fraction, shard_tokens, num_workers)
    if min_characters < 0:
        raise UserError(f"min_characters={min_characters} must not be negative")
    if vocab_size is not None and not _VOCAB_SIZES[0] <= vocab_size <= _VOCAB_SIZES[1]:
        size = "small: use at least" if vocab_size < _VOCAB_SIZES[0] else "large: use at most"
        limit = _VOCAB_SIZES[vocab_size > _VOCAB_SIZES[1]]
        raise UserError(f"vocab_size={vocab_size} is too {size} {limit}")
    if tokenizer_sample_mb is not None and not 0 < tokenizer_sample_mb < math.inf:
        raise UserError(f"tokenizer_sample_mb={tokenizer_sample_mb} must be positive")
    for name, value in (("vocab_size", vocab_size), ("tokenizer_sample_mb", tokenizer_sample_mb)):
        if vocab is not None and value is not None:
            raise UserError(f"{name}={value} is for a trained tokenizer: leave it out with vocab")
    if beam_options and runner != "beam":
        raise UserError(f"beam_options={list(beam_options)} are for runner='beam' alone")
    output = storage.absolute(str(output))
    reading = ReadingOptions(
        field=field,
        one_document_per_file=one_document_per_file,
        encoding_errors=encoding_errors,
        bad_input=bad_input,
        tfds_data_dir=str(tfds_data_dir) if tfds_data_dir else None,
    )
    names = [str(item) for item in inputs]
    if output in map(storage.absolute, names):
        raise UserError(f"output {output} is an input too: name another directory")
    # Before the inputs, which may have to be downloaded.
    tokenizer = None
    if vocab is not None:
        tokenizer = tokenization.open_tokenizer(vocab, lowercase, strip_accents)
    filter_function, filter_source = _read_filter(filter)
    workspace.check_output(output)
    units, left_out = plan_units(names, reading, exclude=output)
    if tokenizer_sample_mb is None:
        tokenizer_sample_mb = SAMPLE_MB.get(train_tokenizer or "", 0.0)
    training = {
        "train_tokenizer": train_tokenizer,
        "vocab_size": _VOCAB_SIZE if vocab_size is None else vocab_size,
        "lowercase": lowercase is not False,
        "strip_accents": strip_accents,
        "tokenizer_sample_mb": tokenizer_sample_mb,
    }
    settings = {
        "inputs": describe_inputs(units),
        "tokenizer": tokenizer.settings if tokenizer else training,
        "field": field,
        "one_document_per_file": one_document_per_file,
        "split_sentences": split_sentences,
        "encoding_errors": encoding_errors,
        "bad_input": bad_input,
        "min_characters": min_characters,
        "keep_duplicates": keep_duplicates,
        "filter": [filter_function, hashlib.sha256(filter_source).hexdigest()] if filter else None,
        "validation_fraction": validation_fraction,
        "shard_tokens": shard_tokens,
    }
    if storage.exists(f"{output}/{METADATA_FILE}"):
        corpus = _existing(output, settings)
        workspace.remove_leftovers(output)
        return corpus

    jobs = group_units(units)
    display = display or Silent()
    for directory, endings in left_out.items():
        if endings:
            display.note(_describe_left_out(directory, endings))
    conditions = resume_conditions(units)
    plan = settings | conditions | {"tfds_data_dir": reading.tfds_data_dir}
    with (
        workspace.open_workspace(output, plan) as directory,
        open_runner(runner, min(num_workers, len(jobs)), beam_options, directory) as run,
    ):
        if filter:
            storage.write_bytes(f"{directory}/{stages.FILTER_FILE}", filter_source)
        recipe = Recipe(
            directory,
            reading,
            split_sentences=split_sentences,
            min_characters=min_characters,
            filter_function=filter_function,
            sample_rate=min(1.0, tokenizer_sample_mb * 1e6 / max(1, text_bytes(units))),
        )
        if tokenizer is None:
            tokenizer = assembly.trained_tokenizer(training, jobs, recipe, run, display)
        recipe = assembly.with_tokenizer(recipe, tokenizer)
        assembly.encode_jobs(jobs, recipe, run, display)
        changed = changed_inputs(units, conditions)
        if changed:
            storage.remove_tree(directory)  # Nobody knows what was read.
            raise UserError(
                f"input {changed[0]} has changed while it was read: let it be, and run the same "
                "command again"
            )
        return assembly.finish(output, recipe, tokenizer, settings, len(jobs), run, display)


def build_corpus(
    documents: Iterable[list[str]],
    output: str | Path,
    tokenizer: Tokenizer,
    *,
    settings: dict[str, Any],
    validation_fraction: float = 0.005,
    shard_tokens: int = _SHARD_TOKENS,
) -> Corpus:
    """Builds a corpus from documents; `prepare_corpus` without the files.

    Args:
      documents: each a list of paragraphs.
      output: the directory to make.
      tokenizer: saved with the corpus.
      settings: stored in corpus.json; JSON-compatible.
      validation_fraction: as in `prepare_corpus`.
      shard_tokens: as in `prepare_corpus`.

    Raises:
      UserError: if `output` holds something else, or nothing is left to train on.
    """
    _check_numbers(validation_fraction, shard_tokens)
    output = storage.absolute(str(output))
    settings = settings | {
        "validation_fraction": validation_fraction,
        "shard_tokens": shard_tokens,
        "keep_duplicates": False,
    }
    with workspace.open_workspace(output, settings) as directory:
        recipe = assembly.with_tokenizer(Recipe(directory, ReadingOptions()), tokenizer)
        report = Silent().report
        stages.encode_texts(Reader(documents, ReadingCounts(), recipe, report), Job(0, ()), recipe)
        return assembly.finish(output, recipe, tokenizer, settings, 1, run_here, Silent())


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        known = ", ".join(choice for choice in choices if choice)
        raise UserError(f"{name}={value!r} is unknown: use one of {known}")


def _check_numbers(validation_fraction: float, shard_tokens: int, num_workers: int = 1) -> None:
    if not 0.0 <= validation_fraction < 1.0:
        raise UserError(f"validation_fraction={validation_fraction} must be in [0, 1)")
    if shard_tokens < 1:
        raise UserError(f"shard_tokens={shard_tokens} must be positive")
    if num_workers < 1:
        raise UserError(f"num_workers={num_workers} must be positive")


def _existing(output: str, settings: dict[str, Any]) -> Corpus:
    """The finished corpus at `output` if it was built with these settings."""
    corpus = Corpus.open(output)
    stored, now = corpus.metadata["settings"], json.loads(json.dumps(settings))
    different = [name for name, value in now.items() if stored.get(name) != value]
    if different:
        raise UserError(
            f"output {output} is a corpus built with other {', '.join(different)}: "
            "name another directory, or remove this one yourself"
        )
    return corpus


def _describe_left_out(directory: str, endings: dict[str, int]) -> str:
    kinds = ", ".join(
        f"{count:,} {ending or 'without ending'}" for ending, count in endings.items()
    )
    return f"left out of {directory}, as of no known format: {kinds} (name them to have them read)"


def _read_filter(filter: str | None) -> tuple[str | None, bytes]:
    """The function's name, and the source of its file."""
    if filter is None:
        return None, b""
    path, _, function = filter.rpartition(":")
    if not path or not function.isidentifier():
        raise UserError(f"filter={filter!r} must be FILE.py:FUNCTION")
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"filter={filter!r}: {path} cannot be read ({error.strerror})") from None
    stages.load_function(path, function)
    return function, source
