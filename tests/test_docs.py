"""The pages of docs/: links lead somewhere, commands are ones that the programs take.

They are run by runs/test_docs_commands.py, the README's by runs/test_readme.py, the config file of
docs/objectives.md by runs/test_objective_runs.py.
"""

import re
import shlex
import sys

import pytest
from documented import PAGES, ROOT, commands

from electra_jax import command_line
from electra_jax.cli import build_parser

sys.path.insert(0, str(ROOT / "docs"))
import config_fields  # noqa: E402


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#h][^)#]*)[)#]", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_its_commands_are_ones_that_the_programs_take(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in commands(path):
        words = shlex.split(line)
        if words[0] == "electra-jax":
            own = words[1 : words.index("--")] if "--" in words else words[1:]
            build_parser().parse_args(own)
        elif words[1] in ("train.py", "finetune.py", "sweep.py"):
            assert (ROOT / words[1]).exists()
            given = [w for w in words[2:] if not w.startswith("--config=my")]
            if any(w.startswith("--config=") for w in given):
                command_line.parse_config([words[1], *given], default_workdir="runs/{name}")
        elif words[1] == "-m":
            assert (ROOT / words[2].replace(".", "/")).exists()
        else:
            assert (ROOT / words[1]).exists(), line


@pytest.mark.parametrize("file", ["common.py", "finetune.py"])
def test_every_field_is_described(file):
    fields = config_fields.fields_of(ROOT / "configs" / file)
    assert len(fields) > 40
    assert [field.name for field in fields if not field.about] == []
    assert "| `seed` | `0` |" in config_fields.page()


def test_every_field_of_the_configs_is_on_the_page():
    import importlib

    from electra_jax.run_config import flatten

    page = config_fields.page()
    for name, argument in (("common", ""), ("finetune", "rte")):
        config = importlib.import_module(f"configs.{name}").get_config(argument)
        for field in flatten(config.to_dict()):
            assert f"`{field}`" in page, field


def test_the_site_has_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(\w+)$", index, flags=re.M))
    assert {path.stem for path in PAGES} | {"fields"} == listed | {"index"}
