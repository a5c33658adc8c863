"""Shards: laid out, selected from, joined and written as the documents say."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_jax.data.shards import (
    Shard,
    concatenate,
    document_lengths,
    make_shard,
    select_documents,
    sentences_of_documents,
    write_shard,
)
from electra_jax.data.tokenization.interface import id_dtype

SEP = 9
# Documents as lists of sentences, which are lists of ids; any of them may be empty.
DOCUMENTS = st.lists(
    st.lists(st.lists(st.integers(10, 99), max_size=3), min_size=1, max_size=4), max_size=5
)


def shard_of(documents) -> tuple[Shard, np.ndarray]:
    sentences = [sentence for document in documents for sentence in document]
    return make_shard(
        np.array([i for sentence in sentences for i in sentence], np.uint16),
        np.array([len(sentence) for sentence in sentences], np.int64),
        np.array([len(document) for document in documents], np.int64),
        sep_id=SEP,
    )


def documents_in(shard: Shard):
    """The other way, one token at a time; without what is empty."""
    documents, document, sentence = [], [], []
    for i, token in enumerate(shard.tokens.tolist()):
        if i in shard.document_ends:
            assert token == SEP and not sentence
            documents.append(document)
            document = []
        else:
            sentence.append(token)
            if i + 1 in shard.sentence_ends:
                document.append(sentence)
                sentence = []
    assert not document and not sentence
    return documents


def without_empty(documents):
    kept = [[sentence for sentence in document if sentence] for document in documents]
    return [document for document in kept if document]


def test_layout():
    shard, kept = shard_of([[[5, 6], [7]], [[], []], [[8]]])
    assert shard.tokens.dtype == np.uint16 and shard.tokens.tolist() == [5, 6, 7, SEP, 8, SEP]
    assert shard.sentence_ends.dtype == np.int64 and shard.sentence_ends.tolist() == [2, 3, 5]
    assert shard.document_ends.dtype == np.int64 and shard.document_ends.tolist() == [3, 5]
    assert kept.tolist() == [True, False, True]
    assert document_lengths(shard).tolist() == [3, 1]
    assert sentences_of_documents(shard).tolist() == [2, 1]


@given(DOCUMENTS, DOCUMENTS, st.randoms())
def test_laid_out_selected_and_joined(first, second, random):
    shards = [shard_of(first)[0], shard_of(second)[0]]
    assert documents_in(shards[0]) == without_empty(first)
    joined = concatenate(shards)
    documents = without_empty(first) + without_empty(second)
    assert documents_in(joined) == documents
    chosen = np.array([random.random() < 0.5 for _ in documents], bool)
    expected = [document for document, keep in zip(documents, chosen, strict=True) if keep]
    assert documents_in(select_documents(joined, chosen)) == expected


def test_refuses_documents_that_do_not_add_up():
    for ids, lengths, numbers in ([1, 2], [1], [1]), ([1], [1], [2]):
        with pytest.raises(ValueError, match="divided completely into sentences"):
            make_shard(np.array(ids), np.array(lengths), np.array(numbers), sep_id=SEP)


@pytest.mark.parametrize("size", [65_535, 65_536])
def test_written_in_pieces_is_written_whole(tmp_path, size):
    documents = [[[5, 6], [7]], [[8]], [[5]]]
    whole = shard_of(documents)[0]
    numbers = {"num_tokens": 5, "num_sentences": 4, "num_documents": 3}
    dtype = id_dtype(size)
    assert dtype == (np.uint16 if size < 65_536 else np.uint32)
    pieces = [shard_of(documents[:2])[0], shard_of(documents[2:])[0]]
    entries = [
        write_shard(str(tmp_path), f"train-{i:05d}", parts, **numbers, dtype=dtype)
        for i, parts in enumerate(([whole], pieces))
    ]
    assert entries[0]["num_documents"] == 3 and entries[0]["name"] == "train-00000"
    for part, array in whole._asdict().items():
        names = [f"train-{i:05d}.{part}.npy" for i in range(2)]
        contents = [(tmp_path / name).read_bytes() for name in names]
        assert contents[0] == contents[1]
        described = entries[0]["files"][names[0]]
        assert described == entries[1]["files"][names[1]]
        assert described["size"] == len(contents[0])
        assert described["sha256"] == hashlib.sha256(contents[0]).hexdigest()
        loaded = np.load(tmp_path / names[0], mmap_mode="r")
        assert loaded.dtype == (dtype if part == "tokens" else np.int64)
        assert loaded.tolist() == array.tolist()


def test_a_shard_with_pieces_missing_leaves_no_file(tmp_path):
    piece = shard_of([[[5]]])[0]
    with pytest.raises(ValueError, match="elements of a shard are missing"):
        write_shard(
            str(tmp_path), "train-00000", [piece],
            num_tokens=2, num_sentences=2, num_documents=2, dtype=np.uint16,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
