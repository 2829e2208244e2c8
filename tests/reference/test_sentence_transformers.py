"""sentence-transformers itself beside `SentenceEncoder`: its evaluators, its folders, its numbers."""

import json

import numpy as np
import pytest
import sentence_transformers as st
import torch
import ufbert_weights
from conftest import write_sentence_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import evaluation
from sentence_transformers.util import quantize_embeddings

import ufbert

TEXTS = [
    "Plants make sugar from light.",
    "The moon pulls the sea.",
    "A cat sat on the mat.",
    "How do plants make food?",
]
QUERIES = {"q0": "How do plants make food?", "q1": "Why are there tides?"}
CORPUS = {f"d{index}": text for index, text in enumerate(TEXTS[:3])}
EVALUATORS = {
    "similarity": lambda: evaluation.EmbeddingSimilarityEvaluator(TEXTS[:3], TEXTS[1:], [0.1, 0.3, 0.9]),
    "similarity in bits": lambda: evaluation.EmbeddingSimilarityEvaluator(
        TEXTS[:3], TEXTS[1:], [0.1, 0.3, 0.9], precision="ubinary"
    ),
    "retrieval": lambda: evaluation.InformationRetrievalEvaluator(QUERIES, CORPUS, {"q0": {"d0"}, "q1": {"d1"}}),
    "triplets": lambda: evaluation.TripletEvaluator(TEXTS[:2], TEXTS[1:3], TEXTS[2:]),
    "pairs": lambda: evaluation.BinaryClassificationEvaluator(TEXTS[:3], TEXTS[1:], [1, 0, 1]),
    "reranking": lambda: evaluation.RerankingEvaluator(
        [{"query": QUERIES["q0"], "positive": TEXTS[:1], "negative": TEXTS[1:3]}]
    ),
}


@pytest.fixture(scope="module")
def both():
    folder = ufbert_weights.path("all-MiniLM-L6-v2")
    return ufbert.SentenceEncoder(folder), SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"dtype": torch.float32}
    )


@pytest.mark.parametrize("name", EVALUATORS)
def test_its_evaluators_give_the_same_scores(both, name):
    own, other = (EVALUATORS[name]()(model) for model in both)
    assert own.keys() == other.keys()
    for key, value in other.items():
        assert own[key] == pytest.approx(value, abs=1e-4), key
    assert both[0].model_card_data.metrics


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_precisions(both, precision):
    own, other = both
    floats = other.encode(TEXTS)
    np.testing.assert_array_equal(ufbert.quantize_embeddings(floats, precision), quantize_embeddings(floats, precision))
    assert own.encode(TEXTS, precision=precision).dtype == other.encode(TEXTS, precision=precision).dtype


def test_tensors(both):
    own, other = both
    found = own.encode(TEXTS, convert_to_tensor=True)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, other.encode(TEXTS, convert_to_tensor=True), atol=1e-5, rtol=0)
    torch.testing.assert_close(own.similarity(found, found), other.similarity(found, found), atol=1e-5, rtol=0)
    pairs = own.similarity_pairwise(found[:2], found[2:])
    torch.testing.assert_close(pairs, other.similarity_pairwise(found[:2], found[2:]), atol=1e-5, rtol=0)
    assert own.encode(TEXTS[0], convert_to_tensor=True, device=torch.device("cpu")).shape == (384,)


def test_token_embeddings(both):
    own, other = (model.encode(TEXTS, output_value="token_embeddings") for model in both)
    for rows, expected in zip(own, other, strict=True):
        np.testing.assert_allclose(rows, expected.numpy(), atol=1e-4)
    own, other = (model.encode(TEXTS[0], output_value=None) for model in both)
    np.testing.assert_allclose(own["sentence_embedding"], other["sentence_embedding"].numpy(), atol=1e-5)
    np.testing.assert_array_equal(own["input_ids"], other["input_ids"].numpy())


def test_it_reads_what_save_pretrained_writes(tmp_path):
    folder = write_sentence_model(tmp_path / "model")
    entries = json.loads((folder / "modules.json").read_text())  # it wants their numbers and names too
    numbered = [{"idx": index, "name": str(index)} | entry for index, entry in enumerate(entries)]
    (folder / "modules.json").write_text(json.dumps(numbered))
    encoder = ufbert.SentenceEncoder(folder, pooling="cls", max_seq_length=9, prompts={"query": "the "}, truncate_dim=7)
    encoder.similarity_fn_name = "dot"
    encoder.save_pretrained(tmp_path / "saved")
    model = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert model.max_seq_length == 9 and model.similarity_fn_name == "dot"
    texts = ["a cat", "b " * 30]
    expected = model.encode_query(texts, truncate_dim=7)
    np.testing.assert_allclose(encoder.encode_query(texts), expected, atol=1e-5)


def test_which_version_this_was():
    assert int(st.__version__.split(".")[0]) >= 5
