"""From a directory of Hugging Face's to a config, parameters and a tokenizer, all checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from electra_jax.config import ElectraConfig
from electra_jax.data.tokenization import Tokenizer
from electra_jax.errors import UserError
from electra_jax.heads import FineTuned, Head, SequenceHead, SpanHead, TokenHead
from electra_jax.hugging_face.files import as_float32, read_json, read_tensors
from electra_jax.hugging_face.names import HEADS, from_hugging_face, plain_names
from electra_jax.hugging_face.tokenizer import load_hugging_face_tokenizer
from electra_jax.modeling import Electra

# Ours: theirs. Their `save_pretrained` writes every size; the rest has defaults of their classes.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
_DEFAULTS = {
    "type_vocab_size": ("type_vocab_size", 2),
    "dropout_rate": ("hidden_dropout_prob", 0.1),
    "attention_dropout_rate": ("attention_probs_dropout_prob", 0.1),
    "layer_norm_epsilon": ("layer_norm_eps", 1e-12),
    "init_stddev": ("initializer_range", 0.02),
}
# What our encoder does in one way only: field and value, which is also their default.
_ONLY = (
    ("hidden_act", "gelu"),
    ("position_embedding_type", "absolute"),
    ("is_decoder", False),
    ("add_cross_attention", False),
)


class HuggingFaceModel(NamedTuple):
    """What a directory holds.

    Attributes:
      config: with `sharing="all"`, since a directory holds one network.
      params: `embeddings` and `encoder`, and those of `discriminator_head`, `generator_head` and
        `head` (of a fine-tuned ELECTRA) that the file has; float32 NumPy arrays.
      tokenizer: None if the directory has none.
      info: `model_type`, `architecture` (their class, None if config.json names none),
        `config` (their config.json), `files` (of weights), `head` (a `heads.Head` for
        `heads.FineTuned`, or None) and `unused` (names of the tensors that are not in `params`).
    """

    config: ElectraConfig
    params: dict[str, Any]
    tokenizer: Tokenizer | None
    info: dict[str, Any]


def load_hugging_face(directory: Path | str) -> HuggingFaceModel:
    """Reads an ELECTRA (any class of its) or the encoder of a BERT, from safetensors.

    Raises:
      UserError: if the directory is no such model, or its files are damaged or contradict each
        other: saying what was expected and what was found.
    """
    directory = Path(directory)
    theirs = _read_config(directory)
    config_from(theirs, str(directory / "config.json"))  # before a file of gigabytes is read
    tensors, files = read_tensors(directory)
    source = str(directory / files[0]) if len(files) == 1 else str(directory)
    tensors = plain_names(as_float32(tensors, source), source=source)
    model = model_from_tensors(tensors, theirs, source=source)
    tokenizer = load_hugging_face_tokenizer(directory)
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} tokens, but config.json says "
            f"vocab_size={model.config.vocab_size}: bring both from one model"
        )
    return model._replace(tokenizer=tokenizer, info=model.info | {"files": files})


def model_from_tensors(
    tensors: Mapping[str, np.ndarray], theirs: Mapping[str, Any], *, source: str
) -> HuggingFaceModel:
    """A model, without a tokenizer, from tensors by name (`plain_names`).

    Args:
      tensors: float32 arrays.
      theirs: the contents of their config.json.
      source: where both are from, for errors.

    Raises:
      UserError: as `load_hugging_face`.
    """
    config = config_from(theirs, source)
    params, head, unused = _convert(tensors, config, theirs, source)
    info = {
        "model_type": theirs["model_type"],
        "architecture": _architecture(theirs),
        "config": theirs,
        "files": [],
        "head": head,
        "unused": unused,
    }
    return HuggingFaceModel(config, params, None, info)


def config_from(theirs: Mapping[str, Any], source: str) -> ElectraConfig:
    """Our config from theirs.

    Args:
      theirs: the contents of a config.json of model type "electra" or "bert".
      source: its path, for errors.

    Raises:
      UserError: for another model type, a size that is missing or impossible, or a kind of
        encoder that ours is not.
    """
    kind = theirs.get("model_type")
    if kind not in ("electra", "bert"):
        raise UserError(
            f"{source}: model_type={kind!r}, expected 'electra' or 'bert': models of other "
            "architectures cannot be read"
        )
    for name, value in _ONLY:
        if theirs.get(name, value) != value:
            raise UserError(
                f"{source}: {name}={theirs[name]!r}, expected {value!r}: a model of this kind "
                "cannot be read"
            )
    sizes = _SIZES | ({"embedding_size": "embedding_size"} if kind == "electra" else {})
    lacking = [name for name in sizes.values() if name not in theirs]
    if lacking:
        raise UserError(f"{source} lacks {', '.join(lacking)}: bring the model's whole config.json")
    values = {ours: theirs[name] for ours, name in sizes.items()}
    values |= {ours: theirs.get(name, default) for ours, (name, default) in _DEFAULTS.items()}
    values.setdefault("embedding_size", values["hidden_size"])
    try:
        return ElectraConfig(**values, sharing="all", generator_size=1.0)
    except (UserError, TypeError) as error:
        raise UserError(f"{source} is no model of ours: {error}") from None


def _architecture(theirs: Mapping[str, Any]) -> str | None:
    names = theirs.get("architectures") or [None]
    if not isinstance(names, list) or not isinstance(names[0], str | None):
        raise UserError(f"config.json: architectures={names!r} must be a list of class names")
    return names[0]


def _convert(tensors, config: ElectraConfig, theirs, source: str):
    """Parameters, the fine-tuned head's description (or None) and the names of the rest."""
    shapes = _shapes(Electra(dataclasses.replace(config, scan_layers=True)))
    backbone = {part: shapes[part] for part in ("embeddings", "encoder")}
    params, rest = from_hugging_face(tensors, backbone, "ElectraModel", source=source)
    surplus = [name for name in rest if name.startswith(("embeddings", "encoder."))]
    if surplus:
        raise UserError(
            f"{source} holds tensors that its config.json has no place for: {', '.join(surplus)}. "
            "Bring both from one model"
        )
    left, head = set(rest), None

    def take(part, shapes, architecture):
        tree, _ = from_hugging_face(tensors, backbone | {part: shapes}, architecture, source=source)
        params[part] = tree[part]
        modules = [name for names in HEADS[architecture].values() for name in names]
        left.difference_update([n for n in rest if n.rpartition(".")[0] in modules])

    if theirs["model_type"] == "electra":
        if any(name.startswith("discriminator_predictions.") for name in rest):
            take("discriminator_head", shapes["discriminator_head"], "ElectraForPreTraining")
        if any(name.startswith("generator_predictions.") for name in rest):
            take("generator_head", shapes["generator_head"], "ElectraForMaskedLM")
            left -= {"generator_lm_head.bias", "generator_lm_head.weight"}
            _check_tied(tensors, source)
        architecture = _architecture(theirs)
        head = _fine_tuned_head(tensors, architecture)
        if head is not None:
            scanned = FineTuned(dataclasses.replace(config, scan_layers=True), head)
            take("head", _shapes(scanned)["head"], architecture)
    return params, head, sorted(left)


