"""Load on `ufbert serve`, on this machine's loopback: throughput beside `encode`, delays, hostile requests, memory.

    python bench/serve.py                      # all parts, each figure with its goal; ten minutes
    python bench/serve.py throughput delays    # some of them
    python bench/serve.py hostile --requests 20000

Needs the extra `server`, with httptools and uvloop for the figures that count. The load comes from this process, on the
same CPUs as the service. Every good answer is compared with that of `encode` on the text alone, byte for byte. Where
`wrk` is installed, it gives the throughput of small requests, because it takes less of the CPUs. `bound` is what they
allow then: the CPU time of `encode` a text, of that of service and client together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import numpy as np
import orjson

import ufbert

TEXTS = Path(__file__).parent.parent / "examples" / "sentences.txt"
CONNECTIONS = 32
WRK_SECONDS, WRK_TEXTS = 8, 8  # texts a request at most: wrk does not count what is under way at its end
WRK = """local bodies = {%s}
init = function() for i = 1, #bodies do
  bodies[i] = wrk.format("POST", "/embed", {["content-type"] = "application/json"}, bodies[i]) end end
request = function() return bodies[math.random(#bodies)] end
"""
Request = tuple[bytes, bytes | None]  # what is sent, and the body of the right answer


class Service:
    """`ufbert serve` in a process of its own."""

    def __init__(self, *arguments: object, dtype: str, quiet: bool = True) -> None:
        self.started = time.perf_counter()
        command = [sys.executable, "-m", "ufbert", "serve", "--dtype", dtype, *["--quiet"] * quiet, "--port", "0"]
        self.lines: list[bytes] = []
        self.process = subprocess.Popen([*command, *map(str, arguments)], stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        ready = json.loads(self.process.stderr.readline())
        self.port = ready["port"]
        threading.Thread(target=self.lines.extend, args=(self.process.stderr,), daemon=True).start()

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> tuple[int, float]:
        """End it with SIGTERM: exit code and seconds."""
        started = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), time.perf_counter() - started


@contextmanager
def service(*arguments: object, dtype: str, quiet: bool = True) -> Iterator[Service]:
    """Run a service for the time of a block."""
    running = Service(*arguments, dtype=dtype, quiet=quiet)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def post(path: str, body: bytes, kind: bytes = b"application/json") -> bytes:
    """The bytes of a request."""
    head = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (path.encode(), kind, len(body)) + body


class Connection:
    """A kept connection, which is opened again when the service closes it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request: status and body of the answer; status 0 where the connection was closed."""
        if self.writer is None or self.writer.is_closing() or self.reader is None or self.reader.at_eof():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        try:
            self.writer.write(request)
            head = await self.reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return 0, b""
        if b"connection: close" in head.lower():
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """Close it at once."""
        if self.writer is not None:
            self.writer.transport.abort()
            self.writer = None


class Load:
    """What connections saw: delays and statuses."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.statuses = Counter[int]()
        self.wrong = 0

    async def run(self, port: int, requests: Iterator[Request], connections: int = CONNECTIONS) -> float:
        """Send requests over some connections until there are no more; return the seconds."""
        started = time.perf_counter()
        await asyncio.gather(*(self._client(Connection(port), requests) for _ in range(connections)))
        return time.perf_counter() - started

    async def _client(self, connection: Connection, requests: Iterator[Request]) -> None:
        for request, expected in requests:
            started = time.perf_counter()
            status, body = await connection.ask(request)
            self.seconds.append(time.perf_counter() - started)
            self.statuses[status] += 1
            self.wrong += status == 200 and expected is not None and body != expected
        connection.close()

    def delays(self) -> dict[str, float]:
        """Quantiles in milliseconds."""
        found = np.quantile(self.seconds, [0.5, 0.99, 1]) * 1e3
        return dict(zip(("p50_ms", "p99_ms", "max_ms"), found.round(2).tolist(), strict=True))


def texts_and_answers(dtype: str) -> tuple[list[str], np.ndarray]:
    """Texts, and their embeddings, each computed alone."""
    encoder = ufbert.SentenceEncoder(dtype=dtype)
    texts = [line for line in TEXTS.read_text(encoding="utf-8").splitlines() if line.strip()]
    return texts, np.concatenate([encoder.encode([text], normalize_embeddings=True) for text in texts])


def encode_rate(dtype: str, texts: list[str]) -> tuple[float, float]:
    """Texts a second that `encode` embeds, when it has them all, and seconds of CPU time a text."""
    encoder, found = ufbert.SentenceEncoder(dtype=dtype), []
    many = (texts * (4_000 // len(texts) + 1))[:4_000]
    for _ in range(3):
        started, before = time.perf_counter(), time.process_time()
        encoder.encode(many, normalize_embeddings=True)
        found.append((len(many) / (time.perf_counter() - started), (time.process_time() - before) / len(many)))
    return max(found)


def bodies_of(texts: list[str], size: int, seed: int = 0) -> Iterator[tuple[list[int], bytes]]:
    """Numbers of `size` texts, and the body of a request for them, for ever."""
    rng = random.Random(seed)
    while True:
        chosen = [rng.randrange(len(texts)) for _ in range(size)]
        yield chosen, orjson.dumps({"inputs": [texts[index] for index in chosen]})


def requests_of(texts: list[str], alone: np.ndarray, size: int, seed: int = 0) -> Iterator[Request]:
    """Requests of `size` texts for ever, with what is right."""
    rng = random.Random(seed)
    prepared = [
        (post("/embed", body), orjson.dumps(alone[chosen], option=orjson.OPT_SERIALIZE_NUMPY))
        for chosen, body in islice(bodies_of(texts, size, seed), 200)
    ]
    while True:
        yield rng.choice(prepared)


async def throughput(dtype: str, _: int) -> dict[str, object]:
    """Texts a second at 32 connections beside `encode` in a process of its own, for requests of several sizes."""
    texts, alone = texts_and_answers(dtype)
    rate, cpu = encode_rate(dtype, texts)
    found: dict[str, object] = {"encode_texts_per_s": round(rate), "encode_cpu_us": round(1e6 * cpu)}
    with service(dtype=dtype) as running:
        await Load().run(running.port, islice(requests_of(texts, alone, 8), 200))
        for size in (1, 8, 32, 256):
            load, number = Load(), max(40, 12_000 // size)
            used = -running.cpu() - time.process_time()
            seconds = await load.run(running.port, islice(requests_of(texts, alone, size), number))
            used += running.cpu() + time.process_time()
            figures = {"texts_per_s": round(size * number / seconds), "bound": round(cpu * size * number / used, 3)}
            if size <= WRK_TEXTS and shutil.which("wrk"):
                figures = await asyncio.to_thread(wrk, running, texts, size, cpu)
            found[f"{size}_a_request"] = {
                **figures, "of_encode": round(figures["texts_per_s"] / rate, 3), "goal": "of_encode >= 0.9",
                "wrong": load.wrong, "statuses": dict(load.statuses), **load.delays(),
            }  # fmt: skip
    return found


def wrk(running: Service, texts: list[str], size: int, cpu: float) -> dict[str, float]:
    """Texts a second by wrk, and the CPU time of service and client a text; `cpu` is that of `encode`."""
    bodies = ",".join(json.dumps(body.decode()) for _, body in islice(bodies_of(texts, size), 200))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK % bodies)
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{WRK_SECONDS}", f"-s{script.name}"]
        before, own = running.cpu(), _children()
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{running.port}/embed"], capture_output=True, text=True, check=True
        )
    done_texts = size * int(done.stdout.split(" requests in")[0].split()[-1])
    assert not any(fault in done.stdout for fault in ("Non-2xx", "Socket errors")), done.stdout
    used, own = running.cpu() - before, _children() - own
    return {
        "texts_per_s": round(size * float(done.stdout.split("Requests/sec:")[1].split()[0])),
        "service_cpu_us": round(1e6 * used / done_texts), "wrk_cpu_us": round(1e6 * own / done_texts),
        "bound": round(cpu * done_texts / (used + own), 3),
    }  # fmt: skip


def _children() -> float:
    """Seconds of CPU time of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def delays(dtype: str, _: int) -> dict[str, object]:
    """Delays of short texts, four at a time, alone and while requests of 64 long texts run all the time."""
    texts, alone = texts_and_answers(dtype)
    long = post("/embed", orjson.dumps({"inputs": [" ".join(texts)[start : start + 2_000] for start in range(64)]}))
    found: dict[str, object] = {}
    with service(dtype=dtype) as running:
        for name, background in (("alone", 0), ("beside_long", 2)):
            over = asyncio.Event()
            others = [asyncio.create_task(_repeat(running.port, long, over)) for _ in range(background)]
            load = Load()
            await load.run(running.port, islice(requests_of(texts, alone, 1), 400), connections=4)
            over.set()
            done = sum([await other for other in others])
            found[name] = load.delays() | {"wrong": load.wrong, "long_requests": done}
            ratio = round(float(np.quantile(load.seconds, 0.99) / np.median(load.seconds)), 2)
    return found | {"p99_over_p50_beside_long": ratio, "goal": "p99 under 3 times the median, beside long"}


async def _repeat(port: int, request: bytes, over: asyncio.Event) -> int:
    connection = Connection(port)
    for number in count():
        if over.is_set():
            connection.close()
            return number
        await connection.ask(request)
    return 0


def hostile_requests() -> list[tuple[bytes, set[int]]]:
    """Requests that nobody should send, with the statuses that may answer them; 0: the connection is closed."""
    deep = b'{"inputs":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    return [
        (post("/embed", b"{"), {400}),
        (post("/embed", b'{"inputs": "\\ud800"}'), {400}),
        (post("/embed", deep), {400}),
        (post("/embed", b'{"inputs": [' + b"[]," * 30_000 + b"[]]}"), {422}),
        (post("/embed", b'{"inputs": [[101, 2023]]}'), {400}),
        (post("/embed", b'{"inputs": ""}'), {400}),
        (post("/embed", b'{"inputs": "a", "model": "../../etc/passwd"}'), {404}),
        (post("/models/..%2F..%2Fetc%2Fpasswd", b'{"inputs": "a"}'), {404}),
        (post("/embed", orjson.dumps({"inputs": "a" * 300_000})), {413}),
        (post("/embed", orjson.dumps({"inputs": ["a"] * 3_000})), {413}),
        (post("/embed", orjson.dumps({"inputs": "x" * 150_000})), {200}),
        (post("/embed", orjson.dumps({"inputs": "\u0301\u200b\ufeff\x00 " * 500})), {200}),
        (post("/embed", b'{"inputs": "a"}', b"text/plain"), {415}),
        (post("/nothing", b"{}"), {404}),
        (b"GET /embed HTTP/1.1\r\nhost: a\r\n\r\n", {405}),
        (post("/embed", b"").replace(b"length: 0", b"length: 9999999999"), {413}),
        (b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", {400}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {0, 400}),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 200_000 + b"\r\n\r\n", {0, 200, 400, 431}),
        (post("/v1/embeddings", b'{"input": "a", "dimensions": 1e99}'), {400}),
        (post("/decode", b'{"ids": [99999999999999999999]}'), {422}),
    ]  # fmt: skip


async def hostile(dtype: str, requests: int) -> dict[str, object]:
    """Many requests, one in twenty hostile, one in a hundred whose client goes away; memory after the first 5,000."""
    texts, alone = texts_and_answers(dtype)
    bad, rng, surprises = hostile_requests(), random.Random(1), Counter[str]()
    with service(dtype=dtype) as running:
        load, numbers = Load(), iter(range(requests))
        memory: list[float] = []

        async def client(seed: int) -> None:
            connection, good = Connection(running.port), requests_of(texts, alone, 1 + seed % 4, seed)
            for number in numbers:
                if number % max(1, requests // 40) == 0 or number == 5_000:
                    memory.append(running.memory())
                if number % 100 == 0:
                    await _leave(running.port, next(good)[0])
                elif number % 20 == 0:
                    request, allowed = rng.choice(bad)
                    status, _ = await connection.ask(request)
                    surprises[f"{status} to {request[:40]!r}"] += status not in allowed
                else:
                    request, expected = next(good)
                    status, body = await connection.ask(request)
                    load.statuses[status] += 1
                    load.wrong += body != expected
            connection.close()

        started = time.perf_counter()
        await asyncio.gather(*(client(seed) for seed in range(CONNECTIONS)))
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.5)
        after = running.memory()
        code, _ = running.stop()
    settled = memory[min(len(memory) - 1, max(1, 40 * 5_000 // requests + 1))]
    return {
        "requests": requests, "seconds": round(seconds, 1), "good": dict(load.statuses), "wrong": load.wrong,
        "surprises": dict(+surprises), "memory_mb": [round(value) for value in memory],
        "growth_after_5000_mb": round(after - settled, 1), "exit": code,
        "goal": "growth under 10 MB, wrong 0, no surprises (a 5xx is one), good all 200",
    }  # fmt: skip


async def _leave(port: int, request: bytes) -> None:
    """Send a request and go away."""
    connection = Connection(port)
    connection.reader, connection.writer = await asyncio.open_connection("127.0.0.1", port)
    connection.writer.write(request)
    await asyncio.sleep(random.random() / 100)
    connection.close()


async def overload(dtype: str, _: int) -> dict[str, object]:
    """A full queue: how many are refused, and how soon the service answers again."""
    texts, alone = texts_and_answers(dtype)
    with service("--max-queue-tokens", 4_096, dtype=dtype) as running:
        load = Load()
        await load.run(running.port, islice(requests_of(texts, alone, 32), 500), connections=64)
        started = time.perf_counter()
        request, expected = next(requests_of(texts, alone, 4))
        connection = Connection(running.port)
        while (answer := await connection.ask(request))[0] != 200:
            await asyncio.sleep(0.01)
        recovered = time.perf_counter() - started
    return {
        "statuses": dict(load.statuses), "wrong": load.wrong + (answer[1] != expected),
        "recovered_s": round(recovered, 3), "goal": "statuses 200 and 429, recovered within 1 s",
    }  # fmt: skip


async def ends(dtype: str, _: int) -> dict[str, object]:
    """SIGTERM under load: every request that was read is answered, and the process exits with 0."""
    texts, alone = texts_and_answers(dtype)
    with service(dtype=dtype, quiet=False) as running:
        load = Load()
        task = asyncio.create_task(load.run(running.port, _until_gone(running, requests_of(texts, alone, 32))))
        await asyncio.sleep(1)
        code, seconds = await asyncio.to_thread(running.stop)
        await asyncio.gather(task, return_exceptions=True)
    admitted = Counter(json.loads(line)["status"] for line in running.lines if b'"path"' in line)
    return {
        "exit": code, "seconds": round(seconds, 2), "seen": dict(load.statuses), "logged": dict(admitted),
        "wrong": load.wrong, "lost": admitted[200] - load.statuses[200],
        "goal": "exit 0, lost 0: each request that the service took was answered",
    }  # fmt: skip


async def killed(dtype: str, _: int) -> dict[str, object]:
    """``kill -9`` under load, and a start on the same port: seconds until the first answer, and whether it is right."""
    texts, alone = texts_and_answers(dtype)
    with service(dtype=dtype) as running:
        task = asyncio.create_task(Load().run(running.port, _until_gone(running, requests_of(texts, alone, 32))))
        await asyncio.sleep(1)
        running.process.kill()
        running.process.wait()
        await asyncio.gather(task, return_exceptions=True)
    with service("--port", running.port, dtype=dtype) as again:
        request, expected = next(requests_of(texts, alone, 4))
        status, body = await Connection(again.port).ask(request)
        seconds = time.perf_counter() - again.started
    right = body == expected and again.port == running.port
    return {"status": status, "right": right, "seconds": round(seconds, 3), "goal": "status 200, right"}


def _until_gone(running: Service, requests: Iterator[Request]) -> Iterator[Request]:
    while running.process.poll() is None:
        yield next(requests)


async def start(dtype: str, _: int) -> dict[str, object]:
    """Seconds from the start of the process to the first answer, of five starts."""
    seconds = []
    body = orjson.dumps({"inputs": "a first text"})
    for _ in range(5):
        with service(dtype=dtype) as running:
            status, _ = await Connection(running.port).ask(post("/embed", body))
            assert status == 200
            seconds.append(round(time.perf_counter() - running.started, 3))
    return {"first_answer_s": seconds, "goal": "at most 0.5 in int8"}


PARTS: dict[str, Callable[[str, int], Awaitable[dict[str, object]]]] = {
    "start": start,
    "throughput": throughput,
    "delays": delays,
    "overload": overload,
    "ends": ends,
    "killed": killed,
    "hostile": hostile,
}


def main() -> None:
    """Run the parts that are asked for, and print a JSON line of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--requests", type=int, default=200_000, help="of the part hostile (default: 200,000)")
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        found = asyncio.run(PARTS[name](arguments.dtype, arguments.requests))
        print(json.dumps({"part": name, "dtype": arguments.dtype, "cpus": os.cpu_count(), **found}), flush=True)


if __name__ == "__main__":
    main()
