"""A vector for each token, as sentence-transformers and Stanford's ColBERT give them on the same folders."""

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
from conftest import GOLDEN
from safetensors.numpy import load_file, save_file

import ufbert
from ufbert import CheckpointError, InputError, maxsim

FOLDERS = sorted((GOLDEN / "multi-vector").iterdir())
STANFORD = sorted((GOLDEN / "colbert").iterdir())
TEXTS = ["The train to London leaves at nine.", "water", "", "Snow, snow, snow!", "What is it? " * 9] * 5


@pytest.mark.parametrize("folder", [*FOLDERS, *STANFORD], ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_vectors_are_those_of_the_library(folder):
    check(folder)


def check(folder):
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
@pytest.mark.parametrize("name", ["multi-vector/native", "colbert/plain"])
def test_a_text_has_the_same_bits_in_any_batch(name, dtype, is_query):
    encoder = ufbert.MultiVectorEncoder(GOLDEN / name, dtype=dtype)
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
    encoder = ufbert.MultiVectorEncoder(FOLDERS[0])
    np.testing.assert_array_equal(encoder.similarity_pairwise([a, b, np.zeros((0, 3))], [b, a, a]), [3, 3, 0])
    with pytest.raises(InputError, match="documents: expected 3, one for each query, got 1"):
        encoder.similarity_pairwise([a, a, a], b)
    with pytest.raises(InputError, match="expected vectors of width 3, got 4"):
        maxsim(a, np.ones((2, 4), np.float32))
    with pytest.raises(InputError, match=r"queries\[0\]: expected 2 dimensions"):
        maxsim([np.ones(3)], a)


def copied(tmp_path, name):
    shutil.copytree(GOLDEN / name, tmp_path / "model")
    return tmp_path / "model"


def edit(file, change):
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


@pytest.mark.parametrize("name", ["pylate", "native"])
def test_modules_come_before_stanfords_class(tmp_path, name):
    folder = copied(tmp_path, f"multi-vector/{name}")
    edit(folder / "config.json", {"architectures": ["HF_ColBERT"]})
    tensors = {f"bert.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors | {"linear.weight": np.ones((16, 24), np.float32)}, folder / "model.safetensors")
    shutil.copyfile(STANFORD[0] / "artifact.metadata", folder / "artifact.metadata")
    check(folder)


@pytest.mark.parametrize("name", ["artifact.metadata", None])
def test_stanfords_defaults(tmp_path, name):
    folder = copied(tmp_path, "colbert/plain")
    if name is None:
        (folder / "artifact.metadata").unlink()
    else:
        (folder / name).write_text("{}")
    found, same = ufbert.MultiVectorEncoder(folder), ufbert.MultiVectorEncoder(GOLDEN / "colbert" / "plain")
    assert found.dimension == 16
    assert found.encode_query("water").shape == (32, 16)
    assert len(found.encode_document("water " * 99)) == 48  # the model's positions, fewer than 220
    np.testing.assert_array_equal(found.encode_document("water, water"), same.encode_document("water, water"))


def test_stanfords_folder_is_one_of_a_plain_encoder_too(tmp_path):
    folder = GOLDEN / "colbert" / "plain"
    model = ufbert.load(folder)
    assert (model.config.task, model.head) == ("base", None)
    tensors = {key.removeprefix("bert."): value for key, value in load_file(folder / "model.safetensors").items()}
    plain = copied(tmp_path, "colbert/plain")
    edit(plain / "config.json", {"architectures": ["BertModel"]})
    save_file({key: value for key, value in tensors.items() if key != "linear.weight"}, plain / "model.safetensors")
    ids = np.array([[2, 130, 20, 3]])
    found, wanted = (each(ids).last_hidden_state for each in (model, ufbert.load(plain)))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 0), ("float16", 0.01), ("int8", 0.1)])
def test_stanfords_folder_is_converted(tmp_path, dtype, atol):
    ufbert.convert(STANFORD[1], tmp_path / "new", dtype)
    found, wanted = (ufbert.MultiVectorEncoder(each) for each in (tmp_path / "new", STANFORD[1]))
    for encode in ("encode_query", "encode_document"):
        one, two = getattr(found, encode)("What is it?"), getattr(wanted, encode)("What is it?")
        np.testing.assert_allclose(one, two, atol=atol)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interaction": "flipr"}, "interaction: expected 'colbert'"),
        ({"similarity": "l2"}, "similarity: expected 'cosine'"),
        ({"pool_factor": 2}, "pool_factor: expected 1"),
        ({"bias": True}, "bias: expected settings of colbert-ai"),
        ({"query_maxlen": 3}, "query_maxlen: expected"),
        ({"doc_maxlen": "long"}, "doc_maxlen: expected"),
        ({"mask_punctuation": 1}, "mask_punctuation: expected true or false"),
        ({"attend_to_mask_tokens": "no"}, "attend_to_mask_tokens: expected true or false"),
        ({"doc_token_id": 7}, "doc_token_id: expected a token"),
        ({"dim": 8}, r"linear.weight: expected shape \(8, 24\)"),
        ({"config": 3}, "config: expected an object"),
    ],
)
def test_other_settings_of_stanfords_are_refused(tmp_path, change, message):
    folder = copied(tmp_path, "colbert/plain")
    edit(folder / "artifact.metadata", change)
    with pytest.raises(CheckpointError, match=message):
        ufbert.MultiVectorEncoder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear.weight": None}, "tensor linear.weight: expected"),
        ({"linear.weight": np.float32(1)}, "tensor linear.weight: expected shape"),
        ({"linear.bias": np.ones(16, np.float32)}, "tensor linear.bias: found 1 tensor"),
    ],
)
def test_other_tensors_of_stanfords_are_refused(tmp_path, change, message):
    folder = copied(tmp_path, "colbert/plain")
    tensors = load_file(folder / "model.safetensors") | change
    kept = {key: np.asarray(value) for key, value in tensors.items() if value is not None}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        ufbert.MultiVectorEncoder(folder)


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
    folder = copied(tmp_path, "multi-vector/native")
    edit(folder / file, change)
    with pytest.raises(CheckpointError, match=message):
        ufbert.MultiVectorEncoder(folder)
