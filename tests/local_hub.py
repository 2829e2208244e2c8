"""A small HTTP server that speaks the routes of the Hugging Face hub which loading a model needs."""

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from conftest import write_sentence_model
from huggingface_hub import constants

TOKEN = "hf_" + "a" * 34
NAME = "org/model"
ENCODER_FILES = ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "vocab.txt"]


@dataclass
class Repository:
    """Commits of a model; `faults` counts down the answers of a file that break off."""

    commits: dict[str, dict[str, bytes]]
    revisions: dict[str, str]
    private: bool = False
    gated: bool = False
    faults: dict[str, int] = field(default_factory=dict)


@dataclass
class Hub:
    """The server's address, its repositories by name, and the requests so far."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    down: bool = False

    def add(self, name, *folders, **options):
        """Publish folders as the commits of a repository; the last is the main branch, each has the tag v0, v1, ..."""
        commits, revisions = {}, {}
        for number, folder in enumerate(folders):
            files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
            sha = hashlib.sha1(f"{name}{number}".encode()).hexdigest()
            commits[sha] = files
            revisions |= {f"v{number}": sha, "main": sha, sha: sha, f"refs/pr/{number}": sha}
        self.repositories[name] = Repository(commits, revisions, **options)
        return self.repositories[name]

    def fetched(self):
        """Names of the files whose contents were sent since the last call."""
        names = [
            request.split("/", 5)[-1]
            for request in self.requests
            if request.startswith("GET ") and "/resolve/" in request
        ]
        self.requests.clear()
        return sorted(names)


def digests(content):
    """Git's name of a file, and its sha256."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return git, hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers for the `Hub` of its server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        repository = hub.repositories.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if hub.down:
            return self.send(503, b"{}", with_body)
        if "Authorization" in self.headers and not allowed:
            return self.send(401, b'{"error": "Invalid credentials"}', with_body)
        if repository is None or (repository.private and not allowed):
            # The hub does not tell strangers whether there is a private model.
            code = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return self.send(404 if allowed else 401, b'{"error": "Repository not found"}', with_body, code)
        if parts[0] == "api":
            return self.api(name, repository, parts[4], "/".join(parts[5:]), with_body)
        if parts[2] != "resolve":
            return self.send(404, b"{}", with_body)
        if repository.gated and not allowed:
            code = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to it is restricted"}
            return self.send(401, b'{"error": "restricted"}', with_body, code)
        return self.file(repository, parts[3], "/".join(parts[4:]), with_body)

    def api(self, name, repository, route, revision, with_body):
        sha = repository.revisions.get(revision)
        if sha is None:
            return self.send(404, b"{}", with_body, {"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[sha]
        if route == "revision":
            siblings = [{"rfilename": file} for file in files]
            body = {"id": name, "modelId": name, "sha": sha, "private": repository.private, "gated": False, "tags": []}
            return self.send(200, json.dumps(body | {"siblings": siblings}).encode(), with_body)
        rows = []
        for file, content in files.items():
            git, sha256 = digests(content)
            row = {"type": "file", "path": file, "size": len(content), "oid": git}
            lfs = {"oid": sha256, "size": len(content), "pointerSize": 134}
            rows.append(row | ({"lfs": lfs} if file.endswith((".safetensors", ".bin")) else {}))
        return self.send(200, json.dumps(rows).encode(), with_body)

    def file(self, repository, revision, file, with_body):
        sha = repository.revisions.get(revision)
        content = repository.commits.get(sha, {}).get(file)
        if content is None:
            missing = "EntryNotFound" if sha else "RevisionNotFound"
            return self.send(404, b"", with_body, {"X-Error-Code": missing})
        git, sha256 = digests(content)
        etag = sha256 if file.endswith((".safetensors", ".bin")) else git
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        status, first = 200, 0
        if wanted := self.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        if with_body and repository.faults.get(file):
            repository.faults[file] -= 1
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return None
        return self.send(status, body, with_body, headers)

    def send(self, status, body, with_body, headers=()):
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@contextmanager
def running():
    """Run a hub on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def server():
    with running() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """An empty hub, an empty cache, and nobody logged in."""
    server.repositories.clear()
    server.requests.clear()
    server.down = False
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.chdir(tmp_path)
    return server


@pytest.fixture
def model(tmp_path):
    """A folder as people publish it, with much that is not needed."""
    folder = write_sentence_model(tmp_path / "published")
    for name in ("pytorch_model.bin", "onnx/model.onnx", "openvino/model.xml", "tf_model.h5", "modeling_custom.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    return folder
