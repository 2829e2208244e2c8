import pickle

import numpy as np
import pytest

import ufbert
from ufbert import dense, isa, precision
from ufbert.errors import InputError

TEXTS = ["The cat sat.", "How do plants make food from light?", "Oil prices fell on Monday."]


def test_the_table_has_a_cosine_for_all_that_it_may_choose():
    assert set(precision.KINDS) == set(precision.LOWEST_COSINES)
    for cosines in precision.LOWEST_COSINES.values():
        assert {dtype for dtypes in precision.FASTEST.values() for dtype in dtypes} <= set(cosines) <= set(dense.DTYPES)


@pytest.mark.parametrize(
    ("name", "feed_forward", "dtype"),
    [
        ("avx2", "dense", "int8"),
        ("avx2", "fff", "bfloat16"),
        ("avx512vnni", "gated", "int8"),
        ("neondot", "fff", "float32"),
        ("generic", "dense", "float32"),
        ("numpy", "fff", "float32"),
    ],
)
def test_the_choice_goes_by_instruction_set_and_kind(monkeypatch, name, feed_forward, dtype):
    monkeypatch.setattr(isa, "active_isa", lambda: name)
    found = precision.automatic(feed_forward)
    assert found.dtype == dtype
    assert name in found.reason
    if feed_forward == "fff" and name != "numpy":
        assert "int8 has 0.985" in found.reason


@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2", "all-MiniLM-L6-v2-fff-30x7"])
def test_auto_stays_near_float32_and_says_what_it_is(model):
    if not dense.is_available():
        pytest.skip("no compiled kernels")
    encoder = ufbert.SentenceEncoder(model, dtype="auto")
    loaded = encoder._model.texts.model
    facts = ufbert.info(loaded)
    wanted = precision.automatic(loaded.config.feed_forward)
    assert (facts["dtype"], facts["dtype_reason"]) == wanted
    kind = "auto_dtype_fff" if loaded.config.feed_forward == "fff" else "auto_dtype"
    assert (facts[kind], facts[f"{kind}_reason"]) == wanted
    embeddings = encoder.encode(TEXTS, normalize_embeddings=True)
    plain = ufbert.SentenceEncoder(model).encode(TEXTS, normalize_embeddings=True)
    assert np.einsum("nd,nd->n", embeddings, plain).min() > precision.LEAST_COSINE
    named = ufbert.SentenceEncoder(model, dtype=wanted.dtype)
    np.testing.assert_array_equal(embeddings, named.encode(TEXTS, normalize_embeddings=True))
    assert pickle.loads(pickle.dumps(loaded)).precision.dtype == wanted.dtype


def test_what_was_asked_for_is_said():
    model = ufbert.SentenceEncoder("all-MiniLM-L6-v2", dtype="float32")._model.texts.model
    assert model.precision == ("float32", "asked for")
    with pytest.raises(InputError, match="dtype: expected one of float32, bfloat16, int8, auto, got 'fast'"):
        ufbert.SentenceEncoder("all-MiniLM-L6-v2", dtype="fast")
