"""N-best lists in a new order, by a language model (Clark et al. 2020b, section 4.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from electra_jax.errors import UserError


def read_hypotheses(line: str, *, where: str) -> tuple[list[str], list[float]]:
    """Texts and their first scores, from a JSON object; without scores they are all 0.

    Raises:
      UserError: for anything else, naming `where`.
    """
    try:
        found = json.loads(line)
        texts = found["texts"]
        scores = [float(score) for score in found.get("scores", [0.0] * len(texts))]
        valid = bool(texts) and all(isinstance(text, str) for text in texts)
    except (ValueError, TypeError, KeyError, AttributeError):
        valid = False
    if not valid or len(texts) != len(scores):
        raise UserError(
            f'{where}: is no {{"texts": [...], "scores": [...]}} with a number for each text: '
            "correct the line"
        )
    return list(texts), scores


def rerank(
    likelihoods: Sequence[float], scores: Sequence[float], *, weight: float
) -> tuple[list[int], list[float]]:
    """Indices from best to worst by score + weight * likelihood, and these sums as given.

    Those that are equal stay in their order.
    """
    totals = [score + weight * p for p, score in zip(likelihoods, scores, strict=True)]
    order = sorted(range(len(totals)), key=lambda index: -totals[index])
    return order, [round(total, 4) for total in totals]
