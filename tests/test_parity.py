"""Our logits and hidden states beside transformers' on PyTorch; `make test-parity` runs it."""

import dataclasses

import jax
import numpy as np
import pytest
from test_convert import HEADS, write_fine_tuned, write_run
from test_convert import tokenizer as tokenizer  # noqa: PLC0414 (a fixture)

from electra_jax.config import ElectraConfig
from electra_jax.convert import to_hugging_face_directory
from electra_jax.data.tokenization import WordPieceTokenizer
from electra_jax.heads import answer_mask
from electra_jax.modeling import Electra

torch = pytest.importorskip("torch", exc_type=ImportError)
transformers = pytest.importorskip("transformers")

SIZES = {
    "tiny": ElectraConfig(
        vocab_size=1000, embedding_size=32, hidden_size=64, num_layers=2, num_heads=2
    ),
    "small": ElectraConfig.small(),
    "base": ElectraConfig.base(),
    "large": ElectraConfig.large(),
}


@pytest.mark.parametrize(
    "size", ["tiny", "small", *(pytest.param(s, marks=pytest.mark.slow) for s in ("base", "large"))]
)
def test_logits_and_hidden_states_are_theirs(size, tmp_path, capsys):
    config = dataclasses.replace(SIZES[size], scan_layers=True)
    shapes = jax.eval_shape(Electra(config).init, jax.random.key(0), np.zeros((1, 8), np.int32))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "scale":
            return rng.normal(1, 0.1, leaf.shape).astype(np.float32)
        # Every tensor counts, and activations keep their size from layer to layer.
        return rng.normal(0, leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 0.1, leaf.shape).astype(
            np.float32
        )

    params = jax.tree_util.tree_map_with_path(draw, shapes["params"])
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary += [f"word{i}" for i in range(config.vocab_size - 5)]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = WordPieceTokenizer.from_vocab(tmp_path / "vocab.txt")
    write_run(tmp_path / "run", config, params, tokenizer)
    output = tmp_path / "converted"
    to_hugging_face_directory(tmp_path / "run", output)

    ids = rng.integers(5, config.vocab_size, (3, 48))
    types, mask = np.zeros_like(ids), np.ones_like(ids)
    types[:, 20:], mask[1, 30:], mask[2, 40:] = 1, 0, 0
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    theirs = {name: torch.from_numpy(array) for name, array in arrays.items()}

    @jax.jit
    def ours(params, ids, mask, types):
        positions = np.broadcast_to(np.arange(48), (3, 48))
        model, variables = Electra(config), {"params": params}
        return {
            "hidden": model.apply(variables, ids, mask, types, method="encode"),
            "discriminator": model.apply(variables, ids, mask, types, method="discriminate"),
            "generator": model.apply(variables, ids, positions, mask, types, method="generate"),
        }

    with jax.default_matmul_precision("highest"):
        found = jax.device_get(ours(params, ids, mask, types))
    found["generator"] = found["generator"][..., : config.vocab_size]
    for part, architecture in (
        ("discriminator", "ElectraForPreTraining"),
        ("generator", "ElectraForMaskedLM"),
    ):
        model, info = getattr(transformers, architecture).from_pretrained(
            output / part, output_loading_info=True
        )
        assert not any(info.values()), info
        with torch.no_grad():
            outputs = model.eval()(**theirs, output_hidden_states=True)
        compared = {part: outputs.logits.numpy()}
        if part == "discriminator":
            compared["hidden"] = outputs.hidden_states[-1].numpy()
        for name, expected in compared.items():
            difference = np.abs(found[name] - expected)[mask == 1].max()
            largest = np.abs(expected[mask == 1]).max()
            with capsys.disabled():
                print(
                    f"\n{size} {name}: largest difference {difference:.1e} of values up to "
                    f"{largest:.1f} (transformers {transformers.__version__})",
                    end="",
                )
            assert difference < 1e-5


THEIRS = {
    "tagging": "ElectraForTokenClassification",
    "span": "ElectraForQuestionAnswering",
}


