"""Our parameters and Hugging Face's, by one table that is read in both directions.

Theirs hold linear layers as `weight` [out, in], one tensor a layer and apart for query, key and
value; ours as `kernel` [in, out], side by side for query, key and value, stacked along a leading
axis for all layers. Nothing is computed: going there and back is exact to the bit.

Source of their names: `modeling_electra.py` and `modeling_bert.py` of transformers 4.57 and 5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from electra_jax.errors import UserError
from electra_jax.optimizer import parameter_name

# Ours: theirs. Lone tensors first, then modules, whose tensors are in _LEAVES; {} is a layer.
_TENSORS = {
    "embeddings/word": "embeddings.word_embeddings.weight",
    "embeddings/position": "embeddings.position_embeddings.weight",
    "embeddings/token_type": "embeddings.token_type_embeddings.weight",
    "generator_head/bias": "generator_lm_head.bias",
}
_LAYER = "encoder.layer.{}."
_SELF = _LAYER + "attention.self."
_BACKBONE = {
    "embeddings/layer_norm": ("embeddings.LayerNorm",),
    "encoder/projection": ("embeddings_project",),
    "encoder/layers/qkv": (_SELF + "query", _SELF + "key", _SELF + "value"),
    "encoder/layers/attention_out": (_LAYER + "attention.output.dense",),
    "encoder/layers/attention_layer_norm": (_LAYER + "attention.output.LayerNorm",),
    "encoder/layers/feed_forward_in": (_LAYER + "intermediate.dense",),
    "encoder/layers/feed_forward_out": (_LAYER + "output.dense",),
    "encoder/layers/output_layer_norm": (_LAYER + "output.LayerNorm",),
}
_LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight"}
# The head of each class of theirs. Their `generator_lm_head.weight` is the table of words and in
# no file.
HEADS: dict[str, dict[str, tuple[str, ...]]] = {
    "ElectraModel": {},
    "ElectraForPreTraining": {
        "discriminator_head/dense": ("discriminator_predictions.dense",),
        "discriminator_head/output": ("discriminator_predictions.dense_prediction",),
    },
    "ElectraForMaskedLM": {
        "generator_head/dense": ("generator_predictions.dense",),
        "generator_head/layer_norm": ("generator_predictions.LayerNorm",),
    },
    "ElectraForSequenceClassification": {
        "head/dense": ("classifier.dense",),
        "head/output": ("classifier.out_proj",),
    },
    "ElectraForTokenClassification": {"head/output": ("classifier",)},
    "ElectraForQuestionAnswering": {"head/output": ("qa_outputs",)},
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one tensor of ours is made of theirs.

    Attributes:
      ours: its name, as in "encoder/layers/qkv/kernel".
      theirs: their names, for each layer (or once) those that lie side by side.
      transposed: whether their last two axes are swapped.
      stacked: whether ours has a leading axis for the layers.
    """

    ours: str
    theirs: tuple[tuple[str, ...], ...]
    transposed: bool
    stacked: bool

    def write(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Ours to theirs."""
        layers = array if self.stacked else array[None]
        return {
            name: np.ascontiguousarray(part.T if self.transposed else part)
            for names, layer in zip(self.theirs, layers, strict=True)
            for name, part in zip(names, np.split(layer, len(names), axis=-1), strict=True)
        }

    def read(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Theirs to ours."""
        layers = [
            np.concatenate([tensors[n].T if self.transposed else tensors[n] for n in names], -1)
            for names in self.theirs
        ]
        return np.stack(layers) if self.stacked else layers[0]

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Their shapes, from ours."""
        axes = shape[1:] if self.stacked else shape
        width = axes[-1] // len(self.theirs[0])
        theirs = (width, *axes[:-1]) if self.transposed else (*axes[:-1], width)
        return {name: theirs for names in self.theirs for name in names}


def rule_for(name: str, num_layers: int, architecture: str) -> Rule | None:
    """The rule of a parameter of ours; None if that class of theirs has no such tensor."""
    if name in _TENSORS:
        if name.startswith("generator_head/") and architecture != "ElectraForMaskedLM":
            return None
        return Rule(name, ((_TENSORS[name],),), transposed=False, stacked=False)
    module, _, leaf = name.rpartition("/")
    theirs = (_BACKBONE | HEADS[architecture]).get(module)
    if theirs is None:
        return None
    stacked = module.startswith("encoder/layers/")
    names = [
        tuple(f"{their.format(layer)}.{_LEAVES[leaf]}" for their in theirs)
        for layer in range(num_layers if stacked else 1)
    ]
    return Rule(name, tuple(names), transposed=leaf == "kernel", stacked=stacked)


def to_hugging_face(params: Any, architecture: str) -> dict[str, np.ndarray]:
    """Tensors of a `model.safetensors` of theirs.

    Args:
      params: of `modeling.Electra` or `heads.FineTuned`. For "ElectraForMaskedLM" the generator
        is taken, for the others the discriminator; heads of other classes are left out.
      architecture: one of `HEADS`.

    Returns:
      Arrays by name; those of the backbone begin with "electra." except in "ElectraModel".

    Raises:
      UserError: if that class has a head that these parameters lack, or has no such head.
    """
    if architecture == "ElectraForMaskedLM":
        params = params | {
            ours: params[f"generator_{ours}"]
            for ours in ("embeddings", "encoder")
            if f"generator_{ours}" in params
        }
    head = next(iter(HEADS[architecture]), "").partition("/")[0]
    parts = {part: params[part] for part in ("embeddings", "encoder", head) if part in params}
    num_layers = len(params["encoder"]["layers"]["qkv"]["bias"])
    prefix = "" if architecture == "ElectraModel" else "electra."
    tensors, found = {}, set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts):
        name = parameter_name(path)
        rule = rule_for(name, num_layers, architecture)
        if rule is None:
            raise UserError(f"{architecture} has no counterpart of the parameter {name!r}")
        found.add(name.rpartition("/")[0])
        is_head = name.startswith(f"{head}/")
        for their_name, array in rule.write(np.asarray(leaf)).items():
            tensors[their_name if is_head else prefix + their_name] = array
    lacking = sorted(set(HEADS[architecture]) - found)
    if lacking:
        raise UserError(
            f"{architecture} needs {', '.join(lacking)}, which these parameters lack: they are of "
            "another kind of head"
        )
    return tensors


def from_hugging_face(
    tensors: Mapping[str, np.ndarray], shapes: Any, architecture: str, *, source: str
) -> tuple[Any, list[str]]:
    """A tree of ours from tensors of theirs.

    Args:
      tensors: arrays by name, without the backbone's prefix (`plain_names`).
      shapes: a tree like the one wanted, of things with a `shape`.
      architecture: the class of theirs (one of `HEADS`) that the tree's head is of.
      source: where the tensors are from, for the error.

    Returns:
      The tree as float32 arrays, and the sorted names of the tensors that it has no use for.

    Raises:
      UserError: listing every tensor that is missing or has another shape.
    """
    num_layers = shapes["encoder"]["layers"]["qkv"]["bias"].shape[0]
    missing, unequal, used = [], [], set()

    def read(path, leaf):
        rule = rule_for(parameter_name(path), num_layers, architecture)
        expected = rule.shapes(leaf.shape)
        used.update(expected)
        missing.extend(name for name in expected if name not in tensors)
        wrong = [n for n, shape in expected.items() if n in tensors and tensors[n].shape != shape]
        unequal.extend(f"{n} {list(tensors[n].shape)} for {list(expected[n])}" for n in wrong)
        return rule.read(tensors) if not missing and not unequal else None

    tree = jax.tree_util.tree_map_with_path(read, shapes)
    problems = (("missing", missing), ("of another shape than config.json says", unequal))
    if missing or unequal:
        listed = "; ".join(
            f"{what}: {', '.join(sorted(names))}" for what, names in problems if names
        )
        raise UserError(
            f"{source} does not fit its config.json: {listed}. Bring both from one model"
        )
    return tree, sorted(set(tensors) - used)


def plain_names(tensors: Mapping[str, np.ndarray], *, source: str) -> dict[str, np.ndarray]:
    """Their names as the table has them: no prefix, `weight` and `bias` in LayerNorms, no buffers.

    Old files have `LayerNorm.gamma` and `.beta`, and the buffer `position_ids`.

    Raises:
      UserError: if two tensors get the same name.
    """
    plain: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        short = name.removeprefix("electra.").removeprefix("bert.")
        short = short.replace("LayerNorm.gamma", "LayerNorm.weight")
        short = short.replace("LayerNorm.beta", "LayerNorm.bias")
        if short in ("embeddings.position_ids", "embeddings.token_type_ids"):
            continue
        if short in plain:
            raise UserError(f"{source} holds {short!r} under two names: bring it anew")
        plain[short] = array
    return plain
