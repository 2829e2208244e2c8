"""The training step on a GPU: whether its kernels compile and compute the right numbers, and how fast it is.

python bench/gpu.py --compile                      (for sm_90, on a machine without a GPU too)
python bench/gpu.py MODEL TEXTS [--seconds 5]      (on a GPU; MODEL is a dense model folder, TEXTS a file)

Prints tokens a second of `ufbert distill --device cuda` for each shape and batch, and where the time of one step goes.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
import torch

from ufbert import reference
from ufbert.routes import Corpus
from ufbert.train import Bert
from ufbert.train.cuda import functions, kernels
from ufbert.train.cuda.model import PackedBert
from ufbert.train.cuda.packing import Packing, batches
from ufbert.train.cuda.step import Goal, Stepper
from ufbert.train.distill.teacher import Teacher
from ufbert.train.tokens import TokenisedTexts

SHAPES = ((1, 11), (4, 9))
BATCHES = (16_384, 32_768)
AHEAD = 8  # steps that may wait for the GPU


def launches(
    num_trees: int, depth: int, width: int = 384, head: int = 32
) -> list[tuple[Any, str, dict[str, Any], int]]:
    """Kernel, types of its arrays and numbers, its constants and warps, as the step launches it."""
    trees = {"P": num_trees, "D": depth}
    wide = {"H": width, "TOKENS": functions.NORM_TOKENS, "COLUMNS": 2 ** (width - 1).bit_length()}
    heads = {"W": width, "ROW": functions.ROW, "HEAD": head}
    back = {"LEVELS": 2 ** depth.bit_length(), "DECIDES": True, "TOKENS": functions.TOKENS}
    mix = {"H": width, "HAS_BIAS": True, "TOKENS": functions.MIX_TOKENS, "COLUMNS": 128}
    norm = {"HAS_DY": True, "HAS_HALF": True, "HAS_DELTA": True, "ROUNDS": functions.NORM_ROUNDS}
    return [
        (kernels.walk_kernel, "*fp16 *i32 *fp32 i32 i32 i32", {**trees, "TOKENS": functions.TOKENS}, 1),
        (kernels.mix_kernel, "*fp32 *i32 *bf16 *fp32 *bf16 i32 i32", {**trees, **mix}, 4),
        (
            kernels.walk_backward_kernel,
            "*fp16 *bf16 *i32 *fp32 *fp32 *bf16 *bf16 *fp32 fp32 i32 i32 i32",
            {**trees, **back},
            4,
        ),
        (
            kernels.norm_kernel,
            "*fp32 *bf16 *fp32 *fp32 *fp32 *fp16 *fp32 *fp32 fp32 i32",
            {**wide, "HAS_DELTA": True},
            1,
        ),
        (
            kernels.norm_backward_kernel,
            "*fp32 *bf16 *fp32 *bf16 *fp32 *fp32 *fp32 *fp32 *bf16 *fp32 *fp32 i32",
            {**wide, **norm},
            1,
        ),
        (kernels.error_kernel, "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i32", wide, 1),
        (kernels.attention_kernel, "*bf16 *i32 *bf16 fp32", heads, 8),
        (kernels.attention_backward_kernel, "*bf16 *i32 *bf16 *bf16 fp32", heads, 8),
    ]


def compile_all(capability: int = 90) -> None:
    """Compile every kernel for a GPU that need not be there; print its name, registers and spills."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for shape in SHAPES:
        for kernel, types, constants, warps in launches(*shape):
            given = iter(types.split())
            signature = {name: "constexpr" if name in constants else next(given) for name in kernel.arg_names}
            values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
            source = ASTSource(kernel, signature, values)
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
            print(f"{shape[0]}x{shape[1]} {kernel.__name__}: {made.metadata.shared} bytes shared, sm_{capability}")


