"""Readers of questions: the real files, MRQA's format, and every kind of bad input."""

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.errors import UserError
from electra_jax.tasks import get_task, load_task, read_file, read_split
from electra_jax.tasks.reading.questions import MAX_REPAIR, locate

CONTEXT = "The cat sat on the mat in Paris. It was the mat of a dog."


@pytest.mark.parametrize(
    ("name", "split", "count", "unanswerable"),
    [("squad", "train", 87599, 0), ("squad", "dev", 10570, 0), ("squadv2", "dev", 11873, 5945)],
)
def test_real_files(shared, name, split, count, unanswerable):
    found = read_split(get_task(name), shared("squad"), split)
    assert len(found.examples) == count and not found.counts.lines()
    assert sum(example.is_impossible for example in found.examples) == unanswerable
    for example in found.examples:
        if example.span is not None:
            start, end = example.span
            assert example.context[start:end] == example.answers[0]
        assert (example.span is None) == example.is_impossible == (not example.answers)


def test_real_examples(shared):
    first = read_split(get_task("squad"), shared("squad"), "dev").examples[0]
    assert first.id == "56be4db0acb8001400a502ec"
    assert first.question == "Which NFL team represented the AFC at Super Bowl 50?"
    assert first.answers == ("Denver Broncos",) * 3 and first.span == (177, 191)
    second = read_split(get_task("squadv2"), shared("squad"), "dev").examples[0]
    assert second.answers == ("France",) * 4 and second.span == (159, 165)
    # Questions about one text share the object, and so its encoding.
    others = read_split(get_task("squadv2"), shared("squad"), "dev").examples[:5]
    assert all(example.context is others[0].context for example in others)


def squad(*questions, context=CONTEXT):
    return {"version": "1.1", "data": [{"paragraphs": [{"context": context,
                                                        "qas": list(questions)}]}]}  # fmt: skip


def question(answer="Paris", start=26, identifier="q1", **others):
    answers = [{"text": answer, "answer_start": start}]
    return {"id": identifier, "question": "Where?", "answers": answers, **others}


def save(directory, content, name="train.json"):
    path = directory / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(directory, task="squad", split="train", **how):
    return read_split(get_task(task), directory, split, **how)


@pytest.mark.parametrize("shift", [0, 1, -1, 7, -20, 26])
def test_offsets_that_are_off(tmp_path, shift):
    save(tmp_path, squad(question(start=26 + shift)))
    found = read(tmp_path)
    assert found.examples[0].span == (26, 31)
    assert found.counts.repaired_offsets == (shift != 0)
    lines = ["1 answers found close to their offset, not at it"]
    assert found.counts.lines() == (lines if shift else [])


def test_the_nearest_place_is_taken():
    """Against the definition, spelled out: all places within reach, the nearest, then the first."""
    for seed in range(300):
        rng = random.Random(seed)
        context = "".join(rng.choice("ab ") for _ in range(200))
        text = "".join(rng.choice("ab") for _ in range(3))
        start = rng.randrange(-70, 280)
        places = [
            i for i in range(len(context))
            if context[i : i + 3] == text and abs(i - start) <= MAX_REPAIR
        ]  # fmt: skip
        best = min(places, key=lambda i: (abs(i - start), i), default=None)
        assert locate(context, text, start) == (None if best is None else (best, best + 3))


def test_an_answer_too_far_away_is_bad_to_learn_and_good_to_score(tmp_path):
    text = "Paris. " + "x" * 100
    content = squad(question(start=80), question("x", 50, "q2"), context=text)
    path = save(tmp_path, content)
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert str(error.value) == (
        f"{path}, data[0].paragraphs[0].qas[0] (id 'q1'): the text does not have the answer "
        "'Paris' within 64 characters of 80: correct the answer or its offset, or leave such rows "
        "out with bad_rows=skip"
    )
    assert [example.id for example in read(tmp_path, bad_rows="skip").examples] == ["q2"]
    save(tmp_path, content, "dev.json")
    found = read(tmp_path, split="dev")
    assert [example.span for example in found.examples] == [None, (50, 51)]
    assert found.examples[0].answers == ("Paris",)
    assert found.counts.lines() == ["1 answers not near their offset: scored, without a loss"]


