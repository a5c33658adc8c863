"""What is in a corpus, in words, numbers and a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from electra_jax.data import storage
from electra_jax.data.corpus import SPLITS, Corpus
from electra_jax.data.shards import document_lengths
from electra_jax.errors import UserError

_CHUNK = 1 << 22
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 300
_BAR_WIDTH = 40


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
        for start in range(0, len(shard.tokens), _CHUNK):
            counts += np.bincount(shard.tokens[start : start + _CHUNK], minlength=corpus.vocab_size)
    counts[corpus.special_ids.sep] = 0
    return counts


def length_histogram(corpus: Corpus, split: str) -> np.ndarray:
    """Documents by length: int64 [bins], number k of 2^k to 2^(k + 1) - 1 tokens."""
    histogram = np.zeros(64, np.int64)
    for shard in corpus.shards(split):
        bins = np.frexp(document_lengths(shard).astype(float))[1] - 1
        histogram += np.bincount(bins, minlength=64)
    return np.trim_zeros(histogram, "b")


def describe_corpus(path: Path | str, picture: Path | str | None = None) -> str:
    """Verifies every checksum and describes a corpus.

    Args:
      path: of the corpus.
      picture: a file to draw the lengths of the documents to; its ending says the format.

    Raises:
      UserError: if the corpus is not intact, naming the file, or the picture cannot be written.
    """
    if picture is not None and not Path(picture).suffix:
        raise UserError(f"picture {picture} has no ending: give it .png, .svg or .pdf")
    corpus = Corpus.open(path)
    corpus.verify()
    ids = corpus.special_ids
    settings = corpus.metadata["tokenizer"]["settings"]
    lines = [
        f"corpus       {corpus.path}",
        f"fingerprint  {corpus.fingerprint}",
        f"tokenizer    {settings['kind']}, {corpus.vocab_size:,} ids; "
        + ", ".join(f"[{name.upper()}] {value}" for name, value in ids._asdict().items()),
    ]
    for split in SPLITS:
        if not corpus.shards(split):
            lines.append(f"{split:12} empty")
            continue
        counts = token_counts(corpus, split)
        sentences = sum(len(shard.sentence_ends) for shard in corpus.shards(split))
        lines += [
            f"{split:12} {corpus.num_documents(split):,} documents, {sentences:,} sentences, "
            f"{int(counts.sum()):,} tokens, {counts[ids.unk] / counts.sum():.4%} unknown, "
            f"unigram entropy {unigram_entropy(counts):.3f} nats",
        ]
    lines += ["", "training documents by length in tokens:"]
    lines += _bars(length_histogram(corpus, "train"))
    lines += ["", "how some of them begin:"]
    lines += [f"  {text}" for text in _beginnings(corpus)]
    if picture is not None:
        _draw(corpus, Path(picture))
        lines += ["", f"picture      {picture}"]
    return "\n".join(lines) + "\n\nall checksums are right"


def _bars(histogram: np.ndarray) -> list[str]:
    lines = []
    for k in range(int(np.flatnonzero(histogram)[0]), len(histogram)):
        bar = "█" * int(np.ceil(_BAR_WIDTH * histogram[k] / histogram.max()))
        label = f"{1 << k:,} - {(2 << k) - 1:,}"
        lines.append(f"  {label:>23}  {bar:{_BAR_WIDTH}}  {histogram[k]:,}")
    return lines


def _beginnings(corpus: Corpus) -> list[str]:
    """Text of the first sentences of some documents, spread over the training split."""
    shards, tokenizer = corpus.shards("train"), corpus.tokenizer()
    ends = np.cumsum([len(shard.document_ends) for shard in shards])
    texts = []
    for number in np.unique(np.linspace(0, ends[-1] - 1, _EXAMPLES).astype(int)):
        index = int(np.searchsorted(ends, number, "right"))
        shard = shards[index]
        place = int(number - ends[index])  # from the end of the shard
        start = shard.document_ends[place - 1] + 1 if place > -len(shard.document_ends) else 0
        tokens = shard.tokens[start : min(shard.document_ends[place], start + 100)]
        text = tokenizer.decode(tokens.tolist())
        shown = text[:_EXAMPLE_CHARACTERS]
        texts.append(shown + ("…" if start + 100 < shard.document_ends[place] else ""))
    return texts


def _draw(corpus: Corpus, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for split in SPLITS:
        histogram = length_histogram(corpus, split)
        if len(histogram):
            share = histogram / histogram.sum()
            edges = 2.0 ** np.arange(len(histogram) + 1)
            label = f"{split}: {histogram.sum():,} documents"
            axes.stairs(share, edges, label=label, fill=split == "train", alpha=0.7, linewidth=2)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("tokens of a document")
    axes.set_ylabel("share of the documents")
    axes.set_title(str(corpus.path))
    axes.legend()
    drawn = io.BytesIO()
    try:
        figure.savefig(drawn, format=path.suffix[1:], dpi=120)
        storage.write_bytes(str(path), drawn.getbuffer())
    except (OSError, ValueError) as error:
        raise UserError(f"picture {path} cannot be written ({error}): name another file") from None
