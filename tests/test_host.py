"""What a process must be."""

import subprocess
import sys

IN_ANOTHER = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters
try:
    found = interpreters.run_string(interpreters.create(), "import ufbert")
    print(found.formatted if found else "it was imported")
except Exception as error:  # it has another name in each version
    print(error)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_big_endian_machines_are_refused():
    result = run("import sys; sys.byteorder = 'big'; import ufbert")
    assert "ImportError: ufbert: expected a little-endian machine" in result.stderr


def test_sub_interpreters_are_refused():
    result = run(IN_ANOTHER)
    assert "expected the main interpreter, found a sub-interpreter" in result.stdout
    assert not result.stderr  # NumPy's warning comes too late to be read
