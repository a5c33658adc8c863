"""A discriminator and a generator of Hugging Face's as one model of ours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax.errors import UserError
from electra_jax.hugging_face.directory import HuggingFaceModel, load_hugging_face

PARTS = ("discriminator", "generator")


def load_hugging_face_pair(directory: Path | str) -> HuggingFaceModel:
    """Reads `directory/discriminator` and `directory/generator`, or the one that is there.

    What the two share follows from their tensors: everything, the embeddings, or nothing.

    Raises:
      UserError: as `load_hugging_face`, and if the two cannot be one model: saying in what.
    """
    found = {
        name: load_hugging_face(Path(directory) / name)
        for name in PARTS
        if (Path(directory) / name).is_dir()
    }
    if len(found) == 1:
        return next(iter(found.values()))
    tokenizers = [model.tokenizer and model.tokenizer.settings for model in found.values()]
    if tokenizers[0] != tokenizers[1] and all(tokenizers):
        raise UserError(f"{directory}: the tokenizers of its two models differ: bring one pair")
    return join_pair(found["discriminator"], found["generator"], source=str(directory))


def join_pair(
    discriminator: HuggingFaceModel, generator: HuggingFaceModel, *, source: str
) -> HuggingFaceModel:
    """One model of ours from the two; its tokenizer is the discriminator's.

    Args:
      discriminator: an ElectraForPreTraining.
      generator: an ElectraForMaskedLM.
      source: where they are from, for errors.

    Raises:
      UserError: if they cannot be one model: saying in what.
    """
    for model, part, wanted in (
        (discriminator, "discriminator", "ElectraForPreTraining"),
        (generator, "generator", "ElectraForMaskedLM"),
    ):
        if f"{part}_head" not in model.params:
            found = model.info["architecture"]
            raise UserError(f"{source}: its {part} is a {found}, expected {wanted}")
    params = {"generator_head": generator.params["generator_head"]} | {
        name: tree for name, tree in discriminator.params.items() if name != "generator_head"
    }
    ours, theirs = discriminator.config, generator.config
    same_tables, same_encoder = (
        _equal(discriminator.params[part], generator.params[part])
        for part in ("embeddings", "encoder")
    )
    if same_tables and same_encoder:
        return discriminator._replace(params=params)
    params["generator_encoder"] = generator.params["encoder"]
    if not same_tables:
        params["generator_embeddings"] = generator.params["embeddings"]
        if theirs.embedding_size != theirs.hidden_size:
            raise UserError(
                f"{source}: the embeddings of its two models differ, and the generator's are "
                f"{theirs.embedding_size} wide where it is {theirs.hidden_size}: a generator with "
                "tables of its own needs them as wide as itself; convert the discriminator alone"
            )
    config = dataclasses.replace(
        ours,
        sharing="embeddings" if same_tables else "none",
        generator_size=theirs.hidden_size / ours.hidden_size,
        generator_depth=theirs.num_layers / ours.num_layers,
    )
    wanted, given = config.generator, theirs.discriminator
    if wanted != given:
        differences = [
            f"{field.name}={getattr(given, field.name)} for {getattr(wanted, field.name)}"
            for field in dataclasses.fields(wanted)
            if getattr(given, field.name) != getattr(wanted, field.name)
        ]
        raise UserError(
            f"{source}: the generator has {', '.join(differences)}: heads as wide as the "
            "discriminator's and a feed-forward layer in proportion are needed; convert the "
            "discriminator alone"
        )
    return HuggingFaceModel(config, params, discriminator.tokenizer, discriminator.info)


def _equal(one: Any, other: Any) -> bool:
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
