"""A sentence-transformers folder: ``modules.json`` and what it names; nothing of it is executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..activations import TORCH
from ..batch import Batch
from ..encoder import Model
from ..errors import CheckpointError, shown
from ..heads import Dense, Normalize, Pooling
from ..layers import Linear, Norm
from ..text_model import TextModel
from .files import SENTENCE_SETTINGS
from .folder import TRANSFORMER_SETTINGS, ModelFolder, Module
from .options import Options
from .pack import load_model
from .tokenization import load_tokenizer

__all__ = [
    "ONLY_VALUES", "POOLING_MODES", "SIMILARITIES", "SentenceModel", "SentenceSettings", "call_settings",
    "load_sentence_model", "text_model", "token_dense",
]  # fmt: skip

POOLING_MODES = {
    # in the order in which sentence-transformers joins them
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
# Keys of the Transformer module's settings: those without an effect on embeddings, and the only values of others.
HARMLESS = ("unpad_inputs", "max_seq_length", "do_lower_case")
ONLY_VALUES: dict[str, object] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
}
HARMLESS_ARGUMENTS = (
    "add_pooling_layer", "attn_implementation", "dtype", "torch_dtype", "trust_remote_code", "use_fast",
    "use_safetensors",
)  # fmt: skip
MODULES = ("Dense", "Dropout", "LayerNorm", "Normalize")
"""What may stand behind a pooling."""


@dataclass(frozen=True)
class SentenceSettings:
    """What ``config_sentence_transformers.json`` says of calls."""

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None


@dataclass(frozen=True, eq=False)
class SentenceModel:
    """An encoder with its tokenizer, and what makes one embedding of a text's hidden states."""

    texts: TextModel
    pooling: Pooling
    modules: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()
    settings: SentenceSettings = SentenceSettings()

    @property
    def dimension(self) -> int:
        """Width of an embedding."""
        dense = [module for module in self.modules if isinstance(module, Dense)]
        return dense[-1].linear.shape[0] if dense else self.texts.model.config.hidden_size * len(self.pooling.modes)

    def embed(self, hidden: np.ndarray, batch: Batch, prompt_tokens: int = 0) -> np.ndarray:
        """Make embeddings of hidden states: (T, H) -> (N, dim). Pooling leaves out the first `prompt_tokens`."""
        embeddings = self.pooling(hidden, batch, prompt_tokens)
        for module in self.modules:
            embeddings = module(embeddings)
        return embeddings


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
    texts, _ = text_model(root, model, ONLY_VALUES)
    pool = _pooling(folder, pooling, model.config.hidden_size)
    width = model.config.hidden_size * len(pool.modes)
    after: list[Callable[[np.ndarray], np.ndarray]] = []
    for kind, path in modules[2:]:
        if kind == "Dense":
            dense = _dense(folder.subfolder(path), width)
            width = dense.linear.shape[0]
            after.append(dense)
        elif kind == "LayerNorm":
            after.append(_layer_norm(folder.subfolder(path), width))
        elif kind == "Normalize":
            after.append(_normalize(folder, path))  # and Dropout does nothing after training
    settings = call_settings(folder, "SentenceTransformer", SIMILARITIES)
    prompt = settings.prompts.get(settings.default_prompt_name or "", "")
    return SentenceModel(replace(texts, prompt=prompt), pool, tuple(after), settings)


def text_model(
    root: ModelFolder, model: Model, only_values: Mapping[str, object], known: tuple[str, ...] = ()
) -> tuple[TextModel, Options]:
    """Put a model and its tokenizer together, with the length that the Transformer module's settings say.

    `only_values` has keys of those settings with the only value that is supported; `known` ones are the caller's to
    read in the settings, which are returned too.
    """
    positions, transformer = model.config.max_length, _transformer_settings(root, only_values, known)
    lowercase = transformer.flag("do_lower_case", False)
    tokenizer = load_tokenizer(root, positions, lowercase, model.config.vocab_size)
    limit = transformer.integer("max_seq_length", tokenizer.min_length())
    longest = tokenizer.max_length if limit is None else min(limit, positions)
    # max_seq_length counts, not the tokenizer's model_max_length
    return TextModel(model, replace(tokenizer, max_length=positions), longest), transformer


def _transformer_settings(root: ModelFolder, only_values: Mapping[str, object], known: tuple[str, ...]) -> Options:
    """Read the settings of the Transformer module; those that would change embeddings and are unknown are refused."""
    name = next((name for name in TRANSFORMER_SETTINGS if root.has(name)), TRANSFORMER_SETTINGS[0])
    found = Options(root.read_optional_json(name), root.path / name)
    for key, value in found.values.items():
        if key in only_values:
            found.refuse_unless(key, [only_values[key], None], only_values[key])
        elif key not in (*HARMLESS, *known) and value is not None:
            given = value if isinstance(value, dict) else {key: value}
            if any(name not in HARMLESS_ARGUMENTS and setting not in (None, {}) for name, setting in given.items()):
                raise found.error(key, "nothing that changes embeddings", value)
    return found


