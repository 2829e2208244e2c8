"""The route ``/routes``, which only FFF models can answer: the way of each token."""

from __future__ import annotations

from .models import Served
from .refusal import Refusal
from .service import Call
from .tei import asked
from .trees import leaves

__all__ = ["routes"]

MOST_CHARS = 2_000  # of a text whose picture is drawn


async def routes(call: Call) -> object:
    """``/routes``: tokens of a text, and for each layer the leaf (T, P) that they reach in each tree."""
    model = call.choose(_with_trees(call, asked(call.body)))
    text = call.body.filled("inputs")[:MOST_CHARS]
    call.admit([text], "inputs", "predict")
    (encoding,) = await call.encode(model.texts, [text], truncate=True)
    call.tokens = len(encoding)
    config = model.texts.model.config
    return {
        "model": model.name,
        "depth": config.depth,
        "num_trees": config.num_trees,
        "tokens": encoding.tokens,
        "layers": await call.in_thread(lambda: leaves(model.texts, encoding)),
    }


def _with_trees(call: Call, name: str | None) -> Served:
    for model in [call.service.model(name, Served)] if name else call.service.models.values():
        if model.has_trees:
            return model
    raise Refusal(424, "Backend", f"{name or 'the service'}: expected a model with FFF layers, found models without")
