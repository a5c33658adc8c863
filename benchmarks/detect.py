"""How fast `detect` is beside transformers on PyTorch, eager and compiled, and ONNX Runtime.

python benchmarks/detect.py VOCAB TEXTS [--size small] [--output results.jsonl]

VOCAB is a vocab.txt, TEXTS a file with a text a line. One random discriminator, exported by
`electra-jax convert to-hf`, is used by all, from strings to probabilities, tokenising included, in
one process and in turns. First its probabilities are compared. Needs torch, transformers, onnx,
onnxscript and onnxruntime (`pip install torch transformers onnx onnxscript onnxruntime`); a GPU is
used where JAX and PyTorch find one, and not by ONNX Runtime.
"""

from __future__ import annotations

import argparse
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
import onnxruntime  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from side_by_side import about_machine, exported, in_turns  # noqa: E402

from electra_jax.config import ElectraConfig  # noqa: E402
from electra_jax.data.tokenization import WordPieceTokenizer  # noqa: E402
from electra_jax.inference import TextModel  # noqa: E402
from electra_jax.modeling import Electra  # noqa: E402

ROW_TOKENS, MIXED_BATCH = 62, 32  # rows of 64 with [CLS] and [SEP]
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocab", help="a vocab.txt, without upper case")
    parser.add_argument("texts", help="a text a line")
    parser.add_argument("--size", default="small", choices=("small", "base", "large"))
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[1, 8, 32, 256])
    parser.add_argument("--mixed", type=int, default=512, help="texts of mixed lengths")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the medians count")
    parser.add_argument("--output", help="a file to append a JSON line a result to")
    arguments = parser.parse_args()

    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    tokenizer = WordPieceTokenizer.from_vocab(arguments.vocab)
    lines = Path(arguments.texts).read_text(encoding="utf-8").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    even = [text for text in (_cut(tokenizer, line) for line in lines) if text]
    mixed = lines[: arguments.mixed]

    with tempfile.TemporaryDirectory() as temporary:
        directory = random_discriminator(arguments.size, tokenizer, Path(temporary))
        sides: dict[str, Any] = {
            "electra_jax": Ours(directory),
            "PyTorch": Theirs(directory, on_gpu),
            "PyTorch, torch.compile": Theirs(directory, on_gpu, compiled=True),
            "ONNX Runtime": OnnxRuntime(directory, Path(temporary)),
        }
        results = [compare(sides, mixed[:MIXED_BATCH])]
        for size in arguments.batch_sizes:
            texts = (even * (size // len(even) + 1))[:size]
            calls = max(1, 32 // size)  # enough for the clock
            runs = {name: functools.partial(_repeat, s, texts, calls) for name, s in sides.items()}
            for name, times in in_turns(runs, arguments.rounds).items():
                seconds = [t / calls for t in times]
                results.append(result(f"{size} x 64 tokens", name, "", size, seconds))
        runs, padding = {}, {}
        by_length = sorted(mixed, key=len)
        for name, side in sides.items():
            if name == "electra_jax":
                runs[name, "by length"] = functools.partial(side.detect, mixed)
            else:
                runs[name, "as they come"] = functools.partial(_batches, side, mixed)
                runs[name, "by length"] = functools.partial(_batches, side, by_length)
        for (name, padding), times in in_turns(runs, arguments.rounds).items():
            what = f"{len(mixed)} mixed, batches of {MIXED_BATCH}"
            results.append(result(what, name, padding, len(mixed), times))
    print(render(results))
    if arguments.output:
        about = about_machine(on_gpu, ("jax", "torch", "transformers", "onnxruntime")) | vars(
            arguments
        )
        with open(arguments.output, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row | {"about": about}) + "\n" for row in results)


def _cut(tokenizer: WordPieceTokenizer, text: str) -> str:
    """The first part of a text, of exactly so many tokens; "" if there are too few."""
    ids, offsets = tokenizer.encode_with_offsets(text)
    if len(ids) < ROW_TOKENS:
        return ""
    text = text[: offsets[ROW_TOKENS - 1][1]]
    return text if len(tokenizer.encode_with_offsets(text)[0]) == ROW_TOKENS else ""


def random_discriminator(size: str, tokenizer: WordPieceTokenizer, directory: Path) -> Path:
    """An ELECTRA of random weights in Hugging Face's files."""
    config = getattr(ElectraConfig, size)(vocab_size=tokenizer.vocab_size)
    model = Electra(config)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8), np.int32))["params"]
    return exported(config, jax.device_get(params), tokenizer, directory) / "discriminator"


