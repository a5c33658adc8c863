"""A step is the same however it is spread over devices and micro-batches."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from electra_jax.errors import UserError
from electra_jax.flops import train_step_flops
from electra_jax.modeling import Electra
from electra_jax.objectives import pretraining_loss
from electra_jax.optimizer import make_optimizer
from electra_jax.parallel import (
    check_batch_size,
    make_mesh,
    parallelize,
    put,
    replicate,
    state_shardings,
)
from electra_jax.steps import eval_step, train_step
from electra_jax.train_state import TrainState, create_train_state


@pytest.fixture(scope="module")
def one_layer_state(config):
    """Dropout is on; the update is the gradient."""
    model = Electra(dataclasses.replace(config, num_layers=1, scan_layers=False))
    return create_train_state(jax.random.key(1), model, optax.sgd(0.1), seq_len=32)


def spread(step, state, batch, devices, backend, **arguments):
    """Runs a step; returns its output as NumPy arrays."""
    parallel = parallelize(
        functools.partial(step, **arguments),
        make_mesh(num_devices=devices),
        backend=backend,
        donate_state=False,
    )
    return jax.tree.map(np.asarray, parallel(without_key(state), batch))


def without_key(state):
    """With the key's words, which NumPy can hold, in place of the key."""
    return state.replace(rng=jax.random.key_data(state.rng))


def assert_same_sums(sums, expected):
    assert set(sums) == set(expected)
    for name, value in expected.items():
        if name.endswith("histogram"):  # rounding may push a logit into the next bin
            assert sums[name].sum() == value.sum()
            assert np.abs(np.cumsum(sums[name]) - np.cumsum(value)).max() <= 2, name
        else:
            np.testing.assert_allclose(sums[name], value, rtol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def one_device(one_layer_state, objective, batch):
    return spread(train_step, one_layer_state, batch, 1, "jit", objective=objective)


@pytest.mark.parametrize(
    ("devices", "backend", "num_microbatches"),
    [(8, "jit", 1), (8, "pmap", 1), (2, "jit", 1), (2, "jit", 4)],
)
def test_a_step_does_not_depend_on_devices_backend_or_microbatches(
    one_layer_state, objective, batch, one_device, devices, backend, num_microbatches
):
    state, sums = spread(
        train_step,
        one_layer_state,
        batch,
        devices,
        backend,
        objective=objective,
        num_microbatches=num_microbatches,
    )
    expected_state, expected_sums = one_device
    assert_same_sums(sums, expected_sums)
    assert state.step == expected_state.step == 1
    for (path, before), after, expected in zip(
        jax.tree_util.tree_leaves_with_path(one_layer_state.params),
        jax.tree.leaves(state.params),
        jax.tree.leaves(expected_state.params),
        strict=True,
    ):
        before, name = np.asarray(before), jax.tree_util.keystr(path)
        update = expected - before
        assert update.any(), name
        # What float32 keeps of a parameter of size one after an update is 1e-7.
        tolerance = 2e-4 * np.abs(update).max() + 1e-7
        np.testing.assert_allclose(after - before, update, rtol=0, atol=tolerance, err_msg=name)


def test_a_sharded_state_takes_the_same_step(one_layer_state, objective, batch, one_device):
    # In NumPy: the step uses up the memory of what it is given.
    mesh, state = make_mesh(num_devices=8), jax.tree.map(np.asarray, without_key(one_layer_state))
    shardings = state_shardings(state, mesh, fsdp=True)
    step = parallelize(
        functools.partial(train_step, objective=objective), mesh, shardings=shardings
    )
    new_state, sums = step(put(state, shardings), batch)
    expected_state, expected_sums = one_device
    assert_same_sums(jax.tree.map(np.asarray, sums), expected_sums)
    for before, after, expected in zip(
        jax.tree.leaves(state.params),
        jax.tree.leaves(new_state.params),
        jax.tree.leaves(expected_state.params),
        strict=True,
    ):
        update = expected - before
        tolerance = 2e-4 * np.abs(update).max() + 1e-7
        np.testing.assert_allclose(np.asarray(after) - before, update, rtol=0, atol=tolerance)
    # Of what is large every device has an eighth, and it stays so.
    word = new_state.params["embeddings"]["word"]
    assert word.addressable_shards[0].data.size == word.size // 8
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(new_state.params))
    assert held < sum(x.nbytes for x in jax.tree.leaves(new_state.params)) / 5


