"""`finetune.py` and `electra-jax predict`, as a user runs them, on tasks of seconds."""

import json
import signal
import string
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import safetensors.numpy
from small_run import ROOT, environment, free_port, run

from electra_jax.config import ElectraConfig
from electra_jax.data.tokenization import SPECIAL_TOKENS
from electra_jax.hugging_face import to_hugging_face
from electra_jax.modeling import Electra
from electra_jax.pretrained import load_pretrained
from electra_jax.writers import TIMES

GOOD, BAD = "great fine lovely happy warm".split(), "awful poor ugly sad cold".split()
PLAIN = "the film was a very long day in town and we saw it with them".split()
WORDS = [*GOOD, *BAD, *PLAIN, "not", "paris", "london"]
VOCAB = list(dict.fromkeys([*SPECIAL_TOKENS, *string.ascii_lowercase, *string.punctuation, *WORDS]))

ENCODER = ("embeddings", "encoder")
SHORT = {
    "batch_size": 16,
    "learning_rate": 5e-3,
    "data.num_lengths": 1,
    "data.max_length": 24,
    "train.log_every": 5,
    "train.checkpoint_every": 7,
    "logging.tensorboard": False,
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A directory of Hugging Face's with a tiny encoder, not trained at all."""
    directory = tmp_path_factory.mktemp("pretrained")
    config = ElectraConfig(
        vocab_size=len(VOCAB), embedding_size=16, hidden_size=32, num_layers=1, num_heads=2,
        max_positions=64, init_stddev=0.2, scan_layers=True,
    )  # fmt: skip
    params = jax.jit(Electra(config).init)(jax.random.key(0), np.zeros((1, 8), np.int32))["params"]
    tensors = to_hugging_face(jax.device_get(params), "ElectraForPreTraining")
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    theirs = {
        "model_type": "electra",
        "architectures": ["ElectraForPreTraining"],
        "vocab_size": config.vocab_size,
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 64,
    }
    (directory / "config.json").write_text(json.dumps(theirs))
    (directory / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return directory


def review(rng):
    """A text and its label; one word of it says which."""
    label = int(rng.integers(2))
    words = [*rng.choice(PLAIN, rng.integers(2, 8)), rng.choice(GOOD if label else BAD)]
    rng.shuffle(words)
    return " ".join(words), ("bad", "good")[label]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    directory = tmp_path_factory.mktemp("reviews")
    rng = np.random.default_rng(0)
    for name, count in (("train", 170), ("dev", 50), ("test", 9)):
        rows = [review(rng) for _ in range(count)]
        lines = [f"{text},{label}" if name != "test" else text for text, label in rows]
        header = "text,label" if name != "test" else "text"
        (directory / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    return directory


def command(task, model, data, workdir, **overrides):
    """Overrides are config fields, with __ for a dot."""
    fields = SHORT | {"pretrained": model, "data_dir": data}
    fields |= {name.replace("__", "."): value for name, value in overrides.items()}
    return [
        sys.executable,
        str(ROOT / "finetune.py"),
        f"--config={ROOT / 'configs' / 'finetune.py'}:{task}",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def metrics_rows(workdir):
    """Rows of all trials, without what depends on the clock."""
    rows = []
    for path in sorted(workdir.glob("trial-*/metrics.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            rows.append({k: v for k, v in row.items() if k not in TIMES})
    return rows


@pytest.fixture(scope="module")
def finished(pretrained, reviews, tmp_path_factory):
    """A run of two trials."""
    workdir = tmp_path_factory.mktemp("run") / "reviews"
    words = command("classification", pretrained, reviews, workdir, num_trials=2, num_epochs=12.0)
    result = run(words)
    assert result.returncode == 0, result.stderr
    return workdir, result.stdout


def test_it_learns_and_says_how_well(finished):
    workdir, printed = finished
    results = json.loads((workdir / "results.json").read_text())
    assert results["task"] == "classification" and results["main_metric"] == "accuracy"
    assert [trial["seed"] for trial in results["trials"]] == [0, 1]
    accuracies = [trial["metrics"]["accuracy"] for trial in results["trials"]]
    assert min(accuracies) > 90
    assert results["median"]["accuracy"] == pytest.approx(np.median(accuracies))
    assert results["standard_deviation"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert results["median"]["macro_f1"] > 90
    assert f"median {results['median']['accuracy']:.2f}" in printed
    assert "  *accuracy " in printed  # what models are chosen by
    trial = workdir / "trial-1"
    lines = (trial / "predictions" / "dev.jsonl").read_text().splitlines()
    dev = [json.loads(line) for line in lines]
    assert len(dev) == 50
    right = [row["prediction"] == row["label"] for row in dev]
    assert 100 * np.mean(right) == pytest.approx(accuracies[0])
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4) for row in dev)
    assert len((trial / "predictions" / "test.jsonl").read_text().splitlines()) == 9
    for picture in ("curves.png", "predictions/dev_confusion.png"):
        assert (trial / picture).stat().st_size > 1000


def test_its_model_is_applied_to_new_text(finished, tmp_path):
    workdir, _ = finished
    (tmp_path / "new.txt").write_text("the day was lovely\nwe saw a very ugly town\n\n")
    for model in (workdir, workdir / "model"):
        words = [sys.executable, "-m", "electra_jax.cli", "predict", str(model)]
        result = run([*words, str(tmp_path / "new.txt")], cwd=ROOT)
        assert result.returncode == 0, result.stderr
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert [row["prediction"] for row in rows[:2]] == ["good", "bad"]
        assert set(rows[0]["probabilities"]) == {"good", "bad"}


def test_a_finished_run_is_left_as_it_is(finished, pretrained, reviews):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (workdir / "trial-1" / "best").rglob("*")}
    rows = metrics_rows(workdir)
    words = command("classification", pretrained, reviews, workdir, num_trials=2, num_epochs=12.0)
    result = run(words)
    assert result.returncode == 0, result.stderr
    assert metrics_rows(workdir) == rows
    assert before == {path: path.stat().st_mtime_ns for path in before}
    # The moments went with the trial's end; the model stays.
    assert not (workdir / "trial-1" / "checkpoints").exists()
    words = command("classification", pretrained, reviews, workdir, num_epochs=3.0)
    result = run(words)
    assert result.returncode == 2 and "num_epochs=3.0, but the run in" in result.stderr


def test_killed_in_the_middle_of_a_trial_it_ends_bitwise_the_same(
    finished, pretrained, reviews, tmp_path
):
    whole, _ = finished
    workdir = tmp_path / "run"
    words = command("classification", pretrained, reviews, workdir, num_trials=2, num_epochs=12.0)
    kills = 0
    while kills < 3:
        process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL)
        aim = kills + 1  # checkpoints, over both trials, that are there at the kill
        while process.poll() is None:
            if len(list(workdir.glob("trial-*/checkpoints/*/_CHECKPOINT_METADATA"))) >= 1 and (
                sum(row["split"] == "eval" for row in metrics_rows(workdir)) > 2 * aim
            ):
                break
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills
    result = run(words)
    assert result.returncode == 0, result.stderr
    assert metrics_rows(workdir) == metrics_rows(whole)
    results = [json.loads((path / "results.json").read_text()) for path in (workdir, whole)]
    assert results[0] == results[1]


TAGGED = "paris B-LOC\nwas O\ngreat O\n\nwe O\nsaw O\nlondon B-LOC\n\nthe O\nday O\n"
QUESTIONS = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "we saw london and paris",
                    "qas": [
                        {
                            "id": f"q{i}",
                            "question": "the town ?",
                            "answers": [{"text": "london", "answer_start": 7}],
                        }
                        for i in range(5)
                    ],
                }
            ]
        }
    ]
}


