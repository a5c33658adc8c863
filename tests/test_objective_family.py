"""Every objective: its loss taken again in NumPy, what its gradient trains, that it learns, that it
goes on from a checkpoint bitwise, and what it costs.
"""

import contextlib
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from electra_jax import corruption
from electra_jax.checkpoint import Checkpointer
from electra_jax.config import ElectraConfig
from electra_jax.embedding_sharing import add_differences, take_differences
from electra_jax.errors import UserError
from electra_jax.modeling import Electra
from electra_jax.objectives import OBJECTIVES
from electra_jax.objectives.electra import ElectraObjective
from electra_jax.objectives.electric import pseudo_log_likelihoods
from electra_jax.steps import train_step
from electra_jax.train_state import create_train_state
from electra_jax.vocabulary import Projection

ROWS, LENGTH, SLOTS, VOCAB = 8, 32, 4, 100
KEY = jax.random.key(7)


def make(name, objective, **numbers):
    return OBJECTIVES[name](objective.vocab_size, objective.special_ids, **numbers)


def model_for(name, config, **fields):
    wanted = {field: values[0] for field, values in OBJECTIVES[name].model.items()}
    return Electra(dataclasses.replace(config, **wanted | fields))


@pytest.fixture(scope="module")
def outputs():
    """What the networks are made to say."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return {
        "at masked": 2 * draw(ROWS, SLOTS, VOCAB),
        "everywhere": 2 * draw(ROWS, LENGTH, VOCAB),
        "encoder": 2 * draw(ROWS, LENGTH, VOCAB),
        "guesses": draw(ROWS, SLOTS),
        "logits": draw(ROWS, LENGTH),
    }


def run(objective, batch, outputs):
    """(inputs, loss, sums, gradients to the outputs, the ids that the encoder saw)."""

    def projection(logits):
        return Projection(logits, jnp.eye(VOCAB), jnp.zeros(VOCAB))

    def loss_fn(outputs, batch):
        inputs, seen = objective.prepare(KEY, batch), {}

        def apply_fn(variables, ids, *arrays, method):
            if method == "discriminate":
                seen["ids"] = ids
                return outputs["logits"]
            positions = arrays[0]
            if method == "reconstruct":
                seen["ids"] = ids
                if positions is None:
                    return projection(outputs["encoder"]), outputs["logits"]
                at = lambda x: jnp.take_along_axis(x, positions[..., None], axis=1)  # noqa: E731
                return projection(at(outputs["encoder"])), None
            everywhere = positions.shape[1] == LENGTH
            found = projection(outputs["everywhere" if everywhere else "at masked"])
            return (found, outputs["guesses"]) if method == "project_and_judge" else found

        loss, sums = objective.loss({}, inputs, KEY, apply_fn=apply_fn)
        return loss, (inputs, sums, seen.get("ids"))

    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, (inputs, sums, ids)), gradients = step(outputs, batch)
    return jax.tree.map(np.asarray, (inputs, loss, sums, gradients, ids))


class ByHand:
    """Means in float64 over what counts, chosen by indexing."""

    def __init__(self, batch, outputs, inputs, ids):
        self.x, self.corrupted = batch["input_ids"], ids
        self.logits = np.float64(outputs["logits"])
        self.log_p = {
            name: special.log_softmax(np.float64(outputs[name]), axis=-1)
            for name in ("at masked", "everywhere", "encoder")
        }
        self.guesses = np.float64(outputs["guesses"])
        self.rows, self.slots = np.nonzero(inputs.masked.chosen)
        self.places = inputs.masked.positions[self.rows, self.slots]
        self.right = self.x[self.rows, self.places]
        self.tokens = self.x != 0
        self.ordinary = self.tokens & ~np.isin(self.x, [2, 3, 4])

    def mlm(self):
        return -self.log_p["at masked"][self.rows, self.slots, self.right].mean()

    def cloze(self):
        rows, places = np.nonzero(self.ordinary)
        return -self.log_p["everywhere"][rows, places, self.x[rows, places]].mean()

    def detection(self, logits=None, labels=None, where=None):
        logits = self.logits if logits is None else logits
        labels = self.corrupted != self.x if labels is None else labels
        where = self.tokens if where is None else where
        return np.logaddexp(0, np.where(labels, -logits, logits))[where].mean()

    def chosen(self):
        where = np.zeros_like(self.tokens)
        where[self.rows, self.places] = True
        return where

    def electra(self):
        return self.mlm() + 50 * self.detection()

    def uniform(self):
        return 50 * self.detection()

    fast_electra = uniform

    def two_tower(self):
        return self.cloze() + 50 * self.detection()

    def electra_15(self):
        return self.mlm() + 50 * self.detection(where=self.chosen())

    def electric(self):
        rows, places = np.indices(self.x.shape)
        log_q = self.log_p["everywhere"][rows, places, self.corrupted]
        k = self.chosen().sum(axis=1, keepdims=True)
        n = self.ordinary.sum(axis=1, keepdims=True)
        # -log p(noise) = -log k q / (k q + (n - k) p), with p = exp(-energy).
        noise, data = np.log(k) + log_q, np.log(n - k) - self.logits
        both = np.logaddexp(noise, data)
        losses = np.where(self.chosen(), both - noise, both - data)
        return self.cloze() + 50 * losses[self.ordinary].mean()

    def replace_mlm(self):
        encoder = -self.log_p["encoder"][self.rows, self.places, self.right].mean()
        return self.mlm() + encoder

    def all_tokens_mlm(self):
        rows, places = np.nonzero(self.tokens)
        keep = 1 - special.expit(self.logits[rows, places])
        word = np.exp(self.log_p["encoder"][rows, places, self.x[rows, places]])
        same = self.corrupted[rows, places] == self.x[rows, places]
        return self.mlm() - 50 * np.log(keep * same + (1 - keep) * word).mean()

    def adversarial(self):
        sampled = self.corrupted[self.rows, self.places]
        logits = self.logits[self.rows, self.places]
        rewards = np.logaddexp(0, np.where(sampled != self.right, -logits, logits))
        guesses = special.expit(self.guesses[self.rows, self.slots])
        log_p = self.log_p["at masked"][self.rows, self.slots, sampled]
        policy = -((rewards + np.log(guesses)) * log_p).mean()
        target = np.exp(-rewards)
        baseline = -(target * np.log(guesses) + (1 - target) * np.log1p(-guesses)).mean()
        return policy + baseline + 50 * self.detection()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_is_its_equation_and_the_metrics_give_it_again(name, objective, batch, outputs):
    this = make(name, objective)
    inputs, loss, sums, _, ids = run(this, batch, outputs)
    by_hand = ByHand(batch, outputs, inputs, ids)
    expected = by_hand.mlm() if name == "mlm" else getattr(by_hand, name)()
    assert loss == pytest.approx(expected, rel=2e-5)
    metrics = this.summarize(sums)
    assert metrics["loss"] == pytest.approx(expected, rel=2e-5)
    assert all(isinstance(value, float) for value in metrics.values())
    assert sums["tokens"] == by_hand.tokens.sum()


def test_the_policy_makes_what_was_hard_to_tell_likelier(objective, batch, outputs):
    """Where a sample's reward is above the baseline, its logit is raised by the gradient."""
    this = make("adversarial", objective, discriminator_weight=0.0)
    inputs, _, _, gradients, ids = run(this, batch, outputs)
    rows, slots = np.nonzero(inputs.masked.chosen)
    places = inputs.masked.positions[rows, slots]
    sampled, right = ids[rows, places], batch["input_ids"][rows, places]
    logits = outputs["logits"][rows, places]
    rewards = np.logaddexp(0, np.where(sampled != right, -logits, logits))
    advantages = rewards + np.log(special.expit(outputs["guesses"][rows, slots]))
    moved = -gradients["at masked"][rows, slots, sampled]
    assert (np.sign(moved) == np.sign(advantages)).all()
    assert (gradients["logits"] == 0).all()  # the reward is no way to the discriminator


