"""How fast fine-tuning and inference are beside Hugging Face transformers on PyTorch.

python benchmarks/finetune.py PRETRAINED DATA_DIR [--task mrpc] [--output results.jsonl]

PRETRAINED is a Hugging Face directory of type electra or bert (bert's encoder goes into both
frameworks' ELECTRA classes). Both sides, in one process and in turns, train a classifier from the
same weights on the same rows: forward and backward pass, dropout 0.1, gradient clipping, AdamW.
First they take some steps without dropout, to show that their losses are equal. Needs torch and
transformers (`pip install torch transformers`); a GPU is used where both frameworks find one.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is torch's too

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import torch  # noqa: E402
from side_by_side import about_machine, in_turns, state_on_devices  # noqa: E402
from transformers_side import (  # noqa: E402
    CLIP,
    EPSILON,
    Batch,
    Theirs,
    argument_parser,
    electra_directory,
    head_weights,
)

from electra_jax import parallel  # noqa: E402
from electra_jax.heads import FineTuned, SequenceHead  # noqa: E402
from electra_jax.layers import unstack_layers  # noqa: E402
from electra_jax.objectives import FINETUNING_OBJECTIVES  # noqa: E402
from electra_jax.pretrained import load_pretrained  # noqa: E402
from electra_jax.steps import predict_step, train_step  # noqa: E402
from electra_jax.tasks import (  # noqa: E402
    BucketedBatches,
    EvaluationBatches,
    get_task,
    load_task,
    make_features,
)
from electra_jax.train_state import init_params  # noqa: E402
from electra_jax.transfer import transfer_params  # noqa: E402

LEARNING_RATE, DROPOUT = 1e-4, 0.1


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="batches a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the medians count")
    parser.add_argument("--compile", action="store_true", help="torch.compile, too")
    parser.add_argument("--output", help="a file to append a JSON line a result to")
    arguments = parser.parse_args()

    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    task = get_task(arguments.task)
    if task.kind != "classification":
        parser.error(f"--task={arguments.task} is of the kind {task.kind}: use classification")
    parallel.enable_compilation_cache()
    pretrained = load_pretrained(arguments.pretrained)
    data = load_task(task, arguments.data_dir)
    features = functools.partial(make_features, task, tokenizer=pretrained.tokenizer)
    train = features(data.train.examples, space=data.space, training=True)
    dev = features(next(iter(data.dev.values())).examples, space=data.space)

    batches = BucketedBatches(train, batch_size=arguments.batch_size)
    bucketed = [batches.batch_at(step) for step in range(arguments.steps)]
    numbers = np.random.default_rng(0).permutation(len(train))
    longest, widest = [], []
    for step in range(arguments.steps):
        rows = numbers[step * arguments.batch_size : (step + 1) * arguments.batch_size]
        for padded, length in ((longest, train.lengths[rows].max()), (widest, train.max_length)):
            one = BucketedBatches(
                dataclasses.replace(train, **_rows(train, rows)),
                batch_size=arguments.batch_size,
                lengths=[int(length)],
                shuffle=False,
            )
            padded.append(one.batch_at(0))
    same_length = [batch for batch in bucketed if batch["input_ids"].shape == longest_of(bucketed)]

    theirs_directory = electra_directory(
        Path(arguments.pretrained), pretrained, data.space.num_outputs
    )
    ours = functools.partial(Ours, pretrained, data.space.num_outputs, on_gpu=on_gpu)
    theirs = functools.partial(
        Theirs,
        theirs_directory,
        pretrained.tokenizer.special_ids,
        device,
        learning_rate=LEARNING_RATE,
    )

    results = [compare_losses(ours(dropout=0.0), theirs(dropout=0.0), same_length[:1] * 5)]
    sides = {"electra_jax": ours(dropout=DROPOUT), "transformers": theirs(dropout=DROPOUT)}
    if arguments.compile:
        sides["transformers, torch.compile"] = theirs(dropout=DROPOUT, compiled=True)
    trained: dict[tuple[str, str], tuple[Any, list[Batch]]] = {}
    for name, side in sides.items():
        trained[name, "by length, in both the same"] = side, bucketed
        if name != "electra_jax":
            trained[name, "to the longest row, in random order"] = side, longest
            trained[name, f"to {train.max_length}"] = side, widest
    seconds = in_turns(
        {key: functools.partial(side.train, rows) for key, (side, rows) in trained.items()},
        arguments.rounds,
    )
    for (name, padding), times in seconds.items():
        results.append(result("training", name, padding, arguments.batch_size, bucketed, times))
    for size in (1, 32):
        evaluation = EvaluationBatches(dev, batch_size=size)
        chosen = np.linspace(0, evaluation.num_batches - 1, arguments.steps).astype(int)
        rows = [evaluation.batch_at(step) for step in chosen]
        runs = {
            (name, "by length, in both the same"): functools.partial(side.predict, rows)
            for name, side in sides.items()
        }
        for (name, padding), times in in_turns(runs, arguments.rounds).items():
            results.append(result("inference", name, padding, size, rows, times))
    print(render(results))
    if arguments.output:
        about = about_machine(on_gpu, ("jax", "torch", "transformers")) | vars(arguments)
        with open(arguments.output, "a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row | {"about": about}) + "\n" for row in results)


def _rows(features: Any, rows: np.ndarray) -> dict[str, Any]:
    """The fields of features that hold some of the rows."""
    return {
        "input_ids": [features.input_ids[row] for row in rows],
        "targets": {name: values[rows] for name, values in features.targets.items()},
    }


def longest_of(batches: Sequence[Batch]) -> tuple[int, int]:
    return max(batch["input_ids"].shape for batch in batches)


class Ours:
    """Steps as `finetune.py` runs them, on a state whose optimiser is that of the other side."""

    def __init__(self, pretrained, num_outputs: int, *, dropout: float, on_gpu: bool):
        encoder = dataclasses.replace(
            pretrained.config,
            dtype="bfloat16" if on_gpu else "float32",
            scan_layers=False,
            dropout_rate=dropout,
            attention_dropout_rate=dropout,
        )
        head = SequenceHead(num_outputs, dropout_rate=dropout, hidden_layer=True)
        model = FineTuned(encoder, head)
        objective = FINETUNING_OBJECTIVES["classification"](pretrained.tokenizer.special_ids)
        tx = optax.chain(
            optax.clip_by_global_norm(CLIP),
            optax.adamw(LEARNING_RATE, eps=EPSILON, weight_decay=0.0),
        )
        fresh = init_params(jax.random.key(0), model=model, seq_len=8)
        params = transfer_params(pretrained.params, fresh)
        params["head"] = jax.tree.map(jnp.asarray, our_head(head_weights(pretrained, num_outputs)))
        mesh = parallel.make_mesh()
        self.state = state_on_devices(model.apply, params, tx, mesh)
        self._train_step = parallel.parallelize(
            functools.partial(train_step, objective=objective), mesh
        )
        apart = dataclasses.replace(encoder, stacked_layers=False)  # as `Predictor` does
        predict = functools.partial(
            predict_step, apply_fn=FineTuned(apart, head).apply, objective=objective
        )
        self._predict_step = parallel.parallelize(predict, mesh, donate_state=False)
        self._apart = None

    def train(self, batches: Sequence[Batch]) -> list[float]:
        """One step a batch; returns the losses."""
        losses, self._apart = [], None
        for batch in batches:
            self.state, sums = self._train_step(self.state, batch)
            losses.append(sums["loss_sum"] / sums["weights"])
        return [float(loss) for loss in losses]

    def predict(self, batches: Sequence[Batch]) -> list[np.ndarray]:
        """The logits of every batch, on the host one after another."""
        if self._apart is None:
            self._apart = unstack_layers(self.state.params)
        return [np.asarray(self._predict_step(self._apart, b)["logits"]) for b in batches]


def our_head(weights: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The head of `head_weights` as parameters of ours."""
    return {
        ours: {
            "kernel": weights[f"classifier.{theirs}.weight"].T,
            "bias": weights[f"classifier.{theirs}.bias"],
        }
        for ours, theirs in (("dense", "dense"), ("output", "out_proj"))
    }


