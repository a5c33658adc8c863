"""Directories of Hugging Face's, against a forward pass in NumPy over their own names.

The directories are written here, tensor by tensor as transformers writes them.
"""

import dataclasses
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from numpy_electra import gelu
from numpy_electra import layer_norm as our_layer_norm
from scipy import special

from electra_jax.data.tokenization import SPECIAL_TOKENS, WordPieceTokenizer
from electra_jax.errors import UserError
from electra_jax.heads import FineTuned, SequenceHead, SpanHead, TokenHead
from electra_jax.hugging_face import load_hugging_face, to_hugging_face
from electra_jax.modeling import Electra

VOCAB, WIDTH, LAYERS, HEADS, INNER, POSITIONS = 40, 12, 2, 3, 20, 16
WORDS = [*SPECIAL_TOKENS, "the", "##s", "cafe", "café", "北"]

CONFIG = {
    "model_type": "electra",
    "vocab_size": VOCAB,
    "embedding_size": 8,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.3,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}


def dense_shapes(name, out, width):
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def norm_shapes(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def backbone_shapes(embedding):
    shapes = {
        "embeddings.word_embeddings.weight": (VOCAB, embedding),
        "embeddings.position_embeddings.weight": (POSITIONS, embedding),
        "embeddings.token_type_embeddings.weight": (2, embedding),
        **norm_shapes("embeddings.LayerNorm", embedding),
    }
    if embedding != WIDTH:
        shapes |= dense_shapes("embeddings_project", WIDTH, embedding)
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}."
        for part in ("query", "key", "value"):
            shapes |= dense_shapes(layer + f"attention.self.{part}", WIDTH, WIDTH)
        shapes |= dense_shapes(layer + "attention.output.dense", WIDTH, WIDTH)
        shapes |= norm_shapes(layer + "attention.output.LayerNorm", WIDTH)
        shapes |= dense_shapes(layer + "intermediate.dense", INNER, WIDTH)
        shapes |= dense_shapes(layer + "output.dense", WIDTH, INNER)
        shapes |= norm_shapes(layer + "output.LayerNorm", WIDTH)
    return shapes


def head_shapes(architecture, embedding):
    return {
        "ElectraModel": {},
        "BertModel": dense_shapes("pooler.dense", WIDTH, WIDTH),
        "ElectraForPreTraining": dense_shapes("discriminator_predictions.dense", WIDTH, WIDTH)
        | dense_shapes("discriminator_predictions.dense_prediction", 1, WIDTH),
        "ElectraForMaskedLM": dense_shapes("generator_predictions.dense", embedding, WIDTH)
        | norm_shapes("generator_predictions.LayerNorm", embedding)
        | {"generator_lm_head.bias": (VOCAB,)},
        "ElectraForSequenceClassification": dense_shapes("classifier.dense", WIDTH, WIDTH)
        | dense_shapes("classifier.out_proj", 3, WIDTH),
        "ElectraForTokenClassification": dense_shapes("classifier", 5, WIDTH),
        "ElectraForQuestionAnswering": dense_shapes("qa_outputs", 2, WIDTH),
        "BertForSequenceClassification": dense_shapes("bert.pooler.dense", WIDTH, WIDTH)
        | dense_shapes("classifier", 3, WIDTH),
    }[architecture]


ARCHITECTURES = [
    "ElectraModel",
    "ElectraForPreTraining",
    "ElectraForMaskedLM",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraForQuestionAnswering",
]


def make_tensors(architecture, embedding=8, seed=0):
    prefix = {"ElectraModel": "", "BertModel": ""}.get(
        architecture, "bert." if architecture.startswith("Bert") else "electra."
    )
    shapes = {prefix + name: shape for name, shape in backbone_shapes(embedding).items()}
    shapes |= head_shapes(architecture, embedding)
    rng = np.random.default_rng(seed)
    return {
        name: np.float32(("LayerNorm.weight" in name) + 0.3 * rng.standard_normal(shape))
        for name, shape in shapes.items()
    }


