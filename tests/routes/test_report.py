import io
import json
import sys

import numpy as np
import pytest
from conftest import some_texts, write_fff

from ufbert import InputError
from ufbert.routes import record_routes
from ufbert.routes.picture import draw
from ufbert.routes.report import as_json, table

TEXTS = some_texts(60)


@pytest.fixture(scope="module", params=[(2, 3), (1, 4), (3, 0)], ids=str)
def routes(request, tmp_path_factory):
    trees, depth = request.param
    folder = write_fff(tmp_path_factory.mktemp("routes") / "model", num_trees=trees, depth=depth)
    return record_routes(folder, TEXTS)


def test_table(routes):
    first, head, *rows, _, _ = table(routes).splitlines()
    trees, depth = len(routes.layers[0].visits), routes.layers[0].depth
    assert first.startswith(f"60 texts, {routes.num_tokens} tokens, 2 layers of {trees}x{depth}")
    assert len(rows) == 2 and all(len(row) == len(head) for row in rows)
    cells = rows[1].split()
    layer = routes.layers[1]
    assert cells[:4] == ["1", "all" if trees > 1 else "0", str(layer.visits.size), str(layer.dead_nodes.sum())]
    assert (cells[-1] == "-") == (depth == 0)


def test_a_line_for_each_tree(routes):
    trees = len(routes.layers[0].visits)
    rows = table(routes, by_tree=True).splitlines()[2:-2]
    assert [row.split()[1] for row in rows] == (["0"] * 2 if trees == 1 else ["all", *map(str, range(trees))] * 2)


def test_json_holds_everything(routes):
    data = json.loads(json.dumps(as_json(routes), allow_nan=False))
    assert (data["num_texts"], data["num_tokens"], data["dtype"]) == (60, routes.num_tokens, "float32")
    for found, layer in zip(data["layers"], routes.layers, strict=True):
        np.testing.assert_array_equal([tree["visits"] for tree in found["trees"]], layer.visits)
        assert found["dead_nodes"] == (layer.visits == 0).sum()
        assert (found["smallest_margin"] is None) == (layer.depth == 0)


def test_picture(routes):
    stream = io.BytesIO()
    draw(routes, stream)
    assert stream.getvalue().startswith(b"\x89PNG") and len(stream.getvalue()) > 10_000


def test_without_matplotlib(routes, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"expected matplotlib, it is not installed; pip install 'ufbert\[plot\]'"):
        draw(routes, io.BytesIO())
