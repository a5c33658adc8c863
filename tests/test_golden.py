"""Models that transformers has saved: what we compute with them, beside what it computed."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from electra_jax.convert import from_hugging_face_directory, to_hugging_face_directory
from electra_jax.pretrained import from_pretrained

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def pair():
    """Both, as one model of ours."""
    return from_pretrained(GOLDEN)


@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_each_alone_computes_the_same(expected, part):
    pretrained = from_pretrained(GOLDEN / part)
    compare(pretrained, expected, part)


def test_both_together_compute_the_same(pair, expected):
    compare(pair, expected, "discriminator")
    compare(pair, expected, "generator")


def compare(pretrained, expected, part):
    ids, types, mask = (
        expected[name] for name in ("input_ids", "token_type_ids", "attention_mask")
    )
    found = {}

    def apply(method, *arguments):
        variables = {"params": pretrained.params}
        return np.asarray(pretrained.model.apply(variables, *arguments, method=method))

    if part == "discriminator":
        found["logits"] = apply("discriminate", ids, mask, types)
        found["hidden"] = apply("encode", ids, mask, types)
    else:
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        found["logits"] = apply("generate", ids, positions, mask, types)[..., :61]
    for name, values in found.items():
        wanted = expected[f"{part}_{name}"]
        assert values.shape == wanted.shape
        np.testing.assert_allclose(values[mask == 1], wanted[mask == 1], atol=5e-6)
        assert wanted[mask == 1].std() > 0.3


def test_there_and_back_every_tensor_is_the_same_to_the_bit(tmp_path):
    run = from_hugging_face_directory(GOLDEN, tmp_path / "run")
    to_hugging_face_directory(run, tmp_path / "back")
    for part in ("discriminator", "generator"):
        before = load_file(GOLDEN / part / "model.safetensors")
        after = load_file(tmp_path / "back" / part / "model.safetensors")
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            np.testing.assert_array_equal(tensor, after[name], err_msg=name)
