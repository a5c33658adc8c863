"""What is kept of a run, and how it comes back."""

import time

import jax
import numpy as np
import pytest

from electra_jax.checkpoint import Checkpointer, load_params, save_params
from electra_jax.errors import UserError
from electra_jax.optimizer import make_optimizer
from electra_jax.train_state import create_train_state


@pytest.fixture(scope="module")
def adam_state(model):
    tx = make_optimizer(learning_rate=1e-3, warmup_steps=1, num_train_steps=9)
    state = create_train_state(jax.random.key(1), model, tx, seq_len=32)
    return state.replace(
        step=state.step + 7,
        opt_state=jax.tree.map(lambda x: x + 1, state.opt_state),
    )


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_state_comes_back_with_its_structure_and_metadata(tmp_path, model, adam_state):
    checkpointer = Checkpointer(tmp_path)
    assert checkpointer.latest_step() is None
    checkpointer.save(adam_state, {"window": {"tokens": 3.5}})
    checkpointer.close()

    checkpointer = Checkpointer(tmp_path)
    like = create_train_state(jax.random.key(2), model, adam_state.tx, seq_len=32)
    restored = checkpointer.restore(like, checkpointer.latest_step())
    assert int(restored.step) == 7 and restored.step.dtype == np.int32
    assert not restored.step.weak_type  # or the next step would compile again
    assert_equal(restored.params, adam_state.params)
    assert_equal(restored.opt_state, adam_state.opt_state)
    assert_equal(jax.random.key_data(restored.rng), jax.random.key_data(adam_state.rng))
    assert checkpointer.metadata(7) == {"window": {"tokens": 3.5}}
    checkpointer.close()


def test_parameters_are_read_without_the_optimizer(tmp_path, adam_state):
    checkpointer = Checkpointer(tmp_path / "checkpoints")
    checkpointer.save(adam_state, {"config": {"name": "x"}})
    checkpointer.close()
    params, metadata = load_params(tmp_path)
    assert_equal(params, jax.device_get(adam_state.params))
    assert metadata == {"config": {"name": "x"}}
    with pytest.raises(UserError, match=r"no checkpoint at step 3, there are \[7\]"):
        load_params(tmp_path, step=3)
    with pytest.raises(UserError, match="holds no checkpoints/: give the --workdir"):
        load_params(tmp_path / "checkpoints")


def test_the_latest_stay_and_multiples_stay_for_good(tmp_path, adam_state):
    checkpointer = Checkpointer(tmp_path, keep=2, keep_every=4)
    for step in range(1, 8):
        checkpointer.save(adam_state.replace(step=np.int32(step)), {})
    checkpointer.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [4, 6, 7]


def test_a_save_that_was_killed_leaves_no_checkpoint(tmp_path, adam_state):
    """What such a save leaves behind is removed, in the background, at the next start."""
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(adam_state, {})
    checkpointer.close()
    leftover = tmp_path / "8.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "half").write_text("written")
    checkpointer = Checkpointer(tmp_path)
    assert checkpointer.latest_step() == 7
    end = time.monotonic() + 20
    while leftover.exists() and time.monotonic() < end:
        time.sleep(0.01)
    checkpointer.close()
    assert not leftover.exists()


def test_a_damaged_checkpoint_and_a_full_disk_are_one_line(tmp_path, monkeypatch):
    save_params(tmp_path / "run", 3, {"x": np.arange(1000.0)}, {"a": 1})
    for path in (tmp_path / "run" / "checkpoints" / "3" / "params" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match="3 is damaged") as error:
        load_params(tmp_path / "run")
    assert "\n" not in str(error.value)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="its checkpoints/ is empty"):
        load_params(tmp_path / "empty")

    def full(*args, **kwargs):
        raise ValueError("UNKNOWN: Error writing: No space left on device [errno 28]")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", full)
    with pytest.raises(UserError, match=r"\(No space left on device\): make room"):
        save_params(tmp_path / "run", 4, {"x": np.arange(10.0)}, {})
