"""What the networks are shown, against rules written again in NumPy."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from electra_jax import corruption
from electra_jax.corruption import MaskedBatch, max_masked_positions

PAD, UNK, CLS, SEP, MASK = range(5)
LENGTH, MAX_MASKED = 128, 19


def rows_of_all_lengths():
    """Row n holds n + 1 tokens: [CLS] first, [SEP] in the middle and last."""
    rng = np.random.default_rng(0)
    ids = np.full((LENGTH, LENGTH), PAD, np.int32)
    for row in range(LENGTH):
        tokens = rng.integers(UNK, 50, row + 1)
        tokens[tokens == MASK] = 10
        tokens[row // 2], tokens[-1], tokens[0] = SEP, SEP, CLS
        ids[row, : row + 1] = tokens
    return ids


@functools.partial(jax.jit, static_argnames=("mask_prob", "max_masked"))
def mask_tokens(key, ids, row_ids, mask_prob=0.15, max_masked=MAX_MASKED):
    masked = corruption.mask_tokens(
        key,
        ids,
        row_ids,
        mask_prob=mask_prob,
        max_masked=max_masked,
        pad_id=PAD,
        cls_id=CLS,
        sep_id=SEP,
        mask_id=MASK,
    )
    return masked


@pytest.fixture(scope="module")
def masked():
    """Every length at once, as NumPy arrays."""
    ids = rows_of_all_lengths()
    return jax.tree.map(np.asarray, mask_tokens(jax.random.key(0), ids, np.arange(LENGTH)))


def is_candidate(ids):
    return ~np.isin(ids, (PAD, CLS, SEP, MASK))


@pytest.mark.parametrize(
    ("seq_len", "mask_prob", "slots"),
    [(128, 0.15, 19), (512, 0.15, 79), (512, 0.25, 130), (128, 0.25, 32), (8, 0.01, 1)],
)
def test_slots_for_masked_positions(seq_len, mask_prob, slots):
    assert max_masked_positions(seq_len, mask_prob) == slots


def test_number_of_chosen_positions_is_the_rounded_share_of_the_tokens(masked):
    ids = masked.input_ids
    tokens, candidates = (ids != PAD).sum(1), is_candidate(ids).sum(1)
    wanted = np.round(np.float32(tokens) * np.float32(0.15))  # halves to even: 10 * 0.15 is 2
    wanted = np.minimum(np.clip(wanted, 1, MAX_MASKED), candidates)
    np.testing.assert_array_equal(masked.chosen.sum(1), wanted)
    # Spelled out, at the edges: tokens of the row, positions chosen.
    by_length = dict(zip(tokens.tolist(), masked.chosen.sum(1).tolist(), strict=True))
    assert by_length[1] == by_length[2] == 0  # nothing but special tokens
    assert by_length[4] == 1 and by_length[10] == 2 and by_length[30] == 4  # 0.6, 1.5, 4.5
    assert by_length[127] == by_length[128] == 19


def test_no_more_positions_than_slots():
    ids = np.full((2, 64), 7, np.int32)
    masked = mask_tokens(jax.random.key(0), ids, np.arange(2), mask_prob=0.5, max_masked=5)
    assert masked.chosen.shape == (2, 5) and np.asarray(masked.chosen).all()


def test_chosen_positions_are_distinct_and_never_special_or_padding(masked):
    for ids, positions, chosen in zip(
        masked.input_ids, masked.positions, masked.chosen, strict=True
    ):
        assert is_candidate(ids[positions[chosen]]).all()
        assert np.unique(positions[chosen]).size == chosen.sum()
        assert (positions[~chosen] == 0).all()


def test_an_unknown_token_may_be_chosen_and_a_mask_token_may_not():
    ids = np.array([[CLS, MASK, UNK, MASK, SEP, PAD, PAD, PAD]], np.int32)
    masked = mask_tokens(jax.random.key(0), ids, np.arange(1), mask_prob=0.5, max_masked=4)
    assert np.asarray(masked.chosen).tolist() == [[True, False, False, False]]
    assert np.asarray(masked.positions)[0, 0] == 2


def test_labels_and_visible_tokens_are_the_original_ones(masked):
    ids = masked.input_ids
    np.testing.assert_array_equal(masked.labels, np.take_along_axis(ids, masked.positions, 1))
    np.testing.assert_array_equal(ids, rows_of_all_lengths())
    np.testing.assert_array_equal(masked.attention_mask, ids != PAD)
    at_chosen = np.zeros(ids.shape, bool)
    rows, slots = np.nonzero(masked.chosen)
    at_chosen[rows, masked.positions[rows, slots]] = True
    changed = masked.masked_ids != ids
    assert changed.any() and not changed[~at_chosen].any()
    assert (masked.masked_ids[changed] == MASK).all()


def test_positions_are_uniform_and_85_percent_are_hidden():
    rows = 4000
    ids = np.full(32, 9, np.int32)
    ids[0], ids[12], ids[25], ids[26:] = CLS, SEP, SEP, PAD
    masked = mask_tokens(jax.random.key(5), np.tile(ids, (rows, 1)), np.arange(rows), max_masked=5)
    chosen, positions = np.asarray(masked.chosen), np.asarray(masked.positions)
    assert (chosen.sum(1) == 4).all()  # 26 * 0.15 = 3.9
    counts = np.bincount(positions[chosen], minlength=32)[is_candidate(ids)]
    assert counts.sum() == chosen.sum()
    # Without replacement counts vary less than a chi-square's, so only large values tell.
    assert stats.chisquare(counts).pvalue > 1e-3
    hidden = (np.asarray(masked.masked_ids) == MASK).sum()
    deviation = np.sqrt(chosen.sum() * 0.85 * 0.15)
    assert abs(hidden - 0.85 * chosen.sum()) < 4 * deviation


def test_masks_of_a_row_do_not_depend_on_its_neighbours(masked):
    again = mask_tokens(
        jax.random.key(0), rows_of_all_lengths()[[90, 3, 60, 127]], np.array([90, 3, 60, 127])
    )
    for name in ("positions", "masked_ids", "chosen"):
        np.testing.assert_array_equal(getattr(again, name), getattr(masked, name)[[90, 3, 60, 127]])


def test_other_keys_and_other_rows_have_other_masks(masked):
    other = mask_tokens(jax.random.key(1), rows_of_all_lengths(), np.arange(LENGTH))
    moved = mask_tokens(jax.random.key(0), rows_of_all_lengths(), np.arange(LENGTH) + 1000)
    for changed in (other, moved):
        assert (np.asarray(changed.positions)[64:] != masked.positions[64:]).any(axis=1).all()


def test_second_segment_begins_after_the_first_separator():
    ids = np.array(
        [
            [CLS, 9, SEP, 8, 7, SEP, PAD, PAD],
            [CLS, 9, 9, 9, 9, 9, 9, SEP],
            [CLS, 9, SEP, 9, SEP, 9, 9, SEP],
            [PAD] * 8,
        ],
        np.int32,
    )
    types = corruption.token_types(ids, ids != PAD, SEP)
    assert np.asarray(types).tolist() == [
        [0, 0, 0, 1, 1, 1, 0, 0],
        [0] * 8,
        [0, 0, 0, 1, 1, 1, 1, 1],
        [0] * 8,
    ]


sample_tokens = jax.jit(corruption.sample_tokens, static_argnames="vocab_size")


def pad_logits(logits, width):
    padding = [(0, 0)] * (logits.ndim - 1) + [(0, width - logits.shape[-1])]
    return np.pad(np.float32(logits), padding, constant_values=-1e9)


def softmax(logits):
    weights = np.exp(np.float64(logits) - np.float64(logits).max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_rows_of_the_table_past_the_vocabulary_take_no_share_of_the_samples():
    """A model may have more rows than the corpus has ids; their logits are as good as any."""
    rng = np.random.default_rng(5)
    logits = np.float32(rng.standard_normal((1, 1000)))
    draws = 20_000
    uniforms = np.float32(rng.random((draws, 2)))
    sampled = sample_tokens(uniforms, np.broadcast_to(logits, (draws, 1000)), vocab_size=50)
    expected = draws * softmax(logits[0, :50])
    observed = np.bincount(sampled, minlength=50)
    assert observed.size == 50
    assert ((observed - expected) ** 2 / expected).sum() < 100  # 49 degrees of freedom


@pytest.mark.parametrize(("vocab_size", "width"), [(100, 128), (300, 384), (70, 70)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_are_distributed_as_the_softmax(vocab_size, width, temperature):
    rng = np.random.default_rng(vocab_size)
    logits = pad_logits(rng.standard_normal((1, vocab_size)) * 1.5, width) / np.float32(temperature)
    draws = 20_000
    uniforms = rng.random((draws, 2), np.float32)
    sampled = np.asarray(
        sample_tokens(uniforms, np.broadcast_to(logits, (draws, width)), vocab_size=vocab_size)
    )
    expected = draws * softmax(logits[0, :vocab_size])
    observed = np.bincount(sampled, minlength=vocab_size)
    assert observed.size == vocab_size
    common = expected > 5
    table = [
        np.append(counts[common], counts[~common].sum() + 1e-9) for counts in (observed, expected)
    ]
    table[1] *= table[0].sum() / table[1].sum()
    assert stats.chisquare(*table).pvalue > 1e-3


def test_samples_invert_the_distribution_function_of_blocks_then_of_tokens():
    rng = np.random.default_rng(3)
    logits = pad_logits(rng.standard_normal((3000, 300)) * 3, 384)
    uniforms = rng.random((3000, 2), np.float32)
    sampled = np.asarray(sample_tokens(uniforms, logits, vocab_size=300))
    blocks = softmax(logits).reshape(3000, 3, 128)
    first = (np.cumsum(blocks.sum(-1), -1) <= uniforms[:, :1]).sum(-1)
    inside = blocks[np.arange(3000), first]
    inside /= inside.sum(-1, keepdims=True)
    second = (np.cumsum(inside, -1) <= uniforms[:, 1:]).sum(-1)
    # float32 sums may put a uniform that falls next to a boundary on its other side.
    assert np.mean(sampled == first * 128 + second) > 0.998


def test_a_token_of_all_the_probability_is_always_sampled():
    tokens = np.arange(300)
    logits = pad_logits(np.where(np.eye(300), 200.0, -200.0), 384)
    for uniform in (0.0, 0.3, 1 - 2.0**-24):
        uniforms = np.full((300, 2), uniform, np.float32)
        np.testing.assert_array_equal(sample_tokens(uniforms, logits, vocab_size=300), tokens)


def test_extreme_uniforms_never_give_a_token_of_no_probability():
    rng = np.random.default_rng(4)
    rows, width = 2000, 384
    possible = rng.random((rows, width)) < rng.choice([0.01, 0.3, 0.9], (rows, 1))
    possible[np.arange(rows), rng.integers(0, 300, rows)] = True
    possible[:, 300:] = False
    logits = np.where(possible, rng.standard_normal((rows, width)) * 4, -1e9).astype(np.float32)
    ends = np.float32([0.0, 1 - 2.0**-23, 1 - 2.0**-24])
    for first in ends:
        for second in ends:
            uniforms = np.tile(np.float32([first, second]), (rows, 1))
            sampled = np.asarray(sample_tokens(uniforms, logits, vocab_size=300))
            assert possible[np.arange(rows), sampled].all()


def test_corruption_is_labelled_by_comparing_so_right_guesses_are_original():
    ids = np.array([[CLS, 10, 11, 12, 13, SEP, PAD, PAD]] * 2, np.int32)
    positions = np.array([[2, 4, 0], [3, 0, 0]], np.int32)
    chosen = np.array([[True, True, False], [True, False, False]])
    masked = MaskedBatch(
        input_ids=ids,
        masked_ids=np.full_like(ids, MASK),  # the tokens that stay come from the original
        attention_mask=ids != PAD,
        token_type_ids=np.zeros_like(ids),
        candidates=ids != PAD,
        positions=positions,
        labels=np.take_along_axis(ids, positions, 1),
        chosen=chosen,
    )
    sampled = np.array([[11, 40, 41], [42, 43, 44]], np.int32)  # 11 is right; 41, 43, 44: unused
    corrupted, is_replaced = jax.jit(corruption.corrupt)(masked, sampled)
    assert np.asarray(corrupted).tolist() == [
        [CLS, 10, 11, 12, 40, SEP, PAD, PAD],
        [CLS, 10, 11, 42, 13, SEP, PAD, PAD],
    ]
    assert np.asarray(is_replaced).astype(int).tolist() == [
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0],
    ]
