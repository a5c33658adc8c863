"""A pre-trained encoder from a directory: a run of ours, a fine-tuned model, or Hugging Face's."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.checkpoint import load_params
from electra_jax.config import ElectraConfig
from electra_jax.data.tokenization import Tokenizer, load_tokenizer
from electra_jax.embedding_sharing import add_differences
from electra_jax.errors import UserError
from electra_jax.heads import FineTuned, SequenceHead, SpanHead, TokenHead
from electra_jax.hugging_face import PARTS, load_hugging_face, load_hugging_face_pair
from electra_jax.modeling import Electra
from electra_jax.train_state import TrainState, create_train_state
from electra_jax.transfer import transfer_params

_HEADS = {head.__name__: head for head in (SequenceHead, TokenHead, SpanHead)}


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

    @property
    def model(self) -> Electra | FineTuned:
        """The network: `model.apply({"params": params}, input_ids, ...)`.

        Of a fine-tuned model a `FineTuned`, else an `Electra`, of which those methods can be
        applied whose parameters there are: `method="discriminate"`, "generate" or "encode".
        """
        if "head" not in self.metadata:
            return Electra(self.config)
        described = dict(self.metadata["head"])
        return FineTuned(self.config, _HEADS[described.pop("kind")](**described))

    def train_state(
        self, tx: optax.GradientTransformation, key: jax.Array, *, seq_len: int = 128
    ) -> TrainState:
        """A state at step 0 with these parameters; parts that are missing are drawn.

        Args:
          tx: an optax transformation.
          key: PRNG key of what is drawn, and of the training to come.
          seq_len: as of `create_train_state`.
        """
        state = create_train_state(key, self.model, tx, seq_len=seq_len)
        known = {part: self.params[part] for part in state.params if part in self.params}
        missing = tuple(f"^{part}/" for part in state.params if part not in known)
        params = transfer_params(known, state.params, fresh=missing, ignored=())
        return state.replace(params=jax.tree.map(jnp.asarray, params))


def load_pretrained(directory: Path | str, *, what: str = "pretrained") -> Pretrained:
    """Reads the newest checkpoint of a run, a fine-tuned model, or a Hugging Face directory.

    Hugging Face's may be one model, or `discriminator/` and `generator/` with one each.

    Args:
      directory: where it is.
      what: what messages call the directory: a config field.

    Raises:
      UserError: if it is none of them, or damaged.
    """
    directory = Path(directory)
    if not directory.is_dir():
        problem = "is no directory" if directory.exists() else "does not exist"
        raise UserError(f"{what}={directory} {problem}: give a directory with a model")
    # Where fine-tuning leaves the best model, of a run and of a trial.
    for place in (directory / "model", directory / "best", directory):
        if (place / "checkpoints").is_dir():
            params, metadata = load_params(place)
            try:
                config = described_model(metadata)
            except (KeyError, TypeError) as error:
                raise UserError(
                    f"{what}={place}: its checkpoint does not say what model it is of ({error!r}): "
                    "bring it anew"
                ) from None
            config, params = add_differences(config, params)
            return Pretrained(config, params, load_tokenizer(place / "tokenizer"), metadata)
    is_pair = not _is_hugging_face(directory) and any(
        _is_hugging_face(directory / part) for part in PARTS
    )
    if not is_pair and not _is_hugging_face(directory):
        raise UserError(
            f"{what}={directory} holds neither checkpoints/ of a run nor a config.json of "
            "Hugging Face: give the --workdir of a run, or such a directory"
        )
    model = load_hugging_face_pair(directory) if is_pair else load_hugging_face(directory)
    if model.tokenizer is None:
        raise UserError(f"{what}={directory} has no tokenizer: add its vocab.txt")
    return Pretrained(model.config, model.params, model.tokenizer, {})


def described_model(description: Mapping[str, Any]) -> ElectraConfig:
    """The architecture that a run of ours, or its checkpoint, says it has.

    Raises:
      KeyError, TypeError: if it does not say.
    """
    fields = {field.name for field in dataclasses.fields(ElectraConfig)}
    fields -= {"attention", "remat"}  # how the run computed, not what the model is
    described = description["config"]["model"]
    return ElectraConfig(**{k: v for k, v in described.items() if k in fields})


def from_pretrained(directory: Path | str) -> Pretrained:
    """A model to work with: `load_pretrained` under the name that people look for.

    For example, the discriminator's logits on one row, and a state to train on from there::

        pretrained = electra_jax.from_pretrained("runs/tiny")
        logits = pretrained.model.apply(
            {"params": pretrained.params}, input_ids, method="discriminate"
        )
        state = pretrained.train_state(optax.adam(1e-4), jax.random.key(0))
    """
    return load_pretrained(directory)


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
