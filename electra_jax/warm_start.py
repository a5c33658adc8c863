"""Pre-training that begins with the parameters of another model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from electra_jax.config import ElectraConfig
from electra_jax.data.tokenization import Tokenizer
from electra_jax.embedding_sharing import take_differences
from electra_jax.errors import UserError
from electra_jax.pretrained import Pretrained
from electra_jax.transfer import check_same_encoder, transfer_params

# The tensors that have a row for each piece of the vocabulary.
_ROWS = (("embeddings", "word"), ("generator_embeddings", "word"), ("generator_head", "bias"))


def start_params(
    pretrained: Pretrained,
    model: ElectraConfig,
    fresh: Any,
    tokenizer: Tokenizer,
    *,
    given: bool = False,
) -> tuple[Any, list[str]]:
    """Parameters to begin pre-training with.

    Args:
      pretrained: a discriminator, a generator or both, or a BERT's encoder.
      model: the architecture to train.
      fresh: its freshly drawn parameters, kept where `pretrained` has none.
      tokenizer: of the corpus: the pretrained one, or one whose further pieces come after it.
      given: whether the generator will be another's.

    Returns:
      A tree like `fresh`, and lines about what does not come from `pretrained`.

    Raises:
      UserError: if the encoders or the vocabularies do not fit, listing how.
    """
    new_rows = model.vocab_size - pretrained.config.vocab_size
    check_vocabulary(pretrained.tokenizer, tokenizer)
    check_same_encoder(dataclasses.replace(pretrained.config, vocab_size=model.vocab_size), model)
    theirs = pretrained.params
    if model.sharing == "disentangled":
        theirs = take_differences(theirs)
    params = {name: tree for name, tree in theirs.items() if name in fresh}
    notes = []
    if new_rows:
        notes.append(f"{new_rows:,} new pieces of the vocabulary start at random")
        for part, name in _ROWS:
            if part in params and name in params[part]:
                old, drawn = params[part][name], np.asarray(fresh[part][name])
                grown = np.concatenate([old, drawn[len(old) :]])
                params[part] = params[part] | {name: grown}
    wanted = [part for part in fresh if part.startswith("generator_")]
    tables = "generator_embeddings"
    same_generator = (
        all(
            getattr(pretrained.config, name) == getattr(model, name)
            for name in ("generator", "generator_kind", "generator_embedding_size")
        )
        and (tables in theirs) == (tables in fresh)
        and all(part in params for part in wanted if part != "generator_baseline")
    )
    left = [] if same_generator and not given else wanted
    if model.sharing == "disentangled":
        left = [part for part in left if part != tables]
    if left and not given:
        why = (
            "it has none"
            if "generator_head" not in pretrained.params
            else "it has one of another kind or shape"
        )
        notes.append(
            f"the generator starts at random ({why}): beside a trained discriminator its "
            "replacements are easy to tell until it has caught up"
        )
    if "discriminator_head" not in params:
        left.append("discriminator_head")
        notes.append("the discriminator's head starts at random")
    for part in ("token_head", "generator_baseline"):
        if part in fresh and part not in params and part not in left:
            left.append(part)
            notes.append(f"{part} starts at random")
    patterns = tuple(f"^{part}/" for part in left)
    return transfer_params(params, fresh, fresh=patterns, ignored=()), notes


def generator_params(
    pretrained: Pretrained, model: ElectraConfig, fresh: Any, tokenizer: Tokenizer
) -> dict[str, Any]:
    """The parts of a generator with tables of its own, from another model.

    Args:
      pretrained: a masked language model, whose encoder is taken, or a pair, whose generator is.
      model: the architecture to train.
      fresh: its freshly drawn parameters.
      tokenizer: of the corpus.

    Raises:
      UserError: if it has no such generator, or of other sizes, listing how.
    """
    what = "generator_from"
    check_vocabulary(pretrained.tokenizer, tokenizer, what=what)
    theirs, config = pretrained.params, pretrained.config
    if "generator_head" not in theirs or config.generator_kind != "masked":
        raise UserError(f"{what}: the model there has no masked language model: give one with it")
    same = {
        "sizes": (dataclasses.asdict(config.generator), dataclasses.asdict(model.generator)),
        "width of tables": (config.generator_embedding_size, model.generator_embedding_size),
        "vocab_size": (config.vocab_size, model.vocab_size),
        "max_positions": (config.max_positions, model.max_positions),
    }
    different = [
        f"{name} {given} there, {wanted} here"
        for name, (given, wanted) in same.items()
        if given != wanted
    ]
    if different:
        raise UserError(
            f"{what}: the generator there is not the model's: {'; '.join(different)}: "
            "set model.generator_size, generator_depth and sharing (apart or none) to its own"
        )
    parts = {
        f"generator_{part}": theirs.get(f"generator_{part}", theirs.get(part))
        for part in ("embeddings", "encoder")
    } | {"generator_head": theirs["generator_head"]}
    wanted = {name: tree for name, tree in fresh.items() if name.startswith("generator_")}
    return transfer_params(parts, wanted, fresh=(), ignored=())


def check_vocabulary(pretrained: Tokenizer, wanted: Tokenizer, *, what: str = "init_from") -> None:
    """Whether a corpus's ids mean what the pretrained model's do; further ones may follow.

    Raises:
      UserError: saying where they differ.
    """
    old, new = pretrained.settings, wanted.settings
    if old == new:
        return
    normalisation = [name for name in ("kind", "lowercase", "strip_accents", "model_sha256")
                     if old.get(name) != new.get(name)]  # fmt: skip
    different = [f"{name}={new.get(name)!r} for {old.get(name)!r}" for name in normalisation]
    if not different:
        size = min(pretrained.vocab_size, wanted.vocab_size)
        first = next((i for i in range(size) if pretrained.piece(i) != wanted.piece(i)), None)
        if first is not None:
            pieces = wanted.piece(first), pretrained.piece(first)
            different.append(f"id {first} is {pieces[0]!r} for {pieces[1]!r}")
        elif wanted.vocab_size < pretrained.vocab_size:
            different.append(f"{wanted.vocab_size:,} pieces for {pretrained.vocab_size:,}")
    if different:
        raise UserError(
            f"{what}: the corpus's tokenizer is not the pretrained model's "
            f"({', '.join(different)}): prepare the corpus with --vocab and the model's "
            "vocabulary, to which pieces may be added at the end"
        )
