"""Metrics of classification, regression and tagging: by hand, by formula, and against seqeval."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.tasks.metrics import (
    classification_metrics,
    metrics_by_type,
    multilabel_metrics,
    regression_metrics,
    tagging_metrics,
)
from electra_jax.tasks.tags import Span, spans_of, to_bioes, to_iob2


def test_classification_by_hand():
    """5 true positives, 3 true negatives, 1 false positive, 2 false negatives."""
    gold = ["1"] * 5 + ["0"] * 3 + ["0"] + ["1"] * 2
    predicted = ["1"] * 5 + ["0"] * 3 + ["1"] + ["0"] * 2
    found = classification_metrics(gold, predicted, ("0", "1"))
    mcc = (5 * 3 - 1 * 2) / math.sqrt((5 + 1) * (5 + 2) * (3 + 1) * (3 + 2))
    f1 = 2 * 5 / (2 * 5 + 1 + 2), 2 * 3 / (2 * 3 + 2 + 1)
    assert found == pytest.approx(
        {
            "accuracy": 100 * 8 / 11,
            "mcc": 100 * mcc,
            "f1": 100 * f1[0],
            "macro_f1": 100 * sum(f1) / 2,
        }
    )
    # The positive class is the second label, whatever it is called.
    renamed = ["yes" if label == "0" else "a" for label in gold]
    guesses = ["yes" if label == "0" else "a" for label in predicted]
    assert classification_metrics(renamed, guesses, ("yes", "a")) == found


def test_mcc_of_three_classes():
    """Gorodkin's R_K, as the covariance of indicator matrices."""
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 3, (2, 200))
    predicted = np.where(rng.random(200) < 0.5, gold, predicted)
    names = ("a", "b", "c")
    x, y = np.eye(3)[gold], np.eye(3)[predicted]

    def covariance(one, other):
        return ((one - one.mean(0)) * (other - other.mean(0))).sum()

    expected = covariance(x, y) / math.sqrt(covariance(x, x) * covariance(y, y))
    found = classification_metrics([names[i] for i in gold], [names[i] for i in predicted], names)
    assert found["mcc"] == pytest.approx(100 * expected) and "f1" not in found


@pytest.mark.parametrize("gold", [["0", "0"], ["1", "1"], ["0", "1"]])
def test_classification_where_one_label_is_all(gold):
    for guess in ("0", "1"):
        found = classification_metrics(gold, [guess] * 2, ("0", "1"))
        assert found["mcc"] == 0 and all(map(math.isfinite, found.values()))
        assert found["accuracy"] == 50 * gold.count(guess)


def test_regression_by_formula():
    rng = np.random.default_rng(1)
    gold = np.round(rng.normal(size=50), 1)
    predicted = np.round(gold + rng.normal(size=50), 1)
    assert len(set(gold)) < 50  # Equal numbers share a rank.

    def ranks(values):
        return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])

    found = regression_metrics(gold, predicted)
    assert found == pytest.approx(
        {
            "pearson": 100 * np.corrcoef(gold, predicted)[0, 1],
            "spearman": 100 * np.corrcoef(ranks(gold), ranks(predicted))[0, 1],
            "mse": np.mean(np.square(gold - predicted)),
        }
    )


def test_regression_without_a_correlation():
    none = {"pearson": 0.0, "spearman": 0.0}
    assert regression_metrics([1.0, 2.0], [3.0, 3.0]) == {**none, "mse": 2.5}
    assert regression_metrics([1.0, 2.0], [3.0, 3.0 + 1e-14]) == pytest.approx({**none, "mse": 2.5})
    assert regression_metrics([2.0], [4.0]) == {**none, "mse": 4.0}
    tiny = regression_metrics([1.0, 2.0, 3.0], [1e-15, 2e-15, 3e-15])
    assert tiny["pearson"] == pytest.approx(100)
    assert math.isnan(regression_metrics([1.0, 2.0], [1.0, np.nan])["pearson"])