def write(directory, tensors=None, config=CONFIG, architecture="ElectraForPreTraining"):
    """A directory as `save_pretrained` leaves it."""
    directory.mkdir(exist_ok=True)
    config = config | {"architectures": [architecture]}
    (directory / "config.json").write_text(json.dumps(config))
    tensors = make_tensors(architecture) if tensors is None else tensors
    safetensors.numpy.save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return tensors


# Their forward pass, as their modeling files have it, in float64.


def dense(x, t, name):
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def layer_norm(x, t, name):
    return our_layer_norm(x, {"scale": t[f"{name}.weight"], "bias": t[f"{name}.bias"]})


def encode(tensors, ids, attention_mask, types):
    """[B, L, D]; padding is what `attention_mask` leaves out of every softmax."""
    t = {
        name.removeprefix("electra.").removeprefix("bert."): np.float64(array)
        for name, array in tensors.items()
    }
    x = t["embeddings.word_embeddings.weight"][ids]
    x = x + t["embeddings.token_type_embeddings.weight"][types]
    x = x + t["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = layer_norm(x, t, "embeddings.LayerNorm")
    if "embeddings_project.weight" in t:
        x = dense(x, t, "embeddings_project")
    keys = np.where(attention_mask, 0.0, -np.inf)[:, None, None, :]
    split = lambda x: np.moveaxis(x.reshape(*x.shape[:2], HEADS, -1), 2, 1)  # noqa: E731
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}."
        query, key, value = (
            split(dense(x, t, layer + f"attention.self.{part}"))
            for part in ("query", "key", "value")
        )
        scores = query @ np.swapaxes(key, -1, -2) / np.sqrt(WIDTH / HEADS) + keys
        context = np.moveaxis(special.softmax(scores, -1) @ value, 1, 2).reshape(x.shape)
        attended = dense(context, t, layer + "attention.output.dense")
        x = layer_norm(x + attended, t, layer + "attention.output.LayerNorm")
        inner = gelu(dense(x, t, layer + "intermediate.dense"))
        forward = dense(inner, t, layer + "output.dense")
        x = layer_norm(x + forward, t, layer + "output.LayerNorm")
    return x


