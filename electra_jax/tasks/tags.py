"""Tags and the spans they mean, by the rules of conlleval, the script of CoNLL's shared tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

OUTSIDE = "O"


class Span(NamedTuple):
    """Words [start, end) of a sentence that are of a type."""

    type: str
    start: int
    end: int


def split_tag(tag: str) -> tuple[str, str]:
    """Prefix and type: ("B", "NP") of B-NP, ("B", "GEO-LOC") of B-GEO-LOC, ("O", "") of O."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans that tags mean; any sequence of tags means some, as in conlleval.

    A span starts at B- and S-, and at I- and E- after O, after an end, or after another type. It
    ends before O, B-, S- or another type, and after E- and S-. So IOB1, IOB2 and IOBES are all
    understood. (In the original a change of type does not end a span.)

    Args:
      tags: O, or B-, I-, E- or S- and a type.
    """
    spans: list[Span] = []
    start, open_type = 0, None
    previous_ends = True
    for i, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        goes_on = prefix in ("I", "E") and kind == open_type and not previous_ends
        if open_type is not None and not goes_on:
            spans.append(Span(open_type, start, i))
            open_type = None
        if prefix != OUTSIDE and not goes_on:
            start, open_type = i, kind
        previous_ends = prefix in (OUTSIDE, "E", "S")
    if open_type is not None:
        spans.append(Span(open_type, start, len(tags)))
    return spans


def to_bioes(tags: Sequence[str]) -> tuple[str, ...]:
    """The same spans with tags that mark ends: S- alone, or B- (I-)* E-, as in the original.

    Args:
      tags: as in `spans_of`.
    """
    result = [OUTSIDE] * len(tags)
    for kind, start, end in spans_of(tags):
        result[start:end] = [f"I-{kind}"] * (end - start)
        result[start] = f"B-{kind}"
        result[end - 1] = f"E-{kind}" if end - start > 1 else f"S-{kind}"
    return tuple(result)


def to_iob2(tags: Sequence[str]) -> tuple[str, ...]:
    """The same spans with B- at the first word of each and I- at the others.

    Args:
      tags: as in `spans_of`.
    """
    result = [OUTSIDE] * len(tags)
    for kind, start, end in spans_of(tags):
        result[start:end] = [f"I-{kind}"] * (end - start)
        result[start] = f"B-{kind}"
    return tuple(result)
