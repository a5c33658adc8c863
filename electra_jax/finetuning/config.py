"""From the `ConfigDict` of fine-tuning to checked values; it goes no deeper."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
import re
from typing import Any, NamedTuple

import ml_collections

from electra_jax.config import ElectraConfig
from electra_jax.errors import UserError
from electra_jax.heads import Head, SequenceHead, SpanHead, TokenHead
from electra_jax.parallel import BACKENDS, PLATFORMS
from electra_jax.run_config import LAYER_LOOPS, PLATFORM_DEFAULTS, flatten
from electra_jax.tasks import TASKS, LabelSpace, Task, get_task, own_task

# Fields that may differ when a run is gone on with: where and how often things happen, and how
# many trials there are. (The data and the pretrained parameters have a fingerprint.)
MAY_CHANGE = (
    "name",
    "platform",
    "pretrained",
    "data_dir",
    "num_trials",
    "seed",  # each trial has its own
    "learning_rate",
    "num_epochs",
    "grid.",
    "data.tfds_data_dir",
    "model.dtype",
    "model.scan_layers",
    "parallel.",
    "logging.",
    "train.log_every",
    "train.checkpoint_every",
    "train.on_nonfinite",
)


class SizeDefaults(NamedTuple):
    """What the paper fine-tunes encoders of a size with (Clark et al. 2020, Table 7)."""

    below_hidden_size: float
    learning_rate: float
    layer_decay: float


_SIZE_DEFAULTS = (
    SizeDefaults(512, 3e-4, 0.8),  # small
    SizeDefaults(1024, 1e-4, 0.8),  # base
    SizeDefaults(float("inf"), 5e-5, 0.9),  # large
)


def size_defaults(model: ElectraConfig) -> SizeDefaults:
    """The row for an encoder, by its width."""
    return next(row for row in _SIZE_DEFAULTS if model.hidden_size < row.below_hidden_size)


class Trial(NamedTuple):
    """One training of a run."""

    number: int
    seed: int
    learning_rate: float
    num_epochs: float


def _positive(value: Any) -> bool:
    return 0 < value < math.inf


def _below_one(value: Any) -> bool:
    return 0 <= value < 1


# field: (test, what it asks); None passes where it means a default.
_CHECKS = {
    "num_trials": (_positive, "must be positive"),
    "learning_rate": (_positive, "must be positive"),
    "num_epochs": (lambda value: 0 < value <= 1e6, "must lie in (0, 1e6]"),
    "batch_size": (_positive, "must be positive"),
    "patience": (_positive, "must be positive"),
    "evals_per_epoch": (_positive, "must be positive"),
    "seed": (lambda value: 0 <= value < 2**31, "must lie in [0, 2**31)"),
    "data.num_lengths": (_positive, "must be positive"),
    "data.max_length": (lambda value: value >= 8, "must be at least 8"),
    "data.stride": (_positive, "must be positive"),
    "data.max_question_length": (_positive, "must be positive"),
    "data.train_rows": (_positive, "must be positive"),
    "data.dev_share": (lambda value: 0 <= value < 1, "must lie in [0, 1)"),
    "optimizer.warmup_proportion": (lambda value: 0 <= value <= 1, "must lie in [0, 1]"),
    "optimizer.layer_decay": (lambda value: 0 < value <= 1, "must lie in (0, 1]"),
    "optimizer.weight_decay": (lambda value: value >= 0, "must not be negative"),
    "optimizer.b1": (_below_one, "must lie in [0, 1)"),
    "optimizer.b2": (_below_one, "must lie in [0, 1)"),
    "optimizer.eps": (_positive, "must be positive"),
    "model.head_dropout_rate": (_below_one, "must lie in [0, 1)"),
    "optimizer.max_grad_norm": (_positive, "must be positive"),
    "train.log_every": (_positive, "must be positive"),
    "train.checkpoint_every": (_positive, "must be positive"),
    "parallel.heartbeat_seconds": (_positive, "must be positive"),
}
_CHOICES = {
    "platform": PLATFORMS,
    "select": ("best", "last"),
    "data.bad_rows": (None, "refuse", "skip"),
    "data.tag_scheme": ("as_file", "bioes"),
    "train.on_nonfinite": ("raise", "skip"),
    "model.dtype": ("auto", "float32", "bfloat16"),
    "model.scan_layers": ("auto", *LAYER_LOOPS),
    "parallel.backend": BACKENDS,
}


def check_values(config: ml_collections.ConfigDict) -> None:
    """Checks what can be checked without data, model or device.

    Raises:
      UserError: naming the field, its value and the remedy.
    """
    if not config.task:
        raise UserError(
            f"task is missing: name it after the config, --config=configs/finetune.py:TASK, one of "
            f"{', '.join(TASKS)}"
        )
    get_task(config.task)
    for name, what in (("pretrained", "a model's directory"), ("data_dir", "the task's files")):
        if config[name] is None:
            raise UserError(f"{name} is missing: give {what} with --config.{name}=DIR")
    flat = flatten(config.to_dict())
    for name, (test, wanted) in _CHECKS.items():
        value = flat[name]
        if value is not None and not test(value):
            raise UserError(f"{name}={value!r} {wanted}")
    for name, choices in _CHOICES.items():
        if flat[name] not in choices:
            known = ", ".join(str(choice) for choice in choices)
            raise UserError(f"{name}={flat[name]!r} is unknown: use one of {known}")
    for name in ("grid.learning_rates", "grid.num_epochs"):
        if not all(isinstance(value, int | float) and 0 < value <= 1e6 for value in flat[name]):
            raise UserError(f"{name}={flat[name]} must be numbers in (0, 1e6]")
    for pattern in config.optimizer.frozen:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise UserError(
                f"optimizer.frozen: {pattern!r} is no regular expression ({error})"
            ) from None
    if not config.data.label_separator:
        raise UserError("data.label_separator='' separates nothing: give a character")
    if any(not str(label).strip() for label in config.data.labels):
        raise UserError(f"data.labels={config.data.labels} has an empty label: take it out")
    if len(config.data.labels) == 1 and "," in str(config.data.labels[0]):
        raise UserError(
            f"data.labels={config.data.labels} is one label: write several as "
            "--config.data.labels=\"('a', 'b')\""
        )
    if config.data.multilabel and config.task != "classification":
        raise UserError(
            f"data.multilabel=True means nothing for task {config.task!r}: it is for classification"
        )
    if config.logging.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "logging.wandb=True but wandb is not installed: pip install wandb, or leave it off"
        )


def make_task(config: ml_collections.ConfigDict) -> Task:
    """The task's row of the table, with the user's columns for data of the user's own."""
    data, task = config.data, get_task(config.task)
    given = {
        "text_column": data.text_column,
        "text_b_column": data.text_b_column,
        "label_column": data.label_column,
        "id_column": data.id_column,
        "labels": tuple(map(str, data.labels)),
        "multilabel": data.multilabel,
        "label_separator": data.label_separator,
        "tag_scheme": data.tag_scheme,
    }
    if task.name in ("classification", "regression", "tagging"):
        return own_task(task.name, **given)
    return task


