"""A SentencePiece model as a tokenizer of the `tokenizers` library, for tokenizer.json.

Source of the correspondence: `SpmConverter` in `convert_slow_tokenizer.py` of transformers.
"""

from __future__ import annotations

import functools
from typing import Any

# The mark of a space.
_SPACE = "\u2581"
_UNIGRAM, _BPE = 1, 2
# Of sentencepiece_model.proto what is needed: message, field, number, type, default. (The library's
# own module of it asks for a protobuf newer than other packages here allow.)
_FIELDS = (
    ("SentencePiece", "piece", 1, "STRING", None),
    ("SentencePiece", "score", 2, "FLOAT", None),
    ("SentencePiece", "type", 3, "INT32", "1"),
    ("TrainerSpec", "model_type", 3, "INT32", "1"),
    ("TrainerSpec", "byte_fallback", 35, "BOOL", "false"),
    ("NormalizerSpec", "precompiled_charsmap", 2, "BYTES", None),
    ("NormalizerSpec", "add_dummy_prefix", 3, "BOOL", "true"),
    ("NormalizerSpec", "remove_extra_whitespaces", 4, "BOOL", "true"),
    ("ModelProto", "pieces", 1, "SentencePiece", None),
    ("ModelProto", "trainer_spec", 2, "TrainerSpec", None),
    ("ModelProto", "normalizer_spec", 3, "NormalizerSpec", None),
)
_NORMAL_PIECES = (1, 4)  # and those that a user has defined


def to_tokenizers_library(content: bytes, unk_id: int) -> Any:
    """A `tokenizers.Tokenizer` that gives the ids of a model, without special tokens.

    Args:
      content: of a .model file, unigram or BPE.
      unk_id: of the piece for what is unknown.

    Raises:
      ValueError: for another kind of model.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    proto = _model_proto()()
    proto.ParseFromString(content)
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    byte_fallback = proto.trainer_spec.byte_fallback
    if proto.trainer_spec.model_type == _UNIGRAM:
        model = models.Unigram(pieces, unk_id, byte_fallback)
    elif proto.trainer_spec.model_type == _BPE:
        model = models.BPE(
            {piece: i for i, (piece, _) in enumerate(pieces)},
            _merges([(p.piece, p.score) for p in proto.pieces if p.type in _NORMAL_PIECES]),
            unk_token=pieces[unk_id][0],
            fuse_unk=True,
            byte_fallback=byte_fallback,
        )
    else:
        raise ValueError(f"model_type={proto.trainer_spec.model_type} of SentencePiece")
    spec, steps = proto.normalizer_spec, []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    prefix = "always" if spec.add_dummy_prefix else "never"
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prefix)
    tokenizer.decoder = decoders.Metaspace(_SPACE, prefix)
    return tokenizer


def _merges(pieces: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Every way to put a piece together of two others, best piece first.

    SentencePiece merges the two neighbours that make the piece of the highest score; the library
    has a list of pairs instead, the first first.
    """
    rank = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        for end in range(1, len(piece)):
            left, right = piece[:end], piece[end:]
            if left in rank and right in rank:
                merges.append((-score, rank[piece], rank[left], rank[right], left, right))
    return [(left, right) for *_, left, right in sorted(merges)]


@functools.cache
def _model_proto() -> type:
    """The class of a model's message."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = "electra_jax_sentencepiece"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    kinds = descriptor_pb2.FieldDescriptorProto
    messages: dict[str, Any] = {}
    for message, name, number, kind, default in _FIELDS:
        if message not in messages:
            messages[message] = file.message_type.add(name=message)
        field = messages[message].field.add(name=name, number=number, default_value=default)
        field.label = kinds.LABEL_REPEATED if name == "pieces" else kinds.LABEL_OPTIONAL
        if kind in messages:
            field.type, field.type_name = kinds.TYPE_MESSAGE, f".{package}.{kind}"
        else:
            field.type = getattr(kinds, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.ModelProto"))
