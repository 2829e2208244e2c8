import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import write_bert, write_sentence_model
from hypothesis import given
from hypothesis import strategies as st
from lab import examples

import ufbert
from ufbert import CheckpointError, InputError, SentenceEncoder
from ufbert.checkpoint import names

TEXTS = ["the cat.", "a b c d e", "", "z!", "the the the cat cat ba"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("model") / "sentence")


@pytest.fixture(scope="module")
def encoder(folder):
    return SentenceEncoder(folder)


def test_shapes_follow_sentence_transformers(encoder):
    assert encoder.encode("one").shape == (12,)
    assert encoder.encode(["one"]).shape == (1, 12)
    assert encoder.encode([]).shape == (0, 12)
    assert encoder.encode(TEXTS).dtype == np.float32
    assert encoder.dimension == encoder.get_sentence_embedding_dimension() == 12


def test_mean_pooling_is_the_mean_of_the_hidden_states(encoder, tmp_path):
    model = ufbert.load(write_bert(tmp_path / "same"))
    features = encoder.tokenize(TEXTS)
    hidden = model(**features).last_hidden_state
    expected = hidden.sum(1) / features["attention_mask"].sum(1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len"])
def test_pooling_may_be_given(tmp_path, mode):
    folder = write_bert(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="pooling="):
        SentenceEncoder(folder)
    assert SentenceEncoder(folder, pooling=mode).encode(TEXTS).shape == (5, 12)
    with pytest.raises(CheckpointError, match="mean_sqrt_len"):
        SentenceEncoder(folder, pooling="sum")


@examples(20)
@given(st.lists(st.text(max_size=40), max_size=12), st.integers(1, 5))
def test_grouping_does_not_matter(encoder, texts, batch_size):
    alone = [encoder.encode(text) for text in texts]
    together = encoder.encode(texts, batch_size=batch_size)
    np.testing.assert_allclose(together, np.reshape(alone, together.shape), atol=2e-5)
    backwards = encoder.encode(texts[::-1])[::-1]
    np.testing.assert_allclose(backwards, together, atol=2e-5)
    np.testing.assert_allclose(list(encoder.encode_iter(texts)), list(together), atol=2e-5)


def test_encode_iter_never_holds_the_input(encoder):
    read = 0

    def endless():
        nonlocal read
        for text in itertools.cycle(TEXTS):
            read += 1
            yield text

    rows = list(itertools.islice(encoder.encode_iter(endless(), batch_size=4), 50))
    np.testing.assert_allclose(rows[5:10], encoder.encode(TEXTS), atol=1e-5)
    assert read <= 50 + 4


def test_normalize_and_truncate(encoder):
    whole = encoder.encode(TEXTS)
    cut = encoder.encode(TEXTS, truncate_dim=5)
    np.testing.assert_array_equal(cut, whole[:, :5])
    unit = encoder.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    assert encoder.encode(TEXTS, truncate_dim=99).shape == (5, 12)


def test_what_was_truncated_is_counted(encoder):
    long = "a " * 10_000
    result = encoder.encode(["a", long, ""], return_truncated=True)
    assert result.embeddings.shape == (3, 12)
    assert result.truncated.tolist() == [0, 10_002 - 32, 0]


def test_overflow_policies(folder, encoder, recwarn):
    long = ["a", "a " * 40]
    encoder.encode(long)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="number 1 with 10 tokens too many"):
        encoder.encode(long, on_overflow="warn")
    with pytest.raises(InputError, match="longer than 32 tokens"):
        encoder.encode(long, on_overflow="error")
    with pytest.raises(InputError, match="on_overflow"):
        encoder.encode(long, on_overflow="shrug")
    strict = SentenceEncoder(folder, on_overflow="error")
    with pytest.raises(InputError, match="too many"):
        list(strict.encode_iter(long))


def test_max_seq_length_can_be_set(folder, encoder):
    short = SentenceEncoder(folder, max_seq_length=4)
    np.testing.assert_allclose(short.encode("a b c d"), encoder.encode("a b"), atol=1e-6)
    short.max_seq_length = 32
    np.testing.assert_allclose(short.encode("a b c d"), encoder.encode("a b c d"), atol=1e-6)
    with pytest.raises(InputError, match="max_seq_length"):
        short.max_seq_length = 33


