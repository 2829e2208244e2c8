"""`ufbert.download` and the command: into the cache, and to a folder that stands alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from local_hub import ENCODER_FILES, NAME

import ufbert
from ufbert import InputError, SentenceEncoder

pytest_plugins = "local_hub"


def test_a_sub_folder_of_a_repository(hub, model, tmp_path):
    shutil.copytree(model, tmp_path / "many" / "small")
    hub.add(NAME, tmp_path / "many")
    folder = ufbert.download(NAME, subfolder="small")
    assert folder.name == "small"
    np.testing.assert_array_equal(SentenceEncoder(folder).encode("the cat"), SentenceEncoder(model).encode("the cat"))
    with pytest.raises(InputError, match="subfolder"):
        ufbert.download(NAME, subfolder="../x")


def test_download_refuses_what_is_no_name(hub, model, tmp_path):
    with pytest.raises(InputError, match="expected organisation/name"):
        ufbert.download(str(model))
    with pytest.raises(InputError, match="expected a name that is free"):
        ufbert.download(NAME, model)


def command(hub, tmp_path, *arguments, **variables):
    """The command, in a process of its own, with nothing but its variables to find hub and cache."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "PYTHONSAFEPATH") if name in os.environ}
    environment = kept | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")} | variables
    return subprocess.Popen(
        [sys.executable, "-m", "ufbert", *arguments], env=environment, cwd=tmp_path, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_command_two_at_once_and_offline_after(hub, model, tmp_path):
    hub.add(NAME, model)
    both = [command(hub, tmp_path, "download", NAME) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert Path(outputs[0][0].strip()).is_relative_to(tmp_path / "home" / "hub")
    offline = command(hub, tmp_path, "embed", "--model", NAME, "the cat", HF_HUB_OFFLINE="1", HF_ENDPOINT="")
    out, errors = offline.communicate()
    assert offline.returncode == 0, errors
    np.testing.assert_allclose(np.array(out.split(), float), SentenceEncoder(model).encode("the cat"), rtol=1e-5)


def test_the_command_copies_to_a_folder_and_complains_in_one_line(hub, model, tmp_path):
    hub.add(NAME, model)
    process = command(hub, tmp_path, "download", NAME, "--out", "copy", "--quiet")
    assert process.communicate()[0].strip() == "copy" and process.returncode == 0
    assert not any(file.is_symlink() for file in (tmp_path / "copy").rglob("*"))
    assert (
        sorted(str(file.relative_to(tmp_path / "copy")) for file in (tmp_path / "copy").rglob("*.*")) == ENCODER_FILES
    )
    process = command(hub, tmp_path, "download", "org/nothing")
    _, errors = process.communicate()
    assert process.returncode == 1 and "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("ufbert: error: org/nothing: expected a model folder here")
