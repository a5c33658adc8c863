"""A pre-trained model applied to texts."""

import dataclasses
import functools
import json

import jax
import numpy as np
import optax
import pyarrow.parquet
import pytest
from test_convert import TEXT, write_run
from test_convert import tokenizer as tokenizer  # noqa: PLC0414 (a fixture)

import electra_jax
from electra_jax import cli
from electra_jax.errors import UserError
from electra_jax.inference import TextModel
from electra_jax.modeling import Electra
from electra_jax.steps import in_parts

MIXED = ["the quick fox", "", "the lazy dog while seven wizards mix", TEXT, "fox", "\u4f60\u597d"]


@pytest.fixture(scope="module")
def run_directory(config, random_params, tokenizer, tmp_path_factory):  # noqa: F811
    config = dataclasses.replace(config, vocab_size=100, max_positions=32)
    params = random_params(Electra(config), seed=8)
    return write_run(tmp_path_factory.mktemp("run") / "run", config, params, tokenizer)


@pytest.fixture(scope="module")
def model(run_directory):
    return TextModel(run_directory, batch_size=4)


def alone(model, text, method="discriminate", **kwargs):
    """The network on one text by itself, with no padding."""
    pretrained = model.pretrained
    special = pretrained.tokenizer.special_ids
    ids = np.array([[special.cls, *pretrained.tokenizer.encode_batch([text])[0], special.sep]])
    variables = {"params": pretrained.params}
    return np.asarray(pretrained.model.apply(variables, ids, method=method, **kwargs)[0])


def test_each_text_has_the_probabilities_it_has_alone(model):
    detections = list(model.detect(iter(MIXED * 20)))
    assert len(detections) == len(MIXED) * 20
    for text, detection in zip(MIXED, detections[-len(MIXED) :], strict=True):
        expected = 1 / (1 + np.exp(-alone(model, text)[1:-1].astype(np.float64)))
        np.testing.assert_allclose(detection.probabilities, expected, atol=1e-5)
        assert len(detection.tokens) == len(detection.offsets) == len(expected)
        assert [text[a:b] for a, b in detection.offsets if text.isascii()] == [
            token for token in detection.tokens if text.isascii()
        ]


@pytest.mark.parametrize("tokens", [1, 24, 40, 47, 1000])
def test_parts_of_a_batch_are_the_batch(tokens):
    batch = {"input_ids": np.arange(48).reshape(6, 8), "weights": np.arange(6.0)}
    sizes = []

    def step(params, batch):
        sizes.append(len(batch["weights"]))
        return {"a": params * batch["input_ids"], "b": (batch["weights"], batch["input_ids"] + 1)}

    found = jax.jit(functools.partial(in_parts, step, tokens=tokens))(2, batch)
    jax.tree.map(np.testing.assert_array_equal, found, step(2, batch))
    # The largest number of rows that divides 6 and has no more tokens, but at least one row.
    assert sizes[0] == {1: 1, 24: 3, 40: 3, 47: 3, 1000: 6}[tokens]


def test_a_text_that_is_too_long_is_cut_with_a_note_or_scored_in_windows(model):
    text = " ".join([TEXT] * 4)
    count = len(text.split())
    cut, whole = (next(model.detect([text], windows=windows)) for windows in (False, True))
    assert cut.note == f"cut to 30 of {count} tokens" and len(cut.tokens) == 30
    assert whole.note == "" and len(whole.tokens) == count
    words = text.split()
    first = 1 / (1 + np.exp(-alone(model, " ".join(words[:30]))[1:-1]))
    second = 1 / (1 + np.exp(-alone(model, " ".join(words[15:45]))[1:-1]))
    np.testing.assert_allclose(cut.probabilities, first, atol=1e-5)
    # Each token is scored where the nearer end of its window is farther away; of equal ones the
    # first.
    expected = np.concatenate([first[:23], second[8:15]])
    np.testing.assert_allclose(whole.probabilities[:30], expected, atol=1e-5)


def test_masks_are_filled_with_the_likeliest_pieces(model):
    found = list(model.fill_mask(["the [MASK] fox", "[MASK] dog [MASK]"], top_k=3))
    assert [len(masks) for masks in found] == [1, 2]
    tokenizer, special = model.pretrained.tokenizer, model.pretrained.tokenizer.special_ids
    the, fox = (tokenizer.encode_batch([word])[0][0] for word in ("the", "fox"))
    ids = np.array([[special.cls, the, special.mask, fox, special.sep]])
    logits = model.pretrained.model.apply(
        {"params": model.pretrained.params}, ids, np.array([[2]]), method="generate"
    )[0, 0]
    probabilities = np.asarray(jax.nn.softmax(logits))
    best = np.argsort(-probabilities)[:3]
    assert [guess["token"] for guess in found[0][0]] == [tokenizer.piece(i) for i in best]
    np.testing.assert_allclose(
        [guess["probability"] for guess in found[0][0]], probabilities[best], rtol=1e-4
    )
    with pytest.raises(UserError, match=r"has no \[MASK\]"):
        list(model.fill_mask(["the fox"]))
    texts = ["the fox", "the [MASK] fox", "[MASK] " * 40]
    none, masks, long = model.fill_mask(texts, top_k=3, strict=False)
    assert isinstance(none, UserError) and isinstance(long, UserError)
    tokens = [[guess["token"] for guess in guesses] for guesses in masks]
    assert tokens == [[guess["token"] for guess in guesses] for guesses in found[0]]


