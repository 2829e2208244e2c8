"""MTEB's own mock tasks, and a task whose score is computed here too."""

import datasets
import mteb
import numpy as np
import pytest
from conftest import write_sentence_model
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.mocks import MOCK_TASK_TEST_GRID, MockRetrievalTask
from scipy.stats import spearmanr
from sentences import MODEL, SENTENCES

import ufbert
from ufbert.integrations.mteb import UfbertModel


@pytest.fixture(scope="module")
def model():
    return UfbertModel(MODEL)


@pytest.mark.parametrize("task", MOCK_TASK_TEST_GRID, ids=lambda task: task.metadata.name)
def test_mock_task(model, task):
    results = mteb.evaluate(model, task, cache=None, show_progress_bar=False).task_results
    assert [result.task_name for result in results] == [task.metadata.name] and np.isfinite(results[0].get_score())


def test_a_score_is_that_of_the_encoder(model):
    pairs = [(a, b) for a in SENTENCES for b in SENTENCES if a < b]
    scores = [float(len(set(a.split()) & set(b.split()))) for a, b in pairs]

    class Overlap(AbsTaskSTS):
        metadata = TaskMetadata(
            name="Overlap", description="Words.", type="STS", dataset={"path": "local/overlap", "revision": "1"},
            eval_splits=["test"], eval_langs=["eng-Latn"], main_score="cosine_spearman", category="t2t",
        )  # fmt: skip

        def load_data(self, **_):
            columns = {"sentence1": [a for a, _ in pairs], "sentence2": [b for _, b in pairs], "score": scores}
            self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_dict(columns)})
            self.data_loaded = True

    result = mteb.evaluate(model, Overlap(), cache=None, show_progress_bar=False).task_results[0]
    a, b = (
        ufbert.SentenceEncoder(MODEL).encode(texts, normalize_embeddings=True) for texts in zip(*pairs, strict=True)
    )
    np.testing.assert_allclose(result.get_score(), spearmanr(scores, (a * b).sum(1)).statistic, atol=1e-6)


def test_names_and_revisions_tell_models_apart(tmp_path):
    meta = UfbertModel(MODEL).mteb_model_meta
    assert meta.name == f"ufbert/{MODEL}" and meta.embed_dim == 384 and meta.max_tokens == 256
    assert UfbertModel(MODEL, dtype="int8").mteb_model_meta.revision != meta.revision
    one, two = write_sentence_model(tmp_path / "one"), write_sentence_model(tmp_path / "two", "pooling_mode_cls_token")
    assert UfbertModel(str(one)).mteb_model_meta.name == "ufbert/one"
    assert UfbertModel(str(two), revision="mine").mteb_model_meta.revision == "mine"
    with pytest.raises(ufbert.InputError, match="CPU"):
        UfbertModel(MODEL, device="cuda")


def test_prompts_of_the_model_are_used(tmp_path):
    folder = write_sentence_model(tmp_path / "prompts")
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "the cat "}}')
    model, task = UfbertModel(str(folder)), MockRetrievalTask().metadata
    given = {"task_metadata": task, "hf_split": "test", "hf_subset": "default"}
    query = model.encode([{"text": ["a"]}], prompt_type=mteb.types.PromptType.query, **given)
    document = model.encode([{"text": ["the cat a"]}], prompt_type=mteb.types.PromptType.document, **given)
    np.testing.assert_array_equal(query, document)
