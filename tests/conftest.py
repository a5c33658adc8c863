"""Eight CPU devices, a compilation cache, and the tiny model that most tests share."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# Compiling costs more here than running.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=1"
).strip()

import jax
import numpy as np
import optax
import pytest

from electra_jax.config import ElectraConfig
from electra_jax.modeling import Electra
from electra_jax.objectives.electra import ElectraObjective
from electra_jax.special_ids import SpecialIds
from electra_jax.train_state import create_train_state

jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.get("ELECTRA_JAX_TEST_CACHE")
    or str(Path.home() / ".cache" / "electra_jax" / "test-compilation"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# A missing axis is an error instead of a broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")

PAD, UNK, CLS, SEP, MASK = range(5)
VOCAB_SIZE = 100


@pytest.fixture(scope="session")
def config():
    """Two layers, and a vocabulary that the generator's head has to pad."""
    return ElectraConfig(
        vocab_size=VOCAB_SIZE,
        embedding_size=16,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        generator_size=0.5,
        max_positions=64,
        vocab_pad_multiple=128,
        scan_layers=True,
    )


@pytest.fixture(scope="session")
def model(config):
    return Electra(config)


@pytest.fixture(scope="session")
def objective():
    return ElectraObjective(VOCAB_SIZE, SpecialIds(PAD, UNK, CLS, SEP, MASK))


@pytest.fixture(scope="session")
def batch():
    """8 rows of [CLS] A [SEP] B [SEP], from 32 tokens down to 7, padded to 32."""
    rng = np.random.default_rng(0)
    input_ids = np.full((8, 32), PAD, np.int32)
    for row, length in enumerate((32, 29, 25, 20, 32, 14, 10, 7)):
        tokens = rng.integers(MASK + 1, VOCAB_SIZE, length)
        tokens[0], tokens[length // 2], tokens[-1] = CLS, SEP, SEP
        input_ids[row, :length] = tokens
    return {"input_ids": input_ids, "row_ids": np.arange(100, 108, dtype=np.int32)}


@pytest.fixture(scope="session")
def state(model):
    """With plain gradient descent: Adam's updates hardly depend on the gradient's size, and so
    would hide a mistake in it."""
    return create_train_state(jax.random.key(0), model, optax.sgd(0.1), seq_len=32)


@pytest.fixture(scope="session")
def params(state):
    return state.params


@pytest.fixture(scope="session")
def random_params():
    """A function: parameters of a model, all of them random (fresh ones have biases of zero)."""

    def make(model, seed=0):
        rng = np.random.default_rng(seed)
        ids = jax.ShapeDtypeStruct((1, 8), np.int32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]

        def draw(path, leaf):
            centre = 1.0 if path[-1].key == "scale" else 0.0
            return (centre + 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)

        return jax.tree_util.tree_map_with_path(draw, shapes)

    return make


@pytest.fixture(scope="session")
def equations():
    """A function: (times it runs, equation) for every primitive of a jaxpr, loops followed."""

    def walk(jaxpr, times=1):
        for equation in jaxpr.eqns:
            yield times, equation
            inner_times = times * equation.params.get("length", 1)
            for value in equation.params.values():
                for inner in value if isinstance(value, tuple | list) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        yield from walk(inner, inner_times)

    return walk


@pytest.fixture(scope="session")
def shared():
    """A function: the path of a file or directory of the real data; the test is skipped without."""

    def find(name):
        path = Path(__file__).parents[1].parent / "shared/data" / name
        if not path.exists():
            pytest.skip(f"{path} is not here")
        return path

    return find