def write_tagging(directory):
    for name in ("train", "dev"):
        (directory / f"{name}.txt").write_text(TAGGED * 4)


def write_questions(directory):
    for name in ("train", "dev"):
        (directory / f"{name}-v1.1.json").write_text(json.dumps(QUESTIONS))


def write_regression(directory):
    for name in ("train", "dev"):
        rows = [f"{' '.join(['very'] * n)} long day,town,{n}" for n in range(1, 9)]
        (directory / f"{name}.csv").write_text("\n".join(["text,text_b,label", *rows * 3]) + "\n")


@pytest.mark.parametrize(
    ("task", "write", "metric", "files"),
    [
        ("tagging", write_tagging, "f1", ["dev_errors.jsonl", "dev_errors.png"]),
        (
            "squad",
            write_questions,
            "exact_match",
            ["dev_predictions.json", "dev_null_odds.json", "dev_errors.png"],
        ),
        ("regression", write_regression, "pearson", ["dev_scatter.png"]),
    ],
)
def test_other_kinds_of_tasks_learn_too(pretrained, tmp_path, task, write, metric, files):
    write(tmp_path)
    words = command(
        task, pretrained, tmp_path, tmp_path / "run", num_epochs=30.0, batch_size=8,
        evals_per_epoch=0.1, data__stride=8, data__max_question_length=6,
    )  # fmt: skip
    result = run(words)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["median"][metric] > 90
    predictions = tmp_path / "run" / "trial-1" / "predictions"
    assert all((predictions / name).exists() for name in ["dev.jsonl", *files])


