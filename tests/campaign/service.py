"""Hostile requests: mutated bodies, headers and paths of every route give JSON and never a 5xx."""

import asyncio
import json
import sys
from pathlib import Path

from folders import scratch
from mutate import dump, generator, mutate_bytes, mutate_json
from watch import Fault

from ufbert.server import endpoint
from ufbert.server.app import HANDLERS, build_app
from ufbert.server.models import load_models
from ufbert.server.service import CALLS, Service
from ufbert.server.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
MESSAGE = {"inputs": "the cat", "model": "tiny"}
BODIES = {
    "/v1/embeddings": [
        {"model": "tiny", "input": ["the cat", "a"], "encoding_format": "base64", "dimensions": 4, "user": "u"}
    ],
    "/embeddings": [{"input": "the cat", "encoding_format": "float"}],
    "/embed": [
        {"inputs": ["the cat", "a"], "normalize": True, "truncate": True, "prompt_name": "query", "dimensions": 3}
    ],
    "/embed_all": [{"inputs": "the cat", "truncate": False}],
    "/predict": [{"inputs": [["the cat", "a"], ["a"]], "raw_scores": True, "model": "classes"}],
    "/rerank": [{"query": "the", "texts": ["a", "cat"], "return_text": True, "model": "relevance"}],
    "/v1/rerank": [{"query": "the", "documents": ["a", {"text": "cat"}], "top_n": 1, "return_documents": True}],
    "/v2/rerank": [{"query": "the", "documents": ["a", "cat"], "top_n": 1, "max_tokens_per_doc": 8}],
    "/v2/embed": [{"texts": ["a"], "input_type": "search_query", "embedding_types": ["float", "int8", "binary"]}],
    "/api/embed": [{"input": ["a"], "truncate": True, "options": {}, "keep_alive": "5m"}],
    "/similarity": [{"inputs": {"source_sentence": "a", "sentences": ["the", "cat"]}}],
    "/tokenize": [{"inputs": ["the cat"], "add_special_tokens": True}],
    "/decode": [{"ids": [[2, 5, 6, 3]], "skip_special_tokens": True}],
    "/routes": [{"inputs": "the cat", "model": "trees"}],
    "/": [
        MESSAGE,
        {"inputs": {"question": "who", "context": "the cat"}, "model": "answers", "parameters": {"top_k": 2}},
        {"inputs": "the [MASK] cat", "model": "fill", "parameters": {"top_k": 2, "targets": ["a"]}},
        {"inputs": "the cat", "model": "entities", "parameters": {"aggregation_strategy": "first", "stride": 2}},
        {"inputs": ["a", "b"], "model": "classes", "parameters": {"top_k": 1, "function_to_apply": "none"}},
    ],
}


class Requests:
    """Cases on the service, called as an ASGI application."""

    def __init__(self):
        from serving import write_models

        endpoint.log = lambda **_: None  # the log is not noise
        folders = write_models(scratch())
        self.service = Service(
            Settings(log_requests=False), load_models([f"{n}={p}" for n, p in folders.items()], "float32")
        )
        self.service.start()
        self.app, self.loop = build_app(self.service), asyncio.new_event_loop()
        self.paths = sorted(HANDLERS)

    def __call__(self, seed, number, acts):
        rng = generator(seed, number)
        path = rng.choice(self.paths)
        samples = BODIES.get(path, BODIES["/"])
        body = dump(mutate_json(rng.choice(samples), rng))
        if rng.random() < 0.1:
            body = mutate_bytes(body, rng)
        path = path.replace("{name}", rng.choice(["tiny", "fill", "classes", "none", "..%2f", "\u0130"]))
        kind = rng.choice(
            [b"application/json"] * 20 + [b"text/plain", b"", b"application/json; charset=utf-16", b"\xff"]
        )
        headers = [(b"content-type", kind)]
        if rng.random() < 0.1:
            headers.append(
                (rng.choice([b"x-request-id", b"authorization", b"content-length"]), mutate_bytes(b"7a", rng))
            )
        acts.on = True
        status, answer = self.loop.run_until_complete(self.ask(path, body, headers))
        acts.on = False
        if status >= 500:
            raise Fault(f"{path}: {status}: {body[:200]!r}: {answer[:200]!r}")
        try:
            json.loads(answer)
        except ValueError:
            raise Fault(f"{path}: {status}: not JSON: {answer[:200]!r}") from None

    async def ask(self, path, body, headers):
        """One request; its status and its body."""
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "state": {CALLS: set()},
        }  # fmt: skip
        sent, answers = [{"type": "http.request", "body": body, "more_body": False}], []

        async def receive():
            if sent:
                return sent.pop()
            await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

        async def send(message):
            answers.append(message)

        await self.app(scope, receive, send)
        return answers[0]["status"], b"".join(message.get("body", b"") for message in answers[1:])
