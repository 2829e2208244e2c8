"""What a model is, in frozen dataclasses with Hugging Face's words.

`ufbert.checkpoint` fills them from ``config.json``; nothing below it knows that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from . import checks
from .errors import CheckpointError

__all__ = ["LIMITS", "ClassificationHeadConfig", "ModelConfig", "check_size"]

# No real model comes near these; they stop a hostile config.json before anything is allocated or looped over.
LIMITS = {
    "vocab_size": 10_000_000,
    "hidden_size": 65_536,
    "embedding_size": 65_536,
    "num_hidden_layers": 1_024,
    "num_attention_heads": 65_536,
    "intermediate_size": 4_194_304,
    "max_position_embeddings": 1_048_576,
    "type_vocab_size": 65_536,
    "num_trees": 4_194_304,
    "num_labels": 1_048_576,
    "head_dim": 1_048_576,
}
MAX_EXPANDED = 2**30  # input weights of a pruned model's nodes, the dropped ones too: the file does not bound them
MAX_POSITION_TABLE = 2**26  # entries of a sinusoidal table: 256 MB


@dataclass(frozen=True)
class ClassificationHeadConfig:
    """A text classifier: a pooler, dense, activation, norm, linear.

    The pooler "zero_index" takes the first token, "mean" the average of a text; a crammed model's take all positions.
    With `norm`, dense and norm are those of the masked LM's head.
    """

    pooler: str
    include_ff_layer: bool
    head_dim: int
    activation: str
    norm: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """An encoder and its head.

    Attributes
    ----------
    family : str
        Module of `ufbert.checkpoint.families` that knows the checkpoint's words.
    task : {"base", "masked-lm", "sequence-classification", "token-classification", "question-answering"}
        Which head the checkpoint has.
    position_embedding : {"learned", "sinusoidal", "scaled-sinusoidal", "rotary", "none"}
    rotary_base, window_rotary_base : float
        Of the wavelengths of rotary positions, in most layers and in windowed ones.
    window : int
        How far a token sees to each side in windowed layers.
    windowed_layers : tuple of bool
        Which layers have that window; empty for none.
    first_position : int
        Position of a text's first token: 0, or as in RoBERTa the padding index + 1; see `ufbert.batch.from_padded`.
    distance_buckets : int
        Of the attention scores' bias by distance, as MPNet has it; 0 for none.
    norm_bias : bool
        Whether layer norms have one.
    first_norm : bool
        Whether the first layer has a norm before its attention.
    norm_position : {"post", "pre"}
        Layer norm after each residual sum (BERT), or before each sublayer (crammed).
    norm : {"layer_norm", "rms_norm", "scale_norm"}
    feed_forward : {"dense", "gated", "fff"}
        "gated": half of `intermediate_size` is the value, half the gate. "fff": `num_trees` binary trees of `depth`.
    intermediate_size : int
        0 for dense layers that have no neurons and give their output bias only.
    output_bias : bool
        Whether FFF layers have one; dense layers follow `linear_bias`.
    pruned : bool
        Whether the checkpoint has only the nodes of FFF layers that some corpus visited.
    hidden_act : str
        A key of `ufbert.activations.TABLE`.
    embedding_size : int
        Width of the embedding tables where they are projected to `hidden_size`; 0 for that width itself.
    lm_act : str
        Activation of the masked-LM head; empty for `hidden_act`.
    lm_bias : bool
        Whether that head's dense layer has one.
    token_transform : bool
        Whether a classifier of tokens stands on a transform of its own, as a masked LM's decoder does.
    """

    family: str
    task: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    max_position_embeddings: int
    type_vocab_size: int = 0
    position_embedding: str = "learned"
    rotary_base: float = 10_000.0
    window_rotary_base: float = 10_000.0
    window: int = 0
    windowed_layers: tuple[bool, ...] = ()
    distance_buckets: int = 0
    first_position: int = 0
    embedding_norm: bool = True
    norm: str = "layer_norm"
    norm_position: str = "post"
    norm_bias: bool = True
    first_norm: bool = True
    final_norm: bool = False
    qkv_bias: bool = True
    linear_bias: bool = True
    output_projection: bool = True
    feed_forward: str = "dense"
    intermediate_size: int = 1
    num_trees: int = 1
    depth: int = 0
    output_bias: bool = False
    pruned: bool = False
    embedding_size: int = 0
    lm_transform: bool = True
    lm_act: str = ""
    lm_bias: bool = True
    token_transform: bool = False
    decoder_bias: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int = 0
    num_labels: int = 2
    id2label: Mapping[int, str] = field(default_factory=dict)
    problem_type: str | None = None
    classification_head: ClassificationHeadConfig | None = None

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_length(self) -> int:
        """Tokens that a text may have."""
        return self.max_position_embeddings - self.first_position

    @property
    def labels(self) -> list[str]:
        """Names of the classes, "LABEL_0" and so on where there are none."""
        return [self.id2label.get(index, f"LABEL_{index}") for index in range(self.num_labels)]

    @property
    def num_nodes(self) -> int:
        """Nodes of one tree."""
        return int(2 ** (self.depth + 1)) - 1

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name in LIMITS:
                check_size(getattr(self, item.name), item.name, self._minimum(item.name), LIMITS[item.name])
        check_size(self.pad_token_id, "pad_token_id", 0, self.vocab_size - 1)
        check_size(self.first_position, "position of the first token", 0, self.max_position_embeddings - 1)
        check_size(self.depth, "depth", 0, checks.MAX_DEPTH)
        if self.feed_forward == "fff":
            check_size(self.num_trees * self.num_nodes, "num_trees * nodes of a tree", 1, LIMITS["num_trees"])
        if self.pruned:
            expanded = self.num_hidden_layers * self.num_trees * self.num_nodes * self.hidden_size
            check_size(expanded, "all nodes * hidden_size of a pruned model", 1, MAX_EXPANDED)
        if self.classification_head:
            check_size(self.classification_head.head_dim, "head_dim", 1, LIMITS["head_dim"])
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"config.json: hidden_size {self.hidden_size} is not divisible by num_attention_heads "
                f"{self.num_attention_heads}; expected a multiple: correct the two in config.json"
            )
        if "sinusoidal" in self.position_embedding:
            entries = self.max_position_embeddings * self.hidden_size
            check_size(entries, "max_position_embeddings * hidden_size", 1, MAX_POSITION_TABLE)

    def _minimum(self, name: str) -> int:
        may_be_none = name in ("type_vocab_size", "embedding_size") or (
            name == "intermediate_size" and self.feed_forward == "dense"
        )
        return 0 if may_be_none else 1


def check_size(value: object, name: str, minimum: int, maximum: int) -> None:
    """Raise CheckpointError unless `value` is an integer between the two."""
    advice = "is this the config.json that came with the weights?"
    checks.integer(value, f"config.json: {name}", minimum, maximum, advice=advice, error=CheckpointError)
