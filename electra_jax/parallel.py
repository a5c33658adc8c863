"""Where a step runs: the only file that names a mesh, a device or pmap."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from electra_jax.errors import UserError
from electra_jax.flops import peak_flops_of
from electra_jax.optimizer import parameter_name, rules_by_name

BACKENDS = ("jit", "pmap")
# The axis of a parameter, from its end, that is spread over the devices where the state is: the
# first of these that their number divides; (): every device has a copy.
FSDP_RULES = (
    (r"(^|/)kernel$", (-1, -2)),
    (r"embeddings/(word|position|token_type)$", (-1, -2)),
    (r"(^|/)(bias|scale)$", ()),
)
PLATFORMS = ("auto", "cpu", "gpu", "tpu")
_AXIS = "data"


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
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache.

    Apart for each number of cores: the compiler splits a CPU's work among those that it finds, and
    JAX would give a program for one core to two (12 % slower, as measured).
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        place = Path(root) / "electra_jax" / "compilation" / f"{cores}-cores"
        jax.config.update("jax_compilation_cache_dir", str(place))


def describe_devices(mesh: Mesh) -> str:
    """For example "8 x TPU v4" or "1 x cpu"."""
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}"


def peak_flops(mesh: Mesh) -> float | None:
    """Dense bfloat16 operations a second of all devices together; None where not known."""
    of_one = peak_flops_of(mesh.devices.flat[0].device_kind)
    return None if of_one is None else mesh.size * of_one


def memory_of_a_device(mesh: Mesh) -> int | None:
    """Bytes that programs may use on a device of this process; None where it is not known."""
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total // len(mesh.local_devices)
    return (device.memory_stats() or {}).get("bytes_limit")


def check_memory(needed: Mapping[str, int], mesh: Mesh) -> str:
    """What a compiled step needs on each device, in words.

    Args:
      needed: from `ParallelStep.memory_needed`.

    Raises:
      UserError: if a device has less.
    """
    limit, total = memory_of_a_device(mesh), sum(needed.values())
    if not needed:
        return "memory on each device: the compiler does not say"
    parts = ", ".join(f"{size / 2**20:,.0f} MiB {name}" for name, size in needed.items())
    of = "" if limit is None else f" of {limit / 2**20:,.0f}"
    if limit is not None and total > limit:
        raise UserError(
            f"the training step needs {total / 2**20:,.0f} MiB on each device ({parts}), which "
            f"has {limit / 2**20:,.0f}: lower train.batch_size, raise train.num_microbatches, or "
            "spread the state over more devices with parallel.fsdp=True"
        )
    return f"memory on each device: {total / 2**20:,.0f}{of} MiB ({parts})"


def make_mesh(platform: str | None = None, num_devices: int | None = None) -> Mesh:
    """A mesh with the one axis "data" over the devices of a platform (default: JAX's default)."""
    # By process, as `local_rows` has it: jax.make_mesh orders a TPU's by place, which may mix them.
    devices = sorted(jax.devices(platform), key=lambda one: (one.process_index, one.id))
    # Auto axes: the compiler places the collectives; explicit ones make gathers name shardings.
    return Mesh(np.array(devices[:num_devices]), (_AXIS,), axis_types=(AxisType.Auto,))


def check_backend(backend: str, *, fsdp: bool) -> None:
    """Raises UserError where "pmap" cannot do what is asked for.

    Args:
      backend: "jit" or "pmap".
      fsdp: whether the state is to be spread over the devices.
    """
    if backend == "pmap" and fsdp:
        raise UserError("parallel.backend='pmap' has whole states: use jit, or parallel.fsdp=False")
    if backend == "pmap" and jax.process_count() > 1:
        raise UserError(
            f"parallel.backend='pmap' runs in one process, and there are {jax.process_count()}: "
            "use jit"
        )


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


def shard_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, *, rows_axis: int = 0
) -> dict[str, jax.Array]:
    """This process's rows [b, ...] as global arrays [B, ...], rows spread over the mesh."""
    sharding = NamedSharding(mesh, _rows(rows_axis))
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def state_shardings(
    state: Any,
    mesh: Mesh,
    *,
    fsdp: bool = False,
    rules: Sequence[tuple[str, tuple[int, ...]]] = FSDP_RULES,
) -> Any:
    """Where each array of a state is: everywhere, or in parts, one a device.

    Args:
      state: a tree with `params`, of arrays or their shapes; what has a parameter's name and shape
        elsewhere in it (an optimiser's moments) goes where the parameter goes.
      mesh: the devices.
      fsdp: whether parameters are spread ("fully sharded data parallel"); a step gathers them while
        it computes the gradient, moments stay spread.
      rules: axes by name, as `FSDP_RULES`; every parameter must match one.

    Returns:
      A tree like `state` of shardings.

    Raises:
      UserError: for a parameter that no rule covers.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    if not fsdp:
        return jax.tree.map(lambda _: everywhere, state)
    axes = rules_by_name(state.params, rules, what="parallel.fsdp")
    of_parameters = {}
    for (path, leaf), candidates in zip(
        jax.tree_util.tree_leaves_with_path(state.params),
        jax.tree.leaves(axes, is_leaf=lambda value: isinstance(value, tuple)),
        strict=True,
    ):
        spec: list[str | None] = [None] * len(leaf.shape)
        for axis in candidates:
            if -axis <= len(spec) and leaf.shape[axis] % mesh.size == 0:
                spec[axis] = _AXIS
                break
        of_parameters[parameter_name(path), leaf.shape] = NamedSharding(mesh, PartitionSpec(*spec))

    def sharding(path, leaf):
        names = parameter_name(path).split("/")
        for start in range(len(names)):
            found = of_parameters.get(("/".join(names[start:]), leaf.shape))
            if found is not None:
                return found
        return everywhere

    return jax.tree_util.tree_map_with_path(sharding, state)


def abstract(make: Callable[[], Any], shardings_of: Callable[[Any], Any]) -> Any:
    """Shapes, dtypes and places of what `make` would give; nothing is computed."""
    shapes = jax.eval_shape(make)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings_of(shapes),
    )


def create(make: Callable[[], Any], shardings: Any) -> Any:
    """Runs `make` where its parts belong, with no copy elsewhere."""
    return jax.jit(make, out_shardings=shardings)()


def replicate(state: Any, mesh: Mesh) -> Any:
    """A copy of the state on every device of the mesh."""
    return put(state, jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), state))


def put(state: Any, shardings: Any) -> Any:
    """Arrays that every process has, where `shardings` say."""
    if jax.process_count() == 1:
        return jax.device_put(state, shardings)

    def place(leaf, sharding):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(leaf), sharding))
        content = np.asarray(leaf)
        return jax.make_array_from_callback(content.shape, sharding, lambda index: content[index])

    return jax.tree.map(place, state, shardings)


def _rows(axis: int) -> PartitionSpec:
    """Arrays whose axis of rows, the first or after one of steps, is spread over the devices."""
    return PartitionSpec(*[None] * axis, _AXIS)


def _on_whole_parameters(step: Callable, everywhere: NamedSharding) -> Callable:
    """The step, with each device's part of the parameters gathered first.

    Left to itself the compiler spreads activations as the parameters are, and sends those about.
    """

    def gathering(state, *others):
        whole = jax.lax.with_sharding_constraint(state.params, everywhere)
        return step(state.replace(params=whole), *others)

    return gathering


class ParallelStep:
    """A step over a mesh: call it with a state and this process's rows of the batch (NumPy).

    Results do not depend on the backend or on the number of devices (to rounding).
    """

    def __init__(
        self,
        step: Callable,
        mesh: Mesh,
        backend: str,
        donate_state: bool,
        shardings: Any,
        rows_axis: int,
        resident: Any,
    ):
        donated = (0,) if donate_state else ()
        self._mesh, self._backend, self._rows_axis = mesh, backend, rows_axis
        self._resident = () if resident is None else (replicate(resident, mesh),)
        count = len(self._resident)
        if backend == "jit":
            everywhere = NamedSharding(mesh, PartitionSpec())
            rows = NamedSharding(mesh, _rows(rows_axis))
            state = everywhere if shardings is None else shardings
            if shardings is not None:
                step = _on_whole_parameters(step, everywhere)
            self._jitted = jax.jit(
                step,
                in_shardings=(state, rows, *[everywhere] * count),
                out_shardings=(state, everywhere) if donate_state else everywhere,
                donate_argnums=donated,
            )
        else:
            self._jitted = jax.pmap(
                functools.partial(step, axis_name=_AXIS),
                axis_name=_AXIS,
                in_axes=(None, rows_axis, *[None] * count),  # the state is no stack of copies
                out_axes=None,
                devices=list(mesh.devices.flat),
            )
        # Programs by the shapes that they are for; the last one is asked about its memory.
        self._compiled: dict[Any, Any] = {}

    def compile(self, state: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles for these shapes now, instead of at the first call.

        Args:
          state: arrays, or their shapes from `abstract`.
          batch: arrays like this process's rows; only their shapes and dtypes count.
        """
        lowered = self._jitted.lower(state, self._shapes(batch), *self._resident)
        self._compiled[_shapes_of(batch)] = self._last = lowered.compile()

    def memory_needed(self) -> dict[str, int]:
        """Bytes on each device, by the compiled program: `given` (state and batch) and `temporary`;
        {} where the compiler does not say.
        """
        analysis = self._last.memory_analysis() if self._compiled else None
        if analysis is None:
            return {}
        given = analysis.argument_size_in_bytes
        new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        return {"given": given, "temporary": analysis.temp_size_in_bytes + max(new, 0)}

    def memory_reused(self) -> int:
        """Bytes of the state that the compiled program overwrites with the new one."""
        analysis = self._last.memory_analysis()
        return analysis.alias_size_in_bytes if analysis is not None else 0

    def compiled_text(self) -> str:
        """The compiled program, to look for collectives in."""
        return self._last.as_text() or ""

    def __call__(self, state: Any, batch: Mapping[str, np.ndarray]) -> Any:
        run = self._compiled.get(_shapes_of(batch), self._jitted)
        return run(state, self._place(batch), *self._resident)

    def _place(self, batch):
        if self._backend == "jit":
            # With one process the compiled call places NumPy's arrays itself, and sooner.
            if jax.process_count() == 1:
                return dict(batch)
            return shard_batch(batch, self._mesh, rows_axis=self._rows_axis)
        local, axis = len(self._mesh.local_devices), self._rows_axis
        split = lambda shape: (*shape[:axis], local, -1, *shape[axis + 1 :])  # noqa: E731
        return {name: np.reshape(x, split(np.shape(x))) for name, x in batch.items()}

    def _shapes(self, batch):
        if self._backend == "pmap":
            return self._place(batch)
        count, axis = jax.process_count(), self._rows_axis

        def of_all(shape):
            return (*shape[:axis], shape[axis] * count, *shape[axis + 1 :])

        return {
            name: jax.ShapeDtypeStruct(of_all(rows.shape), rows.dtype)
            for name, rows in batch.items()
        }


