"""Rows of token ids: against the rules of the original, written out token by token."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.errors import UserError
from electra_jax.tasks import get_task, make_features, own_task, read_split
from electra_jax.tasks.examples import TaggedSentence, TextExample
from electra_jax.tasks.features import text_features
from electra_jax.tasks.kinds import LabelSpace
from electra_jax.tasks.tagging_features import cut_windows, owned, tagging_features

PAD, UNK, CLS, SEP, MASK = range(5)


def pairs(*texts, label="0"):
    return [TextExample(str(i), a, b, label) for i, (a, b) in enumerate(texts)]


def features_of(examples, tokenizer, **how):
    how = {"kind": "classification", "max_length": 64, "labels": ("0", "1"), **how}
    return text_features(examples, tokenizer, **how)


def test_rows(tokenizer):
    examples = pairs(("the cat", None), ("the cat", "sat"), ("a", ""), ("[SEP] a", "b"))
    features = features_of(examples, tokenizer)
    ids = [tokenizer.encode_batch([text])[0] for text in ("the cat", "sat", "a", "[SEP] a", "b")]
    rows = [row.tolist() for row in features.input_ids]
    assert rows[0] == [CLS, *ids[0], SEP]
    assert rows[1] == [CLS, *ids[0], SEP, *ids[1], SEP]
    assert rows[2] == [CLS, *ids[2], SEP]
    # A text that spells a special token has none, so the first [SEP] ends the first text.
    assert SEP not in ids[3] and rows[3] == [CLS, *ids[3], SEP, *ids[4], SEP]
    assert all(row.dtype == np.uint16 for row in features.input_ids)
    assert features.lengths.tolist() == list(map(len, rows)) and len(features) == 4
    assert features.counts == {"truncated_rows": 0} and features.lines() == []


def truncate_as_the_original(a, b, most):
    """Pops from the longer one, from b if they are equally long."""
    while len(a) + len(b) > most:
        (a if len(a) > len(b) else b).pop()
    return a, b


@settings(max_examples=150, deadline=None)
@given(a=st.integers(1, 40), b=st.integers(0, 40), max_length=st.integers(8, 50))
def test_truncation_is_the_originals(tokenizer, a, b, max_length):
    letters = [chr(97 + i % 26) for i in range(40)]
    texts = " ".join(letters[:a]), " ".join(letters[:b])
    features = features_of(pairs(texts), tokenizer, max_length=max_length)
    first, second = (ids[:] for ids in tokenizer.encode_batch(list(texts)))
    if b:
        first, second = truncate_as_the_original(first, second, max_length - 3)
        expected = [CLS, *first, SEP, *second, SEP]
    else:
        expected = [CLS, *first[: max_length - 2], SEP]
    assert features.input_ids[0].tolist() == expected
    is_cut = a + b + (3 if b else 2) > max_length
    assert features.counts["truncated_rows"] == is_cut
    assert features.lines() == (["1 truncated rows"] if is_cut else [])


def test_segments_by_the_first_separator(tokenizer):
    """What models derive: 0 up to and with the first [SEP], 1 after it."""
    (row,) = features_of(pairs(("the cat", "sat on")), tokenizer).input_ids
    a, b = (len(ids) for ids in tokenizer.encode_batch(["the cat", "sat on"]))
    derived = np.cumsum(row == SEP) - (row == SEP) > 0
    assert derived.tolist() == [False] * (1 + a + 1) + [True] * (b + 1)


def test_both_orders(tokenizer):
    """MRPC and STS-B: the second copy has a and b exchanged, and the same target."""
    examples = pairs(("the cat", "sat"), ("a", "dog"), ("alone", None))
    examples[1] = examples[1]._replace(label="1")
    features = features_of(examples, tokenizer, both_orders=True)
    swapped = pairs(("sat", "the cat"), ("dog", "a"))
    expected = features_of([*examples, *swapped], tokenizer)
    assert [row.tolist() for row in features.input_ids] == [
        row.tolist() for row in expected.input_ids
    ]
    assert features.example.tolist() == [0, 1, 2, 0, 1]
    assert features.targets["labels"].tolist() == [0, 1, 0, 0, 1]
    task = get_task("mrpc")
    space = LabelSpace("classification", task.labels)
    sizes = [
        len(make_features(task, examples[:2], tokenizer, space, training=training, **how))
        for training, how in ((True, {}), (False, {}), (True, {"double_unordered": False}))
    ]
    assert sizes == [4, 2, 2]


def test_targets(tokenizer):
    examples = [TextExample("0", "a", None, label) for label in ("yes", "no", None)]
    labels = features_of(examples, tokenizer, labels=("no", "yes")).targets["labels"]
    assert labels.dtype == np.int32 and labels.tolist() == [1, 0, 0]
    examples = [TextExample("0", "a", None, label) for label in (0.0, 2.5, 5.0, None)]
    how = {"kind": "regression", "score_range": (0.0, 5.0)}
    labels = features_of(examples, tokenizer, **how).targets["labels"]
    assert labels.dtype == np.float32 and labels.tolist() == [0, 0.5, 1, 0]
    examples = [TextExample("0", "a", None, label) for label in (("c", "a"), (), None)]
    labels = features_of(examples, tokenizer, kind="multilabel", labels="abc").targets["labels"]
    assert labels.dtype == np.float32 and labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_length_is_checked(tokenizer):
    with pytest.raises(UserError, match="max_length=7 is too short: use 8 or more"):
        features_of(pairs(("a", "b")), tokenizer, max_length=7)


def test_a_text_of_a_megabyte(tokenizer):
    features = features_of(pairs(("cat " * 250_000, "a")), tokenizer)
    assert features.lengths.tolist() == [64] and features.counts["truncated_rows"] == 1


# Tagging.


def sentence(words, tags=None):
    return TaggedSentence("0", tuple(words), None if tags is None else tuple(tags))


def tagging(sentences, tokenizer, max_length=64, labels=("B-X", "I-X", "O")):
    return tagging_features(sentences, tokenizer, labels=labels, max_length=max_length)


def test_labels_stand_at_first_pieces(tokenizer):
    words, tags = ["The", "cats", "sat", "\x01", "xyz."], ["O", "B-X", "O", "I-X", "I-X"]
    features = tagging([sentence(words, tags)], tokenizer)
    pieces = [tokenizer.encode_batch([word])[0] or [UNK] for word in words]
    assert max(map(len, pieces)) > 1 and pieces[3] == [UNK]
    assert features.input_ids[0].tolist() == [CLS, *sum(pieces, []), SEP]
    expected, numbers = [-1], [-1]
    for number, (piece, tag) in enumerate(zip(pieces, tags, strict=True)):
        rest = [-1] * (len(piece) - 1)
        expected += [("B-X", "I-X", "O").index(tag), *rest]
        numbers += [number, *rest]
    assert features.token_targets["labels"][0].tolist() == [*expected, -1]
    assert features.word[0].tolist() == [*numbers, -1]
    assert features.token_targets["labels"][0].dtype == np.int32
    # Nothing but padding tells segments apart: no [SEP] before the last.
    assert (features.input_ids[0] == SEP).sum() == 1


@settings(max_examples=120, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    capacity=st.integers(9, 40),
)
def test_every_word_is_predicted_once_where_it_sees_most(lengths, capacity):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    windows = cut_windows(starts, capacity)
    predicted = owned(starts, windows)
    assert windows[0][0] == 0 and windows[-1][1] == len(lengths)
    for begin, end in windows:
        assert 0 < starts[end] - starts[begin] <= capacity
    places = [word for first, last in predicted for word in range(first, last)]
    assert places == list(range(len(lengths)))
    for number, ((begin, end), (first, last)) in enumerate(zip(windows, predicted, strict=True)):
        assert begin <= first <= last <= end
        for word in range(first, last):

            def context(window, word=word):
                """Tokens on the poorer side; the sentence's own ends are no loss."""
                begin, end = window
                before = starts[word] - starts[begin] if begin else np.inf
                after = starts[end] - starts[word + 1] if end < len(lengths) else np.inf
                return min(before, after)

            holding = [window for window in windows if window[0] <= word < window[1]]
            assert len(holding) <= 2
            assert context(windows[number]) == max(map(context, holding))


