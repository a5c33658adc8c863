"""The HTTP service: what it answers, what it refuses, its page in a browser."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient
from test_inference import model as model  # noqa: PLC0414 (fixtures)
from test_inference import run_directory as run_directory  # noqa: PLC0414
from test_inference import tokenizer as tokenizer  # noqa: PLC0414

from electra_jax import cli, service
from electra_jax.errors import UserError

LIMITS = service.Limits(max_bytes=20_000, max_texts=3, max_waiting=8)
JSON = {"content-type": "application/json"}
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def client(model):
    with TestClient(service.make_app(model, name="a <model>", limits=LIMITS)) as client:
        yield client


def test_answers_are_those_of_the_model(client, model):
    texts = ["the quick fox", "", "the lazy dog"]
    found = client.post("/detect", json={"texts": texts}).json()["results"]
    for answer, expected in zip(found, model.detect(texts), strict=True):
        assert answer == {**expected.to_json(), "offsets": expected.offsets.tolist()}
    masked = ["the [MASK] fox"]
    answer = client.post("/fill-mask", json={"texts": masked, "top_k": 2}).json()
    assert answer == {"results": list(model.fill_mask(masked, top_k=2))}
    for pooling in ("mean", "tokens"):
        answer = client.post("/embed", json={"texts": texts, "pooling": pooling}).json()
        expected = [vector.tolist() for vector in model.embed(texts, pooling=pooling)]
        assert answer == {"results": expected}
    assert client.post("/embed", json={"texts": []}).json() == {"results": []}


def test_long_texts_are_cut_with_a_note_or_scored_in_windows(client):
    texts = ["the fox " * 40]
    cut, whole = (
        client.post("/detect", json={"texts": texts, "windows": windows}).json()["results"][0]
        for windows in (False, True)
    )
    assert cut["note"] == "cut to 30 of 80 tokens" and len(cut["tokens"]) == 30
    assert "note" not in whole and len(whole["tokens"]) == 80


def test_it_says_what_it_serves(client):
    assert client.get("/health").json() == {
        "model": "a <model>", "max_tokens": 30,
        "max_bytes": 20_000, "max_texts": 3, "max_waiting": 8,
    }  # fmt: skip
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html") and "<textarea" in page.text
    assert "/* STYLE */" not in page.text and "http" not in page.text  # nothing from elsewhere


@pytest.mark.parametrize(
    ("path", "content", "status", "message"),
    [
        ("/detect", b"{", 400, "the body is no JSON"),
        ("/detect", b"\xff", 400, "the body is no JSON"),
        ("/detect", b"[" * 10_000, 400, "the body is no JSON"),
        ("/detect", b"[]", 400, "the body must be an object"),
        ("/detect", b"{}", 400, "texts must be a list of strings"),
        ("/detect", b'{"texts": "the fox"}', 400, "texts must be a list of strings"),
        ("/detect", b'{"texts": [1]}', 400, "texts must be a list of strings"),
        ("/detect", b'{"texts": [], "text": ""}', 400, "'text' is unknown: use texts and windows"),
        ("/detect", b'{"texts": [], "windows": 1}', 400, "windows=1 must be true or false"),
        ("/detect", b'{"texts": ["", "", "", ""]}', 413, "4 texts: send at most 3"),
        ("/detect", b" " * 20_001, 413, "more than 20,000 bytes"),
        ("/fill-mask", b'{"texts": ["the fox"]}', 400, "has no [MASK]"),
        ("/fill-mask", b'{"texts": [], "top_k": true}', 400, "top_k=True must be a whole number"),
        ("/fill-mask", b'{"texts": [], "top_k": 101}', 400, "from 1 to 100"),
        ("/embed", b'{"texts": [], "pooling": []}', 400, "one of mean, cls, tokens"),
        ("/none", b"{}", 404, "Not Found"),
        ("/", b"{}", 405, "Method Not Allowed"),
    ],
)
def test_mistakes_are_refused_in_one_line(client, path, content, status, message):
    answer = client.post(path, content=content, headers=JSON)
    assert answer.status_code == status
    assert message in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_answers_that_would_be_huge_are_refused(client, monkeypatch):
    monkeypatch.setattr(service, "_MOST_NUMBERS", 100)
    for path, body, numbers in (
        ("/fill-mask", {"texts": ["[MASK] [MASK]"], "top_k": 60}, 120),
        ("/embed", {"texts": ["the fox"] * 2, "pooling": "tokens"}, 128),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 413
        assert f"would hold {numbers} numbers" in answer.json()["error"]


def test_only_json_is_taken(client):
    """Other sites' pages may post forms and plain text without asking."""
    answer = client.post(
        "/detect", content=b'{"texts": []}', headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 415 and "send application/json" in answer.json()["error"]


@pytest.mark.parametrize("text", ["\ud800 fox", "\x00", "\u4f60\u597d", "fox \U0001f98a fox", " "])
def test_any_text_is_answered(client, text):
    answer = client.post("/detect", content=json.dumps({"texts": [text]}), headers=JSON)
    (found,) = answer.json()["results"]
    assert len(found["tokens"]) == len(found["offsets"]) == len(found["probabilities"])


def test_more_requests_than_may_wait_are_refused():
    class Slow:
        max_tokens, started, go_on = 30, threading.Semaphore(0), threading.Event()

        def embed(self, texts, pooling):
            self.started.release()
            assert self.go_on.wait(30)
            return [np.zeros(2)] * len(texts)

    model = Slow()
    app = service.make_app(model, name="slow", limits=LIMITS._replace(max_waiting=2))
    with TestClient(app) as client, ThreadPoolExecutor(5) as pool:
        ask = lambda: client.post("/embed", json={"texts": ["x"]})  # noqa: E731
        first = pool.submit(ask)
        assert model.started.acquire(timeout=30)
        others = [pool.submit(ask) for _ in range(4)]
        while sum(other.done() for other in others) < 2:
            time.sleep(0.01)
        refused = [other.result() for other in others if other.done()]
        model.go_on.set()
        statuses = sorted(answer.result().status_code for answer in (first, *others))
    assert statuses == [200, 200, 200, 503, 503]
    assert all("too many requests are waiting" in answer.json()["error"] for answer in refused)


@pytest.fixture(scope="module")
def address(run_directory):
    """Where `electra-jax serve` answers, in a process of its own."""
    command = [sys.executable, "-m", "electra_jax.cli", "serve", "--model", str(run_directory)]
    command += ["--port", "0", "--max-bytes", "3000"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    found = re.fullmatch(r"(http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", line)
    assert found, process.communicate()[1]
    yield found.group(1)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (0, "ended\n", "")


def test_the_program_answers_many_at_a_time(address):
    def ask(i):
        text = "the quick fox " * (i % 5)
        answer = httpx.post(f"{address}/detect", json={"texts": [text]}, timeout=60)
        return len(answer.json()["results"][0]["tokens"]) == 3 * (i % 5)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(40)))
    assert httpx.get(f"{address}/health").json()["max_bytes"] == 3000


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_person_sees_tokens_shaded(address):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(error))
        page.goto(address)
        expect(page.locator("#model")).to_contain_text("run")
        expect(page.locator("#shown")).to_have_text("The quick brown fox fake over the lazy dog")
        given = "The \U0001f98a quick <b>fox</b> & dog"
        page.fill("#text", given)
        expect(page.locator("#shown")).to_have_text(given)
        expect(page.locator("#note")).to_contain_text("tokens")
        answer = httpx.post(f"{address}/detect", json={"texts": [given]}).json()["results"][0]
        spans = page.locator("#shown span")
        shown = [
            float(spans.nth(i).get_attribute("data-probability")) for i in range(spans.count())
        ]
        assert shown == pytest.approx(answer["probabilities"], abs=1e-5)
        words = [spans.nth(i).text_content() for i in range(spans.count())]
        assert words == [given[start:end] for start, end in answer["offsets"]]
        alpha = re.compile(r"rgba\(214, 40, 40, ([0-9.]+)\)")
        shades = spans.evaluate_all("all => all.map(span => span.style.background)")
        assert [float(alpha.match(shade)[1]) for shade in shades] == pytest.approx(
            [0.85 * p for p in shown], abs=3e-3
        )
        page.fill("#text", "fox " * 1000)
        expect(page.locator("#note.error")).to_contain_text("more than 3,000 bytes")
        browser.close()
        assert not problems


def test_addresses_that_cannot_be_had_are_said_so(run_directory, capsys):
    with service.listen("127.0.0.1", 0) as bound:
        port = str(bound.getsockname()[1])
        for arguments, message in (
            (["--port", port], f"--port={port} cannot be listened at"),
            (["--port", "70000"], "--port=70000 must lie in [0, 65535]"),
            (["--host", "not an address"], "cannot be listened at"),
            (["--port", "0", "--max-texts", "0"], "--max-texts=0 must be positive"),
        ):
            assert cli.main(["serve", "--model", str(run_directory), *arguments]) == 2
            error = capsys.readouterr().err
            assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_no_model_is_said_before_anything_is_served(tmp_path):
    with service.listen("127.0.0.1", 0) as bound, pytest.raises(UserError, match="does not exist"):
        service.serve(tmp_path / "none", bound, batch_size=4, limits=LIMITS)
