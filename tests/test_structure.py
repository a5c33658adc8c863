"""The rules of CONTRIBUTING.md that a program can check by reading the code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "electra_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Each layer may import from those before it, and from its own.
LAYERS = (
    ("errors", "special_ids", "config"),
    (
        "products",
        "embedding_sharing",
        "embeddings",
        "modern",
        "architectures",
        "attention",
        "dropout",
        "layers",
        "modeling",
        "heads",
        "transfer",
        "flops",
    )
    + ("masking", "corruption", "losses", "vocabulary", "resident", "objectives")
    + ("muon", "optimizer"),
    ("train_state", "steps"),
    (
        "processes",
        "parallel",
        "checkpoint",
        "hugging_face",
        "writers",
        "curves",
        "loop",
        "run_config",
        "same_run",
    )
    + ("run_directory", "pretrained", "warm_start", "tensorflow_checkpoint", "convert"),
    ("inference_steps", "reranking", "reference_curves"),
    ("pretraining", "finetuning", "inference", "detection_page", "command_line"),
    ("sweep",),
    ("service",),
    ("run_record", "doctor", "corrupted_samples", "report"),
    ("cli", "cli_inference", "cli_runs"),
)
# These packages stand beside the first three layers: NumPy, no JAX.
MAY_IMPORT = {
    "data": {"errors", "special_ids", "data"},
    "tasks": {"errors", "special_ids", "data", "tasks"},
}
PURE = {name for layer in LAYERS[:3] for name in layer}


def part(path: Path) -> str:
    """Name of the module or sub-package directly below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names of everything a module imports, wherever in the module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_imported(path: Path) -> set[str]:
    own = {name for name in imports(path) if name.startswith("electra_jax.")}
    return {name.split(".")[1] for name in own}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    if part(path) == "__init__":
        return
    if part(path) in MAY_IMPORT:
        assert parts_imported(path) <= MAY_IMPORT[part(path)]
        return
    (level,) = [i for i, layer in enumerate(LAYERS) if part(path) in layer]
    allowed = {name for layer in LAYERS[: level + 1] for name in layer}
    assert parts_imported(path) <= allowed | (set(MAY_IMPORT) if level >= 3 else set())


def importers(prefix: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(name == prefix or name.startswith(prefix + ".") for name in imports(path))
    }


def test_only_checkpoint_imports_orbax():
    assert importers("orbax") == {"checkpoint.py"}


def test_only_parallel_names_a_mesh_a_device_or_pmap():
    words = ("jax.pmap", "jax.devices", "Mesh(", "make_mesh(", "NamedSharding", "shard_map")
    for path in MODULES:
        if part(path) != "parallel":
            code = path.read_text(encoding="utf-8").replace("parallel.make_mesh(", "")
            assert not [word for word in words if word in code], path


def test_only_the_loop_has_a_clock():
    assert {name for name in importers("time") if not name.startswith("data/")} == {"loop.py"}


def test_the_pure_core_touches_no_files_and_no_configs():
    for path in MODULES:
        if part(path) in PURE:
            assert not imports(path) & {"os", "pathlib.Path", "time", "ml_collections", "sys"}, path
            assert "open(" not in path.read_text(encoding="utf-8")


def test_the_data_packages_do_without_jax():
    assert not {name for name in importers("jax") if name.split("/")[0] in MAY_IMPORT}


def test_no_pickle_no_eval_no_shell():
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {node.func.id for node in ast.walk(tree) if _is_plain_call(node)}
        assert not calls & {"eval", "exec"}, path
        assert "shell=True" not in path.read_text(encoding="utf-8")
    assert not importers("pickle")


def _is_plain_call(node) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def lines_of(path: Path, name: str) -> int:
    """Lines of a function's body, its docstring left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = node.body[1] if ast.get_docstring(node) else node.body[0]
            return node.end_lineno - first.lineno + 1
    raise LookupError(name)


def test_files_and_the_two_functions_at_the_heart_stay_short():
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
    assert lines_of(PACKAGE / "steps.py", "train_step") < 50
    assert lines_of(PACKAGE / "loop.py", "fit") < 60


def test_public_names_are_where_the_package_says():
    """The imports that type checkers read, the table that Python reads, and `__all__` agree."""
    import electra_jax

    checked = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("electra_jax.")
        for alias in node.names
    }
    table = {
        (f"electra_jax.{module}", name)
        for module, names in electra_jax._MODULES.items()
        for name in names
    }
    assert checked == table
    assert sorted(electra_jax.__all__) == sorted(name for _, name in table)
    assert all(hasattr(electra_jax, name) for name in electra_jax.__all__)
    assert set(electra_jax.__all__) <= set(dir(electra_jax))
    with pytest.raises(AttributeError, match="has no attribute 'Electro'"):
        electra_jax.Electro  # noqa: B018


def test_importing_the_package_loads_neither_tensorflow_nor_torch():
    code = (
        "import sys, electra_jax\n"
        "[getattr(electra_jax, name) for name in electra_jax.__all__]\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'torch', 'matplotlib', 'sklearn', 'wandb'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
