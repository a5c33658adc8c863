"""The modern encoder: rotations, windows and packed rows against NumPy and against itself."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax import corruption
from electra_jax.attention import Mask
from electra_jax.config import ElectraConfig, EncoderConfig
from electra_jax.errors import UserError
from electra_jax.layers import unstack_layers
from electra_jax.modeling import Electra
from electra_jax.modern import rotate, rotations, views
from electra_jax.objectives.electra import ElectraObjective
from electra_jax.optimizer import LAYER_DEPTH_RULES, MUON_RULES, WEIGHT_DECAY_RULES, rules_by_name
from electra_jax.parallel import FSDP_RULES

LENGTH = 24


@pytest.fixture(scope="module")
def modern(config):
    """Three layers, of which the first and the last look everywhere; windows of 8."""
    return Electra(
        dataclasses.replace(
            config,
            architecture="modern",
            num_layers=3,
            global_every=2,
            local_window=8,
            layer_norm_epsilon=1e-5,
        )
    )


@pytest.fixture(scope="module")
def params(modern, random_params):
    return random_params(modern)


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(1).integers(5, 100, (3, LENGTH)).astype(np.int32)


def apply(model, method):
    return jax.jit(functools.partial(model.apply, method=method))


def test_rotations_are_complex_multiplication_and_depend_on_distances_alone():
    sizes = EncoderConfig(num_layers=1, hidden_size=16, num_heads=2, intermediate_size=8)
    cosines, sines = rotations(LENGTH, sizes, 10_000.0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, LENGTH, 16)).astype(np.float32)
    turned = np.asarray(rotate(x, cosines, sines, 2)).reshape(LENGTH, 2, 8)
    pairs = x.reshape(LENGTH, 2, 8)
    as_complex = pairs[..., :4] + 1j * pairs[..., 4:]
    angles = np.arange(LENGTH)[:, None] * 10_000.0 ** (-np.arange(4) / 4)
    expected = as_complex * np.exp(1j * angles)[:, None]
    np.testing.assert_allclose(turned[..., :4], expected.real, atol=1e-5)
    np.testing.assert_allclose(turned[..., 4:], expected.imag, atol=1e-5)

    same = np.broadcast_to(x[:, :1], x.shape)
    turned = np.asarray(rotate(same, cosines, sines, 2))[0]
    scores = turned @ turned.T
    for distance in (1, 5):
        np.testing.assert_allclose(np.diag(scores, distance), scores[0, distance], atol=1e-4)


def test_local_layers_look_at_half_a_window_to_each_side(modern):
    mask = Mask.of_tokens(jnp.arange(LENGTH)[None] < 20)
    everywhere, near = views(mask, LENGTH, modern.config, modern.config.discriminator)
    assert everywhere.mask.bias.shape == (1, 1, 1, LENGTH)
    i, j = np.indices((LENGTH, LENGTH))
    np.testing.assert_array_equal(
        np.asarray(near.mask.bias)[0, 0] == 0, (abs(i - j) <= 4) & (j < 20)
    )


def test_layers_scanned_apart_and_at_some_positions_are_the_same(modern, params, ids):
    positions = np.int32([[3, 0, 23], [5, 6, 7], [1, 2, 22]])
    expected = apply(modern, "encode")({"params": params}, ids)
    unrolled = Electra(dataclasses.replace(modern.config, scan_layers=False))
    found = apply(unrolled, "encode")({"params": params}, ids)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    apart = Electra(dataclasses.replace(unrolled.config, stacked_layers=False))
    found = apply(apart, "encode")({"params": unstack_layers(params)}, ids)
    np.testing.assert_allclose(found, expected, atol=2e-5)

    with_tokens = Electra(dataclasses.replace(modern.config, extra_head="tokens"))
    everything = with_tokens.init(jax.random.key(0), ids)["params"] | params

    def hidden_at(positions):
        projection, logits = apply(with_tokens, "reconstruct")(
            {"params": everything}, ids, positions
        )
        return projection.features, logits

    (features, logits), (all_features, all_logits) = hidden_at(positions), hidden_at(None)
    at = np.take_along_axis(np.asarray(all_features), positions[..., None], axis=1)
    np.testing.assert_allclose(features, at, atol=2e-5)
    np.testing.assert_allclose(
        logits, np.take_along_axis(np.asarray(all_logits), positions, axis=1), atol=2e-5
    )


@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_texts_that_share_a_row_know_nothing_of_each_other(
    architecture, modern, random_params, ids
):
    """Rotary positions tell distances alone, so a text gives what it gives in a row of its own."""
    model = Electra(dataclasses.replace(modern.config, architecture=architecture))
    params = random_params(model)
    lengths = (9, 8, 5)
    packed = np.zeros((1, LENGTH), np.int32)
    numbers = np.zeros((1, LENGTH), np.int32)
    start = 0
    for number, length in enumerate(lengths):
        packed[0, start : start + length] = ids[number, :length]
        numbers[0, start : start + length] = number + 1
        start += length
    discriminate = apply(model, "discriminate")
    together = np.asarray(discriminate({"params": params}, packed, numbers))[0]
    changed = packed.copy()
    changed[0, :9] = (packed[0, :9] - 5 + 1) % 95 + 5
    others = np.asarray(discriminate({"params": params}, changed, numbers))[0]
    np.testing.assert_array_equal(others[9:22], together[9:22])
    assert (others[:9] != together[:9]).any()
    if architecture == "modern":
        start = 0
        for number, length in enumerate(lengths):
            row = np.zeros((1, LENGTH), np.int32)
            row[0, :length] = ids[number, :length]
            alone = np.asarray(discriminate({"params": params}, row, row != 0))[0, :length]
            np.testing.assert_allclose(together[start : start + length], alone, atol=2e-5)
            start += length


def test_documents_of_a_row_end_with_their_separators():
    row = np.int32([[2, 7, 8, 3, 9, 3, 7, 3, 0, 0]])
    found = corruption.documents(row, row != 0, sep_id=3)
    np.testing.assert_array_equal(found, [[1, 1, 1, 1, 2, 2, 3, 3, 0, 0]])


@pytest.mark.parametrize("sharing", ["embeddings", "none", "all", "disentangled"])
def test_every_parameter_has_its_rules_and_none_is_a_bias_but_the_last(modern, ids, sharing):
    model = Electra(dataclasses.replace(modern.config, sharing=sharing))
    params = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    names = {
        "/".join(str(key.key) for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    biases = {name for name in names if name.endswith("/bias")}
    assert biases == {"generator_head/bias", "discriminator_head/output/bias"}
    assert not any("position" in name or "token_type" in name for name in names)
    for rules in (WEIGHT_DECAY_RULES, MUON_RULES, FSDP_RULES):
        rules_by_name(params, rules, what="rules")
    encoder = {part: params[part] for part in ("embeddings", "encoder")}
    rules_by_name(encoder, LAYER_DEPTH_RULES, what="rules")
    counted = rules_by_name(params, MUON_RULES, what="rules")
    assert counted["encoder"]["layers"]["gated_in"]["kernel"] == 2


def test_it_is_an_encoder_under_the_same_objective(modern, params, batch, objective):
    """The gradient reaches every parameter but the normalisation that the first layer passes by."""
    separate = dataclasses.replace(objective, separate_documents=True)
    assert isinstance(separate, ElectraObjective)

    @jax.jit
    def gradients(params):
        inputs = separate.prepare(jax.random.key(0), batch)
        return jax.grad(
            lambda p: separate.loss(p, inputs, jax.random.key(1), apply_fn=modern.apply)[0]
        )(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(params)):
        leaf = np.asarray(leaf)
        assert np.isfinite(leaf).all()
        if "attention_layer_norm" in str(path):
            assert (leaf[0] == 0).all() and (leaf[1:] != 0).any()
        else:
            assert (leaf != 0).any(), path


def test_what_cannot_be_is_refused(modern, params, tmp_path):
    for fields, message in (
        ({"architecture": "gpt"}, "model.architecture='gpt' is unknown: use one of bert, modern"),
        ({"architecture": "modern", "num_heads": 256}, "is 1 wide: choose widths"),
        ({"global_every": 0}, "model.global_every=0 must be positive"),
    ):
        with pytest.raises(UserError, match=message):
            ElectraConfig(**fields)
    with pytest.raises(ValueError, match="but model.max_positions=64"):
        modern.apply({"params": params}, np.ones((1, 65), np.int32), method="encode")
    assert "window" in dataclasses.replace(modern.config, dtype="bfloat16", dropout_rate=0.0,
                                           attention_dropout_rate=0.0).why_not_cudnn()  # fmt: skip


def test_its_cost_is_counted_with_three_matrices_a_feed_forward_layer(
    modern, objective, batch, equations
):
    config = dataclasses.replace(modern.config, vocab_size=128)  # the formula counts no padding
    model = Electra(config)
    params = jax.eval_shape(model.init, jax.random.key(0), batch["input_ids"])["params"]

    def loss(params):
        inputs = objective.prepare(jax.random.key(0), batch)
        return objective.loss(params, inputs, jax.random.key(1), apply_fn=model.apply)[0]

    counted = 0
    for times, equation in equations(jax.make_jaxpr(jax.grad(loss))(params).jaxpr):
        if equation.primitive.name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contract)
            counted += 2 * times * inner * math.prod(equation.outvars[0].aval.shape)
    rows, length = batch["input_ids"].shape
    assert counted == pytest.approx(
        objective.flops(config, batch_size=rows, seq_len=length), rel=0.03
    )
