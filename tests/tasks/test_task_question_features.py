"""Windows, answers in tokens, and the max-context rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.errors import UserError
from electra_jax.tasks import get_task, read_split
from electra_jax.tasks.examples import QuestionExample
from electra_jax.tasks.question_features import (
    Window,
    answer_tokens,
    cut_windows,
    max_context,
    question_features,
)

PAD, UNK, CLS, SEP, MASK = range(5)
CONTEXT = "The cat was born in Paris, where the dog sat on a mat."


def question(answer="Paris", context=CONTEXT, words="where was the cat born", **others):
    start = context.find(answer)
    span = None if answer is None or start < 0 else (start, start + len(answer))
    made = QuestionExample("q", words, context, (answer,), span, False)
    return made._replace(**others)


def test_a_row(tokenizer):
    features = question_features([question()], tokenizer, max_length=80)
    words, context = tokenizer.encode_batch([question().question, CONTEXT])
    (row,) = features.input_ids
    assert row.tolist() == [CLS, *words, SEP, *context, SEP]
    assert features.window_begin.tolist() == [2 + len(words)]
    assert features.windows == [Window(0, len(context))]
    start, end = (int(features.targets[f"{name}_positions"][0]) for name in ("start", "end"))
    assert row[start : end + 1].tolist() == tokenizer.encode_batch(["Paris"])[0]
    # Segment 1, as models derive it, is the window and its [SEP].
    after_first = np.cumsum(row == SEP) - (row == SEP) > 0
    assert after_first.tolist() == [False] * (2 + len(words)) + [True] * (len(context) + 1)
    assert features.targets["is_impossible"].tolist() == [0.0]
    assert {name: values.dtype.name for name, values in features.targets.items()} == {
        "start_positions": "int32", "end_positions": "int32", "is_impossible": "float32",
    }  # fmt: skip


def test_offsets_give_back_the_text(tokenizer):
    features = question_features([question()], tokenizer, max_length=80)
    texts = [CONTEXT[start:end] for start, end in features.offsets[0].tolist()]
    assert "".join(texts) == CONTEXT.replace(" ", "")
    assert features.offsets[0].dtype == np.int32


@settings(max_examples=150, deadline=None)
@given(num_tokens=st.integers(0, 300), capacity=st.integers(1, 90), stride=st.integers(1, 100))
def test_windows_and_max_context(num_tokens, capacity, stride):
    """Every token is in a window, and exactly one window sees most around it."""
    windows = cut_windows(num_tokens, capacity, stride)
    assert windows[0].first == 0 and windows[-1].first + windows[-1].length == num_tokens
    for one, other in zip(windows, windows[1:], strict=False):
        assert other.first == one.first + min(one.length, stride)
        assert one.length == capacity
    flags = max_context(windows)
    chosen = np.zeros(num_tokens, int)
    for number, (window, flag) in enumerate(zip(windows, flags, strict=True)):
        assert len(flag) == window.length
        chosen[window.first : window.first + window.length] += flag
        for place in np.flatnonzero(flag).tolist():
            token = window.first + place
            scores = [
                min(token - other.first, other.first + other.length - 1 - token)
                + 0.01 * other.length
                for other in windows
                if other.first <= token < other.first + other.length
            ]
            holding = [
                i for i, other in enumerate(windows)
                if other.first <= token < other.first + other.length
            ]  # fmt: skip
            # Ties go to the earlier window.
            assert number == holding[scores.index(max(scores))]
    assert (chosen == 1).all()


def test_max_context_by_hand():
    """Two windows of 5 that share tokens 2, 3, 4: scores there 2, 1, 0 and 0, 1, 2 (+ 0.05)."""
    flags = max_context([Window(0, 5), Window(2, 5)])
    assert flags[0].tolist() == [True, True, True, True, False]
    assert flags[1].tolist() == [False, False, True, True, True]
    # At the edge of both, the longer window sees more.
    assert max_context([Window(0, 3), Window(2, 5)])[1].tolist() == [True] * 5


def test_windows_without_the_whole_answer_point_at_the_start(tokenizer):
    context = " ".join(["cat"] * 30 + ["born", "in", "paris"] + ["dog"] * 30)
    example = question("in paris", context, "who")
    for label in ("window", "question"):
        features = question_features(
            [example],
            tokenizer,
            max_length=25,
            stride=1,
            max_question_length=9,
            no_answer_label=label,
        )
        assert len(features) > 30 and features.counts["windowed_texts"] == 1
        pieces = tokenizer.encode_batch(["in paris"])[0]
        holds = []
        for row, start, end in zip(
            features.input_ids,
            features.targets["start_positions"],
            features.targets["end_positions"],
            strict=True,
        ):
            holds.append(start > 0)
            if start:
                assert row[start : end + 1].tolist() == pieces
            else:
                assert end == 0
                row = row.tolist()
                assert all(row[i : i + len(pieces)] != pieces for i in range(len(row)))
        assert 0 < sum(holds) < len(holds)
        # The original calls windows beside the answer answerable.
        impossible = features.targets["is_impossible"].astype(bool).tolist()
        assert impossible == [label == "window" and not held for held in holds]


def test_unanswerable_questions(tokenizer):
    example = question(span=None, answers=(), is_impossible=True)
    for label in ("window", "question"):
        features = question_features([example], tokenizer, max_length=80, no_answer_label=label)
        assert features.targets["is_impossible"].tolist() == [1.0]
        assert features.targets["start_positions"].tolist() == [0]


@pytest.mark.parametrize(
    ("span", "tokens"),
    [((0, 3), (0, 0)), ((0, 4), (0, 0)), ((4, 7), (1, 1)), ((0, 7), (0, 1)), ((5, 6), (1, 1)),
     ((3, 4), None), ((7, 12), (2, 3)), ((20, 25), None)],
)  # fmt: skip
def test_answers_in_tokens(span, tokens):
    """Part of a token's characters is enough; white space alone is none."""
    offsets = np.array([[0, 3], [4, 7], [8, 11], [11, 13]], np.int32)
    assert answer_tokens(offsets, span) == tokens