class Ours:
    def __init__(self, directory: Path):
        self._model = TextModel(directory, batch_size=MIXED_BATCH)

    def detect(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Probabilities of every text's tokens."""
        return [found.probabilities for found in self._model.detect(texts)]


class Theirs:
    """transformers' ElectraForPreTraining; float32 on a CPU, bfloat16 by autocast on a GPU."""

    def __init__(self, directory: Path, on_gpu: bool, *, compiled: bool = False):
        self._device = torch.device("cuda" if on_gpu else "cpu")
        model = transformers.ElectraForPreTraining.from_pretrained(directory)
        self.model = model.eval().to(self._device)
        self._run = torch.compile(self.model, dynamic=True) if compiled else self.model
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(directory)

    def detect(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Probabilities of every text's tokens."""
        batch = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=512, return_tensors="pt"
        )
        probabilities = self._probabilities(batch)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        return [row[1 : n - 1] for row, n in zip(probabilities, lengths, strict=True)]

    def _probabilities(self, batch: Any) -> np.ndarray:
        enabled = self._device.type == "cuda"
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled):
            logits = self._run(**{k: v.to(self._device) for k, v in batch.items()}).logits
        return torch.sigmoid(logits.float()).cpu().numpy()


class OnnxRuntime(Theirs):
    """The same model, exported by torch.onnx, on ONNX Runtime's CPU provider."""

    def __init__(self, directory: Path, temporary: Path):
        super().__init__(directory, on_gpu=False)
        example = {name: torch.ones(2, 16, dtype=torch.int64) for name in NAMES}
        rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=512)
        path = temporary / "model.onnx"
        torch.onnx.export(
            self.model,
            kwargs=example,
            f=path,
            input_names=NAMES,
            output_names=["logits"],
            dynamic_shapes={name: {0: rows, 1: length} for name in NAMES},
            dynamo=True,
            verbose=False,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def _probabilities(self, batch: Any) -> np.ndarray:
        logits = self._session.run(["logits"], {name: batch[name].numpy() for name in NAMES})[0]
        return torch.sigmoid(torch.from_numpy(logits)).numpy()


def _repeat(side: Any, texts: Sequence[str], calls: int) -> None:
    for _ in range(calls):
        side.detect(texts)


def _batches(side: Any, texts: Sequence[str]) -> None:
    for start in range(0, len(texts), MIXED_BATCH):
        side.detect(texts[start : start + MIXED_BATCH])


def compare(sides: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """The largest difference of each side's probabilities from ours."""
    ours, *others = (np.concatenate(side.detect(texts)) for side in sides.values())
    names = list(sides)[1:]
    differences = {n: float(np.abs(ours - o).max()) for n, o in zip(names, others, strict=True)}
    return {"benchmark": "probabilities", "tokens": len(ours), "largest_difference": differences}


def result(what: str, name: str, padding: str, texts: int, times: list[float]) -> dict[str, Any]:
    """A row of the table."""
    seconds = statistics.median(times)
    return {
        "benchmark": what,
        "what": name,
        "padding": padding,
        "texts_per_second": texts / seconds,
        "milliseconds": 1000 * seconds,
        "spread": (max(times) - min(times)) / seconds,
    }


def render(results: list[dict[str, Any]]) -> str:
    """A Markdown table; each line also says how many times faster ours is."""
    compared, *rates = results
    differences = compared["largest_difference"].items()
    lines = [
        f"probabilities of {compared['tokens']:,} tokens, largest differences from electra_jax: "
        + ", ".join(f"{name} {difference:.1e}" for name, difference in differences),
        "",
        "| what | | batched | texts/s | ms | spread | electra_jax is |",
        "|---|---|---|---|---|---|---|",
    ]
    ours: dict[str, float] = {}
    for row in rates:
        ratio = ours.setdefault(row["benchmark"], row["texts_per_second"])
        lines.append(
            f"| {row['benchmark']} | {row['what']} | {row['padding']} | "
            f"{row['texts_per_second']:.1f} | {row['milliseconds']:.1f} | {row['spread']:.1%} | "
            f"{ratio / row['texts_per_second']:.2f} x |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
