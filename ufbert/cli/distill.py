"""Replace the feed-forward layers of a dense BERT by trees, and train them.

Makes a model with FFF layers out of a dense one (the teacher), without
labels: the new model learns to give the teacher's hidden states and sentence
embeddings on a corpus of texts. Trees are first grown on the teacher's
activations, then trained layer by layer, then all together. Needs the extra
train: pip install 'ufbert[train]'.

Checkpoints, a log and a plot of the curves are in OUT.training. After an
interruption the same command goes on from there, on the same device or on
another.

  ufbert distill DENSE_FOLDER --corpus texts.txt.xz --out NEW_FOLDER
  ufbert distill TEACHER --corpus TEXT --out FOLDER --device cuda --seconds 600
"""

from __future__ import annotations

import argparse
import os

from .options import add_device, positive

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.usage = "%(prog)s TEACHER --corpus TEXT --out FOLDER [OPTIONS]"
    parser.add_argument("teacher", metavar="TEACHER", help="dense model folder to learn from")
    parser.add_argument(
        "--corpus", required=True, metavar="TEXT", help="texts to train on, one text a line: plain, .xz or .gz"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to make")
    parser.add_argument("--seed", type=int, metavar="N", help="of all random numbers (default: 0)")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of PyTorch and of the kernels")
    add_device(parser)
    _add_model(parser.add_argument_group("the new model"))
    _add_training(parser.add_argument_group("how long it trains"))
    _add_rates(parser.add_argument_group("learning rates, at their peak"))
    _add_teacher(parser.add_argument_group("the teacher"))


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--trees", dest="num_trees", type=positive, metavar="P", help="trees of each layer (default: 16)"
    )
    group.add_argument("--depth", type=int, metavar="D", help="levels of a tree below its root (default: 7)")
    group.add_argument(
        "--start",
        metavar="FOLDER",
        help="go on from a converted model, which may have fewer trees, and train all its layers together",
    )
    group.add_argument(
        "--control",
        choices=("none", "affine", "dense"),
        help="train something else in place of trees, to compare them with: no neurons, an affine map, or a dense "
        "layer with as many neurons as a token visits in the trees",
    )
    group.add_argument(
        "--no-decision-gradient",
        dest="decision_gradient",
        action="store_const",
        const=False,
        help="train deciding nodes by their activation alone, as the authors of UltraFastBERT do",
    )
    group.add_argument(
        "--switch-cost",
        type=float,
        metavar="COST",
        help="cost of a path that a token did not take, in standard deviations of the loss (default: 0.2)",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--grow-tokens",
        type=int,
        metavar="N",
        help="tokens to grow trees on, divided by P for each tree; 0: random trees, no revival (default: 400,000)",
    )
    group.add_argument(
        "--local-tokens", type=int, metavar="N", help="tokens to train layer by layer (default: 2 million)"
    )
    group.add_argument(
        "--tokens", type=int, metavar="N", help="tokens to train all layers together (default: 4 million)"
    )
    group.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="time budget: training ends, with its learning rates, when it is spent (default: none); the time before "
        "an interruption counts",
    )
    group.add_argument("--batch-tokens", type=positive, metavar="N", help="tokens of one step (default: 4096)")
    group.add_argument("--max-length", type=positive, metavar="N", help="longest text, in tokens (default: 128)")
    group.add_argument("--joined", type=float, metavar="SHARE", help="of texts that others follow (default: 0.03)")
    group.add_argument(
        "--cropped", type=float, metavar="SHARE", help="on a GPU: share of texts to cut at the front (default: 0)"
    )
    group.add_argument(
        "--noisy", type=float, metavar="SHARE", help="on a GPU: share of texts to put random tokens into (default: 0)"
    )
    group.add_argument(
        "--chunks",
        type=int,
        metavar="N",
        help="reuse only the first N chunks of 4,096 texts (default: go through the whole corpus)",
    )


def _add_rates(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--local-rate", type=float, metavar="RATE", help="of trees, layer by layer (default: 0.003)")
    group.add_argument("--rate", type=float, metavar="RATE", help="of trees, all layers together (default: 0.001)")
    group.add_argument("--other-rate", type=float, metavar="RATE", help="of attention and norms (default: 0.0005)")
    group.add_argument(
        "--embedding-rate",
        type=float,
        metavar="RATE",
        help="of embedding tables; 0: keep the teacher's (default: 0.0002)",
    )


def _add_teacher(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--teacher-dtype",
        choices=("auto", "float32", "bfloat16", "int8", "float16"),
        default="auto",
        help="precision to run it in (default: float32 on the CPU, float16 elsewhere)",
    )
    group.add_argument(
        "--keep-outputs",
        metavar="FOLDER",
        help="keep its outputs in FOLDER, for other runs with the same corpus and seed",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train the new model and print its folder."""
    # PyTorch's threads and the kernels' take turns: those that wait must not spin in the others' time. Read at import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from ..train import use_threads  # the extra's absence is said here, before anything else

    use_threads()
    from ..train.distill import Recipe, distill

    fields = Recipe.__dataclass_fields__
    recipe = Recipe(**{name: value for name, value in vars(arguments).items() if name in fields and value is not None})
    names = ("teacher", "corpus", "out", "teacher_dtype", "start", "keep_outputs", "device")
    print(distill(recipe=recipe, **{name: getattr(arguments, name) for name in names}))
    return 0