# Parts of the parameters that an objective's gradient must reach, and parts it must not.
DISCRIMINATOR = ("encoder", "discriminator_head", "embeddings")
GENERATOR = ("generator_encoder", "generator_head", "embeddings")
TRAINED = {
    "electra": DISCRIMINATOR + GENERATOR,
    "mlm": ("encoder", "generator_head", "embeddings"),
    "uniform": DISCRIMINATOR,
    "two_tower": (*DISCRIMINATOR, *GENERATOR, "generator_encoder_backward"),
    "electric": (*DISCRIMINATOR, *GENERATOR, "generator_encoder_backward"),
    "electra_15": DISCRIMINATOR + GENERATOR,
    "replace_mlm": ("encoder", "token_head", *GENERATOR),
    "all_tokens_mlm": (*DISCRIMINATOR, "token_head", *GENERATOR),
    "adversarial": (*DISCRIMINATOR, *GENERATOR, "generator_baseline"),
    "fast_electra": DISCRIMINATOR,
}
NUM_STEPS = 60


@pytest.fixture(scope="module")
def small_config(config):
    """One layer, wide enough to learn a batch."""
    return dataclasses.replace(
        config,
        embedding_size=32,
        num_layers=1,
        generator_size=1.0,
        init_stddev=0.1,
        dropout_rate=0.01,
        attention_dropout_rate=0.0,
    )


