"""One process at a time trains in a folder."""

import signal
import subprocess
import sys

import pytest

from ufbert import InputError
from ufbert.torch.sole_use import sole_use


def test_one_process_at_a_time_works_in_a_folder(tmp_path):
    code = f"""
import sys
from pathlib import Path
from ufbert.torch.sole_use import sole_use
with sole_use(Path({str(tmp_path / "a" / "training")!r})):
    print("mine", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(InputError, match="expected to be alone at work there, found another process"):
            with sole_use(tmp_path / "a" / "training"):
                pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    (tmp_path / "a" / "training" / ".state.pt.12.part").write_bytes(b"half a sta")
    with sole_use(tmp_path / "a" / "training"):  # a kill gives it free
        assert {path.name for path in (tmp_path / "a" / "training").iterdir()} == {".lock"}
