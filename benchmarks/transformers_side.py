"""A training loop of Hugging Face transformers on PyTorch, for comparison.

As of transformers' examples, without the overhead of its trainer. Both sides' models are of its
ELECTRA classes; the encoder of a BERT is put into them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from electra_jax.pretrained import Pretrained  # noqa: E402
from electra_jax.special_ids import SpecialIds  # noqa: E402

CLIP, EPSILON = 1.0, 1e-6
Batch = dict[str, np.ndarray]


def argument_parser(description: str) -> argparse.ArgumentParser:
    """What both comparisons ask for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("pretrained", help="a Hugging Face directory of type electra or bert")
    parser.add_argument("data_dir", help="the task's files")
    parser.add_argument("--task", default="mrpc", help="a task of classification")
    parser.add_argument("--batch-size", type=int, default=32)
    return parser


class AdamWithoutBiasCorrection(torch.optim.Optimizer):
    """m / (sqrt(v) + eps), as the original's AdamWeightDecayOptimizer without weight decay."""

    @torch.no_grad()
    def step(self, b1: float = 0.9, b2: float = 0.999) -> None:
        """One update."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= {name: torch.zeros_like(parameter) for name in ("mu", "nu")}
                mu, nu = state["mu"], state["nu"]
                mu.lerp_(gradient, 1 - b1)
                nu.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
                parameter.addcdiv_(mu, nu.sqrt().add_(EPSILON), value=-group["lr"])


class Theirs:
    """transformers' ELECTRA classifier with AdamW, in float32 or, on a GPU, under autocast."""

    def __init__(
        self,
        directory: str,
        special_ids: SpecialIds,
        device: torch.device,
        *,
        learning_rate: float,
        dropout: float = 0.1,
        compiled: bool = False,
        schedule: Callable[[int], float] = lambda step: 1.0,
        bias_correction: bool = True,
    ):
        """Loads a model.

        Args:
          directory: from `electra_directory`.
          special_ids: the tokenizer's.
          device: to run on.
          learning_rate: the peak.
          dropout: of everything.
          compiled: whether torch.compile is used.
          schedule: what the learning rate is multiplied with at a step, from 0.
          bias_correction: as AdamW has it; False: as in the original.
        """
        self._model = transformers.ElectraForSequenceClassification.from_pretrained(
            directory,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        ).to(device)
        self._run = torch.compile(self._model, dynamic=True) if compiled else self._model
        parameters = self._model.parameters()
        if bias_correction:
            self._tx = torch.optim.AdamW(
                parameters, learning_rate, eps=EPSILON, weight_decay=0.0, fused=True
            )
        else:
            self._tx = AdamWithoutBiasCorrection(parameters, {"lr": learning_rate})
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._tx, schedule)
        self._special_ids, self._device = special_ids, device

    def train(self, batches: Iterable[Batch]) -> list[float]:
        """One step a batch; returns the losses."""
        self._model.train()
        losses = []
        for batch in batches:
            labels = torch.from_numpy(batch["labels"]).long().to(self._device)
            with self._autocast():
                loss = self._run(**self._arrays(batch), labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), CLIP)
            self._tx.step()
            self._schedule.step()
            self._tx.zero_grad(set_to_none=True)
            losses.append(loss.detach())
        return [float(loss) for loss in losses]

    def predict(self, batches: Iterable[Batch]) -> list[np.ndarray]:
        """The logits of every batch, on the host one after another."""
        self._model.eval()
        with torch.inference_mode(), self._autocast():
            return [self._run(**self._arrays(b)).logits.float().cpu().numpy() for b in batches]

    def draw_head(self) -> None:
        """A fresh head from torch's generator: Glorot uniform, as the original's and ours.

        (transformers draws from a normal of 0.02, from which short trainings get less far.)
        """
        for name, parameter in self._model.classifier.named_parameters():
            if name.endswith("weight"):
                torch.nn.init.xavier_uniform_(parameter)
            else:
                torch.nn.init.zeros_(parameter)

    def _autocast(self):
        return torch.autocast(self._device.type, torch.bfloat16, self._device.type == "cuda")

    def _arrays(self, batch: Batch) -> dict[str, torch.Tensor]:
        ids, special = batch["input_ids"].astype(np.int64), self._special_ids
        mask = ids != special.pad
        # Segment 1 from after the first [SEP] to the second.
        types = (np.cumsum(ids == special.sep, axis=1) - (ids == special.sep)).clip(0, 1) * mask
        named = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": types}
        return {k: torch.from_numpy(v).to(self._device) for k, v in named.items()}


def head_weights(pretrained: Pretrained, num_outputs: int) -> dict[str, np.ndarray]:
    """The same random head for both sides, under Hugging Face's names."""
    rng, width = np.random.default_rng(0), pretrained.config.hidden_size
    return {
        "classifier.dense.weight": rng.normal(0, 0.02, (width, width)).astype(np.float32),
        "classifier.dense.bias": np.zeros(width, np.float32),
        "classifier.out_proj.weight": rng.normal(0, 0.02, (num_outputs, width)).astype(np.float32),
        "classifier.out_proj.bias": np.zeros(num_outputs, np.float32),
    }


def electra_directory(source: Path, pretrained: Pretrained, num_outputs: int) -> str:
    """A directory of transformers' ELECTRA classifier with the source's encoder."""
    directory = tempfile.mkdtemp()
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "electra", "architectures": ["ElectraForSequenceClassification"]}
    config |= {"embedding_size": pretrained.config.embedding_size, "num_labels": num_outputs}
    (Path(directory) / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        name = name.removeprefix("bert.").removeprefix("electra.")
        if name.startswith(("embeddings.", "embeddings_project.", "encoder.")):
            tensors[f"electra.{name}"] = tensor
    tensors |= head_weights(pretrained, num_outputs)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(tensors, Path(directory) / "model.safetensors", metadata={"format": "pt"})
    return directory
