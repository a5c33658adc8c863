"""Which pieces go on with a word: those that text in words is cut into."""

from __future__ import annotations

import io

import numpy as np
import pytest
import sentencepiece

from electra_jax.data.tokenization import (
    TRAINABLE_TOKENIZERS,
    SentencePieceTokenizer,
    continues_word,
    open_tokenizer,
    train_tokenizer,
)
from electra_jax.errors import UserError


@pytest.fixture(scope="module")
def lines(text_file):
    return text_file.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("kind", TRAINABLE_TOKENIZERS)
def test_each_word_of_a_text_begins_once(kind, lines):
    tokenizer = train_tokenizer(kind, lines, 100)
    table = continues_word(tokenizer)
    assert table.shape == (tokenizer.vocab_size,) and table.dtype == bool
    assert not table[list(tokenizer.special_ids)].any()
    words = "".join(c if c.isalpha() else " " for c in " ".join(lines[:50])).split()
    for word in words[:300]:
        # Not only the word's own ids: SentencePiece begins every text with a space.
        ids = np.array(tokenizer.encode_batch([f"{word} {word}"])[0])
        assert table[ids].tolist() == 2 * ([False] + [True] * (len(ids) // 2 - 1)), word
    lengths = [len(ids) for ids in tokenizer.encode_batch(words[:300])]
    assert max(lengths) > 2  # or nothing was tested


def test_a_piece_that_only_holds_marks_is_told_by_its_beginning(tmp_path):
    path = tmp_path / "vocab.txt"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "#", "##", "##a", "a##", "[unused0]"]
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    table = continues_word(open_tokenizer(path))
    assert [piece for piece, goes_on in zip(pieces, table, strict=True) if goes_on] == ["##", "##a"]


def test_marks_at_the_ends_of_words_are_refused(lines):
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=output,
        hard_vocab_limit=False,
        minloglevel=2,
        vocab_size=300,
        pad_id=3,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        treat_whitespace_as_suffix=True,
    )
    with pytest.raises(UserError, match="no piece begins a word, so words cannot be told apart"):
        continues_word(SentencePieceTokenizer(output.getvalue()))
