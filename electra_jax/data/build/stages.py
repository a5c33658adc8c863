"""The work of a build, piece by piece: pure functions of a piece and a recipe, in any process.

A piece leaves files below the build's directory, each whole or absent, and nothing else. Done
again it leaves the same files, so a build that was killed just does what is missing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.abc
import importlib.util
import json
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.data import storage
from electra_jax.data.build.layout import Held, ShardPlan, shard_pieces
from electra_jax.data.build.parts import Part, PartName, read_state, write_part
from electra_jax.data.reading import ReadingCounts, ReadingOptions, Unit, read_documents
from electra_jax.data.sentences import split_sentences
from electra_jax.data.shards import Shard, concatenate, make_shard, write_shard
from electra_jax.data.tokenization import Tokenizer, load_tokenizer
from electra_jax.data.tokenization.interface import id_dtype
from electra_jax.errors import UserError

# Characters encoded at a time.
_BATCH_CHARACTERS = 1 << 20
# A part ends with the batch that brings it to so many tokens: what a kill can cost a worker.
_PART_TOKENS = 1 << 22
# Documents that go by between reports, where none are encoded.
_REPORT_DOCUMENTS = 256

# Beam runs pieces of work in threads of one process, and tokenizers keep what they have met.
_ENCODING = threading.Lock()

TOKENIZER = "tokenizer"
SAMPLE = "sample"
SHARDS = "shards"
FILTER_FILE = "filter.py"

Report = Callable[["Progress"], None]


class Progress(NamedTuple):
    """What a piece of work has done since it last reported."""

    source_bytes: int = 0
    text_bytes: int = 0
    documents: int = 0
    tokens: int = 0


class Job(NamedTuple):
    """Units that one process reads, one after another.

    Attributes:
      index: number of the job.
      units: what it reads.
      finished: its parts that are there already.
    """

    index: int
    units: tuple[Unit, ...]
    finished: tuple[PartName, ...] = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What determines the bytes of a corpus, beside its inputs and its tokenizer.

    Attributes:
      directory: of the build; has the tokenizer.
      tokenizer: checksum of the tokenizer.
      reading: how inputs are read.
      split_sentences: whether lines are split into sentences; otherwise a line is one.
      min_characters: documents with fewer are left out.
      filter_function: name of the function in `FILTER_FILE` that says which documents are kept.
      sample_rate: share of the documents that a tokenizer is trained on.
    """

    directory: str
    reading: ReadingOptions
    tokenizer: str = ""
    split_sentences: bool = True
    min_characters: int = 0
    filter_function: str | None = None
    sample_rate: float = 1.0


class Text(NamedTuple):
    """A document: its paragraphs and the hash of its text, two numbers in [0, 2**64)."""

    paragraphs: list[str]
    hash: tuple[int, int]


def sample_name(job: Job) -> str:
    """Name of the file that `sample_texts` writes."""
    return f"{job.index:06d}.jsonl"


def sample_texts(job: Job, report: Report, *, recipe: Recipe) -> None:
    """Writes the paragraphs of a job's documents that a tokenizer is to be trained on."""
    below = int(recipe.sample_rate * 2.0**64)
    reader = _job_reader(job, recipe, report)
    with storage.create(f"{recipe.directory}/{SAMPLE}/{sample_name(job)}") as file:
        for number, text in enumerate(reader.texts()):
            # Not the number that also chooses what is held out.
            if text.hash[1] < below:
                lines = [json.dumps(text, ensure_ascii=False) for text in text.paragraphs]
                file.write(("\n".join(lines) + "\n").encode())
            if number % _REPORT_DOCUMENTS == 0:
                reader.report()
    reader.report()


def sampled_texts(directory: str, jobs: Sequence[Job], max_bytes: float) -> Iterator[str]:
    """What `sample_texts` has written, in the order of the corpus.

    Where it is more than `max_bytes`, because inputs were larger than their names let guess,
    evenly spaced ones of the paragraphs.
    """
    names = [f"{directory}/{SAMPLE}/{sample_name(job)}" for job in jobs]
    share = min(1.0, max_bytes / max(1, sum(map(storage.size, names))))
    taken = 0.0
    for name in names:
        with storage.open_read(name) as file:
            for line in file:
                taken += share
                if taken >= 1.0:
                    taken -= 1.0
                    yield json.loads(line)


