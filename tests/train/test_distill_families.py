"""Students of teachers of every family that can be distilled."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import GOLDEN, VOCABULARY, add_mean_pooling, some_texts

import ufbert
from ufbert import SentenceEncoder
from ufbert.checkpoint.families import parse_config, rewritten
from ufbert.checkpoint.tensors import write_tensors
from ufbert.errors import CheckpointError
from ufbert.train import Bert
from ufbert.train.distill import Recipe, distill
from ufbert.train.distill.corpus import Chunks
from ufbert.train.distill.teacher import Teacher

torch.set_num_threads(1)  # tiny models: no pool of threads that spins in another's time
SMALL = Recipe(
    num_trees=3, depth=3, grow_tokens=60_000, local_tokens=40_000, tokens=40_000, batch_tokens=512, max_length=20
)  # fmt: skip
CHUNKED = Recipe(batch_tokens=256, max_length=20, joined=0.1, seed=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "texts.txt"
    file.write_text("\n".join(some_texts(1_500)) + "\n")
    return file


def closeness(first, second, texts):
    a, b = (SentenceEncoder(folder).encode(texts, normalize_embeddings=True) for folder in (first, second))
    return float((a * b).sum(1).mean())


@pytest.mark.parametrize("control", [None, "affine"])
def test_a_student_of_distilbert(corpus, tmp_path, control):
    source = GOLDEN / "sentence-transformers" / "distilbert"
    quick = dataclasses.replace(SMALL, control=control, local_tokens=5_000, tokens=5_000)
    out = distill(source, corpus, tmp_path / "student", quick)
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == ("distilbert" if control else "ufbert")
    assert closeness(source, out, some_texts(50)) > (0.7 if control else 0.9)
    assert SentenceEncoder(out).dimension == 10  # the dense module came along


def write_teacher(folder, model_type, **changes):
    """A sentence model of another family: random weights, its own kind of tokenizer."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 28}
    config = {"model_type": model_type, "vocab_size": 330, "max_position_embeddings": 40, **sizes, **changes}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    model = Bert(parse_config(config))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        scale = 0.4 if parameter.ndim > 1 else 0.2
        parameter.data = scale * torch.randn(parameter.shape, generator=generator) + ("norm" in name and parameter.ndim)
    write_tensors(folder / "model.safetensors", {name: ("F32", array) for name, array in model.tensors().items()})
    source = GOLDEN / "sentence-transformers" / ("xlm-roberta" if model_type == "camembert" else "roberta")
    if model_type == "electra":
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    else:
        shutil.copy(source / "tokenizer.json", folder)
    add_mean_pooling(folder)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 24, "pooling_mode_cls_token": True})
    )
    return folder


PADDED_BY_ONE = {"pad_token_id": 1, "type_vocab_size": 1}


FAMILIES = {
    "roberta": PADDED_BY_ONE,
    "xlm-roberta": PADDED_BY_ONE,
    "camembert": PADDED_BY_ONE,
    "mpnet": {"pad_token_id": 1},
    "electra": {"embedding_size": 8, "type_vocab_size": 2},
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_students_of_other_families(corpus, tmp_path, model_type):
    source = write_teacher(tmp_path / "teacher", model_type, **FAMILIES[model_type])
    texts = some_texts(200, seed=5)
    begun = dataclasses.replace(SMALL, grow_tokens=0, local_tokens=0, tokens=0)
    raw = distill(source, corpus, tmp_path / "raw", begun)
    whole = distill(source, corpus, tmp_path / "whole", dataclasses.replace(begun, tokens=12_000), start=raw)
    assert closeness(source, raw, texts) < closeness(source, whole, texts)
    assert closeness(source, whole, texts) > 0.9
    teacher, student = SentenceEncoder(source), SentenceEncoder(whole)
    theirs, ours = (encoder.tokenize("the cat sat, didn't it?") for encoder in (teacher, student))
    np.testing.assert_equal(ours, theirs)
    config = json.loads((whole / "config.json").read_text())
    assert config["model_type"] == "ufbert"
    kept = {"embedding_size": 8, "distance_buckets": 32}
    assert {key: config[key] for key in kept if config[key]} == {
        "electra": {"embedding_size": 8}, "mpnet": {"distance_buckets": 32}
    }.get(model_type, {})  # fmt: skip
    modules = (source / "1_Pooling" / "config.json", whole / "1_Pooling" / "config.json")
    assert modules[0].read_text() == modules[1].read_text()
    plain = Teacher(whole.parent / "teacher", plain=True)  # PyTorch's own operations see what the kernels see
    batch = Chunks(texts, plain.texts, CHUNKED).chunk(0)[0]
    for one, two in zip(plain(batch).outputs, Teacher(source)(batch).outputs, strict=True):
        torch.testing.assert_close(one, two, atol=2e-5, rtol=0)


def test_a_student_keeps_the_class_of_its_teacher_s_tokenizer(tmp_path):
    folder = GOLDEN / "roberta" / "base"
    student = Bert.from_folder(folder)
    student.replace_feed_forward(feed_forward="fff", num_trees=2, depth=2, output_bias=True)
    settings = json.loads((folder / "config.json").read_text())
    assert rewritten(settings, student.config)["tokenizer_class"] == "RobertaTokenizer"
    assert rewritten(settings | {"tokenizer_class": "X"}, student.config)["tokenizer_class"] == "X"


@pytest.mark.parametrize("name", ["modernbert", "nomic-bert"])
def test_teachers_of_families_that_cannot_be_distilled_are_refused_by_name(tmp_path, name):
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / name / "base", source)
    (source / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(CheckpointError, match=f"found {name.replace('-', '_')} with gated ones"):
        Teacher(source)


def test_positions_of_a_student_of_roberta(tmp_path):
    folder = GOLDEN / "roberta" / "base"
    student = Bert.from_folder(folder)
    student.replace_feed_forward(feed_forward="fff", num_trees=2, depth=2, output_bias=True)
    settings = rewritten(json.loads((folder / "config.json").read_text()), student.config)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    write_tensors(tmp_path / "model.safetensors", {name: ("F32", array) for name, array in student.tensors().items()})
    ids = np.array([[5, 6, 7, 8], [9, 6, 1, 1]])
    mask = (ids != 1).astype(np.int64)
    with torch.inference_mode():
        hidden = student(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    expected = ufbert.load(tmp_path)(ids, mask).last_hidden_state
    np.testing.assert_allclose(hidden * mask[:, :, None], expected, atol=2e-5)