# Every loss has another program to compile; a few of them in all of the ordinary tests.
ORDINARY = ("mlm", "electric", "all_tokens_mlm", "adversarial")


@pytest.mark.parametrize(
    "name",
    [
        name if name in ORDINARY else pytest.param(name, marks=pytest.mark.slow)
        for name in OBJECTIVES
    ],
)
def test_it_trains_its_parts_learns_and_goes_on_bitwise(
    name, objective, batch, small_config, tmp_path
):
    """With plain gradient descent first: what has no gradient does not move at all."""
    this, model = make(name, objective), model_for(name, small_config)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(4e-3))
    state = create_train_state(jax.random.key(0), model, tx, seq_len=LENGTH)
    step = jax.jit(functools.partial(train_step, objective=this))
    first, _ = step(state, batch)
    moved = {
        part
        for part, tree in state.params.items()
        if any(
            (np.asarray(a) != np.asarray(b)).any()
            for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(first.params[part]), strict=True)
        )
    }
    assert moved == set(TRAINED[name])

    rows, states = [], {0: state}
    for number in range(NUM_STEPS):
        state, sums = step(states[number], batch)
        states[number + 1] = state
        rows.append(this.summarize(jax.device_get(sums)))
    losses = [row["loss"] for row in rows]
    if name == "adversarial":  # the two networks pull at one loss: the discriminator wins here
        losses = [row["disc_loss"] for row in rows]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])

    half = NUM_STEPS - 3
    with contextlib.closing(Checkpointer(tmp_path / "checkpoints")) as checkpointer:
        checkpointer.save(states[half], {})
        checkpointer.wait()
        resumed = checkpointer.restore(states[0], half)
    for _ in range(3):
        resumed, _ = step(resumed, batch)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, states[NUM_STEPS].params)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_its_cost_is_that_of_the_program_s_products(name, config, objective, batch, equations):
    this, model = make(name, objective), model_for(name, config)
    # As many columns as the vocabulary has, since the formula counts no padding.
    config = dataclasses.replace(model.config, vocab_size=128)
    state = jax.eval_shape(
        lambda: create_train_state(
            jax.random.key(0), Electra(config), optax.sgd(0.1), seq_len=LENGTH
        )
    )
    jaxpr = jax.make_jaxpr(functools.partial(train_step, objective=this))(state, batch)
    counted = 0
    for times, equation in equations(jaxpr.jaxpr):
        if equation.primitive.name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            inner = math.prod(left[axis] for axis in contract)
            counted += 2 * times * inner * math.prod(equation.outvars[0].aval.shape)
    expected = this.flops(config, batch_size=ROWS, seq_len=LENGTH)
    assert counted == pytest.approx(expected, rel=0.03)


def test_disentangled_tables_are_trained_by_one_loss_each(config, objective, batch):
    """He et al. 2021: the discriminator's loss moves the differences and not the generator's."""
    model = Electra(dataclasses.replace(config, sharing="disentangled"))
    state = create_train_state(jax.random.key(0), model, optax.sgd(0.1), seq_len=LENGTH)

    @jax.jit
    def gradients(weights):
        this = ElectraObjective(
            VOCAB,
            objective.special_ids,
            generator_weight=weights[0],
            discriminator_weight=weights[1],
        )
        inputs = this.prepare(KEY, batch)
        return jax.grad(lambda params: this.loss(params, inputs, KEY, apply_fn=model.apply)[0])(
            state.params
        )

    of_discriminator, of_generator = gradients(np.float32([0, 50])), gradients(np.float32([1, 0]))
    size = lambda tree: sum(float(abs(x).sum()) for x in jax.tree.leaves(tree))  # noqa: E731
    assert (np.asarray(state.params["embeddings"]["word"]) == 0).all()
    assert size(of_discriminator["generator_embeddings"]) == 0
    assert size(of_discriminator["embeddings"]["word"]) > 0
    assert size(of_discriminator["embeddings"]["position"]) > 0
    assert size(of_generator["generator_embeddings"]["word"]) > 0
    assert size(of_generator["embeddings"]) == 0


