"""Whether the fast form of the loss trains as the plain one does: curves laid over each other.

python benchmarks/overlay.py CORPUS [--steps 2000] [--seeds 3] [--picture FILE.png] [--output FILE]

Trains a tiny model with both, from the same parameters on the same rows and masks but with dropout
and samples of their own, and prints the mean losses of every tenth of the run. What the two forms
differ by is to be no more than what seeds of one form do.
"""

from __future__ import annotations

import argparse
import functools
import json

import jax
import numpy as np
from plain import PlainElectra

from electra_jax import parallel
from electra_jax.config import ElectraConfig
from electra_jax.data import Corpus, TokenBatches
from electra_jax.modeling import Electra
from electra_jax.objectives.electra import ElectraObjective
from electra_jax.optimizer import make_optimizer
from electra_jax.steps import train_step
from electra_jax.train_state import create_train_state

BATCH_SIZE, SEQ_LEN = 32, 32


def losses_of(form: str, seed: int, corpus: Corpus, num_steps: int) -> np.ndarray:
    """Generator's and whole loss of every step, [num_steps, 2]."""
    config = ElectraConfig(
        vocab_size=corpus.vocab_size,
        embedding_size=64,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        generator_size=0.5,
        init_stddev=0.08,
    )
    arguments = (corpus.vocab_size, corpus.special_ids)
    objective = {
        "fast": ElectraObjective(*arguments, rows_at_once=BATCH_SIZE * 2),
        "plain": PlainElectra(*arguments, config=config),
    }[form]
    batches = TokenBatches(corpus, seq_len=SEQ_LEN, batch_size=BATCH_SIZE, seed=seed)
    tx = make_optimizer(learning_rate=2e-3, warmup_steps=100, num_train_steps=num_steps)
    state = create_train_state(jax.random.key(seed), Electra(config), tx, seq_len=SEQ_LEN)
    step = jax.jit(functools.partial(train_step, objective=objective), donate_argnums=0)
    losses = []
    for number in range(num_steps):
        state, sums = step(state, batches.batch_at(number))
        if form == "fast":
            metrics = objective.summarize(jax.device_get(sums))
            losses.append((metrics["mlm_loss"], metrics["loss"]))
        else:
            losses.append((float(sums["mlm_loss"]), float(sums["loss"])))
    return np.array(losses)


def draw(curves: dict[str, np.ndarray], path: str) -> None:
    """Means over hundred steps of all seeds, both forms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = ("generator: masked-language-model loss", "whole loss")
    for column, (axes, title) in enumerate(zip(figure.subplots(1, 2), panels, strict=True)):
        for form, colour, style in (("plain", "C1", "-"), ("fast", "C0", "--")):
            for seed, curve in enumerate(curves[form][..., column]):
                width = min(100, len(curve))
                smooth = curve[: len(curve) // width * width].reshape(-1, width).mean(axis=1)
                steps = (np.arange(len(smooth)) + 0.5) * width
                label = form if seed == 0 else None
                axes.plot(steps, smooth, style, color=colour, label=label, linewidth=1.2)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="a corpus of `electra-jax prepare`, of a small vocabulary")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", help="a PNG file to draw")
    parser.add_argument("--output", help="a file to append a JSON line to")
    arguments = parser.parse_args()
    parallel.enable_compilation_cache()
    corpus = Corpus.open(arguments.corpus)
    curves = {
        form: np.stack(
            [losses_of(form, seed, corpus, arguments.steps) for seed in range(arguments.seeds)]
        )
        for form in ("plain", "fast")
    }
    tenths = {
        form: curve[:, : arguments.steps // 10 * 10]
        .reshape(arguments.seeds, 10, -1, 2)
        .mean(axis=2)
        for form, curve in curves.items()
    }
    print("| steps | plain | fast | difference | deviation over seeds |\n|---|---|---|---|---|")
    rows = []
    for tenth in range(10):
        plain, fast = (tenths[form][:, tenth, 1] for form in ("plain", "fast"))
        last = (tenth + 1) * arguments.steps // 10
        rows.append((last, plain.mean(), fast.mean(), (fast - plain).mean(), plain.std(ddof=1)))
        print("| to {:,} | {:.3f} | {:.3f} | {:+.3f} | {:.3f} |".format(*rows[-1]))
    if arguments.picture:
        draw(curves, arguments.picture)
    if arguments.output:
        with open(arguments.output, "a", encoding="utf-8") as file:
            file.write(json.dumps({"benchmark": "overlay", "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