@pytest.fixture(scope="module")
def arrays():
    """Ids, attention mask with uneven padding, and two segments."""
    lengths = np.array([[12], [8], [3]])
    positions = np.arange(12)[None]
    mask = positions < lengths
    ids = np.random.default_rng(1).integers(5, VOCAB, (3, 12)) * mask
    types = ((positions >= lengths // 2) & mask).astype(np.int32)
    return ids.astype(np.int32), mask, types


def outputs_of(model, arrays):
    """Hidden states, and the logits of the heads that there are."""

    @jax.jit
    def run(params, ids, mask, types):
        def apply(method, *arrays):
            return network.apply({"params": params}, *arrays, method=method)

        network = Electra(model.config)
        found = {"hidden": apply("encode", ids, mask, types)}
        if "discriminator_head" in params:
            found["discriminated"] = apply("discriminate", ids, mask, types)
        if "generator_head" in params:
            everywhere = np.tile(np.arange(ids.shape[1]), (len(ids), 1))
            found["generated"] = apply("generate", ids, everywhere, mask, types)
        return found

    return jax.tree.map(np.asarray, run(model.params, *arrays))


@pytest.mark.parametrize("architecture", ["ElectraForPreTraining", "ElectraForMaskedLM"])
def test_both_networks_of_electra_compute_what_theirs_do(tmp_path, arrays, architecture):
    tensors = write(tmp_path, architecture=architecture)
    model = load_hugging_face(tmp_path)
    found, mask = outputs_of(model, arrays), arrays[1]
    hidden = encode(tensors, *arrays)
    np.testing.assert_allclose(found["hidden"][mask], hidden[mask], rtol=0, atol=1e-5)
    t = {name: np.float64(array) for name, array in tensors.items()}
    if architecture == "ElectraForPreTraining":
        x = gelu(dense(hidden, t, "discriminator_predictions.dense"))
        logits = dense(x, t, "discriminator_predictions.dense_prediction")[..., 0]
        found, head = found["discriminated"], "discriminator_head"
    else:
        x = gelu(dense(hidden, t, "generator_predictions.dense"))
        x = layer_norm(x, t, "generator_predictions.LayerNorm")
        logits = x @ t["electra.embeddings.word_embeddings.weight"].T
        logits = logits + t["generator_lm_head.bias"]
        found, head = found["generated"][..., :VOCAB], "generator_head"
    np.testing.assert_allclose(found[mask], logits[mask], rtol=0, atol=1e-5)
    assert set(model.params) == {"embeddings", "encoder", head}
    assert model.info["unused"] == [] and model.info["head"] is None
    assert model.info["architecture"] == architecture and model.tokenizer is None
    assert model.config.dropout_rate == 0.2 and model.config.attention_dropout_rate == 0.3


def test_a_bert_gives_its_encoder_and_names_what_is_left(tmp_path, arrays):
    config = {k: v for k, v in CONFIG.items() if k != "embedding_size"} | {"model_type": "bert"}
    tensors = make_tensors("BertForSequenceClassification", embedding=WIDTH)
    write(tmp_path, tensors, config, "BertForSequenceClassification")
    model = load_hugging_face(tmp_path)
    found, mask = outputs_of(model, arrays)["hidden"], arrays[1]
    np.testing.assert_allclose(found[mask], encode(tensors, *arrays)[mask], rtol=0, atol=1e-5)
    assert set(model.params) == {"embeddings", "encoder"}
    assert "projection" not in model.params["encoder"]
    assert model.config.embedding_size == WIDTH
    assert model.info["unused"] == [
        "classifier.bias", "classifier.weight", "pooler.dense.bias", "pooler.dense.weight"
    ]  # fmt: skip
    bare = make_tensors("BertModel", embedding=WIDTH)
    write(tmp_path, bare, config, "BertModel")
    word = load_hugging_face(tmp_path).params["embeddings"]["word"]
    np.testing.assert_array_equal(word, bare["embeddings.word_embeddings.weight"])


@pytest.mark.parametrize("embedding", [8, WIDTH], ids=["projection", "no projection"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_there_and_back_is_exact(tmp_path, architecture, embedding):
    tensors = make_tensors(architecture, embedding)
    write(tmp_path, tensors, CONFIG | {"embedding_size": embedding}, architecture)
    model = load_hugging_face(tmp_path)
    assert {x.dtype for x in jax.tree.leaves(model.params)} == {np.dtype(np.float32)}
    back = to_hugging_face(model.params, architecture)
    assert set(back) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
        assert back[name].dtype == array.dtype and back[name].flags["C_CONTIGUOUS"]
    assert model.info["unused"] == []


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("ElectraForSequenceClassification", SequenceHead(3, hidden_layer=True)),
        ("ElectraForTokenClassification", TokenHead(5, dropout_rate=0.1)),
        ("ElectraForQuestionAnswering", SpanHead(joint=False, answerability=False)),
    ],
)
def test_a_fine_tuned_electra_has_its_head(tmp_path, architecture, head):
    tensors = write(tmp_path, architecture=architecture)
    model = load_hugging_face(tmp_path)
    assert model.info["head"] == head
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    network = FineTuned(model.config, head)
    shapes = jax.eval_shape(network.init, jax.random.key(0), ids)["params"]
    assert jax.tree.map(lambda x: x.shape, model.params) == jax.tree.map(lambda x: x.shape, shapes)
    last = list(tensors)[-2]
    np.testing.assert_array_equal(model.params["head"]["output"]["kernel"], tensors[last].T)


@pytest.mark.parametrize("sharing", ["embeddings", "none", "all"])
def test_our_runs_give_both_networks_of_theirs(config, random_params, sharing):
    params = random_params(Electra(dataclasses.replace(config, sharing=sharing)))
    discriminator = to_hugging_face(params, "ElectraForPreTraining")
    generator = to_hugging_face(params, "ElectraForMaskedLM")
    own = params if sharing == "all" else {
        "encoder": params["generator_encoder"],
        "embeddings": params["generator_embeddings" if sharing == "none" else "embeddings"],
    }  # fmt: skip
    for tensors, encoder, embeddings in (
        (discriminator, params["encoder"], params["embeddings"]),
        (generator, own["encoder"], own["embeddings"]),
    ):
        query = tensors["electra.encoder.layer.1.attention.self.query.weight"]
        width = len(query)
        np.testing.assert_array_equal(query, encoder["layers"]["qkv"]["kernel"][1, :, :width].T)
        words = tensors["electra.embeddings.word_embeddings.weight"]
        np.testing.assert_array_equal(words, embeddings["word"])
    assert "generator_lm_head.bias" in generator and "generator_lm_head.weight" not in generator
    assert not any("generator" in name for name in discriminator)


def test_a_head_of_another_kind_has_no_counterpart(config, random_params):
    original = random_params(FineTuned(config, SequenceHead(3)))
    with pytest.raises(UserError, match="ForSequenceClassification needs head/dense, which these"):
        to_hugging_face(original, "ElectraForSequenceClassification")
    joint = random_params(FineTuned(config, SpanHead(hidden_size=8)))
    with pytest.raises(UserError, match="QuestionAnswering has no counterpart of the parameter"):
        to_hugging_face(joint, "ElectraForQuestionAnswering")


def assert_same_model(directory, other):
    one, two = load_hugging_face(directory), load_hugging_face(other)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert one.config == two.config and one.info["unused"] == two.info["unused"]


def test_old_names_and_buffers_are_understood(tmp_path):
    tensors = write(tmp_path / "new")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in tensors.items()
    } | {"electra.embeddings.position_ids": np.arange(POSITIONS)[None]}
    write(tmp_path / "old", old)
    assert_same_model(tmp_path / "old", tmp_path / "new")
    both = tensors | {"electra.embeddings.LayerNorm.gamma": np.ones(8, np.float32)}
    write(tmp_path / "both", both)
    with pytest.raises(UserError, match="'embeddings.LayerNorm.weight' under two names"):
        load_hugging_face(tmp_path / "both")


def write_shards(directory, tensors):
    write(directory, tensors)
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        part = {name: tensors[name] for name in names if weight_map[name] == file}
        safetensors.numpy.save_file(part, directory / file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_shards_are_one_model(tmp_path):
    tensors = write(tmp_path / "whole")
    index = write_shards(tmp_path / "shards", tensors)
    assert_same_model(tmp_path / "shards", tmp_path / "whole")
    files = load_hugging_face(tmp_path / "shards").info["files"]
    assert files == [f"model-{i}.safetensors" for i in range(3)]

    name = sorted(tensors)[0]
    path = tmp_path / "shards" / "model.safetensors.index.json"
    for change, message in (
        ({name: "model-1.safetensors"}, f"model-0.*index.json disagree on {name}"),
        ({name: "../model.safetensors"}, "names '../model.safetensors', which is not beside it"),
    ):
        path.write_text(json.dumps({"weight_map": index["weight_map"] | change}))
        with pytest.raises(UserError, match=message):
            load_hugging_face(tmp_path / "shards")
    path.write_text(json.dumps(index))
    (tmp_path / "shards" / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2.safetensors does not exist, but .*index.json"):
        load_hugging_face(tmp_path / "shards")
    path.write_text("{}")
    with pytest.raises(UserError, match="has no weight_map"):
        load_hugging_face(tmp_path / "shards")


def test_half_precision_is_widened_and_integers_are_refused(tmp_path):
    tensors = make_tensors("ElectraForPreTraining")
    for half in (np.float16, ml_dtypes.bfloat16):
        write(tmp_path, {name: array.astype(half) for name, array in tensors.items()})
        word = load_hugging_face(tmp_path).params["embeddings"]["word"]
        expected = tensors["electra.embeddings.word_embeddings.weight"].astype(half)
        assert word.dtype == np.float32
        np.testing.assert_array_equal(word, expected.astype(np.float32))
    name = "discriminator_predictions.dense.weight"
    write(tmp_path, tensors | {name: np.zeros((WIDTH, WIDTH), np.int8)})
    with pytest.raises(UserError, match=f"{name} is of type int8, expected float32, float16"):
        load_hugging_face(tmp_path)


def test_a_tied_table_may_be_in_the_file_and_another_may_not(tmp_path):
    tensors = make_tensors("ElectraForMaskedLM")
    words = tensors["electra.embeddings.word_embeddings.weight"]
    write(tmp_path / "plain", tensors, architecture="ElectraForMaskedLM")
    tied = tensors | {"generator_lm_head.weight": words}
    write(tmp_path / "tied", tied, architecture="ElectraForMaskedLM")
    assert_same_model(tmp_path / "tied", tmp_path / "plain")
    write(tmp_path / "own", tensors | {"generator_lm_head.weight": words + 1})
    with pytest.raises(UserError, match="generator_lm_head.weight differs from the word"):
        load_hugging_face(tmp_path / "own")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type='roberta', expected 'electra' or 'bert'"),
        ({"model_type": "deberta-v2"}, "model_type='deberta-v2', expected 'electra' or 'bert'"),
        ({"model_type": None}, "model_type=None, expected 'electra' or 'bert'"),
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new', expected 'gelu'"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type='relative_key', expected 'absolute'",
        ),
        ({"is_decoder": True}, "is_decoder=True, expected False"),
        ({"num_attention_heads": 5}, "config.json is no model of ours: model.num_heads=5 does"),
        ({"hidden_size": "12"}, "config.json is no model of ours: "),
        ({"num_hidden_layers": 1}, r"has no place for: encoder.layer.1.attention.output.Layer"),
        ({"num_hidden_layers": 3}, r"missing: encoder.layer.2.attention.output.LayerNorm.bias, "),
        (
            {"vocab_size": 41},
            r"another shape than config.json says: embeddings.word_embeddings.weight \[40, 8\] "
            r"for \[41, 8\]",
        ),
        ({"embedding_size": WIDTH}, r"no place for|another shape"),
        ({"model_type": "bert"}, r"another shape than config.json says: embeddings.LayerNorm"),
    ],
    ids=str,
)
def test_another_architecture_or_a_contradiction_is_refused(tmp_path, change, message):
    write(tmp_path, config=CONFIG | change)
    with pytest.raises(UserError, match=message) as error:
        load_hugging_face(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["vocab_size", "num_attention_heads", "embedding_size"])
