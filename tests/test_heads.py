"""Fine-tuning's heads, against the same computation written again in float64 NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_electra import dense, encode_row, gelu
from scipy import special

from electra_jax.errors import UserError
from electra_jax.heads import FineTuned, SequenceHead, SpanHead, TokenHead, answer_mask
from electra_jax.layers import take_positions, unstack_layers
from electra_jax.modeling import Electra

HEADS = {
    "sequence": SequenceHead(3),
    "hugging_face_sequence": SequenceHead(3, hidden_layer=True),
    "token": TokenHead(5),
    "joint": SpanHead(hidden_size=24),
    "apart": SpanHead(joint=False, answerability_sees_start=False),
    "plain": SpanHead(joint=False, answerability=False),
}
SPANS = ("joint", "apart", "plain")
# The layers under `head`, with the kernel's shape.
LAYERS = {
    "sequence": {"output": (32, 3)},
    "hugging_face_sequence": {"dense": (32, 32), "output": (32, 3)},
    "token": {"output": (32, 5)},
    "joint": {
        "start": (32, 1),
        "end_hidden": (64, 24),
        "end_output": (24, 1),
        "answerability_hidden": (64, 24),
        "answerability_output": (24, 1),
    },
    "apart": {"output": (32, 2), "answerability_output": (32, 1)},
    "plain": {"output": (32, 2)},
}
LENGTH, BEAM = 32, 3


@pytest.fixture(scope="module")
def models(config):
    config = dataclasses.replace(config, num_layers=1)
    return {name: FineTuned(config, head) for name, head in HEADS.items()}


@pytest.fixture(scope="module")
def params(models, random_params):
    """One encoder under all the heads."""
    trees = {name: random_params(model, seed=2) for name, model in models.items()}
    return {name: trees["joint"] | {"head": tree["head"]} for name, tree in trees.items()}


@pytest.fixture(scope="module")
def arrays(batch):
    """Ids, attention mask and segments of four rows, from 32 tokens down to 7."""
    ids = batch["input_ids"][[0, 3, 5, 7]]
    mask = ids != 0
    types = np.cumsum(np.roll(ids == 3, 1, axis=1) & (np.arange(LENGTH) > 0), axis=1)
    return ids, mask, np.minimum(types, 1).astype(np.int32) * mask


STARTS = np.array([20, 0, 9, 4], np.int32)  # of which the second is [CLS]


@pytest.fixture(scope="module")
def run(models):
    """Every head's outputs and beams, compiled together."""

    @jax.jit
    def run(params, ids, mask, types, starts):
        def apply(name, *arrays, **kwargs):
            return models[name].apply({"params": params[name]}, ids, mask, types, **kwargs)

        outputs = {name: apply(name) for name in models if name not in SPANS}
        outputs |= {name: apply(name, start_positions=starts) for name in SPANS}
        outputs["greedy"] = apply("joint")
        for size in (BEAM, LENGTH, 10 * LENGTH):
            outputs[f"beams of {size}"] = {
                name: apply(name, beam_size=size, method="predict_spans")
                for name in SPANS
                if name == "joint" or size == LENGTH
            }
        return outputs

    return run


@pytest.fixture(scope="module")
def outputs(run, params, arrays):
    return jax.tree.map(np.asarray, run(params, *arrays, STARTS))


@pytest.fixture(scope="module")
def hidden(models, params, arrays):
    """Float64 [B, L, D]."""
    tree = jax.tree.map(np.float64, params["joint"])
    heads = models["joint"].config.num_heads
    return np.stack(
        [
            encode_row(tree["embeddings"], tree["encoder"], *row, heads)
            for row in zip(*arrays, strict=True)
        ]
    )


@pytest.fixture(scope="module")
def allowed(arrays):
    """By the words of the rule: [CLS], and whatever follows the first [SEP] up to padding."""
    allowed = np.zeros(arrays[0].shape, bool)
    for row, ids in enumerate(arrays[0]):
        separators = np.nonzero(ids == 3)[0]
        allowed[row, 0] = True
        allowed[row, separators[0] + 1 : separators[-1] + 1] = True
    return allowed


def head_of(params, name):
    return jax.tree.map(np.float64, params[name]["head"])


