"""The tasks answer as transformers' pipelines did on the same folders (scores to 1e-4)."""

import json

import pytest
from conftest import GOLDEN

import ufbert

TASKS = {
    "fill-mask": ufbert.FillMask,
    "text-classification": ufbert.TextClassifier,
    "token-classification": ufbert.TokenClassifier,
    "question-answering": ufbert.QuestionAnswerer,
}
FOLDERS = sorted(folder for folder in (GOLDEN / "pipelines").iterdir() if (folder / "config.json").exists())


def same_on_purpose(task, call):
    """Calls whose results differ by decision, not by accident."""
    if task == "fill-mask":
        return not (isinstance(call["inputs"], list) and len(call["inputs"]) == 1)  # a list in gives a list out
    if task == "text-classification":
        return call.get("top_k") != 1  # it is our default, so 1 given and 1 by default cannot differ
    if task == "token-classification":
        return "stride" not in call and "aggregation_strategy" in call  # long texts are cut; our default is "simple"
    return "max_question_len" not in call  # transformers ignores it


def cases():
    for folder in FOLDERS:
        task = next(name for name in TASKS if folder.name.startswith(name))
        for number, case in enumerate(json.loads((folder / "expected.json").read_text(encoding="utf-8"))):
            if same_on_purpose(task, case["call"]):
                yield pytest.param(folder, task, case["call"], case["result"], id=f"{folder.name}-{number}")


def approximately(value):
    """Numbers to 1e-4, everything else exactly."""
    if isinstance(value, dict):
        return {key: approximately(item) for key, item in value.items()}
    if isinstance(value, list):
        return [approximately(item) for item in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.mark.parametrize(("folder", "task", "call", "expected"), list(cases()))
def test_call(loaded, folder, task, call, expected):
    if folder not in loaded:
        loaded[folder] = TASKS[task](folder)
    call = dict(call)
    inputs = [call.pop("inputs")] if "inputs" in call else []
    assert loaded[folder](*inputs, **call) == approximately(expected)


def test_no_task_was_left_out():
    assert {name for name in TASKS for folder in FOLDERS if folder.name.startswith(name)} == set(TASKS)
