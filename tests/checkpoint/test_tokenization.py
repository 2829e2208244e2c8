"""Tokenizers from their files: what transformers gives for the same ones, and what is refused."""

import json

import numpy as np
import pytest
from conftest import GOLDEN, VOCABULARY, write_bert

import ufbert
from ufbert import CheckpointError
from ufbert.checkpoint.folder import ModelFolder
from ufbert.checkpoint.tokenization import load_tokenizer

STORED = json.loads((GOLDEN / "tokenizer-files" / "expected.json").read_text(encoding="utf-8"))
CONFIG = {"model_type": "bert", "architectures": ["BertModel"]}


def write(folder, files):
    for name, content in {"config.json": CONFIG, **files}.items():
        content = STORED["shared"][content] if isinstance(content, int) else content
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return ModelFolder(folder)


@pytest.mark.parametrize("name", STORED["cases"])
def test_ids_and_types_are_those_of_transformers(tmp_path, name):
    case = STORED["cases"][name]
    tokenizer = load_tokenizer(write(tmp_path, case["files"]), 64)
    for call in case["calls"]:
        text = call["text"][0] if len(call["text"]) == 1 else tuple(call["text"])
        (encoding,), _ = tokenizer.encode([text], call["max_length"])
        assert (encoding.ids, encoding.type_ids) == (call["ids"], call["types"]), text


@pytest.mark.parametrize(
    ("kind", "with_json"),
    [
        ("BertJapaneseTokenizer", False), ("BertJapaneseTokenizer", True), ("CanineTokenizer", False),
        ("KoBertTokenizer", False), ("XLMRobertaTokenizer", False), ("BertweetTokenizer", True),
        ("PreTrainedTokenizerFast", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_tokenizers_that_are_not_berts_are_refused_by_name(tmp_path, kind, with_json, file):
    files = {"tokenizer.json": 1} if with_json else {"vocab.txt": 0}
    folder = write(tmp_path, files | {file: CONFIG | {"tokenizer_class": kind}})
    with pytest.raises(CheckpointError, match=f"tokenizer_class: expected .*{kind}"):
        load_tokenizer(folder, 64)


def test_a_tokenizer_json_has_rules_of_its_own(tmp_path):
    folder = write(tmp_path, {"tokenizer.json": 1, "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer"}})
    assert load_tokenizer(folder, 64).encode(["the cat"])[0][0].ids == [2, 5, 6, 3]


@pytest.mark.parametrize("where", ["added_tokens.json", "tokenizer_config.json"])
def test_added_tokens_with_other_ids_are_refused(tmp_path, where):
    write_bert(tmp_path / "model", vocab_size=len(VOCABULARY) + 9)
    number = len(VOCABULARY) + 3
    decoder = {"added_tokens_decoder": {str(number): {"content": "[ENT]", "special": True}}}
    (tmp_path / "model" / where).write_text(json.dumps({"[ENT]": number} if where[0] == "a" else decoder))
    with pytest.raises(
        CheckpointError, match=f"added token '\\[ENT\\]': expected the id {number}.* found {number - 3}"
    ):
        load_tokenizer(ModelFolder(tmp_path / "model"), 32)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("added_tokens.json", {"[ENT]": "40"}),
        ("added_tokens.json", {"[ENT]": True}),
        ("added_tokens.json", {"": 40}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"40": {"content": 5}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"40": {"content": "a", "special": "yes"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": ["a"]}),
        ("tokenizer_config.json", {"additional_special_tokens": [5]}),
        ("tokenizer_config.json", {"additional_special_tokens": "abc"}),
        ("tokenizer_config.json", {"extra_special_tokens": 5}),
        ("tokenizer_config.json", {"truncation_side": "up"}),
        ("tokenizer_config.json", {"model_input_names": "input_ids"}),
        ("tokenizer_config.json", {"tokenizer_class": 5}),
        ("tokenizer_config.json", {"do_lower_case": "no"}),
    ],
)
def test_faulty_files_are_refused(tmp_path, file, content):
    folder = write(tmp_path, {"vocab.txt": 0, file: content})
    with pytest.raises(CheckpointError, match="expected"):
        load_tokenizer(folder, 64)


def test_a_converted_folder_keeps_added_tokens(tmp_path):
    folder = write_bert(tmp_path / "model", vocab_size=len(VOCABULARY))
    vocabulary = VOCABULARY[:-1]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "added_tokens.json").write_text(json.dumps({"[ENT]": len(vocabulary)}))
    encoders = [
        ufbert.SentenceEncoder(path, pooling="mean") for path in (folder, ufbert.convert(folder, tmp_path / "x"))
    ]
    ids = [encoder.tokenize(["the [ENT] cat"])["input_ids"] for encoder in encoders]
    np.testing.assert_array_equal(*ids)
    assert len(vocabulary) in ids[0]


def test_an_added_token_keeps_its_flags():
    """RoBERTa's mask takes the space before it, also where tokenizer_config.json gives its text alone."""
    folder = GOLDEN / "pipelines" / "fill-mask-roberta"
    assert json.loads((folder / "tokenizer_config.json").read_text())["mask_token"] == "<mask>"
    tokenizer = load_tokenizer(ModelFolder(folder), 64)
    one, two = tokenizer.encode(["to<mask>", "to <mask>"])[0]
    assert one.ids == two.ids


def test_without_token_types_special_tokens_are_of_no_text(tmp_path):
    data = json.loads((GOLDEN / "pipelines" / "question-answering-roberta" / "tokenizer.json").read_text())
    data["post_processor"] = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}
    settings = {"tokenizer_class": "RobertaTokenizer"}
    folder = write(tmp_path, {"tokenizer.json": json.dumps(data), "tokenizer_config.json": settings})
    (encoding,), _ = load_tokenizer(folder, 64).encode([("a", "b")])
    assert encoding.ids == [0, 68, 2, 69, 2] and encoding.type_ids == [0] * 5
    assert encoding.sequence_ids[2:] == [None, 1, None]