def compare_losses(ours: Ours, theirs: Theirs, batches: Sequence[Batch]) -> dict[str, Any]:
    """Losses of some steps without dropout on both sides."""
    losses = {"electra_jax": ours.train(batches), "transformers": theirs.train(batches)}
    difference = np.abs(np.subtract(*losses.values())).max()
    return {"benchmark": "losses", **losses, "largest_difference": float(difference)}


def result(
    benchmark: str, name: str, padding: str, size: int, rows: Sequence[Batch], times: list[float]
) -> dict[str, Any]:
    """A row of the table."""
    seconds = statistics.median(times)
    return {
        "benchmark": benchmark,
        "batch_size": size,
        "what": name,
        "padding": padding,
        "examples_per_second": len(rows) * size / seconds,
        "milliseconds_per_batch": 1000 * seconds / len(rows),
        "spread": (max(times) - min(times)) / seconds,
    }


def render(results: list[dict[str, Any]]) -> str:
    """A Markdown table; each line also says how many times faster ours is."""
    losses, *rates = results
    lines = [
        f"losses of {len(losses['electra_jax'])} steps without dropout, from "
        f"{losses['electra_jax'][0]:.4f} to {losses['electra_jax'][-1]:.4f}: largest difference "
        f"{losses['largest_difference']:.1e}",
        "",
        "| what | batch | padded | | examples/s | ms/batch | spread | electra_jax is |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ours = {}
    for row in rates:
        key = row["benchmark"], row["batch_size"]
        ours.setdefault(key, row["examples_per_second"])
        ratio = ours[key] / row["examples_per_second"]
        lines.append(
            f"| {row['benchmark']} | {row['batch_size']} | {row['padding']} | {row['what']} | "
            f"{row['examples_per_second']:.1f} | {row['milliseconds_per_batch']:.1f} | "
            f"{row['spread']:.1%} | {ratio:.2f} x |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
