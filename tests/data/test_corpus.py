from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import electra_jax.data
from electra_jax.data import Corpus
from electra_jax.errors import UserError

AGAIN = "prepare the corpus again, or copy it again"


@pytest.fixture
def copy(corpus, tmp_path):
    return Path(shutil.copytree(corpus.path, tmp_path / "copy"))


def message(path):
    with pytest.raises(UserError) as error:
        Corpus.open(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_counts_and_arrays(corpus):
    corpus.verify()
    assert len(corpus.shards("train")) > 2
    for split in ("train", "validation"):
        shards = corpus.shards(split)
        documents = corpus.num_documents(split)
        assert documents == sum(len(shard.document_ends) for shard in shards) > 0
        assert corpus.num_tokens(split) == sum(len(shard.tokens) for shard in shards) - documents
        for shard in shards:
            assert (shard.tokens[shard.document_ends] == corpus.special_ids.sep).all()
            assert (shard.tokens == corpus.special_ids.sep).sum() == len(shard.document_ends)
            assert np.isin(shard.document_ends, shard.sentence_ends).all()
            assert (np.diff(shard.sentence_ends) > 0).all()
            assert shard.document_ends[-1] == len(shard.tokens) - 1
    assert corpus.tokenizer().vocab_size == corpus.vocab_size
    with pytest.raises(UserError, match="split='test' is unknown: use one of train, validation"):
        corpus.shards("test")


def test_a_copy_has_the_same_fingerprint(corpus, copy):
    assert Corpus.open(copy).fingerprint == corpus.fingerprint


def test_refuses_what_is_no_corpus(tmp_path):
    path = tmp_path / "none"
    assert message(path) == f"corpus {path} does not exist: prepare one, or check data.path"
    path.mkdir()
    assert message(path) == (
        f"corpus {path} has no corpus.json: it is unfinished or no corpus; prepare it again"
    )
    for content in ("{", "[]", "{}", '{"format_version": 1}', '"x"'):
        (path / "corpus.json").write_text(content)
        assert message(path) == f"{path}/corpus.json is damaged: {AGAIN}"
    (path / "corpus.json").write_text('{"format_version": 7}')
    assert message(path) == (
        f"corpus {path} has format version 7, this program reads 1: "
        "prepare the corpus again with this program"
    )


@pytest.mark.parametrize(
    "name",
    ["train-00001.tokens.npy", "validation-00000.document_ends.npy", "vocab.txt", "tokenizer.json"],
)
def test_refuses_missing_and_cut_files(copy, name):
    file = copy / name
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    size = len(content)
    assert message(copy) == f"{file} has {size - 1} bytes, not {size}: {AGAIN}"
    file.unlink()
    assert message(copy) == f"{file} is missing: {AGAIN}"


def test_verify_finds_one_flipped_bit(copy):
    file = copy / "train-00001.tokens.npy"
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    corpus = Corpus.open(copy)
    with pytest.raises(UserError) as error:
        corpus.verify()
    assert str(error.value) == f"{file} does not match its checksum: {AGAIN}"


def test_refuses_another_vocabulary(copy):
    file = copy / "vocab.txt"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    assert message(copy) == f"{file} does not match its checksum: {AGAIN}"


def test_refuses_edited_metadata(copy):
    file = copy / "corpus.json"
    metadata = json.loads(file.read_text())
    metadata["tokenizer"]["settings"]["vocab_size"] += 1
    file.write_text(json.dumps(metadata))
    assert message(copy) == f"{file} does not match its fingerprint: {AGAIN}"


def test_refuses_an_altered_summary(copy):
    file = copy / "corpus.json"
    metadata = json.loads(file.read_text())
    metadata["summary"]["duplicates"] += 1
    file.write_text(json.dumps(metadata))
    assert message(copy) == f"{file} has been altered: {AGAIN}"


def test_refuses_an_array_of_another_kind(copy):
    """The size in bytes is right, the content is not: found when the shard is opened."""
    file = copy / "train-00000.tokens.npy"
    tokens = np.load(file)
    np.save(file, tokens.view(np.int16))
    with pytest.raises(UserError) as error:
        Corpus.open(copy).shards("train")
    n = len(tokens)
    assert str(error.value) == f"{file} is int16[{n}], not uint16[{n}]: {AGAIN}"


def test_importing_is_light():
    """No JAX in this package's sources, and nothing heavy loaded by importing it."""
    for path in Path(electra_jax.data.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"jax", "flax", "tensorflow"}
    program = (
        "import sys, electra_jax.data\n"
        "heavy = {'jax', 'flax', 'tensorflow', 'tensorflow_datasets', 'torch', 'tokenizers'}\n"
        "heavy |= {'sentencepiece', 'pyarrow', 'apache_beam', 'fsspec', 'zstandard', 'rich'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
