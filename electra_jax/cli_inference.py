"""The verbs of `electra-jax` that apply a pre-trained model to text."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_jax.data import storage
from electra_jax.errors import UserError


def add_inference(verbs) -> None:
    """Adds `detect`, `fill-mask`, `score`, `embed` and `serve`."""
    parser = _add(verbs, "detect", "say which tokens of a text look replaced", _detect)
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text")
    _add_file(parser)
    parser.add_argument("--jsonl", action="store_true", help="print a JSON object a text")
    parser.add_argument("--html", metavar="FILE", help="write a page that shades the tokens")
    parser.add_argument(
        "--windows", action="store_true", help="score long texts in windows instead of cutting them"
    )
    parser = _add(verbs, "fill-mask", "guess what is at [MASK]", _fill_mask)
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text, with [MASK] in it")
    _add_file(parser)
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="guesses a mask (5)")
    parser = _add(verbs, "score", "say how usual texts are, by a model of Electric", _score)
    parser.add_argument("file", metavar="FILE", help="a text a line; -: stdin")
    parser.add_argument(
        "--rerank",
        action="store_true",
        help='FILE holds lists of hypotheses: a line {"texts": [...], "scores": [...]} each, whose '
        "scores, higher for better, may be left out",
    )
    parser.add_argument(
        "--weight", type=float, default=1.0, metavar="X", help="of the model beside scores (1)"
    )
    parser = _add(verbs, "embed", "write the encoder's vectors of texts", _embed)
    parser.add_argument("--file", required=True, metavar="FILE", help="a text a line; -: stdin")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help=".npy [texts, width], or .parquet"
    )
    parser.add_argument("--pooling", default="mean", choices=("mean", "cls", "tokens"))
    parser = _add(verbs, "serve", "answer over HTTP, with a page that shades tokens", _serve)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="of a request (256000)")
    parser.add_argument("--max-texts", type=int, metavar="N", help="of a request (256)")
    parser.add_argument("--max-waiting", type=int, metavar="N", help="requests that wait (64)")


def _add(verbs, name: str, what: str, verb: Any) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a run, or a Hugging Face directory"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="texts at a time, at most (32)"
    )
    parser.set_defaults(verb=verb, after_interrupt="nothing more was written")
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", help="a text a line, instead of TEXT; -: stdin")


def _texts(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Every text and what is wrong with it ("" for nothing)."""
    if getattr(arguments, "text", None) is not None:
        if arguments.file is not None:
            raise UserError("TEXT and --file are both given: leave one out")
        try:
            arguments.text.encode()
        except UnicodeEncodeError:
            raise UserError("TEXT is not UTF-8: check the terminal's encoding") from None
        yield arguments.text, ""
        return
    if arguments.file is None:
        raise UserError("there is no text: give TEXT, or --file FILE")
    standard = contextlib.nullcontext(sys.stdin.buffer)
    try:
        with standard if arguments.file == "-" else open(arguments.file, "rb") as lines:
            for line in lines:
                line = line.rstrip(b"\n").removesuffix(b"\r")
                try:
                    yield line.decode("utf-8"), ""
                except UnicodeDecodeError as error:  # the other lines are none the worse for it
                    yield "", f"not UTF-8 at byte {error.start}"
    except OSError as error:
        raise UserError(f"{arguments.file} cannot be read ({error.strerror})") from None


def _noting(lines: Iterator[tuple[str, str]], problems: list[str]) -> Iterator[str]:
    """The texts; what is wrong with each is added to `problems` as it is read."""
    for text, problem in lines:
        problems.append(problem)
        yield text


def _check_directory(flag: str, path: str) -> None:
    """A file that cannot be written is told before the work, not after it."""
    parent = Path(path).parent
    if "://" not in path and not os.access(parent, os.W_OK):
        reason = "is not writable" if parent.is_dir() else "is no directory"
        raise UserError(f"{flag}={path} cannot be written: {parent} {reason}")


def _model(arguments: argparse.Namespace) -> Any:
    from electra_jax.inference import TextModel

    return TextModel(arguments.model, batch_size=arguments.batch_size)