def ends_given(head, hidden, start):
    """Of one row: logits [L] on [start's vector ; token's vector], token by token."""
    pairs = np.stack([np.concatenate([hidden[start], token]) for token in hidden])
    return dense(gelu(dense(pairs, head["end_hidden"])), head["end_output"])[:, 0]


@pytest.mark.parametrize("name", HEADS)
def test_parameters_have_their_names_and_shapes(models, name):
    model = models[name]
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    head = {layer: {"kernel": shape, "bias": shape[1:]} for layer, shape in LAYERS[name].items()}
    assert jax.tree.map(lambda x: x.shape, shapes.pop("head")) == head
    pretrained = jax.eval_shape(Electra(model.config).init, jax.random.key(0), ids)["params"]
    assert shapes == {part: pretrained[part] for part in ("embeddings", "encoder")}
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {np.dtype(np.float32)}


def test_fresh_heads_are_glorot_uniform_with_zero_biases(models):
    init = jax.jit(models["joint"].init)
    head = init(jax.random.key(0), np.zeros((1, 8), np.int32))["params"]["head"]
    for layer, shape in LAYERS["joint"].items():
        limit = np.sqrt(6 / sum(shape))
        assert 0.8 * limit < np.abs(head[layer]["kernel"]).max() <= limit, layer
        assert not head[layer]["bias"].any()


def test_sequence_and_token_logits_equal_numpy(params, outputs, hidden):
    first = hidden[:, 0]
    expected = dense(first, head_of(params, "sequence")["output"])
    np.testing.assert_allclose(outputs["sequence"], expected, rtol=0, atol=1e-5)
    head = head_of(params, "hugging_face_sequence")
    expected = dense(gelu(dense(first, head["dense"])), head["output"])
    np.testing.assert_allclose(outputs["hugging_face_sequence"], expected, rtol=0, atol=1e-5)
    expected = dense(hidden, head_of(params, "token")["output"])
    np.testing.assert_allclose(outputs["token"], expected, rtol=0, atol=1e-5)


def test_answers_may_start_and_end_at_cls_and_in_the_second_segment_alone(arrays, allowed):
    np.testing.assert_array_equal(answer_mask(*(jnp.asarray(x) for x in arrays[1:])), allowed)
    assert allowed[:, 0].all() and allowed.sum() < arrays[1].sum()


@pytest.mark.parametrize("name", SPANS)
def test_span_logits_equal_numpy(params, outputs, hidden, allowed, name):
    head, found = head_of(params, name), outputs[name]
    if name == "joint":
        starts = dense(hidden, head["start"])[..., 0]
        ends = np.stack([ends_given(head, *row) for row in zip(hidden, STARTS, strict=True)])
    else:
        starts, ends = np.moveaxis(dense(hidden, head["output"]), -1, 0)
    for logits, expected in ((found["start_logits"], starts), (found["end_logits"], ends)):
        np.testing.assert_allclose(logits[allowed], expected[allowed], rtol=0, atol=2e-5)
        assert (logits[~allowed] < -1e8).all() and np.isfinite(logits).all()
    if name == "plain":
        assert set(found) == {"start_logits", "end_logits"}
        return
    vectors = hidden[:, 0]
    if name == "joint":
        probabilities = special.softmax(np.where(allowed, starts, -np.inf), axis=1)
        vectors = np.concatenate([vectors, (probabilities[..., None] * hidden).sum(1)], axis=1)
        vectors = gelu(dense(vectors, head["answerability_hidden"]))
    expected = dense(vectors, head["answerability_output"])[:, 0]
    np.testing.assert_allclose(found["no_answer_logits"], expected, rtol=0, atol=1e-5)


def test_without_a_start_the_ends_are_told_the_best_one(run, params, arrays, outputs):
    best = outputs["joint"]["start_logits"].argmax(axis=1).astype(np.int32)
    assert (best != STARTS).any()
    told = run(params, *arrays, best)["joint"]["end_logits"]
    np.testing.assert_allclose(outputs["greedy"]["end_logits"], told, atol=1e-6)
    assert np.abs(told - outputs["joint"]["end_logits"]).max() > 1e-3


def brute_force(head, name, hidden, allowed):
    """Of one row: log-probabilities of every start [L], and of every end given each [L, L]."""

    def log_softmax(logits):
        return special.log_softmax(np.where(allowed, logits, -np.inf))

    if name == "joint":
        starts = log_softmax(dense(hidden, head["start"])[:, 0])
        return starts, np.stack(
            [log_softmax(ends_given(head, hidden, start)) for start in range(len(hidden))]
        )
    starts, ends = dense(hidden, head["output"]).T
    return log_softmax(starts), np.tile(log_softmax(ends), (len(hidden), 1))


