"""From a `ConfigDict` to the parts of a run, with every value checked. It goes no deeper."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from electra_jax.config import ATTENTIONS, REMATS, ElectraConfig
from electra_jax.data import Corpus
from electra_jax.errors import UserError
from electra_jax.objectives import OBJECTIVES, PretrainingObjective
from electra_jax.parallel import BACKENDS, PLATFORMS
from electra_jax.special_ids import SpecialIds

# What "auto" means in the fields that follow the platform: bfloat16 where matrix units are fast
# in it; layers written out where compiling twelve or more is cheap next to the speed it buys.
PLATFORM_DEFAULTS = {
    "cpu": {"dtype": "float32", "scan_layers": "unrolled"},
    "gpu": {"dtype": "bfloat16", "scan_layers": "unrolled"},
    "tpu": {"dtype": "bfloat16", "scan_layers": "scanned"},
}
LAYER_LOOPS = {"unrolled": False, "scanned": True}


def _positive(value: Any) -> bool:
    return value > 0


def _not_negative(value: Any) -> bool:
    return value >= 0


# field: (test, what it asks)
_CHECKS = {
    "data.default_vocab_size": (lambda value: value >= 256, "must be at least 256"),
    "data.seq_len": (lambda value: value >= 8, "must be at least 8"),
    "optimizer.learning_rate": (_positive, "must be positive"),
    "optimizer.warmup_steps": (_not_negative, "must not be negative"),
    "optimizer.weight_decay": (_not_negative, "must not be negative"),
    "optimizer.b1": (lambda value: 0 <= value < 1, "must lie in [0, 1)"),
    "optimizer.b2": (lambda value: 0 <= value < 1, "must lie in [0, 1)"),
    "optimizer.eps": (_positive, "must be positive"),
    "optimizer.max_grad_norm": (_positive, "must be positive"),
    "train.batch_size": (_positive, "must be positive"),
    "train.num_train_steps": (_positive, "must be positive"),
    "train.num_microbatches": (_positive, "must be positive"),
    "train.log_every": (_positive, "must be positive"),
    "train.eval_every": (_positive, "must be positive"),
    "train.eval_batches": (_positive, "must be positive"),
    "train.checkpoint_every": (_positive, "must be positive"),
    "train.keep_checkpoints": (_positive, "must be positive"),
    "train.max_rollbacks": (_not_negative, "must not be negative"),
    "parallel.heartbeat_seconds": (_positive, "must be positive"),
    "seed": (lambda value: 0 <= value < 2**32, "must lie in [0, 2**32)"),
}
_CHOICES = {
    "platform": PLATFORMS,
    "parallel.backend": BACKENDS,
    "data.example_format": ("segments", "packed"),
    "train.on_nonfinite": ("raise", "skip", "rollback"),
    "model.dtype": ("auto", "float32", "bfloat16"),
    "model.scan_layers": ("auto", *LAYER_LOOPS),
    "model.attention": ("auto", *ATTENTIONS),
    "model.remat": REMATS,
    "data.on_device": (None, True, False),
}


def check_values(config: ml_collections.ConfigDict) -> None:
    """Checks what can be checked without a corpus or a device.

    Raises:
      UserError: naming the field, its value and the remedy.
    """
    flat = flatten(config.to_dict())
    needed = (*_CHECKS, *_CHOICES, "objective.name")
    missing = [name for name in needed if name not in flat]
    if missing:
        raise UserError(
            f"the config has no field {missing[0]}: start from configs/common.py's get_config"
        )
    for name, (test, wanted) in _CHECKS.items():
        try:
            passes = test(flat[name])
        except TypeError as error:
            raise UserError(f"{name}={flat[name]!r} must be a number") from error
        if not passes:
            raise UserError(f"{name}={flat[name]!r} {wanted}")
    # Looked up now: a config file may have brought an objective of its own.
    for name, choices in (_CHOICES | {"objective.name": tuple(OBJECTIVES)}).items():
        if flat[name] not in choices:
            known = ", ".join(map(str, choices))
            raise UserError(f"{name}={flat[name]!r} is unknown: use one of {known}")
    make_objective(config, 1, SpecialIds(0, 0, 0, 0, 0))  # checks its own numbers
    keep_every, every = config.train.keep_checkpoint_every, config.train.checkpoint_every
    if keep_every is not None and (keep_every <= 0 or keep_every % every):
        raise UserError(
            f"train.keep_checkpoint_every={keep_every} must be a multiple of "
            f"train.checkpoint_every={every}"
        )
    if config.logging.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "logging.wandb=True but wandb is not installed: pip install wandb, or leave it off"
        )
    check_calls(config)
    for number, phase in enumerate(config.data.phases):
        if len(phase) != 3:
            raise UserError(
                f"data.phases[{number}]={phase!r} must be (first_step, seq_len, batch_size)"
            )
    model = model_anywhere(config, vocab_size=1)
    lengths = {"data.seq_len": config.data.seq_len} | {
        f"data.phases[{number}]: seq_len": phase[1]
        for number, phase in enumerate(config.data.phases)
    }
    for name, length in lengths.items():
        if length > model.max_positions:
            raise UserError(
                f"{name}={length} is longer than model.max_positions={model.max_positions}: "
                "shorten the one or raise the other"
            )


def _check_fields(group: str, values: Mapping[str, Any], dataclass: type) -> None:
    known = {field.name for field in dataclasses.fields(dataclass)}
    for name in sorted(set(values) - known):
        raise UserError(f"{group}.{name}={values[name]!r}: {dataclass.__name__} has no such field")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def model_config(
    config: ml_collections.ConfigDict, platform: str, *, vocab_size: int
) -> ElectraConfig:
    """The architecture, with what follows the platform ("cpu", "gpu" or "tpu") filled in.

    Args:
      vocab_size: the corpus's, used where `config.model.vocab_size` is None.

    Raises:
      UserError: for an impossible combination.
    """
    fields = dict(config.model)
    _check_fields("model", fields, ElectraConfig)
    for name, value in PLATFORM_DEFAULTS[platform].items():
        fields[name] = value if fields[name] == "auto" else fields[name]
    fields["scan_layers"] = LAYER_LOOPS[fields["scan_layers"]]
    fields["vocab_size"] = vocab_size if fields["vocab_size"] is None else fields["vocab_size"]
    wanted = dict(OBJECTIVES[config.objective.name].model)
    if fields["sharing"] == "auto":
        fields["sharing"] = wanted.get("sharing", ("embeddings",))[0]
    for name, values in wanted.items():
        if fields.setdefault(name, values[0]) not in values:
            raise UserError(
                f"model.{name}={fields[name]!r}, but objective.name={config.objective.name!r} "
                f"needs {' or '.join(values)}: leave it as it was, or choose another objective"
            )
    if config.objective.get("separate_documents"):
        if fields["attention"] == "cudnn":
            raise UserError(
                "model.attention='cudnn' is not possible with objective.separate_documents=True: "
                "its mask is padding alone: use auto"
            )
        fields["attention"] = "xla"
        if fields.get("generator_kind") == "two_towers":
            raise UserError(
                "objective.separate_documents=True is not possible with objective.name="
                f"{config.objective.name!r}, whose towers look past the first token of a document: "
                "leave it out"
            )
        if config.data.example_format != "packed":
            raise UserError(
                "objective.separate_documents=True, but data.example_format="
                f"{config.data.example_format!r}, whose rows hold one document each: use packed"
            )
    if fields["attention"] == "cudnn" and platform != "gpu":
        raise UserError(f"model.attention='cudnn' needs an NVIDIA GPU, not a {platform}: use auto")
    if fields["attention"] != "auto":
        return ElectraConfig(**fields)
    model = ElectraConfig(**fields | {"attention": "xla"})
    if platform == "gpu" and model.why_not_cudnn() is None:
        model = dataclasses.replace(model, attention="cudnn")
    return model


def model_anywhere(config: ml_collections.ConfigDict, *, vocab_size: int) -> ElectraConfig:
    """As `model_config` on a CPU, whatever attention is wanted (a GPU is asked on a GPU)."""
    anywhere = config.copy_and_resolve_references()
    anywhere.model.attention = "auto"
    return model_config(anywhere, "cpu", vocab_size=vocab_size)


def describe_attention(model: ElectraConfig, platform: str) -> str:
    """Which attention runs, and why no faster one."""
    if model.attention == "cudnn":
        return "cudnn (flash)"
    if platform != "gpu":
        return "xla"
    return f"xla (for cudnn's flash kernel: {model.why_not_cudnn() or 'set model.attention=auto'})"


def check_calls(config: ml_collections.ConfigDict) -> None:
    """Raises UserError unless evaluations and saves fall between calls of `steps_per_call`."""
    wanted = config.train.steps_per_call
    if wanted is None:
        return
    if wanted < 1:
        raise UserError(f"train.steps_per_call={wanted} must be positive")
    for name in ("eval_every", "checkpoint_every"):
        if config.train[name] % wanted:
            raise UserError(
                f"train.steps_per_call={wanted} does not divide train.{name}="
                f"{config.train[name]}: choose numbers of which it does"
            )


class Choices(NamedTuple):
    """What follows the platform where the config says None: how things run, not what comes out.

    Attributes:
      steps_per_call: updates of one program.
      rows_at_once: of an objective; None: all.
      on_device: whether the device holds the corpus.
    """

    steps_per_call: int
    rows_at_once: int | None
    on_device: bool


def choices(
    config: ml_collections.ConfigDict,
    platform: str,
    *,
    num_devices: int,
    num_tokens: int,
    device_bytes: int | None,
) -> Choices:
    """Fills in what the config leaves to the platform.

    Args:
      platform: "cpu", "gpu" or "tpu".
      num_devices: of all processes.
      num_tokens: of the corpus to train on.
      device_bytes: memory of a device; None: not known.

    Raises:
      UserError: for a corpus too long to be on a device.
    """
    train = config.train
    steps = train.steps_per_call
    if steps is None:
        ten = not train.eval_every % 10 and not train.checkpoint_every % 10
        steps = 10 if platform != "cpu" and ten else 1
    one_gpu = platform == "gpu" and num_devices == 1
    rows = config.objective.rows_at_once
    if rows is None:
        # Several devices would add up their parts of the table's gradient once for each part.
        rows = 512 if one_gpu else 0
    phases = bool(config.data.phases)
    fits = not phases and device_bytes is not None and 4 * num_tokens <= device_bytes / 8
    on_device = config.data.on_device
    if on_device and phases:
        raise UserError("data.on_device=True: not with data.phases: use None, or no phases")
    if on_device and num_tokens >= 2**31:
        raise UserError(
            f"data.on_device=True: the corpus has {num_tokens:,} tokens, and a device finds its "
            f"way among {2**31:,}: use False"
        )
    return Choices(
        steps,
        rows or None,
        one_gpu and fits and num_tokens < 2**31 if on_device is None else on_device,
    )


def check_corpus(model: ElectraConfig, corpus: Corpus) -> None:
    """Raises UserError if the corpus has ids that the model has no row for."""
    if model.vocab_size < corpus.vocab_size:
        raise UserError(
            f"model.vocab_size={model.vocab_size} is smaller than the vocabulary of {corpus.path}, "
            f"{corpus.vocab_size}: leave the field out to take the corpus's"
        )


def make_objective(
    config: ml_collections.ConfigDict,
    vocab_size: int,
    special_ids: SpecialIds,
    *,
    rows_at_once: int | None = None,
    continues_word: Any = None,
) -> PretrainingObjective:
    """The objective chosen by name, for a tokenizer's ids.

    Args:
      rows_at_once: what `choices` says.
      continues_word: bool [vocab_size], where whole words are masked.
    """
    numbers = objective_numbers(config)
    if "rows_at_once" in numbers:
        numbers["rows_at_once"] = rows_at_once
    if continues_word is not None:
        numbers["continues_word"] = continues_word
    return OBJECTIVES[config.objective.name](vocab_size, special_ids, **numbers)


def objective_numbers(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields of the objective that the config names; those of others are left out.

    A config lists the fields of all objectives, so that a name on the command line is enough to
    choose another one. A value other than the field's default, for an objective without the field,
    is a mistake.

    Raises:
      UserError: for such a value, or for a field that no objective has.
    """

    def defaults_of(objective: type) -> dict[str, Any]:
        return {field.name: field.default for field in dataclasses.fields(objective)}

    own, defaults, numbers = defaults_of(OBJECTIVES[config.objective.name]), {}, {}
    for objective in OBJECTIVES.values():
        defaults |= defaults_of(objective)
    for name, value in config.objective.items():
        if name in own:
            numbers[name] = own[name] if value is None else value  # None: its own default
        elif name == "name":
            continue
        elif name not in defaults:
            raise UserError(f"objective.{name}={value!r}: no objective has such a field")
        elif value is not None and value != defaults[name]:
            raise UserError(
                f"objective.{name}={value!r}, but objective.name={config.objective.name!r} has no "
                f"such number: leave it at {defaults[name]!r}"
            )
    return numbers