def _normalize(folder: ModelFolder, path: str) -> Normalize:
    if folder.has(path) and path:
        module = folder.subfolder(path)
        config = Options(module.read_optional_json("config.json"), module.path / "config.json")
        _check_names(config)
    return Normalize()


def _layer_norm(folder: ModelFolder, width: int) -> Norm:
    config = Options(folder.read_json("config.json"), folder.path / "config.json")
    config.refuse_unless("dimension", (width,), width)
    tensors = folder.own_tensors()
    weight, bias = (tensors.take(f"norm.{name}", (width,)) for name in ("weight", "bias"))
    return Norm("layer_norm", weight, bias, 1e-5)  # torch's own epsilon


def _check_names(config: Options, name: str = "sentence_embedding") -> None:
    """Refuse a module that reads or writes anything but that."""
    for key in ("module_input_name", "module_output_name"):
        config.refuse_unless(key, (name, None), name)


def call_settings(folder: ModelFolder, kind: str, similarities: tuple[str, ...]) -> SentenceSettings:
    """Read what ``config_sentence_transformers.json`` says of calls; the first similarity is the usual one.

    Raises
    ------
    CheckpointError
        If the file is of another kind of model, or a value does not fit.
    """
    file, found = folder.path / SENTENCE_SETTINGS, folder.read_optional_json(SENTENCE_SETTINGS)

    def checked(key: str, expected: str, is_fine: Callable[[Any], bool], default: Any) -> Any:
        value = default if found.get(key) is None else found[key]
        if not is_fine(value):
            raise CheckpointError(f"{file}: {key}: expected {expected}, found {shown(value)}; correct it")
        return value

    def is_prompts(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())

    checked("model_type", f"{kind}, as folders of such models have it", lambda value: value == kind, kind)
    prompts = checked("prompts", "an object of names to texts", is_prompts, {})
    default = checked("default_prompt_name", "the name of a prompt", lambda value: value in (None, *prompts), None)
    expected = f"one of {', '.join(similarities)}"
    similarity = checked("similarity_fn_name", expected, similarities.__contains__, similarities[0])
    width = Options(found, file).integer("truncate_dim", 1)
    return SentenceSettings(prompts, default, similarity, width)


def _checked_modules(folder: ModelFolder, pooling: str | None) -> list[Module]:
    """Return the modules: a transformer, a pooling, then any number of others.

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
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= set(MODULES):
        raise CheckpointError(
            f"{folder.path / 'modules.json'}: expected Transformer, Pooling, and then any of {', '.join(MODULES)}, "
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
    flags = [mode for mode, key in POOLING_MODES.items() if config.flag(key, False)]
    modes = config.get("pooling_mode", flags)
    modes = [modes] if isinstance(modes, str) else modes
    if isinstance(modes, list):
        modes = [mode.removesuffix("_tokens") if isinstance(mode, str) else shown(mode) for mode in modes]
    if not isinstance(modes, list) or not modes or not set(modes) <= set(POOLING_MODES):
        raise CheckpointError(
            f"{config.where}: expected a pooling mode among {', '.join(POOLING_MODES)}, found "
            f"{shown(modes)}; ufbert supports no others"
        )
    return Pooling(tuple(modes), config.flag("include_prompt", True))


def token_dense(folder: ModelFolder, width: int) -> Dense:
    """Read a Dense module that stands on each token's hidden state."""
    return _dense(folder, width, "token_embeddings")


def _dense(folder: ModelFolder, width: int, name: str = "sentence_embedding") -> Dense:
    file = folder.path / "config.json"
    config = Options(folder.read_json("config.json"), file)
    _check_names(config, name)
    path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = path.rsplit(".", 1)[-1]
    if not path.startswith("torch.") or activation not in TORCH:
        raise CheckpointError(
            f"{file}: activation_function: expected one of torch's {', '.join(TORCH)}, found {shown(path)}"
        )
    in_width, out_width = config.integer("in_features", 1), config.integer("out_features", 1)
    if in_width != width or out_width is None:
        raise CheckpointError(
            f"{file}: expected in_features {width}, the width of what comes before, and a number out_features; "
            f"found {in_width} and {out_width}"
        )
    tensors = folder.own_tensors()
    bias = tensors.take("linear.bias", (out_width,)) if config.flag("bias", True) else None
    weight, residual = tensors.take("linear.weight", (out_width, width)), None
    if config.flag("use_residual", False) and width != out_width:
        residual = Linear(tensors.take("residual.weight", (out_width, width))).pack("float32")
    if tensors.unused():
        raise CheckpointError(
            f"{tensors.where}: tensor {tensors.unused()[0]}: {file} does not account for it, expected none; "
            "are the two of the same model?"
        )
    return Dense(Linear(weight, bias).pack("float32"), TORCH[activation], config.flag("use_residual", False), residual)