@pytest.fixture
def merges_folder(tmp_path):
    """A folder of RoBERTa's tokenizer without tokenizer.json, as before 2020."""
    data = json.loads((GOLDEN / "pipelines" / "fill-mask-roberta" / "tokenizer.json").read_text())
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in data["model"]["merges"]), ""])
    vocabulary = data["model"]["vocab"] | {token["content"]: token["id"] for token in data["added_tokens"]}
    config = CONFIG | {"model_type": "roberta", "architectures": ["RobertaModel"]}
    return write(tmp_path, {"vocab.json": json.dumps(vocabulary), "merges.txt": merges, "config.json": config})


def test_a_vocabulary_with_merges_is_robertas(merges_folder):
    texts = [
        "The train to <mask> leaves<mask>.",
        "\u00c9mile's caf\u00e9  \u6771\u4eac \U0001f642\n",
        ("one", "two"),
        "",
        "<s> a </s>",
    ]
    expected = load_tokenizer(ModelFolder(GOLDEN / "pipelines" / "fill-mask-roberta"), 64)
    found = load_tokenizer(merges_folder, 64)
    assert found.special_tokens == expected.special_tokens
    for one, two in zip(found.encode(texts, offsets=True)[0], expected.encode(texts, offsets=True)[0], strict=True):
        assert (one.ids, one.type_ids, one.offsets) == (two.ids, two.type_ids, two.offsets)
    ids = found.encode(texts[:2])[0][1].ids
    assert found.decode(ids, True) == expected.decode(ids, True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", "[]", "expected an object"),
        ("vocab.json", "{}", "expected tokens with ids, <unk>"),
        ("vocab.json", '{"<unk>": "a", "</s>": 1, "<pad>": 2, "<s>": 3}', "expected a tokenizer"),
        ("merges.txt", "a\n", "expected a tokenizer"),
        ("merges.txt", "not there\n", "expected a tokenizer"),
        ("merges.txt", None, "tokenizer_class: expected BERT's or a tokenizer.json, found RobertaTokenizer without it"),
    ],
)
def test_faulty_merges_are_refused(merges_folder, name, content, message):
    (merges_folder.path / name).unlink()
    if content is not None:
        (merges_folder.path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(merges_folder, 64)
