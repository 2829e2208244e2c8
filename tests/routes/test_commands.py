"""`ufbert routes` and `ufbert prune` as processes."""

import json
import lzma
import os

import numpy as np
import pytest
from conftest import some_texts, write_bert, write_fff
from test_cli import run

import ufbert
from ufbert.isa import active_isa
from ufbert.routes import record_routes
from ufbert.routes.report import as_json, table

TEXTS = some_texts(40)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_fff(tmp_path_factory.mktemp("commands") / "model")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "texts.txt.xz"
    file.write_bytes(lzma.compress("\n".join(TEXTS).encode()))
    return file


def test_routes_prints_a_table(model, corpus):
    assert run("routes", model, "--corpus", corpus)[0] == table(record_routes(model, TEXTS)) + "\n"
    out, _ = run("routes", model, "--corpus", "-", "--max-texts", 9, "--trees", stdin="\n\n".join(TEXTS))
    assert out == table(record_routes(model, TEXTS[:9]), by_tree=True) + "\n"
    assert "bfloat16" in run("routes", model, "--corpus", corpus, "--dtype", "bfloat16", "--threads", 1)[0]


def test_routes_writes_json_and_a_picture(model, corpus, tmp_path):
    for _ in range(2):
        run("routes", model, "--corpus", corpus, "--out", tmp_path / "new" / "folder")
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["routes.json", "routes.png"]
    found = json.loads((tmp_path / "new" / "folder" / "routes.json").read_text())
    assert found == as_json(record_routes(model, TEXTS))


def test_prune(model, corpus, tmp_path):
    target = tmp_path / "target"
    out, _ = run("prune", model, "--corpus", corpus, "--out", target, "--dtype", "float32", "int8")
    head, *rows, total, proof = out.splitlines()
    assert head.split()[:4] == ["layer", "nodes", "kept", "dropped"] and len(rows) == 2
    assert total.split()[1] == "60" and int(total.split()[2]) < 60
    assert "on 40 texts" in proof and f"bitwise those of the original (float32, int8; {active_isa()})" in proof
    ids = np.array([[2, 5, 6, 3]])
    assert ufbert.load(target)(ids).last_hidden_state.shape == ufbert.load(model)(ids).last_hidden_state.shape
    _, err = run("prune", model, "--corpus", corpus, "--out", target, code=1)
    assert "expected a name that is free" in err
    run("prune", model, "--corpus", corpus, "--out", target, "--force", "--max-texts", 1)
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["routes", "MODEL"], 2, "--corpus"),
        (["prune", "MODEL", "--corpus", "CORPUS"], 2, "--out"),
        (["routes", "MODEL", "--corpus", "CORPUS", "--max-texts", "0"], 2, "at least 1"),
        (["routes", "MODEL", "--corpus", "nowhere"], 1, "corpus: expected a file of texts"),
        (["routes", "nowhere", "--corpus", "CORPUS"], 1, "expected a model folder"),
        (["routes", "DENSE", "--corpus", "CORPUS"], 1, "expected a model with FFF layers, found dense"),
        (["prune", "DENSE", "--corpus", "CORPUS", "--out", "new"], 1, "expected a model with FFF layers, found dense"),
        (["routes", "MODEL", "--corpus", "/dev/null"], 1, "expected at least one that is not empty"),
        (["prune", "MODEL", "--corpus", "-", "--out", "new"], 1, "a second time for the proof"),
        (["prune", "MODEL", "--corpus", "/dev/stdin", "--out", "new"], 1, "a second time for the proof"),
        (["routes", "MODEL", "--corpus", "CORPUS", "--out", "CORPUS"], 1, "expected a folder for routes.json"),
    ],
)
def test_failures(model, corpus, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": model, "CORPUS": corpus, "DENSE": write_bert(tmp_path / "dense")}
    out, err = run(*(places.get(argument, argument) for argument in arguments), code=code)
    assert message in err and out == "" and "Traceback" not in err
    assert os.listdir(tmp_path) == ["dense"]


def test_help():
    assert "one text a line: plain, .xz or .gz" in " ".join(run("routes", "--help")[0].split())
    assert "replace a model folder" in run("prune", "--help")[0]
