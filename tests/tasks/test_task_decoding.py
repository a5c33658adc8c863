"""From numbers to predictions: against every rule spelled out."""

import numpy as np
import pytest

from electra_jax.data.tokenization import WordPieceTokenizer
from electra_jax.tasks.decoding import (
    decode_label_sets,
    decode_labels,
    decode_numbers,
    decode_tags,
    sigmoid,
    softmax,
)
from electra_jax.tasks.examples import QuestionExample, TaggedSentence
from electra_jax.tasks.kinds import LabelSpace, decode
from electra_jax.tasks.question_decoding import decode_answers
from electra_jax.tasks.question_features import question_features
from electra_jax.tasks.tagging_features import tagging_features

NEVER = -1e9


def test_labels():
    logits = np.array([[1.0, 3.0, 2.0], [0.0, 0.0, -1.0]], np.float32)
    found = decode_labels(logits, ("a", "b", "c"))
    assert found.labels == ["b", "a"]  # Of equal ones the first.
    np.testing.assert_allclose(found.probabilities, np.exp(logits) / np.exp(logits).sum(1)[:, None])
    space = LabelSpace("classification", ("a", "b", "c"))
    for outputs in (list(logits), [{"logits": row} for row in logits]):
        assert decode(space, outputs, [None] * 2, None).labels == ["b", "a"]


def test_numbers():
    """STS-B: 0.5 is 2.5; nothing is clipped."""
    for shape in ((3,), (3, 1)):
        outputs = np.reshape([0.0, 0.5, 1.1], shape)
        np.testing.assert_allclose(decode_numbers(outputs, (0.0, 5.0)).values, [0, 2.5, 5.5])
    np.testing.assert_allclose(decode_numbers(np.array([0.25]), (-1.0, 3.0)).values, [0.0])
    space = LabelSpace("regression", score_range=(0.0, 5.0))
    assert decode(space, [{"logits": np.array([0.5])}], [None], None).values.tolist() == [2.5]


def test_label_sets():
    logits = np.array([[0.0, -0.1, 2.0], [-1.0, -2.0, -3.0]])
    found = decode_label_sets(logits, ("a", "b", "c"))
    assert found.labels == [("a", "c"), ()]  # Half is enough.
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-logits)))
    assert decode_label_sets(logits, ("a", "b", "c"), 0.2).labels == [("a", "b", "c"), ("a",)]


