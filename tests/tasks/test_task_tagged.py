"""CoNLL's columns: the real files, and every kind of bad input."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.errors import UserError
from electra_jax.tasks import get_task, load_task, own_task, read_file, read_split


@pytest.mark.parametrize(
    ("split", "sentences", "words"), [("train", 8936, 211727), ("test", 2012, 47377)]
)
def test_real_files(shared, split, sentences, words):
    """Counts of CoNLL-2000's README."""
    found = read_split(get_task("chunking"), shared("conll2000"), split)
    assert len(found.examples) == sentences and not found.counts.lines()
    assert sum(len(sentence.words) for sentence in found.examples) == words
    assert all(len(sentence.words) == len(sentence.tags) for sentence in found.examples)


def test_real_examples(shared):
    sentence = read_split(get_task("chunking"), shared("conll2000"), "train").examples[0]
    assert sentence.words[:5] == ("Confidence", "in", "the", "pound", "is")
    assert sentence.tags[:5] == ("B-NP", "B-PP", "B-NP", "I-NP", "B-VP")
    data = load_task(get_task("chunking"), shared("conll2000"))
    assert len(data.dev["dev"].examples) == 894 and len(data.train.examples) == 8936 - 894
    tags = collections.Counter(
        tag for sentence in (*data.train.examples, *data.dev["dev"].examples)
        for tag in sentence.tags
    )  # fmt: skip
    assert data.space.labels == tuple(sorted(tags)) and data.space.num_outputs == 22


def write(directory, text, name="train.txt"):
    path = directory / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_the_last_sentence_counts(tmp_path, end):
    write(tmp_path, "\n\nThe DT B-NP\ncat NN I-NP\n \t\nsits VB B-VP" + end)
    found = read_split(get_task("tagging"), tmp_path, "train")
    assert found.examples == [
        ("0", ("The", "cat"), ("B-NP", "I-NP")),
        ("1", ("sits",), ("B-VP",)),
    ]


def test_document_starts_are_no_words(tmp_path):
    write(tmp_path, "-DOCSTART- -X- O\n\nEU B-ORG\nx O\n-DOCSTART- O\ny O\n", "train.conll")
    found = read_split(get_task("tagging"), tmp_path, "train")
    assert [sentence.words for sentence in found.examples] == [("EU", "x"), ("y",)]


def test_columns_end_at_tabs_and_spaces_alone(tmp_path):
    write(tmp_path, "10\xa0000\tB-NUM\r\n.\tO\r\n")
    (sentence,) = read_split(get_task("tagging"), tmp_path, "train").examples
    assert sentence.words == ("10\xa0000", ".") and sentence.tags == ("B-NUM", "O")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("word NN BNP", "tag 'BNP' is neither O nor B-, I-, E- or S- and a type: correct it"),
        ("word NN X-NP", "tag 'X-NP' is neither O nor B-, I-, E- or S- and a type: correct it"),
        ("word NN B-", "tag 'B-' is neither O nor B-, I-, E- or S- and a type: correct it"),
        ("word O", "2 columns instead of 3, as on the first line: correct the line"),
        ("word", "1 columns instead of 3, as on the first line: correct the line"),
        ("a word NN O", "4 columns instead of 3, as on the first line: correct the line"),
        ("\udce9 NN O", "not UTF-8 at character 1: save the file as UTF-8 text"),
    ],
)
def test_bad_lines(tmp_path, line, message):
    path = write(tmp_path, f"a DT O\n\nb NN O\n{line}\nc NN ?\n\nd NN O\n")
    with pytest.raises(UserError) as error:
        read_split(get_task("tagging"), tmp_path, "train")
    assert str(error.value) == (
        f"{path}, line 4: {message}, or leave such rows out with bad_rows=skip"
    )
    # The whole sentence goes, as one.
    found = read_split(get_task("tagging"), tmp_path, "train", bad_rows="skip")
    assert [(sentence.id, sentence.words) for sentence in found.examples] == [
        ("0", ("a",)), ("2", ("d",)),
    ]  # fmt: skip
    assert found.counts.bad_rows == 1


def test_words_alone(tmp_path):
    path = write(tmp_path, "The\ncat\n\nsits here\n", "new.conll")
    with pytest.raises(UserError, match="line 1: 1 columns instead of a word and its tag"):
        read_file(get_task("tagging"), path, labelled=True)
    found = read_file(get_task("tagging"), path)
    assert found.examples == [("0", ("The", "cat"), None), ("1", ("sits",), None)]


def test_a_text_file_to_tag_has_a_sentence_a_line(tmp_path):
    path = write(tmp_path, "Mary Novak moved\n\n  John\t likes it \r\n", "new.txt")
    assert read_file(get_task("tagging"), path).examples == [
        ("0", ("Mary", "Novak", "moved"), None), ("2", ("John", "likes", "it"), None),
    ]  # fmt: skip
    for columns in ("Mary\nlikes\n\nJohn\n", "Mary B-PER\nlikes O\n\nJohn B-PER\n"):
        path = write(tmp_path, columns, "new.txt")
        with pytest.raises(UserError, match="is read as a sentence a line: call it .conll"):
            read_file(get_task("tagging"), path)


def test_types_may_have_dashes(tmp_path):
    write(tmp_path, "x B-GEO-LOC\ny O\n")
    (sentence,) = read_split(own_task("tagging"), tmp_path, "train").examples
    assert sentence.tags == ("B-GEO-LOC", "O")


def test_a_word_of_a_megabyte(tmp_path):
    write(tmp_path, "x" * 2**20 + " O\n")
    (sentence,) = read_split(get_task("tagging"), tmp_path, "train").examples
    assert len(sentence.words[0]) == 2**20


@settings(max_examples=80, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=100),
        st.text(alphabet="aB-OI \t\n\r\xa0é", max_size=60).map(lambda text: text.encode()),
    ),
    labelled=st.booleans(),
)
def test_any_bytes_are_sentences_or_a_named_error(tmp_path_factory, content, labelled):
    path = tmp_path_factory.getbasetemp() / "any.conll"
    path.write_bytes(content)
    for bad_rows in ("refuse", "skip"):
        try:
            found = read_file(get_task("tagging"), path, labelled=labelled, bad_rows=bad_rows)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        for sentence in found.examples:
            assert sentence.words and all(sentence.words)
            assert (sentence.tags is not None) == labelled
