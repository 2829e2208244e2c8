"""The table of instruction sets, and what the extension modules offer."""

import ast
import os
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import ufbert
from ufbert import InputError, checks, cmm, isa

SUPPORTED = isa.supported_isas()
SOURCES = Path(__file__).parents[1] / "ufbert" / "kernels" / "isa"
STUBS = Path(ufbert.__file__).parent


def run_python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_environment_forces_an_instruction_set(name):
    result = run_python("import ufbert; print(ufbert.info()['instruction_set'])", UFBERT_ISA=name)
    assert result.stdout.strip() == name, result.stderr


def test_the_best_is_the_default():
    result = run_python("from ufbert import cmm; print(cmm.active_isa())", UFBERT_ISA="")
    assert result.stdout.strip() == SUPPORTED[-1], result.stderr


def test_the_old_name_of_generic_is_understood():
    result = run_python("from ufbert import cmm; print(cmm.active_isa())", UFBERT_ISA="scalar")
    assert result.stdout.strip() == "generic", result.stderr


def test_an_unknown_instruction_set_lists_the_known_ones():
    result = run_python("import ufbert", UFBERT_ISA="sse9")
    assert result.returncode != 0
    assert f"expected one of {', '.join(SUPPORTED)} on this machine, got 'sse9'" in result.stderr
    with pytest.raises(InputError, match="sse9"):
        cmm.use_isa("sse9")


def test_the_command_refuses_an_unknown_instruction_set_in_one_line():
    scripts = [[sys.executable, "-m", "ufbert"], [Path(sysconfig.get_path("scripts"), "ufbert")]]
    for command in scripts:
        result = subprocess.run(
            [*command, "info"], env=os.environ | {"UFBERT_ISA": "sse9"}, capture_output=True, text=True
        )
        assert result.returncode == 1
        assert result.stderr.startswith("ufbert: error: instruction set (UFBERT_ISA): expected one of")
        assert result.stderr.count("\n") == 1


def test_what_runs_here_is_part_of_what_is_compiled_in_its_order():
    compiled = isa.compiled_isas()
    assert compiled[0] == SUPPORTED[0] == "generic"
    assert [name for name in compiled if name in SUPPORTED] == SUPPORTED


def test_each_file_of_an_instruction_set_is_in_the_table():
    listed = re.findall(r"\b(ANY|X86|ARM)\((\w+)\)", (SOURCES.parent / "dispatch.c").read_text())
    assert {name for _, name in listed} == {file.stem for file in SOURCES.glob("*.c")}
    here = {"x86_64": "X86", "AMD64": "X86", "aarch64": "ARM", "arm64": "ARM", "ARM64": "ARM"}.get(platform.machine())
    assert [name for family, name in listed if family in ("ANY", here)] == isa.compiled_isas()


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux says there what a processor has")
def test_instruction_sets_are_those_that_the_system_sees():
    lines = Path("/proc/cpuinfo").read_text().lower().splitlines()
    flags = {flag for line in lines if line.startswith(("flags", "features")) for flag in line.split(":")[1].split()}
    wanted = {"generic": set(), "avx2": {"avx2", "fma"}, "neon": {"asimd"}, "neondot": {"asimddp"}}
    wanted["neonbf16"] = wanted["neondot"] | {"bf16"}
    wanted["avx2vnni"] = wanted["avx2"] | {"avx_vnni"}
    wanted["avx512"] = wanted["avx2"] | {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
    wanted["avx512vnni"] = wanted["avx512"] | {"avx512_vnni"}
    wanted["avx512bf16"] = wanted["avx512vnni"] | {"avx512_bf16"}
    assert [name for name in isa.compiled_isas() if wanted[name] <= flags] == SUPPORTED


def test_the_limit_of_depth_is_the_kernels():
    assert isa.fff_kernels.MAX_DEPTH == checks.MAX_DEPTH


@pytest.mark.parametrize("module", [isa.fff_kernels, isa.dense_kernels])
def test_stubs_name_what_the_extensions_offer(module):
    stub = ast.parse((STUBS / f"{module.__name__.rpartition('.')[2]}.pyi").read_text())
    declared = {node.name for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    declared |= {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    own = {name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
    constants = {name for name in vars(module) if name.isupper()}
    assert declared == {name for name in own | constants if not name.startswith("_")}