def test_a_grid_of_multilabel_trials_ends_each_when_it_no_longer_gets_better(pretrained, tmp_path):
    rows = [
        f"{' '.join(filter(None, [good and 'lovely', 'town', bad and 'cold']))},"
        f'"{",".join(filter(None, [good and "good", bad and "bad"]))}"'
        for good in (True, False)
        for bad in (True, False)
    ]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows * 8]) + "\n")
    words = command(
        "classification", pretrained, tmp_path, tmp_path / "run", data__multilabel=True,
        grid__learning_rates=(0.0001, 0.01), grid__num_epochs=(20,), num_trials=2, patience=3,
        select="last", train__checkpoint_every=1000,
    )  # fmt: skip
    result = run(words)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    settings = [(trial["learning_rate"], trial["seed"]) for trial in results["trials"]]
    assert settings == [(0.0001, 0), (0.0001, 1), (0.01, 0), (0.01, 1)]
    assert results["setting"] == {"learning_rate": 0.01, "num_epochs": 20.0}
    assert results["best_trial"] in (3, 4)
    main = results["main_metric"]
    assert results["median"][main] == np.median(
        [trial["metrics"][main] for trial in results["trials"][2:]]
    )
    assert results["median"][main] > 90
    for trial in results["trials"]:
        path = tmp_path / "run" / f"trial-{trial['number']}" / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        values = [row[main] for row in rows if row["split"] == "eval"]
        best = int(np.argmax(values))  # the first of the best
        assert len(values) == min(best + 1 + 3, 20)
        assert trial["step"] == 2 * len(values)  # the last state, of 2 steps an epoch


def write_pairs(path, labels, gold):
    pairs = [f"the {a} town\tthe {b} day" for a in PLAIN[:8] for b in GOOD[:2]]
    rows = [f"{i}\t{pair}\t{labels[i % len(labels)]}" for i, pair in enumerate(pairs)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([f"index\tsentence1\tsentence2\t{gold}", *rows]) + "\n")


def test_rte_starts_from_an_mnli_run(pretrained, tmp_path):
    classes = ("contradiction", "entailment", "neutral")
    for name in ("train", "dev_matched", "dev_mismatched"):
        write_pairs(tmp_path / "MNLI" / f"{name}.tsv", classes, "gold_label")
    for name in ("train", "dev"):
        write_pairs(tmp_path / "RTE" / f"{name}.tsv", ("entailment", "not_entailment"), "label")
    mnli, rte = tmp_path / "mnli", tmp_path / "rte"
    result = run(command("mnli", pretrained, tmp_path, mnli, num_epochs=3.0))
    assert result.returncode == 0, result.stderr
    metrics = json.loads((mnli / "results.json").read_text())["median"]
    assert set(metrics) == {"accuracy", "accuracy_mismatched"}
    result = run(command("rte", mnli, tmp_path, rte, num_epochs=1.0, learning_rate=1e-9))
    assert result.returncode == 0, result.stderr
    # At so small a rate the encoder is still that of the MNLI run, not the one it began with.
    encoders = [
        jax.tree.leaves({name: load_pretrained(model).params[name] for name in ENCODER})
        for model in (mnli, rte, pretrained)
    ]
    for of_mnli, of_rte, at_first in zip(*encoders, strict=True):
        np.testing.assert_allclose(of_rte, of_mnli, atol=1e-6)
        assert np.abs(of_rte - at_first).max() > 1e-3
    assert load_pretrained(rte).params["head"]["output"]["kernel"].shape == (32, 2)