@pytest.mark.parametrize("name", SPANS)
def test_a_beam_as_long_as_the_row_is_brute_force(params, outputs, hidden, allowed, name):
    beams = outputs[f"beams of {LENGTH}"][name]
    for row in range(len(hidden)):
        starts, ends = brute_force(head_of(params, name), name, hidden[row], allowed[row])
        many = allowed[row].sum()
        found = beams["starts"][row, :many]
        assert sorted(found) == list(np.nonzero(allowed[row])[0])
        np.testing.assert_allclose(beams["start_log_probs"][row, :many], starts[found], atol=3e-5)
        assert (np.diff(beams["start_log_probs"][row]) <= 0).all()
        assert (beams["start_log_probs"][row, many:] < -1e8).all()
        for rank, start in enumerate(found):
            found_ends = beams["ends"][row, rank, :many]
            log_probs = beams["end_log_probs"][row, rank]
            assert sorted(found_ends) == list(np.nonzero(allowed[row])[0])
            np.testing.assert_allclose(log_probs[:many], ends[start, found_ends], atol=3e-5)
            assert (np.diff(log_probs) <= 0).all() and (log_probs[many:] < -1e8).all()
        expected = starts[0] + ends[0, 0]
        assert beams["null_log_probs"][row] == pytest.approx(expected, abs=3e-5)


def test_a_short_beam_is_the_beginning_of_a_long_one_and_none_is_longer_than_the_row(outputs):
    short, whole = (outputs[f"beams of {size}"]["joint"] for size in (BEAM, LENGTH))
    for name in ("starts", "start_log_probs"):
        np.testing.assert_allclose(short[name], whole[name][:, :BEAM], atol=1e-6)
    for name in ("ends", "end_log_probs"):
        np.testing.assert_allclose(short[name], whole[name][:, :BEAM, :BEAM], atol=1e-6)
    for name in ("null_log_probs", "no_answer_logits"):
        np.testing.assert_allclose(short[name], whole[name], atol=1e-6)
    np.testing.assert_array_equal(whole["no_answer_logits"], outputs["joint"]["no_answer_logits"])
    assert outputs[f"beams of {10 * LENGTH}"]["joint"]["ends"].shape == (4, LENGTH, LENGTH)


def test_token_ids_under_padding_change_nothing(run, params, arrays, outputs):
    ids, mask, types = arrays
    other = np.where(mask, ids, np.random.default_rng(2).integers(5, 100, ids.shape))
    assert (other != ids).any()
    changed = jax.tree.map(np.asarray, run(params, other.astype(np.int32), mask, types, STARTS))
    before = dict(outputs)
    for found in (before, changed):
        found["token"] = found["token"][mask]
        for size in (LENGTH, 10 * LENGTH):  # whose last starts are padding
            del found[f"beams of {size}"]
    jax.tree.map(np.testing.assert_array_equal, before, changed)


def test_every_parameter_gets_a_gradient(models, params, arrays):
    names = ("hugging_face_sequence", "token", "joint")
    rng = np.random.default_rng(3)

    @jax.jit
    def gradients(params):
        def loss(params):
            total = 0.0
            for name in names:
                kwargs = {"start_positions": STARTS} if name == "joint" else {}
                outputs = models[name].apply({"params": params[name]}, *arrays, **kwargs)
                for x in jax.tree.leaves(outputs):
                    total += jnp.where(x > -1e8, x * rng.standard_normal(x.shape), 0.0).sum()
            return total

        return jax.grad(loss)(params)

    found = gradients({name: params[name] for name in names})
    for path, gradient in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(gradient).all() and gradient.any(), jax.tree_util.keystr(path)


