"""Fine-tuning: what it writes, that it resumes, and that torch and ufbert agree on it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import BERT_CONFIG, FFF_CONFIG, GOLDEN, VOCABULARY, bert_tensors, fff_tensors, write_bert, write_fff
from safetensors.numpy import load_file

import ufbert
from ufbert import InputError
from ufbert.glue import evaluate, find_classifiers, load_task
from ufbert.train import Bert, run
from ufbert.train.finetune import FinetuneRecipe, command, finetune

RECIPE = FinetuneRecipe(epochs=40, learning_rate=1e-2, batch_size=4)
ENCODERS = {
    "dense": (write_bert, bert_tensors, BERT_CONFIG),
    "fff": (write_fff, fff_tensors, FFF_CONFIG),
}


@pytest.fixture
def data(tmp_path):
    """A custom task with pairs: the second text says whether it is a or b; and one with scores."""
    rows = [(f"the {x}", f"{y} cat", y) for x in "cdefghij" for y in "ab"]
    for name, label in (("Pairs", str), ("Scores", lambda y: "4.5" if y == "a" else "1.0")):
        (tmp_path / "data" / name).mkdir(parents=True)
        header = "one\ttwo\t" + ("label" if name == "Pairs" else "score")
        text = "\n".join([header, *("\t".join((x, y, label(z))) for x, y, z in rows), ""])
        for split in ("train", "dev"):
            (tmp_path / "data" / name / f"{split}.tsv").write_text(text)
    return tmp_path / "data"


@pytest.fixture(params=ENCODERS)
def encoder(request, tmp_path):
    write, draw, config = ENCODERS[request.param]
    norms = {name: np.ones_like(array) for name, array in draw(config).items() if name.endswith("LayerNorm.weight")}
    return write(tmp_path / "encoder", draw(config) | norms)  # so that it can be trained


def torch_logits(folder, texts):
    """The classifier of a folder in torch: encoder, pooler and linear layer."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in load_file(folder / "model.safetensors").items()}
    model, tokenizer = Bert.from_folder(folder), ufbert.TextClassifier(folder)._texts.tokenizer
    logits = []
    for text in texts:
        encoding = tokenizer.encode([text])[0][0]
        ids, types = torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
        with torch.no_grad():
            first = model(ids, None, types)[:, 0]
            pooled = torch.tanh(first @ tensors["bert.pooler.dense.weight"].T + tensors["bert.pooler.dense.bias"])
            logits.append((pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"])[0].numpy())
    return np.array(logits)


def test_a_pair_task_is_learnt_and_torch_and_ufbert_agree(encoder, data, tmp_path):
    task, folder = load_task(data, "Pairs")
    out = finetune(encoder, task, folder, tmp_path / "out" / "Pairs", RECIPE)
    classifier = ufbert.TextClassifier(out)
    assert classifier.labels == ["a", "b"] and find_classifiers(out, None) == {"Pairs": out}
    assert evaluate(classifier, task, folder)[0].metrics == {"accuracy": 1.0}
    texts = [("the c", "a cat"), ("the", "b"), ("cat cat cat", "the a b")]
    expected = torch_logits(out, texts)
    np.testing.assert_allclose(classifier.logits(texts), expected, atol=1e-3)
    assert [found["label"] for found in classifier(texts)] == [classifier.labels[row.argmax()] for row in expected]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Pairs"]  # no scratch is left
    log = json.loads((out / "training.json").read_text())
    assert log["made_by"]["recipe"]["epochs"] == 40 and log["log"][-1]["step"] == 160


def test_scores_are_learnt(data, tmp_path):
    task, folder = load_task(data, "Scores")
    out = finetune(write_bert(tmp_path / "encoder"), task, folder, tmp_path / "out", RECIPE)
    assert evaluate(ufbert.TextClassifier(out), task, folder)[0].metrics["spearman"] > 0.8
    assert json.loads((out / "config.json").read_text())["problem_type"] == "regression"


def test_every_word_embedding_is_there_and_those_not_seen_are_as_before(data, tmp_path):
    before = load_file(write_bert(tmp_path / "encoder") / "model.safetensors")
    task, folder = load_task(data, "Pairs")
    out = finetune(tmp_path / "encoder", task, folder, tmp_path / "out", RECIPE)
    name = "embeddings.word_embeddings.weight"
    old, new = before[name], load_file(out / "model.safetensors")["bert." + name]
    changed = set(np.flatnonzero((old != new).any(axis=1)).tolist())
    vocabulary = (tmp_path / "encoder" / "vocab.txt").read_text().splitlines()
    words = {"[CLS]", "[SEP]", "the", "cat", *"abcdefghij"}
    assert changed == {vocabulary.index(word) for word in words}


def test_one_seed_gives_one_classifier(data, tmp_path):
    task, folder = load_task(data, "Pairs")
    encoder, recipe = write_bert(tmp_path / "encoder"), FinetuneRecipe(epochs=1)
    first, again, other = (
        load_file(finetune(encoder, task, folder, tmp_path / str(n), recipe, seed) / "model.safetensors")
        for n, seed in enumerate((0, 0, 1))
    )
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["classifier.weight"] != other["classifier.weight"]).any()


def test_a_run_that_is_killed_goes_on_and_ends_as_it_would_have(encoder, data, tmp_path):
    task, folder = load_task(data, "Pairs")
    recipe = FinetuneRecipe(epochs=60, batch_size=4)
    whole = load_file(finetune(encoder, task, folder, tmp_path / "whole", recipe) / "model.safetensors")
    code = (  # on as many threads: PyTorch's sums depend on them
        f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
        "from ufbert.glue import load_task\n"
        "from ufbert.train import run\n"
        "from ufbert.train.finetune import FinetuneRecipe, finetune\n"
        f"run.SAVE_EVERY = 0.0; task, folder = load_task({str(data)!r}, 'Pairs')\n"
        "recipe = FinetuneRecipe(epochs=60, batch_size=4)\n"
        f"finetune({str(encoder)!r}, task, folder, {str(tmp_path / 'out')!r}, recipe)\n"
    )
    state = tmp_path / ".out.training" / "state.safetensors"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    resumed = finetune(encoder, task, folder, tmp_path / "out", recipe)
    steps = [entry["step"] for entry in json.loads((resumed / "training.json").read_text())["log"]]
    assert steps == [50, 100, 150, 200, 240]
    found = load_file(resumed / "model.safetensors")
    assert all((found[name] == whole[name]).all() for name in whole)


def test_a_finished_folder_is_left_as_it_is_and_another_call_is_refused(data, tmp_path):
    task, folder = load_task(data, "Pairs")
    encoder, recipe = write_bert(tmp_path / "encoder"), FinetuneRecipe(epochs=1)
    out = finetune(encoder, task, folder, tmp_path / "out", recipe)
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    assert finetune(encoder, task, folder, out, recipe) == out
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="expected nothing, or what the same call has made before"):
        finetune(encoder, task, folder, out, recipe, seed=1)


