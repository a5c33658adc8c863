"""A build gives the same bytes wherever and in however many tries it runs."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from generated_text import generate_text

from electra_jax.data import Corpus, prepare_corpus
from electra_jax.data.build import assembly, parts, stages, workspace
from electra_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def contents(directory) -> dict[str, bytes]:
    """All files of a corpus, corpus.json too."""
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


# `electra-jax prepare` on small jobs of several parts each: run by the workers too, as they start.
PROGRAM = """
import sys
from electra_jax import cli
from electra_jax.data.build import jobs, stages
jobs.JOB_BYTES, stages._BATCH_CHARACTERS, stages._PART_TOKENS = 5000, 500, 500
if __name__ == "__main__":
    sys.exit(cli.main(["prepare", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def in_small_pieces(tmp_path_factory):
    """A function: a command line that builds in small pieces."""
    script = tmp_path_factory.mktemp("script") / "build.py"
    script.write_text(PROGRAM)
    return lambda *arguments: [sys.executable, str(script), *map(str, arguments)]


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "electra_jax.cli", "prepare", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Some files of different formats, with documents that occur twice, in several jobs."""
    import gzip

    directory = tmp_path_factory.mktemp("inputs")
    for seed in range(4):
        text = generate_text(60, seed=seed // 2)  # Each text is there twice.
        if seed % 2:
            (directory / f"{seed}.txt.gz").write_bytes(gzip.compress(text.encode()))
        else:
            rows = [json.dumps({"text": document}) for document in text.split("\n\n")]
            (directory / f"{seed}.jsonl").write_text("\n".join([*rows[:30], *rows[20:]]))
    return directory


@pytest.fixture
def small_pieces(monkeypatch):
    """Many jobs, parts and shards of little text."""
    monkeypatch.setattr("electra_jax.data.build.jobs.JOB_BYTES", 20_000)
    monkeypatch.setattr(stages, "_BATCH_CHARACTERS", 2_000)
    monkeypatch.setattr(stages, "_PART_TOKENS", 3_000)


def build(inputs, output, vocab_file, **arguments):
    arguments = {"validation_fraction": 0.1, "shard_tokens": 10_000} | arguments
    return prepare_corpus([inputs], output, vocab=vocab_file, **arguments)


@pytest.fixture(scope="module")
def reference(inputs, vocab_file, tmp_path_factory):
    """Built at once, by one process, with the ordinary sizes of pieces."""
    output = tmp_path_factory.mktemp("reference") / "corpus"
    corpus = build(inputs, output, vocab_file)
    assert corpus.metadata["summary"]["duplicates"] > 120
    assert len(corpus.shards("train")) > 1 and len(corpus.shards("validation")) == 1
    return contents(output)


def test_pieces_of_any_size_give_the_same_bytes(
    inputs, vocab_file, tmp_path, reference, small_pieces
):
    build(inputs, tmp_path / "out", vocab_file)
    assert contents(tmp_path / "out") == reference


@pytest.mark.parametrize("num_workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    inputs, vocab_file, tmp_path, reference, num_workers, monkeypatch
):
    monkeypatch.setattr("electra_jax.data.build.jobs.JOB_BYTES", 20_000)
    build(inputs, tmp_path / "out", vocab_file, num_workers=num_workers)
    assert contents(tmp_path / "out") == reference


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_beam_gives_the_same_bytes(inputs, vocab_file, tmp_path, in_small_pieces, mode):
    """In several threads at once, which share what is kept in a process."""
    pytest.importorskip("apache_beam")
    arguments = [inputs, "--vocab", vocab_file, "--validation-fraction", "0.1", "--output"]
    ways = {
        "local": ["--num-workers", "1"],
        "beam": ["--runner", "beam", "--", "--direct_num_workers=4"],
    }
    ways["beam"].append(f"--direct_running_mode={mode}")
    for output, options in ways.items():
        words = in_small_pieces(*arguments, tmp_path / output, *options)
        subprocess.run(words, check=True, env=environment(), timeout=120, capture_output=True)
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


@pytest.mark.parametrize(
    "option", ["--direct_num_workers=abc", "--runner=NoSuchRunner", "--mistyped=5"]
)
def test_options_that_beam_refuses_are_one_line(inputs, vocab_file, tmp_path, option):
    pytest.importorskip("apache_beam")
    words = command(
        inputs,
        "--vocab",
        vocab_file,
        "--output",
        tmp_path / "out",
        "--runner",
        "beam",
        "--",
        option,
    )
    result = subprocess.run(words, env=environment(), timeout=120, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: beam")
    assert "Traceback" not in result.stderr


def test_beam_reports_a_mistake_of_the_user_s_in_one_line(inputs, vocab_file, tmp_path):
    pytest.importorskip("apache_beam")
    (tmp_path / "bad.jsonl").write_text('{"body": "x"}\n')
    words = command(
        tmp_path / "bad.jsonl", "--vocab", vocab_file, "--output", tmp_path / "out",
        "--runner", "beam",
    )  # fmt: skip
    result = subprocess.run(words, env=environment(), timeout=120, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/bad.jsonl, line 1: no ")


def test_a_build_that_fails_goes_on_where_it_was(
    inputs, vocab_file, tmp_path, reference, small_pieces, monkeypatch
):
    """Stopped after each of its writes in turn, by a full disk, and each time begun again."""
    write, counts = parts.write_part, {"left": 0, "written": 0}

    def write_part(*arguments):
        if not counts["left"]:
            raise OSError(28, "No space left on device")
        counts["left"] -= 1
        counts["written"] += 1
        write(*arguments)

    monkeypatch.setattr(stages, "write_part", write_part)
    for _ in range(100):
        counts["left"] = 2
        try:
            build(inputs, tmp_path / "out", vocab_file)
            break
        except UserError as error:
            assert str(error) == (
                f"output {tmp_path}/out cannot be written (No space left on device): free space "
                "there, or name another, and run the same command again to go on"
            )
            with pytest.raises(UserError, match="has no corpus.json: it is unfinished"):
                Corpus.open(tmp_path / "out")
    assert contents(tmp_path / "out") == reference
    written, counts["left"] = counts["written"], 1000
    build(inputs, tmp_path / "again", vocab_file)
    assert written == counts["written"] - written > 10  # None was written twice.


def test_a_full_disk_in_a_worker_is_one_line(inputs, vocab_file, tmp_path):
    """The limit of a file's size is a real error of the operating system's."""
    words = command(
        inputs, "--vocab", vocab_file, "--output", tmp_path / "out", "--num-workers", "2"
    )
    limited = ["bash", "-c", 'ulimit -f 20; trap "" XFSZ; exec "$@"', "bash", *words]
    result = subprocess.run(limited, env=environment(), timeout=120, capture_output=True, text=True)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: output {tmp_path}/out cannot be written (File too large)")
    assert not (tmp_path / "out" / "corpus.json").exists()
    subprocess.run(words, check=True, env=environment(), timeout=120, capture_output=True)
    Corpus.open(tmp_path / "out").verify()


def test_killed_at_random_and_resumed_gives_the_same_bytes(
    inputs, vocab_file, tmp_path, in_small_pieces
):
    """SIGKILL, five times, of the process that builds, in the middle of jobs; counters too."""

    def words(output):
        return in_small_pieces(
            inputs, "--vocab", vocab_file, "--output", output, "--num-workers", "2",
            "--validation-fraction", "0.1",
        )  # fmt: skip

    def files_made():
        return len([path for path in output.rglob("*-*") if path.suffix in (".npz", ".json")])

    subprocess.run(words(tmp_path / "whole"), check=True, env=environment(), timeout=120)
    output, rng, kills = tmp_path / "out", random.Random(0), 0
    while kills < 5:
        aim = files_made() + rng.randint(1, 6)
        process = subprocess.Popen(words(output), env=environment(), stderr=subprocess.DEVNULL)
        while files_made() < aim and process.poll() is None:
            time.sleep(0.001)
        assert process.poll() is None, "it was done before it could be killed five times"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        with pytest.raises(UserError, match="has no corpus.json: it is unfinished"):
            Corpus.open(output)
        _wait_for_the_end_of(children)
    subprocess.run(words(output), check=True, env=environment(), timeout=120)
    assert contents(output) == contents(tmp_path / "whole")


def _wait_for_the_end_of(processes):
    for _ in range(100):
        if not any(_is_alive(process) for process in processes):
            return
        time.sleep(0.1)
    raise AssertionError(f"still there: {[p for p in processes if _is_alive(p)]}")


def _is_alive(process) -> bool:
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())  # A zombie has none.
    except OSError:
        return False


def test_workers_end_with_the_process_that_started_them(
    inputs, vocab_file, tmp_path, in_small_pieces
):
    """At once, not when their work is done."""
    (tmp_path / "rule.py").write_text(
        "import os, time\nfrom pathlib import Path\n"
        f"def f(text):\n    Path({str(tmp_path)!r}, f'{{os.getpid()}}.pid').touch()\n"
        "    time.sleep(60)\n"
    )
    words = in_small_pieces(
        inputs, "--vocab", vocab_file, "--output", tmp_path / "out", "--num-workers", "2",
        "--filter", f"{tmp_path}/rule.py:f",
    )  # fmt: skip
    process = subprocess.Popen(words, env=environment())
    while not (workers := [path.stem for path in tmp_path.glob("*.pid")]):
        assert process.poll() is None
        time.sleep(0.01)
    assert str(process.pid) not in workers
    process.kill()
    process.wait()
    _wait_for_the_end_of(workers)


def test_a_part_that_has_gone_is_made_again(
    inputs, vocab_file, tmp_path, reference, small_pieces, monkeypatch
):
    """One in the middle of a job, or the last, with all that follows; nothing is lost."""
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("electra_jax.data.build.assembly.finish", lambda *_: None)
        build(inputs, output, vocab_file)
        made = sorted((output / "building" / "parts").iterdir())
        for gone in (made[1], made[-1], made[0]):
            gone.unlink()
            build(inputs, output, vocab_file)
            assert sorted((output / "building" / "parts").iterdir()) == made
    build(inputs, output, vocab_file)
    assert contents(output) == reference


def test_what_is_not_a_build_s_is_left_alone(inputs, vocab_file, tmp_path):
    mine = tmp_path / "out" / "building" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="exists and is no corpus"):
        build(inputs, tmp_path / "out", vocab_file)
    assert mine.read_text() == "mine"


def test_a_build_killed_when_all_but_done_leaves_nothing(inputs, vocab_file, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("electra_jax.data.storage.remove_tree", lambda name: None)
        build(inputs, tmp_path / "out", vocab_file)
    assert (tmp_path / "out" / "building").exists()
    build(inputs, tmp_path / "out", vocab_file)
    assert not (tmp_path / "out" / "building").exists()


def test_names_that_are_not_utf8(vocab_file, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(path).write_text("Bada bede.\n\nBo.")
    prepare_corpus([path], tmp_path / "out", vocab=vocab_file).verify()
    Corpus.open(tmp_path / "out")


def test_a_write_that_fails_leaves_nothing(tmp_path):
    from electra_jax.data import storage

    for name in (f"{tmp_path}/a", "memory://failing/a", f"file://{tmp_path}/b"):
        with pytest.raises(OSError, match="full"):
            with storage.create(name) as file:
                file.write(b"half")
                raise OSError(28, "full")
        assert not storage.exists(name)
        storage.write_bytes(name, b"whole")
        assert storage.size(name) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_killed_worker_is_one_line(inputs, vocab_file, tmp_path, small_pieces):
    (tmp_path / "rule.py").write_text(
        "import os, signal\ndef f(text):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with pytest.raises(UserError, match="num_workers: a worker process was killed"):
        build(inputs, tmp_path / "out", vocab_file, num_workers=2, filter=f"{tmp_path}/rule.py:f")


def test_one_build_at_a_time(tmp_path):
    output = str(tmp_path / "out")
    with workspace.open_workspace(output, {"a": 1}):
        with pytest.raises(UserError, match="is being built by another process"):
            with workspace.open_workspace(output, {"a": 1}):
                pass
    with workspace.open_workspace(output, {"a": 1}):
        pass


def test_an_unfinished_build_is_not_mixed_with_another(tmp_path):
    output = str(tmp_path / "out")
    strict = {"a": 1, "bad_input": "refuse"}
    with workspace.open_workspace(output, strict) as directory:
        (Path(directory) / "parts" / "000000-0000.npz").touch()
        before = sorted(Path(directory).rglob("*"))
    with pytest.raises(UserError) as error:
        with workspace.open_workspace(output, {"a": 2, "bad_input": "refuse"}):
            pass
    assert str(error.value) == (
        f"output {output} holds an unfinished build with other a: give it the same again, name "
        "another directory, or remove this one yourself"
    )
    assert sorted(Path(directory).rglob("*")) == before
    # What was strict may become lenient, for nothing has met it; not the other way.
    with workspace.open_workspace(output, {"a": 1, "bad_input": "skip"}):
        pass
    with pytest.raises(UserError, match="with other bad_input"):
        with workspace.open_workspace(output, strict):
            pass


def test_an_input_that_changes_between_two_tries_is_noticed(vocab_file, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("Bada bede.\n\nBo.")
    with monkeypatch.context() as patch:
        patch.setattr("electra_jax.data.build.assembly.finish", lambda *_: None)
        prepare_corpus([tmp_path / "a.txt"], tmp_path / "out", vocab=vocab_file)
    (tmp_path / "a.txt").write_text("Bede bada.\n\nBo.")
    with pytest.raises(UserError, match="with other sizes and modification times of inputs"):
        prepare_corpus([tmp_path / "a.txt"], tmp_path / "out", vocab=vocab_file)


@pytest.mark.parametrize("text", ["Bo.", "Bede bada.\n\nBo.\n\nBada.\n", None])
def test_an_input_that_changes_while_it_is_read_is_noticed(vocab_file, tmp_path, monkeypatch, text):
    """And what was made of it is forgotten: put back, it is read anew."""
    path, first = tmp_path / "a.txt", "Bada bede.\n\nBo."
    path.write_text(first)
    encode_jobs = assembly.encode_jobs

    def change_and_encode(*arguments):
        path.write_text(text) if text else path.rename(tmp_path / "b.txt")
        encode_jobs(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(assembly, "encode_jobs", change_and_encode)
        with pytest.raises(UserError, match=f"{path} (has changed while|cannot be read)"):
            prepare_corpus([path], tmp_path / "out", vocab=vocab_file)
    path.write_text(first)
    corpus = prepare_corpus([path], tmp_path / "out", vocab=vocab_file)
    assert corpus.metadata["summary"]["text_bytes"] == len(first)


def test_after_a_mistake_that_cost_nothing_the_corrected_command_goes_on(vocab_file, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "Bada bede."}\n{"body": "Bo."}\n')
    with pytest.raises(UserError, match="no field 'text'"):
        prepare_corpus([tmp_path / "a.jsonl"], tmp_path / "out", vocab=vocab_file)
    prepare_corpus([tmp_path / "a.jsonl"], tmp_path / "out", vocab=vocab_file, field="body")


def test_killed_before_it_has_begun_it_begins(inputs, vocab_file, tmp_path, reference):
    (tmp_path / "out" / "building" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "building" / "plan.json.0123456789abcdef.tmp").touch()
    build(inputs, tmp_path / "out", vocab_file)
    assert contents(tmp_path / "out") == reference


def test_killed_at_any_moment_of_the_clearing_up_nothing_stays(inputs, vocab_file, tmp_path):
    build(inputs, tmp_path / "out", vocab_file)
    (tmp_path / "out" / "building" / "parts").mkdir(parents=True)
    build(inputs, tmp_path / "out", vocab_file)
    assert not (tmp_path / "out" / "building").exists()


def test_corpora_among_the_inputs_are_not_read(inputs, vocab_file, tmp_path, reference):
    shutil.copytree(inputs, tmp_path / "in")
    build(inputs, tmp_path / "in" / "corpus", vocab_file)
    os.symlink(tmp_path / "in", tmp_path / "link")
    for output in (tmp_path / "out", tmp_path / "link" / "again"):
        for _ in range(2):
            build(tmp_path / "in", output, vocab_file)
        assert contents(output) == reference


def test_interrupts_end_it_in_bounded_time(inputs, vocab_file, tmp_path, in_small_pieces):
    """Also a second one, a moment after the first, of the whole group as a terminal sends it."""
    (tmp_path / "rule.py").write_text(
        "import time\nfrom pathlib import Path\n"
        f"def f(text):\n    Path({str(tmp_path)!r}, 'reached').touch()\n    time.sleep(60)\n"
    )
    for pause in (0.005, 0.05, 0.2):
        (tmp_path / "reached").unlink(missing_ok=True)
        words = in_small_pieces(
            inputs, "--vocab", vocab_file, "--output", tmp_path / f"out-{pause}",
            "--num-workers", "2", "--filter", f"{tmp_path}/rule.py:f",
        )  # fmt: skip
        process = subprocess.Popen(
            ["python3", "-c", START, *words], env=environment(), start_new_session=True,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not (tmp_path / "reached").exists():
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(pause)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 130
        assert errors.strip() == "interrupted: the same command goes on where this one was"


# Some shells start what is in the background with interrupts ignored.
START = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def test_in_an_object_store(inputs, vocab_file, tmp_path, reference):
    """Output in a store that only `fsspec` can reach: the same bytes, and readable after a copy."""
    import fsspec

    corpus = build(inputs, "memory://bucket/corpus", vocab_file)
    assert corpus.metadata["summary"]["documents"] > 100
    store = fsspec.filesystem("memory")
    names = [Path(name).name for name in store.ls("/bucket/corpus", detail=False)]
    stored = {name: store.cat(f"/bucket/corpus/{name}") for name in names}
    assert stored == reference
    assert Corpus.open("memory://bucket/corpus").fingerprint == corpus.fingerprint
    with pytest.raises(UserError, match="is in an object store: copy it to a local disk"):
        corpus.shards("train")


SHARED = ROOT.parent / "shared/data"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the project's data is not here")
def test_all_of_wikipedia_gives_the_same_bytes_everywhere(tmp_path):
    """With 1, 2 and 3 workers, on Beam, and killed at random five times: 360 MB of text each."""
    arguments = [SHARED / "wikipedia_en", "--vocab", SHARED / "vocab/vocab.txt", "--output"]
    ways = {
        "one": ["--num-workers", "1"],
        "two": ["--num-workers", "2"],
        "three": ["--num-workers", "3"],
        "beam": ["--runner", "beam"],
        "killed": ["--num-workers", "2"],
    }
    rng, sums = random.Random(0), {}
    for name, options in ways.items():
        words = command(*arguments, tmp_path / name, *options)
        for _ in range(5 if name == "killed" else 0):
            process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL)
            time.sleep(rng.uniform(2, 8))
            assert process.poll() is None
            process.kill()
            process.wait()
        subprocess.run(words, check=True, env=environment(), capture_output=True)
        sums[name] = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (tmp_path / name).iterdir()
        }
        shutil.rmtree(tmp_path / name)
    assert sums["one"] == sums["two"] == sums["three"] == sums["beam"] == sums["killed"]