def test_differences_added_up_give_the_same_networks_and_come_apart_again(
    config, batch, random_params
):
    model = Electra(dataclasses.replace(config, sharing="disentangled"))
    params = random_params(model)
    apart_config, added = add_differences(model.config, params)
    assert apart_config.sharing == "apart"
    ids, positions = batch["input_ids"], np.full((ROWS, 2), 3, np.int32)
    for method, arrays in (("discriminate", (ids,)), ("generate", (ids, positions))):
        before, after = (
            jax.jit(functools.partial(m.apply, method=method))({"params": p}, *arrays)
            for m, p in ((model, params), (Electra(apart_config), added))
        )
        np.testing.assert_allclose(before, after, atol=2e-5)
    back = take_differences(added)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), back, params)
    encoder = {part: added[part] for part in ("embeddings", "encoder")}
    fresh = take_differences(encoder)
    assert (fresh["embeddings"]["word"] == 0).all()
    np.testing.assert_array_equal(
        fresh["generator_embeddings"]["word"], added["embeddings"]["word"]
    )


def test_two_towers_see_all_but_the_token_itself(config, random_params):
    model = model_for("two_tower", config)
    params, rng = random_params(model), np.random.default_rng(0)
    ids = rng.integers(5, VOCAB, (1, 8)).astype(np.int32)
    positions = np.arange(8, dtype=np.int32)[None]
    generate = jax.jit(functools.partial(model.apply, method="generate"))
    before = np.asarray(generate({"params": params}, ids, positions))[0]
    for place in range(8):
        changed = ids.copy()
        changed[0, place] = (ids[0, place] + 1 - 5) % (VOCAB - 5) + 5
        after = np.asarray(generate({"params": params}, changed, positions))[0]
        differs = abs(after[:, :VOCAB] - before[:, :VOCAB]).max(axis=-1) > 1e-4
        # At the ends a tower has nothing before or after, and is given the end itself.
        assert not differs[1:-1][positions[0, 1:-1] == place].any()
        assert differs[1:-1][positions[0, 1:-1] != place].all()


def test_temperature_and_mask_rate_follow_their_schedules(objective, batch):
    this = make(
        "fast_electra", objective, start_temperature=3.0, temperature_steps=10, temperature=0.5
    )
    at = lambda step: np.asarray(this.prepare(KEY, batch, step=step).temperature)  # noqa: E731
    assert at(0) == pytest.approx(np.full((ROWS, 1, 1), 3.0))
    assert at(jnp.int32(10)) == pytest.approx(0.5 + 2.5 / math.e)
    assert at(2**32 - 1) == pytest.approx(0.5)
    this = make("mlm", objective, mask_prob=0.3, final_mask_prob=0.1, mask_prob_steps=100)
    full = {"input_ids": np.full((4, 40), 9, np.int32), "row_ids": np.arange(4)}
    count = lambda step: np.asarray(  # noqa: E731
        this.prepare(KEY, full, step=step).masked.chosen
    ).sum(axis=1)
    assert (count(0) == 12).all() and (count(jnp.int32(50)) == 8).all() and (count(500) == 4).all()


def test_numbers_out_of_range_or_alone_are_refused(objective):
    for name, numbers, message in (
        ("electra", {"start_temperature": 2.0}, "temperature_steps=None: give both or none"),
        ("mlm", {"final_mask_prob": 0.2}, "mask_prob_steps=None: give both or none"),
        ("mlm", {"final_mask_prob": 2.0, "mask_prob_steps": 5}, "final_mask_prob=2.0 must lie"),
        ("electric", {"temperature": 2.0}, "objective.name='electric' must know that"),
        ("fast_electra", {"generator_weight": 2.0}, "is not trained: leave it out"),
        ("mlm", {"masking": "letters"}, "objective.masking='letters' is unknown: use one of"),
    ):
        with pytest.raises(UserError, match=message):
            make(name, objective, **numbers)
    for fields, message in (
        ({"sharing": "all", "generator_kind": "two_towers"}, "not possible with two towers"),
        ({"sharing": "none", "generator_kind": "none"}, "there is no generator: use embeddings"),
        ({"extra_head": "two"}, "model.extra_head='two' is unknown"),
    ):
        with pytest.raises(UserError, match=message):
            ElectraConfig(**fields)


def test_pseudo_log_likelihoods_add_up_ordinary_tokens_alone():
    energies = np.float32([[9.0, 1.0, 2.0, 9.0, 9.0], [9.0, 1.0, 9.0, 9.0, 9.0]])
    ids = np.int32([[2, 7, 8, 3, 0], [2, 7, 3, 0, 0]])
    found = pseudo_log_likelihoods(energies, ids, special=(0, 2, 3, 4))
    np.testing.assert_array_equal(found, [-3.0, -1.0])


