"""The networks, against the same computation written again in float64 NumPy."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_electra import dense, encode_row, layer_norm
from numpy_electra import gelu as numpy_gelu

from electra_jax import attention, layers
from electra_jax.dropout import dropout_seeds
from electra_jax.layers import gelu
from electra_jax.modeling import Electra

LAYER = {
    f"{module}/{tensor}"
    for module, tensors in {
        "qkv": ("kernel", "bias"),
        "attention_out": ("kernel", "bias"),
        "attention_layer_norm": ("scale", "bias"),
        "feed_forward_in": ("kernel", "bias"),
        "feed_forward_out": ("kernel", "bias"),
        "output_layer_norm": ("scale", "bias"),
    }.items()
    for tensor in tensors
}


def embedding_names(module):
    tensors = ("word", "position", "token_type", "layer_norm/scale", "layer_norm/bias")
    return {f"{module}/{tensor}" for tensor in tensors}


def encoder_names(module, projection=True):
    names = {f"{module}/layers/{name}" for name in LAYER}
    return names | {f"{module}/projection/{t}" for t in ("kernel", "bias") if projection}


DISCRIMINATOR = embedding_names("embeddings") | encoder_names("encoder")
HEADS = {
    f"discriminator_head/{module}/{tensor}"
    for module in ("dense", "output")
    for tensor in ("kernel", "bias")
} | {
    f"generator_head/{name}"
    for name in ("dense/kernel", "dense/bias", "layer_norm/scale", "layer_norm/bias", "bias")
}


@pytest.mark.parametrize(
    ("changes", "generator"),
    [
        ({}, encoder_names("generator_encoder", projection=False)),  # as wide as the tables
        ({"generator_size": 1.0}, encoder_names("generator_encoder")),
        (
            {"sharing": "none"},
            embedding_names("generator_embeddings")
            | encoder_names("generator_encoder", projection=False),
        ),
        ({"sharing": "all"}, set()),
    ],
)
def test_parameters_have_their_names_and_are_stacked_by_layer(config, changes, generator):
    model = Electra(dataclasses.replace(config, **changes))
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    leaves = {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }
    assert set(leaves) == DISCRIMINATOR | HEADS | generator
    assert leaves["encoder/layers/qkv/kernel"].shape == (2, 32, 96)
    assert leaves["encoder/layers/feed_forward_in/kernel"].shape == (2, 32, 128)
    assert {leaf.dtype for leaf in leaves.values()} == {np.dtype(np.float32)}


def test_fresh_parameters_are_truncated_normals_zeros_and_ones(params):
    glorot = {"encoder/projection/kernel", "discriminator_head/output/kernel"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, leaf = "/".join(key.key for key in path), np.asarray(leaf)
        if name.endswith("bias"):
            assert not leaf.any(), name
        elif name.endswith("scale"):
            assert (leaf == 1).all(), name
        elif name in glorot:
            limit = np.sqrt(6 / sum(leaf.shape))
            assert 0.8 * limit < np.abs(leaf).max() <= limit, name
        else:
            assert np.abs(leaf).max() <= 0.04, name
            # 0.02 cut at two deviations has a standard deviation of 0.0176. Small tables vary.
            assert leaf.std() == pytest.approx(0.0176, rel=5 / np.sqrt(leaf.size)), name
    kernels = np.asarray(params["encoder"]["layers"]["qkv"]["kernel"])
    assert not np.array_equal(kernels[0], kernels[1])


def reference(config, params, ids, positions, attention_mask, types):
    """Generator's logits, discriminator's logits and hidden states."""
    params = jax.tree.map(np.float64, params)
    tables = params["generator_embeddings" if config.sharing == "none" else "embeddings"]
    encoder = params["encoder" if config.sharing == "all" else "generator_encoder"]
    generated, discriminated, hiddens = [], [], []
    for row in zip(ids, positions, attention_mask, types, strict=True):
        row_ids, row_positions, *masks = row
        hidden = encode_row(tables, encoder, row_ids, *masks, config.generator.num_heads)
        head = params["generator_head"]
        x = layer_norm(numpy_gelu(dense(hidden[row_positions], head["dense"])), head["layer_norm"])
        generated.append(x @ tables["word"].T + head["bias"])
        hidden = encode_row(
            params["embeddings"], params["encoder"], row_ids, *masks, config.num_heads
        )
        head = params["discriminator_head"]
        discriminated.append(dense(numpy_gelu(dense(hidden, head["dense"])), head["output"])[:, 0])
        hiddens.append(hidden)
    return np.stack(generated), np.stack(discriminated), np.stack(hiddens)


@pytest.fixture(scope="module")
def arrays(batch):
    """Ids, positions to predict, attention mask with uneven padding, and segments."""
    ids = batch["input_ids"][[0, 3, 5, 7]]
    rng = np.random.default_rng(1)
    mask = ids != 0
    positions = np.stack([rng.integers(0, length, 5) for length in mask.sum(1)])
    types = (np.arange(32)[None] > mask.sum(1, keepdims=True) // 2) & mask
    return ids, positions, mask, types.astype(np.int32)


def forward(model):
    """The three outputs, compiled together."""

    @jax.jit
    def run(params, ids, positions, attention_mask, types):
        def apply(method, *arrays):
            return model.apply({"params": params}, *arrays, method=method)

        return (
            apply("generate", ids, positions, attention_mask, types),
            apply("discriminate", ids, attention_mask, types),
            apply("encode", ids, attention_mask, types),
        )

    return run


@pytest.fixture(scope="module")
def run(model):
    return forward(model)


@pytest.fixture(scope="module")
def random(model, random_params):
    return random_params(model)


def assert_equals_reference(outputs, config, params, arrays):
    generated, discriminated, hidden = reference(config, params, *arrays)
    assert outputs[0].shape == (*arrays[1].shape, config.padded_vocab_size)
    np.testing.assert_allclose(outputs[0][..., : config.vocab_size], generated, rtol=0, atol=2e-5)
    np.testing.assert_allclose(outputs[1], discriminated, rtol=0, atol=2e-5)
    np.testing.assert_allclose(outputs[2], hidden, rtol=0, atol=2e-5)
    assert {x.dtype for x in outputs} == {np.dtype(np.float32)}


def test_outputs_equal_numpy_with_shared_embeddings(config, run, random, arrays):
    assert_equals_reference(run(random, *arrays), config, random, arrays)


@pytest.mark.parametrize("sharing", ["none", "all"])
def test_outputs_equal_numpy_with_nothing_or_everything_shared(
    config, random_params, arrays, sharing
):
    # A generator of its own depth, and layers written out instead of looped over.
    config = dataclasses.replace(
        config, sharing=sharing, scan_layers=False, num_layers=2, generator_depth=0.5
    )
    model = Electra(config)
    params = random_params(model)
    assert_equals_reference(forward(model)(params, *arrays), config, params, arrays)


def test_token_ids_under_padding_change_nothing(run, random, arrays):
    ids, positions, mask, types = arrays
    other = np.where(mask, ids, np.random.default_rng(2).integers(0, 100, ids.shape))
    assert (other != ids).any()
    before, after = run(random, *arrays), run(random, other.astype(np.int32), *arrays[1:])
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(np.asarray(before[1])[mask], np.asarray(after[1])[mask])
    np.testing.assert_array_equal(np.asarray(before[2])[mask], np.asarray(after[2])[mask])


def test_no_mask_and_no_types_mean_no_padding_and_one_segment(model, random, run, arrays):
    ids, positions, mask, types = arrays
    explicit = run(random, ids, positions, np.ones_like(mask), np.zeros_like(types))

    @jax.jit
    def implicit(params, ids):
        return model.apply({"params": params}, ids, method="discriminate")

    np.testing.assert_allclose(implicit(random, ids), explicit[1], atol=1e-6)


@pytest.fixture(scope="module")
def scanned_and_unrolled(config, random, arrays):
    """Loss and gradients of both, on a batch of which one row is nothing but padding."""
    ids, _, mask, types = (np.copy(x) for x in arrays)
    ids[1], mask[1], types[1] = 0, False, 0
    target = np.random.default_rng(3).standard_normal(ids.shape).astype(np.float32)
    results = []
    for scan_layers in (True, False):
        model = Electra(dataclasses.replace(config, scan_layers=scan_layers))

        def loss(params, model=model):
            logits = model.apply({"params": params}, ids, mask, types, method="discriminate")
            return (logits * target).sum(), logits

        results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(random))
    return results


def test_scanned_layers_equal_written_out_ones(scanned_and_unrolled):
    ((_, scanned_logits), scanned), ((_, logits), unrolled) = scanned_and_unrolled
    np.testing.assert_allclose(scanned_logits, logits, atol=1e-5)
    for one, other in zip(jax.tree.leaves(scanned), jax.tree.leaves(unrolled), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max() + 1e-7)


def test_a_row_of_nothing_but_padding_gives_finite_outputs_and_gradients(scanned_and_unrolled):
    for (_, logits), gradients in scanned_and_unrolled:
        assert np.isfinite(logits).all()
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_gelu_and_its_gradient_are_x_phi_and_their_derivative():
    x = np.linspace(-6, 6, 241)
    cdf = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    values, gradients = jax.vmap(jax.value_and_grad(gelu))(jnp.float32(x))
    np.testing.assert_allclose(values, x * cdf, atol=1e-6)
    np.testing.assert_allclose(gradients, cdf + x * density, atol=1e-6)


def test_padding_the_vocabulary_does_not_change_logits_or_softmax(config, random, run, arrays):
    model = Electra(dataclasses.replace(config, vocab_pad_multiple=1))

    @jax.jit
    def generate(params, ids, *rest):
        return model.apply({"params": params}, ids, *rest, method="generate")

    padded, plain = np.asarray(run(random, *arrays)[0]), generate(random, *arrays)
    assert padded.shape[-1] == 128 and plain.shape[-1] == 100
    np.testing.assert_allclose(padded[..., :100], plain, atol=1e-6)
    probabilities = np.asarray(jax.nn.softmax(padded))
    assert (probabilities[..., 100:] == 0).all()
    np.testing.assert_allclose(probabilities[..., :100], jax.nn.softmax(plain), atol=1e-6)


def test_every_dropout_of_both_networks_is_a_site_of_its_own(config, monkeypatch):
    sites = []

    def record(x, seeds, site, rate):
        sites.append((site, rate))
        return x

    monkeypatch.setattr("electra_jax.layers.dropout", record)
    config = dataclasses.replace(
        config, scan_layers=False, dropout_rate=0.2, attention_dropout_rate=0.3
    )
    model, ids = Electra(config), jax.ShapeDtypeStruct((2, 8), np.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), ids)
    assert not sites  # none without seeds
    seeds = jax.ShapeDtypeStruct((2, 2), np.uint32)
    for method, positions in (("generate", (ids,)), ("discriminate", ())):
        apply = lambda *a, method=method: model.apply(*a, method=method)  # noqa: E731
        jax.eval_shape(apply, variables, ids, *positions, ids, ids, seeds)
    # Embeddings; in each of two layers attention probabilities, attention output, feed-forward.
    assert [rate for _, rate in sites] == ([0.2] + [0.3, 0.2, 0.2] * 2) * 2
    assert len({site for site, _ in sites}) == len(sites) == 14


# Precision, read off the traced program.


def trace(config, objective, batch, differentiate):
    model = Electra(dataclasses.replace(config, dtype="bfloat16"))
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]

    def loss(params, batch, key):
        inputs = objective.prepare(key, batch)
        return objective.loss(params, inputs, key, apply_fn=model.apply)

    if differentiate:
        loss = jax.grad(loss, has_aux=True)
    return jax.make_jaxpr(loss)(params, batch, jax.random.key(0)).jaxpr


def float32_products(jaxpr, equations):
    """Operands' shapes of the products not of bfloat16 with bfloat16."""
    return [
        tuple(operand.aval.shape for operand in equation.invars)
        for _, equation in equations(jaxpr)
        if equation.primitive.name == "dot_general"
        and any(operand.aval.dtype != jnp.bfloat16 for operand in equation.invars)
    ]


