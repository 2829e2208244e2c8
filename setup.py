"""Builds ``ufbert._cmm`` and ``ufbert._dense``, the compiled kernels.

Two environment variables opt out of what is normally required:

``UFBERT_NO_OPENMP=1``
    build single-threaded kernels where the compiler has no OpenMP;
``UFBERT_NO_EXTENSION=1``
    build no kernels at all: ``ufbert`` then computes in plain NumPy.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

OPENMP_PROBE = """
#include <omp.h>
int main(void) { int n = 0;
#pragma omp parallel num_threads(2)
    { n = omp_get_num_threads(); }
    return n > 0 ? 0 : 1; }
"""

NO_OPENMP = """
ufbert needs a C compiler with OpenMP, and this one could not build a two-line OpenMP program:
    {command}
{output}
What to do:
  * Debian, Ubuntu: apt-get install gcc (libgomp comes with it); Alpine: apk add gcc musl-dev libgomp
  * macOS: brew install libomp, then CFLAGS="-Xpreprocessor -fopenmp -I$(brew --prefix libomp)/include"
    LDFLAGS="-L$(brew --prefix libomp)/lib -lomp" pip install ...
  * or build single-threaded kernels on purpose: UFBERT_NO_OPENMP=1 pip install ...
"""


ISAS = ("generic", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16", "neon", "neondot", "neonbf16")
KERNELS = {
    "_cmm": ("dispatch", "memory", "fff/pack", *(f"isa/{name}" for name in ISAS)),
    "_dense": ("memory", "dense/pack", "dense/encoder_layer"),
}
FLAGS = ["-g1", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]


def is_set(name: str) -> bool:
    """Say whether an environment variable asks for something."""
    return os.environ.get(name, "") not in ("", "0")


class BuildKernels(build_ext):
    """Adds the compiler's flags, after a probe that OpenMP really compiles and links."""

    def build_extensions(self) -> None:
        """Build with the flags that the kernels need."""
        # No -march and no -ffast-math: each file of kernels/isa names its own instruction set, and one rounding more
        # or less can turn a token into another branch of the tree.
        openmp = [] if is_set("UFBERT_NO_OPENMP") else ["-fopenmp"]
        if openmp:
            self.require_openmp(openmp)
        # Under a sanitizer -O3 takes ten times as long to compile.
        level = "-O1" if "-fsanitize" in os.environ.get("CFLAGS", "") else "-O3"
        for extension in self.extensions:
            extension.extra_compile_args = [level, *FLAGS, *openmp]
            extension.extra_link_args = openmp
        super().build_extensions()

    def require_openmp(self, openmp: list[str]) -> None:
        """End with advice if the compiler cannot build a program with OpenMP."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(OPENMP_PROBE)
            # compiler_so and linker_so carry the user's CC, CFLAGS and LDFLAGS.
            user_flags = (os.environ.get("CFLAGS", "") + " " + os.environ.get("LDFLAGS", "")).split()
            target = str(Path(folder, "probe"))
            command = [self.compiler.compiler_so[0], *openmp, str(source), *user_flags, "-o", target]
            result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(NO_OPENMP.format(command=" ".join(command), output=result.stderr.strip()))


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
            libraries=["m"],
        )
        for name, sources in KERNELS.items()
    ]
    directives = {
        "language_level": 3,
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": False,
        "freethreading_compatible": True,
    }
    return cythonize(kernels, compiler_directives=directives)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
