"""Held-out text as a run's discriminator saw it at several steps: replaced tokens and verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from electra_jax import corruption
from electra_jax.checkpoint import load_params, saved_steps
from electra_jax.data import Corpus, TokenBatches
from electra_jax.errors import UserError
from electra_jax.modeling import Electra
from electra_jax.objectives import OBJECTIVES
from electra_jax.objectives.electra import ReplacedTokenDetection
from electra_jax.objectives.electric import ElectricObjective
from electra_jax.objectives.pretraining import discriminate
from electra_jax.pretrained import described_model

_KEY = 0  # the same masks at every step, and in every report


class Sample(NamedTuple):
    """One row at one step.

    Attributes:
      step: of the checkpoint.
      original, shown: the pieces that were there, and those that the discriminator saw.
      probabilities: float [tokens], of having been replaced.
    """

    step: int
    original: list[str]
    shown: list[str]
    probabilities: np.ndarray


def corrupted_samples(
    workdir: Path, description: dict[str, Any], *, num_rows: int = 2, most_steps: int = 4
) -> list[list[Sample]]:
    """Rows of held-out text, each at several of the run's checkpoints.

    Raises:
      UserError: where there is nothing to show: another objective, no checkpoint, no corpus.
    """
    config = description["config"]
    objective_class = OBJECTIVES.get(config["objective"]["name"])
    if (
        objective_class is None
        or not issubclass(objective_class, ReplacedTokenDetection)
        or issubclass(objective_class, ElectricObjective)  # whose outputs are energies
    ):
        raise UserError(
            f"objective {config['objective']['name']!r} gives no verdicts on replaced tokens"
        )
    steps = saved_steps(workdir / "checkpoints")
    path = Path(description.get("corpus", {}).get("path", ""))
    if not steps or not (path / "corpus.json").exists():
        raise UserError("its checkpoints or its corpus are no longer there")
    corpus = Corpus.open(path)
    batches = TokenBatches(
        corpus,
        split="validation",
        seq_len=min(64, config["data"]["seq_len"]),
        batch_size=num_rows,
        seed=0,
        repeat=False,
    )
    if not batches.num_batches:
        raise UserError("its corpus holds too little text out")
    batch = batches.batch_at(0)
    numbers = {k: v for k, v in config["objective"].items() if k not in ("name", "rows_at_once")}
    if numbers.get("masking") == "words":
        numbers["masking"] = "tokens"  # the same share, without a table of words
    objective = objective_class(corpus.vocab_size, corpus.special_ids, **numbers)
    described = described_model(description)
    model = Electra(dataclasses.replace(described, scan_layers=True, dtype="float32"))

    @jax.jit
    def verdicts(params):
        key = jax.random.key(_KEY)
        inputs = objective.prepare(key, batch, step=2**31)
        _, sampled, _ = objective.fill(params, inputs, key, model.apply, True)
        ids, _ = corruption.corrupt(inputs.masked, sampled)
        how = {"apply_fn": model.apply, "deterministic": True}
        return ids, jax.nn.sigmoid(discriminate(params, inputs, ids, key, **how))

    tokenizer = corpus.tokenizer()
    rows: list[list[Sample]] = [[] for _ in range(len(batch["input_ids"]))]
    for step in spread(steps, most_steps):
        params, _ = load_params(workdir, step)
        ids, probabilities = jax.device_get(verdicts(params))
        for row, samples in enumerate(rows):
            real = batch["input_ids"][row] != corpus.special_ids.pad
            original, shown = (
                [tokenizer.piece(int(i)) for i in array[row][real]]
                for array in (batch["input_ids"], ids)
            )
            samples.append(Sample(step, original, shown, probabilities[row][real]))
    return rows


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of them, the first and the last among them."""
    places = np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))
    return [steps[place] for place in places]
