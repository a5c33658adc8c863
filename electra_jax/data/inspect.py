"""What is in a corpus, in words and numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from electra_jax.data.corpus import Corpus


def unigram_entropy(counts: np.ndarray) -> float:
    """Entropy of the distribution with these counts [V], in nats.

    A model that knows how often each token occurs, and nothing of its context, reaches this
    masked-language-model loss; a lower one shows that it uses the context.
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def token_counts(corpus: Corpus, split: str) -> np.ndarray:
    """How often each id occurs in a split, int64 [vocab_size]; the stored [SEP]s left out."""
    counts = np.zeros(corpus.vocab_size, np.int64)
    for shard in corpus.shards(split):
        counts += np.bincount(shard.tokens, minlength=corpus.vocab_size)
    counts[corpus.special_ids.sep] = 0
    return counts


def describe_corpus(path: Path | str) -> str:
    """Verifies every checksum and describes a corpus.

    Raises:
      UserError: if it is not intact, naming the file.
    """
    corpus = Corpus.open(path)
    corpus.verify()
    ids = corpus.special_ids
    lines = [
        f"corpus       {corpus.path}",
        f"fingerprint  {corpus.fingerprint}",
        f"vocabulary   {corpus.vocab_size:,} ids; "
        + ", ".join(f"[{name.upper()}] {value}" for name, value in ids._asdict().items()),
    ]
    for split in ("train", "validation"):
        if not corpus.shards(split):
            lines.append(f"{split:12} empty")
            continue
        counts = token_counts(corpus, split)
        lines += [
            f"{split:12} {corpus.num_documents(split):,} documents, "
            f"{int(counts.sum()):,} tokens, {counts[ids.unk] / counts.sum():.4%} unknown, "
            f"unigram entropy {unigram_entropy(counts):.3f} nats",
        ]
    shard = corpus.shards("train")[0]
    tokenizer = corpus.tokenizer()
    starts = [0, *shard.sentence_ends[:2].tolist()]
    lines.append("first sentences:")
    for begin, end in zip(starts[:-1], starts[1:], strict=True):
        lines.append("  " + tokenizer.decode(shard.tokens[begin:end].tolist()))
    return "\n".join(lines) + "\nall checksums are right"
