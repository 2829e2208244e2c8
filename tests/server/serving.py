"""A service with one small model of each kind, in a thread of the tests' process.

A test module names this as its plugin: a second conftest would hide the first one.
"""

import json
import threading
import time
from contextlib import contextmanager
from functools import partial

import httpx
import pytest
from conftest import BERT_CONFIG, GOLDEN, add_mean_pooling, bert_tensors, write_bert, write_fff
from conftest import write_sentence_model as write_sentence

from ufbert.server.models import load_models
from ufbert.server.run import make_server
from ufbert.server.settings import Settings

PIPELINES = GOLDEN / "pipelines"
PROMPTS = {"query": "the ", "document": "a "}


def write_models(root):
    """Folders by the names of their models."""
    tiny = write_sentence(root / "tiny")
    (tiny / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    one_label = {"num_labels": 1, "id2label": {"0": "relevant"}, "architectures": ["BertForSequenceClassification"]}
    tensors = bert_tensors(BERT_CONFIG)
    tensors = {f"bert.{name}": array for name, array in tensors.items()}
    tensors["classifier.weight"] = tensors["bert.pooler.dense.weight"][:1].copy()
    tensors["classifier.bias"] = tensors["bert.pooler.dense.bias"][:1].copy()
    return {
        "tiny": tiny,
        "trees": add_mean_pooling(write_fff(root / "trees")),
        "classes": PIPELINES / "text-classification",
        "relevance": write_bert(root / "relevance", tensors, BERT_CONFIG | one_label),
        "fill": PIPELINES / "fill-mask",
        "entities": PIPELINES / "token-classification",
        "answers": PIPELINES / "question-answering",
    }


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@contextmanager
def run_service(folders, names=None, dtype="float32", **settings):
    """A service that listens; gives its server, whose ``url`` says where."""
    models = load_models([f"{name}={folders[name]}" for name in names or folders], dtype)
    server = make_server(Settings(**settings), models, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    server.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(30)
        server.service.end()
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def running(folders):
    """What makes a service of its own."""
    return partial(run_service, folders)


@pytest.fixture(scope="session")
def server(running):
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def url(server):
    return server.url


@pytest.fixture(scope="session")
def http(url):
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client
