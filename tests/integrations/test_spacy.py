"""Components that spaCy finds by itself, stores and loads; vectors and entities are those of the tasks."""

import json

import numpy as np
import pytest
import spacy
from conftest import GOLDEN
from sentences import FOOD, MODEL, MONEY, SENTENCES
from spacy.tokens import DocBin

import ufbert

CLASSIFIER = GOLDEN / "pipelines" / "token-classification"


@pytest.fixture(scope="module")
def nlp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    nlp = spacy.blank("en")
    nlp.add_pipe("ufbert", config={"model": MODEL})
    nlp.add_pipe("ufbert_ner", config={"model": str(CLASSIFIER)})
    nlp.to_disk(folder)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 1_000_000  # no weights
    return spacy.load(folder)


def test_vectors_are_those_of_the_encoder(nlp):
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    np.testing.assert_array_equal([doc.vector for doc in nlp.pipe(SENTENCES, batch_size=4)], wanted)
    doc = nlp(SENTENCES[0])
    np.testing.assert_array_equal(doc.vector, wanted[0])
    assert doc.has_vector and doc.vector_norm == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(doc[:].vector, wanted[0])
    np.testing.assert_array_equal(doc[:].as_doc().vector, wanted[0])
    np.testing.assert_array_equal(doc[0].vector, ufbert.SentenceEncoder(MODEL).encode("Leaves"))


def test_similarity_is_the_cosine(nlp):
    encoder = ufbert.SentenceEncoder(MODEL)
    a, b, c = (nlp(text) for text in (FOOD[0], FOOD[1], MONEY[0]))
    assert a.similarity(b) == pytest.approx(encoder.similarity(*encoder.encode([FOOD[0], FOOD[1]]))[0, 0], abs=1e-6)
    assert a.similarity(b) > a.similarity(c)
    assert a[:2].similarity(b) != 0 and a[0].similarity(b[0]) != 0


def test_stored_documents_keep_their_embedding(nlp):
    stored = DocBin(store_user_data=True, docs=nlp.pipe(SENTENCES)).to_bytes()
    docs = list(DocBin().from_bytes(stored).get_docs(nlp.vocab))
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    np.testing.assert_array_equal([doc.user_data["ufbert"] for doc in docs], wanted)


def test_two_processes_give_the_same(nlp):
    docs = list(nlp.pipe(SENTENCES, n_process=2, batch_size=3))
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    np.testing.assert_array_equal([doc.user_data["ufbert"] for doc in docs], wanted)  # spaCy does not send hooks


def test_entities_are_those_of_the_classifier(nlp):
    inputs = [row["call"]["inputs"] for row in json.loads((CLASSIFIER / "expected.json").read_text(encoding="utf-8"))]
    texts = sorted({text for text in inputs if isinstance(text, str)})
    classifier = ufbert.TokenClassifier(CLASSIFIER)
    found = 0
    for doc, entities in zip(nlp.pipe(texts), classifier(texts, "first"), strict=True):
        assert doc.text in texts
        ends = {(entity["start"], entity["end"], entity["entity_group"]) for entity in entities}
        exact = {(e.start_char, e.end_char, e.label_) for e in doc.ents}
        for start, end, label in ends & exact:
            found += 1
            assert doc.char_span(start, end).text == doc.text[start:end] and label
        for ent in doc.ents:  # each covers an entity, or more where spaCy's token is longer
            assert any(ent.start_char <= s and e <= ent.end_char and g == ent.label_ for s, e, g in ends)
    assert found


def test_settings_are_checked():
    with pytest.raises(ufbert.CheckpointError, match="no-such-model"):
        spacy.blank("en").add_pipe("ufbert", config={"model": "no-such-model"})
