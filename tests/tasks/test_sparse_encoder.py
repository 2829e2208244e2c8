"""Sparse embeddings, as sentence-transformers' SparseEncoder gives them on the same folders."""

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
from conftest import GOLDEN

import ufbert
from ufbert import CheckpointError, InputError

FOLDERS = sorted((GOLDEN / "sparse-encoders").iterdir())
TEXTS = ["The train to London leaves at nine.", "water", "", "Snow, snow, snow!", "What is it? " * 9] * 7


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_embeddings_are_those_of_sentence_transformers(folder):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    encoder, texts = ufbert.SparseEncoder(folder), expected["texts"]
    found = encoder.encode(texts)
    assert encoder.max_seq_length == expected["max_seq_length"]
    assert found.shape == (len(texts), 130) == (len(texts), encoder.dimension)
    np.testing.assert_allclose(found.toarray(), expected["encode"], atol=2e-5)
    most = encoder.encode(texts, max_active_dims=7)
    np.testing.assert_allclose(most.toarray(), expected["most"], atol=2e-5)
    assert np.diff(most.indptr).max() == 7
    query, document = (
        encoder.encode_query("How do plants make food?"),
        encoder.encode_document("How do plants make food?"),
    )
    np.testing.assert_allclose(query.toarray(), expected["query"], atol=2e-5)
    np.testing.assert_allclose(document.toarray(), expected["document"], atol=2e-5)
    np.testing.assert_allclose(encoder.similarity(found, found), expected["similarity"], rtol=1e-4)
    tokens, weights = zip(*encoder.decode(found[0], top_k=4), strict=True)
    assert list(tokens) == [token for token, _ in expected["decode"]]
    np.testing.assert_allclose(weights, [weight for _, weight in expected["decode"]], atol=2e-5)
    assert encoder.decode(found, top_k=4)[0] == encoder.decode(found[0], top_k=4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_text_has_the_same_bits_in_any_batch(folder, dtype):
    encoder = ufbert.SparseEncoder(folder, dtype=dtype)
    whole = encoder.encode(TEXTS)
    for text, row, streamed in zip(TEXTS, whole, encoder.stream(iter(TEXTS), batch_size=3), strict=True):
        (alone,) = encoder.encode(text)
        for one, two, three in zip(alone, row, streamed, strict=True):
            np.testing.assert_array_equal(one, two)
            np.testing.assert_array_equal(one, three)


def test_a_long_text_is_scored_in_parts(monkeypatch):
    folder = GOLDEN / "sparse-encoders" / "max-relu"
    encoder = ufbert.SparseEncoder(folder)
    whole = encoder.encode(TEXTS).toarray()
    monkeypatch.setattr(ufbert.checkpoint.sparse, "ROWS", 5)
    np.testing.assert_array_equal(encoder.encode(TEXTS).toarray(), whole)


def test_embeddings_as_a_matrix_of_scipy():
    from scipy.sparse import csr_array

    found = ufbert.SparseEncoder(FOLDERS[0]).encode(TEXTS[:5])
    matrix = found.to_scipy()
    assert isinstance(matrix, csr_array) and matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix.toarray(), found.toarray())
    np.testing.assert_allclose((matrix @ matrix.T).toarray(), found.dot(found), rtol=1e-5)


def test_nothing_in_nothing_out():
    encoder = ufbert.SparseEncoder(FOLDERS[0])
    none = encoder.encode([])
    assert none.shape == (0, 130) and list(none) == [] and encoder.decode(none) == []
    assert encoder.similarity(none, encoder.encode(["water"])).shape == (0, 1)
    assert encoder.similarity_pairwise(none, none).shape == (0,)


@pytest.mark.parametrize("name", ["dot", "cosine"])
def test_pairs_are_scored_as_all_are(name):
    encoder = ufbert.SparseEncoder(FOLDERS[0])
    encoder.similarity_fn_name = name
    one, two = encoder.encode(TEXTS[:5]), encoder.encode(TEXTS[2:7])
    found = encoder.similarity_pairwise(one, two)
    np.testing.assert_array_equal(found, encoder.similarity(one, two).diagonal())
    with pytest.raises(InputError, match=r"expected two of one shape, got \(5, 130\) and \(1, 130\)"):
        encoder.similarity_pairwise(one, encoder.encode(["water"]))


def test_an_encoder_is_pickled_and_copied():
    encoder = ufbert.SparseEncoder(FOLDERS[0], max_seq_length=9, max_active_dims=5)
    expected = encoder.encode(TEXTS[:5]).toarray()
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        np.testing.assert_array_equal(other.encode(TEXTS[:5]).toarray(), expected)


def test_other_modules_are_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "sparse-encoders" / "max-relu", folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules.append(modules[1] | {"type": "sentence_transformers.sparse_encoder.modules.SparseAutoEncoder"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="expected Transformer or MLMTransformer, and SpladePooling, found"):
        ufbert.SparseEncoder(folder)


@pytest.mark.parametrize(("key", "value"), [("pooling_strategy", "mean"), ("activation_function", "gelu")])
def test_other_settings_are_refused(tmp_path, key, value):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "sparse-encoders" / "max-relu", folder)
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps({key: value}))
    with pytest.raises(CheckpointError, match=f"{key}: expected one of"):
        ufbert.SparseEncoder(folder)


@pytest.mark.parametrize("name", ["sentence-transformers/pooling-cls", "bert-token-classifier"])
def test_other_models_are_refused(name):
    with pytest.raises(CheckpointError, match=r"SpladePooling|masked-lm"):
        ufbert.SparseEncoder(GOLDEN / name)


def test_what_does_not_fit_is_refused():
    encoder = ufbert.SparseEncoder(FOLDERS[0])
    found = encoder.encode(["water"])
    with pytest.raises(InputError, match="max_active_dims: expected a positive integer, got 0"):
        encoder.encode(["water"], max_active_dims=0)
    with pytest.raises(InputError, match="prompt_name: expected one of the model's prompts"):
        encoder.encode(["water"], prompt_name="x")
    with pytest.raises(InputError, match="embeddings: expected what encode gave, got ndarray"):
        encoder.similarity(found, found.toarray())
    with pytest.raises(InputError, match="embeddings: expected what encode or stream gave"):
        encoder.decode(found.toarray())
    with pytest.raises(InputError, match="sentences: expected str"):
        encoder.encode([3])
