"""How fast a step of pre-training is beside Hugging Face's generator and discriminator on PyTorch.

python benchmarks/pretrain.py [--size small] [--batch-size 8] [--seq-len 128] [--output FILE]

All sides train from the same weights on the same random rows with the same masks: forward and
backward pass of both networks, sampling, dropout 0.1, clipping, AdamW. `stock` computes the
generator's logits at all positions and attention step by step, as examples do; `tuned` computes
them at the masked positions, with PyTorch's fused attention and fused AdamW; torch.compile is used
with --compile. First all take some steps without dropout, with the likeliest token instead of a
sample, to show that their losses are equal. Needs torch and transformers; a GPU is used where both
frameworks find one. Pin the cores (`taskset`) to compare on fewer of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is torch's too

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from side_by_side import about_machine, exported, in_turns, state_on_devices  # noqa: E402

from electra_jax import parallel  # noqa: E402
from electra_jax.config import ElectraConfig  # noqa: E402
from electra_jax.corruption import max_masked_positions  # noqa: E402
from electra_jax.data.tokenization import WordPieceTokenizer  # noqa: E402
from electra_jax.flops import train_step_flops  # noqa: E402
from electra_jax.modeling import Electra  # noqa: E402
from electra_jax.objectives import ElectraObjective  # noqa: E402
from electra_jax.special_ids import SpecialIds  # noqa: E402
from electra_jax.steps import train_step  # noqa: E402

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
LEARNING_RATE, CLIP, EPSILON, WEIGHT = 1e-4, 1.0, 1e-6, 50.0
NEARLY_ZERO = 1e-6  # a temperature at which a sample is the likeliest token
Batch = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="small", choices=("small", "base", "large"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the medians count")
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides of it")
    parser.add_argument("--output", help="a file to append a JSON line a result to")
    arguments = parser.parse_args()
    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    parallel.enable_compilation_cache()
    config = dataclasses.replace(
        getattr(ElectraConfig, arguments.size)(), dtype="bfloat16" if on_gpu else "float32"
    )
    rng = np.random.default_rng(0)
    shape = (arguments.batch_size, arguments.seq_len)
    batches = []
    for step in range(arguments.steps):
        ids = rng.integers(5, config.vocab_size, shape).astype(np.uint16)
        ids[:, 0], ids[:, shape[1] // 2], ids[:, -1] = SPECIAL.cls, SPECIAL.sep, SPECIAL.sep
        rows = np.arange(len(ids), dtype=np.uint32) + step * len(ids)
        batches.append({"input_ids": ids, "row_ids": rows})

    with tempfile.TemporaryDirectory() as temporary:
        params, directory = random_model(config, Path(temporary))
        sides = {
            "electra_jax": functools.partial(Ours, config, params),
            "transformers, stock": functools.partial(Theirs, directory, config, on_gpu),
            "transformers, tuned": functools.partial(Theirs, directory, config, on_gpu, tuned=True),
        }
        losses = {name: make(exact=True).train(batches) for name, make in sides.items()}
        built = {name: make() for name, make in sides.items()}
        if arguments.compile:
            for side in list(built.values())[1:]:
                side.compile()
        runs = {name: functools.partial(side.train, batches) for name, side in built.items()}
        seconds = {
            name: [time / len(batches) for time in times]
            for name, times in in_turns(runs, arguments.rounds).items()
        }
    flops = train_step_flops(
        config,
        batch_size=shape[0],
        seq_len=shape[1],
        max_masked=max_masked_positions(shape[1], 0.15),
    )
    results = [
        {
            "benchmark": "pretrain",
            "what": name,
            "milliseconds": 1000 * statistics.median(times),
            "tokens_per_second": shape[0] * shape[1] / statistics.median(times),
            "model_gflops_per_second": flops / statistics.median(times) / 1e9,
            "spread": (max(times) - min(times)) / statistics.median(times),
            "losses": losses[name],
        }
        for name, times in seconds.items()
    ]
    print(render(results, arguments))
    if arguments.output:
        about = about_machine(on_gpu, ("jax", "torch", "transformers")) | vars(arguments)
        with open(arguments.output, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row | {"about": about}) + "\n" for row in results)


def random_model(config: ElectraConfig, directory: Path) -> tuple[Any, Path]:
    """Parameters, and the same as Hugging Face's directories."""
    model = Electra(dataclasses.replace(config, scan_layers=True))
    init = jax.jit(model.init)
    params = jax.device_get(init(jax.random.key(0), np.zeros((1, 8), np.int32))["params"])
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [f"word{number}" for number in range(config.vocab_size - len(tokens))]
    (directory / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = WordPieceTokenizer.from_vocab(directory / "vocab.txt")
    return params, exported(config, params, tokenizer, directory)


class Ours:
    def __init__(self, config: ElectraConfig, params: Any, *, exact: bool = False):
        rate = 0.0 if exact else 0.1
        model = Electra(dataclasses.replace(config, dropout_rate=rate, attention_dropout_rate=rate))
        objective = ElectraObjective(
            config.vocab_size, SPECIAL, temperature=NEARLY_ZERO if exact else 1.0
        )
        tx = optax.chain(
            optax.clip_by_global_norm(CLIP),
            optax.adamw(LEARNING_RATE, eps=EPSILON, weight_decay=0.0),
        )
        mesh = parallel.make_mesh()
        self._state = state_on_devices(model.apply, params, tx, mesh)
        self._step = parallel.parallelize(functools.partial(train_step, objective=objective), mesh)
        self._objective = objective

    def train(self, batches: Sequence[Batch]) -> list[float]:
        """One step a batch; returns the losses."""
        sums = []
        for batch in batches:
            self._state, found = self._step(self._state, batch)
            sums.append(found)
        return [float(self._objective.summarize(jax.device_get(found))["loss"]) for found in sums]


class Theirs:
    """Both of transformers' networks, with embeddings shared, in one step."""

    def __init__(
        self,
        directory: Path,
        config: ElectraConfig,
        on_gpu: bool,
        *,
        tuned: bool = False,
        exact: bool = False,
    ):
        self._device = torch.device("cuda" if on_gpu else "cpu")
        self._tuned, self._exact = tuned, exact
        rate = 0.0 if exact else 0.1
        how = dict(
            attn_implementation="sdpa" if tuned else "eager",
            hidden_dropout_prob=rate,
            attention_probs_dropout_prob=rate,
        )
        load = lambda kind, part: (  # noqa: E731
            kind.from_pretrained(directory / part, **how).to(self._device).train()
        )
        self._generator = load(transformers.ElectraForMaskedLM, "generator")
        self._discriminator = load(transformers.ElectraForPreTraining, "discriminator")
        embeddings = self._discriminator.electra.embeddings
        self._generator.electra.embeddings = embeddings
        self._generator.generator_lm_head.weight = embeddings.word_embeddings.weight
        networks = torch.nn.ModuleList([self._generator, self._discriminator])
        self._parameters = list(networks.parameters())  # what is shared counts once
        self._tx = torch.optim.AdamW(
            self._parameters, LEARNING_RATE, eps=EPSILON, weight_decay=0.0, fused=tuned or None
        )
        self._loss = self._joint_loss
        self._prepare = jax.jit(ElectraObjective(config.vocab_size, SPECIAL).prepare)
        self._masked: dict[int, Any] = {}
        self._steps = 0

    def compile(self) -> None:
        """Uses torch.compile from now on."""
        self._loss = torch.compile(self._joint_loss)

    def train(self, batches: Sequence[Batch]) -> list[float]:
        """One step a batch; returns the losses. The masks are ours, made beforehand."""
        if not self._masked:
            for number, batch in enumerate(batches):
                key = jax.random.fold_in(jax.random.key(1), number)
                self._masked[number] = self._arrays(self._prepare(key, batch).masked)
        losses = []
        for number in range(len(batches)):
            with torch.autocast(self._device.type, torch.bfloat16, self._device.type == "cuda"):
                loss = self._loss(**self._masked[number])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
            self._tx.step()
            self._tx.zero_grad(set_to_none=True)
            losses.append(loss.detach())
        return [float(loss) for loss in losses]

    def _arrays(self, masked: Any) -> dict[str, torch.Tensor]:
        positions, chosen = np.asarray(masked.positions), np.asarray(masked.chosen)
        original = np.asarray(masked.input_ids)
        arrays = {
            "masked_ids": masked.masked_ids,
            "original_ids": original,
            "positions": positions,
            "labels": np.where(chosen, np.asarray(masked.labels), -100),
            "attention_mask": masked.attention_mask,
            "token_type_ids": masked.token_type_ids,
        }
        return {
            name: torch.from_numpy(np.asarray(array).astype(np.int64)).to(self._device)
            for name, array in arrays.items()
        }

    def _joint_loss(
        self, masked_ids, original_ids, positions, labels, attention_mask, token_type_ids
    ):
        inputs = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        if self._tuned:
            hidden = self._generator.electra(input_ids=masked_ids, **inputs)[0]
            index = positions[..., None].expand(-1, -1, hidden.shape[-1])
            hidden = self._generator.generator_predictions(hidden.gather(1, index))
            logits = self._generator.generator_lm_head(hidden)
            at_masked = logits
            generator_loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100
            )
        else:
            everywhere = torch.full_like(masked_ids, -100).scatter(1, positions, labels)
            output = self._generator(input_ids=masked_ids, labels=everywhere, **inputs)
            generator_loss = output.loss
            index = positions[..., None].expand(-1, -1, output.logits.shape[-1])
            at_masked = output.logits.gather(1, index)
        with torch.no_grad():
            logits = at_masked.float()
            if not self._exact:
                logits = logits - torch.log(-torch.log(torch.rand_like(logits)))
            sampled = logits.argmax(dim=-1)
            here = original_ids.gather(1, positions)
            sampled = torch.where(labels >= 0, sampled, here)
            corrupted = original_ids.scatter(1, positions, sampled)
            replaced = (corrupted != original_ids).float()
        logits = self._discriminator(input_ids=corrupted, **inputs).logits
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits.float(), replaced, reduction="none"
        )
        weights = attention_mask.float()
        return generator_loss + WEIGHT * (losses * weights).sum() / weights.sum()


def render(results: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """A Markdown table; each line also says how many times faster ours is."""
    ours = results[0]
    losses = ours["losses"]
    lines = [
        f"{arguments.size}, {arguments.batch_size} x {arguments.seq_len}; losses of {len(losses)} "
        f"steps without dropout, from {losses[0]:.4f} to {losses[-1]:.4f}: largest differences "
        + ", ".join(
            f"{row['what']} {np.abs(np.subtract(losses, row['losses'])).max():.1e}"
            for row in results[1:]
        ),
        "",
        "| | ms a step | tokens/s | model GFLOP/s | spread | electra_jax is |",
        "|---|---|---|---|---|---|",
    ]
    for row in results:
        lines.append(
            f"| {row['what']} | {row['milliseconds']:,.1f} | {row['tokens_per_second']:,.0f} | "
            f"{row['model_gflops_per_second']:,.1f} | {row['spread']:.1%} | "
            f"{row['milliseconds'] / ours['milliseconds']:.2f} x |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
