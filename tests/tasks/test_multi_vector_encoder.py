"""A vector for each token, as sentence-transformers' MultiVectorEncoder gives them on the same folders."""

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
from conftest import GOLDEN

import ufbert
from ufbert import CheckpointError, InputError
from ufbert.tasks.multi_vector_encoder import maxsim

FOLDERS = sorted((GOLDEN / "multi-vector").iterdir())
TEXTS = ["The train to London leaves at nine.", "water", "", "Snow, snow, snow!", "What is it? " * 9] * 5


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_vectors_are_those_of_sentence_transformers(folder):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    encoder = ufbert.MultiVectorEncoder(folder)
    queries, documents = encoder.encode_query(expected["queries"]), encoder.encode_document(expected["documents"])
    for found, wanted in ((queries, expected["encode_query"]), (documents, expected["encode_document"])):
        assert [each.shape for each in found] == [(len(rows), 16) for rows in wanted]
        for one, two in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, np.reshape(two, one.shape), atol=2e-5)
    np.testing.assert_allclose(encoder.similarity(queries, documents), expected["similarity"], atol=1e-4)


@pytest.mark.parametrize("is_query", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_text_has_the_same_bits_in_any_batch(dtype, is_query):
    encoder = ufbert.MultiVectorEncoder(GOLDEN / "multi-vector" / "native", dtype=dtype)
    encode = encoder.encode_query if is_query else encoder.encode_document
    whole = encode(TEXTS)
    for text, vectors, streamed in zip(TEXTS, whole, encoder.stream(iter(TEXTS), is_query, 3), strict=True):
        np.testing.assert_array_equal(encode(text), vectors)
        np.testing.assert_array_equal(streamed, vectors)


def test_an_encoder_is_pickled_and_copied():
    encoder = ufbert.MultiVectorEncoder(FOLDERS[0])
    expected = encoder.encode_query("water")
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        np.testing.assert_array_equal(other.encode_query("water"), expected)


def test_scores_are_sums_of_the_nearest():
    a, b = np.eye(3, dtype=np.float32), np.array([[1, 0, 0], [0, 2, 0]], np.float32)
    np.testing.assert_array_equal(maxsim(a, [b, a, np.zeros((0, 3))]), [[3, 3, 0]])
    with pytest.raises(InputError, match="expected vectors of width 3, got 4"):
        maxsim(a, np.ones((2, 4), np.float32))
    with pytest.raises(InputError, match=r"queries\[0\]: expected 2 dimensions"):
        maxsim([np.ones(3)], a)


@pytest.mark.parametrize("name", ["sentence-transformers/pooling-cls", "bert"])
def test_other_folders_are_refused(name):
    with pytest.raises(CheckpointError, match="expected"):
        ufbert.MultiVectorEncoder(GOLDEN / name)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("2_MultiVectorMask/config.json", {"skiplist_tasks": ["query"]}, "skiplist_tasks: expected"),
        ("2_MultiVectorMask/config.json", {"keep_only_token_ids": [3]}, "keep_only_token_ids: expected"),
        ("2_MultiVectorMask/config.json", {"skiplist_words": "abc"}, "skiplist_words: expected a list"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "min", "length": 9}}, "strategy: expected one"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "fixed"}}, "length: expected"),
        ("sentence_bert_config.json", {"modality": 3}, "modality: expected nothing that changes"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "meanmaxsim"}, "similarity_fn_name: expected one"),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, "prompts: expected texts"),
    ],
)
def test_other_settings_are_refused(tmp_path, file, change, message):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "multi-vector" / "native", folder)
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(settings | change))
    with pytest.raises(CheckpointError, match=message):
        ufbert.MultiVectorEncoder(folder)