@pytest.mark.parametrize(
    ("task", "overrides", "message"),
    [
        ("", {}, "task is missing: name it after the config"),
        ("colla", {}, "task 'colla' is unknown: use one of cola"),
        ("classification", {"pretrained": "/none"}, "pretrained=/none does not exist"),
        ("classification", {"data_dir": "/none"}, "/none"),
        ("classification", {"learning_rate": -1.0}, "learning_rate=-1.0 must be positive"),
        ("classification", {"select": "first"}, "select='first' is unknown: use one of best, last"),
        ("classification", {"data__max_length": 65}, "data.max_length=65 is longer than the 64"),
        ("classification", {"data__label_column": "stars"}, "stars"),
        ("classification", {"no_such": 1}, "the config has no field 'no_such'"),
    ],
)
def test_a_mistake_is_one_line(pretrained, reviews, tmp_path, task, overrides, message):
    result = run(command(task, pretrained, reviews, tmp_path / "run", **overrides))
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_what_is_not_of_a_run_is_not_overwritten(pretrained, reviews, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "results.json").write_text("mine")
    result = run(command("classification", pretrained, reviews, tmp_path))
    assert result.returncode == 2
    assert "holds results.json and model, and no run of finetune.py" in result.stderr
    assert (tmp_path / "results.json").read_text() == "mine"


def test_predict_leaves_its_input_alone_and_says_what_it_cut(finished, tmp_path):
    workdir, _ = finished
    words = [sys.executable, "-m", "electra_jax.cli", "predict", str(workdir)]
    path = tmp_path / "new.csv"
    path.write_text("text\n" + "very " * 50 + "\n")
    result = run([*words, str(path), "--output", str(path)], cwd=ROOT)
    assert result.returncode == 2 and "is the file to predict" in result.stderr
    result = run([*words, str(path), "--output", "/dev/stdout"], cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "note: 1 truncated rows\n"
    assert json.loads(result.stdout)["id"] == "0"


def test_damaged_files_of_a_run_are_one_line(finished, pretrained, reviews, tmp_path):
    import shutil

    whole, _ = finished
    words = command(
        "classification", pretrained, reviews, tmp_path / "run", num_trials=2, num_epochs=12.0
    )
    for name, content, message in (
        ("trial-1/result.json", "{", "result.json is damaged"),
        ("trial-1/config.json", "[]", "config.json is damaged"),
        ("trial-2/metrics.jsonl", "5\n5\n", "metrics.jsonl, line 1: no JSON object: a int"),
    ):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "run")
        (tmp_path / "run" / name).write_text(content)
        result = run(words)
        assert result.returncode == 2
        error = result.stderr.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error, result.stderr


def test_two_processes_fine_tune_as_one_does(pretrained, reviews, tmp_path):
    fields = dict(num_epochs=2, num_trials=1)
    alone = run(command("classification", pretrained, reviews, tmp_path / "one", **fields))
    assert alone.returncode == 0, alone.stderr
    address = f"127.0.0.1:{free_port()}"
    jobs = [
        subprocess.Popen(
            command(
                "classification", pretrained, reviews, tmp_path / "two",
                parallel__coordinator_address=address, parallel__num_processes=2,
                parallel__process_id=number, **fields,
            ),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    outputs = [job.communicate(timeout=240)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert "2 x cpu" in outputs[0]
    assert not [line for line in outputs[1].splitlines() if not line.startswith("[Gloo]")]
    for row, expected in zip(
        metrics_rows(tmp_path / "two"), metrics_rows(tmp_path / "one"), strict=True
    ):
        assert (row["step"], row["split"]) == (expected["step"], expected["split"])
        if row["split"] == "train":
            assert row["loss"] == pytest.approx(expected["loss"], rel=0.02)
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("one", "two"))
    assert two["median"]["accuracy"] == pytest.approx(one["median"]["accuracy"], abs=4)
    assert load_pretrained(tmp_path / "two").metadata["task"] == "classification"
    assert (tmp_path / "two" / "trial-1" / "predictions").is_dir()
