"""Ours to Hugging Face's files and back; `make test-parity` asks transformers itself."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from electra_jax.checkpoint import save_params
from electra_jax.convert import from_hugging_face_directory, to_hugging_face_directory
from electra_jax.data.tokenization import WordPieceTokenizer, train_tokenizer
from electra_jax.errors import UserError
from electra_jax.heads import FineTuned, SequenceHead, SpanHead, TokenHead
from electra_jax.hugging_face import load_hugging_face, load_hugging_face_pair
from electra_jax.modeling import Electra
from electra_jax.pretrained import from_pretrained, load_pretrained

TEXT = "the quick brown fox jumps over the lazy dog while seven wizards mix the best of it all"
TEXTS = [
    TEXT,
    "",
    " ",
    "  the  fox ",
    "Fox, DOG; e\u0301 \ufb01 \u00bd",
    "\u4f60\u597d fox",
    "a\tb\nc",
]
FILES = {"config.json", "model.safetensors", "README.md", "tokenizer.json"} | {
    "tokenizer_config.json",
    "special_tokens_map.json",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(TEXT.split()), "##s"]
    path.write_text("\n".join([*tokens, *(f"unused{i}" for i in range(100 - len(tokens)))]) + "\n")
    return WordPieceTokenizer.from_vocab(path)


def write_run(directory, config, params, tokenizer, **metadata):
    described = {"config": {"model": dataclasses.asdict(config)}} | metadata
    save_params(directory, 7, params, json.loads(json.dumps(described)))
    (directory / "tokenizer").mkdir()
    tokenizer.save(directory / "tokenizer")
    return directory


@pytest.fixture(scope="module", params=["embeddings", "none", "all"])
def converted(request, config, random_params, tokenizer, tmp_path_factory):
    """A run of random parameters, and it as Hugging Face's."""
    directory = tmp_path_factory.mktemp("run")
    config = dataclasses.replace(config, sharing=request.param, generator_size=0.5)
    params = random_params(Electra(config), seed=5)
    run = write_run(directory / "run", config, params, tokenizer)
    row = {"split": "eval", "step": 7, "mlm_loss": 4.25, "disc_auc": 0.75}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    output = directory / "converted"
    written = to_hugging_face_directory(run, output)
    assert written == [output / "discriminator", output / "generator"]
    return config, params, run, output


def test_there_and_back_is_the_same_to_the_bit(converted, tmp_path):
    config, params, _, output = converted
    again = load_hugging_face_pair(output)
    assert again.config.sharing == config.sharing
    assert again.config.generator == config.generator
    assert again.config.discriminator == config.discriminator
    compare = lambda path, a, b: np.testing.assert_array_equal(a, b, err_msg=str(path))  # noqa: E731
    jax.tree_util.tree_map_with_path(compare, params, again.params)
    ours = load_pretrained(from_hugging_face_directory(output, tmp_path / "ours"))
    jax.tree_util.tree_map_with_path(compare, params, ours.params)
    assert ours.config == again.config


