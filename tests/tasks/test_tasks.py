"""What transformers' pipelines do not pin: arguments, refusals, order, long texts."""

import numpy as np
import pytest
from conftest import BERT_CONFIG, GOLDEN, bert_tensors, write_bert

import ufbert
from ufbert import CheckpointError, InputError

PIPELINES = GOLDEN / "pipelines"


@pytest.fixture(scope="module")
def fill_mask():
    return ufbert.FillMask(PIPELINES / "fill-mask")


@pytest.fixture(scope="module")
def classifier():
    return ufbert.TextClassifier(PIPELINES / "text-classification")


@pytest.fixture(scope="module")
def answerer():
    return ufbert.QuestionAnswerer(PIPELINES / "question-answering")


def test_fill_mask_list_in_list_out(fill_mask):
    one = fill_mask("The [MASK].", top_k=2)
    assert fill_mask(["The [MASK]."], top_k=2) == [one]
    assert [len(fills) for fills in fill_mask(["The [MASK].", "[MASK] [MASK]"], top_k=2)] == [2, 2]
    assert fill_mask([]) == []


def test_fill_mask_gives_the_whole_vocabulary_where_asked(fill_mask):
    fills = fill_mask("The [MASK].", top_k=10_000)
    assert sum(fill["score"] for fill in fills) == pytest.approx(1, abs=1e-5)
    assert [fill["score"] for fill in fills] == sorted((fill["score"] for fill in fills), reverse=True)


def test_fill_mask_refuses_texts_without_a_mask(fill_mask):
    with pytest.raises(InputError, match=r"text 1: expected at least one \[MASK\]"):
        fill_mask(["[MASK]", "nothing"])
    with pytest.raises(InputError, match=r"text 0: expected at least one \[MASK\]"):
        fill_mask("word " * 500 + "[MASK]")  # it was cut off


def test_pairs_as_tuples_and_dicts(classifier):
    pair = ("The fish was cold.", "Nobody came.")
    as_dict = {"text": pair[0], "text_pair": pair[1]}
    assert classifier([pair]) == classifier([as_dict]) == [classifier(as_dict)]
    assert classifier(pair) == classifier([pair])
    with pytest.raises(InputError, match="text_pair"):
        classifier([{"txt": "x"}])


def test_many_texts_keep_their_order(classifier):
    texts = [f"Text number {n} " + "and so on " * (n % 7) for n in range(50)]
    alone = [classifier(text, top_k=None) for text in texts]
    together = classifier(texts, top_k=None, batch_size=8)
    for one, other in zip(alone, together, strict=True):
        assert [label["label"] for label in one] == [label["label"] for label in other]
        np.testing.assert_allclose([x["score"] for x in one], [x["score"] for x in other], atol=1e-5)


def test_overflow_is_an_error_where_asked(classifier):
    with pytest.raises(InputError, match="tokens too many"):
        classifier("word " * 500, on_overflow="error")


def test_answers_are_found_beyond_the_first_span(answerer):
    context = "Nothing here. " * 60 + "John Smith lives in Brooklyn."
    answers = answerer(question="Where?", context=context, top_k=50, max_seq_len=30, doc_stride=8)
    assert all(context[a["start"] : a["end"]] == a["answer"] for a in answers)
    assert any(a["start"] >= 60 * 14 for a in answers)


def test_questions_and_contexts_in_lists(answerer):
    context = "John lives in New York."
    one = answerer(question="Where?", context=context)
    many = answerer(question=["Where?", "Who?"], context=context)
    assert many[0]["answer"] == one["answer"] and len(many) == 2
    with pytest.raises(InputError, match="one for each of 2 questions"):
        answerer(question=["a", "b"], context=["c", "d", "e"])
    with pytest.raises(InputError, match="doc_stride"):
        answerer(question="Where?", context=context * 30, max_seq_len=20, doc_stride=19)


@pytest.mark.parametrize("arguments", [{"top_k": 0}, {"top_k": True}, {"top_k": 1.0}])
def test_nonsense_is_refused(fill_mask, arguments):
    with pytest.raises(InputError, match="positive integer"):
        fill_mask("[MASK]", **arguments)


