"""Several processes of one run: how they find each other, agree, and stop together.

Every process runs the same program with the same arguments, on its own devices, and sees the same
numbers, so they save, evaluate and end at the same steps without a word. What one of them alone may
know (a signal, a lock, a damaged file) is told to the others here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from electra_jax.errors import ProcessLost, UserError

# What messages of JAX and its collectives say when a process at the other end is gone.
_LOST = re.compile(
    r"gloo|nccl|coordination service|unavailable|deadline_exceeded|heartbeat|barrier"
    r"|connection (reset|refused|closed)",
    re.IGNORECASE,
)
_MESSAGE_BYTES = 2048
_QUESTIONS = itertools.count(1)  # whether to stop, of this process


def initialize(
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_seconds: int = 60,
) -> int:
    """Joins the other processes of the run; to be called before JAX is used for anything else.

    Without arguments JAX looks for what started the processes: a TPU pod, Slurm, GKE, Open MPI.
    Called again, it does nothing.

    Args:
      coordinator_address: "host:port" of process 0; then the next two are needed as well.
      num_processes: of the run.
      process_id: this one's, from 0.
      heartbeat_seconds: after which a process that is not heard of is given up; five times as long
        all may take to start.

    Returns:
      How many processes there are.

    Raises:
      UserError: for an impossible combination, or if the others do not come.
    """
    given = (coordinator_address, num_processes, process_id)
    if any(value is not None for value in given):
        if None in given:
            raise UserError(
                f"parallel.coordinator_address={coordinator_address!r}, "
                f"parallel.num_processes={num_processes!r}, parallel.process_id={process_id!r}: "
                "give all three, or none"
            )
        if not re.fullmatch(r".+:\d+", coordinator_address):
            raise UserError(
                f"parallel.coordinator_address={coordinator_address!r} must be host:port"
            )
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"parallel.process_id={process_id} must lie in [0, {num_processes}), "
                "parallel.num_processes"
            )
    if jax.distributed.is_initialized():
        return jax.process_count()
    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=5 * heartbeat_seconds,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except ValueError as error:
        # Nothing has started several processes.
        if coordinator_address is None and "coordinator_address" in str(error):
            return 1
        raise UserError(f"the processes of this run do not find each other: {error}") from error
    except RuntimeError as error:
        if coordinator_address is None and "before any JAX calls" in str(error):
            return jax.process_count()  # in a program that has used JAX already
        raise UserError(
            "the processes of this run do not find each other at "
            f"{coordinator_address or 'the start'}: {_first_line(error)}; start all of them, "
            "with one parallel.coordinator_address"
        ) from error
    return jax.process_count()


def is_main() -> bool:
    """True in the one process that writes logs."""
    return jax.process_index() == 0


def on_main(function: Callable[[], Any]) -> Any:
    """Calls a function in the main process and gives its result (JSON) to all.

    Raises:
      UserError: in every process, if it raises one there.
    """
    if jax.process_count() == 1:
        return function()
    said = {}
    if is_main():
        try:
            said = {"result": function()}
        except UserError as error:
            said = {"error": str(error)}
    said = json.loads(_broadcast(json.dumps(said)))
    if "error" in said:
        raise UserError(said["error"])
    return said["result"]


def agree(problem: str | None) -> None:
    """Raises a UserError in every process if any of them has a problem, with the first one's."""
    if jax.process_count() > 1:
        problems = [text for text in _gather(problem or "") if text]
        problem = problems[0] if problems else None
    if problem:
        raise UserError(problem)


def _broadcast(text: str) -> str:
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.zeros(size, np.uint8)
    padded[: len(content)] = content[:size]
    return bytes(multihost_utils.broadcast_one_to_all(padded)).decode()


def _gather(text: str) -> list[str]:
    content = text.encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0")
    rows = multihost_utils.process_allgather(np.frombuffer(content, np.uint8))
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows]


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Context in which SIGTERM asks for an orderly stop instead of ending the process.

    Gives a function of the steps taken so far: whether to save and stop there. It is to be asked
    by all processes equally often, and answers the same in all. A second SIGTERM is as Ctrl-C.
    """
    if jax.process_count() > 1:
        # JAX's notice of preemption: it has caught SIGTERM since the processes met. They stop at
        # the question after the latest one that any had asked by then: JAX compares numbers for
        # equality, so questions are counted, where steps may come in tens or begin anew.
        yield lambda step: multihost_utils.reached_preemption_sync_point(next(_QUESTIONS))
        return
    asked = threading.Event()

    def ask(signum, frame):
        asked.set()
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def noticing_losses() -> Iterator[None]:
    """Context in which the loss of another process is told in one line.

    Raises:
      ProcessLost: instead of what JAX and its collectives raise then.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:
        # jax.errors.JaxRuntimeError is a RuntimeError; Gloo's failures arrive as ValueError.
        if jax.process_count() == 1 or not _LOST.search(str(error)):
            raise
        raise ProcessLost(
            f"process {jax.process_index()} of {jax.process_count()}: another process of this run "
            f"has ended or cannot be reached ({_first_line(error)}). Its own output says why; "
            "start all of them again with the same command, and the run goes on from its last "
            "checkpoint"
        ) from error


def leave(status: int) -> None:
    """Ends a process that has failed at once, without waiting for the others."""
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
