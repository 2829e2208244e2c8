"""`ufbert doctor`: what is sound is said to be, and what is not is found."""

from hashlib import sha256
from importlib import util
from types import SimpleNamespace

import pytest

from ufbert import cli, isa
from ufbert.cli import doctor


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A package of models with one file."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "SHA256SUMS").write_text(f"{sha256(b'weights').hexdigest()}  model.safetensors\n")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(util, "find_spec", lambda name: spec)
    return tmp_path


def rows(capsys, code, *arguments):
    assert cli.main(["doctor", *arguments]) == code
    return capsys.readouterr().out.splitlines()


def test_a_sound_installation(capsys):
    lines = rows(capsys, 0)
    assert not [line for line in lines if line.startswith("FAULT")]
    tested = [line for line in lines if "self test" in line]
    assert [line.split()[3].strip(":") for line in tested] == isa.supported_isas()
    assert sum("bundled models" in line for line in lines) >= 4
    assert "ms for one short text" in lines[-1]


def test_the_instruction_set_in_use_stays(capsys):
    before = isa.active_isa()
    rows(capsys, 0, "--no-speed")
    assert isa.active_isa() == before


@pytest.mark.parametrize(("change", "found"), [(b"Weights", "other bytes"), (None, "is missing")])
def test_bundled_models_that_changed(capsys, bundle, change, found):
    file = bundle / "model.safetensors"
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change)
    faults = [line for line in rows(capsys, 1, "--no-speed") if line.startswith("FAULT")]
    assert len(faults) == 1 and found in faults[0]


def test_a_model_whose_package_is_not_installed_is_no_fault(capsys, bundle):
    (bundle / "SHA256SUMS").write_text(f"{'0' * 64}  another/model.safetensors\n")
    notes = [line for line in rows(capsys, 0, "--no-speed") if line.startswith("note")]
    assert any("another is not installed" in line for line in notes)


def test_no_bundled_models(capsys, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    assert any("pip install ufbert-weights" in line for line in rows(capsys, 0))


def test_kernels_that_compute_something_else(capsys, monkeypatch, bundle):
    def wrong(*arrays, **options):
        y, path = right(*arrays, **options)
        return y + 1, path

    right = doctor.fff_forward
    monkeypatch.setattr(doctor, "fff_forward", wrong)
    lines = rows(capsys, 1, "--no-speed")
    assert sum(line.startswith("FAULT self test") for line in lines) == len(isa.supported_isas())


def test_settings_that_cost_time(capsys, monkeypatch, bundle):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("UFBERT_NUM_THREADS", "500")
    notes = "\n".join(line for line in rows(capsys, 0, "--no-speed") if line.startswith("note"))
    assert "OMP_WAIT_POLICY" in notes and "OPENBLAS_CORETYPE" in notes and "500 on " in notes
