"""The card of a converted model: where it comes from and how it was made."""

from __future__ import annotations

from dataclasses import fields

from .corpus import CHUNK
from .state import State

__all__ = ["card"]


def card(state: State, name: str, neurons: int) -> str:
    """Write the card in Markdown; `neurons` is what each feed-forward layer has in all."""
    recipe, source = state.recipe, state.source
    changed = {
        item.name: value for item in fields(recipe) if (value := getattr(recipe, item.name)) != item.default
    }  # fmt: skip
    settings = ", ".join(f"{name} {value}" for name, value in changed.items())
    trees = "one tree" if recipe.num_trees == 1 else f"{recipe.num_trees} trees"
    kinds = {
        None: f"{trees} of depth {recipe.depth} ({recipe.visited} of {neurons} neurons visited by a token, "
        f"{100 * recipe.visited / max(neurons, 1):.2g} %)",
        "none": "nothing but an output bias (a control)",
        "affine": "an affine map (a control)",
        "dense": f"a dense layer of {neurons} neurons (a control)",
    }
    last = next((entry for entry in reversed(state.log) if entry["stage"] == "end_to_end"), None)
    how = f"{recipe.local_tokens:,} layer by layer,"
    if source["start"]:  # layers were grown and trained one by one when that was made
        how = f"after all that {source['start']} was trained on, another"
    rounds = f", round and round {recipe.chunks * CHUNK:,} of the texts" if recipe.chunks else ""
    lines = [
        f"# {name}",
        "",
        f"{source['teacher']} with its feed-forward layers replaced: each is {kinds[recipe.control]}. Trained by "
        f"`ufbert distill` against the dense model, on {source['texts']} unlabelled texts ({source['corpus']}), in "
        f"{state.seconds / 60:.0f} minutes. A derived work: the licence of {source['teacher']} applies to it.",
        "",
        f"- Tokens: {how} {state.trained:,} end to end{rounds}.",
        f"- Seed {recipe.seed}; teacher run in {source['teacher_dtype']}.",
        f"- Settings other than the defaults: {settings or 'none'}.",
    ]
    if last:
        lines.append(
            f"- At the end: R² of the last layer {last['r2']:.3f}, cosine to the teacher {last['cosine']:.3f}."
        )
    return "\n".join([*lines, ""])