def _shapes(model) -> dict[str, Any]:
    ids = jax.ShapeDtypeStruct((1, 1), np.int32)
    return jax.eval_shape(model.init, jax.random.key(0), ids)["params"]


def _fine_tuned_head(tensors: Mapping[str, np.ndarray], architecture: str | None) -> Head | None:
    """The head of a fine-tuned ELECTRA's class, where the file has it."""
    modules = HEADS.get(architecture, {}).get("head/output", ("",))
    bias = tensors.get(f"{modules[0]}.bias")
    if bias is None:
        return None
    if architecture == "ElectraForSequenceClassification":
        return SequenceHead(len(bias), hidden_layer=True)
    if architecture == "ElectraForTokenClassification":
        return TokenHead(len(bias), dropout_rate=0.1)
    return SpanHead(joint=False, answerability=False)


def _check_tied(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """The generator's output table, where a file has it, must be the table of words."""
    table = tensors.get("generator_lm_head.weight")
    if table is not None and not np.array_equal(
        table, tensors["embeddings.word_embeddings.weight"]
    ):
        raise UserError(
            f"{source}: generator_lm_head.weight differs from the word embeddings: a generator "
            "with an output table of its own cannot be read"
        )


def _read_config(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(f"{directory} is no directory: give one with config.json and weights")
    if not (directory / "config.json").is_file():
        found = ", ".join(sorted(entry.name for entry in directory.iterdir())[:8]) or "nothing"
        raise UserError(
            f"{directory} is no Hugging Face model: expected config.json, found {found}"
        )
    return read_json(directory / "config.json")
