"""A sentence-transformers folder: ``modules.json`` and what it names; nothing of it is executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from ..encoder import Model
from ..errors import CheckpointError
from ..heads import Dense, Normalize, Pooling
from ..layers import Linear
from ..tokenizer import Tokenizer
from .build import load_model
from .files import ModelFolder
from .tensors import Tensors
from .tokenization import load_tokenizer

__all__ = ["POOLING_MODES", "SIMILARITIES", "SentenceModel", "SentenceSettings", "load_sentence_model"]

POOLING_MODES = {
    # in the order in which sentence-transformers joins them
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
}
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
REFUSED_MODES = ("pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken")
DENSE_ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}


@dataclass(frozen=True)
class SentenceSettings:
    """What ``config_sentence_transformers.json`` says of calls."""

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None


@dataclass(frozen=True)
class SentenceModel:
    """An encoder, its tokenizer, and what makes one embedding of a text's hidden states."""

    model: Model
    tokenizer: Tokenizer
    max_seq_length: int
    pooling: Pooling
    modules: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()
    settings: SentenceSettings = SentenceSettings()

    @property
    def dimension(self) -> int:
        """Width of an embedding."""
        dense = [module for module in self.modules if isinstance(module, Dense)]
        return len(dense[-1].linear.weight) if dense else self.model.config.hidden_size * len(self.pooling.modes)


def load_sentence_model(folder: ModelFolder, pooling: str | None = None) -> SentenceModel:
    """Load a sentence-transformers folder, or a plain BERT folder if `pooling` says how to pool.

    Raises
    ------
    CheckpointError
        If the folder does not say how to pool and `pooling` is None, or has a module that is not supported.
    """
    modules = _modules(folder, pooling)
    root = folder.subfolder(modules[0][1])
    model = load_model(root, encoder_only=True)
    transformer = root.read_optional_json("sentence_bert_config.json")
    lowercase = bool(transformer.get("do_lower_case", False))
    tokenizer = load_tokenizer(root, model.config.max_position_embeddings, lowercase)
    limit = transformer.get("max_seq_length")
    longest = min(limit, tokenizer.max_length) if _is_positive(limit) else tokenizer.max_length

    pool = _pooling(folder, modules, pooling)
    width = model.config.hidden_size * len(pool.modes)
    after: list[Callable[[np.ndarray], np.ndarray]] = []
    for kind, path in modules[2:]:
        if kind == "Dense":
            dense = _dense(folder.subfolder(path), width)
            width = len(dense.linear.weight)
            after.append(dense)
        else:
            after.append(Normalize())
    return SentenceModel(model, tokenizer, longest, pool, tuple(after), _settings(folder))


def _settings(folder: ModelFolder) -> SentenceSettings:
    name = "config_sentence_transformers.json"
    found = folder.read_optional_json(name)

    def checked(key: str, expected: str, is_fine: Callable[[Any], bool], default: Any) -> Any:
        value = default if found.get(key) is None else found[key]
        if not is_fine(value):
            raise CheckpointError(f"{folder.path / name}: {key}: expected {expected}, found {value!r:.80}; correct it")
        return value

    def is_prompts(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())

    prompts = checked("prompts", "an object of names to texts", is_prompts, {})
    default = checked("default_prompt_name", "the name of a prompt", lambda value: value in (None, *prompts), None)
    similarity = checked("similarity_fn_name", f"one of {', '.join(SIMILARITIES)}", SIMILARITIES.__contains__, "cosine")
    width = checked("truncate_dim", "a positive integer", lambda value: value is None or _is_positive(value), None)
    return SentenceSettings(prompts, default, similarity, width)


def _is_positive(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _modules(folder: ModelFolder, pooling: str | None) -> list[tuple[str, str]]:
    """Kinds and paths of the modules: a transformer, a pooling, then any number of dense and normalise modules."""
    if not folder.has("modules.json"):
        if pooling is None and not folder.has("1_Pooling/config.json"):
            raise CheckpointError(
                f"{folder.path}: expected modules.json or 1_Pooling/config.json, found neither, so how to pool is not "
                f"known; say it: pooling={' | '.join(map(repr, POOLING_MODES))}"
            )
        return [("Transformer", ""), ("Pooling", "1_Pooling")]
    file = folder.path / "modules.json"
    found = []
    for module in folder.read_json("modules.json", list):
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise CheckpointError(f"{file}: expected objects with a type and a path, found {module!r:.80}")
        found.append((module["type"].rsplit(".", 1)[-1], module.get("path", "")))
    kinds = [kind for kind, _ in found]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
        raise CheckpointError(
            f"{file}: expected the modules Transformer, Pooling, and then Dense or Normalize, found {kinds}; "
            "ufbert supports no others"
        )
    return found


def _pooling(folder: ModelFolder, modules: list[tuple[str, str]], pooling: str | None) -> Pooling:
    if pooling is not None:
        if pooling not in POOLING_MODES:
            raise CheckpointError(f"pooling: expected one of {', '.join(POOLING_MODES)}, got {pooling!r}")
        return Pooling((pooling,))
    root = folder.subfolder(modules[1][1])
    config, file = root.read_json("config.json"), root.path / "config.json"
    refused = [key for key in REFUSED_MODES if config.get(key)]
    modes = config.get("pooling_mode")
    modes = [modes] if isinstance(modes, str) else modes
    if isinstance(modes, list):
        modes = [mode.removesuffix("_tokens") if isinstance(mode, str) else mode for mode in modes]
    if modes is None:
        modes = [mode for mode, key in POOLING_MODES.items() if config.get(key)]
    if refused or not isinstance(modes, list) or not modes or any(mode not in POOLING_MODES for mode in modes):
        raise CheckpointError(
            f"{file}: expected a pooling mode among {', '.join(POOLING_MODES)}, found {refused or modes}; "
            "ufbert supports no others"
        )
    return Pooling(tuple(modes), bool(config.get("include_prompt", True)))


def _dense(folder: ModelFolder, width: int) -> Dense:
    config, file = folder.read_json("config.json"), folder.path / "config.json"
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if activation not in DENSE_ACTIVATIONS:
        raise CheckpointError(
            f"{file}: activation_function: expected one of {', '.join(DENSE_ACTIVATIONS)}, found {activation!r}"
        )
    out_width = config.get("out_features")
    if config.get("in_features") != width or not isinstance(out_width, int):
        raise CheckpointError(
            f"{file}: expected in_features {width}, the width of what comes before, and a number out_features; "
            f"found {config.get('in_features')!r} and {out_width!r}"
        )
    tensors = Tensors(folder.weight_files())
    bias = tensors.take("linear.bias", (out_width,)) if config.get("bias", True) else None
    return Dense(Linear(tensors.take("linear.weight", (out_width, width)), bias), DENSE_ACTIVATIONS[activation])
