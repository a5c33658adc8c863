"""Muon: orthogonal updates of each matrix, by NumPy; and what it composes with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from electra_jax.checkpoint import Checkpointer
from electra_jax.errors import UserError
from electra_jax.muon import orthogonalize, scale_by_muon
from electra_jax.optimizer import MUON_RULES, make_optimizer, rules_by_name
from electra_jax.parallel import make_mesh, state_shardings
from electra_jax.steps import train_step
from electra_jax.train_state import create_train_state

NUMBERS = dict(learning_rate=1.0, warmup_steps=0, num_train_steps=10)
MOMENTUM = 0.95
# Adam's moments after the first gradient g: 0.1 g and 0.001 g^2.
FIRST_ADAM = 0.1 / np.sqrt(0.001)


def newton_schulz(matrix):
    """Jordan et al. 2024, in float64: the five steps of their listing."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = np.float64(matrix)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


def muon_update(matrix):
    """With the root mean square of Liu et al. 2025."""
    return 0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)


def gradients_like(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), params)


def names_of(tree):
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("shape", [(8, 8), (6, 24), (24, 6), (5, 7)])
def test_a_matrix_is_orthogonalised_as_numpy_does(shape):
    matrix = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    result = orthogonalize({"kernel": matrix[:, None, :]})["kernel"][:, 0, :]
    np.testing.assert_allclose(result, newton_schulz(matrix), rtol=2e-3, atol=2e-4)
    singular = np.linalg.svd(np.asarray(result), compute_uv=False)
    assert 0.6 < singular.min() and singular.max() < 1.25
    # Of a larger gradient in the same direction nothing is to be seen.
    larger = orthogonalize({"kernel": 1000 * matrix[:, None, :]})["kernel"][:, 0, :]
    np.testing.assert_allclose(larger, result, rtol=1e-3, atol=1e-4)
    assert not np.asarray(orthogonalize({"k": np.zeros((3, 1, 4), np.float32)})["k"]).any()


def test_three_updates_by_hand():
    """Momentum in Nesterov's form, and decay and rate after it."""
    rng = np.random.default_rng(2)
    kernel = rng.standard_normal((6, 10))
    gradients = [rng.standard_normal((6, 10)) * size for size in (0.1, 0.01, 0.1)]
    tx = make_optimizer(name="muon", **NUMBERS | {"learning_rate": 0.3}, weight_decay=0.2)
    params = {"dense": {"kernel": kernel.astype(np.float32)}}
    opt_state = tx.init(params)
    momentum = np.zeros((6, 10))
    for step, gradient in enumerate(gradients):
        grads = {"dense": {"kernel": gradient.astype(np.float32)}}
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        clipped = gradient / max(1.0, np.linalg.norm(gradient))
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * clipped
        ahead = MOMENTUM * momentum + (1 - MOMENTUM) * clipped
        rate = 0.3 * (1 - step / 10)
        kernel = kernel - rate * (muon_update(ahead) + 0.2 * kernel)
        np.testing.assert_allclose(params["dense"]["kernel"], kernel, rtol=5e-3, atol=2e-3)


@pytest.fixture(scope="module")
def one_update(params):
    """Gradients of the tiny model, and the updates that they give at a rate of one."""
    gradients = gradients_like(params)
    tx = make_optimizer(name="muon", **NUMBERS, weight_decay=0.0, max_grad_norm=1e9, eps=1e-12)
    update = jax.jit(lambda gradients, params: tx.update(gradients, tx.init(params), params)[0])
    return names_of(gradients), names_of(jax.tree.map(np.asarray, update(gradients, params)))


def test_matrices_have_muon_s_update_and_everything_else_adam_s(one_update):
    gradients, updates = one_update
    adam = {
        name
        for name, gradient in gradients.items()
        if np.allclose(updates[name], -FIRST_ADAM * np.sign(gradient), rtol=1e-4)
    }
    assert adam == {
        name
        for name in gradients
        if not name.endswith("/kernel") or name == "discriminator_head/output/kernel"
    }
    muon = set(gradients) - adam
    assert {"encoder/projection/kernel", "generator_head/dense/kernel"} < muon
    for name in muon:
        # Singular values are near one, not one, so this is not exact.
        assert np.sqrt(np.mean(updates[name] ** 2)) == pytest.approx(0.2, rel=0.2), name


def test_stacked_layers_are_orthogonalised_one_by_one(one_update):
    gradients, updates = one_update
    for layer in range(2):
        for tensor in ("attention_out", "feed_forward_in", "feed_forward_out"):
            name = f"encoder/layers/{tensor}/kernel"
            expected = -muon_update(gradients[name][layer])
            np.testing.assert_allclose(updates[name][layer], expected, rtol=1e-2, atol=2e-3)


def test_query_key_and_value_are_orthogonalised_one_by_one(one_update):
    gradients, updates = one_update
    name = "generator_encoder/layers/qkv/kernel"
    num_layers, width, _ = gradients[name].shape
    for layer in range(num_layers):
        for third in range(3):
            columns = slice(third * width, (third + 1) * width)
            expected = -muon_update(gradients[name][layer, :, columns])
            found = updates[name][layer, :, columns]
            np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-3)