def planned_trials(
    config: ml_collections.ConfigDict, task: Task, model: ElectraConfig
) -> list[Trial]:
    """All trials, those of one setting after each other."""
    rate, epochs = config.learning_rate, config.num_epochs
    rates = config.grid.learning_rates or [rate or size_defaults(model).learning_rate]
    lengths = config.grid.num_epochs or [epochs or task.num_epochs]
    settings = itertools.product(rates, lengths, range(config.num_trials))
    return [
        Trial(number, config.seed + index, float(rate), float(epochs))
        for number, (rate, epochs, index) in enumerate(settings, start=1)
    ]


def encoder_config(
    config: ml_collections.ConfigDict, pretrained: ElectraConfig, platform: str
) -> ElectraConfig:
    """The pretrained architecture, with this run's dropout and what follows the platform."""
    chosen = {
        name: PLATFORM_DEFAULTS[platform][name] if config.model[name] == "auto" else value
        for name, value in config.model.items()
        if name in ("dtype", "scan_layers")
    }
    return dataclasses.replace(
        pretrained,
        dtype=chosen["dtype"],
        attention="xla",
        remat="none",
        scan_layers=LAYER_LOOPS[chosen["scan_layers"]],
        dropout_rate=config.model.dropout_rate,
        attention_dropout_rate=config.model.attention_dropout_rate,
    )


def make_head(config: ml_collections.ConfigDict, space: LabelSpace) -> Head:
    """The head for what outputs mean."""
    model = config.model
    if space.kind == "span":
        return SpanHead(joint=model.joint_spans, answerability=model.answerability)
    if space.kind == "tagging":
        return TokenHead(space.num_outputs)
    return SequenceHead(
        space.num_outputs,
        dropout_rate=model.head_dropout_rate,
        hidden_layer=model.head_hidden_layer,
    )


def objective_numbers(config: ml_collections.ConfigDict, kind: str) -> dict[str, float]:
    """What the objective of a kind of task is given beside the special ids."""
    if kind == "span" and not config.model.answerability:
        return {"answerability_weight": 0.0}
    return {}
