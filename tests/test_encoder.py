import copy
import dataclasses
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import GOLDEN, write_bert
from hypothesis import given
from hypothesis import strategies as st
from lab import examples

import ufbert
from ufbert import InputError, encoder
from ufbert.batch import from_padded

MODELS = {"bert": GOLDEN / "bert-mlm", "ultrafastbert": GOLDEN / "ultrafastbert-3x2"}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return ufbert.load(MODELS[request.param])


@examples(30)
@given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 6), st.integers(0, 999))
def test_hidden_states_never_depend_on_padding(model, texts, length, padding, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, model.config.vocab_size, (texts, length))
    mask = rng.integers(0, 2, (texts, length))
    alone = model(ids, mask)
    wide = [(0, 0), (0, padding)]
    junk = np.pad(ids, wide, constant_values=int(rng.integers(0, 100)))
    padded = model(junk, np.pad(mask, wide))
    np.testing.assert_allclose(padded.last_hidden_state[:, :length], alone.last_hidden_state, atol=2e-5)
    assert not padded.last_hidden_state[:, length:].any()
    assert not alone.last_hidden_state[mask == 0].any()


def test_masked_tokens_may_be_anything(model):
    ids = np.array([[5, 6, 7, 8]])
    mask = np.array([[1, 0, 1, 0]])
    other = model(np.array([[5, 99, 7, 3]]), mask)
    np.testing.assert_array_equal(model(ids, mask).last_hidden_state, other.last_hidden_state)


def test_no_texts(model):
    out = model(np.zeros((0, 4), int))
    assert out.last_hidden_state.shape == (0, 4, 32) and out.logits.shape == (0, 4, model.config.vocab_size)


def test_a_row_with_nothing_attended_is_finite(bert_folder):
    out = ufbert.load(bert_folder)([[5, 6], [7, 8]], [[1, 1], [0, 0]])
    assert not out.last_hidden_state[1].any() and np.isfinite(out.pooler_output).all()


def test_a_batch_beyond_the_budget_runs_in_parts(model, monkeypatch):
    ids = np.random.default_rng(0).integers(0, 100, (7, 11))
    whole = model(ids).logits
    monkeypatch.setattr(encoder, "TOKEN_BUDGET", 25)
    np.testing.assert_allclose(model(ids).logits, whole, atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[120]],), "ids from 0 to 119, got 120"),
        (([[-1]],), "got -1"),
        (([[5]], None, [[2]]), "token_type_ids: expected ids from 0 to 1"),
        ((np.zeros((1, 41), int),), "at most 40 positions"),
        (([[5, 6]], [[1]]), "attention_mask: expected the shape"),
        (([[5, 6], [5]],), "input_ids: expected a padded 2-D array"),
        (([[5, 6]], [[1], [1, 1]]), "attention_mask: expected a padded 2-D array"),
        (([[5, 6]], None, [[1], [1, 1]]), "token_type_ids: expected a padded 2-D array"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ufbert.load(MODELS["bert"])(*arguments)


def test_sixteen_threads_give_the_same_bits(model):
    ids = np.random.default_rng(0).integers(0, 100, (8, 11))
    alone = model(ids).logits
    with ThreadPoolExecutor(16) as pool:
        for out in pool.map(lambda _: model(ids), range(64)):
            np.testing.assert_array_equal(out.logits, alone)


def test_fork_after_use(model):
    ids = np.random.default_rng(0).integers(0, 100, (64, 11))
    alone = model(ids).logits
    child = os.fork()
    if child == 0:
        os._exit(0 if np.allclose(model(ids).logits, alone, atol=1e-5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.memory
def test_memory_does_not_grow_with_calls(tmp_path):
    model = ufbert.load(write_bert(tmp_path / "model"))
    ids = np.arange(5, 25).reshape(4, 5)

    def resident():
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(200):
        model(ids)
    before = resident()
    for _ in range(2_000):
        model(ids)
    assert resident() - before < 4 * 2**20


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["bert-mlm", "bert-gelu-tanh", "ultrafastbert-3x2", "crammedbert-glu"])
def test_a_text_is_the_same_bits_alone_and_in_any_batch(monkeypatch, name, dtype):
    model = ufbert.load(GOLDEN / name, dtype)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 100, (60, 11))
    mask = np.arange(11) < rng.integers(1, 12, (60, 1))
    whole = model(ids, mask).last_hidden_state
    alone = np.concatenate([model(ids[i : i + 1], mask[i : i + 1]).last_hidden_state for i in range(60)])
    np.testing.assert_array_equal(alone, whole)
    np.testing.assert_array_equal(model(ids[::-1], mask[::-1]).last_hidden_state[::-1], whole)
    for threads in ("1", "3"):
        monkeypatch.setenv("UFBERT_NUM_THREADS", threads)
        np.testing.assert_array_equal(model(ids, mask).last_hidden_state, whole)


@pytest.mark.parametrize("name", ["bert-mlm", "ultrafastbert-3x2", "crammedbert-glu"])
def test_a_trace_is_the_run(name):
    model = ufbert.load(GOLDEN / name)
    batch, _ = from_padded(np.random.default_rng(0).integers(0, 100, (5, 11)))
    traces = list(model.encoder.trace(batch))
    assert len(traces) == len(model.encoder.layers)
    for layer, trace, other in zip(model.encoder.layers, traces, model.encoder.trace(batch, inputs=False), strict=True):
        np.testing.assert_array_equal(trace.output, other.output)
        assert other.feed_forward_input is None
        zero = np.zeros_like(trace.output)
        given = layer.feed_forward(trace.feed_forward_input, residual=zero)
        if layer.norm_position == "post":
            given = layer.norm2(given + trace.feed_forward_input)
            np.testing.assert_allclose(given, trace.output, atol=1e-5)
    last = traces[-1].output
    final = last if model.encoder.final_norm is None else model.encoder.final_norm(last)
    np.testing.assert_array_equal(model.encoder(batch), final)


def test_a_model_is_pickled_by_its_folder(monkeypatch, tmp_path):
    model = ufbert.load(os.path.relpath(MODELS["ultrafastbert"]), "bfloat16")
    stored = pickle.dumps(model)
    assert len(stored) < 1_000
    monkeypatch.chdir(tmp_path)
    ids = np.random.default_rng(0).integers(0, 100, (3, 11))
    np.testing.assert_array_equal(pickle.loads(stored)(ids).logits, model(ids).logits)
    assert copy.deepcopy(model) is copy.copy(model) is model
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(dataclasses.replace(model, reload=None))