def _shapes_of(batch: Mapping[str, np.ndarray]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, np.shape(rows)) for name, rows in sorted(batch.items()))


def parallelize(
    step: Callable,
    mesh: Mesh | None = None,
    *,
    backend: str = "jit",
    donate_state: bool = True,
    shardings: Any = None,
    rows_axis: int = 0,
    resident: Any = None,
) -> ParallelStep:
    """Runs a pure step `(state, batch) -> outputs` over all devices of a mesh.

    Args:
      step: takes `axis_name=` where the backend is "pmap"; `steps.train_step` does.
      mesh: from `make_mesh`; None: all devices. Give the step a state from `replicate`.
      backend: "jit" (the compiler splits the global batch) or "pmap" (one program a device).
      donate_state: the step gives `(new state, others)`, and the memory of the state is used for
        the new one ("jit" only); the state given cannot be used again. Never for evaluation.
      shardings: of the state, from `state_shardings`; None: every device has all of it.
      rows_axis: the axis of the batch's arrays that is spread: 0, or 1 after one of steps.
      resident: arrays that every device keeps, which the step takes after the batch; None: none.

    Raises:
      UserError: for an unknown backend.
    """
    if backend not in BACKENDS:
        raise UserError(
            f"parallel.backend={backend!r} is unknown: use one of {', '.join(BACKENDS)}"
        )
    return ParallelStep(
        step, mesh or make_mesh(), backend, donate_state, shardings, rows_axis, resident
    )
