"""What the process and the machine must be; imported first, before NumPy warns of what it does not support."""

import sys
from importlib import import_module

__all__: list[str] = []


def _is_main_interpreter() -> bool:
    try:
        interpreters = import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    except ImportError:  # a Python that has only one
        return True
    return bool(interpreters.get_current() == interpreters.get_main())


if sys.byteorder != "little":
    raise ImportError("ufbert: expected a little-endian machine, for weights are read as they lie in their files")
if not _is_main_interpreter():
    raise ImportError(
        "ufbert: expected the main interpreter, found a sub-interpreter, where NumPy and the kernels do not run; "
        "use threads or processes"
    )