def test_chosen_tokens_are_where_the_positions_say(objective, batch):
    masked = make("electra", objective).prepare(KEY, batch).masked
    where = np.asarray(corruption.chosen_tokens(masked))
    assert where.sum() == np.asarray(masked.chosen).sum()
    rows, slots = np.nonzero(np.asarray(masked.chosen))
    assert where[rows, np.asarray(masked.positions)[rows, slots]].all()


def text_of_twenty_tokens(rng, unusual=0):
    """[ROWS, LENGTH]: of 95 ordinary tokens 20 occur, equally often, and so many of the others."""
    edges = (np.full((ROWS, 1), token) for token in (2, 3))
    tokens = rng.integers(5, 25, (ROWS, LENGTH - 2))
    for row in tokens:
        where = rng.choice(LENGTH - 2, unusual, replace=False)
        row[where] = rng.integers(25, VOCAB, unusual)
    return np.concatenate([next(edges), tokens, next(edges)], axis=1).astype(np.int32)


def test_electric_s_energies_become_log_likelihoods(objective):
    """A table of energies, a uniform noise: the loss has one minimum, log(20) for the 20 tokens."""
    this = make("electric", objective, generator_weight=0.0)

    def apply_fn(variables, ids, *arrays, method):
        if method == "discriminate":
            return variables["params"][ids]
        uniform = jnp.zeros((ROWS, LENGTH, VOCAB))
        return Projection(uniform, jnp.eye(VOCAB), jnp.zeros(VOCAB))

    tx = optax.adam(optax.exponential_decay(0.3, 1000, 0.01))

    @jax.jit
    def update(table, opt_state, ids, step):
        inputs = this.prepare(jax.random.fold_in(KEY, step), batch_of(ids, step))
        loss = lambda table: this.loss(table, inputs, KEY, apply_fn=apply_fn)[0]  # noqa: E731
        updates, opt_state = tx.update(jax.grad(loss)(table), opt_state)
        return optax.apply_updates(table, updates), opt_state

    def batch_of(ids, step):
        return {"input_ids": ids, "row_ids": jnp.arange(ROWS) + step * ROWS}

    table = jnp.zeros(VOCAB)
    opt_state, rng = tx.init(table), np.random.default_rng(0)
    for step in range(1000):
        table, opt_state = update(table, opt_state, text_of_twenty_tokens(rng), step)
    usual, unusual = np.asarray(table[5:25]), np.asarray(table[25:])
    assert usual.mean() == pytest.approx(np.log(20), abs=0.05)
    np.testing.assert_allclose(usual, np.log(20), atol=0.5)
    assert unusual.min() > np.log(VOCAB) + 2


def test_an_electric_network_s_rows_are_less_likely_by_an_unusual_token(objective, small_config):
    """The noise is nearly uniform, since one that knows the text leaves energies little to learn
    from. Rows have as much noise as in training: a network that sees it counts it, and where none
    is seen takes each usual token for noise sooner.
    """
    this = make("electric", objective, generator_weight=0.0)
    model = model_for("electric", small_config)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(4e-3))
    state = create_train_state(jax.random.key(0), model, tx, seq_len=LENGTH)
    step = jax.jit(functools.partial(train_step, objective=this))
    rng = np.random.default_rng(0)
    for number in range(1000):
        row_ids = np.arange(ROWS, dtype=np.int32) + number * ROWS
        state, _ = step(state, {"input_ids": text_of_twenty_tokens(rng), "row_ids": row_ids})
    energies = jax.jit(functools.partial(model.apply, method="discriminate"))
    rows = text_of_twenty_tokens(rng, unusual=SLOTS)
    changed = rows.copy()
    for row in changed:
        row[rng.choice(np.flatnonzero((row > 4) & (row < 25)))] = rng.integers(25, VOCAB)
    found, with_another = (
        np.asarray(energies({"params": state.params}, x)) for x in (rows, changed)
    )
    likely, unlikely = (
        np.asarray(pseudo_log_likelihoods(these, ids, special=(0, 2, 3, 4)))
        for these, ids in ((found, rows), (with_another, changed))
    )
    assert (likely > unlikely + 1.0).all()
    assert found[(rows > 4) & (rows < 25)].mean() == pytest.approx(np.log(20), abs=0.5)
