"""Masking by words and spans, against the same choices made with loops over the same draws."""

import functools

import jax
import numpy as np
import pytest

from electra_jax import corruption
from electra_jax.errors import UserError
from electra_jax.masking import LONGEST_SPAN, LONGEST_WORD, SPAN_P, Draws, choose_words

PAD, UNK, CLS, SEP, MASK = range(5)
VOCAB, LENGTH, MAX_MASKED = 60, 96, 14
CONTINUES = np.arange(VOCAB) >= 40  # a third of the vocabulary goes on with a word
CHOSEN = ("positions", "chosen", "masked_ids")


def rows_of_text(num_rows=240, seed=0):
    """[CLS] A [SEP] B [SEP] of 1 to 96 tokens; some with a word of 20 and more tokens."""
    rng = np.random.default_rng(seed)
    ids = np.full((num_rows, LENGTH), PAD, np.int32)
    for row in range(num_rows):
        length = row % LENGTH + 1
        tokens = rng.integers(MASK + 1, VOCAB, length)
        if row % 7 == 0:
            tokens[length // 3 :] = rng.integers(40, VOCAB, length - length // 3)
        if row % 5 == 0:
            tokens[length // 4] = MASK
        tokens[length // 2], tokens[-1], tokens[0] = SEP, SEP, CLS
        ids[row, :length] = tokens
    return ids


@functools.partial(jax.jit, static_argnames=("strategy", "max_masked"))
def mask_tokens(key, ids, row_ids, mask_prob=0.15, *, strategy, max_masked=MAX_MASKED):
    """Here `mask_prob` is traced."""
    return corruption.mask_tokens(
        key,
        ids,
        row_ids,
        mask_prob=mask_prob,
        max_masked=max_masked,
        pad_id=PAD,
        cls_id=CLS,
        sep_id=SEP,
        mask_id=MASK,
        strategy=strategy,
        continues_word=CONTINUES,
    )


def masks(ids, strategy, *, key=0, row_ids=None, **arguments):
    row_ids = np.arange(len(ids)) if row_ids is None else row_ids
    result = mask_tokens(jax.random.key(key), ids, row_ids, strategy=strategy, **arguments)
    return jax.tree.map(np.asarray, result)


@pytest.fixture(scope="module", params=["words", "spans"])
def masked(request):
    """The strategy's name and its masks of every row."""
    return request.param, masks(rows_of_text(), request.param)


def groups_of(ids, strategy, lengths):
    """Lists of adjacent positions: the words or spans of a row."""
    next_begin = set(np.cumsum(lengths).tolist())
    groups, open_group = [], False
    for position, token in enumerate(ids.tolist()):
        if token in (PAD, CLS, SEP, MASK):
            open_group = False
            continue
        if strategy == "words":
            goes_on = CONTINUES[token] and open_group and len(groups[-1]) < LONGEST_WORD
        else:
            goes_on = open_group and position not in next_begin
        if goes_on:
            groups[-1].append(position)
        else:
            groups.append([position])
        open_group = True
    return groups


def span_lengths(uniforms):
    """By walking up the distribution function of a geometric distribution cut at ten."""
    probabilities = SPAN_P * (1 - SPAN_P) ** np.arange(LONGEST_SPAN)
    cumulative = np.float32(np.cumsum(probabilities / probabilities.sum()))
    return [int((cumulative[:-1] <= uniform).sum()) + 1 for uniform in uniforms]


def draws_of(ids, strategy, key=0):
    count = LENGTH + MAX_MASKED + (LENGTH if strategy == "spans" else 0)
    uniforms = corruption.row_uniforms(jax.random.key(key), np.arange(len(ids)), (count,))
    return Draws(*np.split(np.asarray(uniforms), [LENGTH, LENGTH + MAX_MASKED], axis=1))


def test_the_choice_is_that_of_loops_over_the_same_draws(masked):
    strategy, masked = masked
    ids = rows_of_text()
    draws = draws_of(ids, strategy)
    for row in range(len(ids)):
        lengths = span_lengths(draws.lengths[row])
        groups = groups_of(ids[row], strategy, lengths)
        groups.sort(key=lambda group: -draws.scores[row, group[0]])  # noqa: B023
        num_tokens, candidates = int((ids[row] != PAD).sum()), sum(map(len, groups))
        wanted = np.round(np.float32(num_tokens) * np.float32(0.15))
        wanted = int(min(np.clip(wanted, 1, MAX_MASKED), candidates))
        expected, hidden = [], []
        for number, group in enumerate(groups):
            room = wanted - len(expected)
            if strategy == "words":
                if expected and len(group) > room:
                    break
                group = group[:MAX_MASKED]
                hide = draws.hide[row, len(expected) : len(expected) + len(group)]
            else:
                group = group[:room]
                hide = np.full(len(group), draws.hide[row, min(number, MAX_MASKED - 1)])
            expected += group
            hidden += (hide < np.float32(0.85)).tolist()
        chosen = masked.chosen[row]
        assert masked.positions[row][chosen].tolist() == expected, row
        assert not masked.positions[row][~chosen].any()
        seen = masked.masked_ids[row][expected]
        np.testing.assert_array_equal(seen == MASK, hidden)
    assert masked.chosen.any(axis=1).mean() > 0.9


def is_candidate(ids):
    return ~np.isin(ids, (PAD, CLS, SEP, MASK))


def chosen_at(masked):
    """bool [B, L]: the chosen positions, each in one slot."""
    at = np.zeros(masked.input_ids.shape, int)
    rows, slots = np.nonzero(masked.chosen)
    np.add.at(at, (rows, masked.positions[rows, slots]), 1)
    assert at.max() == 1
    return at.astype(bool)


def test_padding_and_special_tokens_are_never_chosen_and_a_row_of_text_always_is(masked):
    _, masked = masked
    ids, chosen = masked.input_ids, chosen_at(masked)
    assert not chosen[~is_candidate(ids)].any()
    np.testing.assert_array_equal(chosen.any(axis=1), is_candidate(ids).any(axis=1))
    assert ((ids != PAD).sum(axis=1) < 4).any()  # rows without a candidate are among them
    np.testing.assert_array_equal(masked.labels, np.take_along_axis(ids, masked.positions, 1))
    changed = masked.masked_ids != ids
    assert changed.any() and not changed[~chosen].any()


def test_words_are_whole():
    """Those of at most ten tokens; longer ones are taken apart at every tenth."""
    masked = masks(rows_of_text(2000, seed=3), "words")
    chosen = chosen_at(masked)
    partly = 0
    for ids, row in zip(masked.input_ids, chosen, strict=True):
        for group in groups_of(ids, "words", []):
            assert row[group].all() or not row[group].any()
            partly += len(group) > 1 and row[group].all()
    assert partly > 500


def test_a_word_of_more_tokens_than_slots_is_cut_at_the_slots():
    ids = np.array([[CLS, 10, 41, 42, 43, 44, 45, 46, SEP, PAD]], np.int32)
    masked = masks(ids, "words", max_masked=3)
    assert masked.positions.tolist() == [[1, 2, 3]] and masked.chosen.all()
    # One token is wanted (9 * 0.15), and the only word has seven.
    whole = masks(ids, "words", max_masked=9)
    assert whole.positions[whole.chosen].tolist() == list(range(1, 8))


@pytest.mark.parametrize("strategy", ["words", "spans"])
def test_a_row_is_masked_alike_among_other_rows_and_without_jit(strategy):
    ids, rows = rows_of_text(), [200, 3, 60, 95, 94]
    whole = masks(ids, strategy)
    few = masks(ids[rows], strategy, row_ids=np.array(rows))
    with jax.disable_jit():
        eager = masks(ids[rows], strategy, row_ids=np.array(rows))
    other_key = masks(ids, strategy, key=1)
    other_rows = masks(ids, strategy, row_ids=np.arange(len(ids)) + 1000)
    for name in CHOSEN:
        np.testing.assert_array_equal(getattr(few, name), getattr(whole, name)[rows])
        np.testing.assert_array_equal(getattr(eager, name), getattr(whole, name)[rows])
    long = is_candidate(ids).sum(axis=1) > 60
    for other in (other_key, other_rows):
        assert (other.positions != whole.positions)[long].any(axis=1).mean() > 0.95


@pytest.fixture(scope="module")
def plain_text():
    """4,000 full rows of one segment, as a vocabulary of words and pieces would have them."""
    rng = np.random.default_rng(7)
    ids = rng.integers(MASK + 1, 40, (4000, LENGTH))
    pieces = rng.random(ids.shape) < 0.2
    ids[pieces] = rng.integers(40, VOCAB, pieces.sum())
    ids[:, 0], ids[:, -1] = CLS, SEP
    return ids.astype(np.int32)


def test_the_share_of_chosen_tokens(plain_text):
    """Spans give what tokens give, words a little less: 14 of 96 wanted."""
    shares = {
        strategy: masks(plain_text, strategy).chosen.sum(axis=1).mean()
        for strategy in ("tokens", "words", "spans")
    }
    assert shares["tokens"] == shares["spans"] == 14
    # What the last word has past its first token, halved: (E[n^2] / E[n] - 1) / 2 with a geometric
    # number of tokens n, p = 0.8.
    assert shares["words"] == pytest.approx(14 - 0.25, abs=0.03)


def test_positions_are_equally_likely(plain_text):
    """4,000 rows: standard deviations of 0.006."""
    chosen = chosen_at(masks(plain_text, "spans", key=3))[:, 1:-1].mean(axis=0)
    assert abs(chosen[10:] - chosen[10:].mean()).max() < 0.025
    # The last span is cut at its end, so the tokens that begin a row are chosen more often.
    assert 0 < chosen[0] - chosen[10:].mean() < 0.05
    # Of words only the first tokens are compared: those of many tokens are chosen less often.
    first = ~CONTINUES[plain_text]
    chosen = chosen_at(masks(plain_text, "words", key=3))
    shares = (chosen & first)[:, 1:-1].sum(axis=0) / first[:, 1:-1].sum(axis=0)
    assert abs(shares - shares.mean()).max() < 0.03


def test_span_lengths_are_geometric_and_at_most_ten(plain_text):
    """Runs of what is hidden together: seen where a row holds one span, whole inside it."""
    masked = masks(plain_text, "spans", mask_prob=0.11, max_masked=LONGEST_SPAN)  # 10.56 wanted
    positions = masked.positions[:, :LONGEST_SPAN]
    assert masked.chosen.all()
    goes_on = np.diff(positions, axis=1) == 1
    lengths = np.where(goes_on.all(axis=1), LONGEST_SPAN, goes_on.argmin(axis=1) + 1)
    # Ends of the row cut spans, and neighbours in the order may be neighbours in the text.
    inside = (positions[:, 0] > 12) & (positions[:, 0] < LENGTH - 12)
    observed = np.bincount(lengths[inside], minlength=LONGEST_SPAN + 1)[1:]
    probabilities = SPAN_P * (1 - SPAN_P) ** np.arange(LONGEST_SPAN)
    probabilities /= probabilities.sum()
    assert observed.sum() > 2500
    assert np.dot(probabilities, np.arange(1, 11)) == pytest.approx(3.8, abs=0.01)  # the paper's
    mean = np.dot(observed, np.arange(1, 11)) / observed.sum()
    assert mean == pytest.approx(3.8, abs=0.25)
    assert abs(observed / observed.sum() - probabilities).max() < 0.03


def test_a_span_is_hidden_as_a_whole_with_the_share_of_85_percent(plain_text):
    masked = masks(plain_text, "spans", mask_prob=0.02)  # 2 of 96 tokens: mostly one span
    together = np.diff(masked.positions[:, :2], axis=1)[:, 0] == 1
    hidden = np.take_along_axis(masked.masked_ids, masked.positions[:, :2], 1) == MASK
    same = hidden[:, 0] == hidden[:, 1]
    assert together.sum() > 2500 and same[together].mean() > 0.99
    assert not same[~together].all()
    deviation = np.sqrt(0.85 * 0.15 / len(hidden))
    assert abs(hidden[:, 0].mean() - 0.85) < 4 * deviation


@pytest.mark.parametrize("strategy", ["tokens", "words", "spans"])
def test_the_share_may_be_traced_and_the_program_is_compiled_once(strategy, plain_text):
    before = mask_tokens._cache_size()
    ids = plain_text[:50]
    shares = [masks(ids, strategy, mask_prob=np.float32(p), key=9) for p in (0.05, 0.10, 0.15)]
    assert mask_tokens._cache_size() <= before + 1
    counts = [masked.chosen.sum(axis=1).mean() for masked in shares]
    np.testing.assert_allclose(counts, [5, 10, 14], atol=0.7)
    # A higher share masks what a lower one does, and more.
    few, many = chosen_at(shares[0]), chosen_at(shares[2])
    assert many[few].mean() > 0.97
    static = corruption.mask_tokens(
        jax.random.key(9),
        ids,
        np.arange(50),
        mask_prob=0.10,
        max_masked=MAX_MASKED,
        pad_id=PAD,
        cls_id=CLS,
        sep_id=SEP,
        mask_id=MASK,
        strategy=strategy,
        continues_word=CONTINUES,
    )
    for name in CHOSEN:
        np.testing.assert_array_equal(getattr(static, name), getattr(shares[1], name))


def test_equal_scores_leave_words_whole():
    """Draws have 24 bits, so two of a row are equal now and then."""
    continues = np.array([[False, False, True, True, False, True, False, False]])
    candidates = np.array([[False] + [True] * 6 + [False]])
    draws = Draws(np.full((1, 8), 0.5, np.float32), np.zeros((1, 5)), np.zeros((1, 0)))
    positions, used, _ = choose_words(draws, candidates, np.array([5]), continues)
    assert np.asarray(positions)[0, : int(used[0])].tolist() == [1, 2, 3, 4, 5][: int(used[0])]
    assert int(used[0]) == 5


def test_unknown_and_incomplete_strategies_are_refused():
    arguments = dict(mask_prob=0.15, max_masked=3, pad_id=PAD, cls_id=CLS, sep_id=SEP, mask_id=MASK)
    arguments |= dict(key=jax.random.key(0), input_ids=np.ones((1, 8)), row_ids=np.arange(1))
    with pytest.raises(UserError) as error:
        corruption.mask_tokens(**arguments, strategy="ngrams")
    assert str(error.value) == "masking='ngrams' is unknown: use one of tokens, words, spans"
    with pytest.raises(UserError) as error:
        corruption.mask_tokens(**arguments, strategy="words")
    assert str(error.value) == (
        "masking='words' needs to know which tokens continue a word: give continues_word, or use "
        "tokens or spans"
    )
