"""Pictures of a run's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Panels: (metric, title).
_PANELS = (
    ("mlm_loss", "Generator: masked-language-model loss"),
    ("disc_loss", "Discriminator: replaced-token loss"),
    ("disc_auc", "Discriminator: area under the ROC curve"),
    ("mlm_accuracy", "Generator: accuracy at masked positions"),
)


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path | str, *, title: str) -> None:
    """Draws training and held-out metrics against steps into a PNG file.

    Args:
      rows: of `metrics.jsonl`.
      path: of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    for axes, (metric, panel_title) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        for split, style in (("train", "-"), ("eval", "o-")):
            points = [
                (row["step"], row[metric])
                for row in rows
                if row["split"] == split and row.get(metric) is not None
            ]
            if points:
                label = "training" if split == "train" else "held out"
                axes.plot(*zip(*points, strict=True), style, label=label, markersize=3)
        axes.set_title(panel_title, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
