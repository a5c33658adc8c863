"""A directory of Hugging Face's, written: config.json, model.safetensors, tokenizer, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.config import ElectraConfig
from electra_jax.data.tokenization import Tokenizer
from electra_jax.hugging_face.tokenizer import save_hugging_face_tokenizer


def write_hugging_face(
    directory: Path,
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    card: str,
) -> None:
    """Writes a model that transformers 4 and 5 load.

    Args:
      directory: created, with those above it.
      tensors: from `to_hugging_face`.
      config: from `their_config`.
      tokenizer: the model's.
      card: the contents of README.md.
    """
    import safetensors.numpy

    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (directory / "config.json").write_text(text, encoding="utf-8")
    path = directory / "model.safetensors"
    safetensors.numpy.save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod((directory / "config.json").stat().st_mode)  # the library lets nobody else read it
    max_length = config["max_position_embeddings"]
    save_hugging_face_tokenizer(tokenizer, directory, max_length=max_length)
    (directory / "README.md").write_text(card, encoding="utf-8")


def their_config(
    config: ElectraConfig,
    architecture: str,
    *,
    pad_id: int,
    labels: tuple[str, ...] = (),
    problem_type: str | None = None,
) -> dict[str, Any]:
    """The contents of a config.json.

    Args:
      config: ours; of "ElectraForMaskedLM" the generator's numbers are taken.
      architecture: their class.
      pad_id: of the padding token.
      labels: names of the outputs of a fine-tuned model.
      problem_type: what their class for sequences is to take the outputs for.
    """
    is_generator = architecture == "ElectraForMaskedLM"
    sizes = config.generator if is_generator else config.discriminator
    has_own_tables = is_generator and config.sharing == "none"
    theirs = {
        "architectures": [architecture],
        "model_type": "electra",
        "vocab_size": config.vocab_size,
        "embedding_size": sizes.hidden_size if has_own_tables else config.embedding_size,
        "hidden_size": sizes.hidden_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": sizes.intermediate_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout_rate,
        "attention_probs_dropout_prob": config.attention_dropout_rate,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.type_vocab_size,
        "initializer_range": config.init_stddev,
        "layer_norm_eps": config.layer_norm_epsilon,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "pad_token_id": pad_id,
        "dtype": "float32",
    }
    if labels:
        theirs["id2label"] = {str(i): label for i, label in enumerate(labels)}
        theirs["label2id"] = {label: i for i, label in enumerate(labels)}
    return theirs | ({"problem_type": problem_type} if problem_type else {})


def with_hidden_layer(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters whose `head` has a hidden layer, of a model whose head has none.

    Hugging Face's class for sequences has such a layer, with GELU. This one adds so much to each
    element of the vector at [CLS] that GELU leaves it as it is (x * Phi(x) is x in float32 from 6
    on), and the output takes it off again. Elements are bounded by the last LayerNorm, |x| <=
    |scale| sqrt(D - 1) + |bias|, so the outputs are the same up to the rounding of that sum.
    """
    norm, output = params["encoder"]["layers"]["output_layer_norm"], params["head"]["output"]
    scale, bias = (np.abs(np.float64(norm[name][-1])) for name in ("scale", "bias"))
    width = len(scale)
    shift = np.ceil(6.0 + (scale * np.sqrt(width - 1) + bias).max())
    kernel = np.float64(output["kernel"])
    return dict(params) | {
        "head": {
            "dense": {
                "kernel": np.eye(width, dtype=np.float32),
                "bias": np.full(width, shift, np.float32),
            },
            "output": {
                "kernel": np.float32(kernel),
                "bias": np.float32(output["bias"] - shift * kernel.sum(axis=0)),
            },
        }
    }


def in_units_of(params: Mapping[str, Any], low: float, high: float) -> dict[str, Any]:
    """Parameters of a regression whose output is the number itself, not its place in a range."""
    output = params["head"]["output"]
    scaled = {
        "kernel": np.float32(np.float64(output["kernel"]) * (high - low)),
        "bias": np.float32(np.float64(output["bias"]) * (high - low) + low),
    }
    return dict(params) | {"head": dict(params["head"]) | {"output": scaled}}
