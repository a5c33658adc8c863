"""How fast a training step is, how close to the chip's limits, and what each technique gives.

python benchmarks/step.py [--work small-128 base-512 ...] [--ablate small-128] [--micro]
                          [--output FILE] [--dry]

Measures first what the device reaches in a large matrix product and in a copy, then whole training
steps (both networks, sampling, gradients, AdamW) on random rows that fill their length: medians of
five windows of at least fifty steps after ten that do not count. MFU is the matrix products' model
FLOPs a second over the data sheet's peak, and over the product measured here. `--ablate` takes away
one technique at a time. `--micro` measures parts alone. `--dry` does all of it on small sizes, to
see on any machine that it runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax import parallel
from electra_jax.config import ElectraConfig
from electra_jax.corruption import max_masked_positions
from electra_jax.flops import peak_flops_of, train_step_flops
from electra_jax.modeling import Electra
from electra_jax.objectives.electra import ElectraObjective
from electra_jax.optimizer import make_optimizer
from electra_jax.special_ids import SpecialIds
from electra_jax.steps import train_steps
from electra_jax.train_state import create_train_state

SPECIAL = SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103)


class Work(NamedTuple):
    """What is trained, and what a step of it is predicted to take on an H100 (by a model).

    Attributes:
      microbatches: parts of the batch, for memory.
      predicted_ms: of the best program without kernels of our own.
    """

    config: ElectraConfig
    batch_size: int
    seq_len: int
    mask_prob: float = 0.15
    microbatches: int = 1
    predicted_ms: float | None = None


WORKS = {
    "small-128": Work(ElectraConfig.small(), 128, 128, predicted_ms=5.8),
    "small-512": Work(ElectraConfig.small(), 128, 512, predicted_ms=23.0),
    "base-512": Work(ElectraConfig.base(), 256, 512, microbatches=4, predicted_ms=205.0),
    "large-512": Work(ElectraConfig.large(), 128, 512, 0.25, microbatches=4, predicted_ms=321.0),
}


class Variant(NamedTuple):
    """A step with something changed.

    Attributes:
      model: changed fields of the config.
      rows_at_once: of the objective.
      steps_per_call: updates of one program.
      patch: what of the library is replaced, by a plainer form.
      predicted: change of the time of small-128 (a model), as text.
    """

    model: dict[str, Any] = {}
    rows_at_once: int | None = 512
    steps_per_call: int = 10
    patch: tuple[str, Callable] | None = None
    predicted: str = ""


def threefry_dropout(x, seeds, site, rate):
    """Dropout with JAX's own random bits, kept for the backward pass."""
    words = jax.random.wrap_key_data(seeds[0])
    keep = jax.random.bernoulli(jax.random.fold_in(words, site), 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def gumbel_sample(uniforms, weights, **kwargs):
    """One random number for every entry of the vocabulary."""
    key = jax.random.key(jax.lax.bitcast_convert_type(uniforms[0, 0, 0], jnp.int32))
    return jnp.argmax(jnp.log(weights) + jax.random.gumbel(key, weights.shape), axis=-1)


ABLATIONS = {
    "as it is": Variant(),
    "attention dropout 0, flash attention": Variant(
        {"attention_dropout_rate": 0.0, "attention": "cudnn"}, predicted="-10 %"
    ),
    "attention dropout 0, plain attention": Variant({"attention_dropout_rate": 0.0}),
    "no dropout, flash attention": Variant(
        {"attention_dropout_rate": 0.0, "dropout_rate": 0.0, "attention": "cudnn"}
    ),
    "all logits at once": Variant(rows_at_once=None, predicted="+4 to 6 %"),
    "vocabulary not padded": Variant({"vocab_pad_multiple": 1}, predicted="+2 to 4 %"),
    "layers scanned": Variant({"scan_layers": True}, predicted="+10 to 25 %"),
    "one step a call": Variant(steps_per_call=1, predicted="+5 to 30 %"),
    "products in float32": Variant({"dtype": "float32"}, predicted="+30 to 50 %"),
    "dropout with threefry": Variant(
        patch=("electra_jax.layers.dropout", threefry_dropout), predicted="+20 to 37 %"
    ),
    "sampling with Gumbel noise": Variant(
        patch=("electra_jax.vocabulary.sample_from_weights", gumbel_sample), predicted="+12 %"
    ),
    "remat: all but products": Variant({"remat": "products"}),
    "remat: whole layers": Variant({"remat": "layers"}, predicted="+33 %"),
}


def measure(work: Work, variant: Variant, windows: int, calls: int) -> dict[str, Any]:
    """Times a step; a program that cannot be had is a result, too."""
    on_gpu = jax.default_backend() == "gpu"
    fields = {"dtype": "bfloat16" if on_gpu else "float32"} | variant.model
    if fields.get("attention") == "cudnn" and not on_gpu:
        fields["attention"] = "xla"
    config = dataclasses.replace(work.config, **fields)
    objective = ElectraObjective(
        config.vocab_size, SPECIAL, work.mask_prob, rows_at_once=variant.rows_at_once
    )
    tx = make_optimizer(learning_rate=5e-4, warmup_steps=10_000, num_train_steps=1_000_000)
    mesh = parallel.make_mesh(num_devices=1)
    make = functools.partial(create_train_state, jax.random.key(0), Electra(config), tx, seq_len=8)
    shardings_of = functools.partial(parallel.state_shardings, mesh=mesh)
    like = parallel.abstract(make, shardings_of)
    step = parallel.parallelize(
        functools.partial(train_steps, objective=objective, num_microbatches=work.microbatches),
        mesh,
        rows_axis=1,
    )
    batch = random_rows(work, config.vocab_size, variant.steps_per_call)
    with replaced(variant.patch):
        began = time.perf_counter()
        step.compile(like, batch)
        compiled = time.perf_counter() - began
    state = parallel.create(make, jax.tree.map(lambda leaf: leaf.sharding, like))
    per_window = max(1, -(-calls * 10 // variant.steps_per_call))
    seconds = []
    for number in range(windows + 1):
        began = time.perf_counter()
        for _ in range(per_window if number else 1):
            state, sums = step(state, batch)
        sums = jax.device_get(sums)
        if number:
            steps = per_window * variant.steps_per_call
            seconds.append((time.perf_counter() - began) / steps)
    loss = objective.summarize({name: x[-1] for name, x in sums.items()})["loss"]
    assert np.isfinite(loss) and not sums["skipped_steps"].any()
    flops = train_step_flops(
        config,
        batch_size=work.batch_size,
        seq_len=work.seq_len,
        max_masked=max_masked_positions(work.seq_len, work.mask_prob),
    )
    median = statistics.median(seconds)
    return {
        "milliseconds": 1000 * median,
        "spread": (max(seconds) - min(seconds)) / median,
        "tokens_per_second": work.batch_size * work.seq_len / median,
        "tera_flops": flops / median / 1e12,
        "compile_seconds": compiled,
        "mebibytes": sum(step.memory_needed().values()) / 2**20,
        "loss": loss,
    }


@contextlib.contextmanager
def replaced(patch: tuple[str, Callable] | None) -> Iterator[None]:
    """Context in which a function of the library is another."""
    if patch is None:
        yield
    else:
        with mock.patch(*patch):
            yield


def random_rows(work: Work, vocab_size: int, count: int) -> dict[str, np.ndarray]:
    """Full rows of two segments, those of `count` steps."""
    rng = np.random.default_rng(0)
    shape = (count, work.batch_size, work.seq_len)
    ids = rng.integers(104, vocab_size, shape).astype(np.uint16)
    ids[..., 0], ids[..., shape[2] // 2], ids[..., -1] = SPECIAL.cls, SPECIAL.sep, SPECIAL.sep
    row_ids = np.arange(count * shape[1], dtype=np.uint32).reshape(shape[:2])
    return {"input_ids": ids, "row_ids": row_ids}


def timed(function: Callable, *arrays: Any, repeats: int = 20) -> float:
    """Median seconds of a jitted function."""
    run = jax.jit(function)
    jax.block_until_ready(run(*arrays))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(repeats):
            result = run(*arrays)
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - began) / repeats)
    return statistics.median(seconds)


def ceilings(dry: bool) -> dict[str, float]:
    """What the device reaches: bfloat16 products of 8192 x 8192, and a copy of 4 GB."""
    size, count = (256, 2**20) if dry else (8192, 2**31)
    draw = lambda key: jax.random.normal(jax.random.key(key), (size, size), jnp.bfloat16)  # noqa: E731
    product = 2 * size**3 / timed(jnp.matmul, draw(0), draw(1)) / 1e12
    copy = 2 * 2 * count / timed(lambda x: x + 1, jnp.ones(count, jnp.bfloat16)) / 1e12
    return {"product_tera_flops": product, "copy_terabytes_per_second": copy}


def micro(dry: bool) -> Iterator[dict[str, Any]]:
    """Parts of a step alone, forward and backward: microseconds."""
    from electra_jax import attention, corruption
    from electra_jax.dropout import dropout, dropout_seeds
    from electra_jax.vocabulary import Projection, predict_tokens

    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    normal = lambda i, shape: jax.random.normal(jax.random.key(i), shape, dtype)  # noqa: E731
    rows, repeats = (2, 1) if dry else (128, 20)

    def backward(function):
        return jax.grad(lambda *arrays: function(*arrays).astype(jnp.float32).sum(), argnums=0)

    for out, inner in ((256, 256), (768, 256), (1024, 256), (256, 1024), (768, 768), (3072, 768)):
        x, y = normal(0, (rows * 128, inner)), normal(1, (inner, out))
        seconds = timed(jnp.matmul, x, y, repeats=repeats)
        yield {"what": f"product {rows * 128} x {inner} x {out}", "us": 1e6 * seconds}
    for length in (128, 512):
        q, k, v = (normal(i, (rows, length, 256)) for i in range(3))
        mask = attention.Mask.of_tokens(jnp.ones((rows, length), bool), are_first=True)
        for name in ("xla", "cudnn"):
            if name == "cudnn" and jax.default_backend() != "gpu":
                continue
            run = functools.partial(
                attention.attention, mask=mask, num_heads=4, dropout_seeds=None,
                drop=lambda p, seeds: p, implementation=name,
            )  # fmt: skip
            for kind, function in (("forward", run), ("and backward", backward(run))):
                seconds = timed(function, q, k, v, repeats=repeats)
                yield {"what": f"attention {length}, {name}, {kind}", "us": 1e6 * seconds}
    seeds = dropout_seeds(jax.random.key(0), jnp.arange(rows))
    x = normal(0, (rows, 4, 128, 128))
    for name, function in (("hash", dropout), ("threefry", threefry_dropout)):
        seconds = timed(lambda x, f=function: f(x, seeds, 0, 0.1), x, repeats=repeats)
        yield {"what": f"dropout of {x.size:,}, {name}", "us": 1e6 * seconds}
    count, vocab = (32, 512) if dry else (2432, 30522)
    projection = Projection(normal(0, (count // 19 or 1, 19, 128)), jnp.ones((vocab, 128)) * 0.02,
                            jnp.zeros(vocab))  # fmt: skip
    labels = jnp.zeros(projection.features.shape[:2], jnp.int32)
    weights, uniforms = jnp.ones(labels.shape), jnp.full((*labels.shape, 2), 0.5)
    for at_once in (None, 512, 1024):

        def head(projection, at_once=at_once):
            return predict_tokens(projection, labels, weights, uniforms, rows_at_once=at_once)

        seconds = timed(jax.value_and_grad(head, has_aux=True), projection, repeats=repeats)
        yield {"what": f"head, {at_once or 'all'} rows at once", "us": 1e6 * seconds}
    chances = jnp.ones((*labels.shape, vocab))
    for name, function in (
        ("two uniforms", corruption.sample_from_weights),
        ("Gumbel noise", gumbel_sample),
    ):
        seconds = timed(function, uniforms, chances, repeats=repeats)
        yield {"what": f"sampling of {labels.size}, {name}", "us": 1e6 * seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs="*", default=[], choices=list(WORKS))
    parser.add_argument("--ablate", nargs="*", default=[], choices=list(WORKS))
    parser.add_argument("--only", nargs="*", help="ablations to measure (all)")
    parser.add_argument("--micro", action="store_true")
    parser.add_argument("--output", help="a file to append a JSON line a result to")
    parser.add_argument("--dry", action="store_true", help="small sizes: does it run?")
    arguments = parser.parse_args()
    parallel.enable_compilation_cache()
    works = {name: dry(work) for name, work in WORKS.items()} if arguments.dry else WORKS
    windows, calls = (1, 1) if arguments.dry else (5, 5)
    device = jax.devices()[0].device_kind
    about = {"device": device, "jax": jax.__version__, "python": platform.python_version()}
    about |= {"XLA_FLAGS": os.environ.get("XLA_FLAGS", ""), "dry": arguments.dry}
    reached, peak = ceilings(arguments.dry), peak_flops_of(device)

    def report(row: dict[str, Any]) -> dict[str, Any]:
        if arguments.output:
            with open(arguments.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"about": about}) + "\n")
        return row

    print(
        f"{device}, jax {jax.__version__}: {reached['product_tera_flops']:,.1f} TFLOP/s in a large "
        f"product, {reached['copy_terabytes_per_second']:.2f} TB/s in a copy"
        + (" (dry: these figures mean nothing)" if arguments.dry else "")
    )
    report({"benchmark": "ceilings"} | reached)
    columns = (
        "work, change, ms a step, spread, tokens/s, MFU of the data sheet, MFU of the product, "
        "memory in MiB, compiled in (s), predicted"
    ).split(", ")
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name, what in [(n, ["as it is"]) for n in arguments.work] + [
        (n, [a for a in ABLATIONS if not arguments.only or a in arguments.only])
        for n in arguments.ablate
    ]:
        for change in what:
            variant = ABLATIONS[change]
            if arguments.dry:
                variant = variant._replace(steps_per_call=min(2, variant.steps_per_call))
            row = {"benchmark": "step", "work": name, "change": change}
            try:
                row |= measure(works[name], variant, windows, calls)
            except Exception as error:  # noqa: BLE001  memory that is too small is a result
                row["error"] = " ".join(str(error).split())[:200]
            predicted = variant.predicted
            if change == "as it is" and works[name].predicted_ms:
                predicted = f"{works[name].predicted_ms} ms"
            print(render(report(row | {"predicted": predicted}), reached, peak), flush=True)
    if arguments.micro:
        print("\n| part | microseconds |\n|---|---|")
        for row in micro(arguments.dry):
            report({"benchmark": "micro"} | row)
            print(f"| {row['what']} | {row['us']:,.0f} |", flush=True)


def dry(work: Work) -> Work:
    """The same at a size that any machine runs."""
    small = ElectraConfig(
        vocab_size=512, embedding_size=32, hidden_size=64, num_layers=1, num_heads=2
    )
    return work._replace(config=small, batch_size=4, seq_len=32, microbatches=1, predicted_ms=None)


def render(row: dict[str, Any], reached: dict[str, float], peak: float | None) -> str:
    """A line of the table."""
    if "error" in row:
        return f"| {row['work']} | {row['change']} | {row['error']} | | | | | | | |"
    sheet = f"{row['tera_flops'] * 1e12 / peak:.1%}" if peak else ""
    return (
        f"| {row['work']} | {row['change']} | {row['milliseconds']:,.2f} | {row['spread']:.1%} | "
        f"{row['tokens_per_second']:,.0f} | {sheet} | "
        f"{row['tera_flops'] / reached['product_tera_flops']:.1%} | {row['mebibytes']:,.0f} | "
        f"{row['compile_seconds']:.0f} | {row['predicted']} |"
    )


if __name__ == "__main__":
    main()
