"""The OpenAPI document is that of the routes there are; the limits and figures that go with it."""

import re

import pytest
from starlette.routing import Route

from ufbert.server.app import HANDLERS, PAGE
from ufbert.server.metrics import Counter, Gauge, Histogram, Metrics

pytest_plugins = "serving"


def test_the_document_has_all_routes(http, server):
    paths = http.get("/api-doc/openapi.json").json()["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    app = server.config.app
    routes = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route) and (route.path == "/" or route.path not in PAGE)
        for method in route.methods - {"HEAD"}
    }
    assert documented == routes
    assert {path for method, path in routes if method == "POST"} == set(HANDLERS)


def test_every_field_that_is_read_is_documented(http):
    """A body with a field of the wrong type is refused by the name of that field."""
    paths = http.get("/api-doc/openapi.json").json()["paths"]
    good = {"inputs": "a", "input": "a", "texts": ["a"], "query": "a", "ids": [1]}
    for path in (
        "/embed",
        "/v1/embeddings",
        "/v2/embed",
        "/v1/embed",
        "/api/embed",
        "/embed_all",
        "/tokenize",
        "/routes",
    ):
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        body = {name: value for name, value in good.items() if name in schema["properties"]}
        if "texts" in body:  # in the place of which Cohere also takes inputs
            body.pop("inputs", None)
        assert http.post(path, json=body).status_code == 200, path
        for name in schema["properties"]:
            response = http.post(path, json=body | {name: {"a": 1}})
            assert response.status_code in (400, 422), (path, name)
            assert name in response.text


def test_metrics_are_in_prometheus_format(http):
    http.post("/embed", json={"inputs": ["the cat", "a"]})
    http.post("/predict", json={"inputs": "The fish"})
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r'[a-z_]+(\{([a-z_]+="[^"]*",?)+\})? -?[0-9.e+-]+(inf)?')
    lines = response.text.splitlines()
    assert all(line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line) for line in lines)
    for name in (
        "te_request_count", "te_request_success", "te_request_failure", "te_embed_count", "te_predict_success",
        "te_request_duration_bucket", "te_embed_queue_duration_sum", "te_predict_inference_duration_count",
        "te_request_input_length_bucket", "te_batch_next_size_sum", "te_batch_next_tokens_sum", "te_queue_size",
        "ufbert_queue_tokens", "ufbert_tokens",
    ):  # fmt: skip
        assert any(line.startswith(name) for line in lines), name


def test_histograms_count_from_below():
    found = Histogram("h", "about", (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        found.observe(value)
    assert [value for _, _, value in found.samples()] == [2, 3, 4, 12.0, 4]


def test_counters_and_gauges():
    counter = Counter("c", "about")
    counter.add(a="x")
    counter.add(2, a="x")
    assert list(counter.samples()) == [("c", (("a", "x"),), 3)]
    assert list(Gauge("g", "about", lambda: {"m": 2.0}).samples()) == [("g", (("model", "m"),), 2.0)]
    metrics = Metrics()
    metrics.requests.add(method='a"b\\c\n')
    assert 'te_request_count{method="a\\"b\\\\c\\n"} 1' in metrics.text()


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js"])
def test_the_page_comes_from_the_package(http, path):
    response = http.get(path)
    assert response.status_code == 200 and response.text
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert not re.search(r"https?://(?!www\.w3\.org)", response.text)  # nothing from elsewhere