def test_moments_are_where_their_parameters_are_and_every_parameter_has_a_rule(config):
    state = jax.eval_shape(
        lambda: create_train_state(
            jax.random.key(0),
            Electra(config),
            make_optimizer(learning_rate=1e-3, warmup_steps=1, num_train_steps=2),
            seq_len=8,
        )
    )
    mesh = make_mesh(num_devices=8)
    shardings = state_shardings(state, mesh, fsdp=True)
    adam = next(part for part in shardings.opt_state if hasattr(part, "mu"))
    assert adam.mu == adam.nu == shardings.params
    spec = shardings.params["encoder"]["layers"]["qkv"]["kernel"].spec
    assert tuple(spec) == (None, None, "data")
    # 16 x 3 rows: the last axis is not divisible by 8, the one before it is.
    odd = {"a": {"kernel": np.zeros((16, 3)), "bias": np.zeros(8)}}
    found = state_shardings(state.replace(params=odd), mesh, fsdp=True).params["a"]
    assert tuple(found["kernel"].spec) == ("data", None) and not any(found["bias"].spec)
    with pytest.raises(UserError, match="parallel.fsdp: no rule matches the parameter 'other'"):
        state_shardings(state.replace(params={"other": np.zeros(8)}), mesh, fsdp=True)
    assert all(not any(s.spec) for s in jax.tree.leaves(state_shardings(state, mesh)))


def test_dropout_is_on_in_these_comparisons(one_layer_state, objective, batch, one_device):
    """Its masks are functions of `row_ids`, and so are the masked tokens."""
    sums, evaluated = (
        one_device[1],
        spread(eval_step, one_layer_state, batch, 1, "jit", objective=objective),
    )
    assert sums["tokens"] == evaluated["tokens"] == (batch["input_ids"] != 0).sum()
    assert sums["mlm_loss_sum"] != evaluated["mlm_loss_sum"]


@pytest.mark.parametrize(("devices", "backend"), [(8, "jit"), (8, "pmap")])
def test_an_evaluation_does_not_depend_on_devices_or_backend(
    one_layer_state, objective, batch, devices, backend
):
    expected = spread(eval_step, one_layer_state, batch, 1, "jit", objective=objective)
    sums = spread(eval_step, one_layer_state, batch, devices, backend, objective=objective)
    assert_same_sums(sums, expected)


def test_equal_rows_in_two_microbatches_have_dropout_masks_of_their_own(
    one_layer_state, objective, batch
):
    """What the generator's loss can differ by, its inputs being the same, is dropout."""
    key = jax.random.key(0)
    inputs = objective.prepare(key, {k: jnp.asarray(v[:4]) for k, v in batch.items()})

    @jax.jit
    def mlm_loss(params, inputs):
        _, sums = objective.loss(params, inputs, key, apply_fn=one_layer_state.apply_fn)
        return sums["mlm_loss_sum"]

    first = mlm_loss(one_layer_state.params, inputs)
    assert first == mlm_loss(one_layer_state.params, inputs)
    moved = inputs.replace(row_ids=inputs.row_ids + 4)
    assert abs(first - mlm_loss(one_layer_state.params, moved)) > 1e-3


# The mechanics of a step, on an objective of two numbers.


class Quotient:
    """loss = sum(w * x / scale), so that a scale of zero is an accident."""

    def __init__(self):
        self.traces = 0

    def prepare(self, key, batch, axis_name=None, step=0):
        return {"x": batch["x"], "scale": batch["scale"]}

    def loss(self, params, inputs, key, *, apply_fn, deterministic=False):
        self.traces += 1
        loss = (params["kernel"][None] * inputs["x"] / inputs["scale"][:, None]).sum()
        return loss, {"loss_sum": loss, "rows": jnp.float32(inputs["x"].shape[0])}


def quotient_state():
    params = {"kernel": jnp.float32([1, 2, 3]), "bias": jnp.ones(2)}
    tx = make_optimizer(learning_rate=0.1, warmup_steps=0, num_train_steps=100)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=None,
        params=params,
        tx=tx,
        opt_state=tx.init(params),
        rng=jax.random.key_data(jax.random.key(0)),
    )


def quotient_batch(seed, scale=1.0):
    x = np.random.default_rng(seed).standard_normal((8, 3)).astype(np.float32)
    return {"x": x, "scale": np.full(8, scale, np.float32)}


def test_rows_of_a_process_follow_one_another_wherever_its_devices_are(monkeypatch):
    devices = [types.SimpleNamespace(process_index=n % 2, id=n) for n in range(8)]
    monkeypatch.setattr("jax.devices", lambda platform: devices)
    monkeypatch.setattr("electra_jax.parallel.Mesh", lambda devices, names, **_: devices)
    assert [device.id for device in make_mesh()] == [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_steps_are_traced_once(backend):
    objective = Quotient()
    mesh = make_mesh()
    step = parallelize(functools.partial(train_step, objective=objective), mesh, backend=backend)
    state = replicate(quotient_state(), mesh)
    for seed in range(3):
        state, sums = step(state, quotient_batch(seed))
    assert int(state.step) == 3 and float(sums["rows"]) == 8
    assert objective.traces == 1


def test_the_state_given_is_used_up_only_where_that_was_asked_for():
    step = functools.partial(train_step, objective=Quotient())
    mesh = make_mesh()
    for donate_state in (True, False):
        state = replicate(quotient_state(), mesh)
        parallelize(step, mesh, donate_state=donate_state)(state, quotient_batch(0))
        moments = jax.tree.leaves(state.opt_state)
        assert {x.is_deleted() for x in (state.params["kernel"], *moments)} == {donate_state}


@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_compiling_ahead_gives_the_same_step(backend):
    objective = Quotient()
    step = parallelize(functools.partial(train_step, objective=objective), backend=backend)
    state = replicate(quotient_state(), make_mesh())
    step.compile(state, quotient_batch(0))
    assert objective.traces == 1
    for seed in range(2):
        state, _ = step(state, quotient_batch(seed))
    assert objective.traces == 1
    expected = quotient_state()
    for seed in range(2):
        expected, _ = train_step(expected, quotient_batch(seed), objective=Quotient())
    np.testing.assert_allclose(state.params["kernel"], expected.params["kernel"], rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, float("nan"), 1e-30], ids=["inf", "nan", "overflow"])
