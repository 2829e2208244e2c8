"""Folders of cross-encoders give the scores that sentence-transformers computed (tolerance: 1e-5), and its ranking."""

import copy
import json
import pickle

import numpy as np
import pytest
from conftest import GOLDEN
from task_folders import write_task

import ufbert
from ufbert import CheckpointError, CrossEncoder, InputError

FOLDERS = sorted((GOLDEN / "cross-encoders").iterdir())
IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def golden(request):
    return CrossEncoder(request.param), json.loads((request.param / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    return write_task(tmp_path, "BertForSequenceClassification", labels=["yes"])


def test_scores(golden):
    model, expected = golden
    assert model.max_length == expected["max_length"]
    for name, arguments in {
        "predict": {},
        "tanh": {"activation_fn": "tanh"},
        "softmax": {"apply_softmax": True},
    }.items():
        if name in expected:
            scores = model.predict(expected["pairs"], **arguments)
            assert scores.dtype == np.float32
            np.testing.assert_allclose(scores, expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_ranking(golden):
    model, expected = golden
    query, documents = expected["pairs"][0][0], [text for _, text in expected["pairs"][:5]]
    if model.num_labels > 1:
        with pytest.raises(InputError, match="one label"):
            model.rank(query, documents)
        return
    ranked = model.rank(query, documents, top_k=3, return_documents=True)
    assert ranked == [wanted | {"score": pytest.approx(wanted["score"], abs=1e-5)} for wanted in expected["rank"]]
    whole = model.rank(query, iter(documents))
    assert [document["corpus_id"] for document in whole[:3]] == [document["corpus_id"] for document in ranked]
    assert len(whole) == 5 and "text" not in whole[0]


def test_pairs_of_any_kind(golden):
    model, expected = golden
    pairs = [tuple(pair) for pair in expected["pairs"]]
    scores = model.predict(pairs)
    for same in (iter(pairs), [list(pair) for pair in pairs], np.array(pairs)):
        np.testing.assert_allclose(model.predict(same), scores, atol=1e-6)
    np.testing.assert_allclose(np.array(list(model.stream(iter(pairs), batch_size=2))), scores, atol=1e-6)
    for alone in (pairs[0], list(pairs[0]), np.array(pairs[0])):
        np.testing.assert_allclose(model.predict(alone), scores[0], atol=1e-6)
    assert model.predict([]).shape == (0, *scores.shape[1:])
    assert model.predict(pairs, show_progress_bar=True).shape == scores.shape


@pytest.mark.parametrize("pairs", ["a", None, ["a"], ["a", "b", "c"], [("a", "b", "c")], [("a", 5)], [["a", "b"], "c"]])
def test_what_is_no_pair_is_refused(folder, pairs):
    with pytest.raises(InputError, match="sentences: expected"):
        CrossEncoder(folder).predict(pairs)


def test_arguments_are_checked(folder):
    model = CrossEncoder(folder, max_length=np.int64(8), on_overflow="error")
    assert model.max_length == 8
    with pytest.raises(InputError, match=r"pair.*longer than 8 tokens|longer than 8 tokens"):
        model.predict([("a b c", "a b c")])
    for name, value in {"activation_fn": "shrug", "batch_size": 0}.items():
        with pytest.raises(InputError, match=name):
            model.predict([], **{name: value})
    for name, value in {"activation_fn": "shrug", "on_overflow": "x", "max_length": 1, "dtype": "float64"}.items():
        with pytest.raises(InputError, match=name.replace("max_", "max_seq_")):
            CrossEncoder(folder, **{name: value})
    for query, documents in ((5, ["a"]), ("a", "b"), ("a", [5])):
        with pytest.raises(InputError, match=r"query|documents|sentences"):
            model.rank(query, documents)
    with pytest.raises(InputError, match="top_k"):
        model.rank("a", ["b"], top_k=0)


def test_an_activation_may_be_a_function(folder):
    model = CrossEncoder(folder, activation_fn=lambda logits: logits * 2)
    plain = CrossEncoder(folder, activation_fn="identity").predict(("a", "b"))
    np.testing.assert_allclose(model.predict(("a", "b")), 2 * plain)
    np.testing.assert_allclose(CrossEncoder(folder).predict(("a", "b")), 1 / (1 + np.exp(-plain)), atol=1e-6)


def test_equal_scores_keep_their_order(folder):
    ranked = CrossEncoder(folder, activation_fn=np.zeros_like).rank("a", ["b", "c", "d"], top_k=2)
    assert ranked == [{"corpus_id": 0, "score": 0.0}, {"corpus_id": 1, "score": 0.0}]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "config_sentence_transformers.json",
            {"activation_fn": "my.module.Function"},
            "activation_fn: expected a class",
        ),
        ("config_sentence_transformers.json", {"activation_fn": "torch.nn.Unknown"}, "activation_fn: expected a class"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "q", "prompts": {"q": "query: "}},
            "default_prompt_name: expected no prompt",
        ),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length"),
        ("sentence_bert_config.json", {"transformer_task": "text-generation"}, "transformer_task"),
    ],
)
def test_settings_that_would_change_scores_are_refused(folder, file, content, message):
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        CrossEncoder(folder)


def test_modules_behind_the_transformer_are_refused(folder):
    kinds = ["Transformer", "LogitScore"]
    modules = [{"type": f"sentence_transformers.base.modules.x.{kind}", "path": ""} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"modules.json: expected a Transformer alone .* \['LogitScore'\]"):
        CrossEncoder(folder)


def test_the_lengths_that_a_folder_says(folder):
    assert CrossEncoder(folder).max_length == 64
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 20}')
    for found, expected in ((12, 12), (30, 30), (99, 64), (None, 20)):
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": found}))
        assert CrossEncoder(folder).max_length == expected
    assert CrossEncoder(folder, max_length=64).max_length == 64


@pytest.mark.parametrize(
    ("file", "key"), [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")]
)
def test_a_folder_without_room_for_a_pair_is_refused(folder, file, key):
    (folder / file).write_text(json.dumps({key: 3}))  # room for one text, not for two
    with pytest.raises(CheckpointError, match=rf"{folder}.*from 4|{folder}.* the 4 tokens of the shortest pair"):
        CrossEncoder(folder)


def test_it_needs_a_classifier(tmp_path):
    with pytest.raises(CheckpointError, match="architecture for sequence-classification"):
        CrossEncoder(write_task(tmp_path, "BertForTokenClassification"))


def test_its_scores_are_the_classifiers(folder):
    pairs = [("a b", "the cat"), ("z", "")]
    logits = ufbert.TextClassifier(folder).logits(pairs)[:, 0]
    np.testing.assert_allclose(CrossEncoder(folder, activation_fn="identity").predict(pairs), logits, atol=1e-6)


def test_it_goes_to_other_processes(folder):
    model = CrossEncoder(folder, max_length=9, activation_fn="tanh", dtype="int8")
    pairs = [("a b c d e f", "the cat"), ("z", "")]
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict(pairs), model.predict(pairs))
