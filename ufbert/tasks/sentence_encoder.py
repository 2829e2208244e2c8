"""Sentence embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..checkpoint.folder import ModelFolder
from ..checkpoint.saving import save_sentence_model
from ..checkpoint.sentence import load_sentence_model
from ..errors import InputError
from ..heads import normalize
from ..text_model import ON_OVERFLOW, check_batch_size, check_texts, each_text
from .encoder_settings import EncoderSettings, Limited
from .habits import CALLING, LOADING, Evaluations, as_tensor, check_alone, check_device, check_unused, first_given
from .late_chunks import chunk_embeddings
from .load import open_model
from .pool import Pooled, sharing
from .quantize import PRECISIONS, RANGED, quantize_embeddings
from .sentence_run import OUTPUT_VALUES, Call, Embeddings, Outputs

__all__ = ["Embeddings", "Outputs", "SentenceEncoder"]

MISSING: Any = object()
Texts = str | Iterable[str]


class SentenceEncoder(Limited, EncoderSettings, Pooled):
    """Turns texts into embeddings, as sentence-transformers does with the same folder.

    Parameters
    ----------
    folder : str or path, optional
        A sentence-transformers folder, or a BERT folder if `pooling` is given; or the name of a bundled model (package
        ``ufbert-weights``), such as "all-MiniLM-L6-v2", or of a model of the Hugging Face hub,
        "organisation/name[@revision]". None for the bundled default.
    max_seq_length : int, optional
        Tokens a text may have, special tokens included; by default what the folder says.
    pooling : {"cls", "mean", "max", "mean_sqrt_len", "weightedmean", "lasttoken"}, optional
        Instead of what the folder says.
    on_overflow : {"truncate", "warn", "error"}
        What to do with longer texts, where a call does not say.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the matrix multiplications; see `ufbert.load`.
    prompts, default_prompt_name, similarity_fn_name, truncate_dim : optional
        Instead of what the folder says; `prompts` are added to its own.
    revision, token, cache_folder, local_files_only : optional
        Of a model of the hub; see `ufbert.download`.
    device, others : optional
        Of sentence-transformers' class: refused with the reason, unless they are its defaults.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    InputError
        If an argument does not fit.

    Examples
    --------
    >>> import ufbert
    >>> encoder = ufbert.SentenceEncoder()
    >>> encoder.encode(["A first sentence.", "And another one."]).shape
    (2, 384)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        max_seq_length: int | None = None,
        pooling: str | None = None,
        on_overflow: str = "truncate",
        dtype: str = "float32",
        *,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        device: object = None,
        **others: object,
    ) -> None:
        check_device(device)
        if (name := others.pop("model_name_or_path", None)) is not None:
            folder = first_given("SentenceEncoder", ("folder", "model_name_or_path"), (folder, name), None)
        check_unused("SentenceEncoder", others, LOADING)
        self.on_overflow = checks.choice(on_overflow, "on_overflow", ON_OVERFLOW)
        self.model_card_data = Evaluations()
        root = open_model(
            folder, revision=revision, token=token, cache_folder=cache_folder, local_files_only=local_files_only
        )
        self._model = load_sentence_model(root, pooling, dtype)
        self._folder = os.path.abspath(root.path)
        self._texts = replace(self._model.texts, prompt="")
        self._settle(self._model.settings, prompts, default_prompt_name, similarity_fn_name, truncate_dim)
        if max_seq_length is not None:
            self.max_seq_length = max_seq_length

    def get_max_seq_length(self) -> int:
        """`max_seq_length`, by its name in sentence-transformers."""
        return self.max_seq_length

    @property
    def device(self) -> str:
        """Where it runs: "cpu"."""
        return "cpu"

    @property
    def id(self) -> str | None:
        """Sha256 of the weights: store it beside embeddings, which can be compared where it is equal."""
        return self._model.texts.model.id

    @property
    def dimension(self) -> int:
        """Width of an embedding of the model; `truncate_dim` may keep less of it."""
        return self._model.dimension

    @overload
    def encode(
        self, sentences: Texts = ..., batch_size: int = ..., show_progress_bar: bool | None = ...,
        normalize_embeddings: bool = ..., truncate_dim: int | None = ..., prompt: str | None = ...,
        prompt_name: str | None = ..., on_overflow: str | None = ..., return_truncated: Literal[False] = ..., *,
        inputs: Texts = ..., device: object = ..., convert_to_numpy: Literal[True] = ...,
    ) -> NDArray[np.float32]: ...  # fmt: skip

    @overload
    def encode(
        self, sentences: Texts = ..., batch_size: int = ..., show_progress_bar: bool | None = ...,
        normalize_embeddings: bool = ..., truncate_dim: int | None = ..., prompt: str | None = ...,
        prompt_name: str | None = ..., on_overflow: str | None = ..., *, return_truncated: Literal[True],
        inputs: Texts = ..., device: object = ..., convert_to_numpy: Literal[True] = ...,
    ) -> Embeddings: ...  # fmt: skip

    @overload
    def encode(
        self, sentences: Texts = ..., batch_size: int = ..., show_progress_bar: bool | None = ...,
        normalize_embeddings: bool = ..., truncate_dim: int | None = ..., prompt: str | None = ...,
        prompt_name: str | None = ..., on_overflow: str | None = ..., return_truncated: bool = ..., *,
        inputs: Texts = ..., output_value: str | None = ..., output_hidden_states: bool = ...,
        precision: str | None = ..., convert_to_numpy: bool = ..., convert_to_tensor: bool = ..., device: object = ...,
        **others: object,
    ) -> Any: ...  # noqa: ANN401  # fmt: skip

    def encode(
        self,
        sentences: Texts = MISSING,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_overflow: str | None = None,
        return_truncated: bool = False,
        *,
        inputs: Texts = MISSING,
        output_value: str | None = "sentence_embedding",
        output_hidden_states: bool = False,
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        **others: object,
    ) -> Any:
        """Embed texts.

        Parameters
        ----------
        sentences, inputs : str or iterable of str
            Two names of one argument.
        batch_size : int
            Texts in one forward pass at most, which `ufbert.encoder.TOKEN_BUDGET` tokens bound too. The order and the
            grouping of texts is ours: texts of one length go together.
        show_progress_bar : bool, optional
            Show progress on stderr; None for no.
        normalize_embeddings : bool
            Scale to length 1, also where the model does not.
        truncate_dim : int, optional
            Keep only the first dimensions; by default as many as the encoder's own `truncate_dim` says, usually all.
        prompt, prompt_name : str, optional
            Put before each text: literally, or one of the model's `prompts` by name.
        on_overflow : {"truncate", "warn", "error"}, optional
            What to do with texts longer than `max_seq_length`.
        return_truncated : bool
            Return `Embeddings`, which also counts the tokens that were cut off.
        output_value : {"sentence_embedding", "token_embeddings"}, optional
            "token_embeddings": the hidden states (S, H) of each text's S tokens. None: a dict of all, `Outputs`.
        output_hidden_states : bool
            With ``output_value=None``: also what each layer gives.
        precision : {"float32", "int8", "uint8", "binary", "ubinary"}, optional
            Quantise the embeddings; see `ufbert.quantize_embeddings`. int8 and uint8 take their ranges from the texts
            of this call.
        convert_to_numpy, convert_to_tensor : bool
            Return one array, or one tensor of PyTorch; with neither a list of arrays.
        device, others : optional
            `processes`, how many to share the texts among; or the `pool` of `start_multi_process_pool`; `chunk_size`,
            texts that one gets at a time. Others of sentence-transformers' method are refused with the reason, unless
            they are its defaults.

        Returns
        -------
        (dim,) float32 array for a str, (N, dim) for an iterable, in its order; or as the arguments say

        Raises
        ------
        InputError
            If an argument does not fit, or with ``on_overflow="error"`` if a text is too long.
        """
        given = first_given("encode", ("sentences", "inputs"), (sentences, inputs), MISSING)
        check_device(device)
        shared = sharing(others)
        check_unused("encode", others, CALLING)
        precision = checks.choice(precision or "float32", "precision", PRECISIONS)
        call = self._call(batch_size, normalize_embeddings, truncate_dim, prompt, prompt_name, on_overflow)
        single = isinstance(given, str)
        read = each_text([given] if single else given, "sentences")
        if output_value != "sentence_embedding":
            if output_value is not None:
                checks.choice(output_value, "output_value", OUTPUT_VALUES)
            check_alone(return_truncated, precision, convert_to_tensor, f"output_value={output_value!r}")
            outputs = list(call.outputs(read, output_hidden_states))
            if output_value is None:
                return outputs[0] if single else outputs
            tokens = [each["token_embeddings"] for each in outputs]
            return tokens[0] if single else tokens
        if output_hidden_states:
            raise InputError("output_hidden_states: expected output_value=None with it, got sentence_embedding")
        embed = call.embeddings if shared is None else partial(shared.embeddings, self, call)
        found = embed(read, given, bool(show_progress_bar))
        rows = quantize_embeddings(found.embeddings, precision)
        if return_truncated:
            check_alone(False, precision, convert_to_tensor, "return_truncated")
            return Embeddings(rows[0] if single else rows, found.truncated)
        result = rows[0] if single else rows
        if convert_to_tensor:
            return as_tensor(result)
        return result if convert_to_numpy or single else list(result)

    def encode_query(self, sentences: Texts = MISSING, **options: Any) -> Any:  # noqa: ANN401
        """Embed queries: `encode` with all its arguments, and with the prompt "query" where no other is given."""
        return self.encode(sentences, **self._prompted(options, ("query",)))

    def encode_document(self, sentences: Texts = MISSING, **options: Any) -> Any:  # noqa: ANN401
        """Embed documents: `encode`, with the prompt "document", "passage" or "corpus" where no other is given."""
        return self.encode(sentences, **self._prompted(options, ("document", "passage", "corpus")))

    def encode_chunks(
        self,
        text: str,
        spans: Iterable[Sequence[int]],
        *,
        overlap: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        precision: str | None = "float32",
    ) -> NDArray[Any]:
        """Embed parts of a long text that runs through the encoder once ("late chunking", arXiv 2409.04701).

        Each part's embedding is pooled from tokens that have seen the whole text.

        Parameters
        ----------
        text : str
            Longer than `max_seq_length` too: it then runs in windows that overlap.
        spans : iterable of (int, int)
            First character of each part and the one behind its last; parts may overlap. A token belongs to every part
            that has a character of it.
        overlap : int, optional
            Tokens that neighbouring windows share; by default a quarter of `max_seq_length`.
        normalize_embeddings, truncate_dim, prompt, prompt_name, precision
            As in `encode`.

        Returns
        -------
        (number of spans, dim) float32 array, or as `precision` says

        Raises
        ------
        InputError
            If an argument does not fit, a span has no token, or the model pools the first token alone.

        Examples
        --------
        >>> import ufbert
        >>> encoder = ufbert.SentenceEncoder()
        >>> text = "Berlin is old. The city lies on the Spree."
        >>> encoder.encode_chunks(text, [(0, 14), (15, 42)]).shape
        (2, 384)
        """
        precision = checks.choice(precision or "float32", "precision", PRECISIONS)
        call = self._call(1, normalize_embeddings, truncate_dim, prompt, prompt_name, None)
        rows = chunk_embeddings(self._model, call.texts, text, spans, overlap)[:, : call.width]
        return quantize_embeddings(normalize(rows) if normalize_embeddings else rows, precision)

    def stream(
        self,
        sentences: Iterable[str],
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_overflow: str | None = None,
        precision: str | None = "float32",
    ) -> Iterator[NDArray[np.float32]]:
        """Embed any number of texts, holding `batch_size` of them at a time.

        Parameters are those of `encode`; memory does not grow with the number of texts. `precision` is one that needs
        no ranges: "float32", "binary" or "ubinary".

        Yields
        ------
        (dim,) float32 array
            One for each text, in order.
        """
        kept = [name for name in PRECISIONS if name not in RANGED]
        advice = "int8 needs the ranges of all: quantise them with ufbert.quantize_embeddings"
        precision = checks.choice(precision or "float32", "precision", kept, advice=advice)
        call = self._call(batch_size, normalize_embeddings, truncate_dim, prompt, prompt_name, on_overflow)
        windows = call.windows(each_text(sentences, "sentences"), 0)
        return (row for rows, _ in windows for row in quantize_embeddings(rows, precision))

    encode_iter = stream
    """Its former name."""

    def tokenize(self, texts: str | Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Tokenise texts, padded to the longest, as sentence-transformers' ``tokenize``.

        Returns
        -------
        dict of (N, S) int64 arrays
            ``input_ids``, ``token_type_ids``, ``attention_mask``.
        """
        encodings, _ = self._texts.tokenize(check_texts(texts, "texts"))
        ids, types, mask = self._texts.batch(encodings).padded(self._texts.model.config.pad_token_id)
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}

    def save_pretrained(
        self, path: str | os.PathLike[str], model_name: str | None = None, create_model_card: bool = True,
        train_datasets: list[str] | None = None, safe_serialization: bool = True,
    ) -> None:  # fmt: skip
        """Write the model folder anew, with the settings of this encoder, for this package or sentence-transformers.

        Parameters
        ----------
        path : str or path
            A folder that does not exist yet, or is empty. Weights are those of the folder that was loaded, in its
            precision; so is the model card.
        model_name, create_model_card, train_datasets, safe_serialization
            Of sentence-transformers' method: without an effect, except that False for the last is refused.

        Raises
        ------
        InputError
            If the place is taken.
        """
        if not safe_serialization:
            raise InputError("safe_serialization: expected True, got False; ufbert writes safetensors only")
        root = ModelFolder(Path(self._folder))
        save_sentence_model(root, path, self._model, self._as_settings(), self.max_seq_length)

    save = save_pretrained
    """Its other name in sentence-transformers."""

    def _call(
        self, batch_size: int, normalize_embeddings: bool, truncate_dim: int | None, prompt: str | None,
        prompt_name: str | None, on_overflow: str | None,
    ) -> Call:  # fmt: skip
        on_overflow = self.on_overflow if on_overflow is None else on_overflow
        prompt = self._prompt(prompt, prompt_name)
        return Call(
            self._model,
            replace(self._texts, prompt=prompt) if prompt else self._texts,
            self._width(truncate_dim),
            check_batch_size(batch_size),
            normalize_embeddings,
            checks.choice(on_overflow, "on_overflow", ON_OVERFLOW),
        )
