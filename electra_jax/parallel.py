"""Where a step runs: the only file that names a mesh, a device or pmap."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from electra_jax.errors import UserError

BACKENDS = ("jit", "pmap")
PLATFORMS = ("auto", "cpu", "gpu", "tpu")
_AXIS = "data"
# Part of a device's name and its dense bfloat16 (V100 and T4: float16) peak, from the vendors'
# data sheets.
_PEAK_TERAFLOPS = (
    ("h100 pcie", 756.0),
    ("h100", 989.4),
    ("h200", 989.4),
    ("b200", 2250.0),
    ("a100", 312.0),
    ("l40s", 362.0),
    ("l4", 121.0),
    ("v100", 125.0),
    ("t4", 65.0),
    ("tpu v6", 918.0),
    ("tpu v5 lite", 197.0),
    ("tpu v5e", 197.0),
    ("tpu v5", 459.0),  # v5p
    ("tpu v4", 275.0),
    ("tpu v3", 61.5),  # a device is one of the chip's two cores
)


def choose_platform(platform: str) -> str:
    """Fixes what JAX runs on, before anything is compiled; returns "cpu", "gpu" or "tpu".

    Raises:
      UserError: if `platform` is unknown or not to be had here; nothing is fallen back to.
    """
    if platform not in PLATFORMS:
        raise UserError(f"platform={platform!r} is unknown: use one of {', '.join(PLATFORMS)}")
    try:
        devices = jax.local_devices(backend=None if platform == "auto" else platform)
    except RuntimeError as error:
        raise UserError(
            f"platform={platform!r} is not available: JAX finds {jax.default_backend()!r}. Install "
            "JAX for it (README, GPU and TPU) or use platform=auto"
        ) from error
    if platform != "auto":
        jax.config.update("jax_default_device", devices[0])
    return "gpu" if devices[0].platform in ("cuda", "rocm") else devices[0].platform


def enable_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache."""
    if jax.config.jax_compilation_cache_dir is None:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update(
            "jax_compilation_cache_dir", str(Path(root) / "electra_jax" / "compilation")
        )


def is_main_process() -> bool:
    """True in the one process that writes logs."""
    return jax.process_index() == 0


def describe_devices(mesh: Mesh) -> str:
    """For example "8 x TPU v4" or "1 x cpu"."""
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}"


def peak_flops(mesh: Mesh) -> float | None:
    """Dense bfloat16 operations a second of all devices together; None where not known."""
    kind = mesh.devices.flat[0].device_kind.lower()
    for name, tera in _PEAK_TERAFLOPS:
        if re.search(rf"\b{name}\b", kind):
            return mesh.size * tera * 1e12
    return None


def make_mesh(platform: str | None = None, num_devices: int | None = None) -> Mesh:
    """A mesh with the one axis "data" over the devices of a platform (default: JAX's default)."""
    devices = jax.devices(platform)[:num_devices]
    # Auto axes: the compiler places the collectives. (make_mesh's default, Explicit, makes every
    # gather name its output's sharding.)
    return jax.make_mesh((len(devices),), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh, num_microbatches: int = 1) -> None:
    """Raises UserError unless every device gets equally many rows of each micro-batch."""
    if batch_size % (mesh.size * num_microbatches):
        parts = f"{mesh.size} devices"
        if num_microbatches > 1:
            parts += f" x {num_microbatches} micro-batches"
        raise UserError(
            f"train.batch_size={batch_size} is not divisible by {parts}: use a multiple of "
            f"{mesh.size * num_microbatches}"
        )


def local_rows(batch_size: int) -> slice:
    """The rows of the global batch that this process reads."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows [b, ...] as global arrays [B, ...], rows spread over the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec(_AXIS))
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def create(make: Callable[[], Any], mesh: Mesh) -> Any:
    """Runs `make` on every device of the mesh: a replicated state, with no copy elsewhere."""
    return jax.jit(make, out_shardings=NamedSharding(mesh, PartitionSpec()))()


def replicate(state: Any, mesh: Mesh) -> Any:
    """A copy of the state on every device of the mesh (of this process alone)."""
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


class ParallelStep:
    """A step over a mesh: call it with a state and this process's rows of the batch (NumPy).

    Results do not depend on the backend or on the number of devices (to rounding).
    """

    def __init__(self, step: Callable, mesh: Mesh, backend: str, donate_state: bool):
        donated = (0,) if donate_state else ()
        self._mesh, self._backend = mesh, backend
        if backend == "jit":
            everywhere = NamedSharding(mesh, PartitionSpec())
            rows = NamedSharding(mesh, PartitionSpec(_AXIS))
            self._jitted = jax.jit(
                step,
                in_shardings=(everywhere, rows),
                out_shardings=everywhere,
                donate_argnums=donated,
            )
        else:
            self._jitted = jax.pmap(
                functools.partial(step, axis_name=_AXIS),
                axis_name=_AXIS,
                in_axes=(None, 0),  # the state is no stack of copies
                out_axes=None,
                devices=list(mesh.devices.flat),
            )
        self._run = self._jitted

    def compile(self, state: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles for these shapes now, instead of at the first call."""
        self._run = self._jitted.lower(state, self._place(batch)).compile()

    def __call__(self, state: Any, batch: Mapping[str, np.ndarray]) -> Any:
        return self._run(state, self._place(batch))

    def _place(self, batch):
        if self._backend == "jit":
            # With one process the compiled call places NumPy's arrays itself, and sooner.
            return dict(batch) if jax.process_count() == 1 else shard_batch(batch, self._mesh)
        local = len(self._mesh.local_devices)
        return {k: np.reshape(v, (local, -1) + np.shape(v)[1:]) for k, v in batch.items()}


def parallelize(
    step: Callable, mesh: Mesh | None = None, *, backend: str = "jit", donate_state: bool = True
) -> ParallelStep:
    """Runs a pure step `(state, batch) -> outputs` over all devices of a mesh.

    Args:
      step: takes `axis_name=` where the backend is "pmap"; `steps.train_step` does.
      mesh: from `make_mesh`; None: all devices. Give the step a state from `replicate`.
      backend: "jit" (the compiler splits the global batch) or "pmap" (one program a device).
      donate_state: the state's memory is used for the new state ("jit" only); the state given
        cannot be used again. Never for evaluation.

    Raises:
      UserError: for an unknown backend.
    """
    if backend not in BACKENDS:
        raise UserError(
            f"parallel.backend={backend!r} is unknown: use one of {', '.join(BACKENDS)}"
        )
    return ParallelStep(step, mesh or make_mesh(), backend, donate_state)
