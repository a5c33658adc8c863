"""The fast form of the loss, against the plain one of the benchmarks."""

import dataclasses
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.modeling import Electra
from electra_jax.objectives.electra import ElectraObjective

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("rows_at_once", [None, 16])
def test_without_chance_the_plain_and_the_fast_form_are_equal(
    config, objective, batch, random_params, rows_at_once, monkeypatch
):
    monkeypatch.syspath_prepend(BENCHMARKS)
    plain = importlib.import_module("plain")
    config = dataclasses.replace(config, scan_layers=False)
    model = Electra(config)
    params = random_params(model)
    arguments = (objective.vocab_size, objective.special_ids)
    forms = [
        # A temperature of nearly nothing: the likeliest token.
        ElectraObjective(*arguments, temperature=1e-6, rows_at_once=rows_at_once),
        plain.PlainElectra(*arguments, config=config, samples=False),
    ]
    results = []
    with jax.numpy_rank_promotion("allow"):
        for form in forms:

            def loss_fn(params, form=form):
                key = jax.random.key(3)
                inputs = form.prepare(key, batch)
                loss, sums = form.loss(
                    params, inputs, key, apply_fn=model.apply, deterministic=True
                )
                return loss, sums["tokens"]

            results.append(jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params))
    ((loss, tokens), gradients), ((expected_loss, expected_tokens), expected) = results
    assert tokens == expected_tokens
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    found, wanted = (
        jnp.concatenate([x.ravel() for x in jax.tree.leaves(g)]) for g in (gradients, expected)
    )
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())