@pytest.mark.parametrize("texts", [None, 5, b"x", np.array("a"), [None], [b"x"], {"a": 1}, [["a", "b", "c"]], [[[]]]])
def test_other_things_than_texts_are_refused(fill_mask, classifier, answerer, texts):
    ner = ufbert.TokenClassifier(PIPELINES / "token-classification")
    for call in (fill_mask, classifier, ner, lambda x: answerer(x, "a"), lambda x: answerer("a", x)):
        with pytest.raises(InputError, match="expected"):
            call(texts)
    if texts is not None:
        with pytest.raises(InputError, match="ignore_labels"):
            ner("a", ignore_labels=texts)


@pytest.mark.parametrize("size", [10**6 + 1, 10**30, 0, "8", None, 1.5])
def test_batch_sizes_that_are_none(fill_mask, classifier, answerer, size):
    ner = ufbert.TokenClassifier(PIPELINES / "token-classification")
    for call in (fill_mask, classifier, ner, lambda x, **options: answerer(x, x, **options)):
        with pytest.raises(InputError, match="batch_size: expected an integer from 1 to 1000000"):
            call("[MASK]", batch_size=size)


@pytest.mark.parametrize("strategy", ["shrug", None, [], np.array(["a", "b"])])
def test_overflow_strategies_that_are_none(fill_mask, classifier, strategy):
    for call in (fill_mask, classifier):
        with pytest.raises(InputError, match="on_overflow"):
            call([], on_overflow=strategy)


def test_limits_of_answers(answerer):
    question = {"question": "Where?", "context": "John lives in New York."}
    assert answerer(**question, max_seq_len=None, max_answer_len=10**30) == answerer(**question, max_answer_len=384)
    for name, value in [("max_seq_len", "9"), ("max_seq_len", 2.5), ("doc_stride", -1), ("doc_stride", "1")]:
        with pytest.raises(InputError, match=name):
            answerer(**question, **{name: value})


@pytest.mark.parametrize("prefix", ["S-", "E-", "B-", "I-", "X-"])
def test_a_group_is_named_without_its_prefix(tmp_path, prefix):
    hidden = BERT_CONFIG["hidden_size"]
    tensors = {f"bert.{name}": array for name, array in bert_tensors(BERT_CONFIG).items() if "pooler" not in name}
    tensors |= {"classifier.weight": np.zeros((2, hidden), np.float32), "classifier.bias": np.float32([0, 9])}
    labels = {"0": "O", "1": prefix + "PER-SON"}
    folder = write_bert(tmp_path, tensors, architectures=["BertForTokenClassification"], id2label=labels)
    ner = ufbert.TokenClassifier(folder)
    assert {entity["entity_group"] for entity in ner("a b")} == {"PER-SON"}
    assert ner("a", ignore_labels="PER-SON") == [] and len(ner("a", ignore_labels=None)) == 1


def test_a_task_wants_its_own_head(tmp_path):
    with pytest.raises(CheckpointError, match="architecture for masked-lm, found one for base"):
        ufbert.FillMask(write_bert(tmp_path / "base"))


def test_a_base_model_ignores_the_heads_of_a_checkpoint(tmp_path):
    tensors = {f"bert.{name}": array for name, array in bert_tensors(BERT_CONFIG).items()}
    hidden = BERT_CONFIG["hidden_size"]
    tensors |= {"classifier.weight": np.zeros((5, hidden), np.float32), "classifier.bias": np.zeros(5, np.float32)}
    folder = write_bert(tmp_path / "model", tensors, architectures=["BertForTokenClassification"])
    with pytest.raises(CheckpointError, match=r"classifier.weight"):
        ufbert.load(folder)  # 2 labels by default, 5 in the file
    assert ufbert.SentenceEncoder(folder, pooling="mean").encode("a").shape == (hidden,)


@pytest.mark.parametrize(("dtype", "closeness"), [("bfloat16", 0.999), ("int8", 0.98)])
def test_reduced_precision_stays_close(tmp_path, dtype, closeness):
    folder = write_bert(tmp_path / "model")
    texts = ["the cat.", "a b c d e f g", "z!"]
    exact = ufbert.SentenceEncoder(folder, pooling="mean").encode(texts, normalize_embeddings=True)
    found = ufbert.SentenceEncoder(folder, pooling="mean", dtype=dtype).encode(texts, normalize_embeddings=True)
    assert closeness < np.einsum("nd,nd->n", exact, found).min() < 1
    with pytest.raises(InputError, match="dtype: expected one of float32, bfloat16, int8"):
        ufbert.FillMask(PIPELINES / "fill-mask", "float64")