def test_case_and_white_space_may_differ(tmp_path):
    """As in the original."""
    save(tmp_path, squad(question("the CAT\tsat", 0)))
    assert read(tmp_path).examples[0].span == (0, 11)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (question(identifier="q1"), "(id 'q1'): id 'q1' occurs twice: give every row an id"),
        ({"question": "?", "answers": []}, ": no id: give every question an id, a string"),
        (question(identifier=7), ": no id: give every"),
        (question(question=" "), "(id 'q2'): question is empty: give it a text"),
        (question(question=None), "(id 'q2'): question is None, not a string: write a string"),
        (question(answers=[]), "(id 'q2'): it has no answers: give it one, or is_impossible with"),
        (question(answers="Paris"), "(id 'q2'): answers is no list of objects: write a list of"),
        (question(""), "(id 'q2'): an answer is empty: give it a text"),
        (question(start="26"), "(id 'q2'): answer_start is '26': write the answer's offset"),
        (question(is_impossible=True, answers=[]),
         "(id 'q2'): it has no answer: use task squadv2 for questions without answers"),
        (question(is_impossible="no"), "(id 'q2'): is_impossible is 'no': write true or false"),
        (question("Rome"), "(id 'q2'): the text does not have the answer 'Rome' within 64"),
        ("what", ": no id"),
    ],
)  # fmt: skip
def test_bad_questions(tmp_path, item, message):
    if isinstance(item, dict) and item.get("id") == "q1" and "twice" not in message:
        item = {**item, "id": "q2"}
    path = save(tmp_path, squad(question(), item, question(identifier="q3")))
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert f"{path}, data[0].paragraphs[0].qas[1]" in str(error.value)
    assert message in str(error.value) and "\n" not in str(error.value)
    found = read(tmp_path, bad_rows="skip")
    assert [example.id for example in found.examples] == ["q1", "q3"]
    assert found.counts.bad_rows == 1


def test_unanswerable_questions(tmp_path):
    none = question(identifier="q2", is_impossible=True, answers=[],
                    plausible_answers=[{"text": "mat", "answer_start": 19}])  # fmt: skip
    save(tmp_path, squad(question(), none))
    answered, unanswered = read(tmp_path, "squadv2").examples
    assert answered.span == (26, 31) and not answered.is_impossible
    assert unanswered[3:] == ((), None, True)
    save(tmp_path, squad(question(is_impossible=True)))
    with pytest.raises(UserError, match="it is impossible, and has answers: take out is_imposs"):
        read(tmp_path, "squadv2")


def test_questions_to_predict_need_no_answers(tmp_path):
    path = save(tmp_path, squad({"id": "q1", "question": "Where?"}))
    (example,) = read_file(get_task("squad"), path).examples
    assert example == ("q1", "Where?", CONTEXT, (), None, False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r": not JSON \(Expecting property name .*\): correct it"),
        ("[]", " is not of SQuAD's format: it has no list data: correct it"),
        ('{"data": [[]]}', r": data\[0\] has no list of paragraphs: correct it"),
        ('{"data": [{"paragraphs": [{"context": "a"}]}]}',
         r": data\[0\].paragraphs\[0\] has no list qas: correct it"),
        (squad(question(), context=""), "context is empty: give it a text"),
        (squad(question(), context=5), "context is 5, not a string"),
    ],
)  # fmt: skip
def test_not_of_the_format(tmp_path, content, message):
    path = save(tmp_path, content)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path)
    assert str(path) in str(error.value)


def test_a_context_of_a_megabyte(tmp_path):
    context = "word " * 200_000 + CONTEXT
    save(tmp_path, squad(question(start=1_000_026), context=context))
    assert read(tmp_path).examples[0].span == (1_000_026, 1_000_031)


