"""Draws the committed curves of the experiment, all seeds, on held-out text over tokens.

python experiments/small_wikipedia/picture.py FILE.png
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from electra_jax.curves import points  # noqa: E402
from electra_jax.reference_curves import read_curves  # noqa: E402

BEGINNING = "small_wikipedia-"
PANELS = {
    "mlm_loss": "masked-language-model loss",
    "disc_loss": "replaced-token loss",
    "disc_auc": "area under the ROC curve",
}


def main(path: str) -> None:
    """Draws a line for each run; the seeds of a row have one colour, later ones are dashed."""
    from matplotlib.figure import Figure

    curves = read_curves(f"reference:{BEGINNING}")
    names = {curve: curve.removeprefix(BEGINNING).partition("_seed_") for curve in curves}
    rows = list(dict.fromkeys(name for name, _, _ in names.values()))
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        for curve, (name, _, seed) in names.items():
            found = points(curves[curve], "eval", metric, axis="tokens", scale=1e-6)
            if found:
                style = {"color": f"C{rows.index(name)}", "linestyle": "--" if seed else "-"}
                axes.plot(*zip(*found, strict=True), label=f"{name}, seed {seed or 0}", **style)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("million tokens")
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
