"""Text of made-up words, the same for the same seed."""

from __future__ import annotations

import numpy as np


def generate_text(num_documents: int, seed: int = 0) -> str:
    """Documents of made-up words, a blank line between them; every sentence ends with a stop."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(300)]
    documents = []
    for _ in range(num_documents):
        lines = []
        for _ in range(rng.integers(1, 6)):
            sentences = [
                " ".join(rng.choice(words, rng.integers(2, 25))).capitalize() + "."
                for _ in range(rng.integers(1, 6))
            ]
            lines.append(" ".join(sentences))
        documents.append("\n".join(lines))
    return "\n\n".join(documents) + "\n"
