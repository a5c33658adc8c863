"""Scores of answers by the official scripts' definitions: adversarial cases, worked out by hand."""

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.examples import QuestionExample
from electra_jax.tasks.squad_metrics import (
    exact_match,
    f1_v1,
    f1_v2,
    normalize_answer,
    squad_v1_metrics,
    squad_v2_metrics,
)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Cat!", "cat"),
        ("a an the", ""),
        ("?!...", ""),
        ("", ""),
        # Punctuation goes first: what is left is an article, or one word.
        ("A.N.", ""),
        ("the-cat", "thecat"),
        ("(the) cat", "cat"),
        # An article is a whole word; a letter of any script is part of it.
        ("another theatre", "another theatre"),
        ("thé à la crème", "thé à la crème"),
        # Only ASCII punctuation goes.
        ("“Paris”", "“paris”"),
        ("a–b", "–b"),
        ("’t", "’t"),
        # All Unicode spaces are spaces.
        ("New\u00a0York\u2003City", "new york city"),
        ("ÜBER", "über"),
        ("$1,000.50", "100050"),
        ("the_cat", "thecat"),
        ("İ", "i̇"),
    ],
)
def test_normalization(text, normalized):
    assert normalize_answer(text) == normalized


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "v1", "v2"),
    [
        ("Paris", "paris.", 1, 1, 1),
        ("", "Paris", 0, 0, 0),
        # Nothing left of either: they are equal, but 1.1 counts common words.
        ("the", "a", 1, 0, 1),
        ("?", "", 1, 0, 1),
        ("", "", 1, 0, 1),
        ("", "the", 1, 0, 1),
        ("cat", "the", 0, 0, 0),
        # Words count as often as both have them: 2 of 3 and 2 of 3.
        ("cat cat dog", "cat dog dog", 0, 2 / 3, 2 / 3),
        # "a" is no word: 2 of 3 and 2 of 2.
        ("a b c d", "b c", 0, 0.8, 0.8),
        ("“Paris”", "Paris", 0, 0, 0),
        ("New\u00a0York", "the new york", 1, 1, 1),
        ("the Cat", "cat the a an", 1, 1, 1),
        # 1 of 1 and 1 of 4.
        ("Obama", "President Barack H. Obama", 0, 2 * 1 * 0.25 / 1.25, 2 * 1 * 0.25 / 1.25),
    ],
)
def test_one_pair(prediction, gold, exact, v1, v2):
    assert exact_match(prediction, gold) == exact
    assert f1_v1(prediction, gold) == v1
    assert f1_v2(prediction, gold) == v2


def question(identifier, *answers):
    return QuestionExample(identifier, "?", "text", answers, None, not answers)


def test_v1_by_hand():
    """Each measure takes its own best gold answer; a question without prediction counts 0."""
    examples = [
        question("1", "cat", "the big cat"),  # exact with the first
        question("2", "cat", "big red cat", "dog"),  # F1 0.8 with the second
        question("3", "the"),  # exact 1, F1 0
        question("4", "cat"),
    ]
    predictions = {"1": "Cat", "2": "red cat", "3": "a", "9": "not asked"}
    found = squad_v1_metrics(examples, predictions)
    assert found == pytest.approx({"exact_match": 100 * 2 / 4, "f1": 100 * 1.8 / 4})
    skipped = squad_v1_metrics(examples, predictions, skip_unanswered=True)
    assert skipped == pytest.approx({"exact_match": 100 * 2 / 3, "f1": 100 * 1.8 / 3})
    assert squad_v1_metrics([], {}) == {"exact_match": 0.0, "f1": 0.0}


V2 = [question("1", "Paris"), question("2", "the cat sat", "?"), question("3"), question("4")]
TEXTS = {"1": "Paris", "2": "cat", "3": "dog", "4": ""}
ODDS = {"1": -5.0, "2": -1.0, "3": 2.0, "4": -4.0}


