"""Keywords found with our embeddings."""

import numpy as np
from keybert import KeyBERT
from keybert.backend._utils import select_backend
from sentences import MODEL, SENTENCES, TIDES
from sklearn.feature_extraction.text import CountVectorizer

import ufbert
from ufbert.integrations.keybert import UfbertBackend


def test_keywords_are_the_words_nearest_to_the_text():
    keybert, encoder = KeyBERT(UfbertBackend(MODEL)), ufbert.SentenceEncoder(MODEL)
    text = "The bank raised its interest rate on Monday. People who lend money to it will be glad, it said at noon."
    words = CountVectorizer(stop_words="english").fit([text]).get_feature_names_out().tolist()
    similar = encoder.similarity(encoder.encode(text), encoder.encode(words))[0]
    wanted = [words[index] for index in np.argsort(-similar)[:4]]
    found = keybert.extract_keywords(text, top_n=4)
    assert [word for word, _ in found] == wanted and "bank" in wanted
    np.testing.assert_allclose([score for _, score in found], np.sort(similar)[::-1][:4], atol=1e-4)
    assert keybert.extract_keywords(text, use_mmr=True, diversity=0.7, keyphrase_ngram_range=(1, 2), top_n=2)
    assert len(keybert.extract_keywords(TIDES)) == len(TIDES)


def test_the_backend_is_recognised_and_gives_the_encoders_embeddings():
    backend = UfbertBackend(MODEL)
    assert select_backend(backend) is backend
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    np.testing.assert_array_equal(backend.embed(SENTENCES), wanted)
    documents, words = KeyBERT(backend).extract_embeddings(SENTENCES)
    np.testing.assert_array_equal(documents, wanted)
    assert words.shape[1] == 384
