"""GLUE from TensorFlow Datasets: TFDS's own builder on TSVs of ours, without a network."""

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks import get_task, has_split, read_split

# Of TFDS's own code, against newer protobuf.
pytestmark = pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated:DeprecationWarning")

MNLI_HEADER = "index\tsentence1\tsentence2\tgold_label\n"
NLI = ("neutral", "entailment", "contradiction")


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """glue/mnli, glue/stsb and glue/cola, prepared by TFDS from TSVs in GLUE's layout."""
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # noqa: F401

    root = tmp_path_factory.mktemp("glue")
    (root / "MNLI").mkdir()
    for split, count in (("train", 40), ("dev_matched", 5), ("dev_mismatched", 6)):
        rows = [f"{i}\tpremise {i}\thypothesis {split}\t{NLI[i % 3]}" for i in range(count)]
        (root / "MNLI" / f"{split}.tsv").write_text(MNLI_HEADER + "\n".join(rows) + "\n")
    for split in ("test_matched", "test_mismatched"):
        text = "index\tsentence1\tsentence2\n0\ta\tb\n1\tc\td\n"
        (root / "MNLI" / f"{split}.tsv").write_text(text)
    (root / "STS-B").mkdir()
    for split in ("train", "dev"):
        text = "index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.8\n1\tc\td\t0.0\n"
        (root / "STS-B" / f"{split}.tsv").write_text(text)
    (root / "STS-B" / "test.tsv").write_text("index\tsentence1\tsentence2\n0\tx\ty\n")
    (root / "CoLA").mkdir()
    for split in ("train", "dev"):
        (root / "CoLA" / f"{split}.tsv").write_text("gj04\t1\t\tGood.\ngj04\t0\t*\tBad is.\n")
    (root / "CoLA" / "test.tsv").write_text("index\tsentence\n0\tBill.\n")
    prepared = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with pytest.MonkeyPatch.context() as patch:
        manager = tfds.download.DownloadManager
        patch.setattr(manager, "download_and_extract", lambda self, url: str(root))
        for name in ("mnli", "stsb", "cola"):
            builder = tfds.builder(f"glue/{name}", data_dir=prepared)
            builder.download_and_prepare(file_format="array_record", download_config=config)
    return str(prepared)


def read(tfds_dir, name, split, specification="tfds:glue"):
    return read_split(get_task(name), specification, split, tfds_data_dir=tfds_dir)


def test_order_and_labels_are_those_of_the_files(tfds_dir):
    """TFDS shuffles, and numbers MNLI's labels in another order than ours."""
    found = read(tfds_dir, "mnli", "train")
    assert found.examples == [
        (str(i), f"premise {i}", "hypothesis train", NLI[i % 3]) for i in range(40)
    ]
    assert len(read(tfds_dir, "mnli", "dev_mismatched").examples) == 6
    test = read(tfds_dir, "mnli", "test_matched", "tfds:glue/mnli")
    assert test.examples == [("0", "a", "b", None), ("1", "c", "d", None)] and not test.labelled


def test_names_of_labels_that_glue_numbers(tfds_dir):
    """acceptable is 1, as in GLUE's file."""
    found = read(tfds_dir, "cola", "dev")
    assert sorted(example[1:] for example in found.examples) == [
        ("Bad is.", None, "0"), ("Good.", None, "1")]  # fmt: skip


def test_numbers(tfds_dir):
    labels = [example.label for example in read(tfds_dir, "stsb", "train").examples]
    assert labels == pytest.approx([3.8, 0.0], rel=1e-6)


def test_splits_that_tfds_has():
    assert has_split(get_task("mnli"), "tfds:glue", "dev_mismatched")
    assert not has_split(get_task("ax"), "tfds:glue", "dev")


@pytest.mark.parametrize(
    ("task", "specification", "message"),
    [
        ("squad", "tfds:glue", "is not GLUE in TensorFlow Datasets: write tfds:glue, for a task"),
        ("rte", "tfds:imdb", "is not GLUE in TensorFlow Datasets"),
        ("rte", "tfds:glue/cola", "is not of task rte: write tfds:glue/rte"),
        ("mnli", "tfds:glue/mnli:9.9.9", "TensorFlow Datasets have no glue/mnli:9.9.9"),
    ],
)
def test_refuses(tfds_dir, task, specification, message):
    with pytest.raises(UserError, match=message):
        read(tfds_dir, task, "train", specification)


def test_what_cannot_be_downloaded(tfds_dir, monkeypatch):
    import tensorflow_datasets as tfds

    def refuse(self, url):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", refuse)
    with pytest.raises(UserError, match=r"cannot be prepared in .*no network\): prepare it where"):
        read(tfds_dir, "rte", "train")
