"""bench/bundle.py: a converted model as one of the bundled weights."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import write_fff

import ufbert

ROOT = Path(__file__).parents[1]
NAME = "tiny-fff-2x3-v1"
ROW = {
    "cosine": 0.91234, "lowest_cosine": 0.5, "neighbours": 0.7, "tokens": 3_000_000,
    "spearman": {"STS-B": 0.69}, "spearman_ratio": {"STS-B": 0.99},
}  # fmt: skip


@pytest.fixture
def package(tmp_path):
    """A package of weights with one former model, and the report of a new one."""
    folder = tmp_path / "weights" / "ufbert_weights"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "weights" / "pyproject.toml", folder.parent)
    shutil.copy(ROOT / "weights" / "ufbert_weights" / "__init__.py", folder)
    write_fff(folder / "former")
    (tmp_path / "distill.json").write_text(json.dumps({"rows": {"ours": ROW}}))
    (tmp_path / "made.txt").write_text("ufbert distill TEACHER ...\n")
    return folder


def bundle(package, model, *options, name=NAME):
    places = "--report", package.parents[1] / "distill.json", "--made-with", package.parents[1] / "made.txt"
    command = [
        sys.executable,
        ROOT / "bench" / "bundle.py",
        model,
        "--name",
        name,
        "--package",
        package,
        *places,
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_model_is_bundled_with_card_source_digests_and_entry_point(package, tmp_path):
    model = write_fff(tmp_path / "model")
    made = bundle(package, model, "--row", "ours", "--default", "--remove", "former")
    assert made.returncode == 0, made.stderr
    folder = package / NAME
    assert not (package / "former").exists()
    ids = [[2, 5, 6, 7, 3]]
    one, other = (ufbert.load(place)(ids).last_hidden_state for place in (model, folder))
    np.testing.assert_allclose(one, other, atol=0.2)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert ufbert.load(folder).id == digest
    assert (package / "SHA256SUMS").read_text() == f"{digest}  {NAME}/model.safetensors\n"
    assert (
        digest in (folder / "SOURCE.md").read_text() and "ufbert distill TEACHER" in (folder / "SOURCE.md").read_text()
    )
    assert f'DEFAULT = "{NAME}"' in (package / "__init__.py").read_text()
    project = (package.parent / "pyproject.toml").read_text()
    assert project.count('= "ufbert_weights"') == 1 and f'{NAME} = "ufbert_weights"' in project


def test_the_card_has_the_hubs_form(package, tmp_path):
    assert bundle(package, write_fff(tmp_path / "model"), "--row", "ours").returncode == 0
    _, head, text = (package / NAME / "README.md").read_text().split("---\n", 2)
    facts = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in head.splitlines())}
    assert (facts["license"], facts["language"], facts["library_name"]) == ("apache-2.0", "en", "ufbert")
    assert facts["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    results = facts["model-index"][0]["results"]
    assert [metric["value"] for each in results for metric in each["metrics"]] == [0.9123, 0.7, 0.69]
    assert "visits 8 of 30 neurons" in text and "0.9123" in text and "## Limits" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "tiny", "row": "ours"}, "expected a version at its end"),
        ({"name": NAME, "row": "theirs"}, "--row: expected one of ours, got 'theirs'"),
    ],
)
def test_what_cannot_be_bundled_is_refused(package, tmp_path, options, message):
    made = bundle(package, write_fff(tmp_path / "model"), "--row", options["row"], name=options["name"])
    assert made.returncode != 0 and message in made.stderr
    assert not (package / options["name"]).exists()
