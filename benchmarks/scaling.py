"""What a training step sends between devices and needs on each, compiled for many, run on none.

python benchmarks/scaling.py [--configs base large] [--devices 8 64 512]

The devices are virtual ones of the CPU; collectives and the state's size are those of any platform,
temporary memory is the CPU compiler's, which keeps more and in float32. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where configs/ is

VOCAB_SIZE = 30522
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def one(name: str, devices: int, fsdp: bool) -> str:
    """A row of the table."""
    import jax
    import numpy as np

    from electra_jax import parallel, run_config
    from electra_jax.modeling import Electra
    from electra_jax.optimizer import make_optimizer
    from electra_jax.special_ids import SpecialIds
    from electra_jax.steps import train_step
    from electra_jax.train_state import create_train_state

    config = importlib.import_module(f"configs.{name}").get_config()
    mesh = parallel.make_mesh("cpu")
    model = Electra(run_config.model_config(config, "tpu", vocab_size=VOCAB_SIZE))
    tx = make_optimizer(num_train_steps=config.train.num_train_steps, **config.optimizer)
    objective = run_config.make_objective(config, VOCAB_SIZE, SpecialIds(0, 100, 101, 102, 103))
    seq_len, rows = config.data.seq_len, max(config.train.batch_size, devices)

    def make():
        return create_train_state(jax.random.key(0), model, tx, seq_len=seq_len)

    like = parallel.abstract(
        make, functools.partial(parallel.state_shardings, mesh=mesh, fsdp=fsdp)
    )
    step = parallel.parallelize(
        functools.partial(train_step, objective=objective),
        mesh,
        shardings=jax.tree.map(lambda leaf: leaf.sharding, like),
    )
    batch = {
        "input_ids": np.broadcast_to(np.zeros((), np.uint16), (rows, seq_len)),
        "row_ids": np.broadcast_to(np.zeros((), np.uint32), (rows,)),
    }
    began = time.perf_counter()
    step.compile(like, batch)
    seconds = time.perf_counter() - began
    needed = step.memory_needed()
    found = collections.Counter(
        re.findall(rf" ({'|'.join(KINDS)})(?:-start)?\(", step.compiled_text())
    )
    collectives = ", ".join(f"{found[kind]} {kind}" for kind in KINDS if found[kind])
    parameters = sum(leaf.size for leaf in jax.tree.leaves(like.params))
    return (
        f"| {name} | {devices} | {rows // devices} x {seq_len} | {'yes' if fsdp else 'no'} | "
        f"{parameters / 1e6:.1f} M | {needed['given'] / 2**20:,.0f} MiB | "
        f"{needed['temporary'] / 2**30:,.1f} GiB | {collectives} | {seconds:.0f} s |"
    )


# Dense bfloat16 peak (FLOP/s), memory (bytes) and bandwidth between chips (bytes/s a direction, of
# a chip), from the vendors' data sheets; the last is InfiniBand NDR, one 400 Gbit/s port a GPU.
CHIPS = {
    "TPU v5e": (197e12, 16 * 2**30, 100e9),
    "TPU v5p": (459e12, 95 * 2**30, 300e9),
    "TPU v4": (275e12, 32 * 2**30, 150e9),
    "H100, InfiniBand": (989e12, 80 * 2**30, 50e9),
}
UTILISATION = 0.4  # of the peak, assumed


def arithmetic(name: str) -> list[str]:
    """Rows of the table of predictions: none of it is measured."""
    import jax

    from electra_jax import run_config
    from electra_jax.corruption import max_masked_positions
    from electra_jax.flops import train_step_flops
    from electra_jax.modeling import Electra

    config = importlib.import_module(f"configs.{name}").get_config()
    model = run_config.model_config(config, "tpu", vocab_size=VOCAB_SIZE)
    ids = jax.ShapeDtypeStruct((1, 8), "int32")
    shapes = jax.eval_shape(Electra(model).init, jax.random.key(0), ids)["params"]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    batch, seq_len = config.train.batch_size, config.data.seq_len
    flops = train_step_flops(
        model,
        batch_size=batch,
        seq_len=seq_len,
        max_masked=max_masked_positions(seq_len, config.objective.mask_prob),
    )
    rows = []
    for chip, (peak, memory, bandwidth) in CHIPS.items():
        for count in (8, 32, 128, 512):
            if count > batch:
                continue
            compute = flops / count / (peak * UTILISATION)
            # A ring sends each gradient (float32) twice, but for one part in `count`.
            reduce = 2 * (count - 1) / count * 4 * parameters / bandwidth
            hidden = max(compute, reduce + compute / 3)  # reduced while the backward pass runs
            tokens = batch * seq_len
            rows.append(
                f"| {name} | {chip} | {count} | {batch / count:g} | {compute * 1e3:,.0f} ms | "
                f"{reduce * 1e3:,.0f} ms | {compute / (compute + reduce):.0%} to "
                f"{compute / hidden:.0%} | {tokens / (compute + reduce) / 1e6:,.2f} to "
                f"{tokens / hidden / 1e6:,.2f} | "
                f"{config.train.num_train_steps * hidden / 86400:,.1f} d | "
                f"{12 * parameters / memory:.0%} | {12 * parameters / count / memory:.1%} |"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arithmetic", action="store_true", help="print predictions, not programs")
    parser.add_argument("--configs", nargs="*", default=["base", "large"])
    parser.add_argument("--devices", type=int, nargs="*", default=[8, 64, 512])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, devices, fsdp = arguments.one
        print(one(name, int(devices), fsdp == "True"))
        return
    if arguments.arithmetic:
        print("| config | chip | chips | rows of each | compute | all-reduce | efficiency | "
              "M tokens/s | all steps | state | state, fsdp |\n"
              "|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
        for name in arguments.configs:
            print("\n".join(arithmetic(name)))
        return
    print("| config | devices | rows of each | fsdp | parameters | state and batch | temporary | "
          "collectives | compiled in |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name in arguments.configs:
        for devices in arguments.devices:
            for fsdp in (False, True):
                # The number of devices is fixed when JAX starts.
                environment = os.environ | {
                    "JAX_PLATFORMS": "cpu",
                    "JAX_NUM_CPU_DEVICES": str(devices),
                }
                command = [sys.executable, __file__, "--one", name, str(devices), str(fsdp)]
                result = subprocess.run(command, env=environment, capture_output=True, text=True)
                print(result.stdout.strip() or result.stderr.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
