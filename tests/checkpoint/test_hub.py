"""Models by their names: the hub's own protocol, on this machine; `.ci/run hub` has several of its clients."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import BERT_CONFIG, GOLDEN, bert_tensors, write_bert, write_sentence_model
from huggingface_hub import constants
from local_hub import ENCODER_FILES, NAME, TOKEN
from safetensors.numpy import save_file

import ufbert
from ufbert import CheckpointError, InputError, SentenceEncoder
from ufbert.checkpoint.folder import ModelFolder
from ufbert.checkpoint.hub import parse_name

pytest_plugins = "local_hub"


def other_weights(folder, seed):
    return write_bert(folder, bert_tensors(BERT_CONFIG, seed))


def test_a_fresh_name_fetches_only_what_is_needed_and_settings_first(hub, model):
    hub.add(NAME, model)
    encoder = SentenceEncoder(NAME)
    order = [
        request.split("/resolve/")[1].split("/", 1)[1] for request in hub.requests if request.startswith("GET /org")
    ]
    assert sorted(order) == ENCODER_FILES
    assert order[-1] == "model.safetensors"
    np.testing.assert_array_equal(encoder.encode(["the cat"]), SentenceEncoder(model).encode(["the cat"]))


def test_a_cached_name_asks_for_the_revision_and_fetches_nothing(hub, model):
    hub.add(NAME, model)
    SentenceEncoder(NAME)
    hub.requests.clear()
    SentenceEncoder(NAME)
    assert all("/revision/" in request for request in hub.requests)
    assert hub.fetched() == []


def test_a_cached_commit_is_loaded_without_a_network(hub, model):
    commit = hub.add(NAME, model).revisions["main"]
    expected = SentenceEncoder(f"{NAME}@{commit}").encode("the cat")
    hub.down = True
    np.testing.assert_array_equal(SentenceEncoder(f"{NAME}@{commit}").encode("the cat"), expected)


@pytest.mark.parametrize("how", ["variable", "argument", "server gone", "no server"])
def test_offline_a_cached_name_is_loaded(hub, model, monkeypatch, how):
    hub.add(NAME, model)
    expected = SentenceEncoder(NAME).encode("the cat")
    hub.requests.clear()
    options = {"local_files_only": True} if how == "argument" else {}
    if how == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.down = how == "server gone"
    if how == "no server":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    np.testing.assert_array_equal(SentenceEncoder(NAME, **options).encode("the cat"), expected)
    assert hub.down or not hub.requests


@pytest.mark.parametrize("how", ["variable", "argument", "server gone", "no server"])
def test_offline_what_is_not_cached_says_so_and_where_it_looked(hub, model, monkeypatch, how, tmp_path):
    hub.add(NAME, model)
    options = {"local_files_only": True} if how == "argument" else {}
    if how == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.down = how == "server gone"
    if how == "no server":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    wanted = "no network is to be used" if how in ("variable", "argument") else "could not reach it"
    with pytest.raises(CheckpointError, match=wanted) as error:
        SentenceEncoder(NAME, **options)
    assert NAME in str(error.value) and str(tmp_path / "cache") in str(error.value)


def test_a_moved_cache_is_found_and_a_moved_folder_too(hub, model, tmp_path, monkeypatch):
    hub.add(NAME, model)
    expected = SentenceEncoder(NAME).encode("the cat")
    shutil.move(tmp_path / "cache", tmp_path / "elsewhere" / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "elsewhere" / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    np.testing.assert_array_equal(SentenceEncoder(NAME).encode("the cat"), expected)
    folder = ufbert.download(NAME, tmp_path / "copy")
    shutil.rmtree(tmp_path / "elsewhere")
    shutil.move(folder, tmp_path / "moved")
    np.testing.assert_array_equal(SentenceEncoder(tmp_path / "moved").encode("the cat"), expected)


def test_a_cache_without_links(hub, model, monkeypatch):
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download, "are_symlinks_supported", lambda *_: False)
    hub.add(NAME, model)
    encoder = SentenceEncoder(NAME)
    files = [file for file in ModelFolder(NAME).path.rglob("*") if file.is_file()]
    assert files and not any(file.is_symlink() for file in files)
    np.testing.assert_array_equal(encoder.encode("the cat"), SentenceEncoder(model).encode("the cat"))


def test_revisions_are_branches_tags_and_commits(hub, tmp_path):
    old, new = write_sentence_model(tmp_path / "old"), write_sentence_model(tmp_path / "new")
    other_weights(new, seed=5)
    commits = hub.add(NAME, old, new).revisions
    first, last = (SentenceEncoder(folder).encode("the cat") for folder in (old, new))
    for revision in ("v0", commits["v0"], "refs/pr/0"):
        np.testing.assert_array_equal(SentenceEncoder(f"{NAME}@{revision}").encode("the cat"), first)
    np.testing.assert_array_equal(SentenceEncoder(NAME, revision="v0").encode("the cat"), first)
    for name in (NAME, f"{NAME}@main", f"{NAME}@{commits['v1']}"):
        np.testing.assert_array_equal(SentenceEncoder(name).encode("the cat"), last)
    with pytest.raises(CheckpointError, match=r"org/model@v7: expected a revision of org/model, found none"):
        SentenceEncoder(f"{NAME}@v7")
    with pytest.raises(InputError, match="revision: expected v0, as the name says, got 'v1'"):
        SentenceEncoder(f"{NAME}@v0", revision="v1")


def test_a_branch_that_moved_on_is_fetched_anew(hub, tmp_path):
    old, new = write_sentence_model(tmp_path / "old"), write_sentence_model(tmp_path / "new")
    other_weights(new, seed=5)
    hub.add(NAME, old)
    before = SentenceEncoder(NAME).encode("the cat")
    hub.add(NAME, old, new)
    after = SentenceEncoder(NAME).encode("the cat")
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, SentenceEncoder(new).encode("the cat"))


@pytest.mark.parametrize("how", ["variable", "argument", "file"])
def test_a_private_model_needs_the_token(hub, model, monkeypatch, how, tmp_path):
    hub.add(NAME, model, private=True)
    with pytest.raises(CheckpointError, match=r"found neither .or it is private.*HF_TOKEN"):
        SentenceEncoder(NAME)
    options = {"token": TOKEN} if how == "argument" else {}
    if how == "variable":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    if how == "file":
        (tmp_path / "token").write_text(TOKEN)
    assert SentenceEncoder(NAME, **options).encode("the cat").shape == (12,)


def test_a_wrong_token_is_not_shown(hub, model):
    hub.add(NAME, model)
    with pytest.raises(CheckpointError) as error:
        SentenceEncoder(NAME, token="hf_secret")
    assert "hf_secret" not in str(error.value) and "hf auth login" in str(error.value)
    with pytest.raises(InputError, match="token: expected a token"):
        SentenceEncoder(NAME, token=5)


def test_a_gated_model_says_what_to_accept(hub, model):
    hub.add(NAME, model, gated=True)
    with pytest.raises(CheckpointError, match="access is restricted; accept its conditions on its page"):
        SentenceEncoder(NAME)
    assert SentenceEncoder(NAME, token=TOKEN).encode("the cat").shape == (12,)


def test_a_name_that_is_nothing(hub):
    with pytest.raises(CheckpointError, match="org/nothing: expected a model folder here or a model of the hub"):
        ufbert.FillMask("org/nothing")
    with pytest.raises(CheckpointError, match="such as sentence-transformers/all-mpnet-base-v2"):
        SentenceEncoder("all-mpnet-base-v2")


@pytest.mark.parametrize("change", [{"model_type": "gpt2"}, {"position_embedding_type": "alibi"}])
def test_an_unsupported_model_is_refused_before_its_weights_are_fetched(hub, tmp_path, change):
    hub.add(NAME, write_sentence_model(tmp_path / "model", **change))
    for load in (SentenceEncoder, ufbert.TextClassifier, ufbert.load, ufbert.download):
        with pytest.raises(CheckpointError):
            load(NAME)
        assert "model.safetensors" not in hub.fetched()


def test_a_wrong_head_and_a_missing_tokenizer_are_refused_before_the_weights(hub, tmp_path):
    folder = write_bert(tmp_path / "model", architectures=["BertForMaskedLM"])
    (folder / "vocab.txt").unlink()
    hub.add(NAME, folder)
    with pytest.raises(CheckpointError, match="for sequence-classification, found one for masked-lm"):
        ufbert.TextClassifier(NAME)
    with pytest.raises(CheckpointError, match=r"tokenizer.json or vocab.txt"):
        ufbert.FillMask(NAME)
    assert hub.fetched() == ["config.json"]


def test_modules_that_are_not_supported_are_refused_before_the_weights(hub, model):
    entries = [
        *json.loads((model / "modules.json").read_text()),
        {"path": "2_CNN", "type": "sentence_transformers.models.CNN"},
    ]
    (model / "modules.json").write_text(json.dumps(entries))
    hub.add(NAME, model)
    with pytest.raises(CheckpointError, match="CNN"):
        SentenceEncoder(NAME)
    assert "model.safetensors" not in hub.fetched()


def with_dense(folder, place):
    """Add a Dense module in a folder of any name."""
    entries = json.loads((folder / "modules.json").read_text())
    entries.append({"path": place, "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / place).mkdir(parents=True)
    settings = {
        "in_features": 12,
        "out_features": 5,
        "bias": False,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / place / "config.json").write_text(json.dumps(settings))
    save_file({"linear.weight": np.full((5, 12), 0.1, np.float32)}, folder / place / "model.safetensors")
    return folder


@pytest.mark.parametrize("place", ["2_Dense", "modules/projection"])
def test_modules_come_with_their_weights(hub, model, place, tmp_path):
    hub.add(NAME, with_dense(model, place))
    expected = SentenceEncoder(model).encode("the cat")
    np.testing.assert_array_equal(SentenceEncoder(NAME).encode("the cat"), expected)
    copy = ufbert.download(NAME, tmp_path / "copy")
    np.testing.assert_array_equal(SentenceEncoder(copy).encode("the cat"), expected)
    converted = ufbert.convert(NAME, tmp_path / "converted", "float32")
    np.testing.assert_array_equal(SentenceEncoder(converted).encode("the cat"), expected)


def test_stanfords_colbert_comes_with_its_settings(hub, tmp_path):
    folder = GOLDEN / "colbert" / "attend"
    hub.add(NAME, folder)
    found, expected = ufbert.MultiVectorEncoder(NAME), ufbert.MultiVectorEncoder(folder)
    np.testing.assert_array_equal(found.encode_query("water"), expected.encode_query("water"))
    copy = ufbert.MultiVectorEncoder(ufbert.download(NAME, tmp_path / "copy"))
    np.testing.assert_array_equal(copy.encode_document("water"), expected.encode_document("water"))


def test_a_transformer_in_a_sub_folder(hub, tmp_path):
    folder = write_sentence_model(tmp_path / "model")
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        (folder / name).rename(inner / name)
    entries = json.loads((folder / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(entries))
    hub.add(NAME, folder)
    np.testing.assert_array_equal(SentenceEncoder(NAME).encode("the cat"), SentenceEncoder(folder).encode("the cat"))
    assert "0_Transformer/model.safetensors" in hub.fetched()


def test_shards_are_fetched_by_the_index(hub, tmp_path):
    folder = write_bert(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    tensors, weight_map = sorted(bert_tensors(BERT_CONFIG).items()), {}
    for number, part in enumerate((tensors[::2], tensors[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file(dict(part), folder / file)
        weight_map |= {name: file for name, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    save_file({}, folder / "model-00009-of-00009.safetensors")  # of another export
    hub.add(NAME, folder)
    ids = [[2, 30, 31, 3]]
    expected = ufbert.load(folder)(ids).last_hidden_state
    np.testing.assert_array_equal(ufbert.load(NAME)(ids).last_hidden_state, expected)
    assert [name for name in hub.fetched() if name.endswith(".safetensors")] == sorted(set(weight_map.values()))


def test_pickled_weights_are_fetched_by_convert_alone(hub, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(GOLDEN / "hf" / "act-relu" / "config.json", folder)
    shutil.copy(GOLDEN / "pickled" / "model.bin", folder / "pytorch_model.bin")
    hub.add(NAME, folder)
    with pytest.raises(CheckpointError, match=f"ufbert convert {NAME}@[0-9a-f]+ NEW_FOLDER takes the tensors"):
        ufbert.load(NAME)
    assert "pytorch_model.bin" not in hub.fetched()
    target = ufbert.convert(NAME, tmp_path / "converted", "float32")
    assert "pytorch_model.bin" in hub.fetched()
    assert ufbert.load(target).config == ufbert.load(ufbert.convert(folder, tmp_path / "other", "float32")).config


def test_a_download_that_breaks_off_is_finished_by_the_next(hub, model):
    repository = hub.add(NAME, model)
    repository.faults["model.safetensors"] = 99
    complaints = []
    try:
        SentenceEncoder(NAME)  # newer clients try again by themselves
    except CheckpointError as error:
        complaints.append(str(error))
    assert all("try again" in text for text in complaints)
    repository.faults.clear()
    np.testing.assert_array_equal(SentenceEncoder(NAME).encode("the cat"), SentenceEncoder(model).encode("the cat"))


def test_an_interrupted_cache_is_not_taken_for_whole(hub, model, monkeypatch):
    hub.add(NAME, model)
    path = ModelFolder(NAME).path  # settings alone
    assert not (path / "model.safetensors").exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"model.safetensors|not whole"):
        SentenceEncoder(NAME)


def test_a_cache_that_cannot_be_written(hub, model, tmp_path):
    hub.add(NAME, model)
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(CheckpointError, match="cache"):
        SentenceEncoder(NAME)


def test_a_repository_that_is_no_model(hub, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("nothing here")
    hub.add(NAME, tmp_path / "data")
    with pytest.raises(CheckpointError, match=r"expected a model with config.json, found none"):
        ufbert.load(NAME)


def test_a_folder_of_that_name_comes_first(hub, model, tmp_path):
    hub.add(NAME, model)
    other_weights(write_sentence_model(tmp_path / "org" / "model"), seed=3)
    expected = SentenceEncoder(tmp_path / "org" / "model").encode("the cat")
    np.testing.assert_array_equal(SentenceEncoder(NAME).encode("the cat"), expected)
    assert not hub.requests
    with pytest.raises(CheckpointError, match="expected a model folder"):
        SentenceEncoder(Path("org/nothing"))  # a path is a path
    assert not hub.requests


@pytest.mark.parametrize(
    "name", ["a/b/c", "/a/b", "./a", "../a/b", "a", "a/", "/a", "a/b@", "~/a", "a\\b", "a/..", "a b/c", "C:/a", ""]
)
def test_paths_are_not_names(name):
    assert parse_name(name) is None


def test_a_pickled_encoder_needs_no_network_again(hub, model):
    hub.add(NAME, model)
    stored = pickle.dumps(encoder := SentenceEncoder(NAME))
    hub.down = True
    np.testing.assert_array_equal(pickle.loads(stored).encode("the cat"), encoder.encode("the cat"))
