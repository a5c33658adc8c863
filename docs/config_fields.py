"""The page of all config fields, from the config files' own lines and comments."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


# Groups that a function of their own makes.
_GROUPS = {"config": "", "parallel": "parallel.", "logging": "logging."}


class Field(NamedTuple):
    """One field: its name after `--config.`, its value as written, and what the file says of it."""

    name: str
    value: str
    about: str


def fields_of(path: Path) -> list[Field]:
    """Every field that a config file sets, in its order.

    A comment at the end of its line is the field's, or one in the lines above it.
    """
    source = path.read_text(encoding="utf-8")
    lines, names, found = source.splitlines(), dict(_GROUPS), []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[-1]
        if not isinstance(target, ast.Attribute):
            continue
        base, _, inside = ast.unparse(target.value).partition(".")
        if base not in names:
            continue
        group = names[base] + (f"{inside}." if inside else "")
        given = node.value.values[-1] if isinstance(node.value, ast.BoolOp) else node.value
        value = ast.unparse(given)
        if value.endswith("ConfigDict()") or value.endswith("_config()"):
            if isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = f"{target.attr}."
            continue
        value = "None" if "placeholder" in value else value
        found.append((node.lineno, Field(group + target.attr, value, _about(lines, node))))
    return [field for _, field in sorted(found)]


def _about(lines: list[str], node: ast.Assign) -> str:
    parts = []
    above = node.lineno - 2
    while above >= 0 and lines[above].strip().startswith("#"):
        parts.insert(0, lines[above].strip(" #"))
        above -= 1
    line = lines[node.end_lineno - 1]
    if "  # " in line:
        parts.append(line.split("  # ", 1)[1].strip())
    return " ".join(parts)


def page() -> str:
    """The page in Markdown."""
    lines = [
        "# Every config field",
        "",
        "Set on the command line as `--config.FIELD=VALUE`, or in a config file of your own. "
        "None is: not set, or what the description says. Pre-training's values are those of "
        "ELECTRA-Small; what another config sets is in its file.",
    ]
    for title, file in (("Pre-training", "common.py"), ("Fine-tuning", "finetune.py")):
        lines += ["", f"## {title}", "", f"`configs/{file}`", ""]
        lines += ["| field | value | meaning |", "|---|---|---|"]
        fields = fields_of(ROOT / "configs" / file)
        groups = list(dict.fromkeys(field.name.rpartition(".")[0] for field in fields))
        fields.sort(key=lambda field: groups.index(field.name.rpartition(".")[0]))
        for field in fields:
            about = field.about.replace("|", "\\|")
            lines.append(f"| `{field.name}` | `{field.value}` | {about} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page())