def test_vectors_are_the_hidden_states(model):
    hidden = [alone(model, text, "encode") for text in MIXED]
    for pooling, expected in (
        ("cls", [states[0] for states in hidden]),
        ("mean", [states.mean(axis=0) for states in hidden]),
        ("tokens", [states[1:-1] for states in hidden]),
    ):
        for vector, wanted in zip(model.embed(MIXED, pooling=pooling), expected, strict=True):
            np.testing.assert_allclose(vector, wanted, atol=1e-5)


def test_from_pretrained_gives_a_network_and_a_state_to_train_on(run_directory):
    pretrained = electra_jax.from_pretrained(run_directory)
    state = pretrained.train_state(optax.sgd(0.1), jax.random.key(0), seq_len=8)
    jax.tree.map(np.testing.assert_array_equal, state.params, pretrained.params)
    without = pretrained._replace(
        params={name: tree for name, tree in pretrained.params.items() if "generator" not in name}
    )
    state = without.train_state(optax.sgd(0.1), jax.random.key(0), seq_len=8)
    assert set(state.params) == set(pretrained.params)
    assert (
        state.params["generator_head"]["dense"]["kernel"]
        != pretrained.params["generator_head"]["dense"]["kernel"]
    ).any()


def cli_lines(capsys, *arguments):
    assert cli.main(list(map(str, arguments))) == 0
    return capsys.readouterr().out.splitlines()


def test_detect_gives_an_object_for_every_line_in_order(run_directory, tmp_path, capsys):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"the fox\n\nfox \xff dog\r\nthe lazy dog\r\n" + b"fox " * 100)
    lines = cli_lines(capsys, "detect", "--file", path, "--model", run_directory, "--jsonl")
    rows = [json.loads(line) for line in lines]
    assert [row["tokens"][:2] for row in rows] == [
        ["the", "fox"], [], [], ["the", "lazy"], ["fox", "fox"]]  # fmt: skip
    assert all(len(row["tokens"]) == len(row["probabilities"]) for row in rows)
    assert rows[2]["error"] == "not UTF-8 at byte 4"
    assert rows[4]["note"] == "cut to 30 of 100 tokens"


def test_fill_mask_and_embed_tell_of_bad_lines_in_place(run_directory, tmp_path, capsys):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"the [MASK]\n\xff [MASK]\n\nfox\n" + b"fox " * 40 + b"\n")
    rows = cli_lines(capsys, "fill-mask", "--file", path, "--model", run_directory)
    rows = [json.loads(row) for row in rows]
    assert len(rows[0][0]) == 5 and rows[1] == {"error": "not UTF-8 at byte 0"}
    assert all("has no [MASK]" in row["error"] for row in rows[2:])
    arguments = ("embed", "--file", path, "--model", run_directory, "--output")
    assert cli.main([*map(str, arguments), str(tmp_path / "v.npy")]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "note: line 2: not UTF-8 at byte 0",
        "note: line 5: cut to 30 of 40 tokens",
    ]


def test_a_model_of_damaged_weights_is_told(run_directory):
    pretrained = electra_jax.from_pretrained(run_directory)
    params = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), pretrained.params)
    with pytest.raises(UserError, match="are no numbers"):
        list(TextModel(pretrained._replace(params=params)).detect(["the fox"]))


def test_detect_prints_a_table_and_writes_a_page(run_directory, tmp_path, capsys):
    text = "the <quick> fox"
    lines = cli_lines(capsys, "detect", text, "--model", run_directory)
    assert lines[0].split() == ["the", "[UNK]", "quick", "[UNK]", "fox"]
    assert all(0 <= float(number) <= 1 for number in lines[1].split())
    page = tmp_path / "page.html"
    assert cli_lines(capsys, "detect", text, "--model", run_directory, "--html", page)
    content = page.read_text()
    assert "quick</span>" in content and "&lt;</span>" in content and "<quick>" not in content


def test_embed_writes_arrays_and_tables(run_directory, tmp_path, capsys):
    path = tmp_path / "lines.txt"
    path.write_text("the fox\nthe lazy dog\n")
    vectors, table = tmp_path / "vectors.npy", tmp_path / "table.parquet"
    arguments = ("embed", "--file", path, "--model", run_directory, "--output")
    cli_lines(capsys, *arguments, vectors)
    cli_lines(capsys, *arguments, table, "--pooling", "tokens")
    assert np.load(vectors).shape == (2, 32)
    rows = pyarrow.parquet.read_table(table).to_pylist()
    assert [len(row["vector"]) for row in rows] == [2, 3]
    assert rows[1]["text"] == "the lazy dog"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect"], "there is no text: give TEXT, or --file FILE"),
        (["detect", "x", "--file", "y"], "TEXT and --file are both given"),
        (["detect", "--file", "/none"], "/none cannot be read (No such file or directory)"),
        (["detect", "x", "--batch-size", "0"], "batch_size=0 must be positive"),
        (["detect", "caf\udce9"], "TEXT is not UTF-8"),
        (["detect", "x", "--html", "/none/x.html"], "cannot be written: /none is no directory"),
        (["embed", "--file", "x", "--output", "/none/x.npy"], "/none is no directory"),
        (["fill-mask", "the fox"], "has no [MASK]"),
        (["fill-mask", "[MASK]", "--top-k", "0"], "top_k=0 must lie in [1, 100]"),
        (["embed", "--file", "x", "--output", "x.txt"], "end it in .npy or .parquet"),
    ],
)
def test_a_mistake_is_one_line(run_directory, capsys, arguments, message):
    assert cli.main([*arguments, "--model", str(run_directory)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_no_model_is_said_so(tmp_path, capsys):
    assert cli.main(["detect", "x", "--model", str(tmp_path / "none")]) == 2
    assert "none does not exist: give a directory with a model" in capsys.readouterr().err
