"""A training run on disk: one safetensors file, replaced whole, so that a kill at any moment leaves a usable one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..checkpoint.writing import whole_file
from ..errors import InputError

__all__ = ["read_state", "write_state"]

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def write_state(file: Path, run: Any, made_by: dict[str, Any]) -> None:
    """Write weights, moments and log of a `ufbert.glue.finetune.Run`."""
    tensors = {}
    for name, parameter in _trained(run).items():
        tensors[f"weight {name}"] = parameter.detach().contiguous()
        for key in MOMENTS:
            tensors[f"{key} {name}"] = run.optimizer.state[parameter][key].contiguous()
    facts = {"made_by": made_by, "step": run.step, "log": run.log, "losses": run.losses, "seconds": run.seconds}
    with whole_file(file) as part:
        save_file(tensors, part, {"run": json.dumps(facts)})


def read_state(file: Path, run: Any, made_by: dict[str, Any]) -> None:
    """Bring a run to where `file` left it; without a file it begins.

    Raises
    ------
    InputError
        If the file is of another run, or not whole.
    """
    if not file.is_file():
        return
    try:
        with safe_open(file, framework="pt") as stored:
            facts = json.loads((stored.metadata() or {}).get("run", "{}"))
            if facts.get("made_by") != made_by:
                raise InputError(
                    f"{file}: expected the state of this very run, found that of another model, task, seed or recipe; "
                    f"remove the folder {file.parent} or choose another --out"
                )
            with torch.no_grad():
                for name, parameter in _trained(run).items():
                    parameter.copy_(stored.get_tensor(f"weight {name}"))
                    run.optimizer.state[parameter] = {
                        key: _shaped(stored.get_tensor(f"{key} {name}"), parameter) for key in MOMENTS
                    }
    except (SafetensorError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file}: expected a whole state of training, found a fault ({error}); remove the folder {file.parent} to "
            "begin anew"
        ) from None
    run.step, run.log, run.losses, run.seconds = (facts[key] for key in ("step", "log", "losses", "seconds"))


def _trained(run: Any) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in run.model.named_parameters() if parameter.requires_grad}


def _shaped(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Lay a moment out in memory as its parameter, which the fused optimizer counts on."""
    return values if values.shape != parameter.shape else torch.empty_like(parameter).copy_(values)
