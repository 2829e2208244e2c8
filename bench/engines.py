"""The other engines, each set up as its own users would at its best, and models at UltraFastBERT's released shape."""

from __future__ import annotations

import importlib.util
import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import ufbert
from ufbert.checkpoint.positions import sinusoids
from ufbert.checkpoint.tensors import Tensors, write_tensors

THREADS = 2  # of every engine; bench/encoder.py --threads sets it
BATCH = 16
Run = Callable[..., np.ndarray]


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def versions() -> dict[str, str]:
    """Versions of the engines that are installed."""
    names = ("torch", "onnxruntime", "openvino", "nncf", "ctranslate2")
    return {name: metadata.version(name) for name in names if has(name)}


class PaddedEncoder:
    """Sentence embeddings around an engine that wants padded batches: sorted by length, mean-pooled, normalised.

    `workers` batches run at once, with the arrays of those `names`.
    """

    def __init__(self, ours: ufbert.SentenceEncoder, run: Run, workers: int, names: Sequence[str]) -> None:
        self.tokenize, self.run, self.width, self.names = ours.tokenize, run, ours.dimension, names
        self.pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        features = {name: array for name, array in self.tokenize(texts).items() if name in self.names}
        lengths = features["attention_mask"].sum(1)
        order = np.argsort(-lengths, kind="stable")
        parts = [order[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        out = np.empty((len(texts), self.width), np.float32)

        def one(rows: np.ndarray) -> None:
            batch = {name: np.ascontiguousarray(array[rows, : lengths[rows].max()]) for name, array in features.items()}
            hidden = self.run(**batch)
            mask = batch["attention_mask"][:, :, None].astype(np.float32)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            out[rows] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

        list((self.pool.map if self.pool else map)(one, parts))
        return out


def sentence_encoders(
    folder: str, scratch: Path, ours: ufbert.SentenceEncoder, texts: Sequence[str]
) -> dict[str, PaddedEncoder]:
    """Every installed engine on the model of `folder`; `texts` are for those that must be calibrated."""
    import torch
    from transformers import AutoModel

    torch.set_num_threads(THREADS)
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()  # attention as the architecture has it
    graph = scratch / "minilm.onnx"
    names = [name for name in ours.tokenize([""]) if name in inspect.signature(model.forward).parameters]
    export(model, graph, names)
    found: dict[str, Run | tuple[Run, int]] = {"torch float32": _torch(model)}
    found |= _onnxruntime(graph, with_workers=True) | _openvino(graph)
    found |= _openvino_int8(graph, ours, texts) | _ctranslate2(folder, scratch)
    encoders = {}
    for name, run in found.items():
        run, workers = run if isinstance(run, tuple) else (run, 1)
        encoders[name] = PaddedEncoder(ours, run, workers, names)
    return encoders


def graphs(folder: Path, path: Path) -> dict[str, Run]:
    """A dense crammed folder as a graph for the other engines: input_ids -> hidden states."""
    export(torch_twin(folder), path, ("input_ids",))
    return _onnxruntime(path) | _openvino(path)


def export(module: Any, path: Path, names: Sequence[str]) -> None:
    import torch

    example = {name: torch.ones((2, 8), dtype=torch.int64) for name in names}
    axes = {name: {0: torch.export.Dim("texts", max=4096), 1: torch.export.Dim("length", max=128)} for name in names}
    torch.onnx.export(
        module, (), str(path), kwargs=example, input_names=list(names), output_names=["hidden"],
        dynamic_shapes=axes, dynamo=True, verbose=False,
    )  # fmt: skip


def _torch(model: Any) -> Run:
    import torch

    def run(**batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).last_hidden_state.numpy()

    return run


def _onnxruntime(graph: Path, with_workers: bool = False) -> dict[str, Any]:
    if not has("onnxruntime"):
        return {}
    from onnxruntime import InferenceSession, SessionOptions
    from onnxruntime.quantization import quantize_dynamic

    int8 = graph.with_suffix(".int8.onnx")
    quantize_dynamic(graph, int8, per_channel=True)
    found: dict[str, Any] = {}
    for label, file in (("float32", graph), ("int8", int8)):
        for threads, workers in ((THREADS, 1), (1, THREADS)) if with_workers else ((THREADS, 1),):
            options = SessionOptions()
            options.intra_op_num_threads = threads
            session = InferenceSession(file, options, providers=["CPUExecutionProvider"])

            def run(ids: Any = None, session: Any = session, **batch: np.ndarray) -> np.ndarray:
                return session.run(None, batch if ids is None else {"input_ids": ids})[0]

            found[f"ONNX Runtime {label}" + (", two at once" if workers > 1 else "")] = (
                (run, workers) if workers > 1 else run
            )
    return found


def _openvino(graph: Path) -> dict[str, Run]:
    if not has("openvino"):
        return {}
    import openvino

    found = {}
    for label, precision in (("float32", "f32"), ("bfloat16", "bf16")):
        settings = {
            "INFERENCE_NUM_THREADS": THREADS,
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(str(graph), "CPU", settings)

        def run(ids: Any = None, compiled: Any = compiled, **batch: np.ndarray) -> np.ndarray:
            return compiled(batch if ids is None else {"input_ids": ids})[0]

        found[f"OpenVINO {label}"] = run
    return found


def _openvino_int8(graph: Path, ours: ufbert.SentenceEncoder, texts: Sequence[str]) -> dict[str, Run]:
    """Quantised by NNCF on some of the texts, as its documentation says for transformers."""
    if not (has("openvino") and has("nncf")):
        return {}
    import nncf
    import openvino

    batches = [ours.tokenize([text]) for text in texts]
    model = nncf.quantize(
        openvino.Core().read_model(str(graph)), nncf.Dataset(batches), subset_size=len(batches),
        model_type=nncf.ModelType.TRANSFORMER,
    )  # fmt: skip
    int8 = graph.with_suffix(".openvino-int8.xml")
    openvino.save_model(model, str(int8))
    settings = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(int8), "CPU", settings)
    return {"OpenVINO int8": lambda **batch: compiled(batch)[0]}


def _ctranslate2(folder: str, scratch: Path) -> dict[str, Any]:
    if not has("ctranslate2"):
        return {}
    import ctranslate2

    target = str(scratch / "ctranslate2")
    try:
        ctranslate2.converters.TransformersConverter(folder).convert(target)
    except ValueError as error:  # an architecture that it has not
        print(f"CTranslate2: {error}")
        return {}
    found = {}
    for dtype in ("float32", "int8"):
        encoder = ctranslate2.Encoder(target, device="cpu", compute_type=dtype, inter_threads=THREADS, intra_threads=1)

        def run(
            input_ids: np.ndarray, attention_mask: np.ndarray, encoder: Any = encoder, **_: np.ndarray
        ) -> np.ndarray:
            ids = ctranslate2.StorageView.from_array(input_ids.astype(np.int32))
            lengths = ctranslate2.StorageView.from_array(attention_mask.sum(1).astype(np.int32))
            return np.array(encoder.forward_batch(ids, lengths).last_hidden_state)

        found[f"CTranslate2 {dtype}, two at once"] = (run, THREADS)
    return found


def torch_twin(folder: Path) -> Any:
    """A dense crammed folder as a torch module."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as F

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in load_file(folder / "model.safetensors").items():
                self.register_buffer(name.replace(".", "_"), tensor)
            table = torch.from_numpy(sinusoids(128, 768)) * self.embedding_pos_embedding_scale_factor
            self.register_buffer("position", table)

        def norm(self, x: Any, name: str) -> Any:
            return F.layer_norm(x, (768,), getattr(self, name + "_weight"), getattr(self, name + "_bias"), 1e-12)

        def linear(self, x: Any, name: str) -> Any:
            return F.linear(x, getattr(self, name + "_weight"))

        def forward(self, input_ids: Any) -> Any:
            texts, length = input_ids.shape
            x = F.embedding(input_ids, self.embedding_word_embedding_weight) + self.position[:length]
            x = self.norm(x, "embedding_norm")
            for index in range(16):
                stem = f"layers_{index}_"
                qkv = self.linear(self.norm(x, stem + "norm1"), stem + "attn_self_attention_query_key_value")
                q, k, v = qkv.view(texts, length, 12, 3, 64).permute(3, 0, 2, 1, 4)
                context = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(texts, length, 768)
                x = x + self.linear(context, stem + "attn_dense")
                hidden = F.gelu(self.linear(self.norm(x, stem + "norm2"), stem + "ffn_dense_in"))
                x = x + self.linear(hidden, stem + "ffn_dense_out")
            return self.norm(x, "final_norm")

    return Twin().eval()


def write_bert(like: Path, folder: Path, layers: int, hidden: int) -> Path:
    """A sentence-transformers folder of another size, with random weights and the tokenizer of `like`."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shutil.copytree(like, folder)
    config = BertConfig(
        position_embedding_type="absolute",  # what CTranslate2's converter asks for
        vocab_size=json.loads((like / "config.json").read_text())["vocab_size"], num_hidden_layers=layers,
        hidden_size=hidden, intermediate_size=4 * hidden, num_attention_heads=hidden // 64,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    settings = json.loads(pooling.read_text())
    settings[next(key for key in settings if key.endswith("embedding_dimension"))] = hidden
    pooling.write_text(json.dumps(settings))
    return folder


def write_fff(dense: Path, folder: Path, num_trees: int = 8, depth: int = 8) -> Path:
    """A dense BERT folder with trees of random weights in the feed-forward layers' place."""
    rng = np.random.default_rng(0)
    shutil.copytree(dense, folder)
    config = json.loads((dense / "config.json").read_text())
    hidden, nodes = config["hidden_size"], num_trees * (2 ** (depth + 1) - 1)
    tensors = {}
    for name, tensor in Tensors({dense / "model.safetensors": []})._tensors.items():
        if "intermediate" not in name and not (".output.dense" in name and "attention" not in name):
            tensors[name] = tensor.array() if tensor.dtype == "I64" else tensor.float32()
    for index in range(config["num_hidden_layers"]):
        stem = f"encoder.layer.{index}.ffn."
        tensors[stem + "linear_in.weight"] = rng.standard_normal((nodes, hidden), np.float32) * hidden**-0.5
        tensors[stem + "linear_in.bias"] = rng.standard_normal(nodes, np.float32) * 0.1
        tensors[stem + "linear_out.weight"] = rng.standard_normal((hidden, nodes), np.float32) * 0.1
    config |= {"model_type": "ufbert", "feed_forward": "fff", "num_trees": num_trees, "depth": depth}
    config.pop("intermediate_size")
    (folder / "config.json").write_text(json.dumps(config))
    kinds = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}
    typed = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in tensors.items()}
    write_tensors(folder / "model.safetensors", {name: (kinds[array.dtype], array) for name, array in typed.items()})
    return folder


def write_crammed(folder: Path, **feed_forward: Any) -> Path:
    """A model folder at the released shape: 16 layers, 768 wide, 12 heads, 32768 tokens, random weights."""
    rng = np.random.default_rng(0)

    def random(*shape: int, std: float = 0.02) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(std)

    hidden, width = 768, feed_forward["intermed_size"]
    tensors = {
        "encoder.embedding.word_embedding.weight": random(32_768, hidden),
        "encoder.embedding.pos_embedding.scale_factor": np.full(1, hidden**-0.5, np.float32),
    }
    norms = ["encoder.embedding.norm", "encoder.final_norm"]
    for index in range(16):
        stem = f"encoder.layers.{index}."
        tensors[stem + "attn.self_attention.query_key_value.weight"] = random(3 * hidden, hidden, std=0.04)
        tensors[stem + "attn.dense.weight"] = random(hidden, hidden, std=0.04)
        if feed_forward["intermed_type"] == "fff":
            nodes = width * (2 ** (feed_forward["intermed_depth"] + 1) - 1)
            tensors[stem + "ffn.linear_in.weight"] = random(nodes, hidden, std=hidden**-0.5)
            tensors[stem + "ffn.linear_in.bias"] = random(nodes, std=0.1)
            tensors[stem + "ffn.linear_out.weight"] = random(hidden, nodes, std=0.3)
        else:
            tensors[stem + "ffn.dense_in.weight"] = random(width, hidden)
            tensors[stem + "ffn.dense_out.weight"] = random(hidden, width)
        norms += [stem + "norm1", stem + "norm2"]
    for stem in norms:
        tensors[stem + ".weight"], tensors[stem + ".bias"] = 1 + random(hidden), random(hidden)
    arch = {
        "attention": {"type": "self-attention", "num_attention_heads": 12, "sequence_op": "torch-softmax"},
        "embedding": {"vocab_size": 32_768, "max_seq_length": 128, "pos_embedding": "scaled-sinusoidal"},
        "hidden_size": hidden, "num_transformer_layers": 16, "use_bias": False, "nonlin": "GELU", **feed_forward,
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "crammedBERT", "architectures": ["ScriptableLM"], "arch": arch})
    )
    bare = {name.removeprefix("encoder."): ("F32", array) for name, array in tensors.items()}
    write_tensors(folder / "model.safetensors", bare)
    return folder