@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(scale, num_microbatches):
    step = jax.jit(
        functools.partial(train_step, objective=Quotient(), num_microbatches=num_microbatches)
    )
    state, sums = step(quotient_state(), quotient_batch(0))
    assert float(sums["skipped_steps"]) == 0 and float(sums["steps"]) == 1
    bad_batch = quotient_batch(1)
    bad_batch["scale"][3] = scale  # one row of one micro-batch is enough
    skipped, sums = step(state, bad_batch)
    for before, after in zip(
        jax.tree.leaves((state.params, state.opt_state)),
        jax.tree.leaves((skipped.params, skipped.opt_state)),
        strict=True,
    ):
        # The optimiser's one integer is the schedule's position.
        expected = before if jnp.issubdtype(before.dtype, jnp.inexact) else before + 1
        np.testing.assert_array_equal(after, expected)
    assert int(skipped.step) == int(state.step) + 1 == 2
    assert {k: float(v) for k, v in sums.items()} == {
        "loss_sum": 0, "rows": 0, "grad_norm": 0, "steps": 1, "skipped_steps": 1
    }  # fmt: skip
    after, sums = step(skipped, quotient_batch(2))
    assert np.isfinite(after.params["kernel"]).all() and float(sums["skipped_steps"]) == 0
    assert (np.asarray(after.params["kernel"]) != skipped.params["kernel"]).all()


def test_an_infinite_gradient_of_a_finite_loss_is_skipped_too():
    class Root(Quotient):
        def loss(self, params, inputs, key, *, apply_fn, deterministic=False):
            loss = jnp.sqrt(params["kernel"] * 0.0).sum()
            return loss, {"loss_sum": loss}

    state = quotient_state()
    skipped, sums = jax.jit(functools.partial(train_step, objective=Root()))(
        state, quotient_batch(0)
    )
    assert float(sums["skipped_steps"]) == 1
    np.testing.assert_array_equal(skipped.params["kernel"], state.params["kernel"])


def test_grad_norm_is_that_before_clipping():
    _, sums = jax.jit(functools.partial(train_step, objective=Quotient()))(
        quotient_state(), quotient_batch(0, scale=0.01)
    )
    gradient = quotient_batch(0)["x"].sum(axis=0) * 100
    assert float(sums["grad_norm"]) == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


@pytest.mark.parametrize(
    ("batch_size", "num_microbatches", "message"),
    [
        (12, 1, "train.batch_size=12 is not divisible by 8 devices: use a multiple of 8"),
        (
            8,
            2,
            "train.batch_size=8 is not divisible by 8 devices x 2 micro-batches: "
            "use a multiple of 16",
        ),
    ],
)
def test_a_batch_that_cannot_be_split_evenly_is_refused(batch_size, num_microbatches, message):
    with pytest.raises(UserError) as error:
        check_batch_size(batch_size, make_mesh(), num_microbatches)
    assert str(error.value) == message
    check_batch_size(16, make_mesh(), 2)


def test_an_unknown_backend_is_refused():
    with pytest.raises(UserError) as error:
        parallelize(train_step, backend="threads")
    assert str(error.value) == "parallel.backend='threads' is unknown: use one of jit, pmap"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scan_layers": False, "generator_depth": 0.5},
        {"sharing": "none"},
        {"sharing": "all", "intermediate_size": 48},
        {"embedding_size": 32},
    ],
    ids=str,
)
def test_flops_are_those_of_the_traced_matrix_products(
    config, objective, batch, equations, changes
):
    config = dataclasses.replace(config, vocab_pad_multiple=1, **changes)
    model = Electra(config)
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    loss = functools.partial(pretraining_loss, apply_fn=model.apply, objective=objective)
    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss, has_aux=True))(params, batch, jax.random.key(0))
    counted = 0
    for times, equation in equations(jaxpr.jaxpr):
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            counted += times * 2 * out.size * np.prod([left.shape[axis] for axis in contracted])
    formula = train_step_flops(config, batch_size=8, seq_len=32, max_masked=4)
    assert formula == pytest.approx(counted, rel=0.01)
