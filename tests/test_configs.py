"""Every config file loads, is valid, and holds the paper's numbers."""

import dataclasses
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from electra_jax import Electra, run_config, same_run
from electra_jax.errors import UserError

FILES = {path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.py")}
CONFIGS = sorted(FILES - {"finetune"})

# Clark et al. 2020, Table 6; small_plus_plus: the released model. Columns: parameters of both
# networks at BERT's vocabulary, sequence length, batch, steps, mask share, rate, warm-up.
PAPER = {
    "small": (14_196_219, 128, 128, 1_000_000, 0.15, 5e-4, 10_000),
    "small_plus_plus": (23_122_875, 512, 128, 4_000_000, 0.15, 5e-4, 10_000),
    "base": (119_386_427, 512, 256, 766_000, 0.15, 2e-4, 10_000),
    "large": (354_655_291, 512, 2048, 400_000, 0.25, 2e-4, 10_000),
}


def load(name, argument=""):
    return importlib.import_module(f"configs.{name}").get_config(argument)


@pytest.mark.parametrize("argument", ["", "cpu", "gpu", "tpu"])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_loads_is_valid_and_its_networks_have_shapes(name, argument):
    config = load(name, argument)
    run_config.check_values(config)
    platform = argument or "cpu"
    model_config = run_config.model_config(config, platform, vocab_size=30522)
    assert model_config.dtype == ("float32" if platform == "cpu" else "bfloat16")
    assert model_config.scan_layers == (platform == "tpu")
    # Flash attention where nothing is dropped: of these, in `tiny`.
    assert model_config.attention == ("cudnn" if (name, platform) == ("tiny", "gpu") else "xla")
    model = Electra(dataclasses.replace(model_config, attention="xla"))
    ids = jax.ShapeDtypeStruct((1, config.data.seq_len), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    if name in PAPER:
        assert sum(x.size for x in jax.tree.leaves(params)) == PAPER[name][0]


@pytest.mark.parametrize("name", PAPER)
def test_it_holds_the_papers_numbers(name):
    config = load(name)
    assert PAPER[name][1:] == (
        config.data.seq_len,
        config.train.batch_size,
        config.train.num_train_steps,
        config.objective.mask_prob,
        config.optimizer.learning_rate,
        config.optimizer.warmup_steps,
    )
    numbers = run_config.objective_numbers(config)
    assert (numbers["generator_weight"], numbers["discriminator_weight"]) == (1.0, 50.0)
    assert (config.optimizer.weight_decay, config.optimizer.eps) == (0.01, 1e-6)
    assert (config.model.dropout_rate, config.model.attention_dropout_rate) == (0.1, 0.1)


def test_an_unknown_argument_is_refused():
    with pytest.raises(ValueError, match="config argument 'gpus' is unknown"):
        load("small", "gpus")


def test_a_field_that_is_missing_or_of_no_use_is_named():
    config = load("tiny")
    del config.train.batch_size
    with pytest.raises(UserError, match="the config has no field train.batch_size"):
        run_config.check_values(config)
    config = load("tiny")
    config.model.hiden_size = 3
    with pytest.raises(UserError, match="model.hiden_size=3: ElectraConfig has no such field"):
        run_config.check_values(config)
    config = load("tiny")
    config.objective.mask_probability = 0.2
    with pytest.raises(UserError, match="objective.mask_probability=0.2: no objective has such"):
        run_config.check_values(config)
    config = load("tiny")
    with config.ignore_type():
        config.train.batch_size = "eight"
    with pytest.raises(UserError, match="train.batch_size='eight' must be a number"):
        run_config.check_values(config)


def test_every_checked_field_is_in_the_configs_and_every_difference_is_found():
    flat = run_config.flatten(load("small").to_dict())
    assert same_run.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == {
        "a.c": (2, 3),
        "d": (None, 4),
    }
    for name in same_run.MAY_CHANGE:
        assert any(field.startswith(name) for field in flat), name


@pytest.mark.parametrize(
    ("platform", "num_devices", "expected"),
    [
        ("cpu", 1, (1, None, False)),
        ("gpu", 1, (10, 512, True)),
        ("gpu", 8, (10, None, False)),
        ("tpu", 4, (10, None, False)),
    ],
)
def test_what_follows_the_platform(platform, num_devices, expected):
    config = load("small")
    sizes = dict(num_devices=num_devices, num_tokens=2**30, device_bytes=80 * 2**30)
    assert run_config.choices(config, platform, **sizes) == expected
    config.train.steps_per_call, config.objective.rows_at_once, config.data.on_device = 1, 64, False
    assert run_config.choices(config, platform, **sizes) == (1, 64, False)
    config.objective.rows_at_once, config.train.steps_per_call = 0, None
    config.train.eval_every = 25  # ten updates would pass over an evaluation
    assert run_config.choices(config, platform, **sizes)[:2] == (1, None)


def test_towers_do_not_separate_documents():
    config = load("modern")
    for name in ("two_tower", "electric"):
        config.objective.name = name
        with pytest.raises(UserError, match=f"objective.name='{name}', whose towers look past"):
            run_config.model_config(config, "cpu", vocab_size=100)


def test_which_attention_runs_and_why_is_said():
    config = load("small")
    model = run_config.model_config(config, "gpu", vocab_size=100)
    assert run_config.describe_attention(model, "gpu") == (
        "xla (for cudnn's flash kernel: it has no dropout (model.attention_dropout_rate=0.1))"
    )
    config.model.attention_dropout_rate = 0.0
    model = run_config.model_config(config, "gpu", vocab_size=100)
    assert run_config.describe_attention(model, "gpu") == "cudnn (flash)"
    config.model.attention = "xla"
    model = run_config.model_config(config, "gpu", vocab_size=100)
    assert "set model.attention=auto" in run_config.describe_attention(model, "gpu")
    config.model.attention = "cudnn"
    with pytest.raises(UserError, match="'cudnn' needs an NVIDIA GPU, not a cpu: use auto"):
        run_config.model_config(config, "cpu", vocab_size=100)
    config.model.dtype = "float32"
    with pytest.raises(UserError, match="computes in bfloat16, not in float32: use xla"):
        run_config.model_config(config, "gpu", vocab_size=100)


def test_calls_that_would_pass_over_a_save_are_refused():
    config = load("small")
    config.train.steps_per_call = 7
    with pytest.raises(UserError, match="train.steps_per_call=7 does not divide train.eval_every"):
        run_config.check_values(config)
