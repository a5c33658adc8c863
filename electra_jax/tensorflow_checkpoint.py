"""Checkpoints of the original code (TensorFlow 1), read into our parameters.

TensorFlow is asked for the file's arrays and for nothing else. Source of the names: `modeling.py`
and `run_pretraining.py` of the original, and `load_tf_weights_in_electra` of transformers 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data.tokenization import WordPieceTokenizer
from electra_jax.errors import UserError
from electra_jax.hugging_face import HuggingFaceModel, join_pair, model_from_tensors
from electra_jax.pretrained import Pretrained

# Every head of the original's models has 64 units.
_HEAD_SIZE = 64
# What a checkpoint holds besides parameters.
_SKIPPED = re.compile(r"(^|/)(global_step|temperature|adam_m|adam_v)$")
_LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}


def load_tensorflow_checkpoint(
    path: Path | str, *, vocab: Path | str | None = None, lowercase: bool = True
) -> Pretrained:
    """Reads a checkpoint of the original's pre-training.

    Args:
      path: as TensorFlow calls it (`.../model.ckpt-1000000`), or its directory, for the newest.
      vocab: the vocab.txt; None: the one beside the checkpoint.
      lowercase: whether the vocabulary is of lower-cased text.

    Raises:
      UserError: if TensorFlow is missing, there is no such checkpoint, or it is no ELECTRA's.
    """
    beside = Path(path) if Path(path).is_dir() else Path(path).parent
    tokenizer = WordPieceTokenizer.from_vocab(vocab or beside / "vocab.txt", lowercase)
    model = model_from_arrays(_read(Path(path)), source=str(path))
    if model.config.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"{path} has {model.config.vocab_size} rows of words, and the vocabulary "
            f"{tokenizer.vocab_size} pieces: give the model's own with --vocab"
        )
    return Pretrained(model.config, model.params, tokenizer, {})


def model_from_arrays(arrays: Mapping[str, np.ndarray], *, source: str) -> HuggingFaceModel:
    """A model from a checkpoint's arrays by name.

    Raises:
      UserError: if they are not those of an ELECTRA of the original's.
    """
    arrays = {name: array for name, array in arrays.items() if not _SKIPPED.search(name)}
    word = arrays.get("electra/embeddings/word_embeddings")
    if word is None:
        found = ", ".join(sorted(arrays)[:3]) or "nothing"
        raise UserError(
            f"{source} is no checkpoint of ELECTRA: expected electra/embeddings/word_embeddings, "
            f"found {found}"
        )
    tensors: dict[str, dict[str, np.ndarray]] = {"discriminator": {}, "generator": {}}
    for name, array in arrays.items():
        part, their_name, transposed = _translate(name, source)
        tensor = np.asarray(array.T if transposed else array, np.float32)
        for network in tensors if part == "both" else (part,):
            tensors[network][their_name] = tensor
    models = {}
    for network, architecture, head in (
        ("discriminator", "ElectraForPreTraining", "discriminator_predictions."),
        ("generator", "ElectraForMaskedLM", "generator_predictions."),
    ):
        theirs = tensors[network]
        if not any(name.startswith(head) for name in theirs):
            continue
        if not any(name.startswith("encoder.") for name in theirs):  # one encoder for both
            theirs = theirs | {
                name: tensor
                for name, tensor in tensors["discriminator"].items()
                if name.startswith(("encoder.", "embeddings_project."))
            }
        config = _config(theirs, word.shape, architecture, source)
        models[network] = model_from_tensors(theirs, config, source=f"{source} ({network})")
    if len(models) == 2:
        return join_pair(models["discriminator"], models["generator"], source=source)
    if not models:
        raise UserError(f"{source} has no head of a discriminator or a generator")
    return next(iter(models.values()))


def _translate(name: str, source: str) -> tuple[str, str, bool]:
    """Which network a name is of, Hugging Face's name for it, and whether it is transposed."""
    scope, _, rest = name.partition("/")
    heads = {"discriminator_predictions": "discriminator", "generator_predictions": "generator"}
    if name == "generator_predictions/output_bias":
        return "generator", "generator_lm_head.bias", False
    if scope in heads:
        network, rest = heads[scope], name.replace("/dense_1/", "/dense_prediction/")
    elif scope == "electra" and rest.startswith("embeddings/"):
        network = "both"
    elif scope in ("electra", "generator"):
        network = "discriminator" if scope == "electra" else "generator"
    else:
        raise UserError(f"{source} holds {name!r}, which no ELECTRA of the original has")
    module, _, leaf = rest.rpartition("/")
    if leaf not in _LEAVES:  # a table
        module, leaf = rest, "table"
    module = re.sub(r"\blayer_(\d+)", r"layer.\1", module).replace("/", ".")
    return network, f"{module}.{_LEAVES.get(leaf, 'weight')}", leaf == "kernel"


def _config(
    tensors: Mapping[str, np.ndarray], table: tuple[int, int], architecture: str, source: str
) -> dict[str, Any]:
    """Hugging Face's config.json, from the shapes."""
    layers = {
        int(found[1]) for name in tensors if (found := re.match(r"encoder\.layer\.(\d+)\.", name))
    }
    try:
        intermediate, hidden = tensors["encoder.layer.0.intermediate.dense.weight"].shape
        positions = tensors["embeddings.position_embeddings.weight"].shape[0]
        types = tensors["embeddings.token_type_embeddings.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"{source} lacks {error}: bring the whole checkpoint") from None
    return {
        "model_type": "electra",
        "architectures": [architecture],
        "vocab_size": table[0],
        "embedding_size": table[1],
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, hidden // _HEAD_SIZE),
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
    }


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        import tensorflow
    except ImportError:
        raise UserError(
            "reading checkpoints of TensorFlow needs TensorFlow, which is not installed: pip "
            "install tensorflow-cpu"
        ) from None
    try:
        reader = tensorflow.train.load_checkpoint(str(path))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (ValueError, OSError, tensorflow.errors.OpError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is no checkpoint of TensorFlow ({reason})") from None
