"""What a process must be."""

import subprocess
import sys

import pytest

IN_ANOTHER = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters
try:
    found = interpreters.run_string(interpreters.create(), "import ufbert")
    print(found.formatted if found else "it was imported")
except interpreters.RunFailedError as error:
    print(error)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_big_endian_machines_are_refused():
    result = run("import sys; sys.byteorder = 'big'; import ufbert")
    assert "ImportError: ufbert: expected a little-endian machine" in result.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="has other names for it")
def test_sub_interpreters_are_refused():
    result = run(IN_ANOTHER.replace("except interpreters.RunFailedError", "except Exception"))
    assert "expected the main interpreter, found a sub-interpreter" in result.stdout
    assert not result.stderr  # NumPy's warning comes too late to be read