def test_large_logits():
    assert softmax(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]
    assert sigmoid(np.array([1e4, -1e4, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_tags_come_from_the_row_that_predicts_the_word(tokenizer):
    names = ("B-X", "I-X", "O")
    rng = np.random.default_rng(0)
    sentences = []
    for number, count in enumerate((3, 60, 1)):
        tags = [names[i] for i in rng.integers(0, 3, count)]
        words = rng.choice(["cat", "xyzzy", "dogs"], count).tolist()
        sentences.append(TaggedSentence(str(number), tuple(words), tuple(tags)))
    features = tagging_features(sentences, tokenizer, labels=names, max_length=40)
    assert len(features) > 3
    indices, logits = [], []
    for target, word in zip(features.token_targets["labels"], features.word, strict=True):
        # Where a row does not predict, it says something else, and its padding too.
        row = np.concatenate([np.where(word >= 0, target, rng.integers(0, 3, len(word))), [1, 1]])
        indices.append(row)
        logits.append(np.eye(3)[row] * 2.0)
    expected = [sentence.tags for sentence in sentences]
    assert decode_tags(indices, features, names).tags == expected
    found = decode_tags(logits, features, names)
    assert found.tags == expected
    np.testing.assert_allclose(np.concatenate(found.probabilities), np.exp(2) / (np.exp(2) + 2))
    assert [len(p) for p in found.probabilities] == [3, 60, 1]
    space = LabelSpace("tagging", names)
    as_dicts = [{"logits": row} for row in logits]
    assert decode(space, as_dicts, sentences, features).tags == expected


def test_bioes_is_read_back(tokenizer):
    space = LabelSpace("tagging", ("B-X", "E-X", "O", "S-X"), tag_scheme="bioes")
    sentences = [TaggedSentence("0", tuple("abcd"), None)]
    features = tagging_features(sentences, tokenizer, labels=space.labels, max_length=20)
    found = decode(space, [np.array([0, 0, 1, 2, 3, 0])], sentences, features)
    assert found.tags == [("B-X", "I-X", "O", "B-X")]


# Answers.

TEXT = "the cat sat on a mat where the dog was born in Paris " * 3


@pytest.fixture(scope="module")
def questions(tokenizer):
    """Two questions about one text, in several windows each, and one about another."""
    examples = [
        QuestionExample("q0", "who sat", TEXT, ("cat",), (4, 7), False),
        QuestionExample("q1", "where was the cat born", TEXT, ("Paris",), None, False),
        QuestionExample("q2", "who", "A dog.", ("dog",), None, False),
    ]
    return examples, question_features(
        examples, tokenizer, max_length=24, stride=5, max_question_length=10
    )


def allowed_spans(features, row, max_answer_length):
    """All (start, end) in the row that count, by the rules."""
    number = features.example[row]
    same = np.flatnonzero(features.example == number).tolist()
    window, begin = features.windows[row], int(features.window_begin[row])

    def is_best(token):
        scores = {
            other: min(token - w.first, w.first + w.length - 1 - token) + 0.01 * w.length
            for other in same
            for w in [features.windows[other]]
            if w.first <= token < w.first + w.length
        }
        return row == max(scores, key=lambda other: (scores[other], -other))

    return {
        (begin + i, begin + j): (window.first + i, window.first + j)
        for i in range(window.length)
        if is_best(window.first + i)
        for j in range(i, min(window.length, i + max_answer_length))
    }


def expected_answers(examples, features, candidates, n_best):
    """Texts and scores by sorting all candidates (example, tokens, score)."""
    result = []
    for number, example in enumerate(examples):
        best = {}
        for first, last, score in candidates[number]:
            start = features.offsets[number][first][0]
            text = example.context[start : features.offsets[number][last][1]]
            best[text] = max(score, best.get(text, -np.inf))
        result.append(sorted(best.items(), key=lambda item: -item[1])[:n_best])
    return result


@pytest.mark.parametrize("max_answer_length", [1, 4, 30])
def test_plain_head_against_all_spans(questions, max_answer_length):
    examples, features = questions
    rng = np.random.default_rng(1)
    outputs, candidates = [], [[] for _ in examples]
    for row in range(len(features)):
        logits = rng.normal(size=(2, 32)) * 3  # Padded further than the row.
        outputs.append({"start_logits": logits[0], "end_logits": logits[1]})
        for (i, j), (first, last) in allowed_spans(features, row, max_answer_length).items():
            score = logits[0, i] + logits[1, j]
            candidates[int(features.example[row])].append((first, last, score))
    found = decode_answers(
        outputs, examples, features, n_best=8, max_answer_length=max_answer_length
    )
    expected = expected_answers(examples, features, candidates, 8)
    for prediction, answers, example, number in zip(
        found, expected, examples, range(3), strict=True
    ):
        assert prediction.id == example.id
        assert [answer.text for answer in prediction.answers] == [text for text, _ in answers]
        np.testing.assert_allclose(
            [answer.score for answer in prediction.answers], [score for _, score in answers]
        )
        for answer in prediction.answers:
            assert example.context[answer.start : answer.end] == answer.text
            assert answer.score == pytest.approx(answer.start_score + answer.end_score)
        scores = np.array([answer.score for answer in prediction.answers])
        np.testing.assert_allclose(
            [answer.probability for answer in prediction.answers],
            np.exp(scores) / np.exp(scores).sum(),
        )
        nulls = [
            outputs[row]["start_logits"][0] + outputs[row]["end_logits"][0]
            for row in np.flatnonzero(features.example == number)
        ]
        assert prediction.null_odds == pytest.approx(min(nulls) - scores[0])


@pytest.mark.parametrize("answerability", [True, False])
def test_joint_head_against_all_pairs(questions, answerability):
    examples, features = questions
    rng = np.random.default_rng(2)
    outputs, candidates = [], [[] for _ in examples]
    for row in range(len(features)):
        allowed = allowed_spans(features, row, 6)
        starts = rng.permutation(30)[:12]
        ends = np.stack([rng.permutation(30)[:12] for _ in starts])
        start_scores, end_scores = rng.normal(size=12), rng.normal(size=(12, 12))
        outputs.append({
            "starts": starts, "start_log_probs": start_scores,
            "ends": ends, "end_log_probs": end_scores,
            "null_log_probs": np.float32(row / 8),
            **({"no_answer_logits": np.float32(row / 4 - 1)} if answerability else {}),
        })  # fmt: skip
        for i, start in enumerate(starts.tolist()):
            for j, end in enumerate(ends[i].tolist()):
                if (start, end) in allowed:
                    score = start_scores[i] + end_scores[i, j]
                    place = int(features.example[row])
                    candidates[place].append((*allowed[start, end], score))
    found = decode_answers(outputs, examples, features, max_answer_length=6)
    expected = expected_answers(examples, features, candidates, 20)
    for number, (prediction, answers) in enumerate(zip(found, expected, strict=True)):
        assert [answer.text for answer in prediction.answers] == [text for text, _ in answers]
        first_row = int(np.flatnonzero(features.example == number)[0])
        odds = first_row / 4 - 1 if answerability else first_row / 8 - answers[0][1]
        assert prediction.null_odds == pytest.approx(odds)


def test_no_candidate_at_all(questions):
    """All beams at [CLS]."""
    examples, features = questions
    outputs = [
        {"starts": np.zeros(2, int), "ends": np.zeros((2, 2), int),
         "start_log_probs": np.zeros(2), "end_log_probs": np.full((2, 2), NEVER),
         "null_log_probs": np.float32(-1.0)}
        for _ in range(len(features))
    ]  # fmt: skip
    for prediction in decode_answers(outputs, examples, features):
        assert prediction.answers == [("", 0, 0, 0.0, 0.0, 0.0, 1.0)]
        assert prediction.null_odds == -1.0


def test_text_comes_from_the_context(tokenizer):
    """Case, accents, and what lies between the words, as they stand there."""
    context = "In «Café  Möbius», Paris."
    example = QuestionExample("q", "where", context, ("x",), None, False)
    features = question_features([example], tokenizer, max_length=40, max_question_length=9)
    offsets = features.offsets[0].tolist()
    first = next(i for i, (start, _) in enumerate(offsets) if context[start] == "C")
    last = next(i for i, (_, end) in enumerate(offsets) if context[end - 1] == "s")
    begin = int(features.window_begin[0])
    outputs = {"start_logits": np.full(40, -9.0), "end_logits": np.full(40, -9.0)}
    outputs["start_logits"][begin + first] = outputs["end_logits"][begin + last] = 9.0
    (prediction,) = decode_answers([outputs], [example], features)
    assert prediction.answers[0].text == "Café  Möbius"


@pytest.mark.parametrize("accent", ["\u0301", "\u0301\u0323"])
def test_accents_that_the_tokenizer_drops_stay_with_their_letter(tmp_path, accent):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwho\ncafe\nin\n")
    tokenizer = WordPieceTokenizer.from_vocab(path)
    context = f"in cafe{accent} in"
    example = QuestionExample("q", "who", context, ("x",), (3, len(context) - 3), False)
    features = question_features([example], tokenizer, max_length=20, max_question_length=5)
    assert features.input_ids[0].tolist() == [2, 5, 3, 7, 6, 7, 3]
    assert features.targets["end_positions"].tolist() == [4]
    logits = np.eye(7)[4]
    outputs = [{"start_logits": logits, "end_logits": logits}]
    (prediction,) = decode_answers(outputs, [example], features)
    assert prediction.answers[0].text == f"cafe{accent}"


def test_gold_spans_come_back_exactly(shared, real_tokenizer):
    """The whole way with a model that knows: windows, targets, batches' order, decoding."""
    from electra_jax.tasks import EvaluationBatches, get_task, read_split, score
    from electra_jax.tasks.kinds import make_features

    task = get_task("squad")
    examples = read_split(task, shared("squad"), "dev").examples[:400]
    space = LabelSpace("span")
    features = make_features(task, examples, real_tokenizer, space, max_length=128, stride=32)
    assert len(features) > 600
    batches = EvaluationBatches(features, batch_size=16)

    def know(batch):
        start_logits = np.full(batch["input_ids"].shape, -9.0)
        end_logits = start_logits.copy()
        rows = np.arange(16)
        start_logits[rows, batch["start_positions"]] = 5.0
        end_logits[rows, batch["end_positions"]] = 5.0
        return {"start_logits": start_logits, "end_logits": end_logits,
                "no_answer_logits": batch["is_impossible"]}  # fmt: skip

    outputs = batches.restore([know(batches.batch_at(i)) for i in range(batches.num_batches)])
    predictions = decode(space, outputs, examples, features)
    found = score(task, space, examples, predictions)
    assert found["exact_match"] > 98 and found["f1"] > 98
    assert max(prediction.null_odds for prediction in predictions) == 0.0
    for example, prediction in zip(examples, predictions, strict=True):
        text, (start, end) = prediction.answers[0].text, example.span
        if text != example.answers[0]:
            # The answer is said to be a part of a word: the "8" of "18".
            around = example.context[start - 1] + example.context[end]
            assert any(map(str.isalnum, around)) and example.answers[0] in text
