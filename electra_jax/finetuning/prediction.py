"""A fine-tuned model, applied to new text."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from electra_jax import heads
from electra_jax.errors import UserError
from electra_jax.finetuning.config import make_task, objective_numbers
from electra_jax.inference import place
from electra_jax.objectives import FINETUNING_OBJECTIVES
from electra_jax.pretrained import load_pretrained
from electra_jax.steps import predict_step
from electra_jax.tasks import (
    EvaluationBatches,
    Features,
    LabelSpace,
    decode,
    make_features,
    read_file,
)
from electra_jax.tasks.examples import Example
from electra_jax.tasks.outputs import prediction_rows


class Predictor:
    """A model that `finetune.py` has left, on the devices at hand.

    Attributes:
      task: what it was trained on, with its columns.
      space: what its outputs mean.
      tokenizer: its own.
    """

    def __init__(self, directory: Path | str, *, platform: str = "auto", batch_size: int = 32):
        """Loads a model; compiles at the first prediction of each padded length.

        Args:
          directory: `model/` of a run of `finetune.py`, or the run's directory.
          platform: "auto", "cpu", "gpu" or "tpu".
          batch_size: texts at a time, at most.

        Raises:
          UserError: if there is no fine-tuned model.
        """
        loaded = load_pretrained(directory)
        kept = loaded.metadata
        if "space" not in kept:
            raise UserError(
                f"{directory} holds no fine-tuned model: give what finetune.py has left"
            )
        settings = ml_collections.ConfigDict(
            {"task": kept["task"], "data": kept["data"], "model": kept["model"]}
        )
        self._data = settings.data
        self.task = make_task(settings)
        self.space = LabelSpace.from_json(kept["space"])
        self.tokenizer = loaded.tokenizer
        self._placed = place(loaded, platform=platform, batch_size=batch_size)
        model = heads.FineTuned(self._placed.config, loaded.model.head)
        objective = FINETUNING_OBJECTIVES[self.task.kind](
            self.tokenizer.special_ids, **objective_numbers(settings, self.task.kind)
        )
        step = functools.partial(predict_step, apply_fn=model.apply, objective=objective)
        self._run = self._placed.compile(step)

    def predict(self, examples: Sequence[Example]) -> Any:
        """Predictions for examples, in their order, as `tasks.decode` gives them."""
        return self._predict(examples, self._features(examples))

    def _features(self, examples: Sequence[Example]) -> Features:
        return make_features(
            self.task,
            examples,
            self.tokenizer,
            self.space,
            max_length=self._data.max_length,
            stride=self._data.stride,
            max_question_length=self._data.max_question_length,
        )

    def _predict(self, examples: Sequence[Example], features: Features) -> Any:
        batches = EvaluationBatches(
            features, batch_size=self._placed.batch_size, num_lengths=self._data.num_lengths
        )
        outputs = [
            self._run(self._placed.params, batches.batch_at(i)) for i in range(batches.num_batches)
        ]
        return decode(self.space, batches.restore(jax.device_get(outputs)), examples, features)

    def predict_file(
        self, path: Path | str, *, columns_called: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """A row for every example of a file in the task's format, or of a .txt with a text a line.

        And lines about what was left out or cut.

        Args:
          path: the file.
          columns_called: as of `tasks.read_file`.

        Raises:
          UserError: if the file cannot be read, naming the line.
        """
        split = read_file(self.task, path, columns_called=columns_called)
        features = self._features(split.examples)
        rows = prediction_rows(split.examples, self._predict(split.examples, features))
        return rows, [*split.counts.lines(), *features.lines()]
