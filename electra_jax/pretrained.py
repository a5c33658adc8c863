"""A pre-trained encoder from a directory: a run of ours, a fine-tuned model, or Hugging Face's."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from electra_jax.checkpoint import load_params
from electra_jax.config import ElectraConfig
from electra_jax.data.tokenization import Tokenizer, load_tokenizer
from electra_jax.errors import UserError
from electra_jax.hugging_face import load_hugging_face


class Pretrained(NamedTuple):
    """What a directory holds.

    Attributes:
      config: the architecture.
      params: a tree of float32 NumPy arrays with `embeddings` and `encoder`, and more.
      tokenizer: what its ids come from.
      metadata: of a run of ours, what is kept with its checkpoints; else {}.
    """

    config: ElectraConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    metadata: dict[str, Any]


def load_pretrained(directory: Path | str) -> Pretrained:
    """Reads the newest checkpoint of a run, a fine-tuned model, or a Hugging Face directory.

    Raises:
      UserError: if it is none of them, or damaged.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"pretrained={directory} does not exist: give a directory with a model")
    for place in (directory, directory / "model"):  # where fine-tuning leaves its best one
        if (place / "checkpoints").is_dir():
            params, metadata = load_params(place)
            fields = {field.name for field in dataclasses.fields(ElectraConfig)}
            described = metadata["config"]["model"]
            config = ElectraConfig(**{k: v for k, v in described.items() if k in fields})
            return Pretrained(config, params, load_tokenizer(place / "tokenizer"), metadata)
    if not _is_hugging_face(directory):
        raise UserError(
            f"pretrained={directory} holds neither checkpoints/ of a run nor a config.json of "
            "Hugging Face: give the --workdir of a run, or such a directory"
        )
    model = load_hugging_face(directory)
    if model.tokenizer is None:
        raise UserError(f"pretrained={directory} has no tokenizer: add its vocab.txt")
    return Pretrained(model.config, model.params, model.tokenizer, {})


def fingerprint(pretrained: Pretrained) -> str:
    """A checksum over the encoder's parameters and the tokenizer, wherever they were read."""
    digest = hashlib.sha256(json.dumps(pretrained.tokenizer.settings, sort_keys=True).encode())
    encoder = {part: pretrained.params[part] for part in ("embeddings", "encoder")}
    for leaf in jax.tree.leaves(encoder):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def _is_hugging_face(directory: Path) -> bool:
    try:
        return "model_type" in json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
