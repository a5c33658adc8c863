"""The default corpus, which needs no download: the documentation that Python packages carry.

Docstrings of the standard library and of the packages this project depends on, and the topics of
Python's `help()`, reduced to English prose: a few million tokens, enough to see every part of
pre-training work. Source files are parsed, never imported.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import secrets
import shutil
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from electra_jax.data.corpus import METADATA_FILE, Corpus
from electra_jax.data.prepare import build_corpus
from electra_jax.data.prose import paragraphs_of
from electra_jax.data.tokenization import WordPieceTokenizer
from electra_jax.errors import UserError

# "python" is the standard library. Packages that are not installed are left out.
PACKAGES = (
    "python",
    "jax",
    "flax",
    "optax",
    "orbax",
    "numpy",
    "scipy",
    "matplotlib",
    "ml_collections",
    "absl",
    "etils",
    "rich",
    "tensorflow_datasets",
)
# Raised whenever the same sources would give another text.
_BUILDER_VERSION = 1
_DISTRIBUTIONS = {"absl": "absl-py", "orbax": "orbax-checkpoint"}
_SKIPPED_DIRECTORIES = {"site-packages", "dist-packages", "__pycache__"}
# Documentation has few and long documents: 0.005 of them would be a handful.
_VALIDATION_FRACTION = 0.02


def documentation_corpus(
    vocab_size: int = 8192,
    cache_dir: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    packages: Sequence[str] = PACKAGES,
) -> Corpus:
    """The documentation corpus, built at the first call and found again later.

    One document is the prose in one module's docstrings, or one `help()` topic. The WordPiece
    vocabulary, lower-cased, is trained on the same text.

    Args:
      vocab_size: ids of the tokenizer, at most.
      cache_dir: where corpora are kept; None means $ELECTRA_JAX_CACHE, or
        $XDG_CACHE_HOME/electra_jax, or ~/.cache/electra_jax. The name of the corpus's directory
        there depends on the versions of Python and the packages, and on `vocab_size`.
      progress: called with a line of text now and then while building.
      packages: names of packages, and "python" for the standard library.

    Returns:
      The corpus. The same versions give the same fingerprint.

    Raises:
      UserError: if no documentation is found, or the cache cannot be written.
    """
    settings = {
        "builder": _BUILDER_VERSION,
        "vocab_size": vocab_size,
        "validation_fraction": _VALIDATION_FRACTION,
        "packages": {name: _version(name) for name in packages},
    }
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    output = _cache_directory(cache_dir) / f"documentation-{name}"
    if (output / METADATA_FILE).exists():
        return Corpus.open(output)
    report = progress or (lambda line: None)
    documents = list(read_documentation(packages, report))
    if not documents:
        raise UserError(
            f"packages={','.join(packages)} have no documentation here: "
            "prepare a corpus from text of your own"
        )
    report(f"training a vocabulary of {vocab_size} on {len(documents)} documents")
    texts = (paragraph for document in documents for paragraph in document)
    tokenizer = WordPieceTokenizer.train(texts, vocab_size)
    report(f"writing {output}")
    # Aside, under a name of its own: another process may be building the same one.
    aside = output.with_name(f"{output.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        build_corpus(
            documents,
            aside,
            tokenizer,
            settings=settings,
            validation_fraction=_VALIDATION_FRACTION,
        )
        with contextlib.suppress(OSError):  # The other was faster; its corpus is the same.
            os.rename(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Corpus.open(output)


def read_documentation(
    packages: Sequence[str] = PACKAGES, progress: Callable[[str], None] | None = None
) -> Iterator[list[str]]:
    """Yields documents, each a list of paragraphs of prose, in a fixed order.

    A paragraph occurs once in all documents together. Tests, and files that cannot be parsed, are
    left out; so is a module without prose.
    """
    seen: set[str] = set()
    for package in packages:
        if progress:
            progress(f"reading the documentation of {package}")
        for root in _roots(package):
            for path in _sources(root):
                for docstrings in _docstrings(path):
                    document = []
                    for docstring in docstrings:
                        for paragraph in paragraphs_of(docstring):
                            if paragraph not in seen:
                                seen.add(paragraph)
                                document.append(paragraph)
                    if document:
                        yield document


def _cache_directory(cache_dir: str | Path | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    if os.environ.get("ELECTRA_JAX_CACHE"):
        return Path(os.environ["ELECTRA_JAX_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "electra_jax"


def _version(package: str) -> str | None:
    """The installed version, or None where the package has no sources here."""
    if package == "python":
        return platform.python_version()
    if not _roots(package):
        return None
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _roots(package: str) -> list[Path]:
    """Directories of a package, found without importing it; [] if it is not installed."""
    if package == "python":
        return [Path(sysconfig.get_paths()["stdlib"])]
    spec = importlib.util.find_spec(package)
    return [Path(p) for p in spec.submodule_search_locations or ()] if spec else []


def _sources(root: Path) -> Iterator[Path]:
    """Python files below a directory, in the order of their paths, without tests."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = sorted(
            name
            for name in subdirectories
            if name not in _SKIPPED_DIRECTORIES and "test" not in name.lower()
        )
        for name in sorted(names):
            if name.endswith(".py") and "test" not in name.lower():
                yield Path(directory) / name


def _docstrings(path: Path) -> Iterator[list[str]]:
    """The docstrings of a file, in order, as one document; or the topics of `help()`, as many."""
    try:
        source = path.read_bytes()
    except OSError:
        return
    topics = path.name == "topics.py" and path.parent.name == "pydoc_data"
    if not topics and b'"""' not in source and b"'''" not in source:
        return
    try:
        tree = _parse(source)
        if topics:
            assignment = next(node for node in tree.body if isinstance(node, ast.Assign))
            yield from ([text] for text in ast.literal_eval(assignment.value).values())
        else:
            nodes: list[Any] = [tree, *_definitions(tree.body)]
            documented = (ast.get_docstring(node) for node in nodes)
            yield [docstring for docstring in documented if docstring]
    except (SyntaxError, ValueError, RecursionError, StopIteration):
        return


def _parse(source: bytes) -> ast.Module:
    collecting = gc.isenabled()
    gc.disable()  # Syntax trees have no garbage, and collection takes longer than parsing.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of invalid escapes in others' strings.
            return ast.parse(source)
    finally:
        if collecting:
            gc.enable()


def _definitions(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Functions and classes of a module or class, inner ones included."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
            yield from _definitions(node.body)