def test_everything_that_transformers_reads_is_there(converted):
    config, _, _, output = converted
    for part, architecture in (
        ("discriminator", "ElectraForPreTraining"),
        ("generator", "ElectraForMaskedLM"),
    ):
        assert {path.name for path in (output / part).iterdir()} == FILES | {"vocab.txt"}
        theirs = json.loads((output / part / "config.json").read_text())
        assert theirs["architectures"] == [architecture] and theirs["model_type"] == "electra"
        sizes = getattr(config, part)
        assert theirs["hidden_size"] == sizes.hidden_size
        assert theirs["num_attention_heads"] == sizes.num_heads
        with safetensors.safe_open(output / part / "model.safetensors", "np") as file:
            assert file.metadata() == {"format": "pt"}
            assert all(name.startswith(("electra.", part, "generator_")) for name in file.keys())
            assert "generator_lm_head.weight" not in file.keys()  # it is the table of words
    card = (output / "generator" / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card and "| 4.250 |" in card and "0.750" in card


def test_a_lone_discriminator_is_enough(converted):
    _, params, _, output = converted
    alone = from_pretrained(output / "discriminator")
    assert "generator_head" not in alone.params
    np.testing.assert_array_equal(
        alone.params["discriminator_head"]["output"]["kernel"],
        params["discriminator_head"]["output"]["kernel"],
    )


def test_what_is_there_is_not_overwritten_and_half_of_it_never_appears(
    converted, tmp_path, monkeypatch
):
    _, _, run, output = converted
    with pytest.raises(UserError, match="exists: choose another directory"):
        to_hugging_face_directory(run, output)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    (tmp_path / "new.tmp").mkdir()  # somebody else's
    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(UserError, match="No space left on device"):
        to_hugging_face_directory(run, tmp_path / "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "new.tmp"]


HEADS = {
    "classification": SequenceHead(2),
    "classification, two layers": SequenceHead(2, hidden_layer=True),
    "multilabel": SequenceHead(2),
    "regression": SequenceHead(1),
    "tagging": TokenHead(2),
    "span": SpanHead(joint=False, answerability=False),
}


def write_fine_tuned(directory, name, config, random_params, tokenizer):
    """A fine-tuned model of random parameters, and how it maps onto scores in the task's units."""
    head, kind = HEADS[name], name.partition(",")[0]
    labels = ("bad", "good") if kind not in ("regression", "span") else ()
    model = FineTuned(config, head)
    params = random_params(model, seed=6)
    described = {"kind": type(head).__name__} | dataclasses.asdict(head)
    space = {"kind": kind, "labels": labels, "score_range": (1.0, 5.0)}
    write_run(directory, config, params, tokenizer, head=described, space=space)
    return functools.partial(jax.jit(model.apply), {"params": params}), labels


@pytest.mark.parametrize("name", HEADS)
def test_fine_tuned_models_compute_the_same_in_their_classes(
    name, config, random_params, tokenizer, tmp_path, batch
):
    ours, labels = write_fine_tuned(tmp_path / "run", name, config, random_params, tokenizer)
    (output,) = to_hugging_face_directory(tmp_path / "run", tmp_path / "converted")
    theirs = load_hugging_face(output)
    ids = np.minimum(np.asarray(batch["input_ids"][:4], np.int32), 99)
    outputs = ours(ids)
    found = FineTuned(theirs.config, theirs.info["head"]).apply({"params": theirs.params}, ids)
    if name == "regression":
        outputs = 1.0 + 4.0 * outputs
    for value, expected in zip(jax.tree.leaves(found), jax.tree.leaves(outputs), strict=True):
        np.testing.assert_allclose(value, expected, atol=2e-4)
    if name != "span":
        described = theirs.info["config"]["id2label"]
        assert described == {str(i): label for i, label in enumerate(labels or ["score"])}


def test_a_joint_head_is_refused_with_the_remedy(config, random_params, tokenizer, tmp_path):
    head = {"kind": "SpanHead", "joint": True, "answerability": True}
    write_run(
        tmp_path / "run", config, {"embeddings": {}, "encoder": {}} and
        random_params(Electra(config)), tokenizer, head=head, space={"kind": "span"},
    )  # fmt: skip
    with pytest.raises(UserError, match="--config.model.joint_spans=False"):
        to_hugging_face_directory(tmp_path / "run", tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece-unigram", "sentencepiece-bpe"])
def test_tokenizer_json_gives_our_ids(kind, config, random_params, tmp_path):
    from tokenizers import Tokenizer

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(TEXT.split())) for _ in range(50)]
    tokenizer = train_tokenizer(kind, texts, 100)
    config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    write_run(tmp_path / "run", config, random_params(Electra(config)), tokenizer)
    output = to_hugging_face_directory(tmp_path / "run", tmp_path / "converted")[0]
    theirs = Tokenizer.from_file(str(output / "tokenizer.json"))
    ours = tokenizer.encode_batch(TEXTS + texts)
    assert [theirs.encode(t, add_special_tokens=False).ids for t in TEXTS + texts] == ours
    special = tokenizer.special_ids
    first, second = tokenizer.encode_batch(["the fox", "dog"])
    pair = theirs.encode("the fox", "dog")
    assert pair.ids == [special.cls, *first, special.sep, *second, special.sep]
    assert pair.type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert load_pretrained(output).tokenizer.settings == tokenizer.settings