def test_in_bfloat16_the_forward_products_are_bfloat16(config, objective, batch, equations):
    jaxpr = trace(config, objective, batch, differentiate=False)
    # But for the discriminator's single output unit.
    assert float32_products(jaxpr, equations) == [((8, 32, 32), (32, 1))]


def test_in_bfloat16_the_backward_products_are_bfloat16(config, objective, batch, equations):
    jaxpr = trace(config, objective, batch, differentiate=True)
    # Forward, and backward to the kernel and to the hidden states.
    assert len(float32_products(jaxpr, equations)) == 3


def test_in_bfloat16_softmax_layer_norm_and_losses_are_float32(config, objective, batch, equations):
    jaxpr = trace(config, objective, batch, differentiate=False)
    found = {}
    for _, equation in equations(jaxpr):
        name = equation.primitive.name
        # `reduce_sum` and `reduce_max`: of softmax, LayerNorm and the losses.
        if name in ("exp", "log", "log1p", "rsqrt", "reduce_sum", "reduce_max"):
            dtype = equation.invars[0].aval.dtype
            if jnp.issubdtype(dtype, jnp.floating):
                found.setdefault(name, set()).add(str(dtype))
    assert found == dict.fromkeys(
        ("exp", "log", "log1p", "rsqrt", "reduce_sum", "reduce_max"), {"float32"}
    )


