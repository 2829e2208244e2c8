"""Tiny models that tests make, and where the golden files are."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from ufbert import isa
from ufbert.checkpoint.tensors import write_tensors

os.environ["PYTHONSAFEPATH"] = "1"  # subprocesses import what is installed, not the folder they start in
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network; those of the hub have one of their own
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the programs that tests start inherit it
settings.register_profile("ci", derandomize=True, deadline=None)  # the same examples in every run
settings.register_profile("few", max_examples=20, derandomize=True, deadline=None)  # where all is slow: an emulator
settings.register_profile("nightly", max_examples=1_000, deadline=None)  # and `lab.examples` ten times as many
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
GOLDEN = Path(__file__).parent / "golden"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz.,!?", "##a", "##b", "the", "cat"]
BERT_CONFIG = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": len(VOCABULARY),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
}

FFF_CONFIG = {
    **{key: value for key, value in BERT_CONFIG.items() if key != "intermediate_size"},
    "model_type": "ufbert",
    "feed_forward": "fff",
    "num_trees": 2,
    "depth": 3,
    "output_bias": True,
}


def bert_tensors(config, seed=0):
    """Random tensors of a BertModel, by name."""
    rng = np.random.default_rng(seed)
    hidden, width = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    for index in range(config["num_hidden_layers"]):
        linears = {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (width, hidden),
            "output.dense": (hidden, width),
        }
        for name, shape in linears.items():
            shapes[f"encoder.layer.{index}.{name}.weight"] = shape
            shapes[f"encoder.layer.{index}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{index}.{name}.weight"] = (hidden,)
            shapes[f"encoder.layer.{index}.{name}.bias"] = (hidden,)
    return {name: (rng.standard_normal(shape) * 0.4).astype(np.float32) for name, shape in shapes.items()}


def fff_tensors(config=FFF_CONFIG, seed=0):
    """Random tensors of a BertModel with FFF layers, by name."""
    rng = np.random.default_rng(seed)
    hidden, nodes = config["hidden_size"], config["num_trees"] * (2 ** (config["depth"] + 1) - 1)
    dense = bert_tensors(config | {"intermediate_size": 1}, seed)
    tensors = {name: array for name, array in dense.items() if not is_dense_feed_forward(name)}
    for index in range(config["num_hidden_layers"]):
        stem = f"encoder.layer.{index}.ffn"
        shapes = {"linear_in.weight": (nodes, hidden), "linear_in.bias": (nodes,), "linear_out.weight": (hidden, nodes)}
        if config.get("output_bias"):
            shapes["linear_out.bias"] = (hidden,)
        for name, shape in shapes.items():
            tensors[f"{stem}.{name}"] = (rng.standard_normal(shape) * 0.4).astype(np.float32)
    return tensors


def is_dense_feed_forward(name):
    return ".intermediate.dense." in name or (".output.dense." in name and ".attention." not in name)


def write_fff(folder, tensors=None, **changes):
    """A BERT folder with FFF layers; `changes` go into config.json."""
    return write_bert(folder, fff_tensors(FFF_CONFIG | changes) if tensors is None else tensors, FFF_CONFIG, **changes)


def write_bert(folder, tensors=None, config=BERT_CONFIG, **changes):
    """A BERT folder with weights, configuration and vocabulary; `changes` go into config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config | changes
    tensors = bert_tensors(BERT_CONFIG) if tensors is None else tensors
    write_tensors(folder / "model.safetensors", {name: ("F32", array) for name, array in tensors.items()})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def write_sentence_model(folder, mode="pooling_mode_mean_tokens", **changes):
    """A sentence-transformers folder over the same BERT."""
    write_bert(folder, **changes)
    return add_mean_pooling(folder, mode)


def add_mean_pooling(folder, mode="pooling_mode_mean_tokens"):
    """Make a sentence-transformers folder of a BERT folder of 12 dimensions."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    entries = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 12, mode: True}))
    return folder


@pytest.fixture(name="isa", params=isa.supported_isas())
def each_isa(request):
    """Every instruction set of this machine, in use while the test runs."""
    before = isa.active_isa()
    isa.use_isa(request.param)
    yield request.param
    isa.use_isa(before)


def instruction_sets():
    """One line: which instruction sets the kernel tests run, and which of the build they cannot."""
    missing = [name for name in isa.compiled_isas() if name not in isa.supported_isas()]
    return f"kernels run on {', '.join(isa.supported_isas())}; not on this machine: {', '.join(missing) or 'none'}"


def pytest_report_header():
    return instruction_sets()


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(instruction_sets())


@pytest.fixture(scope="session")
def glue(tmp_path_factory):
    """A small GLUE download."""
    from glue_files import FILES, write_files

    return write_files(tmp_path_factory.mktemp("GLUE"), FILES)


@pytest.fixture
def bert_folder(tmp_path):
    return write_bert(tmp_path / "bert")


@pytest.fixture
def sentence_folder(tmp_path):
    return write_sentence_model(tmp_path / "sentence")


def write_crammed_fff(folder):
    """The golden UltraFastBERT with a vocabulary, so that it takes texts."""
    shutil.copytree(GOLDEN / "ultrafastbert-3x2", folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def some_texts(count, seed=0):
    """Texts of 1 to 12 words of the vocabulary."""
    rng = np.random.default_rng(seed)
    words = VOCABULARY[len(SPECIAL) :]
    return [" ".join(rng.choice(words, rng.integers(1, 13))).replace("##", "") for _ in range(count)]
