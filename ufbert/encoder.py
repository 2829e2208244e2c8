"""The encoder, the only loop over layers, and the model: an encoder with its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .batch import Batch, from_padded, pad
from .config import ModelConfig
from .errors import InputError
from .heads import MaskedLMHead, Pooler, SequenceClassifier, TokenClassifier
from .layers import Embeddings, EncoderLayer, Norm
from .precision import Precision

__all__ = ["TOKEN_BUDGET", "Encoder", "LayerTrace", "Model", "ModelOutput"]

TOKEN_BUDGET = 4_096
"""Tokens that run through the layers at a time: what bounds the memory of a call."""


class LayerTrace(NamedTuple):
    """What flows through one encoder layer, of T tokens.

    Attributes
    ----------
    feed_forward_input : (T, H) float32 array or None
        What its feed-forward layer reads: attention, residual sum and norm are done.
    output : (T, H) float32 array
        What the layer gives.
    """

    feed_forward_input: np.ndarray | None
    output: np.ndarray


@dataclass(frozen=True, eq=False)
class Encoder:
    """Embeddings, layers and, in pre-norm models, a final norm."""

    embeddings: Embeddings
    layers: tuple[EncoderLayer, ...]
    final_norm: Norm | None

    def __call__(self, batch: Batch) -> np.ndarray:
        """Run a ragged batch, which `TOKEN_BUDGET` should bound: T tokens -> (T, H) float32."""
        if batch.num_tokens == 0:
            return np.zeros((0, self.embeddings.width), np.float32)
        for trace in self.trace(batch, inputs=False):
            x = trace.output
        return x if self.final_norm is None else self.final_norm(x)

    def hidden_states(self, batch: Batch) -> list[np.ndarray]:
        """Run a ragged batch and keep all states: the embeddings and what each layer gives, (T, H) each.

        The last one is what a call gives, after a final norm.
        """
        states = [self.embeddings(batch)]
        states += [trace.output for trace in self.trace(batch, inputs=False)]
        if self.final_norm is not None:
            states[-1] = self.final_norm(states[-1])
        return states

    def trace(self, batch: Batch, inputs: bool = True) -> Iterator[LayerTrace]:
        """Run a ragged batch layer by layer; a final norm is left out.

        Parameters
        ----------
        batch : Batch
        inputs : bool
            Also yield what the feed-forward layers read, for which each layer runs in parts: the same bits, slower.

        Yields
        ------
        LayerTrace
            One for each layer, when it has run.
        """
        x = self.embeddings(batch)  # (T,) -> (T, H)
        for layer in self.layers:
            read, x = layer.traced(x, batch) if inputs else (None, layer(x, batch))  # (T, H) -> (T, H)
            yield LayerTrace(read, x)


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """What a model computes for a padded batch of N texts of S positions.

    Attributes
    ----------
    last_hidden_state : (N, S, H) float32 array
        Zero at padding and at every other masked position.
    logits : float32 array or None
        (N, S, V) of a masked LM, zero at masked positions; (N, C) of a text classifier; (N, S, C) of a token
        classifier; (N, S, 2), start and end, of a question answerer; None without a head.
    pooler_output : (N, H) float32 array or None
        Of BERT's pooler, where the checkpoint has one that is used.
    hidden_states : tuple of (N, S, H) float32 arrays, or None
        With ``output_hidden_states=True``: the embeddings, then what each layer gives; the last is
        `last_hidden_state`.
    """

    last_hidden_state: np.ndarray
    logits: np.ndarray | None = None
    pooler_output: np.ndarray | None = None
    hidden_states: tuple[np.ndarray, ...] | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """An encoder with its head; `ufbert.load` makes it. Several threads may call one model at once.

    A pickled model names its folder, and is loaded from there again; a copy shares the weights, which never change.
    """

    config: ModelConfig
    encoder: Encoder
    pooler: Pooler | None = None
    head: MaskedLMHead | SequenceClassifier | TokenClassifier | None = None
    precision: Precision = field(default=Precision("float32", "plain arrays"), compare=False)
    reload: Callable[[], Model] | None = field(default=None, repr=False, compare=False)
    digest: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> str | None:
        """Sha256 of the weights' files, read when it is asked for; None for a model that no folder holds.

        Embeddings can be compared where it is equal.
        """
        return None if self.digest is None else self.digest()

    def __reduce__(self) -> tuple[Callable[[], Model], tuple[()]]:
        if self.reload is None:
            raise TypeError("model: expected one that ufbert.load made, got another, which cannot be pickled")
        return self.reload, ()

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Model:
        return self

    def __call__(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        output_hidden_states: bool = False,
    ) -> ModelOutput:
        """Run padded arrays, as Hugging Face's models take them.

        Parameters
        ----------
        input_ids : (N, S) integer array
        attention_mask : (N, S) array of 0 and 1, optional
            0 at padding, which may stand anywhere. None for all ones.
        token_type_ids : (N, S) integer array, optional
            None for zeros. Models without token types ignore it.
        output_hidden_states : bool
            Also give the embeddings and what each layer gives.

        Returns
        -------
        ModelOutput

        Raises
        ------
        InputError
            If a shape, a dtype or an id does not fit the model.
        """
        keep = self.head.keep if self.head else "first" if self.pooler else "attended"
        first = self.config.first_position
        by_distance = self.config.distance_buckets > 0 or self.config.position_embedding == "rotary"
        batch, kept = from_padded(input_ids, attention_mask, token_type_ids, keep, first, by_distance)
        self.check(batch, kept.shape[1])
        run = self.encoder.hidden_states if output_hidden_states else lambda part: [self.encoder(part)]
        parts = [run(part) for _, part in batch.parts(TOKEN_BUDGET)]
        states = [np.concatenate(layer) for layer in zip(*parts, strict=True)]  # (T, H) each
        hidden = states[-1]
        pooled = None if self.pooler is None else self.pooler(hidden, batch)
        logits = None
        if self.head is not None:
            logits = self.head(hidden, batch)
            if self.head.per_token:
                logits = pad(logits, kept, batch.attended)  # (T, C) -> (N, S, C)
        padded = tuple(pad(state, kept, batch.attended) for state in states) if output_hidden_states else None
        last = padded[-1] if padded else pad(hidden, kept, batch.attended)
        return ModelOutput(last, logits, pooled, padded)

    def check(self, batch: Batch, num_positions: int) -> None:
        """Raise InputError unless the embedding tables have a row for everything in `batch`."""
        limits = [("input_ids", batch.input_ids, self.config.vocab_size)]
        if self.config.type_vocab_size:
            limits.append(("token_type_ids", batch.token_type_ids, self.config.type_vocab_size))
        for name, ids, limit in limits:
            if ids.size and not 0 <= ids.min() <= ids.max() < limit:
                wrong = ids.min() if ids.min() < 0 else ids.max()
                raise InputError(
                    f"{name}: expected ids from 0 to {limit - 1}, got {wrong}; "
                    "was the text tokenised with this model's own tokenizer?"
                )
        positions = self.config.max_length
        if self.config.position_embedding != "none" and num_positions > positions:
            raise InputError(
                f"input_ids: expected at most {positions} positions a text, got {num_positions}; truncate the texts"
            )
