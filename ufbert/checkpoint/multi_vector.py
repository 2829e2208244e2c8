"""A late-interaction folder (ColBERT) of sentence-transformers, PyLate or Stanford's code: a vector for each token."""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import checks
from ..batch import Batch
from ..errors import CheckpointError, shown
from ..heads import Dense, normalize
from ..layers import Linear
from ..text_model import TextModel
from .families import COLBERT
from .files import ARTIFACT, SENTENCE_SETTINGS
from .folder import ModelFolder
from .options import Options
from .pack import load_model
from .sentence import ONLY_VALUES, text_model, token_dense

__all__ = ["Expansion", "MultiVectorModel", "load_multi_vector_model"]

LENGTHS = ("query_length", "document_length", "query_expansion")
PYLATE = {"pylate.models.Dense.Dense": "Dense"}
DEFAULT_LENGTH = 32  # of ColBERT's queries
DEFAULT_DOCUMENT_LENGTH, DEFAULT_DIM = 220, 128
MARKERS = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
# Settings of Stanford's ColBERT: those that its own code alone names or shows, of training, of indexes and of runs; and
# the only values of those that would change vectors or scores.
WITHOUT_EFFECT = (
    "accumsteps", "amp", "avoid_fork_if_possible", "bsize", "centroid_score_threshold", "checkpoint",
    "clustering_mode", "collection", "distillation_alpha", "doc_token", "experiment", "gpus", "ignore_scores",
    "index_bsize", "index_name", "index_path", "index_root", "kmeans_niters", "load_index_with_mmap", "lr", "maxsteps",
    "meta", "model_name", "name", "nbits", "ncells", "ndocs", "nranks", "nway", "overwrite", "protected_tokens",
    "queries", "query_token", "rank", "resume", "root", "save_every", "total_visible_gpus", "triples",
    "use_ib_negatives", "warmup", "warmup_bert",
)  # fmt: skip
ONLY = {"interaction": "colbert", "pool_factor": 1, "relu": False, "reranker": False, "similarity": "cosine"}
UNDERSTOOD = (
    "attend_to_mask_tokens", "dim", "doc_maxlen", "doc_token_id", "mask_punctuation", "query_maxlen", "query_token_id",
)  # fmt: skip


@dataclass(frozen=True)
class Expansion:
    """Queries are filled up to `length` tokens with `token`; tokens of the text attend to it only with `attend`."""

    length: int
    token: int
    attend: bool


@dataclass(frozen=True)
class MultiVectorModel:
    """An encoder with its tokenizer, and what makes vectors of its hidden states. arXiv 2004.12832.

    Attributes
    ----------
    queries, documents : TextModel
        With the prompt and the length of each.
    expansion : Expansion or None
    dense : tuple of Dense
    skipped : (n,) int array
        Ids of tokens that documents leave out.
    markers : (int, int) or None
        Ids that are put behind the first token of a query, of a document.
    """

    queries: TextModel
    documents: TextModel
    expansion: Expansion | None
    dense: tuple[Dense, ...]
    skipped: np.ndarray
    markers: tuple[int, int] | None = None

    @property
    def dimension(self) -> int:
        """Width of a vector."""
        return self.dense[-1].linear.shape[0] if self.dense else self.queries.model.config.hidden_size

    def embed(self, hidden: np.ndarray) -> np.ndarray:
        """Make vectors of hidden states: (T, H) -> (T, dim)."""
        for module in self.dense:
            hidden = module(hidden)
        return normalize(hidden)

    def sequence(self, ids: list[int], is_query: bool) -> tuple[list[int], int]:
        """Mark a text, and fill a query up: its ids, and how many are its own."""
        if self.markers is not None:
            ids = [*ids[:1], self.markers[0 if is_query else 1], *ids[1:]]
        if not is_query or self.expansion is None:
            return ids, len(ids)
        return [*ids, *[self.expansion.token] * (self.expansion.length - len(ids))], len(ids)

    def kept(self, batch: Batch) -> np.ndarray:
        """Which tokens of documents have a vector, (T,) bool."""
        return ~np.isin(batch.input_ids, self.skipped)


