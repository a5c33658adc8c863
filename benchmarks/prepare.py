"""How fast text becomes a corpus, and a corpus batches; one process, one core.

python benchmarks/prepare.py TEXT --vocab vocab.txt [--megabytes 20] [--output results.jsonl]

Side by side, on the same text: the whole of `electra-jax prepare`; the `tokenizers` library's bare
`encode_batch` on the paragraphs in memory; and a builder in plain Python, written as the original's
is. These rates are per second of processor time, so that other programs disturb them little. Then
memory, and rates by the clock: `prepare` of all of TEXT in a process of its own, with 1, 2, ...
workers, and with tokenizers trained on the text.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # One core is measured.

from plain_builder import build_plainly  # noqa: E402

from electra_jax.data import Corpus, TokenBatches, prepare_corpus  # noqa: E402
from electra_jax.data.reading import ReadingOptions, plan_units, read_documents  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", help="text files, as for electra-jax prepare")
    parser.add_argument("--vocab", required=True, help="a vocab.txt of WordPiece")
    parser.add_argument("--megabytes", type=float, default=20.0, help="text to measure speed on")
    parser.add_argument("--plain-megabytes", type=float, default=1.0, help="of it, in plain Python")
    parser.add_argument("--repeats", type=int, default=3, help="times; the best counts")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="for the memory")
    parser.add_argument(
        "--train", nargs="*", default=[], help="tokenizers to train, for the memory"
    )
    parser.add_argument("--output", help="a file to append a JSON line a result to")
    parser.add_argument("--measure-memory", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory:
        print(json.dumps(memory_of_build(arguments, *arguments.measure_memory)))
        return

    rows = []
    with tempfile.TemporaryDirectory() as directory:
        rows += speeds(arguments, Path(directory))
        for workers in arguments.workers:
            rows.append(memory(arguments, Path(directory), workers))
        for kind in arguments.train:
            rows.append(memory(arguments, Path(directory), max(arguments.workers), kind))
    print(render(rows))
    if arguments.output:
        with open(arguments.output, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row | machine()) + "\n" for row in rows)


def speeds(arguments: argparse.Namespace, directory: Path) -> list[dict]:
    """Rows of MB/s and tokens/s."""
    text = directory / "text.txt"
    paragraphs = write_text(arguments.inputs, text, arguments.megabytes * 1e6)
    size = text.stat().st_size
    numbers = iter(range(1000))

    def prepare() -> Corpus:
        return prepare_corpus([text], directory / f"corpus-{next(numbers)}", vocab=arguments.vocab)

    corpus = prepare()  # Loads what is loaded once in a process.
    backend = corpus.tokenizer()._backend
    bare = best(
        lambda: backend.encode_batch(paragraphs, add_special_tokens=False), arguments.repeats
    )
    whole = best(prepare, arguments.repeats)
    plain_paragraphs, plain_size = [], 0
    for paragraph in paragraphs:
        if plain_size >= arguments.plain_megabytes * 1e6:
            break
        plain_paragraphs.append(paragraph)
        plain_size += len(paragraph.encode()) + 1
    plain = best(
        lambda: build_plainly(plain_paragraphs, arguments.vocab, directory / "plain.bin"), 1
    )
    rates = {
        "bare `encode_batch`": size / 1e6 / bare,
        "plain Python builder": plain_size / 1e6 / plain,
        "`electra-jax prepare`": size / 1e6 / whole,
    }
    ours = rates["`electra-jax prepare`"]
    rows = [
        {"what": name, "rate": rate, "unit": "MB/s/core", "prepare_is": ours / rate}
        for name, rate in rates.items()
    ]
    for seq_len in (128, 512):
        batches = TokenBatches(corpus, seq_len=seq_len, batch_size=128)
        steps = range(batches.num_batches)
        seconds = best(lambda: [batches.batch_at(step) for step in steps], arguments.repeats)  # noqa: B023
        rate = len(steps) * 128 * seq_len / 1e6 / seconds
        rows.append(
            {"what": f"`batch_at`, 128 x {seq_len}", "rate": rate, "unit": "M tokens/s/core"}
        )
    return rows


def write_text(inputs: list[str], path: Path, size: float) -> list[str]:
    """Writes the first bytes of the inputs to one file; returns its paragraphs."""
    paragraphs: list[str] = []
    options = ReadingOptions()
    with path.open("w", encoding="utf-8") as file:
        for unit in plan_units(inputs, options).units:
            for document in read_documents(unit, options):
                paragraphs += document
                file.write("\n".join(document) + "\n\n")
                if file.tell() >= size:
                    return paragraphs
    return paragraphs


def best(function: Callable[[], object], repeats: int) -> float:
    """The least processor time of some calls, in seconds."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times)


def memory(arguments: argparse.Namespace, directory: Path, workers: int, train: str = "") -> dict:
    """Peak memory of a build of all inputs, in a fresh process."""
    output = directory / f"whole-{workers}-{train}"
    words = [sys.executable, __file__, *arguments.inputs, "--vocab", arguments.vocab]
    words += ["--measure-memory", str(output), str(workers), train]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def memory_of_build(arguments, output: str, workers: str, train: str) -> dict:
    """A row of `memory`, measured in this process and those that it starts."""
    peaks: dict[int, float] = {}
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(peaks, done))
    watcher.start()
    began = time.monotonic()
    tokenizer = {"train_tokenizer": train} if train else {"vocab": arguments.vocab}
    try:
        corpus = prepare_corpus(arguments.inputs, output, num_workers=int(workers), **tokenizer)
    finally:
        seconds = time.monotonic() - began
        done.set()
        watcher.join()
    own = peaks.pop(os.getpid())
    size = corpus.metadata["summary"]["text_bytes"]
    what = f"{workers} worker{'s' * (workers != '1')}, all {size / 1e6:,.0f} MB of text"
    return {
        "what": f"{what}, training {train}" if train else what,
        "rate": size / 1e6 / seconds,
        "unit": "MB/s",
        "main_process_mib": own,
        "largest_worker_mib": max(peaks.values(), default=0.0),
        "fingerprint": corpus.fingerprint[:12],
    }


def watch(peaks: dict[int, float], done: threading.Event) -> None:
    """Keeps the peak memory, in MiB, of this process and its children, as the system counts it."""
    while not done.wait(0.1):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for process in (os.getpid(), *map(int, children)):
            try:
                status = Path(f"/proc/{process}/status").read_text()
            except OSError:
                continue
            peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
            peaks.update({process: int(peak[0]) / 1024} if peak else {})


def render(rows: list[dict]) -> str:
    """The rows as tables in Markdown."""
    lines = ["| what | rate | `prepare` is |", "|---|---|---|"]
    for row in rows:
        if "main_process_mib" not in row:
            ratio = f"{row['prepare_is']:.2f} x" if "prepare_is" in row else ""
            lines.append(f"| {row['what']} | {row['rate']:,.2f} {row['unit']} | {ratio} |")
    lines += [
        "",
        "| build | rate | main process | largest worker | fingerprint |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if "main_process_mib" in row:
            lines.append(
                f"| {row['what']} | {row['rate']:.1f} MB/s | {row['main_process_mib']:.0f} MiB | "
                f"{row['largest_worker_mib']:.0f} MiB | {row['fingerprint']} |"
            )
    return "\n".join(lines)


def machine() -> dict:
    """What the numbers were measured on."""
    import tokenizers

    return {
        "python": platform.python_version(),
        "tokenizers": tokenizers.__version__,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
