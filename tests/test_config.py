import pytest

from ufbert.config import ClassificationHeadConfig, ModelConfig, check_size
from ufbert.errors import CheckpointError

BASE = {
    "family": "bert",
    "task": "base",
    "vocab_size": 100,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 16,
}


def test_derived_sizes():
    config = ModelConfig(**BASE, feed_forward="fff", num_trees=3, depth=4)
    assert (config.head_size, config.num_nodes) == (8, 31)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 25},
        {"hidden_size": 0},
        {"depth": 25},
        {"feed_forward": "fff", "depth": 20, "num_trees": 10},
        {"type_vocab_size": -1},
        {"classification_head": ClassificationHeadConfig("avg", True, 0, "tanh")},
        {"position_embedding": "sinusoidal", "max_position_embeddings": 2**20, "hidden_size": 2**16 // 3 * 3},
    ],
)
def test_sizes_out_of_range_are_refused(changes):
    with pytest.raises(CheckpointError, match=r"config.json"):
        ModelConfig(**BASE | changes)


@pytest.mark.parametrize("value", [0, 11, 5.0, "5", True, None, 10**400])
def test_check_size_wants_an_integer_in_range(value):
    with pytest.raises(CheckpointError, match="size: expected an integer from 1 to 10"):
        check_size(value, "size", 1, 10)