@pytest.mark.parametrize("name", HEADS)
def test_fine_tuned_models_compute_the_same_there(
    name, config, random_params, tokenizer, tmp_path, capsys
):
    ours, labels = write_fine_tuned(tmp_path / "run", name, config, random_params, tokenizer)
    (directory,) = to_hugging_face_directory(tmp_path / "run", tmp_path / "converted")
    model, info = getattr(
        transformers, THEIRS.get(name, "ElectraForSequenceClassification")
    ).from_pretrained(directory, output_loading_info=True)
    assert not any(info.values()), info
    rng = np.random.default_rng(1)
    ids, types, mask = rng.integers(5, 100, (3, 24)), np.zeros((3, 24), int), np.ones((3, 24), int)
    types[:, 10:], mask[1, 20:], mask[2, 12:] = 1, 0, 0
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    with torch.no_grad():
        outputs = model.eval()(**{key: torch.from_numpy(array) for key, array in arrays.items()})
    with jax.default_matmul_precision("highest"):
        found = jax.device_get(ours(ids, mask, types))
    if name == "span":
        # Theirs gives logits everywhere; ours where an answer may be.
        where = answer_mask(mask, types)
        pairs = [(found[k][where], outputs[k].numpy()[where]) for k in found]
    elif name == "tagging":
        pairs = [(found[mask == 1], outputs.logits.numpy()[mask == 1])]
    else:
        scores = outputs.logits.numpy()
        pairs = [(found, (scores - 1) / 4 if name == "regression" else scores)]
    difference = max(np.abs(a.ravel() - b.ravel()).max() for a, b in pairs)
    with capsys.disabled():
        print(f"\n{name}: largest difference {difference:.1e}", end="")
    assert difference < 1e-5
    if labels and name != "span":
        assert model.config.id2label == dict(enumerate(labels))


def test_a_pickle_of_tensors_is_read_and_one_of_code_is_not(tmp_path, capfd):
    from electra_jax.errors import UserError
    from electra_jax.hugging_face.files import read_tensors

    tensors = {"electra.embeddings.LayerNorm.gamma": torch.arange(4.0)}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    found, files = read_tensors(tmp_path)
    assert files == ["pytorch_model.bin"]
    np.testing.assert_array_equal(found["electra.embeddings.LayerNorm.gamma"], np.arange(4.0))

    class Harmful:
        def __reduce__(self):
            return print, ("this was run",)

    torch.save({"x": Harmful()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="nothing of it was run"):
        read_tensors(tmp_path)
    assert "this was run" not in capfd.readouterr().out


def test_the_modern_encoder_is_modernbert(tmp_path):
    """Rows longer than a window, with padding: logits of both networks."""
    config = ElectraConfig(
        architecture="modern",
        vocab_size=100,
        embedding_size=32,
        hidden_size=32,
        num_layers=5,
        num_heads=2,
        generator_size=1.0,
        generator_depth=0.6,
        local_window=8,
        max_positions=64,
        layer_norm_epsilon=1e-5,
    )
    model, rng = Electra(config), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8), np.int32))["params"]

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + 0.2 * rng.standard_normal(leaf.shape)).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"word{i}" for i in range(95)]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = WordPieceTokenizer.from_vocab(tmp_path / "vocab.txt")
    write_run(tmp_path / "run", config, params, tokenizer)
    to_hugging_face_directory(tmp_path / "run", tmp_path / "converted")

    ids = rng.integers(5, 100, (2, 40))
    mask = np.ones_like(ids)
    mask[1, 30:] = 0
    theirs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    positions = np.broadcast_to(np.arange(40), ids.shape)
    for part, kind, method, arrays in (
        ("discriminator", "AutoModelForTokenClassification", "discriminate", ()),
        ("generator", "AutoModelForMaskedLM", "generate", (positions,)),
    ):
        kind = getattr(transformers, kind)
        found = kind.from_pretrained(tmp_path / "converted" / part, attn_implementation="eager")
        with torch.no_grad():
            expected = found.eval()(**theirs).logits.numpy()
        ours = model.apply({"params": params}, ids, *arrays, mask != 0, method=method)
        ours = np.asarray(ours)[..., :100]
        ours = ours[..., None] if part == "discriminator" else ours
        np.testing.assert_allclose(ours[mask != 0], expected[mask != 0], atol=3e-4)
