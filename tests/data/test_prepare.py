from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from electra_jax.data import Corpus, TokenBatches, prepare_corpus
from electra_jax.data.sentences import split_sentences
from electra_jax.errors import UserError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared/data"


def documents_of(corpus, split):
    """Token ids of every document of a split, as tuples."""
    result = []
    for shard in corpus.shards(split):
        start = 0
        for end in shard.document_ends.tolist():
            result.append(tuple(shard.tokens[start:end].tolist()))
            start = end + 1
    return result


def texts_of(text_file):
    return text_file.read_text(encoding="utf-8").strip().split("\n\n")


def test_corpus_is_the_text(corpus, text_file):
    tokenizer = corpus.tokenizer()
    expected = tokenizer.encode_batch([text.replace("\n", " ") for text in texts_of(text_file)])
    got = documents_of(corpus, "train") + documents_of(corpus, "validation")
    assert sorted(got) == sorted(map(tuple, expected))
    # Sentences are those of the rule.
    lengths = [
        len(ids)
        for text in texts_of(text_file)
        for line in text.split("\n")
        for ids in tokenizer.encode_batch(split_sentences(line))
    ]
    stored = []
    for split in ("train", "validation"):
        for shard in corpus.shards(split):
            previous = np.concatenate([[0], shard.sentence_ends[:-1]])
            previous += np.isin(previous, shard.document_ends)
            stored += (shard.sentence_ends - previous).tolist()
    assert sorted(stored) == sorted(lengths)


def test_summary(corpus):
    summary = dict(corpus.metadata["summary"])
    validation = summary.pop("validation_documents")
    assert 8 <= validation <= 35 and validation == corpus.num_documents("validation")
    assert summary.pop("sentences") > 1000 and summary.pop("text_bytes") > 50_000
    tokens = corpus.num_tokens("train") + corpus.num_tokens("validation")
    assert summary.pop("documents") == 200 and summary.pop("tokens") == tokens
    assert {"duplicates", "empty_documents", "invalid_sequences", "bad_rows"} <= set(summary)
    assert not any(summary.values())  # unknown_rate, and everything that may go wrong


def test_validation_is_stable_and_disjoint(corpus, text_file, vocab_file, tmp_path):
    """Half of the text, in another order, sends every document to the same side."""
    validation = set(documents_of(corpus, "validation"))
    train = set(documents_of(corpus, "train"))
    assert validation and not validation & train
    (tmp_path / "half.txt").write_text("\n\n".join(texts_of(text_file)[99::-1]), encoding="utf-8")
    half = prepare_corpus(
        [tmp_path / "half.txt"], tmp_path / "half", vocab=vocab_file, validation_fraction=0.1
    )
    assert set(documents_of(half, "validation")) <= validation
    assert set(documents_of(half, "train")) <= train


def test_at_least_one_validation_document(text_file, vocab_file, tmp_path):
    """The one with the smallest hash: the same in any order of the documents."""
    chosen = set()
    texts = texts_of(text_file)[:6]
    for name, order in (("a", texts), ("b", texts[::-1]), ("c", texts[3:] + texts[:3])):
        (tmp_path / name).write_text("\n\n".join(order), encoding="utf-8")
        corpus = prepare_corpus(
            [tmp_path / name], tmp_path / f"out-{name}", vocab=vocab_file, validation_fraction=1e-9
        )
        assert (corpus.num_documents("train"), corpus.num_documents("validation")) == (5, 1)
        chosen |= set(documents_of(corpus, "validation"))
    assert len(chosen) == 1
    (tmp_path / "one").write_text(texts[0], encoding="utf-8")
    corpus = prepare_corpus([tmp_path / "one"], tmp_path / "out-one", vocab=vocab_file)
    assert (corpus.num_documents("train"), corpus.num_documents("validation")) == (1, 0)


