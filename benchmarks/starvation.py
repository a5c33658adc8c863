"""Whether training waits for its data: steps on a corpus beside steps on one batch again and again.

python benchmarks/starvation.py CORPUS [--batch-size 8] [--seq-len 128] [--steps 10] [--layers 12]

Runs the loop's own way of handing over batches, with ELECTRA-small, in turns; the figure is the
ratio of the medians.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time

import jax
import numpy as np

from electra_jax import parallel
from electra_jax.config import ElectraConfig
from electra_jax.data import Corpus, TokenBatches
from electra_jax.modeling import Electra
from electra_jax.objectives.electra import ElectraObjective
from electra_jax.optimizer import make_optimizer
from electra_jax.steps import train_steps
from electra_jax.train_state import create_train_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="a corpus of `electra-jax prepare`")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=12)
    arguments = parser.parse_args()
    parallel.enable_compilation_cache()
    corpus = Corpus.open(arguments.corpus)
    on_gpu = jax.default_backend() == "gpu"
    config = ElectraConfig.small(
        vocab_size=corpus.vocab_size,
        num_layers=arguments.layers,
        dtype="bfloat16" if on_gpu else "float32",
    )
    objective = ElectraObjective(
        corpus.vocab_size, corpus.special_ids, rows_at_once=512 if on_gpu else None
    )
    tx = make_optimizer(learning_rate=5e-4, warmup_steps=100, num_train_steps=10_000)
    mesh = parallel.make_mesh(num_devices=1)
    state = create_train_state(jax.random.key(0), Electra(config), tx, seq_len=8)
    state = parallel.replicate(state, mesh)
    step = parallel.parallelize(
        functools.partial(train_steps, objective=objective), mesh, rows_axis=1
    )
    batches = TokenBatches(corpus, seq_len=arguments.seq_len, batch_size=arguments.batch_size)
    as_one = lambda batch: {name: x[None] for name, x in batch.items()}  # noqa: E731
    same = as_one(batches.batch_at(0))
    sources = {"one batch": lambda number: same, "corpus": lambda n: as_one(batches.batch_at(n))}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    waiting = []
    for number in range(arguments.rounds + 1):
        for name, source in sources.items():
            began = time.perf_counter()
            for index in range(arguments.steps):
                asked = time.perf_counter()
                batch = source(number * arguments.steps + index)
                if name == "corpus" and number:
                    waiting.append(time.perf_counter() - asked)
                state, sums = step(state, batch)
            jax.block_until_ready(sums)
            if number:
                seconds[name].append((time.perf_counter() - began) / arguments.steps)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print("| rows from | ms a step |\n|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {1000 * value:,.1f} |")
    print(
        f"\nratio {medians['corpus'] / medians['one batch']:.4f}; a batch is cut in "
        f"{1e6 * np.median(waiting):,.0f} microseconds on the host, while the step before runs"
    )


if __name__ == "__main__":
    main()
