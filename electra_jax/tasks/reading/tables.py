"""Texts and pairs of texts from tables: GLUE's files, and one's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.examples import BadRow, Reading, TextExample, shown
from electra_jax.tasks.reading.rows import check_text, csv_rows, jsonl_rows, text_rows, tsv_rows
from electra_jax.tasks.table import Columns


def read_table(
    path: Path,
    columns: Columns,
    kind: str,
    reading: Reading,
    *,
    labels: Sequence[str] = (),
) -> list[TextExample]:
    """The examples of a table.

    Args:
      path: a .csv (with quotes), .jsonl, .txt (a text a line, no labels) or else a tab-separated
        file without quotes; perhaps with .gz after it.
      columns: where it has what; without a label column the examples have no labels.
      kind: "classification", "regression" or "multilabel".
      reading: bad rows are settled with it.
      labels: what a label may be; () means anything.

    Raises:
      UserError: if the file cannot be read, or lacks a column; as `reading` says.
    """
    examples: list[TextExample] = []
    checked, wanted = False, columns.text_b
    for line, row in _rows(path, columns, reading):
        if not checked and not columns.without_header:
            columns, checked = _present(columns, row, path), True
        try:
            if columns.text_b is None and wanted is not None and row.get(wanted):
                raise BadRow(
                    f"{_called(wanted)} is given, and the first row has none",
                    "give every row one, or none",
                )
            number = len(examples) + reading.counts.bad_rows
            examples.append(_example(row, columns, kind, labels, number, reading))
        except BadRow as bad:
            reading.settle(f"line {line}", bad)
    return examples


def parse_label(value: Any, kind: str, labels: Sequence[str], separator: str = ",") -> Any:
    """A label as `TextExample` has it.

    Args:
      value: what the file has: a string, or a value from JSON.
      kind: "classification", "regression" or "multilabel".
      labels: what a label may be; () means anything.
      separator: between the labels of a multilabel string.

    Raises:
      BadRow: if the value is no label.
    """
    if kind == "regression":
        return _number(value)
    if kind == "multilabel":
        if isinstance(value, str):
            # No label at all is an answer, too.
            value = value.split(separator) if value.strip() else []
        if not isinstance(value, list):
            raise BadRow(f"label {shown(value)} is no list", "write a list of labels")
        names = [_name(item, labels) for item in value]
        if len(set(names)) != len(names):
            raise BadRow(f"label {shown(value)} names one twice", "name each once")
        return tuple(names)
    return _name(value, labels)


def _rows(path: Path, columns: Columns, reading: Reading) -> Iterator[tuple[int, dict]]:
    ending = _ending(path)
    if ending == ".csv":
        return csv_rows(path, reading)
    if ending == ".jsonl":
        return jsonl_rows(path, reading)
    if ending == ".txt":
        return text_rows(path, str(columns.text))
    return tsv_rows(path, reading, columns.without_header)


def _ending(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _present(columns: Columns, row: Mapping[Any, Any], path: Path) -> Columns:
    """The columns that there are, judged by the first row."""
    if columns.text_b_is_optional and columns.text_b not in row:
        columns = columns._replace(text_b=None)
    for name in (columns.text, columns.text_b, columns.label, columns.id):
        if name is not None and name not in row and _ending(path) == ".txt":
            raise UserError(
                f"{path} has one text a line, and {shown(name)} is needed, too: give a .csv, .tsv "
                f"or .jsonl with columns {shown(columns.text)} and {shown(name)}"
            )
        if name is not None and name not in row:
            has = shown(", ".join(map(str, row)), 200)
            raise UserError(
                f"{path} has no column {shown(name)} (it has: {has}): name its columns, or check "
                "that the file is of this task and split"
            )
    return columns


def _example(
    row: Mapping[Any, Any],
    columns: Columns,
    kind: str,
    labels: Sequence[str],
    number: int,
    reading: Reading,
) -> TextExample:
    has_label = columns.label is not None
    text = _text(row, columns.text)
    text_b = None if columns.text_b is None else _text(row, columns.text_b)
    empty = [
        name
        for name, value in ((columns.text, text), (columns.text_b, text_b))
        if value is not None and not value.strip()
    ]
    if empty and has_label:
        raise BadRow(f"{_called(empty[0])} is empty", "give it a text")
    label = (
        parse_label(row.get(columns.label), kind, labels, columns.separator) if has_label else None
    )
    identifier = str(number)
    if columns.id is not None:
        identifier = check_text(_plain(row.get(columns.id)))
        reading.claim(identifier)
    reading.counts.empty_texts += bool(empty)
    return TextExample(identifier, text, text_b, label)


def _text(row: Mapping[Any, Any], name: str | int) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise BadRow(f"{_called(name)} is {shown(value)}, not a string", "write a string")
    return check_text(value)


def _called(name: str | int) -> str:
    return f"column {name + 1}" if isinstance(name, int) else shown(name)


def _plain(value: Any) -> str:
    """A name as JSON would write it: true and 1 are the names "true" and "1"."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    raise BadRow(f"label or id {shown(value)} is no name", "write a string or a number")


def _name(value: Any, labels: Sequence[str]) -> str:
    name = check_text(_plain(value))
    if not name:
        raise BadRow("the label is empty", "give the row a label")
    if labels and name not in labels:
        known = ", ".join(labels)
        raise BadRow(f"label {shown(name)} is unknown", f"use one of {shown(known, 200)[1:-1]}")
    return name


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRow(f"label {shown(value)} is not a number", "write a finite number")
    return number
