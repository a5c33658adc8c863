"""Characters of tokens, which answers are found by, for every kind of tokenizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data.tokenization import (
    TRAINABLE_TOKENIZERS,
    load_tokenizer,
    train_tokenizer,
)
from electra_jax.tasks import LabelSpace, decode, get_task, make_features
from electra_jax.tasks.examples import QuestionExample

TEXT = "The cat sat on the mat in Paris, and the café was born where the dog sat: 中文 text."


@pytest.fixture(scope="module", params=TRAINABLE_TOKENIZERS)
def trained(request):
    return train_tokenizer(request.param, [TEXT] * 50, 120)


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(max_size=30)
    | st.text(alphabet="The cafe\u0301 é中½ﬁ\x01\u200d\ud800\xa0😀", max_size=30)
)
def test_ids_are_the_others_and_offsets_are_in_order(trained, text):
    ids, offsets = trained.encode_with_offsets(text)
    assert ids.tolist() == trained.encode_batch([text])[0]
    assert ids.dtype == np.uint16 and offsets.dtype == np.int32
    assert offsets.shape == (len(ids), 2)
    assert (np.diff(offsets, axis=0) >= 0).all() and (offsets[:, 0] <= offsets[:, 1]).all()
    assert not len(ids) or (0 <= offsets.min() and offsets.max() <= len(text))


def test_offsets_by_hand(trained):
    """Words of the text end and begin where they do, whatever their pieces are."""
    text = "The  café in Paris 😀 sat"
    _, offsets = trained.encode_with_offsets(text)
    # SentencePiece's pieces have the spaces before them.
    begins = {end - len(text[start:end].lstrip()) for start, end in offsets.tolist()}
    assert {0, 5, 10, 13, 19, 21} <= begins
    assert {3, 9, 12, 18, 20, 24} <= set(offsets[:, 1].tolist())


def test_saved_tokenizers_have_them(trained, tmp_path):
    trained.save(tmp_path)
    for one, other in zip(
        trained.encode_with_offsets(TEXT),
        load_tokenizer(tmp_path).encode_with_offsets(TEXT),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("answer", ["Paris", "café", "cat sat on", "The", "中文", "text."])
def test_answers_there_and_back(trained, answer):
    """From characters to tokens, and from a model that knows them to characters."""
    start = TEXT.index(answer)
    example = QuestionExample("q", "the", TEXT, (answer,), (start, start + len(answer)), False)
    task, space = get_task("squad"), LabelSpace("span")
    features = make_features(
        task, [example], trained, space, max_length=48, stride=10, max_question_length=9
    )
    outputs = []
    targets = features.targets
    rows = zip(targets["start_positions"], targets["end_positions"], strict=True)
    for first, last in rows:
        outputs.append({"start_logits": np.eye(48)[first], "end_logits": np.eye(48)[last]})
    assert targets["start_positions"].any()
    (prediction,) = decode(space, outputs, [example], features)
    assert prediction.answers[0].text == answer
    assert (prediction.answers[0].start, prediction.answers[0].end) == example.span
