"""Files of predictions byte by byte, and listings of errors."""

import json

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks import LabelSpace, get_task, own_task, read_split
from electra_jax.tasks.decoding import (
    LabelPredictions,
    LabelSetPredictions,
    NumberPredictions,
    TagPredictions,
)
from electra_jax.tasks.error_listings import (
    answer_errors,
    answer_outcomes,
    confusion_matrix,
    span_errors,
    span_outcomes,
)
from electra_jax.tasks.examples import QuestionExample, TaggedSentence, TextExample
from electra_jax.tasks.kinds import label_space, score
from electra_jax.tasks.outputs import (
    submission_problem,
    write_answers,
    write_predictions,
    write_rows,
    write_submission,
)
from electra_jax.tasks.question_decoding import Answer, QuestionPrediction

NLI = ("contradiction", "entailment", "neutral")


def texts(count, labels=None):
    return [TextExample(str(i), f"text {i}", None, labels and labels[i]) for i in range(count)]


def of_labels(labels, names):
    indices = [names.index(label) for label in labels]
    return LabelPredictions(list(labels), np.eye(len(names))[indices], tuple(names))


@pytest.mark.parametrize(
    ("task", "split", "labels", "name"),
    [
        ("mnli", "test_matched", ["neutral", "entailment"], "MNLI-m.tsv"),
        ("mnli", "test_mismatched", ["contradiction", "neutral"], "MNLI-mm.tsv"),
        ("ax", "test", ["entailment", "neutral"], "AX.tsv"),
        ("cola", "test", ["1", "0"], "CoLA.tsv"),
        ("rte", "test", ["entailment", "not_entailment"], "RTE.tsv"),
    ],
)
def test_submission(tmp_path, task, split, labels, name):
    task = get_task(task)
    predictions = of_labels(labels, task.labels)
    assert write_submission(tmp_path / "new", task, split, texts(2), predictions) == name
    written = (tmp_path / "new" / name).read_bytes().decode()
    assert written == f"index\tprediction\n0\t{labels[0]}\n1\t{labels[1]}\n"


def test_submission_of_numbers(tmp_path):
    """Within 0 and 5."""
    predictions = NumberPredictions(np.array([-0.1, 2.34567, 5.2]))
    assert write_submission(tmp_path, get_task("stsb"), "test", texts(3), predictions) == (
        "STS-B.tsv"
    )
    assert (tmp_path / "STS-B.tsv").read_text() == (
        "index\tprediction\n0\t0.000\n1\t2.346\n2\t5.000\n"
    )


def test_submission_problems(shared, tmp_path):
    task = get_task("wnli")
    test = read_split(task, shared("glue"), "test").examples
    assert submission_problem(task, "test", test) is None
    assert submission_problem(task, "test", test[:100]) == (
        "wnli test has 100 rows, and GLUE expects 146"
    )
    assert submission_problem(task, "test", test[::-1]) == (
        "wnli test is not numbered from 0 to 145 in order"
    )
    with pytest.raises(UserError, match="task wnli has no GLUE submission for split 'dev': use"):
        write_submission(tmp_path, task, "dev", test, of_labels(["0"] * 146, ("0", "1")))


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_predictions_of_labels(tmp_path):
    path = tmp_path / "predictions.jsonl"
    probabilities = np.array([[0.25, 0.75], [1.0, 1e-20]])
    predictions = LabelPredictions(["b", "a"], probabilities, ("a", "b"))
    write_predictions(path, texts(2, ["b", "b"]), predictions)
    assert rows_of(path) == [
        {"id": "0", "prediction": "b", "probabilities": {"a": 0.25, "b": 0.75}, "label": "b"},
        {"id": "1", "prediction": "a", "probabilities": {"a": 1.0, "b": 1e-20}, "label": "b"},
    ]
    sets = LabelSetPredictions([("a", "b"), ()], np.array([[0.5, 0.9], [0.1, 0.2]]), ("a", "b"))
    write_predictions(path, texts(2), sets)
    assert rows_of(path)[0] == {
        "id": "0", "prediction": ["a", "b"], "probabilities": {"a": 0.5, "b": 0.9},
    }  # fmt: skip


