"""How `electra-jax` meets its user: a mistake is one line, and output may go anywhere."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from electra_jax import cli

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "electra_jax.cli"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: VERB"),
        (["prepare", "a.txt", "--vocab", "v.txt"], "arguments are required: --output"),
        (["prepare", "a.txt", "--output", "o"], "--train-tokenizer is required"),
        (["prepare", "a", "--output", "o", "--vocab", "v", "--what"], "arguments: --what"),
        (["prepare", "a", "--output", "o", "--vocab", "v", "--num-workers", "x"], "value: 'x'"),
        (["prepare", "a", "--output", "o", "--vocab", "no\nfile"], "vocabulary no\\nfile does not"),
        (["inspect", "no\nwhere"], "corpus no\\nwhere does not exist"),
        (["predict", "nowhere", "a.txt"], "nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("error: ") and message in printed.err


def test_help_is_help(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["prepare", "--help"])
    assert exit.value.code == 0 and "--num-workers" in capsys.readouterr().out


def small_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("Élan one.\n\nTwo three.\n" * 20)
    words = ["prepare", str(tmp_path / "a.txt"), "--output", str(tmp_path / "out")]
    assert cli.main([*words, "--train-tokenizer", "wordpiece", "--keep-accents"]) == 0
    return str(tmp_path / "out")


def test_output_that_nobody_reads_or_that_cannot_be_shown(tmp_path):
    corpus = small_corpus(tmp_path)
    ascii_only = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(
        [*PROGRAM, "inspect", corpus], env=ascii_only, capture_output=True, text=True
    )
    assert result.returncode == 0 and "\\xe9lan" in result.stdout
    process = subprocess.Popen(
        [*PROGRAM, "inspect", corpus], env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == "" and process.wait() == 1


def test_a_polite_request_to_end_is_an_interrupt(tmp_path):
    (tmp_path / "rule.py").write_text(
        "import time\nfrom pathlib import Path\n"
        f"def f(text):\n    Path({str(tmp_path)!r}, 'reached').touch()\n    time.sleep(60)\n"
    )
    corpus = small_corpus(tmp_path)
    words = ["prepare", str(tmp_path / "a.txt"), "--output", str(tmp_path / "again")]
    words += ["--vocab", f"{corpus}/vocab.txt", "--filter", f"{tmp_path}/rule.py:f"]
    process = subprocess.Popen(
        [*PROGRAM, *words], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "reached").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors.strip() == "interrupted: the same command goes on where this one was"


def test_a_second_interrupt_ends_what_a_thread_keeps_alive():
    code = (
        "import signal, sys, threading, time\n"
        "from electra_jax import command_line\n"
        # A shell's background jobs inherit that interrupts are ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "def main():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "sys.exit(command_line.run(main, after_interrupt='nothing is lost'))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline() == "interrupted: nothing is lost\n"
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
