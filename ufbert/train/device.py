"""Where training runs: the device, its precision, its threads."""

from __future__ import annotations

import torch

from .. import threads
from ..errors import InputError, shown

__all__ = ["CPU", "find_device", "mixed_precision", "use_threads"]

CPU = torch.device("cpu")


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device of that name.

    Parameters
    ----------
    name : str or torch.device
        "cpu", "cuda", or any other name that PyTorch knows; "auto" for the GPU if there is one, else the CPU.

    Raises
    ------
    InputError
        If there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError, ImportError, AttributeError) as error:
        raise InputError(
            f"device: expected one that PyTorch can use here, got {shown(name)}: {str(error).splitlines()[0]}; "
            "choose cpu, or auto for a GPU where there is one"
        ) from None
    return device


def mixed_precision(enabled: bool = True, device: str | torch.device = "cpu") -> torch.autocast:
    """Matrix multiplications in bfloat16 where the device has instructions for it; norms and sums stay float32.

    Other CPUs would emulate it, at two to four times the time of float32. Trees multiply in float32 on the CPU; on
    other devices they decide in float16, whose 10 bits of mantissa routing needs.

    Parameters
    ----------
    enabled : bool
        False leaves everything in float32.
    device : str or torch.device
    """
    kind = torch.device(device).type
    if kind == "cpu":
        # Asked of PyTorch, whose multiplications they are; old versions cannot say, and get float32.
        facts: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        enabled = enabled and any(facts.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.autocast(kind, torch.bfloat16, enabled=enabled)


def use_threads(num_threads: int | None = None) -> int:
    """Let PyTorch use as many threads as the kernels do; return how many.

    Parameters
    ----------
    num_threads : int, optional
        None for `ufbert.threads.get_num_threads`: ``UFBERT_NUM_THREADS``, ``OMP_NUM_THREADS``, or what the process has.
    """
    count = threads.get_num_threads(num_threads)
    torch.set_num_threads(count)
    return count
