"""Sizes of the networks, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from electra_jax.config import ElectraConfig, EncoderConfig
from electra_jax.errors import UserError
from electra_jax.modeling import Electra


def parameter_counts(config):
    """By top-level module."""
    model = Electra(dataclasses.replace(config, scan_layers=True))
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    return {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in shapes.items()}


@pytest.mark.parametrize(
    ("config", "encoder", "discriminator_head", "generator", "everything"),
    [
        (ElectraConfig.small(), 13_483_008, 66_049, 647_162, 14_196_219),
        (ElectraConfig.small_plus_plus(), 13_483_008, 66_049, 9_573_818, 23_122_875),
        (ElectraConfig.base(), 108_891_648, 591_361, 9_903_418, 119_386_427),
        (ElectraConfig.large(), 334_092_288, 1_050_625, 19_512_378, 354_655_291),
    ],
    ids=["small", "small_plus_plus", "base", "large"],
)
def test_parameter_counts_are_the_original_code_s(
    config, encoder, discriminator_head, generator, everything
):
    counts = parameter_counts(config)
    assert counts["embeddings"] + counts["encoder"] == encoder
    assert counts["discriminator_head"] == discriminator_head
    assert counts["generator_encoder"] + counts["generator_head"] == generator
    assert sum(counts.values()) == everything


def test_padding_the_vocabulary_adds_no_parameters():
    counts = [
        parameter_counts(ElectraConfig.small(vocab_pad_multiple=multiple))
        for multiple in (1, 128, 1000)
    ]
    assert counts[0] == counts[1] == counts[2]


def test_sharing_decides_which_parameters_the_generator_has():
    counts = parameter_counts(ElectraConfig.small(sharing="all"))
    assert set(counts) == {"embeddings", "encoder", "discriminator_head", "generator_head"}
    counts = parameter_counts(ElectraConfig.small(sharing="none"))
    assert counts["generator_embeddings"] == (30522 + 512 + 2 + 2) * 64


@pytest.mark.parametrize(
    ("config", "generator"),
    [
        (ElectraConfig.small(), EncoderConfig(12, 64, 1, 256)),
        (ElectraConfig.small_plus_plus(), EncoderConfig(12, 256, 4, 1024)),
        (ElectraConfig.base(), EncoderConfig(12, 256, 4, 1024)),
        (ElectraConfig.base(generator_size=0.33333), EncoderConfig(12, 256, 4, 1024)),
        (ElectraConfig.large(), EncoderConfig(24, 256, 4, 1024)),
        (ElectraConfig.small(generator_depth=0.5), EncoderConfig(6, 64, 1, 256)),
        (ElectraConfig.small(sharing="all"), EncoderConfig(12, 256, 4, 1024)),
    ],
)
def test_generator_sizes_are_the_original_code_s(config, generator):
    assert config.generator == generator


def test_named_sizes_take_overrides():
    config = ElectraConfig.base(generator_size=0.5, dropout_rate=0.0)
    assert (config.hidden_size, config.generator.hidden_size, config.dropout_rate) == (768, 384, 0)
    assert ElectraConfig.small_plus_plus(generator_size=0.5).generator.hidden_size == 128


@pytest.mark.parametrize(
    ("vocab_size", "multiple", "padded"),
    [(30522, 128, 30592), (30592, 128, 30592), (30522, 1, 30522), (1, 128, 128)],
)
def test_padded_vocabulary_is_the_next_multiple(vocab_size, multiple, padded):
    config = ElectraConfig(vocab_size=vocab_size, vocab_pad_multiple=multiple)
    assert config.padded_vocab_size == padded


POSITIVE = (
    "vocab_size embedding_size hidden_size num_layers num_heads max_positions "
    "type_vocab_size vocab_pad_multiple generator_size generator_depth"
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: 0}, f"model.{name}=0 must be positive") for name in POSITIVE.split()),
        ({"vocab_size": -3}, "model.vocab_size=-3 must be positive"),
        ({"generator_size": float("nan")}, "model.generator_size=nan must be positive"),
        ({"dropout_rate": 1.0}, "model.dropout_rate=1.0 must be in [0, 1)"),
        ({"dropout_rate": -0.1}, "model.dropout_rate=-0.1 must be in [0, 1)"),
        ({"attention_dropout_rate": 2}, "model.attention_dropout_rate=2 must be in [0, 1)"),
        (
            {"sharing": "some"},
            "model.sharing='some' is unknown: use one of embeddings, none, all, apart, "
            "disentangled",
        ),
        ({"dtype": "float16"}, "model.dtype='float16' is unknown: use one of float32, bfloat16"),
        (
            {"num_heads": 3},
            "model.num_heads=3 does not divide model.hidden_size=256: "
            "choose a number of heads that does",
        ),
        (
            {"generator_size": 0.7},
            "model.generator_size=0.7 gives a generator of width 179, which its 2 heads do not "
            "divide: choose another fraction",
        ),
    ],
)
def test_impossible_numbers_are_refused_by_name_with_the_remedy(fields, message):
    with pytest.raises(UserError) as error:
        ElectraConfig(**fields)
    assert str(error.value) == message
