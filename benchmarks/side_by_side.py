"""What the comparisons share: rounds in turns, one model for all sides, what they ran on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch

from electra_jax import parallel
from electra_jax.checkpoint import save_params
from electra_jax.config import ElectraConfig
from electra_jax.convert import to_hugging_face_directory
from electra_jax.data.tokenization import Tokenizer
from electra_jax.train_state import TrainState


def in_turns(runs: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of every run in every round, one run after another, after one round for warmth.

    Between two, a second's rest: the threads of one framework look out for work a while, on the
    cores of the next.
    """
    seconds: dict[Any, list[float]] = {key: [] for key in runs}
    for number in range(rounds + 1):
        for key, run in runs.items():
            time.sleep(1.0)
            start = time.perf_counter()
            run()
            if number:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def about_machine(on_gpu: bool, packages: Sequence[str]) -> dict[str, Any]:
    """The device, and the versions of Python and of packages."""
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    } | {name: importlib.metadata.version(name) for name in packages}


def exported(config: ElectraConfig, params: Any, tokenizer: Tokenizer, directory: Path) -> Path:
    """A model as `electra-jax convert to-hf` writes it."""
    described = {"config": {"model": dataclasses.asdict(config)}}
    save_params(directory / "run", 0, params, described)
    (directory / "run" / "tokenizer").mkdir()
    tokenizer.save(directory / "run" / "tokenizer")
    to_hugging_face_directory(directory / "run", directory / "converted")
    return directory / "converted"


def state_on_devices(
    apply_fn: Callable, params: Any, tx: optax.GradientTransformation, mesh: Any
) -> TrainState:
    """A state at step 0 with these parameters."""
    params = jax.tree.map(jnp.asarray, params)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=apply_fn,
        params=params,
        tx=tx,
        opt_state=tx.init(params),
        rng=jax.random.key(1),
    )
    return parallel.replicate(state, mesh)
