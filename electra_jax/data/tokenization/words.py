"""Which pieces of a vocabulary begin a word, and which go on with one."""

from __future__ import annotations

import numpy as np

from electra_jax.data.tokenization.interface import Tokenizer
from electra_jax.errors import UserError

_CONTINUATION = "##"  # WordPiece marks the pieces that continue a word,
_BEGINNING = "\u2581"  # SentencePiece those that begin one.


def continues_word(tokenizer: Tokenizer) -> np.ndarray:
    """Whether each id goes on with the word before it: bool [V].

    Special tokens go on with none: what follows an [UNK] inside a word counts as a word of its
    own. Where words are written without spaces, SentencePiece has few pieces that begin one.

    Raises:
      UserError: if no piece begins a word, as in a SentencePiece model with its marks at the ends.
    """
    pieces = [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
    kind = tokenizer.settings["kind"]
    if kind == "wordpiece":
        table = [piece.startswith(_CONTINUATION) for piece in pieces]
    else:
        table = [not piece.startswith(_BEGINNING) for piece in pieces]
        # The mark alone is a piece of every model.
        if all(
            goes_on or piece == _BEGINNING for goes_on, piece in zip(table, pieces, strict=True)
        ):
            raise UserError(
                f"tokenizer of kind {kind!r}: no piece begins a word, so words cannot be told "
                "apart: use another tokenizer, or choose tokens or spans instead of words"
            )
    continues = np.array(table)
    continues[list(tokenizer.special_ids)] = False
    return continues
