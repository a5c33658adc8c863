"""Pictures of a run's metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Panels: (metric, title). Of those that a run has, the first four are drawn.
_PANELS = (
    ("mlm_loss", "Generator: masked-language-model loss"),
    ("disc_loss", "Discriminator: replaced-token loss"),
    ("disc_auc", "Discriminator: area under the ROC curve"),
    ("encoder_loss", "Encoder: loss of its language model"),
    ("mlm_accuracy", "Generator: accuracy at masked positions"),
    ("encoder_accuracy", "Encoder: accuracy at masked positions"),
)


def points(
    rows: Iterable[Mapping[str, Any]],
    split: str,
    metric: str,
    *,
    axis: str = "step",
    scale: float = 1.0,
) -> list[tuple[float, float]]:
    """A metric of a split's rows that have it, each beside its `axis` times `scale`."""
    return [
        (row[axis] * scale, row[metric])
        for row in rows
        if row["split"] == split and row.get(metric) is not None
    ]


def draw_curves(
    rows: Sequence[Mapping[str, Any]],
    path: Path | str,
    *,
    title: str,
    panels: Sequence[tuple[str, str]] = _PANELS,
) -> None:
    """Draws training and held-out metrics against steps into a PNG file.

    Args:
      rows: of `metrics.jsonl`.
      path: of the picture.
      title: above it.
      panels: (metric, title) of panels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    styles = (("train", "training", "C0"), ("eval", "held out", "C1"))
    last = max((row["step"] for row in rows), default=1)
    panels = [panel for panel in panels if any(panel[0] in row for row in rows)]
    for axes, panel in zip(figure.subplots(2, 2).flat, [*panels, *[None] * 4], strict=False):
        if panel is None:
            axes.set_axis_off()
            continue
        metric, panel_title = panel
        for split, label, colour in styles:
            found = points(rows, split, metric)
            if found:
                # A few points are no curve: they must be seen one by one.
                marker = "o" if split == "eval" or len(found) < 5 else ""
                steps, values = zip(*found, strict=True)
                axes.plot(steps, values, color=colour, label=label, marker=marker, markersize=4)
        axes.set_title(panel_title, fontsize=10)
        axes.set_xlabel("step")
        axes.set_xlim(0, last * 1.02)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_confusion(counts: np.ndarray, names: Sequence[str], path: Path | str) -> None:
    """Draws how often each label was taken for which into a PNG file.

    Args:
      counts: int [labels, labels], rows gold, columns predicted.
      names: the labels.
      path: of the picture.
    """
    from matplotlib.figure import Figure

    size = min(12.0, 3.0 + 0.6 * len(names))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if len(names) <= 20:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{count:,}", ha="center", va="center", color=colour)
    figure.savefig(path, dpi=110)


def draw_shares(
    counts: Mapping[str, Mapping[str, int]], path: Path | str, *, right: str, title: str
) -> None:
    """Draws what became of each group as a bar of shares into a PNG file.

    Args:
      counts: by group, by outcome; the outcomes of all groups in one order.
      path: of the picture.
      right: the outcome that is drawn first and in green, as it is no mistake.
      title: above it.
    """
    from matplotlib.figure import Figure

    outcomes = [right, *(name for name in next(iter(counts.values()), {}) if name != right)]
    figure = Figure(figsize=(9, 1.8 + 0.38 * len(counts)), layout="constrained")
    axes = figure.add_subplot()
    totals = np.array([max(1, sum(group.values())) for group in counts.values()])
    names = [f"{name} ({sum(group.values()):,})" for name, group in counts.items()]
    left = np.zeros(len(counts))
    colours = ["#4a9c6d", *(f"C{i}" for i in (1, 3, 4, 0, 5, 8))]
    for outcome, colour in zip(outcomes, colours, strict=False):
        shares = np.array([group.get(outcome, 0) for group in counts.values()]) / totals
        axes.barh(names, shares, left=left, label=outcome, color=colour, height=0.75)
        left += shares
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=len(outcomes), fontsize=8)
    figure.savefig(path, dpi=110)


def draw_scatter(gold: Sequence[float], predicted: Sequence[float], path: Path | str) -> None:
    """Draws predicted numbers over the labels [examples] into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(gold, predicted, s=8, alpha=0.5)
    ends = [float(min(gold)), float(max(gold))]
    axes.plot(ends, ends, color="grey", linewidth=1, label="predicted = label")
    axes.set_xlabel("label")
    axes.set_ylabel("predicted")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_sweep(results: Sequence[Mapping[str, Any]], path: Path | str) -> None:
    """Draws each probe's scores by run, a point a trial, into a PNG file.

    Args:
      results: of `sweep.run_sweep`.
      path: of the picture.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(result["name"] for result in results))
    probes = list(dict.fromkeys(task for result in results for task in result["probes"]))
    panels = [(task, lambda r, task=task: r["probes"].get(task, [])) for task in probes]
    panels.append(("minutes of pre-training", lambda r: [r["seconds"] / 60]))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (1.5 + 3.2 * columns, rows * (0.9 + 0.3 * len(names)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, values) in zip(grid[: len(panels)], panels, strict=True):
        for place, name in enumerate(names):
            found = [value for r in results if r["name"] == name for value in values(r)]
            axes.plot(found, [place] * len(found), "o", color="C0", alpha=0.6)
            if found:
                axes.plot(np.median(found), place, "|", color="C1", markersize=18)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