def mrqa(identifier="q1", text="Paris", spans=((26, 30),), answers=("Paris", "paris, france")):
    detected = [{"text": text, "char_spans": list(map(list, spans)), "token_spans": [[6, 6]]}]
    return {"qid": identifier, "question": "Where?", "answers": list(answers),
            "detected_answers": detected}  # fmt: skip


def save_mrqa(directory, *rows, name="train.jsonl"):
    lines = "\n".join(json.dumps(row) for row in ({"header": {"dataset": "x"}}, *rows))
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz", "train/NewsQA.jsonl.gz"])
def test_mrqa(tmp_path, name):
    """The header is skipped; spans include their last character; the first of the first counts."""
    two = mrqa("q2", "mat", ((19, 21), (44, 46)), ["the mat"])
    save_mrqa(tmp_path, {"context": CONTEXT, "qas": [mrqa(), two]}, name=name)
    found = read(tmp_path, "newsqa")
    first, second = found.examples
    assert not found.counts.lines()
    assert first == ("q1", "Where?", CONTEXT, ("Paris", "paris, france"), (26, 31), False)
    assert second.span == (19, 22) and second.answers == ("the mat",)


def test_mrqa_spans_that_are_off(tmp_path):
    save_mrqa(tmp_path, {"context": CONTEXT, "qas": [mrqa(spans=((25, 29),))]})
    found = read(tmp_path, "triviaqa")
    assert found.examples[0].span == (26, 31) and found.counts.repaired_offsets == 1


def test_bad_mrqa(tmp_path):
    good = {"context": CONTEXT, "qas": [mrqa("good")]}
    for row, message in (
        ({"context": CONTEXT}, "train.jsonl, line 2: no list qas: write one paragraph with"),
        ({"context": CONTEXT, "qas": [mrqa(spans=())]},
         r"line 2.qas\[0\] \(qid 'q1'\): no detected answer with a span: give it text and char"),
        ({"context": CONTEXT, "qas": [mrqa("good")]}, r"\(qid 'good'\): id 'good' occurs twice"),
        ({"context": CONTEXT, "qas": [mrqa(text="Rome")]}, "does not have the answer 'Rome'"),
    ):  # fmt: skip
        save_mrqa(tmp_path, row, good)
        with pytest.raises(UserError, match=message):
            read(tmp_path, "searchqa")
        assert len(read(tmp_path, "searchqa", bad_rows="skip").examples) == 1


def test_a_dev_part_of_whole_texts(tmp_path):
    """Questions about one text stay on one side."""
    rows = [
        {"context": f"{CONTEXT} {i}", "qas": [mrqa(f"{i} {k}") for k in range(3)]}
        for i in range(10)
    ]
    save_mrqa(tmp_path, *rows)
    data = load_task(get_task("naturalqs"), tmp_path, dev_share=0.3)
    sides = [
        {example.context for example in split.examples} for split in (data.train, data.dev["dev"])
    ]
    assert len(sides[1]) == 3 and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 10


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 40) | st.sampled_from(["", "cat", CONTEXT, "q1"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from("data paragraphs qas context question id qid answers text answer_start "
                        "is_impossible detected_answers char_spans".split()),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(qas=st.lists(JSON, max_size=3), whole=JSON, junk=st.binary(max_size=60))
def test_any_json_is_questions_or_a_named_error(tmp_path_factory, qas, whole, junk):
    directory = tmp_path_factory.getbasetemp()
    for content in (json.dumps(squad(question(), *qas)).encode(), json.dumps(whole).encode(), junk):
        for name, task in (("any.json", "squadv2"), ("any.jsonl", "newsqa")):
            path = directory / name
            path.write_bytes(content)
            for bad_rows in ("refuse", "skip"):
                try:
                    found = read_file(get_task(task), path, labelled=True, bad_rows=bad_rows)
                except UserError as error:
                    assert str(path) in str(error) and "\n" not in str(error)
                    continue
                for example in found.examples:
                    assert example.id and example.question.strip() and example.context.strip()
                    if example.span is not None:
                        assert 0 <= example.span[0] < example.span[1] <= len(example.context)
