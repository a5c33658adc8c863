"""The English prose in a docstring: paragraphs without code, tables, headings and mark-up.

A heuristic for reStructuredText, Google, NumPy and Markdown style. What is not clearly prose is
dropped: a lost paragraph costs less than code in a corpus of English.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MIN_WORDS = 6
_MIN_WORDS_WITHOUT_STOP = 9
# Share of the characters that must be letters or spaces, and of words that must be plain words.
_MIN_LETTERS = 0.85
_MIN_PLAIN_WORDS = 0.72
# Directives whose content is prose; that of any other (code-block, math, plot, ...) is dropped.
_PROSE_DIRECTIVES = frozenset(
    "note warning attention caution danger error hint important tip admonition "
    "versionadded versionchanged deprecated versionremoved topic".split()
)
# Sections of NumPy and Google style without prose.
_DROPPED_SECTIONS = frozenset(
    ("references", "see also", "example", "examples", "citation", "raises")
)

_FENCE = re.compile(r"(?:```|~~~)")
_DOCTEST = re.compile(r"(?:>>>|\.\.\.(?:\s|$)|In \[\d+\]:|\$ )")
_RULE = re.compile(r"[-=~^*#\"'+`_.|:\s]{3,}$")
_DIRECTIVE = re.compile(r"\.\.\s+([\w:-]+?)::\s*(.*)$")
_COMMENT = re.compile(r"\.\.(?:\s|$)")
_BULLET = re.compile(r"(?:[-*+•]|\(?\d{1,2}[.)]|\[\d+\])\s+")
_SECTION = re.compile(r"#{0,4}\s*\**([A-Z][\w ]{2,30}?)\**\s*:?\**$")
# "name : type" of NumPy style, ":param name:" of Sphinx, "name (type):" or "name:" of Google.
_PARAMETER = re.compile(r"(?:\*{0,2}[\w.]+(?:,\s*\*{0,2}\w+)*\s+:(?:\s|$)|@\w+)")
_FIELD = re.compile(r":[a-z]+(?:\s+[^:]*)?:\s*")
_ITEM = re.compile(r"[`*\"']*[\w.\[\]]+[`*\"']*(?:,\s*\*{0,2}\w+)*\s*(?:\([^)]*\))?:\s+")

_INLINE = [
    (re.compile(r"!?\[([^\]]+)\]\([^)]*\)"), r"\1"),  # Markdown links
    (re.compile(r"`([^`<]+?)\s*<[^>`]+>`_{0,2}"), r"\1"),  # links with their target
    (re.compile(r":(?:[a-z]+:)?[a-z]+:`[~!]?([^`]*)`"), r"\1"),  # roles
    (re.compile(r"`{1,2}~?([^`]*)`{1,2}_{0,2}"), r"\1"),
    (re.compile(r"(?<!\w)\*{1,2}([^*\s][^*]*?)\*{1,2}(?!\w)"), r"\1"),
    (re.compile(r"(?<!\w)\|(\w+)\|_?(?!\w)"), r"\1"),
    (re.compile(r"\s*\[(?:\d+|[A-Z]\w+)\]_"), ""),  # footnotes
    (re.compile(r"</?[a-z][^<>]*>"), ""),
    (re.compile(r"\\(.)"), r"\1"),
    (re.compile(r"\s*::\s*$"), ":"),
]
_MARKUP = re.compile(r"[`*|<\[\\]|::")
_SYMBOL = re.compile(r"[^A-Za-z ]")
_SENTENCE_END = re.compile(r"[a-z)\"'’”][.!?:](?:\s|[)\"'”’]|$)")
_PLAIN_WORD = re.compile(r"[(\"'“‘]*[A-Za-z]+(?:['’-][A-Za-z]+)*[)\"'”’]*[.,;:!?]*[)\"'”’]*$")
_FUNCTION_WORDS = frozenset(
    "the a an of to in is are be for and or that this with as by it not if on from which can when "
    "will should must may has have was were you we its at into than these those there but".split()
)


def paragraphs_of(docstring: str) -> list[str]:
    """The paragraphs of a docstring that read like English, mark-up removed, each one line."""
    paragraphs = []
    for lines in _blocks(docstring.expandtabs().split("\n")):
        text = " ".join(" ".join(lines).split())
        if _MARKUP.search(text):
            for pattern, replacement in _INLINE:
                text = pattern.sub(replacement, text)
            text = text.strip()
        if _is_prose(text):
            paragraphs.append(text)
    return paragraphs


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Groups of lines that may be paragraphs; code, tables and headings are gone already."""
    block: list[str] = []
    block_indent = 0
    code_indent: int | None = None  # Lines deeper than this are code.
    fenced = doctest = skipped_section = in_items = False
    for i, raw in enumerate(lines):
        line = raw.strip()
        indent = len(raw) - len(raw.lstrip())
        below = lines[i + 1].strip() if i + 1 < len(lines) else ""
        if _FENCE.match(line):
            fenced = not fenced
            yield block
            block = []
            continue
        if fenced:
            continue
        if not line:
            yield block
            block, doctest = [], False
            continue
        if code_indent is not None:
            if indent > code_indent:
                continue
            code_indent = None
        if _DOCTEST.match(line):
            doctest = True
        heading = bool(_RULE.match(below)) and len(below) >= 3 and len(line) <= 60
        section = _SECTION.match(line)
        if not doctest and (heading or section) and not block:
            name = section.group(1).lower() if section else ""
            skipped_section = name in _DROPPED_SECTIONS
            if skipped_section or heading or len(line.split()) <= 3:
                continue
        if skipped_section and (indent > 0 or _BULLET.match(line)):
            continue
        if doctest or _RULE.match(line) or "  " in line.replace(".  ", " ").replace("  (", " "):
            # Output, an underline, or columns of a table.
            yield block
            block = []
            continue
        directive = _DIRECTIVE.match(line)
        if directive or _COMMENT.match(line):
            yield block
            block = []
            if not directive or directive.group(1) not in _PROSE_DIRECTIVES:
                code_indent = indent
            continue
        if _PARAMETER.match(line):
            yield block
            block = []
            continue
        bullet = _BULLET.match(line) or _FIELD.match(line)
        if bullet:
            line = line[bullet.end() :]
        item = _ITEM.match(line) if bullet or not block or indent <= block_indent else None
        described = item and line[item.end() : item.end() + 1].isupper()
        if described:
            line = line[item.end() :]
        # A line of the same kind or depth as the block's first one starts the next.
        if bullet or described or (block and (indent < block_indent or (item and in_items))):
            yield block
            block = []
        if not block:
            block_indent, in_items = indent, bool(item)
        block.append(line)
        if line.endswith("::"):
            code_indent = indent
            yield block
            block = []
    yield block


def _is_prose(text: str) -> bool:
    """Whether a paragraph reads like English sentences."""
    words = text.split()
    if len(words) < _MIN_WORDS or not (text[0].isupper() or text[0] in "\"'“‘("):
        return False
    if _SENTENCE_END.search(text):
        if text[-1] not in ".!?:)\"'”’":
            return False  # Cut off.
    elif len(words) < _MIN_WORDS_WITHOUT_STOP or words[-1].lower() in _FUNCTION_WORDS:
        return False
    if len(_SYMBOL.findall(text)) > (1 - _MIN_LETTERS) * len(text):
        return False
    plain = sum(_PLAIN_WORD.match(word) is not None for word in words)
    if plain < _MIN_PLAIN_WORDS * len(words):
        return False
    return sum(word.lower() in _FUNCTION_WORDS for word in words) >= max(1, len(words) // 8)
