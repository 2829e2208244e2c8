"""Goldens of weights as torch pickles them.

    python make_pickled.py GOLDEN

GOLDEN is the folder of all goldens. Made with Python 3.11, torch 2.13.0 on a CPU. `model.bin` has the tensors of
hf/act-relu; `dtypes.bin` has every dtype, parameters, shared and transposed tensors, with the same ones as safetensors.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main(golden):
    """Write the files."""
    out = golden / "pickled"
    out.mkdir(exist_ok=True)
    torch.save(load_file(golden / "hf" / "act-relu" / "model.safetensors"), out / "model.bin")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) - 7.5
    tensors = OrderedDict(
        float32=base,
        shared=base,
        part=base[1:3, 2:],
        transposed=base.T,
        row=base[2],
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(base[:2] * 2),
        float64=base.double() / 3,
        float16=base.half(),
        bfloat16=base.bfloat16() / 7,
        int64=base.long(),
        int32=base.int(),
        int16=base.short(),
        int8=base.to(torch.int8),
        uint8=torch.arange(200, 210, dtype=torch.uint8),
        bool=base > 0,
    )
    tensors._metadata = OrderedDict({"": {"version": 1}})
    torch.save(tensors, out / "dtypes.bin")
    save_file(
        {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, out / "dtypes.safetensors"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