def test_in_bfloat16_logits_are_float32_and_hidden_states_bfloat16(config):
    model = Electra(dataclasses.replace(config, dtype="bfloat16"))
    ids, positions = (jax.ShapeDtypeStruct(shape, np.int32) for shape in ((2, 8), (2, 3)))
    variables = jax.eval_shape(model.init, jax.random.key(0), ids)

    def dtype(method, *arrays):
        apply = lambda *a: model.apply(*a, method=method)  # noqa: E731
        return jax.eval_shape(apply, variables, *arrays).dtype

    assert dtype("generate", ids, positions) == jnp.float32
    assert dtype("discriminate", ids) == jnp.float32
    assert dtype("encode", ids) == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_attention_row_by_row_is_attention_of_all_rows(monkeypatch, rate):
    """What a CPU does with long rows, beside what it does with short ones."""
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 3, 20, 8)).astype(np.float32)
    bias = rng.normal(size=(3, 1, 1, 20)).astype(np.float32)
    seeds = dropout_seeds(jax.random.key(0), np.arange(3))

    def run(scores_at_once):
        monkeypatch.setattr(attention, "_SCORES_AT_ONCE", scores_at_once)

        def loss(arrays):
            query, key, value, bias = arrays
            drop = lambda p, seeds: layers.drop(p, seeds, 5, rate)  # noqa: E731
            mask = attention.Mask(bias)
            output = attention.attention(
                query[:, :7], key, value, mask, 2, seeds, drop, rows_apart=True
            )
            return (output**2).sum(), output

        return jax.jit(jax.value_and_grad(loss, has_aux=True))((query, key, value, bias))

    ((_, output), gradients), ((_, expected), expected_gradients) = run(0), run(1 << 30)
    np.testing.assert_allclose(output, expected, atol=1e-6)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        assert np.abs(wanted).max() > 1e-3
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("positions", [False, True])
def test_flash_attention_is_told_the_same_mask(positions):
    """The call that cuDNN's kernel gets, given to XLA: what it is told of rows and padding."""
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 3, 12, 16)).astype(np.float32)
    tokens = np.arange(12)[None] < np.array([12, 7, 1])[:, None]
    mask = attention.Mask.of_tokens(tokens, are_first=True)
    if positions:
        where = np.array([[3, 0], [2, 6], [0, 0]])
        query, mask = np.take_along_axis(query, where[:, :, None], axis=1), mask.at(where)
    run = lambda f, *a: jax.jit(lambda q: f(q, key, value, mask, 2, *a))(query)  # noqa: E731
    expected = run(attention.attention, None, lambda p, seeds: p)
    found = run(attention.flash_attention, "xla")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    empty = attention.Mask.of_tokens(np.zeros_like(tokens), are_first=True)
    alone = attention.flash_attention(key, key, value, empty, 2, "xla")
    assert np.isfinite(alone).all()
    with pytest.raises(ValueError, match="padding that follows the tokens"):
        attention.flash_attention(query, key, value, attention.Mask.of_tokens(tokens), 2, "xla")