def encode(job: Job, report: Report, *, recipe: Recipe) -> None:
    """Writes the parts of a job that are missing (`parts`)."""
    encode_texts(_job_reader(job, recipe, report), job, recipe)


def encode_texts(reader: Reader, job: Job, recipe: Recipe) -> None:
    """`encode`, of documents from anywhere."""
    directory, tokenizer = recipe.directory, _stored_tokenizer(recipe.directory, recipe.tokenizer)
    split = split_sentences if recipe.split_sentences else None
    if job.finished:
        reader.skip(read_state(directory, job.finished[-1]))
    index, pieces = len(job.finished), []

    def write(is_last: bool) -> None:
        shards, hashes, unknown = zip(*pieces, strict=True)
        part = Part(
            concatenate(shards), np.concatenate(hashes), np.concatenate(unknown), reader.state()
        )
        write_part(directory, PartName(job.index, index, is_last), part)

    for batch in _batches(reader.texts()):
        pieces.append(_encode_batch(batch, tokenizer, split))
        reader.encoded(pieces[-1].shard, len(batch))
        if sum(len(piece.shard.tokens) for piece in pieces) >= _PART_TOKENS:
            write(is_last=False)
            index, pieces = index + 1, []
    pieces.append(_encode_batch([], tokenizer, split))
    write(is_last=True)
    reader.report()


def write_planned_shard(
    plan: ShardPlan, report: Report, *, recipe: Recipe, held: Held, output: str
) -> None:
    """Writes a shard of the corpus, and then its entry in corpus.json to the build's directory."""
    described = write_shard(
        output,
        plan.name,
        shard_pieces(recipe.directory, plan, held),
        num_tokens=plan.num_tokens,
        num_sentences=plan.num_sentences,
        num_documents=plan.num_documents,
        dtype=id_dtype(_stored_tokenizer(recipe.directory, recipe.tokenizer).vocab_size),
    )
    path = f"{recipe.directory}/{SHARDS}/{plan.name}.json"
    storage.write_bytes(path, json.dumps(described).encode())
    report(Progress(tokens=plan.num_tokens))


def shard_entry(directory: str, plan: ShardPlan) -> dict[str, Any]:
    """The entry in corpus.json that `write_planned_shard` has written."""
    with storage.open_read(f"{directory}/{SHARDS}/{plan.name}.json") as file:
        return json.loads(file.read())


def text_hash(paragraphs: list[str]) -> tuple[int, int]:
    """A hash of a document's text: two integers in [0, 2**64)."""
    content = "\n".join(paragraphs).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


class Reader:
    """The documents of a job that are kept, with counts of everything that was met."""

    def __init__(
        self, documents: Iterable[list[str]], counts: ReadingCounts, recipe: Recipe, report: Report
    ):
        """Takes documents, and the counts that whoever reads them adds to."""
        self._documents, self._counts, self._recipe, self._send = documents, counts, recipe, report
        self._own = {"read": 0, "empty_documents": 0, "short_documents": 0, "filtered_documents": 0}
        self._skipped = 0
        self._reported = (0, 0)
        self._keeps = None
        if recipe.filter_function:
            path = f"{recipe.directory}/{FILTER_FILE}"
            self._keeps = load_function(path, recipe.filter_function)

    def skip(self, state: dict[str, int]) -> None:
        """Makes `texts` begin after the documents that a part with this state ends with."""
        self._skipped = state["read"]
        self._own = {name: state[name] for name in self._own}

    def texts(self) -> Iterator[Text]:
        """The documents, in order."""
        for number, paragraphs in enumerate(self._documents):
            if number < self._skipped:
                if number % _REPORT_DOCUMENTS == 0:
                    self.report()
                continue
            self._own["read"] += 1
            if self._recipe.min_characters > sum(map(len, paragraphs)):
                self._own["short_documents"] += 1
            elif self._keeps and not self._keeps("\n".join(paragraphs)):
                self._own["filtered_documents"] += 1
            else:
                yield Text(paragraphs, text_hash(paragraphs))

    def encoded(self, shard: Shard, num_texts: int) -> None:
        """Counts a batch that has been encoded, and reports it."""
        documents = len(shard.document_ends)
        self._own["empty_documents"] += num_texts - documents
        self.report(documents, len(shard.tokens) - documents)

    def report(self, documents: int = 0, tokens: int = 0) -> None:
        """Reports what has been read since the last report."""
        now = (self._counts.source_bytes, self._counts.text_bytes)
        read = [new - old for new, old in zip(now, self._reported, strict=True)]
        self._reported = now
        self._send(Progress(*read, documents, tokens))

    def state(self) -> dict[str, int]:
        """What has been met since the job began."""
        counts = dataclasses.asdict(self._counts)
        del counts["source_bytes"]
        return counts | self._own