def test_a_gradient_of_one_matrix_moves_no_other(params):
    """In a stack, and among query, key and value."""
    name = ("encoder", "layers", "qkv", "kernel")
    gradients = jax.tree.map(np.zeros_like, params)
    kernel = np.zeros(params["encoder"]["layers"]["qkv"]["kernel"].shape, np.float32)
    width = kernel.shape[1]
    kernel[1, :, width : 2 * width] = np.random.default_rng(0).standard_normal((width, width))
    gradients["encoder"]["layers"]["qkv"]["kernel"] = kernel
    tx = make_optimizer(name="muon", **NUMBERS, weight_decay=0.0)
    updates = jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(gradients, params)
    for found, update in names_of(updates).items():
        if found == "/".join(name):
            moved = np.asarray(update != 0)
            assert moved[1, :, width : 2 * width].all() and moved.sum() == width**2
        else:
            assert not np.asarray(update).any(), found


def test_it_composes_with_decay_factors_and_freezing(params):
    gradients = gradients_like(params)

    def updates(**arguments):
        tx = make_optimizer(name="muon", **NUMBERS, max_grad_norm=1e9, **arguments)
        update = jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])
        return names_of(jax.tree.map(np.asarray, update(gradients, params)))

    plain = updates(weight_decay=0.0)
    tuned = updates(
        weight_decay=0.5,
        frozen=["^embeddings/", "attention_out/"],
        learning_rate_factors=[("^generator_", 0.5)],
    )
    values = names_of(params)
    for name, update in plain.items():
        if name.startswith("embeddings/") or "attention_out/" in name:
            assert not tuned[name].any(), name
            continue
        expected = update if name.endswith(("bias", "scale")) else update - 0.5 * values[name]
        factor = 0.5 if name.startswith("generator_") else 1.0
        np.testing.assert_allclose(tuned[name], factor * expected, rtol=1e-5, atol=1e-6)


def test_it_minimises_a_quadratic_and_is_compiled_once():
    """|A X - B|^2 with the answer known; X from zero."""
    rng = np.random.default_rng(5)
    a, answer = rng.standard_normal((16, 8)) / 4, rng.standard_normal((8, 8))
    b = np.float32(a @ answer)
    tx = make_optimizer(name="muon", learning_rate=0.3, warmup_steps=5, num_train_steps=150)
    params = {"kernel": jnp.zeros((8, 8)), "bias": jnp.zeros(8)}
    loss_fn = lambda p: jnp.sum((np.float32(a) @ p["kernel"] + p["bias"][None] - b) ** 2)  # noqa: E731

    @jax.jit
    def step(params, opt_state):
        loss, gradients = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    opt_state, losses = jax.jit(tx.init)(params), []
    for _ in range(150):
        params, opt_state, loss = step(params, opt_state)
        losses.append(float(loss))
    assert step._cache_size() == 1
    assert losses[-1] < 0.01 * losses[0]


@pytest.fixture(scope="module")
def muon_state(model):
    tx = make_optimizer(name="muon", learning_rate=5e-3, warmup_steps=1, num_train_steps=40)
    return create_train_state(jax.random.key(1), model, tx, seq_len=32)


def test_the_tiny_model_learns_and_its_state_comes_back(
    muon_state, model, objective, batch, tmp_path
):
    step = jax.jit(lambda state, batch: train_step(state, batch, objective=objective))
    losses, state = [], muon_state
    for _ in range(30):
        state, sums = step(state, batch)
        losses.append(objective.summarize(jax.device_get(sums))["mlm_loss"])
    assert step._cache_size() == 1
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.4

    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(state, {})
    checkpointer.close()
    checkpointer = Checkpointer(tmp_path)
    like = create_train_state(jax.random.key(2), model, muon_state.tx, seq_len=32)
    restored = checkpointer.restore(like, 30)
    checkpointer.close()
    assert jax.tree.structure(restored.opt_state) == jax.tree.structure(state.opt_state)
    jax.tree.map(np.testing.assert_array_equal, restored.opt_state, state.opt_state)
    jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)


def test_moments_are_named_and_spread_like_their_parameters(muon_state):
    shardings = state_shardings(muon_state, make_mesh(), fsdp=True)
    of_params = names_of(shardings.params)
    moments = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shardings.opt_state):
        moments["/".join(str(getattr(key, "key", key)).strip(".") for key in path)] = leaf
    momentum = {name: s for name, s in moments.items() if "/muon/" in name and "/mu/" in name}
    assert len(momentum) == sum(map(bool, jax.tree.leaves(_matrices(muon_state.params))))
    for name, sharding in momentum.items():
        of_parameter = of_params[name.split("/mu/")[1]]
        assert sharding.spec == of_parameter.spec and any(sharding.spec), name
    assert {name.split("/")[-1] for name in moments if "/nu/" in name} > {"word", "bias"}


def _matrices(params):
    return rules_by_name(params, MUON_RULES, what="muon_rules")


def test_mistakes_are_refused():
    with pytest.raises(UserError) as error:
        make_optimizer(**NUMBERS, name="lion")
    assert str(error.value) == "optimizer.name='lion' is unknown: use one of adamw, muon"
    with pytest.raises(UserError) as error:
        make_optimizer(**NUMBERS, name="muon", muon_momentum=1.0)
    assert str(error.value) == "optimizer.muon_momentum=1.0 must lie in [0, 1)"
    with pytest.raises(UserError) as error:
        make_optimizer(**NUMBERS, name="muon").init({"table": np.zeros((2, 2))})
    assert str(error.value) == (
        "muon_rules: no rule matches the parameter 'table': add one that does"
    )
    for shape, count in (((4,), 1), ((4, 4), 3)):
        with pytest.raises(UserError) as error:
            scale_by_muon(lambda tree: {"x": count}).init({"x": np.zeros(shape)})  # noqa: B023
        assert str(error.value) == (
            f"muon_rules: a tensor of shape {shape} does not hold {count} matrices side by side: "
            "give it another number, or 0 for AdamW"
        )