def test_windows_of_words_by_hand():
    """Nine words of a token, five a window. Words 3 and 4 are in the first two windows: 3 has one
    token after it in the one and none before it in the other; 4 has one before it there."""
    starts = np.arange(10)
    windows = cut_windows(starts, 5)
    assert windows == [(0, 5), (3, 8), (6, 9)]
    assert owned(starts, windows) == [(0, 4), (4, 7), (7, 9)]
    # Words of two tokens in windows of three: of equal contexts the earlier window has it.
    assert owned(np.array([0, 2, 4, 6]), [(0, 2), (1, 3)]) == [(0, 2), (2, 3)]


def test_long_sentences_are_never_cut(tokenizer):
    words = [f"{letter}cat" for letter in "abcdefghijklmnopqrstuvwxyz" * 5]
    tags = ["B-X" if i % 3 else "O" for i in range(len(words))]
    features = tagging([sentence(["a"], ["O"]), sentence(words, tags)], tokenizer, max_length=50)
    assert features.lengths.max() <= 50 and features.example[0] == 0
    assert set(features.example.tolist()) == {0, 1}
    found = {}
    rows = zip(features.word, features.token_targets["labels"], features.example, strict=True)
    for word, target, number in rows:
        np.testing.assert_array_equal(word >= 0, target >= 0)
        for place in np.flatnonzero(word >= 0):
            if number == 1:
                assert int(word[place]) not in found
                found[int(word[place])] = ("B-X", "I-X", "O")[target[place]]
    assert [found[i] for i in range(len(words))] == tags
    assert features.counts == {"split_sentences": 1, "shortened_words": 0, "unknown_tags": 0}