def test_a_size_that_is_not_given_is_not_guessed(tmp_path, name):
    write(tmp_path, config={k: v for k, v in CONFIG.items() if k != name})
    with pytest.raises(UserError, match=f"config.json lacks {name}: bring the model's whole"):
        load_hugging_face(tmp_path)


def test_damaged_and_foreign_directories_are_refused(tmp_path):
    write(tmp_path / "model")
    whole = (tmp_path / "model" / "model.safetensors").read_bytes()

    def refused(message, **files):
        directory = tmp_path / "copy"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(tmp_path / "model", directory)
        for name, content in files.items():
            path = directory / name.replace("__", ".")
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            load_hugging_face(directory)
        assert str(directory) in str(error.value)

    for cut in (len(whole) - 1, len(whole) // 2, 20, 0):
        refused("is no whole safetensors file", model__safetensors=whole[:cut])
    refused("is no whole safetensors", model__safetensors=b"version https://git-lfs.github.com")
    refused("has no weights: expected model.safetensors", model__safetensors=None)
    pickled = dict(model__safetensors=None, pytorch_model__bin=b"\x80\x02")
    refused("is a pickle, which can run any code|holds more than tensors by name", **pickled)
    refused("expected config.json, found model.safetensors", config__json=None)
    refused("is no JSON file", config__json=b"{")
    refused("holds a list, expected an object", config__json=b"[]")
    with pytest.raises(UserError, match="no directory: give one with config.json"):
        load_hugging_face(tmp_path / "nowhere")


# Tokenizers.


def write_vocab(directory, words=WORDS):
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def write_tokenizer(directory, words=WORDS, **arguments):
    """A tokenizer.json that says to cut and to pad, as some on the hub do."""
    write_vocab(directory, words)
    tokenizer = WordPieceTokenizer.from_vocab(directory / "vocab.txt", **arguments)
    (directory / "vocab.txt").unlink()
    tokenizer.save(directory)
    description = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    description["truncation"] = {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    description["padding"] = {
        "strategy": {"Fixed": 3}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    return description


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    write(directory)
    return directory


@pytest.fixture
def directory(model_directory, tmp_path):
    return shutil.copytree(model_directory, tmp_path / "copy")


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        (None, [5, 7, 9]),
        ({"do_lower_case": True}, [5, 7, 9]),
        ({"do_lower_case": False}, [1, 8, 9]),
        ({"do_lower_case": True, "strip_accents": False}, [5, 8, 9]),
    ],
)
def test_a_vocabulary_is_read_with_its_settings(directory, settings, ids):
    write_vocab(directory)
    if settings is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_hugging_face(directory).tokenizer
    assert tokenizer.encode_batch(["The café北"]) == [ids]
    assert tokenizer.special_ids == (0, 1, 2, 3, 4)


def test_a_tokenizer_file_is_read_without_its_cutting_and_padding(directory):
    write_tokenizer(directory)
    for vocab in (True, False):  # transformers 4 writes vocab.txt beside it, 5 does not
        tokenizer = load_hugging_face(directory).tokenizer
        assert tokenizer.encode_batch(["the thes the the", "the"]) == [[5, 5, 6, 5, 5], [5]]
        if vocab:
            (directory / "vocab.txt").unlink()


def test_tokenizers_of_other_kinds_and_contradictions_are_refused(directory):
    description = write_tokenizer(directory)

    def refused(message):
        with pytest.raises(UserError, match=message):
            load_hugging_face(directory)

    write_vocab(directory, [*WORDS, "more"])
    refused(r"vocabularies of vocab.txt \(11 tokens\) and tokenizer.json \(10\) differ")
    write_vocab(directory)
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    refused("says do_lower_case=False, but tokenizer.json has lowercase=True: make them agree")
    (directory / "tokenizer_config.json").unlink()
    for part, kind in (("model", "BPE"), ("normalizer", "NFC")):
        other = description | {part: description[part] | {"type": kind}}
        (directory / "tokenizer.json").write_text(json.dumps(other))
        refused(f"is not a WordPiece tokenizer as BERT's .*{part}.type='{kind}'")
    (directory / "tokenizer.json").write_text("[]")
    refused("is not a tokenizer file")
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").write_text('{"tokenize_chinese_chars": false}')
    refused("tokenize_chinese_chars=false, expected true")


def test_a_tokenizer_that_is_larger_than_the_model_is_refused(directory):
    write_vocab(directory, [*WORDS, *(f"w{i}" for i in range(VOCAB))])
    with pytest.raises(UserError, match="tokenizer has 50 tokens, but config.json says vocab_size"):
        load_hugging_face(directory)
