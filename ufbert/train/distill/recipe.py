"""What a conversion is made of: everything that its result depends on, but teacher, corpus and device."""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks

__all__ = ["CONTROLS", "Recipe"]

CONTROLS = ("none", "affine", "dense")


@dataclass(frozen=True)
class Recipe:
    """How to convert a model.

    Attributes
    ----------
    num_trees, depth : int
        Of each layer's FFF, P and D; a token visits P * (D + 1) of P * (2**(D + 1) - 1) neurons.
    control : {None, "none", "affine", "dense"}
        Train a control instead, in the same way: no feed-forward layers but a bias, an affine map, or a dense layer
        with as many neurons as the FFF visits.
    grow_tokens : int
        Token budget for growing trees, divided by `num_trees` for each tree. 0: random initialisation, no revival.
    local_tokens : int
        Tokens to train each layer on by itself, with the teacher's activations.
    local_passes : int
        How often cached activations are used.
    tokens : int
        Tokens to train all layers on together, end to end.
    chunks : int
        Reuse only the first chunks of 4,096 texts, end to end. 0: go through the whole corpus.
    batch_tokens : int
        Tokens of one step.
    max_length : int
        Tokens of a text, special tokens included.
    joined : float
        Share of texts that are followed by one to four more, so that longer texts occur.
    cropped, noisy : float
        On a GPU: shares of texts that begin at a later token, and of those some of whose tokens are drawn at random.
    local_rate, rate : float
        Adam's largest learning rate for the feed-forward layers, layer by layer and end to end.
    other_rate : float
        That of attention and norms, end to end.
    embedding_rate : float
        That of the embeddings' tables and norm, end to end; 0: they stay the teacher's.
    decision_gradient : bool
        Let decisions learn from the paths that tokens do not take, see `ufbert.cmm.fff_backward`. Otherwise deciding
        nodes learn as the authors' do, from their activation alone.
    switch_cost : float
        Cost of a path not taken, in standard deviations of the loss.
    cosine_weight : float
        Of 1 - cosine between sentence embeddings, beside the error of the last hidden state.
    layer_weight : float
        Of the mean error of the other layers' hidden states.
    seed : int
        On the CPU: same seed, same machine, same number of threads, no time budget: same weights.
    seconds : float
        Time budget: training ends when this or the tokens are over, and learning rates fall with whichever is nearer.
        Sessions before an interruption count. Layer by layer takes a fifth of it at most. 0: no budget.
    """

    num_trees: int = 16
    depth: int = 7
    control: str | None = None
    grow_tokens: int = 400_000
    local_tokens: int = 2_000_000
    local_passes: int = 3
    tokens: int = 4_000_000
    chunks: int = 0
    batch_tokens: int = 4_096
    max_length: int = 128
    joined: float = 0.03
    cropped: float = 0.0
    noisy: float = 0.0
    local_rate: float = 3e-3
    rate: float = 1e-3
    other_rate: float = 5e-4
    embedding_rate: float = 2e-4
    decision_gradient: bool = True
    switch_cost: float = 0.2
    cosine_weight: float = 1.0
    layer_weight: float = 2.0
    seed: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        checks.depth(self.depth)
        for name, low, high in (
            ("num_trees", 1, 2**16),
            ("grow_tokens", 0, 2**40),
            ("local_tokens", 0, 2**40),
            ("local_passes", 1, 1000),
            ("tokens", 0, 2**40),
            ("chunks", 0, 2**40),
            ("batch_tokens", 16, 2**20),
            ("max_length", 4, 2**20),
            ("seed", 0, 2**32 - 1),
        ):
            checks.integer(getattr(self, name), name, low, high)
        rates = ("local_rate", "rate", "other_rate", "embedding_rate")
        for name in (*rates, "joined", "cropped", "noisy", "switch_cost", "cosine_weight", "layer_weight", "seconds"):
            checks.number(getattr(self, name), name)
        if self.control is not None:
            checks.choice(self.control, "control", CONTROLS)

    @property
    def visited(self) -> int:
        """Neurons that a token visits in a layer."""
        return self.num_trees * (self.depth + 1)

    def feed_forward(self, hidden_size: int) -> dict[str, object]:
        """Fields of `ModelConfig` that say what replaces the teacher's feed-forward layers."""
        if self.control is None:
            sizes = {"num_trees": self.num_trees, "depth": self.depth}
            return {"feed_forward": "fff", "hidden_act": "gelu", "output_bias": True, **sizes}
        if self.control == "affine":  # of full rank, in a form that every BERT implementation can run
            return {"feed_forward": "dense", "hidden_act": "identity", "intermediate_size": hidden_size}
        width = self.visited if self.control == "dense" else 0
        return {"feed_forward": "dense", "hidden_act": "gelu", "intermediate_size": width}
