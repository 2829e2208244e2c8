"""Models that other packages ship, found by their entry points."""

from pathlib import Path

import pytest

import ufbert
from ufbert.checkpoint import names
from ufbert.errors import CheckpointError

TINY = Path(__file__).parents[1] / "golden" / "hf" / "no-pooler"


@pytest.fixture(name="ship")
def install_packages(tmp_path, monkeypatch):
    """Install a package with an entry point in the group, and with models."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def ship(package, point, models=(), value=None):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{names.GROUP}]\n{point} = {value or package}\n")
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        for model in models:
            (tmp_path / package / model).symlink_to(TINY, target_is_directory=True)
        return tmp_path / package

    return ship


def test_a_model_of_another_package_is_found_by_its_name(ship):
    package = ship("someones_models", "tiny-bert", ["tiny-bert"])
    assert names.bundled("tiny-bert") == package / "tiny-bert"
    assert names.bundled("no-such-bert") is None
    assert ufbert.load("tiny-bert").config.hidden_size == ufbert.load(TINY).config.hidden_size


def test_a_folder_comes_before_it(ship):
    ship("someones_models", "tiny-bert", ["tiny-bert"])
    Path("tiny-bert").mkdir()
    assert names.bundled("tiny-bert") is None


@pytest.mark.parametrize("value", [None, "no_such_package", "no_such.package", "sys", "a b"])
def test_a_package_without_the_model_is_refused(ship, value):
    ship("someones_models", "tiny-bert", ["another"], value)
    with pytest.raises(CheckpointError, match=r"model tiny-bert: expected its folder, .* in the package .* found none"):
        names.bundled("tiny-bert")


def test_a_name_of_two_packages_is_refused(ship):
    ship("first_models", "tiny-bert", ["tiny-bert"])
    ship("second_models", "tiny-bert", ["tiny-bert"])
    with pytest.raises(CheckpointError, match="found first_models, second_models; uninstall all but one"):
        names.bundled("tiny-bert")
