"""Whether a model of Electric scores sentences above the same with one piece replaced.

python benchmarks/score_order.py RUN TEXT [--sentences 1000]

RUN is a run with --config.objective.name=electric, TEXT a text file (also .xz) that it was not
trained on. A word that is one piece is replaced by another one-piece word: any of the vocabulary,
or one as frequent as words of the text are.
"""

from __future__ import annotations

import argparse
import lzma
import re
from pathlib import Path

import numpy as np

from electra_jax.inference import TextModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("text", type=Path)
    parser.add_argument("--sentences", type=int, default=1000)
    arguments = parser.parse_args()
    opened = lzma.open if arguments.text.suffix == ".xz" else open
    with opened(arguments.text, "rt", encoding="utf-8") as file:
        text = file.read(5_000_000)
    sentences = [s.strip() for s in re.split(r"(?<=[.])\s+", text) if 8 <= len(s.split()) <= 20]
    sentences = sentences[: arguments.sentences]
    model, rng = TextModel(arguments.run), np.random.default_rng(0)
    tokenizer = model.pretrained.tokenizer
    pieces = [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
    vocabulary = sorted({piece for piece in pieces if piece.isalpha() and len(piece) > 1})
    known = set(vocabulary)
    frequent = [w.lower() for s in sentences for w in s.split() if w.lower() in known]

    def changed(sentence: str, words: list[str]) -> str:
        parts = sentence.split()
        places = [i for i, word in enumerate(parts) if word.lower() in known]
        if places:
            parts[rng.choice(places)] = str(rng.choice(words))
        return " ".join(parts)

    real = np.array(list(model.score(sentences)))
    print("| one piece replaced by | sentences | real one scored higher |\n|---|---|---|")
    for name, words in (("any of the vocabulary", vocabulary), ("one as frequent", frequent)):
        others = [changed(sentence, words) for sentence in sentences]
        differs = np.array([a.lower() != b.lower() for a, b in zip(sentences, others, strict=True)])
        higher = real > np.array(list(model.score(others)))
        print(f"| {name} | {differs.sum():,} | {higher[differs].mean():.1%} |")


if __name__ == "__main__":
    main()
