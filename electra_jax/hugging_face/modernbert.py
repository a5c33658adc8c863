"""Models with `architecture="modern"` as Hugging Face's ModernBERT classes.

Source of their names: `modeling_modernbert.py` of transformers 5. Nothing is computed but
transposes; what has no counterpart is refused.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from electra_jax.config import ElectraConfig
from electra_jax.errors import UserError
from electra_jax.optimizer import parameter_name
from electra_jax.special_ids import SpecialIds

# Ours: theirs, of the encoder; {} is a layer. Theirs begin with "model.".
_BACKBONE = {
    "embeddings/word": "embeddings.tok_embeddings.weight",
    "embeddings/layer_norm/scale": "embeddings.norm.weight",
    "encoder/layers/attention_layer_norm/scale": "layers.{}.attn_norm.weight",
    "encoder/layers/qkv/kernel": "layers.{}.attn.Wqkv.weight",
    "encoder/layers/attention_out/kernel": "layers.{}.attn.Wo.weight",
    "encoder/layers/feed_forward_layer_norm/scale": "layers.{}.mlp_norm.weight",
    "encoder/layers/gated_in/kernel": "layers.{}.mlp.Wi.weight",
    "encoder/layers/feed_forward_out/kernel": "layers.{}.mlp.Wo.weight",
    "encoder/final_layer_norm/scale": "final_norm.weight",
}
# And of the head of each class. The decoder's weight is the table of words and in no file.
MODERN_HEADS = {
    "ModernBertForMaskedLM": {
        "generator_head/dense/kernel": "head.dense.weight",
        "generator_head/layer_norm/scale": "head.norm.weight",
        "generator_head/bias": "decoder.bias",
    },
    "ModernBertForTokenClassification": {
        "discriminator_head/dense/kernel": "head.dense.weight",
        "discriminator_head/layer_norm/scale": "head.norm.weight",
        "discriminator_head/output/kernel": "classifier.weight",
        "discriminator_head/output/bias": "classifier.bias",
    },
}


def why_not_modernbert(config: ElectraConfig, architecture: str) -> str | None:
    """What of a model their classes have no place for; None: nothing."""
    is_generator = architecture == "ModernBertForMaskedLM"
    sizes = config.generator if is_generator else config.discriminator
    width = config.generator_embedding_size if is_generator else config.embedding_size
    if width != sizes.hidden_size:
        return (
            f"its tables are {width} wide and its layers {sizes.hidden_size}, and ModernBERT has "
            "no projection between them"
        )
    if is_generator and config.generator_kind != "masked":
        return "it is no masked language model"
    return None


def to_modernbert(params: Any, architecture: str) -> dict[str, np.ndarray]:
    """Tensors of a `model.safetensors` of theirs.

    Args:
      params: of `modeling.Electra`. For "ModernBertForMaskedLM" the generator is taken.
      architecture: one of `MODERN_HEADS`.

    Raises:
      UserError: for a parameter without a counterpart.
    """
    head = next(iter(MODERN_HEADS[architecture])).partition("/")[0]
    if head == "generator_head":
        own = {part: params.get(f"generator_{part}") for part in ("embeddings", "encoder")}
        params = params | {part: tree for part, tree in own.items() if tree is not None}
    parts = {part: params[part] for part in ("embeddings", "encoder", head)}
    names, tensors = _BACKBONE | MODERN_HEADS[architecture], {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts):
        name = parameter_name(path)
        if name not in names:
            raise UserError(f"{architecture} has no counterpart of the parameter {name!r}")
        array = np.asarray(leaf)
        layers = array if name.startswith("encoder/layers/") else [array]
        for number, tensor in enumerate(layers):
            theirs = names[name].format(number)
            if theirs == "layers.0.attn_norm.weight":
                continue  # the first layer does not normalise what it attends with
            prefix = "model." if name in _BACKBONE else ""
            transposed = tensor.T if name.endswith("/kernel") else tensor
            tensors[prefix + theirs] = np.ascontiguousarray(transposed)
    return tensors


def modernbert_config(
    config: ElectraConfig, architecture: str, *, special_ids: SpecialIds
) -> dict[str, Any]:
    """The contents of a config.json; of "ModernBertForMaskedLM" with the generator's numbers.

    Raises:
      UserError: if the model does not fit their classes.
    """
    problem = why_not_modernbert(config, architecture)
    if problem:
        raise UserError(f"{architecture} cannot be written: {problem}")
    is_generator = architecture == "ModernBertForMaskedLM"
    sizes = config.generator if is_generator else config.discriminator
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": config.rope_theta_global},
        "sliding_attention": {"rope_type": "default", "rope_theta": config.rope_theta_local},
    }
    theirs = {
        "architectures": [architecture],
        "model_type": "modernbert",
        "vocab_size": config.vocab_size,
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads,
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "max_position_embeddings": config.max_positions,
        "initializer_range": config.init_stddev,
        "norm_eps": config.layer_norm_epsilon,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
        "attention_dropout": config.attention_dropout_rate,
        "embedding_dropout": config.dropout_rate,
        "mlp_dropout": config.dropout_rate,
        "local_attention": config.local_window,
        "global_attn_every_n_layers": config.global_every,
        "global_rope_theta": config.rope_theta_global,
        "local_rope_theta": config.rope_theta_local,
        "rope_parameters": rope,
        "pad_token_id": special_ids.pad,
        "cls_token_id": special_ids.cls,
        "bos_token_id": special_ids.cls,
        "sep_token_id": special_ids.sep,
        "eos_token_id": special_ids.sep,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if not is_generator:
        theirs |= {"id2label": {"0": "replaced"}, "label2id": {"replaced": 0}}
    return theirs