def load_multi_vector_model(folder: ModelFolder, dtype: str = "float32") -> MultiVectorModel:
    """Load a late-interaction folder.

    Raises
    ------
    CheckpointError
        If the folder is not usable, or has a module or a setting that is not supported.
    """
    if not folder.has("modules.json") and _is_stanfords(folder):
        return _stanfords(folder, dtype)
    modules = [(PYLATE.get(kind, kind), path) for kind, path in folder.modules()]
    kinds, settings = [kind for kind, _ in modules], _settings(folder)
    pylate = settings.get("model_type", "MultiVectorEncoder") == "ColBERT"
    dense_count = kinds.count("Dense")
    native = ["Transformer", *["Dense"] * dense_count, "MultiVectorMask", "Normalize"]
    expected = ["Transformer", *["Dense"] * dense_count] if pylate else native
    if kinds != expected or not folder.has("modules.json"):
        raise CheckpointError(
            f"{folder.path / 'modules.json'}: expected Transformer, Dense, MultiVectorMask and Normalize, or PyLate's "
            f"Transformer and Dense, or config.json of Stanford's {COLBERT}, found {shown(kinds)}; ufbert supports no "
            "others"
        )
    root = folder.transformer()
    model = load_model(root, encoder_only=True, dtype=dtype)
    texts, transformer = text_model(root, model, ONLY_VALUES, LENGTHS)
    width, dense = model.config.hidden_size, []
    for kind, path in modules:
        if kind == "Dense":
            dense.append(token_dense(folder.subfolder(path), width))
            width = dense[-1].linear.shape[0]
    source = settings if pylate else transformer
    expansion = _expansion(source, texts, pylate)
    prompts = _prompts(settings, texts)
    query_length = expansion.length if expansion else source.integer("query_length", 3)
    return MultiVectorModel(
        _limited(replace(texts, prompt=prompts["query"]), query_length),
        _limited(replace(texts, prompt=prompts["document"]), source.integer("document_length", 3)),
        expansion,
        tuple(dense),
        _skipped(settings if pylate else _mask(folder), texts, list(string.punctuation) if pylate else []),
    )


def _is_stanfords(folder: ModelFolder) -> bool:
    names = folder.read_optional_json("config.json").get("architectures")
    return folder.has(ARTIFACT) or names == [COLBERT]


def _stanfords(folder: ModelFolder, dtype: str) -> MultiVectorModel:
    """Load a folder of colbert-ai: an encoder, ``linear.weight`` and ``artifact.metadata``. arXiv 2112.01488."""
    source = _artifact(folder)
    model = load_model(folder, encoder_only=True, dtype=dtype)
    texts, _ = text_model(folder, model, ONLY_VALUES)
    backend, longest = texts.tokenizer.backend, model.config.max_length
    query_length = min(source.integer("query_maxlen", 4) or DEFAULT_LENGTH, longest)
    document_length = min(source.integer("doc_maxlen", 4) or DEFAULT_DOCUMENT_LENGTH, longest)
    mask, padding = texts.tokenizer.token_id("mask_token"), texts.tokenizer.token_id("pad_token")
    if mask is None:
        raise source.error("query_maxlen", "a tokenizer with a mask token, to fill queries up", query_length)
    skipped = [] if padding is None else [padding]
    if source.flag("mask_punctuation", True):
        # A mark that the vocabulary lacks skips the unknown token: it is what the tokenizer gives, as there.
        marks = (backend.encode(mark, add_special_tokens=False).ids[:1] for mark in string.punctuation)
        skipped += [number for first in marks for number in first]
    return MultiVectorModel(
        _limited(texts, query_length - 1),
        _limited(texts, document_length - 1),
        Expansion(query_length, mask, source.flag("attend_to_mask_tokens", False)),
        (_projection(folder, source, model.config.hidden_size),),
        np.array(sorted(set(skipped)), np.int64),
        (_marker(source, texts, "query_token_id"), _marker(source, texts, "doc_token_id")),
    )


def _artifact(folder: ModelFolder) -> Options:
    """Read the settings; what is not understood is refused."""
    values = folder.read_optional_json(ARTIFACT)
    found = Options(values, folder.path / ARTIFACT)
    if "config" in values:
        found = found.section("config")
    for key, value in found.values.items():
        if key in ONLY:
            found.refuse_unless(key, (ONLY[key], None), ONLY[key])
        elif key not in (*UNDERSTOOD, *WITHOUT_EFFECT) and value is not None:
            raise found.error(key, "settings of colbert-ai 0.2", value)
    return found