def _detect(arguments: argparse.Namespace) -> None:
    from electra_jax.detection_page import detection_page, detection_table

    if arguments.html:
        _check_directory("--html", arguments.html)
    model = _model(arguments)
    kept, given = ([], []) if arguments.html else (None, None)
    problems: list[tuple[str, str]] = []

    def texts() -> Iterator[str]:
        for text, problem in _texts(arguments):
            problems.append((text, problem))
            yield text

    # Both grow together: `detect` reads ahead, and answers in order.
    width = shutil.get_terminal_size().columns
    for number, detection in enumerate(model.detect(texts(), windows=arguments.windows)):
        text, problem = problems[number]
        problems[number] = ("", "")
        if kept is not None:
            kept.append(dataclasses.replace(detection, note=problem or detection.note))
            given.append(text)
        if arguments.jsonl:
            row = detection.to_json() | ({"error": problem} if problem else {})
            print(json.dumps(row, ensure_ascii=False))
        elif arguments.html is None:
            print(problem or detection_table(detection, width=width, colour=sys.stdout.isatty()))
    if kept is not None:
        page = detection_page(given, kept, model=str(arguments.model))
        try:
            storage.write_bytes(arguments.html, page.encode(errors="backslashreplace"))
        except OSError as error:
            raise UserError(
                f"--html={arguments.html} cannot be written ({error.strerror})"
            ) from None
        print(arguments.html, file=sys.stderr if arguments.jsonl else sys.stdout)


def _fill_mask(arguments: argparse.Namespace) -> None:
    model = _model(arguments)
    problems: list[str] = []
    strict = arguments.file is None
    texts = _noting(_texts(arguments), problems)
    answers = model.fill_mask(texts, top_k=arguments.top_k, strict=strict)
    for number, masks in enumerate(answers):
        if isinstance(masks, UserError):
            masks = {"error": problems[number] or str(masks)}
        print(json.dumps(masks, ensure_ascii=False))


def _score(arguments: argparse.Namespace) -> None:
    from electra_jax.reranking import read_hypotheses, rerank

    model = _model(arguments)
    arguments.text = None
    lines = _texts(arguments)
    if not arguments.rerank:
        problems: list[str] = []
        for number, score in enumerate(model.score(_noting(lines, problems), strict=False)):
            if isinstance(score, UserError):
                print(json.dumps({"error": problems[number] or str(score)}, ensure_ascii=False))
            else:
                print(json.dumps({"score": round(score, 4)}))
        return
    for number, (line, problem) in enumerate(lines, start=1):
        where = f"{arguments.file}:{number}"
        if problem:
            raise UserError(f"{where}: {problem}")
        hypotheses, scores = read_hypotheses(line, where=where)
        order, totals = rerank(list(model.score(hypotheses)), scores, weight=arguments.weight)
        answer = {"best": hypotheses[order[0]], "order": order, "scores": totals}
        print(json.dumps(answer, ensure_ascii=False))


def _embed(arguments: argparse.Namespace) -> None:
    import numpy as np

    path, tokens = Path(arguments.output), arguments.pooling == "tokens"
    if path.suffix not in (".npy", ".parquet") or (tokens and path.suffix == ".npy"):
        wanted = ".parquet" if tokens else ".npy or .parquet"
        raise UserError(f"--output={path} with --pooling {arguments.pooling}: end it in {wanted}")
    _check_directory("--output", arguments.output)
    read = list(_texts(arguments))
    texts = [text for text, _ in read]
    model = _model(arguments)
    vectors = list(model.embed(texts, pooling=arguments.pooling))
    for number, (text, problem) in enumerate(read, start=1):
        if len(text) > model.max_tokens:
            tokens = len(model.pretrained.tokenizer.encode_batch([text])[0])
            if tokens > model.max_tokens:
                problem = f"cut to {model.max_tokens:,} of {tokens:,} tokens"
        if problem:
            print(f"note: line {number:,}: {problem}", file=sys.stderr)
    try:
        with storage.create(str(path)) as file:
            if path.suffix == ".npy":
                np.save(file, np.stack(vectors) if vectors else np.zeros((0, 0), np.float32))
            else:
                import pyarrow
                import pyarrow.parquet

                columns = {"text": texts, "vector": [vector.tolist() for vector in vectors]}
                pyarrow.parquet.write_table(pyarrow.table(columns), file)
    except OSError as error:
        raise UserError(f"--output={path} cannot be written ({error.strerror})") from None
    print(f"{len(vectors):,} texts: {path}")


def _serve(arguments: argparse.Namespace) -> None:
    try:
        from electra_jax import service
    except ImportError as error:
        raise UserError(
            f"serve needs {error.name}, which is not installed: "
            "pip install 'starlette>=1.0,<2' 'uvicorn>=0.40,<1'"
        ) from None
    given = {name: getattr(arguments, name) for name in service.Limits._fields}
    limits = service.Limits(**{name: value for name, value in given.items() if value is not None})
    with service.listen(arguments.host, arguments.port) as bound:
        service.serve(arguments.model, bound, batch_size=arguments.batch_size, limits=limits)
