"""Where the pieces of a build run: in this process, in a pool of processes, or on Apache Beam.

A runner is called with a function and its items, and returns when the function has been called
with every item, in any order and anywhere.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import io
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from electra_jax.data import storage
from electra_jax.data.build.stages import Progress, Report
from electra_jax.errors import UserError

RUNNERS = ("local", "beam")
_POLL_SECONDS = 0.1


class Runner(Protocol):
    """Calls `function(item, report)` for every item; `report` takes what happens meanwhile."""

    def __call__(
        self, function: Callable[[Any, Report], None], items: Sequence[Any], report: Report
    ) -> None:
        """Returns when all is done.

        Raises:
          UserError: the first one that a call raised.
        """


def run_here(function: Callable[[Any, Report], None], items: Sequence[Any], report: Report) -> None:
    """One item after another, in this process."""
    for item in items:
        function(item, report)


class ProcessPool:
    """A pool of processes of this machine; a context manager.

    They are started afresh, not forked, so that threads and locks of this process do not get into
    them, and end when this process does, however it ends.
    """

    def __init__(self, num_workers: int):
        """Starts no process before there is work."""
        context = multiprocessing.get_context("spawn")
        # Without locks, which a process that is killed would take along: each process writes to a
        # row of its own.
        self._totals = context.RawArray("q", num_workers * len(Progress._fields))
        self._stop = context.RawValue("b", 0)
        self._executor = concurrent.futures.ProcessPoolExecutor(
            num_workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(self._totals, context.Value("i", 0), self._stop),
        )
        self._reported = Progress()

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, kind, *exception) -> None:
        with _without_interrupts():  # A second one would leave workers that nobody waits for.
            self._stop.value = kind is not None
            self._executor.shutdown(wait=True, cancel_futures=True)

    def __call__(
        self, function: Callable[[Any, Report], None], items: Sequence[Any], report: Report
    ) -> None:
        """Calls the function with every item, in any order."""
        # Workers start here, and inherit that Ctrl-C is the parent's to handle.
        with _without_interrupts():
            waiting = {self._executor.submit(_work, function, item) for item in items}
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, _POLL_SECONDS, concurrent.futures.FIRST_EXCEPTION
            )
            self._pass_on(report)
            for future in done:
                try:
                    future.result()
                except concurrent.futures.process.BrokenProcessPool:
                    raise UserError(
                        "num_workers: a worker process was killed, perhaps for want of memory: "
                        "use fewer, and run the same command again to go on (a script that asks "
                        "for workers needs the line if __name__ == '__main__':)"
                    ) from None

    def _pass_on(self, report: Report) -> None:
        width = len(Progress._fields)
        totals = Progress(*(sum(self._totals[i::width]) for i in range(width)))
        news = Progress(*(now - old for now, old in zip(totals, self._reported, strict=True)))
        if any(news):
            self._reported = totals
            report(news)


# Of a worker process: where it adds what it has done, and from which place on.
_worker: tuple[Any, int] | None = None


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Context in which Ctrl-C does nothing, here and in processes that are started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker(totals, next_row, stop) -> None:
    global _worker
    with next_row.get_lock():
        _worker = totals, next_row.value * len(Progress._fields)
        next_row.value += 1
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # The processes share the cores already.
    threading.Thread(target=_end_with_the_build, args=(stop,), daemon=True).start()


def _end_with_the_build(stop) -> None:
    """Ends this process as soon as its parent has ended, or does not want it any more.

    What it leaves half written has a name of its own, and is removed when the build goes on.
    """
    parent = multiprocessing.parent_process()
    while parent.is_alive() and not stop.value:
        parent.join(_POLL_SECONDS)
    os._exit(1)


def _work(function: Callable[[Any, Report], None], item: Any) -> None:
    function(item, _report_from_worker)


def _report_from_worker(progress: Progress) -> None:
    totals, row = _worker
    for i, value in enumerate(progress, start=row):
        totals[i] += value


class BeamRunner:
    """Runs on Apache Beam, wherever its pipeline options say; one pipeline for each call.

    All workers have to reach the build's directory under the same name: a file system that they
    share, or an object store.
    """

    def __init__(self, options: Sequence[str], directory: str):
        """Takes pipeline options as on Beam's command line, and the build's directory.

        Raises:
          UserError: if apache-beam is not installed, or does not take the options.
        """
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError:
            raise UserError(
                "runner=beam needs the package apache-beam: pip install 'electra-jax[beam]'"
            ) from None
        said = io.StringIO()
        handler = logging.StreamHandler(said)
        logging.getLogger().addHandler(handler)
        try:
            with contextlib.redirect_stderr(said):
                self._options = PipelineOptions(list(options))
                self._options.get_all_options()
            refused = "Discarding" in said.getvalue()  # Beam itself would go on without them.
        except (SystemExit, ValueError):
            refused = True
        finally:
            logging.getLogger().removeHandler(handler)
        if refused:
            reason = said.getvalue().strip().splitlines()[-1:]
            raise UserError(
                f"beam_options={list(options)} are not all known to Beam ({''.join(reason)}): "
                "correct them"
            )
        self._directory = directory

    def __call__(
        self, function: Callable[[Any, Report], None], items: Sequence[Any], report: Report
    ) -> None:
        """Runs a pipeline of one step over the items and waits for its end."""
        import apache_beam as beam

        if not items:
            return
        failures = f"{self._directory}/failures"
        storage.remove_tree(failures)
        storage.make_directory(failures)
        call = functools.partial(_call_on_beam, function, failures)
        try:
            with beam.Pipeline(options=self._options) as pipeline:
                numbered = pipeline | "Items" >> beam.Create(list(enumerate(items)))
                spread = numbered | "Spread" >> beam.Reshuffle()
                spread | "Work" >> beam.Map(call)
        except Exception as error:  # Of any class: it depends on the engine.
            lines = str(error).strip().splitlines() or [type(error).__name__]
            if "KeyboardInterrupt" in str(error):
                raise KeyboardInterrupt from None
            raise UserError(
                f"beam: the pipeline has failed ({lines[-1][:300]}): check beam_options and the "
                "engine, and run the same command again to go on"
            ) from error
        for name in storage.list_names(failures):
            with storage.open_read(f"{failures}/{name}") as file:
                number, text = json.loads(file.read())
            raise OSError(number, text) if number else UserError(text)


def _call_on_beam(function, failures: str, numbered: tuple[int, Any]) -> None:
    from apache_beam.metrics import Metrics

    def report(progress: Progress) -> None:
        for name, value in progress._asdict().items():
            Metrics.counter("electra_jax", name).inc(value)

    number, item = numbered
    try:
        function(item, report)
    except (UserError, OSError) as error:
        # Raised here, it would be tried again, and reach the user deep inside other text.
        code, text = (error.errno, error.strerror) if isinstance(error, OSError) else (0, error)
        report = json.dumps([code, str(text)]).encode()
        storage.write_bytes(f"{failures}/{number:06d}.json", report)


@contextlib.contextmanager
def open_runner(
    kind: str, num_workers: int, beam_options: Sequence[str], directory: str
) -> Iterator[Runner]:
    """The runner of a kind, one of `RUNNERS`."""
    if kind == "beam":
        yield BeamRunner(beam_options, directory)
    elif num_workers == 1:
        yield run_here
    else:
        with ProcessPool(num_workers) as pool:
            yield pool