def test_v2_by_hand():
    """The odds of 2 and 3 are above -2.75. From "all unanswerable", 2 points, in order of odds:
    question 1 gains 1, 4 nothing, 2 gains 0 (exact) or 2/3 (F1: 1 of 1 and 1 of 2), 3 loses 1."""
    found = squad_v2_metrics(V2, TEXTS, ODDS)
    assert found == pytest.approx(
        {
            "exact": 75.0, "f1": 75.0, "total": 4,
            "HasAns_exact": 50.0, "HasAns_f1": 50.0, "HasAns_total": 2,
            "NoAns_exact": 100.0, "NoAns_f1": 100.0, "NoAns_total": 2,
            "best_exact": 75.0, "best_exact_thresh": -5.0,
            "best_f1": 100 * (3 + 2 / 3) / 4, "best_f1_thresh": -1.0,
        }
    )  # fmt: skip
    assert list(found)[:3] == ["exact", "f1", "total"]


def test_v2_threshold_is_exclusive():
    at = squad_v2_metrics(V2, TEXTS, ODDS, threshold=-1.0)
    # Question 2 keeps its answer.
    assert (at["exact"], at["f1"]) == pytest.approx((75.0, 100 * (3 + 2 / 3) / 4))


def test_v2_without_odds():
    found = squad_v2_metrics(V2, TEXTS)
    assert found == pytest.approx(
        {
            "exact": 50.0, "f1": 100 * (2 + 2 / 3) / 4, "total": 4,
            "HasAns_exact": 50.0, "HasAns_f1": 100 * (1 + 2 / 3) / 2, "HasAns_total": 2,
            "NoAns_exact": 50.0, "NoAns_f1": 50.0, "NoAns_total": 2,
        }
    )  # fmt: skip


def test_v2_gold_answers_of_which_nothing_is_left():
    """They do not count, and if there are no others an empty answer is right."""
    examples = [question("1", "the", "cat"), question("2", "a", "?")]
    found = squad_v2_metrics(examples, {"1": "a", "2": ""})
    assert (found["exact"], found["f1"]) == (50.0, 50.0)
    found = squad_v2_metrics(examples, {"1": "a", "2": "the"})
    assert (found["exact"], found["f1"]) == (50.0, 50.0)


def test_v2_splits_that_are_not_there():
    only = squad_v2_metrics([V2[0]], TEXTS, ODDS)
    assert not [name for name in only if name.startswith("NoAns")]
    assert only["best_exact"] == 100 and only["best_exact_thresh"] == -5.0
    # Never better than "all unanswerable": the threshold stays 0.
    only = squad_v2_metrics([V2[2]], TEXTS, ODDS)
    assert only["best_exact"] == 100 and only["best_exact_thresh"] == 0.0


def test_v2_needs_all_odds():
    with pytest.raises(UserError, match="null_odds lack question '4': give those of all predict"):
        squad_v2_metrics(V2, TEXTS, {"1": 0.0, "2": 0.0, "3": 0.0})


def test_v2_thresholds_by_trying_all():
    rng = np.random.default_rng(0)
    words = np.array("cat dog sat mat".split())
    for _ in range(30):
        examples, texts, odds = [], {}, {}
        for i in range(25):
            golds = [" ".join(rng.choice(words, rng.integers(1, 4))) for _ in range(2)]
            examples.append(question(str(i), *(golds if rng.random() < 0.6 else ())))
            count = rng.integers(0 if rng.random() < 0.3 else 1, 4)
            texts[str(i)] = " ".join(rng.choice(words, count))
            odds[str(i)] = float(rng.normal())
        found = squad_v2_metrics(examples, texts, odds)
        for name in ("exact", "f1"):
            tried = [
                squad_v2_metrics(examples, texts, odds, threshold=threshold)[name]
                for threshold in (-np.inf, *sorted(odds.values()))
            ]
            # The search takes an empty prediction for a question without answer to be its null.
            assert found[f"best_{name}"] == pytest.approx(max(tried))


def test_v2_equal_odds_are_taken_in_the_files_order():
    """As the script's stable sort does, even if no threshold could tell the two apart."""
    examples = [question("1", "cat"), question("2")]
    texts = {"1": "cat", "2": "dog"}
    first = squad_v2_metrics(examples, texts, {"1": 0.0, "2": 0.0})
    second = squad_v2_metrics(examples, texts, {"2": 0.0, "1": 0.0})
    assert (first["best_exact"], second["best_exact"]) == (100.0, 50.0)