def test_predictions_of_numbers(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, texts(2, [1.5, 2.0]), NumberPredictions(np.array([1 / 3, np.nan])))
    assert rows_of(path) == [
        {"id": "0", "prediction": 0.33333333, "label": 1.5},
        {"id": "1", "prediction": None, "label": 2.0},  # JSON has no NaN.
    ]


SENTENCES = [
    TaggedSentence("0", tuple("abcdef"), tuple("B-X I-X O B-Y O B-X".split())),
    TaggedSentence("1", tuple("ghi"), tuple("B-X O O".split())),
]
TAGS = TagPredictions(
    [tuple("B-X O O B-X B-X O".split()), tuple("B-X O B-Y".split())],
    [np.full(6, 0.5), np.full(3, 0.25)],
)


def test_predictions_of_tags(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, SENTENCES, TAGS)
    assert rows_of(path)[1] == {
        "id": "1",
        "words": ["g", "h", "i"],
        "prediction": ["B-X", "O", "B-Y"],
        "probabilities": [0.25] * 3,
        "label": ["B-X", "O", "O"],
    }


def test_span_errors():
    errors = span_errors(SENTENCES, TAGS)
    listed = [
        (error["id"], error["error"],
         *(error[side] and tuple(error[side].values()) for side in ("gold", "predicted")))
        for error in errors
    ]  # fmt: skip
    assert listed == [
        ("0", "boundary", ("X", 0, 2, "a b"), ("X", 0, 1, "a")),
        ("0", "type", ("Y", 3, 4, "d"), ("X", 3, 4, "d")),
        ("0", "missed", ("X", 5, 6, "f"), None),
        ("0", "spurious", None, ("X", 4, 5, "e")),
        ("1", "spurious", None, ("Y", 2, 3, "i")),
    ]
    both = TagPredictions([tuple("B-Y O O B-Y O B-X".split()), SENTENCES[1].tags], None)
    assert [error["error"] for error in span_errors(SENTENCES, both)] == ["both"]


def test_span_outcomes():
    assert span_outcomes(SENTENCES, TAGS) == {
        "X": {"right": 1, "boundary": 1, "type": 0, "missed": 1, "spurious": 1},
        "Y": {"right": 0, "boundary": 0, "type": 1, "missed": 0, "spurious": 1},
    }


QUESTIONS = [
    QuestionExample("q1", "Where?", "In Café Paris.", ("Café Paris", "Paris"), (3, 13), False),
    QuestionExample("q2", "Who?", "In Paris.", (), None, True),
    QuestionExample("q3", "What?", "The big red cat.", ("red cat",), (8, 15), False),
]


def answered(identifier, odds, *answers):
    made = [Answer(text, 0, len(text), 1.5, 1.0, 0.5, share) for text, share in answers]
    return QuestionPrediction(identifier, made, odds)


ANSWERS = [
    answered("q1", -4.0, ("Café Paris", 0.75), ("Paris", 0.25)),
    answered("q2", -3.0, ("Paris", 1.0)),
    answered("q3", 1.0, ("big red cat", 1.0)),
]


def test_answers(tmp_path):
    names = write_answers(tmp_path, ANSWERS)
    assert names == ["predictions.json", "nbest_predictions.json", "null_odds.json"]
    texts, n_best, odds = (json.loads((tmp_path / name).read_bytes()) for name in names)
    assert texts == {"q1": "Café Paris", "q2": "Paris", "q3": "big red cat"}
    assert odds == {"q1": -4.0, "q2": -3.0, "q3": 1.0}
    assert n_best["q1"] == [
        {"text": "Café Paris", "probability": 0.75, "start_logit": 1.0, "end_logit": 0.5},
        {"text": "Paris", "probability": 0.25, "start_logit": 1.0, "end_logit": 0.5},
    ]
    names = write_answers(tmp_path, ANSWERS, null_threshold=-2.75, prefix="test_")
    assert names[0] == "test_predictions.json"
    texts = json.loads((tmp_path / names[0]).read_bytes())
    assert texts == {"q1": "Café Paris", "q2": "Paris", "q3": ""}
    write_predictions(tmp_path / "predictions.jsonl", QUESTIONS, ANSWERS)
    assert rows_of(tmp_path / "predictions.jsonl")[2] == {
        "id": "q3", "question": "What?", "prediction": "big red cat", "start": 0, "end": 11,
        "probability": 1.0, "null_odds": 1.0, "label": ["red cat"],
    }  # fmt: skip