def test_states_of_other_runs_and_broken_ones_are_refused(data, tmp_path, monkeypatch):
    task, folder = load_task(data, "Pairs")
    encoder = write_bert(tmp_path / "encoder")
    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(command, "_finish", lambda *_: None)
    finetune(encoder, task, folder, tmp_path / "out", FinetuneRecipe(epochs=1))
    with pytest.raises(InputError, match="expected to go on with recipe"):
        finetune(encoder, task, folder, tmp_path / "out", FinetuneRecipe(epochs=2))
    state = tmp_path / ".out.training" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(InputError, match="expected a whole checkpoint of training"):
        finetune(encoder, task, folder, tmp_path / "out", FinetuneRecipe(epochs=1))


def test_top_layers_alone_are_stored_and_share_the_encoder(encoder, data, tmp_path):
    task, folder = load_task(data, "Pairs")
    recipe = replace(RECIPE, top_layers=1, dtype="float16")
    out = finetune(encoder, task, folder, tmp_path / "out", recipe)
    stored = load_file(out / "model.safetensors")
    assert all(name.startswith(("bert.encoder.layer.1.", "bert.pooler.", "classifier.")) for name in stored)
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
    assert json.loads((out / "config.json").read_text())["ufbert_base_model"] == "encoder"
    shared = ufbert.TextClassifier(out)
    assert evaluate(shared, task, folder)[0].metrics["accuracy"] > 0.9
    texts = [("the c", "a cat"), ("the", "b")]
    whole = ufbert.TextClassifier(ufbert.convert(out, tmp_path / "whole", "float32"))
    np.testing.assert_array_equal(shared.logits(texts), whole.logits(texts))
    with pytest.raises(InputError, match="top_layers: expected 0 to 2"):
        finetune(encoder, task, folder, tmp_path / "out2", FinetuneRecipe(top_layers=3))


