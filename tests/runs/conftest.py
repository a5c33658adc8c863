"""The corpus that the runs train on."""

import pytest
from small_run import NUM_STEPS, command, generated_text, run

from electra_jax.data import prepare_corpus


@pytest.fixture(scope="session")
def corpus_path(tmp_path_factory):
    """A prepared corpus, with a vocabulary of its own of fewer than 200 ids."""
    directory = tmp_path_factory.mktemp("corpus")
    (directory / "text.txt").write_text(generated_text(120, seed=0))
    output = directory / "corpus"
    prepare_corpus(
        [directory / "text.txt"],
        output,
        train_tokenizer="wordpiece",
        vocab_size=200,
        validation_fraction=0.1,
    )
    return output


@pytest.fixture(scope="session")
def undisturbed(corpus_path, tmp_path_factory):
    """A run of 60 steps to which nothing has happened; to be copied, not changed."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    result = run(command(corpus_path, workdir, train__num_train_steps=NUM_STEPS))
    assert result.returncode == 0, result.stderr
    return workdir
