"""What a pre-training run has left behind, read again: metrics, config, facts of its corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.data import Corpus
from electra_jax.data.inspect import token_counts, unigram_entropy
from electra_jax.data.tokenization import continues_word
from electra_jax.errors import UserError
from electra_jax.run_directory import read_json
from electra_jax.writers import read_rows

# Documents that are looked at for duplicates.
_MOST_DOCUMENTS = 50_000


class CorpusFacts(NamedTuple):
    """What a diagnosis asks of a corpus.

    Attributes:
      num_tokens, num_documents: to train on.
      vocab_size: of the tokenizer.
      unigram_entropy: in nats; what a model reaches that knows frequencies alone.
      unknown_share: of the tokens, those that are [UNK].
      unused_share: of the ids, those that occur nowhere.
      pieces_per_word: tokens by words; None where words are not told apart.
      duplicate_share: of the documents, those that repeat an earlier one to the token.
    """

    num_tokens: int
    num_documents: int
    vocab_size: int
    unigram_entropy: float
    unknown_share: float
    unused_share: float
    pieces_per_word: float | None
    duplicate_share: float


class RunRecord(NamedTuple):
    """A run.

    Attributes:
      path: its directory.
      config: the resolved config, nested.
      rows: of `metrics.jsonl`.
      corpus: facts; None where the corpus is no longer there.
    """

    path: Path
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    corpus: CorpusFacts | None

    def of(self, split: str) -> list[Mapping[str, Any]]:
        """Rows of "train" or "eval"."""
        return [row for row in self.rows if row["split"] == split]

    def values(self, metric: str, split: str = "train") -> np.ndarray:
        """A metric's values in order; rows without it, or without a number, are left out."""
        found = [row.get(metric) for row in self.of(split)]
        return np.array([value for value in found if value is not None], np.float64)

    def late(self, metric: str, split: str = "train") -> float:
        """Mean of the last fifth of a metric's values; NaN where there is none."""
        values = self.values(metric, split)
        return float(values[-max(1, len(values) // 5) :].mean()) if len(values) else float("nan")


def read_run(directory: Path | str, *, with_corpus: bool = True) -> RunRecord:
    """Reads the workdir of `train.py`.

    Args:
      with_corpus: whether facts of the corpus are gathered, where it still is.

    Raises:
      UserError: if it is no such workdir.
    """
    directory = Path(directory)
    metrics, described = directory / "metrics.jsonl", directory / "config.json"
    if not metrics.exists() or not described.exists():
        raise UserError(
            f"{directory} has no metrics.jsonl and config.json: give the --workdir of a run of "
            "train.py"
        )
    description = read_json(described)
    rows = read_rows(metrics)
    if "config" not in description or "objective" not in description["config"]:
        raise UserError(f"{directory} is no run of train.py: give the --workdir of one")
    if not any(row.get("split") == "train" for row in rows):
        raise UserError(f"{metrics} has no row of training yet: wait for train.log_every steps")
    facts = None
    path = description.get("corpus", {}).get("path")
    if with_corpus and path is not None and Path(path).exists():
        corpus = Corpus.open(path)
        if corpus.fingerprint == description["corpus"]["fingerprint"]:
            facts = corpus_facts(corpus)
    return RunRecord(directory, description["config"], rows, facts)


def corpus_facts(corpus: Corpus) -> CorpusFacts:
    """Reads all tokens once."""
    counts = token_counts(corpus, "train")
    ordinary = np.setdiff1d(np.arange(corpus.vocab_size), list(corpus.special_ids))
    pieces = None
    try:
        continues = continues_word(corpus.tokenizer())
        words = counts[~continues].sum()
        pieces = float(counts.sum() / words) if words else None
    except UserError:
        pass
    seen, documents = set(), 0
    for shard in corpus.shards("train"):
        start = 0
        for end in shard.document_ends[: _MOST_DOCUMENTS - documents]:
            seen.add(hashlib.sha256(shard.tokens[start:end].tobytes()).digest()[:8])
            start, documents = end + 1, documents + 1
    return CorpusFacts(
        num_tokens=corpus.num_tokens("train"),
        num_documents=corpus.num_documents("train"),
        vocab_size=corpus.vocab_size,
        unigram_entropy=unigram_entropy(counts),
        unknown_share=float(counts[corpus.special_ids.unk] / max(counts.sum(), 1)),
        unused_share=float((counts[ordinary] == 0).mean()),
        pieces_per_word=pieces,
        duplicate_share=1 - len(seen) / max(documents, 1),
    )
