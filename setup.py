"""Builds ``ufbert._cmm`` and ``ufbert._dense``, the compiled kernels.

``UFBERT_NO_EXTENSION=1`` builds no kernels at all: ``ufbert`` then computes in plain NumPy.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ISAS = ("generic", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16", "neon", "neondot", "neonbf16")
KERNELS = {
    "_cmm": ("dispatch", "memory", "team", "fff/pack", "fff/order", *(f"isa/{name}" for name in ISAS)),
    "_dense": ("memory", "dense/pack", "dense/encoder_layer"),
}
ON_WINDOWS = sys.platform == "win32"
FLAGS = ["-g1", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"]
CLANG_CL_FLAGS = ["/O2", "/std:c11", "/clang:-ffp-contract=off", "/clang:-Wno-unused-command-line-argument"]


def is_set(name: str) -> bool:
    """Say whether an environment variable asks for something."""
    return os.environ.get(name, "") not in ("", "0")


class BuildKernels(build_ext):
    """Adds the compiler's flags."""

    def build_extensions(self) -> None:
        """Build with the flags that the kernels need."""
        if ON_WINDOWS:
            self.use_clang_cl()
            super().build_extensions()
            return
        # No -march and no -ffast-math: each file of kernels/isa names its own instruction set, and one rounding more
        # or less can turn a token into another branch of the tree.
        # Under a sanitizer -O3 takes ten times as long to compile.
        level = "-O1" if "-fsanitize" in os.environ.get("CFLAGS", "") else "-O3"
        for extension in self.extensions:
            extension.extra_compile_args = [level, *FLAGS]
            extension.extra_link_args = ["-pthread"]
        super().build_extensions()

    def use_clang_cl(self) -> None:
        """Compile with Clang in MSVC's place, which has no vector types; MSVC's linker links."""
        clang = shutil.which("clang-cl")
        if clang is None:
            sys.exit(
                "ufbert on Windows: expected clang-cl on the path, found none; install LLVM, or build without kernels: "
                "set UFBERT_NO_EXTENSION=1"
            )
        self.compiler.initialize()
        self.compiler.cc = clang
        for extension in self.extensions:
            extension.extra_compile_args = CLANG_CL_FLAGS


def extensions() -> list[Extension]:
    """Describe the extension modules; none if they are not wanted."""
    if is_set("UFBERT_NO_EXTENSION"):
        return []
    from Cython.Build import cythonize

    headers = sorted(str(path) for path in Path("ufbert/kernels").rglob("*.h"))
    kernels = [
        Extension(
            f"ufbert.{name}",
            sources=[f"ufbert/{name}.pyx", *(f"ufbert/kernels/{source}.c" for source in sources)],
            depends=headers,
            libraries=[] if ON_WINDOWS else ["m"],
        )
        for name, sources in KERNELS.items()
    ]
    directives = {
        "language_level": 3,
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": False,
    }
    return cythonize(kernels, compiler_directives=directives)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
