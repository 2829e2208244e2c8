"""Under load: the same bits, refusals that mean something, an orderly end, no text in the log."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from conftest import some_texts

import ufbert

pytest_plugins = "serving"


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("name", ["tiny", "trees"])
def test_the_same_bits_as_alone_under_load(running, folders, name, dtype):
    encoder = ufbert.SentenceEncoder(folders[name], dtype=dtype)
    texts = some_texts(60)
    alone = [encoder.encode(text, normalize_embeddings=True) for text in texts]

    def ask(seed):
        rng = np.random.default_rng(seed)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for _ in range(15):
                chosen = rng.integers(0, len(texts), rng.integers(1, 9)).tolist()
                found = client.post("/embed", json={"inputs": [texts[index] for index in chosen]}).json()
                for row, index in zip(found, chosen, strict=True):
                    np.testing.assert_array_equal(np.array(row, np.float32), alone[index])

    with (
        running([name], dtype=dtype, max_batch_tokens=64, workers=2, log_requests=False) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(ask, range(8)))
    assert server.service.metrics.batch_size._sum > server.service.metrics.batch_size._counts[0]  # some were shared


def test_limits_name_their_flags(running):
    limits = {"max_client_batch_size": 3, "payload_limit": 500, "max_text_chars": 50}
    with running(["tiny"], **limits) as server, httpx.Client(base_url=server.url) as client:
        many = client.post("/embed", json={"inputs": ["a"] * 4})
        assert many.status_code == 413 and "batch size 4 > maximum allowed batch size 3" in many.json()["error"]
        assert "--max-client-batch-size" in many.json()["error"]
        large = client.post("/embed", json={"inputs": "a" * 600})
        assert large.status_code == 413 and "--payload-limit" in large.json()["error"]
        chunked = client.post(
            "/embed", content=(b"a" * 100 for _ in range(9)), headers={"content-type": "application/json"}
        )
        assert chunked.status_code == 413 and "--payload-limit" in chunked.json()["error"]
        huge = client.post("/embed", json={"inputs": "a" * 3_000})  # its sender reads the answer, and no reset
        assert huge.status_code == 413
        long = client.post("/v1/embeddings", json={"input": "a" * 60})
        assert long.status_code == 413 and "--max-text-chars" in long.json()["error"]["message"]
        assert client.post("/embed", json={"inputs": ["a"] * 3}).status_code == 200


def test_the_sender_of_a_large_body_reads_the_refusal(running):
    with running(["tiny"], payload_limit=4_000_000, log_requests=False) as server:
        for content in (b"a" * 20_000_000, (b"a" * 100_000 for _ in range(200))):
            refused = httpx.post(server.url + "/embed", content=content, headers={"content-type": "application/json"})
            assert refused.status_code == 413 and "--payload-limit" in refused.json()["error"]


def wait_until(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def slow_down(server, seconds):
    """Let each batch take some time."""
    run = server.service.queue._observe
    server.service.queue._observe = lambda *figures: (time.sleep(seconds), run(*figures))


def test_overload_is_refused_and_passes(running):
    limits = {"max_queue_tokens": 40, "max_batch_tokens": 8, "log_requests": False}
    with running(["tiny"], **limits) as server:
        slow_down(server, 0.02)

        def ask(_):
            return httpx.post(server.url + "/embed", json={"inputs": ["a b", "the cat"]}, timeout=30)

        with ThreadPoolExecutor(24) as pool:
            responses = list(pool.map(ask, range(48)))
        refused = [response for response in responses if response.status_code != 200]
        assert refused and {response.status_code for response in refused} == {429}
        assert {response.json()["error_type"] for response in refused} == {"Overloaded"}
        assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
        assert ask(0).status_code == 200  # it is empty again
        assert server.service.queue.tokens == server.service.queue.texts == 0
        metrics = httpx.get(server.url + "/metrics").text
        assert f'te_request_failure{{err="overloaded"}} {len(refused)}' in metrics


def test_too_many_requests_at_once_are_refused(running):
    with running(["tiny"], max_concurrent_requests=2, log_requests=False) as server:
        slow_down(server, 0.1)
        with ThreadPoolExecutor(12) as pool:
            statuses = list(
                pool.map(lambda _: httpx.post(server.url + "/embed", json={"inputs": "a"}).status_code, range(12))
            )
        assert set(statuses) == {200, 429}


def test_a_client_that_goes_away_takes_its_texts_with_it(running):
    with running(["tiny"], max_batch_tokens=8, log_requests=False) as server:
        slow_down(server, 0.05)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + "/embed", json={"inputs": ["the cat"] * 200}, timeout=0.3)
        until = time.monotonic() + 20
        while server.service.queue.texts and time.monotonic() < until:
            time.sleep(0.01)
        assert server.service.queue.texts == server.service.queue.tokens == 0
        assert server.service.metrics.batch_size._sum < 100
        assert httpx.post(server.url + "/embed", json={"inputs": "a"}).status_code == 200


def test_keys(running):
    with running(["tiny"], api_keys=("first", "second")) as server:
        url = server.url
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "first"}, {"x-api-key": "firs"}):
            assert httpx.post(url + "/embed", json={"inputs": "a"}, headers=headers).status_code == 401
            assert httpx.get(url + "/info", headers=headers).status_code == 401
            refused = httpx.post(url + "/v1/embeddings", json={"input": "a"}, headers=headers)
            assert refused.json()["error"]["code"] == "invalid_api_key"
        for headers in ({"authorization": "Bearer first"}, {"x-api-key": "second"}):
            assert httpx.post(url + "/embed", json={"inputs": "a"}, headers=headers).status_code == 200
        for path in ("/health", "/live", "/metrics", "/", "/api-doc/openapi.json"):
            assert httpx.get(url + path).status_code == 200


def test_a_fault_inside_leaves_no_traceback(running, monkeypatch, capfdbinary):
    with running(["tiny"]) as server:
        model = server.service.models["tiny"]

        def fail(*_):
            raise RuntimeError("a secret text")

        monkeypatch.setattr(type(model.sentence), "embed", fail)
        response = httpx.post(server.url + "/embed", json={"inputs": "another secret text"})
        assert response.status_code == 500 and "Traceback" not in response.text and "secret" not in response.text
    lines = capfdbinary.readouterr().err.decode()
    assert "secret" not in lines and "Traceback" not in lines
    (failed,) = [json.loads(line) for line in lines.splitlines() if '"status":500' in line]
    assert re.match(r"RuntimeError at .*test_load.py:\d+", failed["error"])
    assert failed["id"] == response.headers["x-request-id"]


def test_one_json_line_a_request(running, capfdbinary):
    with running(["tiny"]) as server:
        httpx.post(server.url + "/embed", json={"inputs": "the cat"}, headers={"x-request-id": "my-id"})
        httpx.post(server.url + "/embed", json={"inputs": "the cat"}, headers={"x-request-id": "two words"})
    lines = [json.loads(line) for line in capfdbinary.readouterr().err.splitlines()]
    first, second = [line for line in lines if line.get("path") == "/embed"]
    assert first["id"] == "my-id" and re.fullmatch("[0-9a-f]{32}", second["id"])
    assert (first["status"], first["model"], first["texts"], first["tokens"]) == (200, "tiny", 1, 4)
    assert {"queue_ms", "compute_ms", "tokenization_ms", "total_ms"} <= set(first)


@pytest.mark.parametrize(
    ("method", "path", "status", "counted"),
    [("GET", "/health", 200, "/health"), ("GET", "/info?model=tiny", 200, "/info"), ("GET", "/", 200, "/"),
     ("GET", "/v1/models/none", 404, "/v1/models"), ("GET", "/embed", 405, "/embed"), ("PUT", "/no", 404, "other"),
     ("HEAD", "/", 200, "/"), ("POST", "/models/none", 400, "/models")],
)  # fmt: skip
def test_every_answer_has_an_id_a_line_and_a_count(running, capfdbinary, method, path, status, counted):
    with running(["tiny"]) as server:
        headers = {"x-request-id": "my-id", "content-type": "application/json"}
        answer = httpx.request(method, server.url + path, headers=headers)
        assert answer.status_code == status and answer.headers.get_list("x-request-id") == ["my-id"]
        assert f'ufbert_responses{{path="{counted}",status="{status}"}} 1' in httpx.get(server.url + "/metrics").text
    lines = [json.loads(line) for line in capfdbinary.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line.get("id") == "my-id"]
    assert (line["method"], line["path"], line["status"]) == (method, path.partition("?")[0], status)


def test_a_client_that_does_not_take_its_answer_is_let_go(running):
    with running(["tiny"], read_timeout=0.5, log_requests=False) as server:
        body = json.dumps({"inputs": ["the cat sat on a b c d e f g h i j k l m n"] * 2_048}).encode()
        head = b"POST /embed_all HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
            client.sendall(head % len(body) + body)
            wait_until(lambda: server.service.held > 4_000_000)  # body and answer
            wait_until(lambda: server.service.held == server.service.calls == 0)
        assert httpx.post(server.url + "/embed", json={"inputs": "a"}).status_code == 200


def test_hidden_states_have_a_limit(running):
    with running(["tiny"], payload_limit=1_000, log_requests=False) as server:
        body = {"inputs": ["the cat"] * 40}  # 4 tokens of 12 float32 each
        assert httpx.post(server.url + "/embed_all", json=body).status_code == 200
        refused = httpx.post(server.url + "/embed_all", json={"inputs": ["the cat"] * 42})
        assert refused.status_code == 413 and "at most 8000 bytes together, got 8064" in refused.json()["error"]


def test_answers_of_tokens_and_of_ids_have_a_limit(running):
    with running(["tiny"], payload_limit=1_600, max_client_batch_size=3, log_requests=False) as server:
        assert httpx.post(server.url + "/tokenize", json={"inputs": "a " * 100}).status_code == 200
        refused = httpx.post(server.url + "/tokenize", json={"inputs": "a " * 101})
        assert refused.status_code == 413 and "at most 100 tokens together, got 101" in refused.json()["error"]
        assert httpx.post(server.url + "/decode", json={"ids": [[1]] * 3}).status_code == 200
        assert httpx.post(server.url + "/decode", json={"ids": [[1]] * 4}).status_code == 413


def test_a_text_that_is_paired_with_many_counts_each_time(running):
    with running(["relevance"], payload_limit=10_000, log_requests=False) as server:
        body = {"query": "a " * 999, "texts": ["a"] * 10}
        assert httpx.post(server.url + "/rerank", json=body).status_code == 200
        refused = httpx.post(server.url + "/rerank", json=body | {"texts": ["a"] * 11})
        assert refused.status_code == 413 and "20000 characters in all pairs" in refused.json()["error"]


class Process:
    """``ufbert serve`` in a process of its own."""

    def __init__(self, *arguments, **environment):
        command = [sys.executable, "-m", "ufbert", "serve", "--port", "0", *map(str, arguments)]
        environment = os.environ | environment
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines = []
        ready = json.loads(self.process.stderr.readline())
        assert ready["event"] == "ready", ready
        self.url = f"http://127.0.0.1:{ready['port']}"
        threading.Thread(target=self.lines.extend, args=(self.process.stderr,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def test_sigterm_under_load_answers_what_was_admitted(folders):
    with Process("--model", f"tiny={folders['tiny']}", "--max-batch-tokens", 8) as service:
        statuses, lost = [], []

        def ask(seed):
            with httpx.Client(base_url=service.url, timeout=30) as client:
                try:
                    while True:
                        statuses.append(client.post("/embed", json={"inputs": ["the cat", "a b"] * 20}).status_code)
                except httpx.ConnectError:
                    return  # no new connection
                except httpx.TransportError as error:
                    lost.append(error)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        while len(statuses) < 50:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
        for thread in threads:
            thread.join(30)
        assert set(statuses) <= {200, 503}
        answered = [json.loads(line) for line in service.lines if '"path":"/embed"' in line]
        assert all(line["status"] in (200, 503) for line in answered)
        assert statuses.count(200) == sum(line["status"] == 200 for line in answered)


def test_a_second_signal_ends_at_once(folders):
    options = ["--model", f"answers={folders['answers']}", "--max-batch-tokens", 1, "--shutdown-timeout", 300]
    with Process(*options) as service:
        context = "John lives in New York. " * 7_000
        body = {"inputs": {"question": "Where?", "context": context}, "parameters": {"max_seq_len": 40}}
        thread = threading.Thread(target=lambda: httpx.post(service.url, json=body, timeout=300).status_code)
        thread.start()
        while httpx.get(service.url + "/metrics").text.count("ufbert_queue_tokens 0"):
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0


def test_it_starts_again_where_it_was_killed(folders, tmp_path):
    port, home = 0, tmp_path / "home"
    home.mkdir()
    wanted = ufbert.SentenceEncoder(folders["tiny"]).encode("the cat", normalize_embeddings=True)
    for _ in range(3):
        options = ["--model", f"tiny={folders['tiny']}", "--max-batch-tokens", 8, "--port", port]
        with Process(*options, HOME=str(home), TMPDIR=str(home)) as service:
            port = service.url.rpartition(":")[2]
            (row,) = httpx.post(service.url + "/embed", json={"inputs": "the cat"}).json()
            np.testing.assert_array_equal(np.array(row, np.float32), wanted)

            def ask(url=service.url):
                with httpx.Client(base_url=url, timeout=30) as client, contextlib.suppress(httpx.TransportError):
                    while True:
                        client.post("/embed", json={"inputs": ["the cat", "a b"] * 20})

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            while not httpx.get(service.url + "/metrics").text.count('te_request_success{method="batch"}'):
                time.sleep(0.01)
            service.process.kill()
            for thread in threads:
                thread.join(30)
            assert service.process.wait(30) == -signal.SIGKILL
    assert list(home.iterdir()) == []


def test_options_come_from_the_environment_too(folders):
    environment = {
        "UFBERT_MODEL": f"one={folders['tiny']},two={folders['trees']}",
        "UFBERT_API_KEY": "secret",
        "UFBERT_MAX_CLIENT_BATCH_SIZE": "2",
        "UFBERT_QUIET": "1",
        "UFBERT_PORT": "tcp://10.0.0.1:80",  # as Kubernetes sets it for a service called ufbert
    }
    with Process(**environment) as service, httpx.Client(base_url=service.url) as client:
        assert client.get("/info").status_code == 401
        client.headers["x-api-key"] = "secret"
        info = client.get("/info").json()
        assert info["models"] == {"one": "embedding", "two": "embedding"} and info["max_client_batch_size"] == 2
        assert [json.loads(line)["status"] for line in service.lines] == [401]


@pytest.mark.parametrize(
    ("arguments", "environment", "part"),
    [
        (["--model", "a={tiny}", "--model", "a={trees}"], {}, "names that differ"),
        (["--model", "nothing"], {}, "model folder"),
        (["--host", "203.0.113.1", "--model", "{tiny}"], {}, "expected an address that is free"),
        (["--model", "{tiny}"], {"UFBERT_DTYPE": "int4"}, "UFBERT_DTYPE: expected one of float32"),
        (["--model", "{tiny}"], {"UFBERT_API_KEY": "key,"}, "UFBERT_API_KEY: expected something between commas"),
        (["--model", "{tiny}", "--api-key", ""], {}, "expected keys of at least one character"),
        (["--model", "{tiny}"], {"UFBERT_QUIET": "perhaps"}, "UFBERT_QUIET: expected one of 1"),
    ],
)
def test_wrong_options_are_named(folders, arguments, environment, part):
    command = [argument.format(**folders) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "ufbert", "serve", "--port", "0", *command],
        capture_output=True, text=True, env=os.environ | environment, timeout=60,
    )  # fmt: skip
    assert done.returncode in (1, 2) and part in done.stderr and "Traceback" not in done.stderr
