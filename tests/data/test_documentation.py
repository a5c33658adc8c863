from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.data import documentation_corpus
from electra_jax.data.documentation import read_documentation
from electra_jax.data.prose import paragraphs_of
from electra_jax.errors import UserError

ROOT = Path(__file__).parents[2]

DOCSTRING = """Computes the ``sum`` of the :func:`~package.values` that are given to it.

    A `link <https://example.org>`_ in a *longer* paragraph, which goes
    on in the next line. See [the guide](https://example.org/guide) for the rest of it.

    Title of a part
    ---------------
    >>> compute(1)
    The result of this example is printed like a sentence.

    For example, this is how the function is called by a program::

        value = compute(The sum of the values, which is not a sentence.)

        This line of the code looks like a sentence to the reader.

    .. code-block:: python

        # This comment is in the code, and so it is not in the text.

    .. note::

        This note about the function is a part of the documentation.

    ========  =======================================
    a column  This is the text of a table in the page.
    ========  =======================================

    Parameters
    ----------
    x : array_like, optional
        The values that are to be added to the others.
    y : the type of this is a long text of many words.

    Args:
      first: The first of the two numbers that are added.
      second: nothing.

    :param other: The other number, which is added to the first.

    ```
    This block is fenced, and none of it is in the text.
    ```

    - This is the first point of a list of points.
    - This is the second point of that same list.

    x = f(a, b) + g[c] is the formula that is computed here.
    A short one.
"""


def test_prose():
    assert paragraphs_of(DOCSTRING) == [
        "Computes the sum of the package.values that are given to it.",
        "A link in a longer paragraph, which goes on in the next line. See the guide for the rest "
        "of it.",
        "For example, this is how the function is called by a program:",
        "This note about the function is a part of the documentation.",
        "The values that are to be added to the others.",
        "The first of the two numbers that are added.",
        "The other number, which is added to the first.",
        "This is the first point of a list of points.",
        "This is the second point of that same list.",
    ]


def write_package(root):
    """A package that fails when it is imported, with documentation and a test."""
    package = root / "described"
    (package / "inner" / "tests").mkdir(parents=True)
    topic = "raise RuntimeError('must not be imported')\n"
    first = "The first module of the package is about the numbers that are counted."
    inner = "A method of the class is found in it, and it is kept for the text."
    (package / "__init__.py").write_text(
        f'"""{first}"""\n{topic}\nclass A:\n    def f(self):\n        """{inner}"""\n'
    )
    (package / "inner" / "again.py").write_text(
        f'"""{first}\n\nThis one is only in the second file of the package."""\n'
    )
    (package / "inner" / "broken.py").write_text('"""The file is not a program at all.""" (\n')
    (package / "inner" / "plain.py").write_text("x = 1\n")
    for name in ("inner/tests/other.py", "inner/some_test.py"):
        (package / name).write_text('"""This is the text of a test, and it is left out."""\n')
    return [[first, inner], ["This one is only in the second file of the package."]]


def test_reads_without_importing(tmp_path, monkeypatch):
    expected = write_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(read_documentation(["described", "not_installed_at_all"])) == expected
    assert "described" not in sys.modules


def test_corpus(tmp_path):
    lines = []
    packages = ["json", "logging", "email", "pydoc_data"]
    corpus = documentation_corpus(300, tmp_path, lines.append, packages)
    corpus.verify()
    assert len(lines) == len(packages) + 2
    assert corpus.path.parent == tmp_path and list(tmp_path.iterdir()) == [corpus.path]
    # `help()` topics are a document each.
    assert corpus.num_documents("train") > 60 and corpus.num_documents("validation") >= 1
    assert corpus.num_tokens("train") > 50_000
    assert corpus.vocab_size == 300
    before = (corpus.path / "corpus.json").stat().st_mtime_ns
    assert documentation_corpus(300, tmp_path, lines.append, packages).path == corpus.path
    assert (corpus.path / "corpus.json").stat().st_mtime_ns == before
    assert len(lines) == len(packages) + 2
    other = documentation_corpus(300, tmp_path / "other", None, packages)
    assert other.fingerprint == corpus.fingerprint
    assert documentation_corpus(200, tmp_path, None, packages).path != corpus.path


def test_two_processes_at_once(tmp_path):
    program = (
        "import sys; from electra_jax.data import documentation_corpus\n"
        "print(documentation_corpus(200, sys.argv[1], None, ['json', 'logging']).fingerprint)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, cwd=ROOT
        )
        for _ in range(3)
    ]
    prints = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(prints) == 1 and len(list(tmp_path.iterdir())) == 1


def test_cache_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("ELECTRA_JAX_CACHE", raising=False)
    corpus = documentation_corpus(200, packages=["json"])
    assert corpus.path.parent == tmp_path / "xdg" / "electra_jax"
    monkeypatch.setenv("ELECTRA_JAX_CACHE", str(tmp_path / "own"))
    assert documentation_corpus(200, packages=["json"]).path.parent == tmp_path / "own"


def test_nothing_found(tmp_path):
    with pytest.raises(UserError) as error:
        documentation_corpus(300, tmp_path, packages=["not_installed_at_all"])
    assert str(error.value) == (
        "packages=not_installed_at_all have no documentation here: "
        "prepare a corpus from text of your own"
    )