def test_what_is_shortened_is_counted(tokenizer):
    long = question(words="the cat " * 50)
    features = question_features([long], tokenizer, max_length=80, max_question_length=10)
    assert features.window_begin.tolist() == [12]
    assert features.lines() == ["1 shortened questions"]
    dropped = question("\x01", "cat \x01 dog")
    features = question_features([dropped], tokenizer, max_length=80)
    assert features.lines() == ["1 answers without tokens"]
    assert features.targets["is_impossible"].tolist() == [1.0]


def test_a_text_without_tokens_still_has_a_row(tokenizer):
    features = question_features([question("x", "\x01\x02", span=None)], tokenizer, max_length=80)
    assert len(features) == 1 and features.windows == [Window(0, 0)]
    assert features.input_ids[0][-2:].tolist() == [SEP, SEP]


def test_a_text_of_a_megabyte(tokenizer):
    context = "cat dog " * 125_000 + "paris"
    features = question_features([question("paris", context)], tokenizer, max_length=384)
    assert features.example.tolist() == [0] * len(features)
    assert (features.targets["start_positions"] > 0).any()
    assert sum(int(flag.sum()) for flag in max_context(features.windows)) == len(
        features.offsets[0]
    )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"max_length": 11}, "max_length=11 is too short: use 12 or more"),
        ({"stride": 0}, "stride=0 must be positive"),
        ({"max_question_length": 0}, "max_question_length=0 must be positive"),
        ({"max_length": 70}, "max_question_length=64 leaves no room for the text in max_length=70: "
         "use 59 or less"),
        ({"no_answer_label": "row"}, "no_answer_label='row' is unknown: use one of window, "
         "question"),
    ],
)  # fmt: skip
def test_refuses(tokenizer, how, message):
    with pytest.raises(UserError) as error:
        question_features([question()], tokenizer, **{"max_length": 80, **how})
    assert str(error.value) == message


def test_real_answers(shared, real_tokenizer):
    """The text between the answer's tokens is the answer, but where a word goes on after it."""
    examples = read_split(get_task("squad"), shared("squad"), "dev").examples[:1500]
    features = question_features(examples, real_tokenizer, max_length=384)
    same = 0
    seen = set()
    for row in np.flatnonzero(features.targets["start_positions"]).tolist():
        number = int(features.example[row])
        shift = features.windows[row].first - int(features.window_begin[row])
        first, last = (
            int(features.targets[f"{name}_positions"][row]) + shift for name in ("start", "end")
        )
        start, end = int(features.offsets[number][first, 0]), int(features.offsets[number][last, 1])
        found, answer = examples[number].context[start:end], examples[number].answers[0]
        assert answer.strip() in found
        same += found == answer
        seen.add(number)
    assert len(seen) == len(examples) and same > 0.98 * len(seen)