def test_multilabel_by_hand():
    gold = [("a", "b"), (), ("c",), ("a",)]
    predicted = [("a",), (), ("b", "c"), ("b",)]
    found = multilabel_metrics(gold, predicted, ("a", "b", "c", "d"))
    # a: 1 right, 1 missed; b: 1 missed, 2 wrong; c: 1 right; d: nowhere.
    per_label = [2 / 3, 0.0, 1.0, 0.0]
    assert found == pytest.approx(
        {
            "micro_f1": 100 * 2 * 2 / (2 * 2 + 2 + 2),
            "macro_f1": 100 * sum(per_label) / 4,
            "exact_match": 25.0,
        }
    )
    from sklearn.metrics import f1_score

    rows = [
        np.array([[name in row for name in "abcd"] for row in part]) for part in (gold, predicted)
    ]
    for average in ("micro", "macro"):
        score = f1_score(*rows, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(100 * score)
    single = multilabel_metrics([("a",), ()], [("a",), ("a",)], ("a",))
    assert single == pytest.approx({"micro_f1": 200 / 3, "macro_f1": 200 / 3, "exact_match": 50})


# Tags.


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-X I-X O B-Y", [("X", 0, 2), ("Y", 3, 4)]),
        ("B-X B-X I-X", [("X", 0, 1), ("X", 1, 3)]),
        ("I-X I-X O I-Y", [("X", 0, 2), ("Y", 3, 4)]),  # IOB1
        ("B-X I-Y I-Y", [("X", 0, 1), ("Y", 1, 3)]),  # Not one span, as in the original.
        ("S-X S-X B-Y I-Y E-Y I-Y", [("X", 0, 1), ("X", 1, 2), ("Y", 2, 5), ("Y", 5, 6)]),
        ("O E-X", [("X", 1, 2)]),
        ("B-GEO-LOC I-GEO-LOC", [("GEO-LOC", 0, 2)]),
        ("O O", []),
        ("", []),
    ],
)
def test_spans_by_hand(tags, spans):
    assert spans_of(tags.split()) == [Span(*span) for span in spans]


TAGS = st.lists(
    st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in ("X", "Y", "A-B"))]), max_size=9
)


@settings(max_examples=300, deadline=None)
@given(tags=TAGS)
def test_spans_are_seqevals(tags):
    """seqeval's default mode says it is conlleval."""
    from seqeval.metrics.sequence_labeling import get_entities

    expected = [(kind, start, end + 1) for kind, start, end in get_entities(tags)]
    assert spans_of(tags) == expected
    # Other ways to write the same spans.
    assert spans_of(to_bioes(tags)) == expected and spans_of(to_iob2(tags)) == expected


def test_bioes_and_iob2_by_hand():
    assert to_bioes("I-X I-X O B-Y B-Y".split()) == ("B-X", "E-X", "O", "S-Y", "S-Y")
    assert to_iob2("S-X O B-Y I-Y E-Y".split()) == ("B-X", "O", "B-Y", "I-Y", "I-Y")


@settings(max_examples=100, deadline=None)
@given(
    pairs=st.lists(
        st.integers(1, 8).flatmap(
            lambda n: st.tuples(
                *[st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), min_size=n,
                           max_size=n)] * 2
            )
        ),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_tagging_is_seqevals(pairs):
    from seqeval import metrics as seqeval

    gold, predicted = ([list(pair[i]) for pair in pairs] for i in (0, 1))
    found = tagging_metrics(gold, predicted)
    for name in ("precision", "recall", "f1"):
        score = getattr(seqeval, f"{name}_score")(gold, predicted, zero_division=0)
        assert found[name] == pytest.approx(100 * score)
    assert found["accuracy"] == pytest.approx(100 * seqeval.accuracy_score(gold, predicted))
    if not any(map(spans_of, (*gold, *predicted))):
        return
    report = seqeval.classification_report(gold, predicted, output_dict=True, zero_division=0)
    by_type = metrics_by_type(gold, predicted)
    assert sorted(by_type) == sorted(name for name in report if not name.endswith("avg"))
    for kind, values in by_type.items():
        assert values["f1"] == pytest.approx(100 * report[kind]["f1-score"])
        assert values["support"] == report[kind]["support"]


def test_tagging_by_hand():
    gold = [["B-X", "I-X", "O", "B-Y"], ["O", "B-X"]]
    predicted = [["B-X", "I-X", "O", "B-X"], ["B-X", "B-X"]]
    # Gold spans: X, Y, X. Predicted: X, X, X, X; two of them right.
    assert tagging_metrics(gold, predicted) == pytest.approx(
        {"precision": 50.0, "recall": 200 / 3, "f1": 400 / 7, "accuracy": 400 / 6}
    )
    nothing = tagging_metrics([["O"]], [["O"]])
    assert nothing == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 100.0}
