"""A small HTTP service around a `TextModel`: JSON for programs, one page for people.

    POST /detect     {"texts": ["..."], "windows": false}
    POST /fill-mask  {"texts": ["... [MASK] ..."], "top_k": 5}
    POST /embed      {"texts": ["..."], "pooling": "mean"}
    GET  /health     what is served, and its limits
    GET  /           the page

Each answer to a POST is {"results": [...]}, one for each text, in order; each refusal is
{"error": "..."} in one line, with a status of 400 or above. Needs Starlette and uvicorn.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from electra_jax.detection_page import STYLE
from electra_jax.errors import UserError
from electra_jax.inference import POOLINGS, TextModel

# An answer of more numbers is refused: they would take gigabytes.
_MOST_NUMBERS = 2_000_000
_BODY_SECONDS = 30  # for a request's body to arrive
_ENDING_SECONDS = 10  # for what is being answered when the service is ended


class Limits(NamedTuple):
    """What one request may ask for.

    Attributes:
      max_bytes: of its body.
      max_texts: in it.
      max_waiting: requests that wait while one is answered; more are refused with status 503.
    """

    max_bytes: int = 256_000
    max_texts: int = 256
    max_waiting: int = 64


def _detect(model: TextModel, texts: list[str], *, windows: bool = False) -> list[Any]:
    return [
        found.to_json() | {"offsets": found.offsets.tolist()}
        for found in model.detect(texts, windows=windows)
    ]


def _fill_mask(model: TextModel, texts: list[str], *, top_k: int = 5) -> list[Any]:
    _check_size(top_k * sum(text.count("[MASK]") for text in texts))
    return list(model.fill_mask(texts, top_k=top_k))


def _embed(model: TextModel, texts: list[str], *, pooling: str = "mean") -> list[Any]:
    vectors = list(model.embed(texts, pooling=pooling))
    _check_size(sum(vector.size for vector in vectors))
    return [vector.tolist() for vector in vectors]


def _check_size(numbers: int) -> None:
    if numbers > _MOST_NUMBERS:
        raise HTTPException(
            413,
            f"the answer would hold {numbers:,} numbers: ask for at most {_MOST_NUMBERS:,} at once",
        )


class Verb(NamedTuple):
    """A path that answers.

    Attributes:
      answer: from a model, texts and options to a result for each text.
      option: the name of its one option.
      accepts: whether a value of it will do, and what to say it must be.
    """

    answer: Callable[..., list[Any]]
    option: str
    accepts: tuple[Callable[[Any], bool], str]


VERBS = {
    "/detect": Verb(_detect, "windows", (lambda v: isinstance(v, bool), "true or false")),
    "/fill-mask": Verb(
        _fill_mask,
        "top_k",
        (lambda v: type(v) is int and 1 <= v <= 100, "a whole number from 1 to 100"),
    ),
    "/embed": Verb(_embed, "pooling", (lambda v: v in POOLINGS, f"one of {', '.join(POOLINGS)}")),
}


def make_app(model: TextModel, *, name: str, limits: Limits = Limits()) -> Starlette:  # noqa: B008
    """The ASGI application.

    Args:
      model: what answers, a request at a time.
      name: what the page calls it.
      limits: of requests.
    """
    one_at_a_time = anyio.CapacityLimiter(1)
    page = importlib.resources.files("electra_jax").joinpath("service_page.html")
    page = page.read_text(encoding="utf-8").replace("/* STYLE */", STYLE)
    about = {"model": name, "max_tokens": model.max_tokens, **limits._asdict()}

    def endpoint(verb: Verb):
        async def handle(request: Request) -> Response:
            texts, options = _asked(await _body(request, limits.max_bytes), verb, limits)
            if one_at_a_time.statistics().tasks_waiting >= limits.max_waiting:
                raise HTTPException(503, "too many requests are waiting: ask again later")
            async with one_at_a_time:
                if await request.is_disconnected():
                    return Response(status_code=499)  # nobody is there to read an answer
                try:
                    return await anyio.to_thread.run_sync(
                        lambda: JSONResponse({"results": verb.answer(model, texts, **options)})
                    )
                except UserError as error:
                    raise HTTPException(400, str(error)) from None

        return handle

    async def health(request: Request) -> Response:
        return JSONResponse(about)

    async def show_page(request: Request) -> Response:
        return HTMLResponse(page)

    routes = [Route(path, endpoint(verb), methods=["POST"]) for path, verb in VERBS.items()]
    routes += [Route("/health", health), Route("/", show_page)]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refuse, 500: _failed})


async def _refuse(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"the service failed ({type(error).__name__})"}, 500)


async def _body(request: Request, max_bytes: int) -> bytes:
    """A request's body, of which no more is read than may be."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what other sites' pages cannot send unasked
        raise HTTPException(415, f"content-type={kind!r}: send application/json")
    body = b""
    try:
        with anyio.fail_after(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise HTTPException(
                        413, f"the body has more than {max_bytes:,} bytes: send less"
                    )
    except TimeoutError:
        raise HTTPException(408, f"the body did not come in {_BODY_SECONDS} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ends too soon") from None
    return body


def _asked(body: bytes, verb: Verb, limits: Limits) -> tuple[list[str], dict[str, Any]]:
    """The texts and options of a body, checked."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON: send an object with texts") from None
    if not isinstance(asked, dict):
        raise HTTPException(400, "the body must be an object with texts")
    for field in asked:
        if field not in ("texts", verb.option):
            raise HTTPException(400, f"{field!r} is unknown: use texts and {verb.option}")
    texts = asked.pop("texts", None)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise HTTPException(400, "texts must be a list of strings")
    if len(texts) > limits.max_texts:
        raise HTTPException(413, f"{len(texts):,} texts: send at most {limits.max_texts:,}")
    accepts, wanted = verb.accepts
    if verb.option in asked and not accepts(asked[verb.option]):
        raise HTTPException(400, f"{verb.option}={asked[verb.option]!r} must be {wanted}")
    return texts, asked


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one.

    Raises:
      UserError: if the address cannot be had.
    """
    if not 0 <= port < 65_536:
        raise UserError(f"--port={port} must lie in [0, 65535]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise UserError(
            f"--host={host} --port={port} cannot be listened at ({reason}): choose another"
        ) from None


def serve(directory: Path | str, bound: socket.socket, *, batch_size: int, limits: Limits) -> None:
    """Answers until it is interrupted.

    Args:
      directory: the model's.
      bound: from `listen`.
      batch_size: texts at a time, at most.
      limits: of requests.

    Raises:
      UserError: if there is no model.
    """
    for name, value in limits._asdict().items():
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')}={value} must be positive")
    model = TextModel(directory, batch_size=batch_size)
    with contextlib.suppress(UserError):  # of a generator alone
        list(model.detect(["The first request need not wait for this."]))
    app = make_app(model, name=str(directory), limits=limits)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_ENDING_SECONDS)
    host, port = bound.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:  # uvicorn, having answered what was asked, hands it on
        print("ended")
