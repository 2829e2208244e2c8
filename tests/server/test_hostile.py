"""Bytes that no client sends: long and slow heads and bodies, rubbish, paths that look for files."""

import socket
import time

import httpx
import pytest

pytest_plugins = "serving"
HEAD = b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def quick(running):
    """A service that does not wait long."""
    with running(["tiny"], read_timeout=0.5, log_requests=False) as server:
        yield server


def exchange(server, *parts, pause=0.0):
    """Send bytes, then read until the service closes the connection or answers."""
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            return connection.recv(65_536)
        except (ConnectionResetError, BrokenPipeError):
            return b""


def is_well(server):
    return httpx.post(server.url + "/embed", json={"inputs": "a"}).status_code == 200


@pytest.mark.parametrize(
    "bytes_",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\n\r\nrubbish\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n",
     HEAD + b"content-length: -1\r\n\r\n", HEAD + b"content-length: x\r\n\r\n",
     HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\n{}  "],
)  # fmt: skip
def test_rubbish_is_refused(quick, bytes_):
    answer = exchange(quick, bytes_)
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert is_well(quick)


def test_a_long_head_is_refused(quick):
    answer = exchange(quick, b"GET / HTTP/1.1\r\nhost: a\r\n", *[b"x: " + b"a" * 10_000 + b"\r\n"] * 30)
    assert not answer or answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    assert is_well(quick)


def test_a_slow_head_is_not_waited_for(quick):
    started = time.monotonic()
    assert exchange(quick, b"POST /embed HTTP/1.1\r\nhost:") == b""
    assert time.monotonic() - started < 15
    assert exchange(quick) == b""  # nothing was sent at all
    assert is_well(quick)


def test_a_slow_body_is_not_waited_for(quick):
    answer = exchange(quick, HEAD + b"content-length: 100\r\n\r\n", b'{"inputs"')
    assert answer.startswith(b"HTTP/1.1 408")
    assert is_well(quick)


def test_a_body_that_is_said_to_be_large_is_not_read(quick):
    answer = exchange(quick, HEAD + b"content-length: 99999999999999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413") or answer.startswith(b"HTTP/1.1 400")
    assert is_well(quick)


def test_requests_in_one_write_are_answered_in_order(quick):
    bodies = [b'{"inputs":"a"}', b'{"inputs":""}', b'{"inputs":"b"}']
    requests = b"".join(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body for body in bodies)
    port = int(quick.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(requests)
        received = b""
        while received.count(b"HTTP/1.1 ") < 3:
            received += connection.recv(65_536)
    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400", b"200"]


@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["whole", "body-later"])
def test_who_asks_for_http_2_is_answered_in_http_1(quick, pause):
    """As Java's client does with each first request."""
    wanted = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n"
    answer = exchange(quick, HEAD + wanted + b"content-length: 14\r\n\r\n", b'{"inputs":"a"}', pause=pause)
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "path", ["/models/..%2f..%2fetc%2fpasswd", "/page/../../run.py", "/%2e%2e/%2e%2e/etc/passwd", "/page.css/../run.py"]
)
def test_no_path_reaches_a_file(quick, path):
    answer = exchange(quick, b"GET " + path.encode() + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405"))
    posted = exchange(quick, HEAD.replace(b"/embed", path.encode()) + b'content-length: 14\r\n\r\n{"inputs":"a"}')
    assert posted.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405"))


def test_another_origin_is_refused_unless_named(running, quick):
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(quick.url + "/embed", headers=asked).headers
    with running(["tiny"], cors_allow_origin=("https://page.example",)) as server:
        allowed = httpx.options(server.url + "/embed", headers=asked)
        assert allowed.headers["access-control-allow-origin"] == "https://page.example"
        other = httpx.options(server.url + "/embed", headers=asked | {"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
