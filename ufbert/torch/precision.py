"""Where training multiplies in bfloat16."""

from __future__ import annotations

import torch

__all__ = ["mixed_precision"]


def mixed_precision(enabled: bool = True) -> torch.autocast:
    """Matrix multiplications in bfloat16, on CPUs that have instructions for it; trees, norms and sums stay float32.

    Elsewhere PyTorch would emulate it, at two to four times the time of float32.

    Parameters
    ----------
    enabled : bool
        False leaves everything in float32.
    """
    # Asked of PyTorch, whose multiplications they are; old versions cannot say, and get float32.
    facts = getattr(torch.cpu, "get_capabilities", dict)()
    able = any(facts.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled and able)