def test_words_longer_than_a_row_are_shortened_and_counted(tokenizer):
    features = tagging([sentence(["cat", "x" * 90, "dog"], "OOO")], tokenizer, max_length=30)
    assert features.counts["shortened_words"] == 1
    predicted = np.concatenate([word[word >= 0] for word in features.word])
    assert sorted(predicted.tolist()) == [0, 1, 2] and features.lengths.max() <= 30


def test_tags_that_training_does_not_know(tokenizer):
    features = tagging([sentence(["cat", "dog"], ["B-LST", "O"])], tokenizer)
    assert features.token_targets["labels"][0].tolist() == [-1, -1, 2, -1]
    assert features.word[0].tolist() == [-1, 0, 1, -1]
    assert features.lines() == ["1 unknown tags"]
    unlabelled = tagging([sentence(["cat", "dog"])], tokenizer)
    assert unlabelled.token_targets["labels"][0].tolist() == [-1] * 4
    assert unlabelled.word[0].tolist() == [-1, 0, 1, -1]


def test_bioes_tags_are_rewritten(tokenizer):
    task = own_task("tagging", tag_scheme="bioes", labels=["B-X", "E-X", "O", "S-X"])
    space = LabelSpace("tagging", task.labels, tag_scheme="bioes")
    examples = [sentence("abcd", ["B-X", "I-X", "O", "B-X"])]
    features = make_features(task, examples, tokenizer, space)
    assert features.token_targets["labels"][0].tolist() == [-1, 0, 1, 2, 3, -1]


def test_real_sentences(shared, real_tokenizer):
    """All words of CoNLL-2000's test set, each in one place, at either length."""
    task = get_task("chunking")
    test = read_split(task, shared("conll2000"), "test").examples
    labels = tuple(sorted({tag for one in test for tag in one.tags}))
    for max_length in (24, 256):
        space = LabelSpace("tagging", labels)
        features = make_features(task, test, real_tokenizer, space, max_length=max_length)
        assert sum(int((word >= 0).sum()) for word in features.word) == 47377
        assert (features.counts["split_sentences"] > 0) == (max_length == 24)
