"""What a discriminator says of texts, for people: a table for terminals, a page for browsers."""

from __future__ import annotations

import html
from collections.abc import Sequence

from electra_jax.inference import Detection

STYLE = """
body { font: 18px/1.9 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1c; background: #fff; }
h1 { font-size: 1.2rem; } p { margin: 0 0 1.2rem; white-space: pre-wrap; overflow-wrap: anywhere; }
span { border-radius: 3px; padding: 1px 0; } .note { color: #777; font-size: 0.85rem; }
.legend { display: inline-block; width: 12rem; height: 0.8rem; vertical-align: middle;
  background: linear-gradient(90deg, rgba(214, 40, 40, 0), rgba(214, 40, 40, 0.85)); }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #161616; } }
"""


def detection_table(detection: Detection, *, width: int, colour: bool) -> str:
    """Tokens above their probabilities of having been replaced, in lines of a width.

    Args:
      detection: of a text.
      width: characters in a line.
      colour: whether tokens with a probability of at least one half are red.
    """
    rows: list[tuple[str, str]] = []
    line, numbers, used = "", "", 0
    for token, probability in zip(detection.tokens, detection.probabilities, strict=True):
        cell = max(len(token), 5) + 2
        if used and used + cell > width:
            rows.append((line, numbers))
            line, numbers, used = "", "", 0
        shown = f"{token:>{cell}}"
        line += f"\x1b[31m{shown}\x1b[0m" if colour and probability >= 0.5 else shown
        numbers += f"{probability:>{cell}.2f}"
        used += cell
    rows.append((line, numbers))
    lines = [part for row in rows for part in row]
    return "\n".join(lines + ([f"({detection.note})"] if detection.note else []))


def detection_page(texts: Sequence[str], detections: Sequence[Detection], *, model: str) -> str:
    """A self-contained HTML page: every text, shaded where tokens look replaced."""
    body = [
        f"<h1>Which tokens were replaced, says {html.escape(model)}</h1>",
        '<p class="note">probability of having been replaced: 0 '
        '<span class="legend"></span> 1. Point at a token for its number.</p>',
    ]
    for text, detection in zip(texts, detections, strict=True):
        body.append(f"<p>{_shaded(text, detection)}</p>")
        if detection.note:
            body.append(f'<p class="note">{html.escape(detection.note)}</p>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Replaced tokens</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _shaded(text: str, detection: Detection) -> str:
    parts, done = [], 0
    rows = zip(detection.tokens, detection.offsets, detection.probabilities, strict=True)
    for token, (start, end), probability in rows:
        start = max(int(start), done)
        parts.append(html.escape(text[done:start]))
        done = max(int(end), start)
        shade = f"background: rgba(214, 40, 40, {0.85 * probability:.3f})"
        title = f"{html.escape(token)}: {probability:.2f}"
        shown = html.escape(text[start:done])
        parts.append(f'<span style="{shade}" title="{title}">{shown}</span>')
    return "".join(parts) + html.escape(text[done:])
