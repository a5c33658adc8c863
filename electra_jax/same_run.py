"""Whether a workdir holds the run that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.run_config import flatten

# Fields that may differ when a run is resumed: they change where and how often things happen, or
# how far the run goes, not what it computes up to there (num_train_steps stretches the schedule:
# said aloud). "data.path" may differ because the corpus's fingerprint must not.
MAY_CHANGE = (
    "platform",
    "name",
    "data.path",
    "data.default_vocab_size",
    "data.on_device",
    "model.dtype",
    "model.scan_layers",
    "model.attention",
    "model.remat",
    "objective.rows_at_once",
    "parallel.",
    "logging.",
    "train.num_train_steps",
    "train.num_microbatches",
    "train.steps_per_call",
    "train.log_every",
    "train.eval_every",
    "train.eval_batches",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_checkpoint_every",
    "train.on_nonfinite",
    "train.max_rollbacks",
)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two nested configs: {"train.batch_size": (before, now)}."""
    before, now = flatten(before), flatten(now)
    names = sorted(before.keys() | now.keys())
    pairs = {name: (before.get(name), now.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def check_same_run(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    workdir: Any,
    may_change: tuple[str, ...] = MAY_CHANGE,
    data_fields: str = "data.path",
) -> list[str]:
    """Compares the description of the run a workdir holds with that of the run asked for.

    Args:
      before, now: {"config": nested config, "corpus": {"fingerprint": ...}}.
      may_change: beginnings of the names of fields that may differ.
      data_fields: those that the fingerprint follows from.

    Returns:
      A line for each difference that is allowed.

    Raises:
      UserError: for another corpus, model, objective, optimiser or data order, naming both values.
    """
    notes = []
    for name, (old, new) in differences(before["config"], now["config"]).items():
        if name not in flatten(before["config"]):
            continue  # a field that this program has and the one before had not
        if not name.startswith(may_change):
            raise UserError(
                f"{name.removeprefix('trial.')}={new!r}, but the run in {workdir} has {old!r}: "
                "restore the value, or "
                "choose another --workdir"
            )
        notes.append(f"{name}: {old!r} before, {new!r} now")
    old, new = before["corpus"]["fingerprint"], now["corpus"]["fingerprint"]
    if old != new:
        raise UserError(
            f"{data_fields}: the fingerprint is {new[:12]}, but the run in {workdir} began on "
            f"{old[:12]}: give it what it began on, or choose another --workdir"
        )
    return notes