def test_prompts(tmp_path):
    folder = write_sentence_model(tmp_path / "prompted")
    settings_file = folder / "config_sentence_transformers.json"
    settings_file.write_text(json.dumps({"prompts": {"query": "a b "}, "default_prompt_name": "query"}))
    encoder = SentenceEncoder(folder)
    expected = encoder.encode("a b c", prompt="")
    np.testing.assert_array_equal(encoder.encode("c"), expected)
    np.testing.assert_array_equal(encoder.encode("c", prompt_name="query"), expected)
    np.testing.assert_array_equal(encoder.encode("b c", prompt="a "), expected)
    with pytest.raises(InputError, match="one of the model's prompts"):
        encoder.encode("c", prompt_name="passage")
    np.testing.assert_array_equal(encoder.encode("c", prompt_name="document"), encoder.encode("c", prompt=""))
    assert encoder.tokenize(["c"])["input_ids"].shape == (1, 3)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity(encoder, monkeypatch, name):
    from scipy.spatial.distance import cdist

    monkeypatch.setattr(encoder, "similarity_fn_name", name)
    a, b = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    metric = {"euclidean": "euclidean", "manhattan": "cityblock", "cosine": "cosine"}.get(name)
    expected = a @ b.T if metric is None else (name == "cosine") - cdist(a, b, metric)
    np.testing.assert_allclose(encoder.similarity(a, b), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.similarity(a[0], b), expected[:1], atol=1e-5)
    with pytest.raises(InputError, match="one width"):
        encoder.similarity(a, b[:, :2])


@pytest.mark.parametrize("sentences", [[None], [1], [("a", "b")], [["a", "b"]], [b"x"]])
def test_other_things_than_texts_are_refused(encoder, sentences):
    with pytest.raises(InputError, match="expected str"):
        encoder.encode(sentences)


@pytest.mark.parametrize("texts", [None, 5, b"abc", np.array("a"), {"a": 1}])
def test_other_things_than_sequences_are_refused(encoder, texts):
    for call in (encoder.encode, encoder.encode_iter, encoder.tokenize):
        with pytest.raises(InputError, match="expected str"):
            call(texts)


def test_one_text_is_no_iterable_of_texts(encoder):
    with pytest.raises(InputError, match="put one text alone into a list"):
        encoder.encode_iter("hello")


@pytest.mark.parametrize(
    "arguments",
    [{"prompt": 5}, {"prompt": b"x"}, {"prompt_name": []}, {"on_overflow": "x"}, {"on_overflow": []}],
)
def test_options_are_checked_though_there_are_no_texts(folder, encoder, arguments):
    for call in (encoder.encode, encoder.encode_iter):
        with pytest.raises(InputError, match=next(iter(arguments))):
            call([], **arguments)
    if "on_overflow" in arguments:
        with pytest.raises(InputError, match="on_overflow"):
            SentenceEncoder(folder, **arguments)


@pytest.mark.parametrize("pair", [("x", [1.0]), (None, [1.0, 2.0]), ([[1], [1, 2]], [1.0]), ([10**400], [1.0])])
def test_other_things_than_embeddings_are_refused(encoder, pair):
    with pytest.raises(InputError, match="embeddings"):
        encoder.similarity(*pair)


def test_the_models_max_seq_length_is_not_the_tokenizers(tmp_path):
    folder = write_sentence_model(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    assert SentenceEncoder(folder).max_seq_length == 8
    for found, expected in [(12, 12), (99, 32), (3, 3)]:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": found}))
        assert SentenceEncoder(folder).max_seq_length == expected
    assert SentenceEncoder(folder, max_seq_length=np.int64(3)).encode("a b c", return_truncated=True).truncated == [2]


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("batch_size", 2.5), ("batch_size", 10**7), ("truncate_dim", 0)]
)
def test_nonsense_is_refused(encoder, name, value):
    with pytest.raises(InputError, match=f"{name}: expected a(n|) .*integer"):
        encoder.encode(TEXTS, **{name: value})


def test_sixteen_threads_give_the_same_bits(encoder):
    texts = TEXTS * 10
    alone = encoder.encode(texts)
    with ThreadPoolExecutor(16) as pool:
        for result in pool.map(lambda _: encoder.encode(texts), range(64)):
            np.testing.assert_array_equal(result, alone)


def test_fork_after_use(encoder):
    expected = encoder.encode(TEXTS)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(encoder.encode(TEXTS), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_the_weights_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(names.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install ufbert-weights"):
        SentenceEncoder()


def test_progress_bar_is_shown_when_asked_for(encoder, capsys):
    encoder.encode(TEXTS, show_progress_bar=True)
    assert "5/5" in capsys.readouterr().err
    encoder.encode(TEXTS)
    assert capsys.readouterr().err == ""