FAMILIES = {  # golden folder: class, and a tensor of its classifier
    "distilbert/base": ("DistilBertForSequenceClassification", "pre_classifier.weight"),
    "roberta/base": ("RobertaForSequenceClassification", "classifier.dense.weight"),
    "camembert/base": ("CamembertForSequenceClassification", "classifier.out_proj.bias"),
    "electra/equal-widths": ("ElectraForSequenceClassification", "classifier.dense.bias"),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("top_layers", [None, 1])
def test_other_families_are_fine_tuned(data, tmp_path, name, top_layers):
    task, folder = load_task(data, "Pairs")
    encoder = tmp_path / "encoder"
    shutil.copytree(GOLDEN / name, encoder)
    words = VOCABULARY[: json.loads((encoder / "config.json").read_text())["vocab_size"]]
    (encoder / "vocab.txt").write_text("\n".join(words) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]}
    (encoder / "tokenizer_config.json").write_text(json.dumps(settings))
    out = finetune(encoder, task, folder, tmp_path / "out", replace(RECIPE, epochs=2, top_layers=top_layers))
    architecture, tensor = FAMILIES[name]
    assert json.loads((out / "config.json").read_text())["architectures"] == [architecture]
    tensors = load_file(out / "model.safetensors")
    assert tensor in tensors and any("word_embeddings" in key for key in tensors) == (top_layers is None)
    texts = [("the c", "a cat"), ("the", "b")]
    whole = ufbert.TextClassifier(ufbert.convert(out, tmp_path / "whole", "float32"))
    np.testing.assert_array_equal(ufbert.TextClassifier(out).logits(texts), whole.logits(texts))


@pytest.mark.parametrize("top_layers", [None, 1])
def test_an_encoder_in_a_subfolder_is_fine_tuned(data, tmp_path, top_layers):
    task, folder = load_task(data, "Pairs")
    encoder = tmp_path / "encoder"
    shutil.copytree(GOLDEN / "sentence-transformers" / "subfolder-0-transformer", encoder)
    out = finetune(encoder, task, folder, tmp_path / "out", FinetuneRecipe(epochs=1, top_layers=top_layers))
    assert ufbert.TextClassifier(out).logits([("the c", "a cat")]).shape == (1, 2)


def test_the_command_finetunes_with_seeds_and_reports_the_median(data, tmp_path):
    encoder = write_bert(tmp_path / "encoder")
    arguments = ["--model", encoder, "--data", data, "--out", tmp_path / "out", "--finetune"]
    arguments += ["--seeds", 2, "--epochs", 1, "--tasks", "Pairs"]
    command = [sys.executable, "-m", "ufbert", "glue", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "seed 1" in result.stdout and "median of the seeds" in result.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    values = [run["values"]["Pairs"] for run in results["seeds"]]
    assert results["median"]["Pairs"] == pytest.approx(np.median(values))
    assert ufbert.TextClassifier(tmp_path / "out" / "seed-1" / "Pairs").labels == ["a", "b"]


def test_the_command_takes_a_model_of_the_hub_and_puts_it_beside(data, tmp_path):
    place = tmp_path / "hub" / "models--org--encoder"
    write_bert(place / "snapshots" / "0123")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123")
    arguments = ["--model", "org/encoder", "--data", data, "--out", tmp_path / "out", "--finetune"]
    arguments += ["--epochs", 1, "--tasks", "Pairs", "--top-layers", 1]
    command = [sys.executable, "-m", "ufbert", "glue", *map(str, arguments)]
    settings = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, env=settings)
    classifier = tmp_path / "out" / "seed-0" / "Pairs"
    base = json.loads((classifier / "config.json").read_text())["ufbert_base_model"]
    assert (classifier.parent / base / "model.safetensors").is_file()
    assert ufbert.TextClassifier(classifier).labels == ["a", "b"]