def test_answer_errors(tmp_path):
    errors = answer_errors(QUESTIONS, ANSWERS, null_threshold=-2.75)
    assert [(error["id"], error["prediction"], error["f1"]) for error in errors] == [
        ("q2", "Paris", 0.0), ("q3", "", 0.0)]  # fmt: skip
    (error,) = answer_errors([QUESTIONS[2]], [ANSWERS[2]])
    assert error == {
        "id": "q3", "question": "What?", "gold": ["red cat"], "prediction": "big red cat",
        "f1": pytest.approx(80.0), "null_odds": 1.0, "context": "The big red cat.",
    }  # fmt: skip
    write_rows(tmp_path / "errors.jsonl", errors)
    assert rows_of(tmp_path / "errors.jsonl") == errors


def test_confusion_matrix():
    found = confusion_matrix(["a", "a", "b", "c"], ["a", "b", "b", "a"], ("a", "b", "c"))
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_files_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/predictions.jsonl cannot be written .*: choose anot"):
        write_predictions(tmp_path / "file" / "predictions.jsonl", [], TAGS)


# Scores by task.


def test_scores_are_the_tasks(tmp_path):
    task = get_task("mrpc")
    space = label_space(task, [])
    found = score(task, space, texts(2, ["1", "0"]), of_labels(["1", "1"], task.labels))
    assert found == pytest.approx({"accuracy": 50.0, "f1": 200 / 3})
    assert list(found)[0] == task.main_metric == "accuracy"
    task = get_task("cola")
    found = score(task, space, texts(4, "1010"), of_labels("1000", task.labels))
    assert found == pytest.approx({"mcc": 100 / 3**0.5})
    task = get_task("stsb")
    numbers = NumberPredictions(np.array([0.0, 2.0, 4.0]))
    found = score(task, label_space(task, []), texts(3, [1.0, 2.0, 3.0]), numbers)
    assert found == pytest.approx({"spearman": 100, "pearson": 100, "mse": 2 / 3})
    task = own_task("classification", labels=["a", "b"], multilabel=True)
    sets = LabelSetPredictions([("a",)], np.zeros((1, 2)), ("a", "b"))
    found = score(task, label_space(task, []), texts(1, [("a",)]), sets)
    assert found == pytest.approx({"micro_f1": 100, "macro_f1": 50, "exact_match": 100})
    found = score(get_task("chunking"), LabelSpace("tagging"), SENTENCES, TAGS)
    assert found["f1"] == pytest.approx(100 * 2 * 1 / (4 + 5))


def test_scores_of_answers():
    space = LabelSpace("span")
    found = score(get_task("squadv2"), space, QUESTIONS, ANSWERS)
    assert found["exact"] == pytest.approx(100 / 3)
    found = score(get_task("squadv2"), space, QUESTIONS, ANSWERS, null_threshold=0.0)
    assert found["HasAns_exact"] == 50.0 and found["NoAns_exact"] == 0.0
    assert get_task("squadv2").main_metric in found
    for name in ("squad", "newsqa"):
        found = score(get_task(name), space, QUESTIONS[::2], ANSWERS[::2])
        assert found == pytest.approx({"exact_match": 50.0, "f1": 90.0})


def test_label_space_through_json():
    for space in (
        LabelSpace("classification", NLI),
        LabelSpace("regression", score_range=(0.0, 5.0)),
        LabelSpace("tagging", ("B-X", "O"), tag_scheme="bioes"),
        LabelSpace("span"),
    ):
        assert LabelSpace.from_json(json.loads(json.dumps(space.to_json()))) == space
    assert [LabelSpace(kind, NLI).num_outputs for kind in ("multilabel", "regression", "span")] == [
        3, 1, 0]  # fmt: skip
    with pytest.raises(UserError, match="is not one .*: train again"):
        LabelSpace.from_json({"sort": "span"})


def test_answer_outcomes():
    assert answer_outcomes(QUESTIONS, ANSWERS, null_threshold=-2.75) == {
        "what": {"exact": 0, "no answer given": 1, "answer invented": 0},
        "where": {"exact": 1, "no answer given": 0, "answer invented": 0},
        "who": {"exact": 0, "no answer given": 0, "answer invented": 1},
    }
    assert answer_outcomes([QUESTIONS[2]], [ANSWERS[2]]) == {"what": {"partly right": 1}}