def _job_reader(job: Job, recipe: Recipe, report: Report) -> Reader:
    counts = ReadingCounts()
    documents = (
        paragraphs
        for unit in job.units
        for paragraphs in read_documents(unit, recipe.reading, counts)
    )
    return Reader(documents, counts, recipe, report)


class _Batch(NamedTuple):
    shard: Shard
    hashes: np.ndarray
    unknown: np.ndarray


def _encode_batch(
    texts: list[Text], tokenizer: Tokenizer, split: Callable[[str], list[str]] | None
) -> _Batch:
    """Encodes documents."""
    sentences: list[str] = []
    num_sentences = np.zeros(len(texts), np.int64)
    for i, text in enumerate(texts):
        before = len(sentences)
        if split:
            for paragraph in text.paragraphs:
                sentences += split(paragraph)
        else:
            sentences += text.paragraphs
        num_sentences[i] = len(sentences) - before
    with _ENCODING:
        ids, lengths = tokenizer.encode_flat(sentences)
    ids = ids.astype(id_dtype(tokenizer.vocab_size), copy=False)
    special = tokenizer.special_ids
    shard, kept = make_shard(ids, lengths, num_sentences, sep_id=special.sep)
    hashes = np.array([text.hash for text in texts], np.uint64).reshape(-1, 2)[kept]
    starts = np.concatenate([np.zeros(1, np.int64), shard.document_ends + 1])[:-1]
    is_unknown = (shard.tokens == special.unk).astype(np.int32)
    unknown = np.add.reduceat(is_unknown, starts) if len(starts) else np.zeros(0, np.int32)
    return _Batch(shard, hashes, unknown)


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch, characters = [], 0
    for text in texts:
        batch.append(text)
        characters += sum(map(len, text.paragraphs))
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@functools.lru_cache(maxsize=1)
def _stored_tokenizer(directory: str, checksum: str) -> Tokenizer:
    """The build's tokenizer, loaded once in a process."""
    del checksum  # Tells apart what has been at the same place.
    return load_stored_tokenizer(directory)


def load_stored_tokenizer(directory: str) -> Tokenizer:
    """The tokenizer in a build's directory."""
    source = f"{directory}/{TOKENIZER}"
    with tempfile.TemporaryDirectory() as copy:
        for name in storage.list_names(source):
            with storage.open_read(f"{source}/{name}") as file:
                Path(copy, name).write_bytes(file.read())
        try:
            return load_tokenizer(copy)
        except UserError:
            raise UserError(
                f"{source} is damaged: remove the build's directory yourself, and prepare again"
            ) from None


class _StoredSource(importlib.abc.SourceLoader):
    """Loads a module from a file wherever it is kept."""

    def __init__(self, name: str):
        self._name = name

    def get_filename(self, fullname: str) -> str:
        return self._name

    def get_data(self, path: str) -> bytes:
        with storage.open_read(self._name) as file:
            return file.read()


def load_function(path: str, name: str) -> Callable[[str], bool]:
    """A function of a user's Python file, from a document's text to whether it is kept.

    Raises:
      UserError: if the file cannot be run, or has no such function.
    """
    loader = _StoredSource(path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("filter", loader))
    try:
        loader.exec_module(module)
        function = getattr(module, name)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"filter: {name} cannot be loaded from {path} ({_describe(error)}): correct the file, "
            "which has to stand alone"
        ) from None

    def keeps(text: str) -> bool:
        try:
            kept = function(text)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"filter: {name} fails ({_describe(error)}) on the document that begins "
                f"{text[:60]!r}: correct it"
            ) from None
        if not isinstance(kept, bool | np.bool_):
            raise UserError(
                f"filter: {name} returns {type(kept).__name__}, not True or False: correct it, "
                "perhaps with bool(...)"
            )
        return bool(kept)

    return keeps


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
