"""Topics found with our embeddings, stored, and loaded with the backend."""

import numpy as np
import pytest
from bertopic import BERTopic
from bertopic.backend._utils import select_backend
from sentences import FOOD, MODEL, SENTENCES
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import ufbert
from ufbert.integrations.bertopic import UfbertBackend

ENDINGS = ["", " Everybody knows it.", " So the teacher said.", " It was in the paper."]
TEXTS = [text + ending for text in SENTENCES for ending in ENDINGS]
SUBJECTS = np.repeat([0, 1, 2], len(FOOD) * len(ENDINGS))


@pytest.fixture(scope="module")
def model():
    cluster, reduce = KMeans(3, n_init=10, random_state=0), PCA(5, random_state=0)
    model = BERTopic(embedding_model=UfbertBackend(MODEL), umap_model=reduce, hdbscan_model=cluster)
    model.fit(TEXTS)
    return model


def test_each_subject_is_a_topic(model):
    topics = np.array(model.topics_)
    assert len(set(topics)) == 3
    shares = [np.bincount(topics[subject == SUBJECTS]).max() for subject in range(3)]
    assert sum(shares) >= 0.9 * len(TEXTS)


def test_a_stored_model_goes_on(model, tmp_path):
    model.save(str(tmp_path / "topics"), serialization="safetensors", save_embedding_model=False)
    again = BERTopic.load(str(tmp_path / "topics"), embedding_model=UfbertBackend(MODEL))
    new = ["Seaweed and other plants make sugar of light.", "The tide comes in at noon.", "The bank gave us a loan."]
    found = again.transform(new)[0]
    wanted = [np.bincount(np.array(model.topics_)[subject == SUBJECTS]).argmax() for subject in range(3)]
    assert list(found) == wanted
    assert len(again.find_topics("money")[0]) > 0


def test_umap_and_hdbscan_as_they_come():
    topics, _ = BERTopic(embedding_model=UfbertBackend(MODEL), min_topic_size=5).fit_transform(TEXTS)
    assert len(topics) == len(TEXTS)


def test_the_backend_is_recognised_and_gives_the_encoders_embeddings():
    backend = UfbertBackend(MODEL)
    assert select_backend(backend) is backend
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    np.testing.assert_array_equal(backend.embed_documents(SENTENCES), wanted)
    np.testing.assert_array_equal(backend.embed_words(np.array(SENTENCES)), wanted)