def test_duplicates_and_oddities(vocab_file, tmp_path):
    text = b"Bada bede.\n\nBada bede.\r\n\n\n\x01\n\nBo\0du \xff.\n\nBodu."
    (tmp_path / "a.txt").write_bytes(text)
    corpus = prepare_corpus([tmp_path], tmp_path / "out", vocab=vocab_file, validation_fraction=0.0)
    summary = corpus.metadata["summary"]
    # U+0001 is a document of no tokens; U+FFFD is dropped by the tokenizer's normaliser.
    assert (summary["documents"], summary["duplicates"], summary["empty_documents"]) == (3, 1, 1)
    assert (summary["invalid_sequences"], summary["nul_characters"]) == (1, 1)
    with pytest.raises(UserError, match="is not UTF-8 at line 8, byte offset 35"):
        prepare_corpus(
            [tmp_path / "a.txt"], tmp_path / "no", vocab=vocab_file, encoding_errors="refuse"
        )
    with pytest.raises(UserError, match="has no corpus.json: it is unfinished"):
        Corpus.open(tmp_path / "no")
    # Nothing before it depended on being strict, so the build may go on leniently.
    corpus = prepare_corpus([tmp_path / "a.txt"], tmp_path / "no", vocab=vocab_file)
    assert corpus.metadata["summary"]["invalid_sequences"] == 1


def test_unknown_rate(vocab_file, tmp_path):
    (tmp_path / "a.txt").write_text("bada qqq. Qqq qqq.\n\nbada.", encoding="utf-8")
    corpus = prepare_corpus([tmp_path / "a.txt"], tmp_path / "out", vocab=vocab_file)
    summary = corpus.metadata["summary"]
    assert summary["unknown_rate"] == 3 / summary["tokens"]


def test_lines_as_sentences_and_files_as_documents(text_file, vocab_file, tmp_path):
    corpus = prepare_corpus(
        [text_file],
        tmp_path / "out",
        vocab=vocab_file,
        split_sentences=False,
        one_document_per_file=True,
    )
    lines = [line for line in text_file.read_text(encoding="utf-8").split("\n") if line]
    assert corpus.metadata["summary"]["sentences"] == len(lines)
    assert corpus.num_documents("train") == 1


def test_shards_do_not_change_the_documents(corpus, text_file, vocab_file, tmp_path):
    one = prepare_corpus([text_file], tmp_path / "o", vocab=vocab_file, validation_fraction=0.1)
    assert len(one.shards("train")) == 1
    for split in ("train", "validation"):
        assert documents_of(one, split) == documents_of(corpus, split)


class Recorder:
    """A display that keeps what it is told."""

    def __init__(self):
        self.stages, self.progress, self.notes = [], [], []

    def begin(self, stage, total):
        self.stages.append((stage, total))

    def report(self, progress):
        self.progress.append((self.stages[-1][0], progress))

    def note(self, text):
        self.notes.append(text)

    def total(self, stage, field):
        return sum(getattr(progress, field) for name, progress in self.progress if name == stage)


def test_again_is_untouched(text_file, vocab_file, tmp_path):
    display = Recorder()
    arguments = {"vocab": vocab_file, "display": display}
    first = prepare_corpus([text_file], tmp_path / "a", **arguments)
    size = text_file.stat().st_size
    assert ("encoding", size) in display.stages
    assert display.total("encoding", "source_bytes") == size
    assert display.total("encoding", "tokens") == first.metadata["summary"]["tokens"]
    assert display.total("writing shards", "tokens") == first.metadata["summary"]["tokens"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    display.stages.clear()
    again = prepare_corpus([text_file], tmp_path / "a", **arguments)
    assert again.fingerprint == first.fingerprint and not display.stages
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    elsewhere = prepare_corpus([text_file], tmp_path / "b", **arguments)
    assert elsewhere.fingerprint == first.fingerprint
    with pytest.raises(UserError) as error:
        prepare_corpus([text_file], tmp_path / "a", validation_fraction=0.2, **arguments)
    assert str(error.value) == (
        f"output {tmp_path}/a is a corpus built with other validation_fraction: "
        "name another directory, or remove this one yourself"
    )
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}


