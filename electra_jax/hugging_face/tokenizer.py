"""The tokenizer of a directory of Hugging Face's, read and written.

Read: WordPiece, as BERT and ELECTRA have it, and what was written here. Written: WordPiece and
SentencePiece, as tokenizer.json of the `tokenizers` library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from electra_jax.data.tokenization import (
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
)
from electra_jax.data.tokenization.sentence_piece import MODEL_FILE, SETTINGS_FILE
from electra_jax.errors import UserError
from electra_jax.hugging_face.files import read_json
from electra_jax.hugging_face.sentence_piece import to_tokenizers_library

_TOKENIZER, _VOCAB, _SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
_SPECIAL = "special_tokens_map.json"


def load_hugging_face_tokenizer(directory: Path | str) -> Tokenizer | None:
    """The tokenizer of a directory, or None if there is none.

    A SentencePiece model that was written here is read as it was. Else `tokenizer.json` comes
    first, without what it says of cutting and padding: that is the task's business, and some cut
    to 128 tokens. Then `vocab.txt`, with `do_lower_case` and `strip_accents` of
    `tokenizer_config.json`. As in transformers, text is lower-cased where nothing is said of it.

    Raises:
      UserError: for another kind of tokenizer, and for files that contradict each other.
    """
    directory = Path(directory)
    if (directory / MODEL_FILE).is_file() and (directory / SETTINGS_FILE).is_file():
        return SentencePieceTokenizer.load(directory)
    settings = read_json(directory / _SETTINGS) if (directory / _SETTINGS).is_file() else {}
    if (directory / _TOKENIZER).is_file():
        tokenizer = WordPieceTokenizer.from_json(directory / _TOKENIZER)
    elif (directory / _VOCAB).is_file():
        if settings.get("tokenize_chinese_chars", True) is not True:
            raise UserError(
                f"{directory / _SETTINGS}: tokenize_chinese_chars=false, expected true: a "
                "tokenizer of this kind cannot be read"
            )
        return WordPieceTokenizer.from_vocab(
            directory / _VOCAB,
            lowercase=settings.get("do_lower_case", True),
            strip_accents=settings.get("strip_accents"),
        )
    else:
        return None
    for theirs, ours in (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents")):
        said, done = settings.get(theirs), tokenizer.settings[ours]
        if said is not None and done is not None and said != done:
            raise UserError(
                f"{directory}: {_SETTINGS} says {theirs}={said}, but {_TOKENIZER} has "
                f"{ours}={done}: make them agree"
            )
    if (directory / _VOCAB).is_file():
        other = WordPieceTokenizer.from_vocab(directory / _VOCAB)
        if other.settings["vocab_sha256"] != tokenizer.settings["vocab_sha256"]:
            raise UserError(
                f"{directory}: the vocabularies of {_VOCAB} ({other.vocab_size} tokens) and "
                f"{_TOKENIZER} ({tokenizer.vocab_size}) differ: bring both from one model"
            )
    return tokenizer


def save_hugging_face_tokenizer(tokenizer: Tokenizer, directory: Path, *, max_length: int) -> None:
    """Writes the files that transformers 4 and 5 read, and what is needed to read it back here.

    tokenizer.json with the template [CLS] A [SEP] B [SEP], tokenizer_config.json and
    special_tokens_map.json; of WordPiece vocab.txt; of SentencePiece its model and settings.

    Args:
      tokenizer: WordPiece or SentencePiece.
      directory: an existing one.
      max_length: tokens that the model can take, special ones included.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import processors

    tokenizer.save(directory)
    ids, settings = tokenizer.special_ids, tokenizer.settings
    if isinstance(tokenizer, SentencePieceTokenizer):
        backend = to_tokenizers_library((directory / MODEL_FILE).read_bytes(), ids.unk)
        names = [backend.id_to_token(i) for i in ids]
        backend.add_special_tokens(names)
        known: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    else:
        backend = Backend.from_file(str(directory / _TOKENIZER))
        names = [backend.id_to_token(i) for i in ids]
        known = {
            "tokenizer_class": "ElectraTokenizer",
            "do_lower_case": settings["lowercase"],
            "strip_accents": settings["strip_accents"],
            "tokenize_chinese_chars": True,
        }
    _, _, cls, sep, _ = names
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, ids.cls), (sep, ids.sep)],
    )
    backend.save(str(directory / _TOKENIZER))
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special = dict(zip(roles, names, strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    known |= special | {"model_max_length": max_length, "model_input_names": inputs}
    for name, content in ((_SETTINGS, known), (_SPECIAL, special)):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (directory / name).write_text(text, encoding="utf-8")
