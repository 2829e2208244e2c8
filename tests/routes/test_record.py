"""Recorded runs: the model's own bits, and counts that the layers' own paths give."""

import numpy as np
import pytest
from conftest import GOLDEN, add_mean_pooling, fff_tensors, some_texts, write_bert, write_crammed_fff, write_fff

import ufbert
from ufbert import CheckpointError, InputError, cmm
from ufbert.layers import FastFeedForward
from ufbert.routes import record_routes
from ufbert.routes.record import load_text_model, recording

TEXTS = some_texts(150)
MAKE = {
    "bert": write_fff,
    "sentence": lambda folder: add_mean_pooling(write_fff(folder)),
    "crammed": write_crammed_fff,
    "depth 0": lambda folder: write_fff(folder, num_trees=4, depth=0),
}


@pytest.fixture(params=MAKE)
def folder(request, tmp_path):
    return MAKE[request.param](tmp_path / "model")


def layers_by_hand(folder, dtype, texts):
    """Paths and scores of each layer's tokens, text by text, by walking the encoder."""
    source = load_text_model(folder, dtype)
    found = [([], []) for _ in source.model.encoder.layers]
    for text in texts:
        encodings, _ = source.tokenize([text])
        batch = source.batch(encodings)
        x = source.model.encoder.embeddings(batch)
        for (paths, scores), layer in zip(found, source.model.encoder.layers, strict=True):
            pre = layer.norm_position == "pre"
            x = layer.attention(layer.norm1(x) if pre else x, batch, residual=x)
            x = x if pre else layer.norm1(x)
            inner = layer.norm2(x) if pre else x
            _, path, score = layer.feed_forward.trees(inner, return_path=True, return_scores=True)
            paths.append(path)
            scores.append(score)
            x = layer.feed_forward(inner, residual=x)
            x = x if pre else layer.norm2(x)
    return [(np.concatenate(paths), np.concatenate(scores)) for paths, scores in found]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_counts_are_those_of_the_layers(folder, dtype):
    routes = record_routes(folder, TEXTS, dtype)
    expected = layers_by_hand(folder, dtype, TEXTS)
    assert (routes.num_texts, routes.dtype, len(routes.layers)) == (150, dtype, len(expected))
    for layer, (path, scores) in zip(routes.layers, expected, strict=True):
        num_nodes = layer.visits.shape[1]
        assert layer.num_tokens == routes.num_tokens == len(path)
        np.testing.assert_array_equal(layer.visits, cmm.node_visits(path, num_nodes))
        np.testing.assert_array_equal(layer.visits[:, 0], len(path))
        np.testing.assert_array_equal(layer.leaves.sum(axis=1), len(path))
        assert layer.smallest_margins.min() == np.float32(cmm.smallest_margin(scores))
        assert layer.margins.sum() == len(path)
        if layer.depth:
            margins = np.abs(scores[:, :, :-1]).min(axis=(1, 2))
            expected_median = np.percentile(margins, 50, method="inverted_cdf")
            np.testing.assert_allclose(layer.margin_percentiles([50]), expected_median, rtol=0.033)


def test_recording_changes_no_bit_and_shares_the_weights(folder):
    model = ufbert.load(folder)
    ids = np.random.default_rng(0).integers(0, 30, (300, 9))
    recorded, trees = recording(model)
    np.testing.assert_array_equal(recorded(ids).last_hidden_state, model(ids).last_hidden_state)
    assert all(isinstance(layer.feed_forward, FastFeedForward) for layer in model.encoder.layers)
    assert all(tree.trees is layer.feed_forward.trees for tree, layer in zip(trees, model.encoder.layers, strict=True))
    assert all(tree.num_tokens == 2_700 for tree in trees)


def test_threads_count_the_same(folder, monkeypatch):
    expected = record_routes(folder, TEXTS * 4)
    for threads in ("1", "4"):
        monkeypatch.setenv("UFBERT_NUM_THREADS", threads)
        found = record_routes(folder, iter(TEXTS * 4))
        for one, other in zip(expected.layers, found.layers, strict=True):
            np.testing.assert_array_equal(one.visits, other.visits)
            np.testing.assert_array_equal(one.margins, other.margins)


def test_scores_that_are_no_numbers(tmp_path):
    tensors = fff_tensors()
    for name in tensors:
        if name.endswith("linear_in.bias"):
            tensors[name][:] = np.nan
    layer = record_routes(write_fff(tmp_path / "model", tensors), ["a b c"]).layers[0]
    assert np.isinf(layer.smallest_margins).all() and layer.num_tokens == 5
    np.testing.assert_array_equal(layer.leaves_seen, [1, 1])  # NaN goes left


def test_a_prompt_is_part_of_the_texts(tmp_path):
    folder = MAKE["sentence"](tmp_path / "model")
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"q": "b b "}, "default_prompt_name": "q"}')
    assert record_routes(folder, ["a"]).num_tokens == 5


def test_long_texts_are_cut_as_for_embeddings(tmp_path):
    folder = MAKE["sentence"](tmp_path / "model")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    assert record_routes(folder, ["a " * 500]).num_tokens == 7


@pytest.mark.parametrize("folder", [GOLDEN / "crammedbert-glu", GOLDEN / "pipelines" / "fill-mask"], ids=str)
def test_dense_models_are_refused(folder, tmp_path):
    if not (folder / "vocab.txt").exists():
        folder = write_bert(tmp_path / "dense")
    with pytest.raises(CheckpointError, match="expected a model with FFF layers, found dense"):
        record_routes(folder, TEXTS)


@pytest.mark.parametrize("texts", [[], "one text", 5, [3], None, ["a", b"b"]])
def test_texts_that_are_none(tmp_path, texts):
    with pytest.raises(InputError, match="texts: expected"):
        record_routes(write_fff(tmp_path / "model"), texts)