@pytest.fixture(scope="module")
def two_layers(config, random_params):
    model = FineTuned(config, HEADS["token"])
    return model, random_params(model, seed=4)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_hidden_states_at_some_positions_are_those_of_all(two_layers, arrays, scan_layers):
    model, params = two_layers
    model = dataclasses.replace(
        model, config=dataclasses.replace(model.config, scan_layers=scan_layers)
    )
    positions = np.array([[0, 3], [5, 5], [7, 1], [2, 0]], np.int32)
    target = np.random.default_rng(0).standard_normal((4, 2, 32)).astype(np.float32)
    shared = {name: params[name] for name in ("embeddings", "encoder")}

    @jax.jit
    def both(shared):
        def loss(shared, fast):
            encode = functools.partial(model.apply, {"params": shared}, *arrays, method="encode")
            hidden = encode(positions=positions) if fast else take_positions(encode(), positions)
            return (target * hidden).sum(), hidden

        gradient = jax.grad(loss, has_aux=True)
        return gradient(shared, True), gradient(shared, False)

    (found, some), (expected, everywhere) = both(shared)
    np.testing.assert_allclose(some, everywhere, atol=1e-5)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max() + 1e-7)


def test_layers_apart_give_the_same_outputs(two_layers, arrays):
    model, params = two_layers
    config = dataclasses.replace(model.config, scan_layers=False, stacked_layers=False)
    apart = dataclasses.replace(model, config=config)
    found = jax.jit(apart.apply)({"params": unstack_layers(params)}, *arrays)
    np.testing.assert_allclose(found, jax.jit(model.apply)({"params": params}, *arrays), atol=1e-5)
    with pytest.raises(UserError, match="model.scan_layers=True needs model.stacked_layers=True"):
        dataclasses.replace(config, scan_layers=True)


def test_dropouts_are_the_encoder_s_and_those_of_the_head(config, monkeypatch):
    sites = []

    def record(x, seeds, site, rate):
        sites.append((site, rate, x.shape))
        return x

    monkeypatch.setattr("electra_jax.layers.dropout", record)
    config = dataclasses.replace(config, num_layers=1, scan_layers=False, dropout_rate=0.2)
    ids, seeds = (jax.ShapeDtypeStruct(shape, t) for shape, t in (((2, 8), "i4"), ((2, 2), "u4")))

    def of_head(head, seeds=seeds):
        model = FineTuned(config, head)
        variables = jax.eval_shape(model.init, jax.random.key(0), ids)
        assert not sites  # none without seeds
        jax.eval_shape(model.apply, variables, ids, ids, ids, seeds)
        encoder, head_sites = sites[:4], sites[4:]
        assert [rate for _, rate, _ in encoder] == [0.2, 0.1, 0.2, 0.2]
        assert len({site for site, _, _ in sites}) == len(sites)
        sites.clear()
        return [(rate, shape) for _, rate, shape in head_sites]

    assert of_head(SequenceHead(3)) == [(0.1, (2, 32))]
    assert of_head(SequenceHead(3, dropout_rate=0.0)) == []
    assert of_head(SequenceHead(3, hidden_layer=True)) == [(0.1, (2, 32))] * 2
    assert of_head(TokenHead(3)) == []
    assert of_head(TokenHead(3, dropout_rate=0.3)) == [(0.3, (2, 8, 32))]
    assert of_head(SpanHead()) == []


@pytest.mark.parametrize("name", HEADS)
def test_in_bfloat16_outputs_are_float32_and_hidden_states_bfloat16(models, name):
    model = models[name]
    model = FineTuned(dataclasses.replace(model.config, dtype="bfloat16"), model.head)
    ids = jax.ShapeDtypeStruct((2, 8), np.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), ids)

    def dtypes(**kwargs):
        outputs = jax.eval_shape(lambda v, x: model.apply(v, x, **kwargs), variables, ids)
        return {x.dtype for x in jax.tree.leaves(outputs)}

    assert dtypes() == {jnp.float32.dtype}
    assert dtypes(method="encode") == {jnp.bfloat16.dtype}
    if name in SPANS:
        assert dtypes(method="predict_spans") == {jnp.float32.dtype, jnp.int32.dtype}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda: SequenceHead(0), "head.num_outputs=0 must be a whole number of at least 1"),
        (lambda: TokenHead(2.0), "head.num_outputs=2.0 must be a whole number of at least 1"),
        (lambda: SequenceHead(2, dropout_rate=1.0), "head.dropout_rate=1.0 must be in [0, 1)"),
        (
            lambda: SpanHead(hidden_size=0),
            "head.hidden_size=0 must be a whole number of at least 1",
        ),
    ],
)
def test_impossible_heads_are_refused(head, message):
    with pytest.raises(UserError) as error:
        head()
    assert str(error.value) == message
