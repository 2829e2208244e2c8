"""What people bring along from sentence-transformers: arguments, methods, copies."""

import copy
import json
import multiprocessing
import pickle
from enum import Enum
from pathlib import Path

import joblib
import numpy as np
import pytest
from conftest import write_bert, write_sentence_model
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ufbert
from ufbert import InputError, SentenceEncoder, quantize_embeddings

TEXTS = ["the cat.", "a b c d e", "z!", "the the the cat cat"]
PRECISIONS = ["float32", "int8", "uint8", "binary", "ubinary"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("model") / "sentence")


@pytest.fixture(scope="module")
def encoder(folder):
    return SentenceEncoder(folder)


@pytest.fixture(scope="module")
def rows(encoder):
    return encoder.encode(TEXTS)


def prompted(folder, prompts, **settings):
    write_sentence_model(folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts} | settings))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        {"convert_to_numpy": True},
        {"convert_to_tensor": False},
        {"device": None},
        {"device": "cpu"},
        {"precision": None},
        {"precision": "float32"},
        {"output_value": "sentence_embedding"},
        {"pool": None, "chunk_size": None, "processes": 1, "task": "query", "processing_kwargs": None},
    ],
)
def test_arguments_that_change_nothing_are_taken(encoder, rows, arguments):
    np.testing.assert_array_equal(encoder.encode(TEXTS, **arguments), rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"device": "cuda"}, "expected 'cpu' or None, got 'cuda'; ufbert runs on the CPU"),
        ({"device": ["cpu", "cpu"]}, "device: expected 'cpu' or None"),
        ({"pool": {"input": None}}, "pool: expected what start_multi_process_pool gave"),
        ({"task": "classification"}, "only models with a Router have tasks"),
        ({"precision": "int4"}, "precision: expected one of float32, int8"),
        ({"output_value": "logits"}, "output_value: expected one of sentence_embedding, token_embeddings"),
        ({"output_value": None, "precision": "int8"}, "precision: expected it without output_value=None"),
        ({"output_value": None, "convert_to_tensor": True}, "convert_to_tensor: expected it without output_value"),
        ({"output_hidden_states": True}, "output_hidden_states: expected output_value=None"),
    ],
)
def test_arguments_that_would_are_refused_with_a_sentence(encoder, arguments, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        encoder.encode(TEXTS, **arguments)


def test_unknown_arguments_are_pythons_own_error(encoder, folder):
    with pytest.raises(TypeError, match="'batchsize'"):
        encoder.encode(TEXTS, batchsize=3)
    with pytest.raises(TypeError, match="'dytpe'"):
        SentenceEncoder(folder, dytpe="int8")


def test_inputs_is_another_name_of_sentences(encoder, rows):
    np.testing.assert_array_equal(encoder.encode(inputs=TEXTS), rows)
    np.testing.assert_array_equal(encoder.encode(sentences=TEXTS), rows)
    for call in ({}, {"sentences": TEXTS, "inputs": TEXTS}):
        with pytest.raises(TypeError, match="sentences"):
            encoder.encode(**call)


def test_a_list_of_arrays_instead_of_one(encoder, rows):
    found = encoder.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(found, list) and len(found) == 4
    np.testing.assert_array_equal(np.stack(found), rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"trust_remote_code": True}, "runs no code of a model"),
        ({"backend": "onnx"}, "is its own backend"),
        ({"model_kwargs": {"torch_dtype": "bfloat16"}}, "dtype="),
        ({"device": "mps"}, "runs on the CPU"),
        ({"similarity_fn_name": "jaccard"}, "similarity_fn_name"),
        ({"default_prompt_name": "poem"}, "default_prompt_name"),
        ({"truncate_dim": 0}, "truncate_dim"),
        ({"prompts": {"query": 3}}, "prompts: expected names with their texts"),
    ],
)
def test_loading_refuses_what_would_change_something(folder, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        SentenceEncoder(folder, **arguments)


def test_loading_takes_settings(folder, encoder):
    class Similarity(Enum):
        DOT = "dot"

    same = {"device": "cpu", "trust_remote_code": False, "model_kwargs": {}, "revision": None, "token": None}
    other = SentenceEncoder(
        model_name_or_path=str(folder), prompts={"query": "cat "}, default_prompt_name="query", truncate_dim=5,
        similarity_fn_name=Similarity.DOT, **same,
    )  # fmt: skip
    assert other.prompts == {"query": "cat ", "document": ""}
    assert other.get_sentence_embedding_dimension() == other.get_embedding_dimension() == 5
    assert (other.dimension, encoder.get_embedding_dimension(), encoder.get_max_seq_length()) == (12, 12, 32)
    np.testing.assert_array_equal(other.encode(TEXTS), encoder.encode(TEXTS, prompt="cat ", truncate_dim=5))
    a, b = encoder.encode(TEXTS), encoder.encode(TEXTS)
    np.testing.assert_allclose(other.similarity(a, b), a @ b.T, atol=1e-5)


def test_queries_and_documents_have_their_prompts(tmp_path, encoder):
    plain = encoder.encode
    np.testing.assert_array_equal(encoder.encode_query(TEXTS), plain(TEXTS))
    np.testing.assert_array_equal(encoder.encode_document(TEXTS), plain(TEXTS))
    prompts = {"query": "the ", "document": "cat ", "other": "z "}
    prompting = SentenceEncoder(prompted(tmp_path / "a", prompts, default_prompt_name="other"))
    np.testing.assert_array_equal(prompting.encode_query("b"), plain("the b"))
    np.testing.assert_array_equal(prompting.encode_document(inputs=["b"]), plain(["cat b"]))
    np.testing.assert_array_equal(prompting.encode_query("b", prompt_name="other"), plain("z b"))
    np.testing.assert_array_equal(prompting.encode_document("b", prompt="x "), plain("x b"))
    np.testing.assert_array_equal(prompting.encode("b"), plain("z b"))
    assert prompting.encode_query(TEXTS, precision="ubinary", truncate_dim=8).shape == (4, 1)


@pytest.mark.parametrize("kind", ["cosine", "dot", "euclidean", "manhattan"])
def test_pairwise_similarity_is_the_diagonal(encoder, kind):
    other = copy.copy(encoder)
    other.similarity_fn_name = kind
    a, b = encoder.encode(TEXTS), encoder.encode(TEXTS[::-1])
    np.testing.assert_allclose(other.similarity_pairwise(a, b), np.diag(other.similarity(a, b)), atol=1e-5)
    assert other.similarity_pairwise(a[0], b[0]).shape == (1,)
    with pytest.raises(InputError, match="of one shape"):
        other.similarity_pairwise(a, b[:2])


# Of sentence-transformers 6.2: quantize_embeddings(EMBEDDINGS, precision) and with ranges.
EMBEDDINGS = np.array([[0.1, -0.2, 0.3, 0, 1, -1, 2, -2, 0.5], [0.4, 0.2, -0.3, 0, 0, 1, 2, 3, -0.5]], np.float32)
QUANTISED = {
    "int8": [[-128, -128, 127, -128, 126, -128, -128, -128, 126], [127, 127, -128, -128, -128, 126, -128, 126, -128]],
    "uint8": [[0, 0, 255, 0, 254, 0, 0, 0, 254], [255, 255, 0, 0, 0, 254, 0, 254, 0]],
    "binary": [[42, 0], [71, -128]],
    "ubinary": [[170, 128], [199, 0]],
}


@pytest.mark.parametrize("precision", QUANTISED)
def test_quantised_embeddings_have_sentence_transformers_numbers(precision):
    found = quantize_embeddings(EMBEDDINGS, precision)
    assert found.tolist() == QUANTISED[precision]
    assert found.dtype == np.dtype(np.uint8 if precision[0] == "u" else np.int8)


def test_ranges_are_given_or_taken_of_others():
    ranges = np.stack([EMBEDDINGS.min(0), EMBEDDINGS.max(0)])
    one = quantize_embeddings(EMBEDDINGS[:1] * 2, "uint8", ranges)
    assert one.tolist() == [[85, 0, 255, 0, 255, 0, 2, 0, 255]]
    np.testing.assert_array_equal(quantize_embeddings(EMBEDDINGS[:1] * 2, "uint8", None, EMBEDDINGS), one)
    for arguments in ((EMBEDDINGS[:1], "int8"), (EMBEDDINGS[0], "uint8")):
        with pytest.raises(InputError, match="two embeddings or more"):
            quantize_embeddings(*arguments)
    with pytest.raises(InputError, match=r"ranges: expected shape \(2, 9\)"):
        quantize_embeddings(EMBEDDINGS, "int8", ranges[:, :3])
    with pytest.raises(InputError, match="quantise floats only once"):
        quantize_embeddings(quantize_embeddings(EMBEDDINGS, "int8"), "int8")


@given(arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 20)), elements=st.floats(-3, 3, width=32)))
def test_bits_say_what_is_above_zero(values):
    bits = quantize_embeddings(values, "ubinary")
    assert bits.shape == (len(values), -(-values.shape[1] // 8))
    np.testing.assert_array_equal(np.unpackbits(bits, axis=1)[:, : values.shape[1]], values > 0)
    np.testing.assert_array_equal(quantize_embeddings(values, "binary").astype(int), bits.astype(int) - 128)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_encode_quantises_what_it_gives(encoder, precision):
    options = {"normalize_embeddings": True, "truncate_dim": 9}
    expected = quantize_embeddings(encoder.encode(TEXTS, **options), precision)
    np.testing.assert_array_equal(encoder.encode(TEXTS, precision=precision, **options), expected)
    assert encoder.encode([], precision=precision).dtype == expected.dtype
    if precision in ("int8", "uint8"):
        with pytest.raises(InputError, match="two embeddings or more"):
            encoder.encode("the cat", precision=precision)
        with pytest.raises(InputError, match="needs the ranges of all"):
            encoder.stream(TEXTS, precision=precision)
    else:
        np.testing.assert_array_equal(list(encoder.stream(TEXTS, precision=precision, **options)), expected)


@pytest.mark.parametrize("prompt", [None, "the "])
def test_token_embeddings_are_the_hidden_states(encoder, folder, prompt):
    model = ufbert.load(folder)
    found = encoder.encode(TEXTS, output_value="token_embeddings", prompt=prompt)
    for text, rows in zip(TEXTS, found, strict=True):
        features = encoder.tokenize([(prompt or "") + text])
        np.testing.assert_allclose(rows, model(**features).last_hidden_state[0], atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS[1], output_value="token_embeddings", prompt=prompt), found[1])
    assert encoder.encode([], output_value="token_embeddings") == []


def test_all_that_is_computed(encoder, folder, rows):
    model = ufbert.load(folder)
    found = encoder.encode(TEXTS, output_value=None, output_hidden_states=True)
    for text, row, outputs in zip(TEXTS, rows, found, strict=True):
        features = encoder.tokenize([text])
        for name, values in features.items():
            np.testing.assert_array_equal(outputs[name], values[0])
        np.testing.assert_array_equal(outputs["sentence_embedding"], row)
        states = model(**features, output_hidden_states=True).hidden_states
        assert len(states) == len(outputs["hidden_states"]) == 3
        for own, expected in zip(outputs["hidden_states"], states, strict=True):
            np.testing.assert_allclose(own, expected[0], atol=1e-5)
        np.testing.assert_array_equal(outputs["hidden_states"][-1], outputs["token_embeddings"])
    assert set(encoder.encode("the cat", output_value=None)) == {*features, "sentence_embedding", "token_embeddings"}


def test_hidden_states_of_a_model_are_zero_at_padding(folder):
    model = ufbert.load(folder)
    ids, mask = [[2, 30, 31, 3], [2, 30, 3, 0]], [[1, 1, 1, 1], [1, 1, 1, 0]]
    output = model(ids, mask, output_hidden_states=True)
    assert model(ids, mask).hidden_states is None
    assert [state.shape for state in output.hidden_states] == [(2, 4, 12)] * 3
    assert all(not state[1, 3].any() and state[0].any() for state in output.hidden_states)
    np.testing.assert_array_equal(output.hidden_states[-1], output.last_hidden_state)
    np.testing.assert_array_equal(output.last_hidden_state, model(ids, mask).last_hidden_state)


# Late chunking


def test_one_span_over_a_whole_text_pools_all_but_the_special_tokens(encoder):
    text = "the cat a b"
    tokens = encoder.encode(text, output_value="token_embeddings")[1:-1]
    np.testing.assert_allclose(encoder.encode_chunks(text, [(0, len(text))]), [tokens.mean(0)], atol=1e-6)
    found = encoder.encode_chunks(text, [(0, 7), (8, 11), (4, 9)])
    expected = [tokens[:2].mean(0), tokens[2:].mean(0), tokens[1:3].mean(0)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert encoder.encode_chunks(text, []).shape == (0, 12)


def test_chunks_know_what_stands_around_them(encoder):
    one = encoder.encode_chunks("the cat a", [(8, 9)])
    other = encoder.encode_chunks("b b b b a", [(8, 9)])
    assert np.abs(one - other).max() > 0.01


def test_a_prompt_stands_before_chunks_and_is_in_none(encoder):
    tokens = encoder.encode("the cat a", output_value="token_embeddings")
    found = encoder.encode_chunks("a", [(0, 1)], prompt="the cat ")
    np.testing.assert_allclose(found, tokens[3:4], atol=1e-6)


@pytest.mark.parametrize("overlap", [None, 0, 1, 2, 3, 5])
@pytest.mark.parametrize("length", [6, 7, 30])
def test_long_texts_run_in_windows_that_overlap(folder, overlap, length):
    encoder = SentenceEncoder(folder, max_seq_length=8)
    text = " ".join("abcdefghijklmnopqrstuvwxyz"[index % 26] for index in range(length))
    found = encoder.encode_chunks(text, [(2 * index, 2 * index + 1) for index in range(length)], overlap=overlap)
    room, shared = 6, 1 if overlap is None else overlap
    expected, first = np.zeros((length, 12)), 0
    while True:  # by hand
        words = text.split()[first : first + room]
        states = encoder.encode(" ".join(words), output_value="token_embeddings")[1:-1]
        own = (shared + 1) // 2 if first else 0
        expected[first + own : first + len(words)] = states[own:]
        if first + room >= length:
            break
        first += room - shared
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "spans", "options", "sentence"),
    [
        ("the cat", [(0, 9)], {}, "spans: end of number 0: expected an integer from 0 to 7, got 9"),
        ("the cat", [(0, 3), (5, 4)], {}, "spans: end of number 1"),
        ("the cat", [(3, 4)], {}, "got number 0 .3, 4. without"),
        ("the cat", [3], {}, "expected pairs of start and end"),
        (["the cat"], [(0, 1)], {}, "text: expected str"),
        ("the cat", [(0, 1)], {"overlap": 99}, "overlap"),
    ],
)
def test_spans_that_are_none(encoder, text, spans, options, sentence):
    with pytest.raises(InputError, match=sentence):
        encoder.encode_chunks(text, spans, **options)


