"""Where documents go, against the same rule written plainly."""

from __future__ import annotations

import tempfile
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data import storage
from electra_jax.data.build import parts
from electra_jax.data.build.layout import find_duplicates, lay_out, shard_pieces
from electra_jax.data.shards import concatenate, document_lengths, make_shard
from electra_jax.errors import UserError

SEP, UNK = 9, 1


class Plain(NamedTuple):
    """A document: its hash, and the lengths of its sentences."""

    hash: tuple[int, int]
    lengths: list[int]


HASHES = st.tuples(st.integers(0, 7).map(lambda i: i << 61), st.integers(0, 2))
DOCUMENTS = st.builds(Plain, HASHES, st.lists(st.integers(1, 4), min_size=1, max_size=3))
PARTS = st.lists(st.lists(DOCUMENTS, max_size=5), min_size=1, max_size=5)


def write(directory, contents):
    """Parts of these documents; a document's ids tell its number."""
    storage.make_directory(f"{directory}/{parts.DIRECTORY}")
    number = 10
    for index, documents in enumerate(contents):
        ids, unknown = [], []
        for document in documents:
            ids += [number] * sum(document.lengths)
            unknown.append(number % 3)
            number += 1
        lengths = [length for document in documents for length in document.lengths]
        counts = [len(document.lengths) for document in documents]
        shard, _ = make_shard(
            np.array(ids, np.uint16), np.array(lengths, int), np.array(counts, int), sep_id=SEP
        )
        hashes = np.array([document.hash for document in documents], np.uint64).reshape(-1, 2)
        part = parts.Part(shard, hashes, np.array(unknown, np.int32), {"read": number - 10})
        last = index == len(contents) - 1
        parts.write_part(str(directory), parts.PartName(index // 2, index % 2, last), part)
    return parts.list_parts(str(directory))


def plainly(contents, fraction, shard_tokens, keep_duplicates):
    """Lists of document numbers of each shard, by the rule in `lay_out`'s docstring."""
    documents = [document for part in contents for document in part]
    seen, kept = set(), []
    for number, document in enumerate(documents):
        if keep_duplicates or document.hash not in seen:
            kept.append(number)
        seen.add(document.hash)
    held_out = {number for number in kept if documents[number].hash[0] < fraction * 2**64}
    if fraction > 0 and not held_out and len(kept) > 1:
        held_out = {min(kept, key=lambda number: (documents[number].hash[0], number))}
    shards = []
    for split in ("train", "validation"):
        chosen = [number for number in kept if (number in held_out) == (split == "validation")]
        while chosen:
            size, shard = 0, []
            while chosen and size < shard_tokens:
                size += sum(documents[chosen[0]].lengths)
                shard.append(chosen.pop(0))
            shards.append((split, shard))
    return shards, len(documents) - len(kept), sum((n + 10) % 3 for n in kept)


@settings(deadline=None, max_examples=200)
@given(PARTS, st.sampled_from([0.0, 1e-9, 0.2, 0.5]), st.integers(1, 30), st.booleans())
def test_every_document_goes_where_the_rule_says(contents, fraction, shard_tokens, duplicates):
    with tempfile.TemporaryDirectory() as directory:
        names = write(directory, contents)
        layout = lay_out(
            directory, names, validation_fraction=fraction, shard_tokens=shard_tokens,
            keep_duplicates=duplicates,
        )  # fmt: skip
        expected, dropped, unknown = plainly(contents, fraction, shard_tokens, duplicates)
        assert (layout.duplicates, layout.unknown) == (dropped, unknown)
        assert [plan.split for plan in layout.shards] == [split for split, _ in expected]
        for plan, (_, numbers) in zip(layout.shards, expected, strict=True):
            shard = concatenate(list(shard_pieces(directory, plan, layout.held)))
            lengths = document_lengths(shard)
            assert (shard.tokens[shard.document_ends - 1] - 10).tolist() == numbers
            assert plan.num_documents == len(numbers)
            assert plan.num_tokens == lengths.sum() and plan.num_sentences == len(
                shard.sentence_ends
            )


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=6)),
    st.integers(1, 5),
)
def test_duplicates_are_found_in_any_amount_of_memory(parts_of_hashes, bucket):
    arrays = [np.array(part, np.uint64).reshape(-1, 2) for part in parts_of_hashes]
    flat = [pair for part in parts_of_hashes for pair in part]
    expected = [i for i, pair in enumerate(flat) if pair in flat[:i]]
    assert find_duplicates(arrays, len(flat), bucket).tolist() == expected


def test_parts_are_listed_in_the_order_of_the_corpus(tmp_path):
    part = parts.read_part
    names = write(tmp_path, [[Plain((1, 2), [3])]] * 5)
    assert [(name.job, name.index, name.is_last) for name in names] == [
        (0, 0, False), (0, 1, False), (1, 0, False), (1, 1, False), (2, 0, True)
    ]  # fmt: skip
    (tmp_path / "parts" / "000003-0000.npz.77.tmp").write_bytes(b"")  # A kill leaves such.
    assert parts.list_parts(str(tmp_path)) == names
    assert part(str(tmp_path), names[0]).state == {"read": 1}


def test_a_damaged_part_is_named(tmp_path):
    (name,) = write(tmp_path, [[Plain((1, 2), [3])]])
    path = tmp_path / "parts" / "000000-0000-last.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=f"{path} is damaged .*: remove it, and prepare again"):
        parts.read_hashes(str(tmp_path), name)


def test_of_parts_those_before_the_first_that_is_missing_count():
    names = [parts.PartName(0, index, index == 3) for index in range(4)]
    assert parts.whole_beginning(names) == names
    assert parts.whole_beginning([names[0], names[2], names[3]]) == names[:1]
    assert parts.whole_beginning(names[1:]) == []
    other = parts.PartName(1, 0, True)
    parts.check_complete([*names, other], 2)
    for wrong in ([*names[:2], names[3], other], [*names[:3], other], names):
        with pytest.raises(UserError, match=r"parts of job \d of the build are missing"):
            parts.check_complete(wrong, 2)
