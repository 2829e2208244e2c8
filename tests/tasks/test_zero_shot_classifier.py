"""Classification with labels of the caller's, as transformers' zero-shot pipeline does it on the same folder."""

import json
import pickle
import shutil

import pytest
from conftest import GOLDEN
from test_pipelines import approximately

import ufbert
from ufbert import CheckpointError, InputError
from ufbert.cli import main

FOLDER = GOLDEN / "zero-shot"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", EXPECTED, ids=[str(number) for number in range(len(EXPECTED))])
def test_scores_are_those_of_the_pipeline(case):
    classify = ufbert.ZeroShotClassifier(FOLDER)
    found = classify(case["texts"], **case["call"])
    for one, two in zip(found, case["result"], strict=True):
        assert one["labels"] == two["labels"] and one["sequence"] == two["sequence"]
        assert one["scores"] == pytest.approx(two["scores"], abs=1e-5)
    assert classify(case["texts"][0], **case["call"]) == approximately(found[0])


def test_a_stream_holds_few_pairs_and_gives_the_same():
    classify, texts = ufbert.ZeroShotClassifier(FOLDER), EXPECTED[0]["texts"] * 9
    read = []
    labels = EXPECTED[0]["call"]["candidate_labels"]
    results = classify.stream((read.append(text) or text for text in texts), labels, batch_size=4)
    first = next(results)
    assert len(read) <= 3  # texts whose pairs fill a batch of four
    assert [first, *results] == classify(texts, labels)


def test_an_empty_text_is_classified_too():
    (found,) = ufbert.ZeroShotClassifier(FOLDER)([""], ["sport", "food"])
    assert sum(found["scores"]) == pytest.approx(1)


def test_a_classifier_is_pickled():
    classify = ufbert.ZeroShotClassifier(FOLDER)
    assert pickle.loads(pickle.dumps(classify))("water", ["a", "b"]) == classify("water", ["a", "b"])


def test_a_model_whose_labels_do_not_say_which_means_entailment(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FOLDER, folder)
    config = json.loads((folder / "config.json").read_text())
    names = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    (folder / "config.json").write_text(json.dumps(config | {"id2label": names}))
    with pytest.raises(CheckpointError, match="expected a label whose name begins with entail, found"):
        ufbert.ZeroShotClassifier(folder)
    case = EXPECTED[0]
    found = ufbert.ZeroShotClassifier(folder, entailment_id=2)(case["texts"], **case["call"])
    assert [each["labels"] for each in found] == [each["labels"] for each in case["result"]]
    with pytest.raises(InputError, match="entailment_id: expected an integer from 0 to 2"):
        ufbert.ZeroShotClassifier(folder, entailment_id=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"candidate_labels": []}, "candidate_labels: expected at least one label"),
        ({"candidate_labels": " , "}, "candidate_labels: expected at least one label"),
        ({"candidate_labels": [1]}, "candidate_labels: expected a list of str"),
        ({"candidate_labels": ["a"], "hypothesis_template": "nothing"}, "hypothesis_template: expected {} where"),
        ({"candidate_labels": ["a"], "hypothesis_template": "{} {}"}, "hypothesis_template: expected one {} where"),
        ({"candidate_labels": ["a"], "hypothesis_template": 3}, "hypothesis_template: expected str"),
        ({"candidate_labels": ["a"], "sequences": [3]}, "sequences: expected str, got int as number 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        ufbert.ZeroShotClassifier(FOLDER)(**({"sequences": ["water"]} | call))


def test_on_the_command_line(capsys):
    arguments = ["classify", "--model", str(FOLDER), "--labels", "sport, food", "--format", "jsonl", "--top-k", "2"]
    assert main([*arguments, "--template", "About {}", "Plants make sugar."]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    expected = ufbert.ZeroShotClassifier(FOLDER)("Plants make sugar.", ["sport", "food"], "About {}")
    assert [each["label"] for each in json.loads(line)["labels"]] == expected["labels"]
    assert main(["classify", "--model", str(FOLDER), "--multi-label", "x"]) != 0
    assert main(["classify", "--labels", "a,b", "x"]) != 0
