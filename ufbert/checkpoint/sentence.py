"""A sentence-transformers folder: ``modules.json`` and what it names; nothing of it is executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import numpy as np

from ..activations import TORCH
from ..encoder import Model
from ..errors import CheckpointError, shown
from ..heads import Dense, Normalize, Pooling
from ..layers import Linear
from ..tokenizer import Tokenizer
from .folder import ModelFolder, Module
from .options import Options
from .pack import load_model
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


def load_sentence_model(folder: ModelFolder, pooling: str | None = None, dtype: str = "float32") -> SentenceModel:
    """Load a sentence-transformers folder, or a plain BERT folder if `pooling` says how to pool.

    Raises
    ------
    CheckpointError
        If the folder does not say how to pool and `pooling` is None, or has a module that is not supported.
    """
    modules = _checked_modules(folder, pooling)
    root = folder.transformer()
    model = load_model(root, encoder_only=True, dtype=dtype)
    name, positions = "sentence_bert_config.json", model.config.max_position_embeddings
    transformer = Options(root.read_optional_json(name), root.path / name)
    lowercase = transformer.flag("do_lower_case", False)
    tokenizer = load_tokenizer(root, positions, lowercase, model.config.vocab_size)
    limit = transformer.integer("max_seq_length", tokenizer.min_length())
    longest = tokenizer.max_length if limit is None else min(limit, positions)
    tokenizer = replace(tokenizer, max_length=positions)  # max_seq_length counts, not the tokenizer's model_max_length

    pool = _pooling(folder, pooling, model.config.hidden_size)
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
            raise CheckpointError(f"{folder.path / name}: {key}: expected {expected}, found {shown(value)}; correct it")
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


def _checked_modules(folder: ModelFolder, pooling: str | None) -> list[Module]:
    """Return the modules: a transformer, a pooling, then any number of dense and normalise modules.

    Raises
    ------
    CheckpointError
        If the folder has others, or does not say how to pool and `pooling` is None.
    """
    modules = folder.modules()
    if len(modules) == 1 and not folder.has("modules.json"):
        if pooling is None:
            raise CheckpointError(
                f"{folder.path}: expected modules.json or 1_Pooling/config.json, found neither, so how to pool is not "
                f"known; say it: pooling={' | '.join(map(repr, POOLING_MODES))}"
            )
        return modules
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
        raise CheckpointError(
            f"{folder.path / 'modules.json'}: expected the modules Transformer, Pooling, and then Dense or Normalize, "
            f"found {shown(kinds)}; ufbert supports no others"
        )
    return modules


def _pooling(folder: ModelFolder, pooling: str | None, hidden_size: int) -> Pooling:
    root = folder.pooling()
    if pooling is not None or root is None:
        if not isinstance(pooling, str) or pooling not in POOLING_MODES:
            raise CheckpointError(f"pooling: expected one of {', '.join(POOLING_MODES)}, got {shown(pooling)}")
        return Pooling((pooling,))
    config = Options(root.read_json("config.json"), root.path / "config.json")
    for key in ("word_embedding_dimension", "embedding_dimension"):
        config.refuse_unless(key, (hidden_size, None), hidden_size)
    refused = [key for key in REFUSED_MODES if config.flag(key, False)]
    flags = [mode for mode, key in POOLING_MODES.items() if config.flag(key, False)]
    modes = config.get("pooling_mode", flags)
    modes = [modes] if isinstance(modes, str) else modes
    if isinstance(modes, list):
        modes = [mode.removesuffix("_tokens") if isinstance(mode, str) else shown(mode) for mode in modes]
    if refused or not isinstance(modes, list) or not modes or not set(modes) <= set(POOLING_MODES):
        raise CheckpointError(
            f"{config.where}: expected a pooling mode among {', '.join(POOLING_MODES)}, found "
            f"{shown(refused or modes)}; ufbert supports no others"
        )
    return Pooling(tuple(modes), config.flag("include_prompt", True))


def _dense(folder: ModelFolder, width: int) -> Dense:
    file = folder.path / "config.json"
    config = Options(folder.read_json("config.json"), file)
    for key in ("module_input_name", "module_output_name"):
        config.refuse_unless(key, ("sentence_embedding", None), "sentence_embedding")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if activation not in TORCH:
        raise CheckpointError(
            f"{file}: activation_function: expected one of {', '.join(TORCH)}, found {shown(activation)}"
        )
    in_width, out_width = config.integer("in_features", 1), config.integer("out_features", 1)
    if in_width != width or out_width is None:
        raise CheckpointError(
            f"{file}: expected in_features {width}, the width of what comes before, and a number out_features; "
            f"found {in_width} and {out_width}"
        )
    tensors = Tensors(folder.weight_files())
    bias = tensors.take("linear.bias", (out_width,)) if config.flag("bias", True) else None
    weight = tensors.take("linear.weight", (out_width, width))
    if tensors.unused():
        raise CheckpointError(
            f"{tensors.where}: tensor {tensors.unused()[0]}: {file} does not account for it, expected none; "
            "are the two of the same model?"
        )
    return Dense(Linear(weight, bias), TORCH[activation])
