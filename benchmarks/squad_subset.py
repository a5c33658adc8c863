"""A smaller SQuAD 1.1: some questions of each split, evenly spread over all paragraphs.

python benchmarks/squad_subset.py SQUAD OUTPUT --train 4000 --dev 1000
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def some_questions(squad: dict[str, Any], number: int) -> dict[str, Any]:
    """So many questions of a file's content (all, if it has fewer), each with its paragraph."""
    places = [
        (article["title"], paragraph["context"], question)
        for article in squad["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    number = min(number, len(places))
    chosen = [places[i * len(places) // number] for i in range(number)]
    articles = [
        {"title": title, "paragraphs": [{"context": context, "qas": [question]}]}
        for title, context, question in chosen
    ]
    return {"version": squad["version"], "data": articles}


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("squad", type=Path, help="where train-v1.1.json and dev-v1.1.json are")
    parser.add_argument("output", type=Path, help="directory to write the smaller ones to")
    parser.add_argument("--train", type=int, default=4000, help="questions of train")
    parser.add_argument("--dev", type=int, default=1000, help="questions of dev")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        name = f"{split}-v1.1.json"
        whole = json.loads((arguments.squad / name).read_text("utf-8"))
        smaller = json.dumps(some_questions(whole, getattr(arguments, split)))
        (arguments.output / name).write_text(smaller, encoding="utf-8")
        print(f"{arguments.output / name}")


if __name__ == "__main__":
    main()
