"""What fine-tuning takes from pre-training, and what it refuses to guess."""

import dataclasses

import jax
import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.heads import FineTuned, SequenceHead
from electra_jax.modeling import Electra
from electra_jax.transfer import check_same_encoder, transfer_params


@pytest.fixture(scope="module")
def pretrained(config, random_params):
    return random_params(Electra(config), seed=1)


@pytest.fixture(scope="module")
def initialised(config, random_params):
    return random_params(FineTuned(config, SequenceHead(3)), seed=2)


def assert_trees_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("sharing", ["embeddings", "none", "all"])
def test_the_encoder_is_the_pretrained_one_and_the_head_is_fresh(
    config, random_params, initialised, sharing
):
    config = dataclasses.replace(config, sharing=sharing)
    pretrained = random_params(Electra(config), seed=1)
    params = transfer_params(pretrained, initialised)
    assert set(params) == {"embeddings", "encoder", "head"}
    for part in ("embeddings", "encoder"):
        assert_trees_equal(params[part], pretrained[part])
        leaves = zip(jax.tree.leaves(params[part]), jax.tree.leaves(initialised[part]), strict=True)
        assert all((one != other).any() for one, other in leaves)
    assert_trees_equal(params["head"], initialised["head"])


def test_a_run_of_another_task_gives_its_encoder_and_of_the_same_task_its_head_too(
    config, random_params, initialised
):
    other_task = random_params(FineTuned(config, SequenceHead(7, hidden_layer=True)), seed=3)
    params = transfer_params(other_task, initialised)
    assert_trees_equal(params["encoder"], other_task["encoder"])
    assert_trees_equal(params["head"], initialised["head"])
    same_task = random_params(FineTuned(config, SequenceHead(3)), seed=4)
    assert_trees_equal(transfer_params(same_task, initialised, fresh=()), same_task)
    with pytest.raises(UserError, match="missing: head/output/bias, head/output/kernel"):
        transfer_params({k: same_task[k] for k in ("embeddings", "encoder")}, same_task, fresh=())


def test_values_get_the_network_s_type(pretrained, initialised):
    half = jax.tree.map(np.float16, pretrained)
    params = transfer_params(half, initialised)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    expected = np.float32(half["embeddings"]["word"])
    np.testing.assert_array_equal(params["embeddings"]["word"], expected)


def test_every_mismatch_of_both_sides_is_listed_in_one_line(pretrained, initialised):
    theirs, ours = (jax.tree.map(lambda x: x, tree) for tree in (pretrained, initialised))
    del theirs["embeddings"]["word"], theirs["encoder"]["projection"]
    theirs["embeddings"]["rotary"] = np.zeros(3)
    theirs["encoder"]["layers"]["qkv"]["bias"] = np.zeros((4, 96))
    theirs["pooler"] = {"kernel": np.zeros((2, 2))}
    with pytest.raises(UserError) as error:
        transfer_params(theirs, ours)
    assert str(error.value) == (
        "the pretrained parameters do not fit the model: missing: embeddings/word, "
        "encoder/projection/bias, encoder/projection/kernel; unexpected: embeddings/rotary, "
        "pooler/kernel; of another shape than the model's: encoder/layers/qkv/bias [4, 96] for "
        "[2, 96]. Give the model the sizes of the pretrained one, or another pretrained one"
    )
    # What is left out on purpose is left out by a rule that can be taken away.
    with pytest.raises(UserError, match="unexpected: discriminator_head/dense/bias, .*generator"):
        transfer_params(pretrained, initialised, ignored=())


def test_encoders_that_compute_otherwise_are_refused_though_their_shapes_fit(config):
    same = dataclasses.replace(config, dtype="bfloat16", generator_size=1.0, dropout_rate=0.3)
    check_same_encoder(config, same)
    other = dataclasses.replace(config, num_heads=4, layer_norm_epsilon=1e-6)
    with pytest.raises(UserError) as error:
        check_same_encoder(config, other)
    assert str(error.value) == (
        "model.num_heads=4 (pretrained: 2), model.layer_norm_epsilon=1e-06 (pretrained: 1e-12): "
        "the model is not the pretrained one: take its values"
    )
