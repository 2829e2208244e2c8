"""FFF layers stored without some of their nodes."""

import numpy as np
import pytest
from conftest import fff_tensors, write_fff

import ufbert
from ufbert import CheckpointError
from ufbert.checkpoint.families.ufbert import expand
from ufbert.checkpoint.tensors import write_tensors

IDS = np.array([[2, 5, 6, 7, 8, 3], [2, 30, 31, 32, 33, 3]])
KEPT = np.array([0, 1, 2, 4, 9, 15, 16, 17], np.int32)  # of 2 trees of 15 nodes: 15 is the second one's root
NODES = "encoder.layer.{}.ffn.nodes"


def stored(nodes=KEPT, dtype="I32"):
    """Tensors of a model whose layers have only some nodes, and the same with zero rows for the others."""
    whole, pruned = {}, {}
    dropped = np.setdiff1d(np.arange(30), KEPT)
    for name, array in fff_tensors().items():
        array = array.copy()
        if ".ffn.linear_in" in name:
            array[dropped] = 0
            pruned[name] = ("F32", array[KEPT])
        elif name.endswith("ffn.linear_out.weight"):
            array[:, dropped] = 0
            pruned[name] = ("F32", np.ascontiguousarray(array[:, KEPT]))
        else:
            pruned[name] = ("F32", array)
        whole[name] = array
    pruned |= {NODES.format(layer): (dtype, nodes) for layer in range(2)}
    return whole, pruned


def write_pruned(folder, tensors, **changes):
    write_fff(folder, {}, pruned=True, **changes)
    write_tensors(folder / "model.safetensors", tensors)
    return folder


def test_expand():
    rows = np.arange(6, dtype=np.float16).reshape(3, 2)
    heap = expand(rows, np.array([0, 2, 5]), 7)
    assert heap.dtype == np.float16
    np.testing.assert_array_equal(heap[[0, 2, 5]], rows)
    assert not heap[[1, 3, 4, 6]].any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_dropped_nodes_are_zero_rows(tmp_path, dtype):
    whole, pruned = stored()
    expected = ufbert.load(write_fff(tmp_path / "whole", whole), dtype)(IDS).last_hidden_state
    model = ufbert.load(write_pruned(tmp_path / "pruned", pruned), dtype)
    np.testing.assert_array_equal(model(IDS).last_hidden_state, expected)


def test_convert_keeps_the_node_ids(tmp_path):
    source = write_pruned(tmp_path / "pruned", stored()[1])
    target = ufbert.convert(source, tmp_path / "target", "float32")
    expected = ufbert.load(source)(IDS).last_hidden_state
    np.testing.assert_array_equal(ufbert.load(target)(IDS).last_hidden_state, expected)


@pytest.mark.parametrize(
    ("nodes", "dtype", "message"),
    [
        (KEPT.astype(np.int64), "I64", "expected I32"),
        (KEPT.astype(np.float32), "F32", "expected I32"),
        (KEPT.reshape(2, 4), "I32", r"expected I32 of shape \(kept,\), found I32 \(2, 4\)"),
        (KEPT[::-1].copy(), "I32", "expected ascending ids from 0 to 29"),
        (np.array([0, 1, 2, 4, 9, 15, 16, 30], np.int32), "I32", "expected ascending ids"),
        (np.array([-1, 0, 1, 2, 4, 9, 15, 16], np.int32), "I32", "expected ascending ids"),
        (np.array([0, 0, 1, 2, 4, 9, 15, 16], np.int32), "I32", "expected ascending ids"),
        (np.array([0, 1, 2, 4, 10, 15, 16, 20], np.int32), "I32", "each node's parent too, found 20"),
        (np.array([1, 3, 4, 15, 16, 17, 18, 19], np.int32), "I32", "each node's parent too, found 1"),
        (KEPT[:5], "I32", r"linear_in.weight: expected shape \(5, 12\)"),
        (KEPT[:0], "I32", r"linear_in.weight: expected shape \(0, 12\)"),
    ],
)
def test_node_ids_that_cannot_be(tmp_path, nodes, dtype, message):
    with pytest.raises(CheckpointError, match=message):
        ufbert.load(write_pruned(tmp_path / "model", stored(nodes, dtype)[1]))


def test_pruned_in_config_json_and_in_the_weights_go_together(tmp_path):
    _, pruned = stored()
    with pytest.raises(CheckpointError, match=r"ffn.nodes: expected it"):
        ufbert.load(write_fff(tmp_path / "a", fff_tensors(), pruned=True))
    write_fff(tmp_path / "c", {})
    write_tensors(tmp_path / "c" / "model.safetensors", pruned)
    with pytest.raises(CheckpointError, match=r"linear_in.weight: expected shape \(30, 12\)"):
        ufbert.load(tmp_path / "c")
    whole = {name: ("F32", array) for name, array in fff_tensors().items()} | {NODES.format(0): ("I32", KEPT)}
    write_tensors(tmp_path / "c" / "model.safetensors", whole)
    with pytest.raises(CheckpointError, match=r"ffn.nodes: found 1 tensor"):
        ufbert.load(tmp_path / "c")
    with pytest.raises(CheckpointError, match="pruned: expected true or false"):
        ufbert.load(write_fff(tmp_path / "d", pruned="yes"))


def test_a_small_file_cannot_ask_for_all_memory(tmp_path):
    folder = write_pruned(tmp_path / "model", stored()[1], depth=20, hidden_size=12 * 1024)
    with pytest.raises(CheckpointError, match="all nodes \\* hidden_size of a pruned model"):
        ufbert.load(folder)
