"""Outputs: what is written is read back, by other libraries too."""

import json
from itertools import pairwise

import numpy as np
import pyarrow
import pyarrow as pa
import pytest
from pyarrow import parquet

from ufbert import InputError
from ufbert.scale.sinks import ROW_GROUP, Layout, Results, open_sink

EMBEDDINGS = Layout("id", "int64", {"embedding": 3}, frozenset(), {"ufbert.model": "m"})
LABELS = Layout("row", "string", {"label": 0, "score": 0}, frozenset({"label"}), {})
RANKED = Layout("row", "int32", {"labels": 2, "scores": 2}, frozenset({"labels"}), {})


def embeddings(count, failed=()):
    rows = np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)
    return Results({"embedding": rows}, dict.fromkeys(failed, "why"), 0)


def fill(path, name, layout, *written):
    with open_sink(path, name, layout) as sink:
        for keys, results in written:
            sink.write(keys, results)
    return path


def test_parquet_has_fixed_size_lists_in_row_groups(tmp_path):
    count, first = 2 * ROW_GROUP + 5, 7_000
    whole = embeddings(count)
    halves = [
        Results({"embedding": whole.columns["embedding"][part]}, {}, 0) for part in (slice(first), slice(first, None))
    ]
    written = [(range(first), halves[0]), (range(first, count), halves[1])]
    path = fill(tmp_path / "a.parquet", "parquet", EMBEDDINGS, *written)
    file = parquet.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [ROW_GROUP, ROW_GROUP, 5]
    column = file.metadata.row_group(0).column(1)
    assert column.compression == "ZSTD" and "BYTE_STREAM_SPLIT" in column.encodings
    assert file.schema_arrow.field("embedding").type == pa.list_(pa.float32(), 3)
    assert file.schema_arrow.metadata[b"ufbert.model"] == b"m"
    table = file.read()
    np.testing.assert_array_equal(table["id"].to_numpy(), np.arange(count))
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), whole.columns["embedding"])


@pytest.mark.parametrize("sizes", [[25_000], [1] * 3 + [24_997], [9_999, 2, 14_999]])
def test_bytes_do_not_depend_on_how_rows_come(tmp_path, sizes):
    rows = embeddings(25_000).columns["embedding"]
    expected = fill(tmp_path / "a", "parquet", EMBEDDINGS, (range(25_000), Results({"embedding": rows}, {}, 0)))
    ends = np.cumsum([0, *sizes]).tolist()
    parts = [(range(a, b), Results({"embedding": rows[a:b]}, {}, 0)) for a, b in pairwise(ends)]
    assert fill(tmp_path / "b", "parquet", EMBEDDINGS, *parts).read_bytes() == expected.read_bytes()


@pytest.mark.skipif(int(pyarrow.__version__.split(".")[0]) < 26, reason="pyarrow reads no null lists before 26")
def test_rows_that_failed_are_null(tmp_path):
    written = ([7, 8, 9], embeddings(3, failed=[1]))
    table = parquet.read_table(fill(tmp_path / "a", "parquet", EMBEDDINGS, written))
    assert table["embedding"].is_null().to_pylist() == [False, True, False]
    lines = fill(tmp_path / "b", "jsonl", EMBEDDINGS, written).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [7, 8, 9] and json.loads(lines[1])["embedding"] is None
    array = np.load(fill(tmp_path / "c", "npy", EMBEDDINGS, written))
    assert np.isnan(array[1]).all() and (array[[0, 2]] == written[1].columns["embedding"][[0, 2]]).all()


def test_strings_and_lists_of_strings(tmp_path):
    one = Results({"label": np.array(["a", "b"], object), "score": np.float32([0.5, 1])}, {0: "why"}, 0)
    table = parquet.read_table(fill(tmp_path / "a", "parquet", LABELS, (["x", "y"], one)))
    assert table.to_pylist() == [
        {"row": "x", "label": None, "score": None}, {"row": "y", "label": "b", "score": 1.0},
    ]  # fmt: skip
    two = Results({"labels": np.array([["a", "b"]], object), "scores": np.float32([[0.5, 0.25]])}, {}, 0)
    table = parquet.read_table(fill(tmp_path / "b", "parquet", RANKED, ([3], two)))
    assert table.to_pylist() == [{"row": 3, "labels": ["a", "b"], "scores": [0.5, 0.25]}]
    assert table.schema.field("row").type == pa.int32()


@pytest.mark.parametrize("name", ["parquet", "jsonl", "npy"])
def test_nothing_written_is_an_empty_file(tmp_path, name):
    path = fill(tmp_path / "a", name, EMBEDDINGS)
    if name == "parquet":
        assert parquet.read_table(path).num_rows == 0
    elif name == "npy":
        assert np.load(path).shape == (0, 3)
    else:
        assert path.read_bytes() == b""


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
@pytest.mark.parametrize("wrong", ["y", True, 1.5])
def test_ids_of_another_type_are_refused(tmp_path, name, wrong):
    with pytest.raises(InputError, match="id: expected ids of type int64"):
        fill(tmp_path / "a", name, EMBEDDINGS, ([1, wrong], embeddings(2)))
    with pytest.raises(InputError, match="row: expected ids of type string"):
        fill(tmp_path / "b", name, EMBEDDINGS._replace(key="row", key_type="string"), (["x", 5], embeddings(2)))


def test_ids_that_parquet_does_not_hold(tmp_path):
    with pytest.raises(InputError, match=r"id: expected ids of type int64: .*too large"):
        fill(tmp_path / "a", "parquet", EMBEDDINGS, ([1, 2**70], embeddings(2)))
    with pytest.raises(InputError, match="surrogates not allowed"):
        fill(tmp_path / "b", "parquet", EMBEDDINGS._replace(key_type="string"), (["x", "\ud800"], embeddings(2)))
