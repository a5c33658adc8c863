"""Checkpoints of the original code: its names, translated back by hand here."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from test_convert import tokenizer as tokenizer  # noqa: PLC0414 (a fixture)

from electra_jax import cli
from electra_jax.errors import UserError
from electra_jax.hugging_face import to_hugging_face
from electra_jax.modeling import Electra
from electra_jax.pretrained import load_pretrained
from electra_jax.tensorflow_checkpoint import model_from_arrays


def original_names(params, sharing):
    """What the original's checkpoint of these parameters holds."""
    arrays = {"global_step": np.int64(7), "electra/embeddings/word_embeddings/adam_m": np.zeros(1)}
    for architecture, scope in (
        ("ElectraForPreTraining", "electra"),
        ("ElectraForMaskedLM", "electra" if sharing == "all" else "generator"),
    ):
        for name, array in to_hugging_face(params, architecture).items():
            name = name.replace("encoder.layer.", "encoder.layer_")
            name = name.replace("discriminator_predictions.dense_prediction", "@1")
            is_matrix = array.ndim == 2 and "embeddings." not in name
            module, _, leaf = name.replace("@1", "discriminator_predictions.dense_1").rpartition(
                "."
            )
            if "LayerNorm" in module:
                leaf = {"weight": "gamma", "bias": "beta"}[leaf]
            elif leaf == "weight":
                leaf = "kernel"
            if name == "generator_lm_head.bias":
                module, leaf = "generator_predictions", "output_bias"
            if "embeddings." in name and "LayerNorm" not in name:
                module, leaf = name.removesuffix(".weight").rpartition(".")[::2]
            if module.startswith("electra."):
                own = "embeddings." in name or module == "electra.embeddings"
                module = ("electra" if own else scope) + module.removeprefix("electra")
            arrays[f"{module}.{leaf}".replace(".", "/")] = array.T if is_matrix else array
    return arrays


@pytest.mark.parametrize("sharing", ["embeddings", "all"])
def test_the_original_s_names_become_ours(sharing, config, random_params):
    config = dataclasses.replace(
        config, sharing=sharing, hidden_size=128, num_heads=2, generator_size=0.5
    )
    params = random_params(Electra(config), seed=9)
    arrays = original_names(params, sharing)
    assert "electra/encoder/layer_0/attention/self/query/kernel" in arrays
    assert "discriminator_predictions/dense_1/bias" in arrays
    assert ("generator/encoder/layer_1/output/LayerNorm/gamma" in arrays) == (sharing != "all")
    model = model_from_arrays(arrays, source="x.ckpt")
    assert model.config.sharing == sharing
    assert model.config.discriminator == config.discriminator
    assert model.config.generator == config.generator
    jax.tree.map(np.testing.assert_array_equal, params, model.params)


def test_what_is_no_electra_is_refused(config, random_params):
    with pytest.raises(UserError, match="found bert/embeddings/word_embeddings"):
        model_from_arrays({"bert/embeddings/word_embeddings": np.zeros((2, 2))}, source="x")
    params = random_params(Electra(config))
    arrays = original_names(params, "embeddings")
    with pytest.raises(UserError, match="'two_tower/x', which no ELECTRA of the original has"):
        model_from_arrays(arrays | {"two_tower/x": np.zeros(1)}, source="x")
    del arrays["electra/embeddings/position_embeddings"]
    with pytest.raises(UserError, match="x lacks 'embeddings.position_embeddings.weight'"):
        model_from_arrays(arrays, source="x")


def test_a_checkpoint_is_converted(
    config,
    random_params,
    tokenizer,
    tmp_path,
    monkeypatch,
    capsys,  # noqa: F811
):
    config = dataclasses.replace(config, hidden_size=64, num_heads=1, generator_size=1.0)
    params = random_params(Electra(config), seed=9)
    arrays = original_names(params, "embeddings")
    tokenizer.save(tmp_path)
    monkeypatch.setattr("electra_jax.tensorflow_checkpoint._read", lambda path: arrays)
    source, output = str(tmp_path / "model.ckpt-7"), tmp_path / "converted"
    assert cli.main(["convert", "from-tf", source, str(output)]) == 0
    jax.tree.map(np.testing.assert_array_equal, params, load_pretrained(output).params)
    assert cli.main(["convert", "from-tf", source, str(output)]) == 2
    assert "exists: choose another directory" in capsys.readouterr().err


def test_without_tensorflow_it_says_what_to_install(tokenizer, tmp_path, monkeypatch, capsys):  # noqa: F811
    tokenizer.save(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert cli.main(["convert", "from-tf", str(tmp_path), str(tmp_path / "converted")]) == 2
    assert "pip install tensorflow-cpu" in capsys.readouterr().err