def test_a_mask_of_pairs_is_cut_to_the_positions_that_look():
    tokens = np.arange(6)[None] < np.array([6, 4])[:, None]
    causal = np.tril(np.ones((1, 6, 6), bool))
    mask = attention.Mask.of_tokens(tokens).only(causal)
    expected = causal & tokens[:, None, :]
    np.testing.assert_array_equal(np.asarray(mask.bias)[:, 0] == 0, expected)
    positions = np.array([[5, 0], [2, 3]])
    found = np.asarray(mask.at(positions).bias)[:, 0] == 0
    np.testing.assert_array_equal(found, np.stack([expected[i, positions[i]] for i in range(2)]))


def test_what_is_computed_again_backwards_changes_no_gradient(config, batch):
    """And the fewer residuals, the less memory: the layers' inputs alone are least."""
    ids = jnp.asarray(batch["input_ids"])
    seeds = dropout_seeds(jax.random.key(0), batch["row_ids"])
    memory, gradients = {}, {}
    for remat in ("none", "products", "layers"):
        model = Electra(dataclasses.replace(config, remat=remat))
        params = model.init(jax.random.key(0), ids)["params"]

        def loss(params, model=model):
            arrays = (ids, ids != 0, None, seeds)
            return (model.apply({"params": params}, *arrays, method="encode") ** 2).mean()

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        gradients[remat] = compiled(params)
        memory[remat] = compiled.memory_analysis().temp_size_in_bytes
    for remat in ("products", "layers"):
        for found, wanted in zip(
            jax.tree.leaves(gradients[remat]), jax.tree.leaves(gradients["none"]), strict=True
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert memory["layers"] < memory["products"] < memory["none"]
