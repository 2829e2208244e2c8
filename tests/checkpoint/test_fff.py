"""BERT folders with FFF layers, and the controls: layers with no neurons, and affine ones."""

import contextlib
import math

import numpy as np
import pytest
from conftest import BERT_CONFIG, FFF_CONFIG, add_mean_pooling, bert_tensors, fff_tensors, write_bert, write_fff
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from lab import examples

import ufbert
from ufbert import CheckpointError, UfbertError, reference

IDS = np.array([[2, 5, 6, 7, 8, 3], [2, 30, 31, 32, 33, 3]])
DTYPES = ("float32", "bfloat16", "int8")
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.2}  # on hidden states of unit variance
HEADS = {
    "BertForMaskedLM": {
        "cls.predictions.transform.dense.weight": (12, 12),
        "cls.predictions.transform.dense.bias": (12,),
        "cls.predictions.transform.LayerNorm.weight": (12,),
        "cls.predictions.transform.LayerNorm.bias": (12,),
        "cls.predictions.bias": (FFF_CONFIG["vocab_size"],),
    },
    "BertForSequenceClassification": {"classifier.weight": (2, 12), "classifier.bias": (2,)},
    "BertForTokenClassification": {"classifier.weight": (2, 12), "classifier.bias": (2,)},
    "BertForQuestionAnswering": {"qa_outputs.weight": (2, 12), "qa_outputs.bias": (2,)},
}


def bert_reference(tensors, config, feed_forward):
    """Hidden states of a post-norm BERT, text by text, in float64."""
    tensors = {name: array.astype(np.float64) for name, array in tensors.items()}
    heads = config["num_attention_heads"]

    def linear(x, name):
        return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]

    def norm(x, name):
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return scaled * tensors[name + ".weight"] + tensors[name + ".bias"]

    def attention(x, stem):
        q, k, v = (linear(x, f"{stem}.self.{name}") for name in ("query", "key", "value"))
        context = []
        for a, b, c in zip(*(np.split(part, heads, axis=1) for part in (q, k, v)), strict=True):
            scores = np.exp(a @ b.T / math.sqrt(a.shape[1]))
            context.append(scores / scores.sum(axis=1, keepdims=True) @ c)
        return linear(np.concatenate(context, axis=1), stem + ".output.dense")

    texts = []
    for ids in IDS:
        x = tensors["embeddings.word_embeddings.weight"][ids]
        x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
        x = norm(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for index in range(config["num_hidden_layers"]):
            stem = f"encoder.layer.{index}"
            x = norm(x + attention(x, stem + ".attention"), stem + ".attention.output.LayerNorm")
            x = norm(x + feed_forward(x, tensors, stem), stem + ".output.LayerNorm")
        texts.append(x)
    return np.stack(texts)


def fff_by_reference(config):
    def feed_forward(x, tensors, stem):
        shape = (config["num_trees"], 2 ** (config["depth"] + 1) - 1, config["hidden_size"])
        w_in = tensors[stem + ".ffn.linear_in.weight"].reshape(shape)
        b_in = tensors[stem + ".ffn.linear_in.bias"].reshape(shape[:2])
        w_out = tensors[stem + ".ffn.linear_out.weight"].T.reshape(shape)
        y = reference.fff_forward(x, w_in, b_in, w_out, config["depth"], activation=config.get("hidden_act", "gelu"))
        return y + tensors.get(stem + ".ffn.linear_out.bias", 0)

    return feed_forward


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output_bias": False},
        {"num_trees": 1, "depth": 5},
        {"num_trees": 9, "depth": 0},
        {"hidden_act": "relu"},
        {"hidden_act": "silu", "num_trees": 3, "depth": 1},
    ],
    ids=str,
)
def test_outputs_are_the_reference(tmp_path, changes, dtype):
    config = FFF_CONFIG | changes
    # Far from where rounding flips a branch: biases that outweigh inputs, so that paths are the same in every dtype.
    tensors = fff_tensors(config)
    for name in tensors:
        if name.endswith("linear_in.bias"):
            tensors[name] = 8 * np.sign(tensors[name])
    found = ufbert.load(write_fff(tmp_path / "model", tensors, **changes), dtype)(IDS).last_hidden_state
    expected = bert_reference(tensors, config, fff_by_reference(config))
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("seed", range(5))
def test_paths_that_depend_on_the_tokens(tmp_path, seed):
    tensors = fff_tensors(seed=seed)
    found = ufbert.load(write_fff(tmp_path / "model", tensors))(IDS).last_hidden_state
    expected = bert_reference(tensors, FFF_CONFIG, fff_by_reference(FFF_CONFIG))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", HEADS)
