"""The clients that people have, as they are installed, against the service."""

import asyncio

import cohere
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from tei_client import HttpClient

import ufbert

pytest_plugins = "serving"
TEXTS = ["the cat", "a b c"]


@pytest.fixture(scope="module")
def expected(folders):
    return ufbert.SentenceEncoder(folders["tiny"]).encode(TEXTS, normalize_embeddings=True)


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The tests forbid the hub's library to ask the network; the service is on this machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def hub(url):
    return InferenceClient(model=url, provider="hf-inference", token="none")


def test_openai(url, expected):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    found = client.embeddings.create(model="tiny", input=TEXTS)  # asks for base64
    np.testing.assert_array_equal(np.array([row.embedding for row in found.data], np.float32), expected)
    as_floats = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float", dimensions=4)
    assert np.array([row.embedding for row in as_floats.data]).shape == (2, 4)
    assert found.usage.prompt_tokens == 9
    assert {"tiny", "trees"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError, match="expected one of") as refused:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert refused.value.code == "model_not_found" and refused.value.request_id
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.embeddings.create(model="tiny", input=[[1, 2, 3]])


def test_openai_asynchronous(url, expected):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            return await asyncio.gather(*(client.embeddings.create(model="tiny", input=text) for text in TEXTS * 8))

    rows = [np.array(found.data[0].embedding, np.float32) for found in asyncio.run(ask())]
    np.testing.assert_array_equal(rows, np.tile(expected, (8, 1)))


def test_openai_waits_as_it_is_told(running):
    with running(["tiny"], max_queue_tokens=4, log_requests=False) as server:
        ticket = server.service.queue.submit  # the queue is full for the first request
        refusals = []

        def submit(*arguments):
            if not refusals:
                refusals.append(server.service.queue._overloaded(1))
                raise refusals[0]
            return ticket(*arguments)

        server.service.queue.submit = submit
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=1)
        assert client.embeddings.create(model="tiny", input="a").data
        assert len(refusals) == 1


@pytest.mark.parametrize("make", [cohere.Client, cohere.ClientV2])
def test_cohere(url, make, folders):
    client = make(api_key="none", base_url=url)
    documents = ["a cat", "the dog", "b"]
    found = client.rerank(model="relevance", query="the cat", documents=documents, top_n=2)
    classifier = ufbert.TextClassifier(folders["relevance"])
    for row in found.results:
        score = classifier([("the cat", documents[row.index])])[0]["score"]
        assert np.float32(row.relevance_score) == np.float32(score)
    assert len(found.results) == 2


def test_cohere_embed(url, folders):
    client = cohere.ClientV2(api_key="none", base_url=url)
    found = client.embed(texts=TEXTS, model="tiny", input_type="search_document", embedding_types=["float"])
    encoder = ufbert.SentenceEncoder(folders["tiny"])
    expected = encoder.encode(TEXTS, prompt_name="document", normalize_embeddings=True)
    np.testing.assert_array_equal(np.array(found.embeddings.float_, np.float32), expected)
    with pytest.raises(cohere.NotFoundError):
        client.embed(texts=TEXTS, model="none", input_type="search_document", embedding_types=["float"])


def test_hub_embeddings(hub, expected):
    np.testing.assert_array_equal(hub.feature_extraction(TEXTS), expected)
    found = hub.sentence_similarity("the cat", other_sentences=["a cat", "b"])
    assert len(found) == 2 and found[0] > found[1]
    with pytest.raises(HfHubHTTPError, match="422"):
        hub.feature_extraction("a", prompt_name="nothing")


def test_hub_tasks(url, folders):
    def client(name):
        return InferenceClient(model=f"{url}/models/{name}", provider="hf-inference", token="none")

    labels = client("classes").text_classification("The fish was cold.", top_k=3)
    assert [label.label for label in labels] == [
        label["label"] for label in ufbert.TextClassifier(folders["classes"])("The fish was cold.", top_k=3)
    ]
    entities = client("entities").token_classification("John lives in New York.", aggregation_strategy="simple")
    assert [entity.word for entity in entities] == [
        entity["word"] for entity in ufbert.TokenClassifier(folders["entities"])("John lives in New York.")
    ]
    fills = client("fill").fill_mask("The [MASK] was cold.", top_k=2)
    assert [fill.token for fill in fills] == [
        fill["token"] for fill in ufbert.FillMask(folders["fill"])("The [MASK] was cold.", top_k=2)
    ]
    answer = client("answers").question_answering(question="Where?", context="John lives in New York.")
    assert answer.answer == ufbert.QuestionAnswerer(folders["answers"])("Where?", "John lives in New York.")["answer"]


def test_tei_client(url, expected):
    client = HttpClient(url)
    assert client.health()
    info = client.info()
    assert info.max_client_batch_size == 2048 and info.server_model_id == "tiny"
    assert client.prompt_names() == ["document", "query"]
    np.testing.assert_array_equal(np.array(client.embed(TEXTS), np.float32), expected)
    (tokens,) = client.tokenize("the cat")
    assert client.decode(tokens.get_ids()) in (["the cat"], "the cat")


def test_langchain(url, expected):
    options = {"model": "tiny", "base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
    embeddings = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    np.testing.assert_array_equal(np.array(embeddings.embed_documents(TEXTS), np.float32), expected)
    np.testing.assert_array_equal(np.array(embeddings.embed_query(TEXTS[0]), np.float32), expected[0])


class Tiktoken:
    """Stands for an encoding of OpenAI's, which would be downloaded."""

    def encode(self, text, **_):
        return list(map(ord, text))

    encode_ordinary = encode


def test_langchain_without_its_flag_is_told_which(url, monkeypatch):
    monkeypatch.setattr("tiktoken.encoding_for_model", lambda name: Tiktoken())
    embeddings = OpenAIEmbeddings(model="tiny", base_url=f"{url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.embed_documents(TEXTS)


def test_llama_index(url, expected):
    model = OpenAILikeEmbedding(model_name="tiny", api_base=f"{url}/v1", api_key="none", max_retries=0)
    np.testing.assert_array_equal(np.array(model.get_text_embedding_batch(TEXTS), np.float32), expected)
    np.testing.assert_array_equal(np.array(model.get_query_embedding(TEXTS[0]), np.float32), expected[0])