def _marker(source: Options, texts: TextModel, key: str) -> int:
    """Id of a marker; the unknown token's where the vocabulary lacks it, as transformers gives it."""
    name = source.get(key, MARKERS[key])
    number: int | None = texts.tokenizer.backend.token_to_id(name) if isinstance(name, str) else None
    if number is None and isinstance(name, str):
        number = texts.tokenizer.token_id("unk_token")
    if number is None:
        raise source.error(key, "a token of the vocabulary", name)
    return number


def _projection(folder: ModelFolder, source: Options, width: int) -> Dense:
    """Read the linear layer on each token."""
    tensors, name = folder.tensors(), "linear.weight"
    stored = tensors.tensor(name).shape[:1] if name in tensors else ()
    dim = source.integer("dim", 1) or next(iter(stored), DEFAULT_DIM)
    weight = tensors.take(name, (dim, width))
    dense = Dense(Linear(weight).pack("float32"), "identity")
    tensors.release()
    return dense


def _settings(folder: ModelFolder) -> Options:
    found = Options(folder.read_optional_json(SENTENCE_SETTINGS), folder.path / SENTENCE_SETTINGS)
    found.choice("model_type", ("MultiVectorEncoder", "ColBERT"), None)
    found.choice("similarity_fn_name", ("maxsim", "MaxSim", None), None)
    return found


def _mask(folder: ModelFolder) -> Options:
    path = next(module.path for module in folder.modules() if module.kind == "MultiVectorMask")
    found = Options(folder.subfolder(path).read_json("config.json"), folder.path / path / "config.json")
    found.refuse_unless("skiplist_tasks", (["document"], None), ["document"])
    found.refuse_unless("keep_only_token_ids", (None,), None)
    return found


def _limited(texts: TextModel, length: int | None) -> TextModel:
    return texts if length is None else replace(texts, max_length=min(length, texts.model.config.max_length))


def _prompts(settings: Options, texts: TextModel) -> dict[str, str]:
    """What stands before queries and documents; PyLate's prefixes are one token where the vocabulary has it."""
    saved, prompts = settings.section("prompts"), {}
    for name in ("query", "document"):
        text, prefix = saved.get(name, ""), settings.get(f"{name}_prefix", "")
        if not isinstance(text, str) or not isinstance(prefix, str):
            raise settings.error("prompts", "texts by their names", {name: text, f"{name}_prefix": prefix})
        prompts[name] = prefix + text.removeprefix(prefix)
        _register(texts.tokenizer.backend, prefix)
    return prompts


def _register(backend: Any, prefix: str) -> None:  # noqa: ANN401
    from tokenizers import AddedToken

    for text in (prefix, *prefix.split(None, 1)[:1]):
        if text and backend.token_to_id(text) is not None:
            if backend.encode(text, add_special_tokens=False).tokens != [text]:
                backend.add_special_tokens([AddedToken(text, normalized=False, special=True)])
            return


def _expansion(source: Options, texts: TextModel, pylate: bool) -> Expansion | None:
    if pylate:
        if not source.flag("do_query_expansion", True):
            return None
        length = source.integer("query_length", 3) or DEFAULT_LENGTH
        attend, name = source.flag("attend_to_expansion_tokens", False), None
    else:
        found = source.section("query_expansion")
        if not found.values:
            return None
        found.choice("strategy", ("fixed",), None)
        length = checks.integer(
            found.get("length", None), f"{found.where}: length", 3, texts.model.config.max_length, error=CheckpointError
        )
        attend, name = found.flag("attend", False), found.get("token", None)
    token = texts.tokenizer.token_id("mask_token") if name is None else texts.tokenizer.backend.token_to_id(str(name))
    if token is None:
        raise source.error("query_expansion", "a tokenizer with a mask token", name)
    return Expansion(min(length, texts.model.config.max_length), token, attend)


def _skipped(source: Options, texts: TextModel, default: list[str]) -> np.ndarray:
    words = source.get("skiplist_words", default)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise source.error("skiplist_words", "a list of tokens", words)
    ids = (texts.tokenizer.backend.token_to_id(word) for word in words)
    return np.array([number for number in ids if number is not None], np.int64)
