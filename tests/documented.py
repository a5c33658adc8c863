"""What the documentation shows: its pages, and the commands and code on them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "fields.md")


def blocks(path: Path, language: str) -> list[str]:
    """The blocks of a page in a language ("": none)."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```([\w{}]*)[^\n]*\n(.*?)^ *```", text, flags=re.M | re.S)
    return [
        re.sub(rf"^{indent}", "", block, flags=re.M)
        for indent, of, block in found
        if of == language
    ]


def commands(path: Path) -> list[str]:
    """Commands in the blocks of a page without a language; a backslash joins lines."""
    found = []
    for block in blocks(path, ""):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().replace(".venv/bin/", "").split("  # ")[0]
            line = re.split(r" [|<>] ", line)[0]
            if line.startswith(("electra-jax ", "python ")) and "(--" not in line:
                found.append(line)
    return found