def check(device: torch.device) -> None:
    """Compare an FFF layer and its gradients, decisions of all levels included, with `reference`."""
    torch.manual_seed(0)
    tokens, width, num_trees, depth = 4_096 if device.type == "cuda" else 256, 384, 2, 6
    nodes, trees = 2 ** (depth + 1), functions.TreeShape(num_trees, depth)
    x, w_out = torch.randn(tokens, width, device=device), torch.randn(num_trees, nodes - 1, width, device=device)
    w_in, b_in = torch.randn_like(w_out) * 0.05, torch.randn(num_trees, nodes - 1, 1, device=device) * 0.3
    dy, bias = torch.randn_like(x), torch.zeros(width, device=device)
    padded = [torch.nn.functional.pad(w, (0, 0, 0, 1)).flatten(0, 1) for w in (w_in, b_in, w_out)]
    leaves = [leaf.requires_grad_() for leaf in (x.clone(), padded[0], padded[1].flatten(), padded[2])]
    y, leaf = functions.Trees.apply(leaves[0], x.to(functions.SCORE), *leaves[1:], bias, trees)
    arrays = [array.cpu().numpy() for array in (x, w_in, b_in[..., 0], w_out)]
    wanted, path, scores = reference.fff_forward(*arrays, depth, return_path=True, return_scores=True)
    alike = leaf.cpu().numpy() == path[..., -1]
    same, here = float(alike.mean()), alike.all(axis=1)  # float16 decides near 0 otherwise: such tokens do not count
    dy[torch.from_numpy(~here).to(device)] = 0
    found = torch.autograd.grad(y, leaves, dy.to(y.dtype))
    given = dy.cpu().numpy(), *arrays, depth, path, scores
    plain = reference.fff_backward(*given)
    total = [gradient.copy() for gradient in plain]
    for level in range(depth):
        tried = np.full((tokens, num_trees), level, np.int32)
        for sum_, one, base in zip(
            total, reference.fff_backward(*given, tried=tried, switch_cost=0.2), plain, strict=True
        ):
            sum_ += (one - base) / depth
    mine = [gradient.cpu().numpy() for gradient in found]
    mine[1:] = [
        g.reshape(num_trees, nodes, -1)[:, :-1].reshape(e.shape) for g, e in zip(mine[1:], total[1:], strict=True)
    ]
    y_here = y.detach().float().cpu().numpy()[here]
    errors = [relative(a, b) for a, b in zip([y_here, *mine], [wanted[here], *total], strict=True)]
    names = ("y", "dx", "dw_in", "db_in", "dw_out")
    print(f"same leaf {same:.5f}; relative errors", {n: f"{e:.1e}" for n, e in zip(names, errors, strict=True)})
    if same < 0.99 or max(errors) > 0.05:  # bfloat16 gives some 0.005
        raise SystemExit("the GPU computes something else than the reference")


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def speed(
    teacher: Teacher, texts: TokenisedTexts, shape: tuple[int, int], size: int, seconds: float
) -> tuple[Stepper, float]:
    """Time the step, captured on a GPU; print, and return, tokens a second."""
    device, dense = teacher.device, teacher.module
    assert dense is not None
    student = Bert(dense.config)
    student.load_state_dict(dense.state_dict())
    student.replace_feed_forward(
        feed_forward="fff", num_trees=shape[0], depth=shape[1], hidden_act="gelu", output_bias=True
    )
    packing = Packing(size, 0)
    frozen = PackedBert(dense, device, functions.SCORE).requires_grad_(False)
    goal = Goal(torch.ones(dense.config.num_hidden_layers, dense.config.hidden_size), teacher.pooling)
    packed = PackedBert(student, device, functions.HALF)
    stepper = Stepper(packed, frozen, goal, (3, packing.tokens), packing.segments, (0.9, 0.99))
    workers = min(6, max(1, (os.cpu_count() or 1) - 1)) if device.type == "cuda" else 0
    stream = batches(texts, packing, workers=workers)
    stepper.step(next(stream))
    start, on_gpu = time.monotonic(), device.type == "cuda"
    if on_gpu:
        stepper.capture()
        torch.cuda.synchronize()
    captured, begin, tokens, steps = time.monotonic() - start, time.monotonic(), 0, 0
    stepper.set_rates(1e-4, 1e-4, 1e-4)
    while time.monotonic() - begin < seconds:
        batch = next(stream)
        tokens, steps = tokens + int((batch[2] < packing.segments).sum()), steps + 1
        stepper.step(batch)
        if on_gpu and steps % AHEAD == 0:
            torch.cuda.synchronize()
    memory = 0.0
    if on_gpu:
        torch.cuda.synchronize()
        memory = torch.cuda.max_memory_allocated() / 2**30
    passed = time.monotonic() - begin
    rate, filled = tokens / passed, tokens / steps / size
    print(
        f"{shape[0]}x{shape[1]}, batches of {size:,}: {rate / 1e6:.3f} million tokens/s, "
        f"{1e3 * passed / steps:.2f} ms each, {filled:.1%} of the rows filled, {memory:.1f} GiB, "
        f"captured in {captured:.1f} s",
        flush=True,
    )
    return stepper, rate


def profile(stepper: Stepper) -> None:
    """Print the kernels that take most of one step."""
    stepper.graph = None
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as found:
        stepper.step(stepper.batch.clone())
        torch.cuda.synchronize()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_device_time_total)
    total, count = sum(row.self_device_time_total for row in rows), sum(row.count for row in rows)
    print(f"{total / 1e3:.2f} ms in {count} kernels")
    for row in rows[:24]:
        print(f"  {row.self_device_time_total / 1e3:7.2f} ms {row.count:4d} x {row.key[:90]}")


def main() -> None:
    """Compile, or check and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("texts", nargs="?")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    if arguments.compile:
        compile_all()
        return
    if arguments.model is None or arguments.texts is None or not torch.cuda.is_available():
        parser.error("expected MODEL and TEXTS on a machine with a GPU, or --compile")
    device = torch.device("cuda")
    print(torch.cuda.get_device_name(), torch.__version__)
    check(device)
    teacher = Teacher(arguments.model, device=device)
    texts = TokenisedTexts.of(list(Corpus(arguments.texts)), teacher.tokenizer)
    for shape in SHAPES:
        for size in BATCHES:
            stepper, _ = speed(teacher, texts, shape, size, arguments.seconds)
        profile(stepper)


if __name__ == "__main__":
    main()