def test_trained_tokenizer(text_file, tmp_path):
    first, second = (
        prepare_corpus([text_file], tmp_path / name, train_tokenizer="wordpiece", vocab_size=300)
        for name in "ab"
    )
    assert first.fingerprint == second.fingerprint
    assert 200 < first.vocab_size <= 300
    assert first.metadata["summary"] == second.metadata["summary"]
    assert first.metadata["summary"]["unknown_rate"] == 0.0
    assert first.metadata["summary"]["text_bytes"] == text_file.stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab": None}, "give exactly one of them"),
        ({"train_tokenizer": "wordpiece"}, "give exactly one of them"),
        ({"vocab": None, "train_tokenizer": "bpe"}, "train_tokenizer='bpe' is unknown"),
        ({"runner": "spark"}, "runner='spark' is unknown: use one of local, beam"),
        ({"num_workers": 0}, "num_workers=0 must be positive"),
        ({"min_characters": -1}, "min_characters=-1 must not be negative"),
        ({"vocab_size": 300}, "vocab_size=300 is for a trained tokenizer"),
        ({"vocab": None, "train_tokenizer": "wordpiece", "vocab_size": 10**20}, "is too large"),
        ({"vocab": None, "train_tokenizer": "wordpiece", "vocab_size": 31}, "is too small"),
        ({"tokenizer_sample_mb": float("inf")}, "tokenizer_sample_mb=inf must be positive"),
        ({"tokenizer_sample_mb": 0.0}, "tokenizer_sample_mb=0.0 must be positive"),
        ({"bad_input": "x"}, "bad_input='x' is unknown"),
        ({"beam_options": ["--x"]}, "are for runner='beam' alone"),
        ({"validation_fraction": 1.0}, r"validation_fraction=1.0 must be in \[0, 1\)"),
        ({"shard_tokens": 0}, "shard_tokens=0 must be positive"),
        ({"encoding_errors": "x"}, "encoding_errors='x' is unknown"),
        ({"inputs": ["nowhere.txt"]}, "input 'nowhere.txt' matches no file"),
    ],
)
def test_refuses(text_file, vocab_file, tmp_path, arguments, message):
    arguments = {"inputs": [text_file], "vocab": vocab_file, **arguments}
    with pytest.raises(UserError, match=message):
        prepare_corpus(output=tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_refuses_to_be_left_without_text(vocab_file, tmp_path):
    (tmp_path / "a.txt").write_text("\n\n")
    with pytest.raises(UserError, match="left to train on \\(1 empty files\\): check the inputs"):
        prepare_corpus([tmp_path / "a.txt"], tmp_path / "out", vocab=vocab_file)
    (tmp_path / "a.txt").write_text("Bada.\n\nBo.")
    with pytest.raises(UserError, match="left to train on \\(2 short documents\\)"):
        prepare_corpus([tmp_path / "a.txt"], tmp_path / "out", vocab=vocab_file, min_characters=99)
    with pytest.raises(UserError, match="tokenizer_sample_mb=1e-09 selects no text"):
        prepare_corpus(
            [tmp_path / "a.txt"], tmp_path / "out", train_tokenizer="wordpiece",
            tokenizer_sample_mb=1e-9,
        )  # fmt: skip
    shutil.rmtree(tmp_path / "out")
    assert not list(tmp_path.rglob("out/*"))


def test_never_writes_over_something_else(text_file, vocab_file, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="exists and is no corpus"):
        prepare_corpus([text_file], tmp_path, vocab=vocab_file)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_leaves_short_duplicate_and_filtered_documents_out(vocab_file, tmp_path):
    (tmp_path / "a.txt").write_text("Bada bede bo.\n\nBo.\n\nBodu bada.\n\nBada bede bo.")
    (tmp_path / "rule.py").write_text(
        "import re\ndef without_u(text: str) -> bool:\n    return not re.search('u', text)\n"
        "def broken(text):\n    return 1 / 0\n"
        "def leaves(text):\n    raise SystemExit(3)\n"
        "def says(text):\n    return 'no'\n"
    )
    arguments = {"vocab": vocab_file, "validation_fraction": 0.0}
    corpus = prepare_corpus(
        [tmp_path / "a.txt"],
        tmp_path / "out",
        min_characters=4,
        filter=f"{tmp_path}/rule.py:without_u",
        **arguments,
    )
    met = corpus.metadata["summary"]
    assert (met["documents"], met["duplicates"]) == (1, 1)
    assert (met["short_documents"], met["filtered_documents"]) == (1, 1)
    corpus = prepare_corpus(
        [tmp_path / "a.txt"], tmp_path / "all", keep_duplicates=True, **arguments
    )
    assert corpus.metadata["summary"]["documents"] == 4
    for rule, message in (
        ("rule.py:broken", "filter: broken fails (ZeroDivisionError: division by zero) on the "),
        ("rule.py:none", "filter: none cannot be loaded from"),
        ("rule.py:leaves", "filter: leaves fails (SystemExit: 3) on the document that begins "),
        ("rule.py:says", "filter: says returns str, not True or False: correct it"),
        ("none.py:f", "none.py cannot be read"),
        ("rule.py", "must be FILE.py:FUNCTION"),
    ):
        with pytest.raises(UserError) as error:
            output = tmp_path / f"out-{len(message)}"
            prepare_corpus([tmp_path / "a.txt"], output, filter=f"{tmp_path}/{rule}", **arguments)
        assert message in str(error.value) and "\n" not in str(error.value)


def test_an_output_in_an_input_is_not_read_again(text_file, vocab_file, tmp_path):
    shutil.copy(text_file, tmp_path / "a.txt")
    for inputs in ([tmp_path], [f"{tmp_path}/**/*.txt"]):
        for _ in range(2):
            corpus = prepare_corpus(inputs, tmp_path / "deep" / "corpus", vocab=vocab_file)
            assert corpus.metadata["summary"]["documents"] == 200
    with pytest.raises(UserError, match="is an input too: name another directory"):
        prepare_corpus([tmp_path], tmp_path, vocab=vocab_file)


def test_says_what_a_directory_leaves_out(text_file, vocab_file, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.tsv", "c.tsv", "d"):
        (tmp_path / "in" / name).write_text("Bada bede.\n\nBo.")
    display = Recorder()
    prepare_corpus([tmp_path / "in"], tmp_path / "out", vocab=vocab_file, display=display)
    assert display.notes == [
        f"left out of {tmp_path}/in, as of no known format: 1 without ending, 2 .tsv "
        "(name them to have them read)"
    ]


@pytest.mark.skipif(not SHARED.exists(), reason="the project's data is not here")
def test_real_text(tmp_path):
    corpus = prepare_corpus(
        [SHARED / "wikitext-2/valid.txt", SHARED / "books_en/ENG18872_Lyall.txt.xz"],
        tmp_path / "out",
        vocab=SHARED / "vocab/vocab.txt",
    )
    assert corpus.metadata["summary"]["unknown_rate"] < 0.05
    batch = TokenBatches(corpus, seq_len=128, batch_size=4).batch_at(0)["input_ids"]
    assert corpus.tokenizer().decode(batch[0]).startswith("[CLS] ")


# What TensorFlow Datasets itself does.
@pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated:DeprecationWarning")
def test_a_tensorflow_dataset_becomes_a_corpus(vocab_file, tmp_path):
    import made_texts

    corpus = prepare_corpus(
        ["tfds:made_texts:train#text"],
        tmp_path / "out",
        vocab=vocab_file,
        tfds_data_dir=tmp_path / "tfds",
        validation_fraction=0.1,
    )
    assert corpus.metadata["summary"]["documents"] == made_texts.NUM_TRAIN
    name, size = corpus.metadata["settings"]["inputs"][0]
    assert name == "tfds:made_texts:1.0.0:train#text" and size > 0


@pytest.mark.parametrize("kind", ["sentencepiece-unigram", "sentencepiece-bpe"])
def test_trained_sentencepiece(text_file, tmp_path, kind):
    first, second = (
        prepare_corpus(
            [text_file], tmp_path / name, train_tokenizer=kind, vocab_size=300, num_workers=workers
        )
        for name, workers in (("a", 1), ("b", 2))
    )
    assert first.fingerprint == second.fingerprint
    assert first.special_ids == (0, 1, 2, 3, 4) and 100 < first.vocab_size <= 300
    assert first.metadata["summary"]["unknown_rate"] == 0.0
    texts = [text.replace("\n", " ") for text in texts_of(text_file)]
    (shard,) = first.shards("train")
    decoded = first.tokenizer().decode(shard.tokens[: shard.document_ends[0]].tolist())
    assert decoded.strip() in [text.lower() for text in texts]
    model = first.path / "tokenizer.model"
    given = prepare_corpus([text_file], tmp_path / "given", vocab=model)
    assert given.shards("train")[0].tokens.tolist() == shard.tokens.tolist()