def test_a_model_that_takes_the_first_token_has_no_chunks(tmp_path):
    with pytest.raises(InputError, match="give pooling='mean'"):
        SentenceEncoder(write_bert(tmp_path), pooling="cls").encode_chunks("the cat", [(0, 3)])


# Copies


def test_save_pretrained_writes_what_was_set(tmp_path, encoder):
    source = SentenceEncoder(prompted(tmp_path / "a", {"query": "the "}), max_seq_length=9, truncate_dim=7)
    source.prompts["query"] = "cat "
    source.similarity_fn_name = "dot"
    source.save_pretrained(tmp_path / "b")
    found = SentenceEncoder(tmp_path / "b")
    assert (found.max_seq_length, found.truncate_dim, found.similarity_fn_name) == (9, 7, "dot")
    np.testing.assert_array_equal(found.encode_query(TEXTS), source.encode_query(TEXTS))
    with pytest.raises(InputError, match="expected a name that is free"):
        source.save(tmp_path / "b")
    with pytest.raises(InputError, match="safetensors only"):
        source.save(tmp_path / "c", safe_serialization=False)


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken"])
def test_save_pretrained_writes_the_pooling_that_was_given(tmp_path, mode):
    for source in (write_bert(tmp_path / "plain"), write_sentence_model(tmp_path / "sentence")):
        encoder = SentenceEncoder(source, pooling=mode)
        encoder.save_pretrained(tmp_path / f"{source.name}-copy")
        copied = SentenceEncoder(tmp_path / f"{source.name}-copy")
        np.testing.assert_array_equal(copied.encode(TEXTS), encoder.encode(TEXTS))


def encoded(encoder):
    return encoder.encode(TEXTS)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_encoder_goes_to_other_processes(folder, dtype):
    encoder = SentenceEncoder(folder, max_seq_length=9, prompts={"query": "the "}, dtype=dtype)
    encoder.truncate_dim = 5
    expected = encoder.encode(TEXTS)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for found in pool.map(encoded, [encoder, encoder]):
            np.testing.assert_array_equal(found, expected)
    for found in joblib.Parallel(n_jobs=2)(joblib.delayed(encoded)(encoder) for _ in range(2)):
        np.testing.assert_array_equal(found, expected)
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        np.testing.assert_array_equal(other.encode_query(TEXTS), encoder.encode_query(TEXTS))
        other.max_seq_length = 4
    assert encoder.max_seq_length == 9


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_bundled_models_by_the_names_that_people_type(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    import ufbert_weights

    assert Path(SentenceEncoder(name)._folder) == ufbert_weights.path("all-MiniLM-L6-v2")
    assert ufbert.load(name).config.num_hidden_layers == 6
    assert ufbert.download(name) == ufbert_weights.path("all-MiniLM-L6-v2")
