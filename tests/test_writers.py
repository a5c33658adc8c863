"""Rows of metrics: what is written, and what a resumed run finds again."""

import io
import json
import math
import sys
import types

import pytest

from electra_jax.errors import UserError
from electra_jax.writers import (
    ConsoleWriter,
    JsonlWriter,
    TensorBoardWriter,
    WandbWriter,
    WriterList,
    duration,
    read_rows,
)


def test_rows_come_back_as_written_and_nan_as_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.write(10, "train", {"loss": 0.1 + 0.2, "disc_auc": math.nan, "skipped_steps": 0})
    writer.write(10, "eval", {"loss": math.inf})
    writer.close()
    assert read_rows(path) == [
        {"step": 10, "split": "train", "loss": 0.1 + 0.2, "disc_auc": None, "skipped_steps": 0},
        {"step": 10, "split": "eval", "loss": None},
    ]


def test_resuming_drops_later_rows_and_a_line_cut_by_a_kill(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "split": "train", "loss": float(step)} for step in (10, 20, 30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 40, "spl')
    writer = JsonlWriter(path, last_step=20)
    writer.write(30, "train", {"loss": 3.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in read_rows(path)] == [
        (10, 10.0),
        (20, 20.0),
        (30, 3.0),
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_line_in_the_middle_is_refused_by_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2\n{"step": 3}\n')
    with pytest.raises(UserError, match="metrics.jsonl, line 2: no JSON object"):
        JsonlWriter(path, last_step=3)
    assert path.read_text().count("\n") == 3  # untouched


def test_steps_that_were_left_out_are_seen_on_the_terminal():
    stream = io.StringIO()
    writer = ConsoleWriter(num_steps=100, stream=stream)
    writer.write(5, "train", {"loss": 1.0, "skipped_steps": 0})
    writer.write(10, "train", {"loss": 1.0, "skipped_steps": 2})
    first, second = stream.getvalue().splitlines()
    assert "skipped" not in first and second.endswith("skipped 2")


def test_a_row_is_one_plain_line_where_there_is_no_terminal():
    stream = io.StringIO()
    writer = ConsoleWriter(num_steps=100, stream=stream)
    writer.write(20, "train", {"loss": 40.1239, "disc_auc": 0.5114, "eta_seconds": 90061.0})
    writer.close()
    assert stream.getvalue() == "step 20/100  train  loss 40.124  auc 0.511  left 1d 01:01:01\n"


def test_a_terminal_gets_a_progress_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    writer = ConsoleWriter(num_steps=100, stream=stream)
    writer.write(20, "train", {"loss": 40.0})
    writer.write(20, "eval", {"loss": 41.0})
    writer.close()
    assert "20/100" in stream.getvalue() and "loss 41.000" in stream.getvalue()


@pytest.mark.parametrize(
    "seconds, text",
    [(4.4, "00:04"), (3599.6, "1:00:00"), (59, "00:59"), (math.inf, "?"), (172800, "2d 00:00:00")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_tensorboard_gets_finite_values_only(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    writer.write(5, "train", {"loss": 1.5, "disc_auc": math.nan})
    writer.close()
    (events,) = tmp_path.glob("events*")
    content = events.read_bytes()
    assert b"train/loss" in content and b"train/disc_auc" not in content


def test_weights_and_biases_goes_on_in_the_run_it_began(tmp_path, monkeypatch):
    """With a stand-in for the package."""
    started = []

    class Run:
        def log(self, values, step):
            started[-1]["logged"] = (values, step)

        def finish(self):
            pass

    def init(**arguments):
        started.append(arguments)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for _ in range(2):
        writer = WandbWriter(project="p", config={"a": 1}, workdir=tmp_path)
        writer.write(3, "eval", {"loss": 2.0})
        writer.close()
    first, second = started
    assert first["logged"] == ({"eval/loss": 2.0}, 3)
    assert first["id"] == second["id"] and first["resume"] == "allow"


def test_a_list_passes_rows_to_every_writer(tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    writers = WriterList([JsonlWriter(path) for path in paths])
    writers.write(1, "train", {"loss": 1.0})
    writers.flush()
    writers.close()
    rows = [{"step": 1, "split": "train", "loss": 1.0}]
    assert read_rows(paths[0]) == read_rows(paths[1]) == rows
