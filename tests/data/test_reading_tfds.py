from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from reading_helpers import message, read

from electra_jax.data.reading import ReadingCounts, ReadingOptions, Unit, plan_units, read_documents
from electra_jax.data.reading.tfds_source import parse_specification
from electra_jax.errors import UserError

pytestmark = [
    # What TFDS itself does.
    pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A directory with the dataset made_texts, prepared by `plan_units`. Not to be changed."""
    import made_texts  # noqa: F401

    directory = tmp_path_factory.mktemp("tfds")
    plan_units(["tfds:made_texts"], ReadingOptions(tfds_data_dir=str(directory)))
    return str(directory)


def expected(split: str, count: int | None = None) -> list[list[str]]:
    import made_texts

    count = {"train": made_texts.NUM_TRAIN, "test": made_texts.NUM_TEST}[split]
    return [[f"{split} {number}", "é€ line"] for number in range(count)]


def test_what_is_missing_is_prepared_once(data_dir, monkeypatch):
    from made_texts import MadeTexts

    def refuse(*args, **kwargs):
        raise AssertionError("it is there already")

    monkeypatch.setattr(MadeTexts, "_generate_examples", refuse)
    assert len(read("tfds:made_texts", tfds_data_dir=data_dir)) == 50


@pytest.mark.parametrize("unit_bytes", [2**25, 500])
def test_reads(data_dir, unit_bytes):
    counts = ReadingCounts()
    found = read("tfds:made_texts", tfds_data_dir=data_dir, unit_bytes=unit_bytes, counts=counts)
    assert sorted(found) == sorted(expected("train"))  # TFDS shuffles what it writes.
    text_bytes = sum(len(f"train {n}\n\n é€ line \n".encode()) for n in range(50))
    assert counts == ReadingCounts(text_bytes=text_bytes, source_bytes=counts.source_bytes)
    units = plan_units(
        ["tfds:made_texts"], ReadingOptions(tfds_data_dir=data_dir), unit_bytes
    ).units
    assert len(units) == 1 or unit_bytes == 500
    assert [unit.start for unit in units] == [0, *(unit.stop for unit in units[:-1])]
    assert units[-1].stop == 50
    assert {unit.name for unit in units} == {"tfds:made_texts:1.0.0:train#text"}
    assert max(unit.size for unit in units) <= unit_bytes


def test_splits(data_dir):
    def texts(split):
        return read(f"tfds:made_texts{split}", tfds_data_dir=data_dir)

    train, test = texts(":train"), texts(":1.0.0:test")
    assert sorted(test) == expected("test")
    assert texts(":train[:10%]") == train[:5]
    assert texts(":train[10:-30]#text") == train[10:20]
    assert texts(":train[:4]+test") == train[:4] + test
    assert texts(":all") == train + test
    for empty in (":train[5:2]", ":train[:0]"):
        error = message(f"tfds:made_texts{empty}", tfds_data_dir=data_dir)
        assert error.endswith("there is no example in it: name another split")
    units = plan_units(["tfds:made_texts:train[:10]"], ReadingOptions(tfds_data_dir=data_dir)).units
    whole = plan_units(["tfds:made_texts:train"], ReadingOptions(tfds_data_dir=data_dir)).units
    assert units[0].size == pytest.approx(whole[0].size / 5, rel=0.1)


def test_configurations(tmp_path):
    import made_texts  # noqa: F401

    options = ReadingOptions(tfds_data_dir=str(tmp_path))
    for name, config in (("", "2023.en"), ("/2023.de", "2023.de"), ("/2023.en:2.0.0", "2023.en")):
        (unit,) = plan_units([f"tfds:configured_texts{name}"], options).units
        assert unit.name == f"tfds:configured_texts/{config}:2.0.0:train#text"
        assert list(read_documents(unit, options)) == [[config]]


def test_features(data_dir):
    counts = ReadingCounts()
    found = read("tfds:made_texts#raw", tfds_data_dir=data_dir, counts=counts)
    assert found == [["a\ufffdb"]] * 25
    assert (counts.invalid_sequences, counts.nul_characters, counts.empty_rows) == (25, 25, 25)
    assert found == read("tfds:made_texts", tfds_data_dir=data_dir, field="raw")
    error = message("tfds:made_texts#raw", tfds_data_dir=data_dir, encoding_errors="refuse")
    assert error.startswith("tfds:made_texts:1.0.0:train#raw, example ")
    assert "is not UTF-8: convert it" in error
    assert message("tfds:made_texts#body", tfds_data_dir=data_dir) == (
        "input tfds:made_texts:train#body: no feature 'body' (it has: names, number, numbers, raw, "
        "text): name the feature after #, or with --field"
    )
    for field in ("number", "numbers", "names"):
        error = message("tfds:made_texts", field=field, tfds_data_dir=data_dir)
        assert f"feature '{field}' is not a text (it has: " in error


@pytest.mark.parametrize("name", ["made_texts:9.9.9", "made_texts/x", "no_such_data_set"])
def test_what_there_is_not(data_dir, name):
    error = message(f"tfds:{name}", tfds_data_dir=data_dir)
    assert error.startswith(
        f"input tfds:{name}:train#text: no such data set in {data_dir} or known"
    )
    assert "--tfds-data-dir" in error


@pytest.mark.parametrize("split", ["validation", "train[", "train[:x]", "train+dev"])
def test_splits_that_there_are_not(data_dir, split):
    error = message(f"tfds:made_texts:{split}", tfds_data_dir=data_dir)
    assert error.endswith("name a split that it has: train, test")


def test_specifications():
    def fields(text):
        return tuple(parse_specification(text, ReadingOptions(field="default")))

    config = "wikipedia/20230601.en"
    assert fields(f"tfds:{config}") == (config, None, "train", "default")
    assert fields(f"tfds:{config}:1.0.0") == (config, "1.0.0", "train", "default")
    assert fields(f"tfds:{config}:test") == (config, None, "test", "default")
    assert fields(f"tfds:{config}:1.0.0:train[:10%]#text") == (
        config, "1.0.0", "train[:10%]", "text"
    )  # fmt: skip
    assert fields("tfds:c4#a b") == ("c4", None, "train", "a b")
    for text in ("tfds:c4:1.0.0:train[:10%]+test#t", f"tfds:{config}:train#text"):
        parsed = parse_specification(text, ReadingOptions())
        assert str(parsed) == text
    for text in ("tfds:", "tfds:/x", "tfds:../x", "tfds:a/b/c", "tfds:a#", "tfds:a b"):
        with pytest.raises(UserError, match="is no TensorFlow dataset: write tfds:NAME"):
            parse_specification(text, ReadingOptions())


def test_prepared_as_parquet(data_dir, tmp_path):
    """Row by row and in any range: TFDS itself would load all of it, and ignore slices."""
    import tensorflow_datasets as tfds
    from made_texts import MadeTexts

    config = tfds.download.DownloadConfig(num_shards=3)
    builder = MadeTexts(data_dir=tmp_path)
    builder.download_and_prepare(file_format="parquet", download_config=config)
    assert len(list(tmp_path.glob("made_texts/1.0.0/*train.parquet-*"))) == 3

    def texts(split, **options):
        return read(f"tfds:made_texts:{split}", tfds_data_dir=str(tmp_path), **options)

    train, test = texts("train"), texts("test")
    assert sorted(train) == sorted(expected("train")) and sorted(test) == expected("test")
    assert texts("train", unit_bytes=500) == train
    assert texts("train[:10%]") == train[:5] and texts("train[10:-30]") == train[10:20]
    assert texts("train[30:]+test", unit_bytes=300) == train[30:] + test
    counts = ReadingCounts()
    texts("train", counts=counts)
    assert counts.text_bytes == sum(len(f"train {n}\n\n é€ line \n".encode()) for n in range(50))
    for path in tmp_path.glob("made_texts/1.0.0/*train.parquet-00001*"):
        path.write_bytes(path.read_bytes()[:-10])
    error = message("tfds:made_texts", tfds_data_dir=str(tmp_path))
    assert error.startswith("tfds:made_texts:1.0.0:train#text is a damaged or cut-short archive")


def test_data_that_only_tensorflow_reads(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("made_texts/1.0.0/*.array_record-*"):
        path.rename(str(path).replace("array_record", "tfrecord"))
    info = tmp_path / "made_texts/1.0.0/dataset_info.json"
    content = json.loads(info.read_text())
    content["fileFormat"] = "tfrecord"
    for split in content["splits"]:
        split["filepathTemplate"] = split["filepathTemplate"].replace("array_record", "tfrecord")
    info.write_text(json.dumps(content))
    error = message("tfds:made_texts", tfds_data_dir=str(tmp_path))
    assert f"is prepared as tfrecord in {tmp_path}" in error
    assert "name an empty directory with --tfds-data-dir" in error


def test_damaged_data(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("made_texts/1.0.0/*train.array_record-*")
    content = path.read_bytes()
    options = {"tfds_data_dir": str(tmp_path), "bad_input": "skip"}
    for damaged in (content[: len(content) // 2], b"", b"x" * 100):
        path.write_bytes(damaged)
        error = message("tfds:made_texts", tfds_data_dir=str(tmp_path))
        assert error.startswith(
            "tfds:made_texts:1.0.0:train#text is a damaged or cut-short archive"
        )
        counts = ReadingCounts()
        read("tfds:made_texts", counts=counts, **options)
        assert counts.damaged_files == 1


def test_workers_do_not_prepare(tmp_path):
    import made_texts  # noqa: F401

    unit = Unit("tfds", "tfds:made_texts:1.0.0:train#text", 0, 5, 100)
    with pytest.raises(UserError, match="give every worker the same --tfds-data-dir"):
        list(read_documents(unit, ReadingOptions(tfds_data_dir=str(tmp_path))))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_prepared(tmp_path, monkeypatch):
    from made_texts import MadeTexts

    def fail(*args):
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr(MadeTexts, "_split_generators", fail)
    error = message("tfds:made_texts", tfds_data_dir=str(tmp_path))
    assert "cannot be prepared" in error and "no network here" in error
    assert not list(tmp_path.glob("made_texts/1.0.0/*"))


def test_other_inputs_are_checked_before_anything_is_prepared(tmp_path):
    import made_texts  # noqa: F401

    for other in ("none.txt", "tfds:/x"):
        assert other in message("tfds:made_texts", other, tfds_data_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_prepared_data_needs_no_code(data_dir):
    """As for the data sets that TFDS knows only once tensorflow_datasets.text is imported."""
    code = (
        "import sys\n"
        "from electra_jax.data.reading import *\n"
        f"options = ReadingOptions(tfds_data_dir={data_dir!r})\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "(unit,) = plan_units(['tfds:made_texts'], options).units\n"
        "assert len(list(read_documents(unit, options))) == 50\n"
        "assert 'tensorflow' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