def test_heads_stand_on_prefixed_encoders(tmp_path, architecture):
    rng = np.random.default_rng(1)
    head = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in HEADS[architecture].items()}
    tensors = {"bert." + name: array for name, array in fff_tensors().items()}
    folder = write_fff(tmp_path / "model", tensors | head, architectures=[architecture])
    model = ufbert.load(folder)
    assert model.config.task != "base" and model(IDS).logits is not None
    expected = ufbert.load(write_fff(tmp_path / "bare"))(IDS).last_hidden_state
    np.testing.assert_array_equal(model(IDS).last_hidden_state, expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 0.02), ("bfloat16", 0.2)])
def test_convert(tmp_path, dtype, tolerance):
    source = add_mean_pooling(write_fff(tmp_path / "source"))
    target = ufbert.convert(source, tmp_path / "target", dtype)
    expected = ufbert.SentenceEncoder(source).encode("the cat")
    np.testing.assert_allclose(ufbert.SentenceEncoder(target).encode("the cat"), expected, atol=tolerance)


STEM = "encoder.layer.1.ffn."


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("linear_in.weight", None, "expected it from config.json, it is missing"),
        ("linear_in.bias", None, "expected it from config.json, it is missing"),
        ("linear_out.weight", None, "expected it from config.json, it is missing"),
        ("linear_out.bias", None, "expected it from config.json, it is missing"),
        ("linear_in.weight", np.zeros((15, 12)), r"expected shape \(30, 12\) .* found \(15, 12\)"),
        ("linear_in.bias", np.zeros((2, 15)), r"expected shape \(30,\) .* found \(2, 15\)"),
        ("linear_out.weight", np.zeros((30, 12)), r"expected shape \(12, 30\) .* found \(30, 12\)"),
        ("linear_out.bias", np.zeros(30), r"expected shape \(12,\) .* found \(30,\)"),
        ("surprise", np.zeros(3), "does not account for"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, name, value, message):
    tensors = fff_tensors()
    tensors.pop(STEM + name, None)
    if value is not None:
        tensors[STEM + name] = value.astype(np.float32)
    with pytest.raises(CheckpointError, match="ffn." + name + ".*" + message):
        ufbert.load(write_fff(tmp_path / "model", tensors))


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_of_any_setting_is_understood_or_refused(tmp_path, data):
    key = data.draw(st.sampled_from([*FFF_CONFIG, "hidden_act", "pruned", "intermediate_size"]))
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.integers(0, 30) | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )
    folder = write_fff(tmp_path / "model", fff_tensors(), **{key: data.draw(values)})
    with contextlib.suppress(UfbertError):
        ufbert.load(folder)


def test_a_bias_that_config_json_does_not_have_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"linear_out.bias: found 2 tensor"):
        ufbert.load(write_fff(tmp_path / "model", fff_tensors(), output_bias=False))


def test_a_dense_folder_is_no_fff_folder_and_the_reverse(tmp_path):
    with pytest.raises(CheckpointError, match=r"linear_in.weight: expected it"):
        ufbert.load(write_fff(tmp_path / "a", bert_tensors(BERT_CONFIG)))
    with pytest.raises(CheckpointError, match=r"intermediate.dense.weight: expected it"):
        ufbert.load(write_bert(tmp_path / "b", fff_tensors()))


@pytest.mark.parametrize("model_type", ["bert", "ufbert"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "linear", "mish"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_neurons_leave_the_output_bias(tmp_path, activation, dtype, model_type):
    config = BERT_CONFIG | {"intermediate_size": 0, "hidden_act": activation, "model_type": model_type}
    tensors = bert_tensors(config)
    folder = write_bert(tmp_path / "model", tensors, config, feed_forward="dense")
    expected = bert_reference(tensors, config, lambda x, tensors, stem: tensors[stem + ".output.dense.bias"])
    found = ufbert.load(folder, dtype)(IDS).last_hidden_state
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype])
    again = ufbert.load(ufbert.convert(folder, tmp_path / "float16"))(IDS).last_hidden_state
    np.testing.assert_allclose(again, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_affine_map_in_place_of_each_layer(tmp_path, dtype):
    config = BERT_CONFIG | {"hidden_act": "linear"}
    tensors = bert_tensors(config)

    def affine(x, tensors, stem):
        inner = x @ tensors[stem + ".intermediate.dense.weight"].T + tensors[stem + ".intermediate.dense.bias"]
        return inner @ tensors[stem + ".output.dense.weight"].T + tensors[stem + ".output.dense.bias"]

    found = ufbert.load(write_bert(tmp_path / "model", tensors, config), dtype)(IDS).last_hidden_state
    np.testing.assert_allclose(found, bert_reference(tensors, config, affine), rtol=0, atol=TOLERANCE[dtype])
