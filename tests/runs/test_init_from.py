"""Pre-training that goes on from another model: of ours, of Hugging Face's, with more pieces."""

import json

import jax
import numpy as np
import pytest
from small_run import command, generated_text, run

from electra_jax.convert import to_hugging_face_directory
from electra_jax.data import Corpus, prepare_corpus
from electra_jax.pretrained import load_pretrained


@pytest.fixture(scope="module")
def first(corpus_path, tmp_path_factory):
    """A finished run, and it as Hugging Face's directories."""
    directory = tmp_path_factory.mktemp("first")
    result = run(command(corpus_path, directory / "run", train__num_train_steps=4))
    assert result.returncode == 0, result.stderr
    to_hugging_face_directory(directory / "run", directory / "converted")
    return directory


def begun(corpus, workdir, **overrides):
    """One step, whose learning rate is zero: what a run begins with. Returns its output, too."""
    result = run(command(corpus, workdir, train__num_train_steps=1, seed=5, **overrides))
    assert result.returncode == 0, result.stderr
    return load_pretrained(workdir).params, result.stdout


@pytest.mark.parametrize("source", ["run", "converted"])
def test_a_run_begins_with_the_parameters_of_another(first, corpus_path, tmp_path, source):
    wanted = load_pretrained(first / "run").params
    params, printed = begun(corpus_path, tmp_path / "run", init_from=first / source)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    assert f"Starting from {first / source}." in printed and "at random" not in printed


def test_a_run_killed_in_its_first_save_begins_with_them_again(first, corpus_path, tmp_path):
    # What orbax leaves of a save that did not end: a directory of another name.
    leftover = tmp_path / "run" / "checkpoints" / "1.orbax-checkpoint-tmp-0"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("written")
    params, printed = begun(corpus_path, tmp_path / "run", init_from=first / "run")
    jax.tree.map(np.testing.assert_array_equal, params, load_pretrained(first / "run").params)
    assert f"Starting from {first / 'run'}." in printed


def test_pieces_may_be_added_and_a_generator_may_be_missing(first, corpus_path, tmp_path):
    Corpus.open(corpus_path).tokenizer().save(tmp_path)
    with open(tmp_path / "vocab.txt", "a") as vocabulary:
        vocabulary.write("quetzal\nokapi\n")
    (tmp_path / "text.txt").write_text(generated_text(120, seed=1))
    corpus = tmp_path / "corpus"
    prepare_corpus([tmp_path / "text.txt"], corpus, vocab=tmp_path / "vocab.txt")
    wanted = load_pretrained(first / "run").params
    params, printed = begun(
        corpus, tmp_path / "run", init_from=first / "converted" / "discriminator"
    )
    assert "2 new pieces of the vocabulary start at random" in printed
    assert "the generator starts at random (it has none)" in printed
    word = wanted["embeddings"]["word"]
    assert params["embeddings"]["word"].shape == (len(word) + 2, word.shape[1])
    np.testing.assert_array_equal(params["embeddings"]["word"][: len(word)], word)
    assert np.abs(params["embeddings"]["word"][len(word) :]).max() > 0
    for part in ("encoder", "discriminator_head"):
        jax.tree.map(np.testing.assert_array_equal, params[part], wanted[part])
    generators = [tree["generator_encoder"]["layers"]["qkv"]["kernel"] for tree in (params, wanted)]
    assert (generators[0] != generators[1]).any()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"init_from": "/none"}, "init_from=/none does not exist"),
        ({"model__num_layers": 2}, "model.num_layers=2 (pretrained: 1)"),
        ({"data__path": None}, "init_from: the corpus's tokenizer is not the pretrained model's"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    first, corpus_path, tmp_path, overrides, message
):
    if overrides.get("data__path", "") is None:
        (tmp_path / "text.txt").write_text(generated_text(120, seed=2).upper())
        overrides = {"data__path": tmp_path / "corpus"}
        prepare_corpus(
            [tmp_path / "text.txt"], tmp_path / "corpus", lowercase=False,
            train_tokenizer="wordpiece", vocab_size=200,
        )  # fmt: skip
    arguments = {"init_from": first / "run"} | overrides
    result = run(command(corpus_path, tmp_path / "run", **arguments))
    assert result.returncode == 2
    error = result.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "run").exists()


def test_it_resumes_without_the_other_model(first, corpus_path, tmp_path):
    source = tmp_path / "source"
    (first / "run").rename(source)
    arguments = command(corpus_path, tmp_path / "run", init_from=source, train__num_train_steps=1)
    assert run(arguments).returncode == 0
    source.rename(first / "run")
    longer = [a.replace("num_train_steps=1", "num_train_steps=2") for a in arguments]
    result = run(longer)
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == 2
