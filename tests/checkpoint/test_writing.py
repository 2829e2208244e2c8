import os

import pytest
from conftest import write_bert

from ufbert import InputError
from ufbert.checkpoint.writing import new_folder, whole_file


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "a" / "b") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert os.listdir(tmp_path / "a") == ["b"] and os.listdir(tmp_path / "a" / "b") == ["file"]


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "a").mkdir()
    with new_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("x")
    assert os.listdir(tmp_path / "a") == ["file"]


def test_a_place_without_folders_is_refused_by_its_name(tmp_path):
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file" / "a" / "b", "/proc/model"):
        with pytest.raises(InputError, match=f"{target}"), new_folder(target):
            pass


def test_the_first_of_two_writers_wins_and_the_other_is_told(tmp_path):
    with pytest.raises(InputError, match="target: expected a name that is free"), new_folder(tmp_path / "target"):
        write_bert(tmp_path / "target")
    assert os.listdir(tmp_path) == ["target"] and (tmp_path / "target" / "config.json").exists()


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, replace, error):
    target = tmp_path / "target"
    if replace:
        write_bert(target)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error), new_folder(target, replace) as folder:  # noqa: PT012 (the body is what fails)
        (folder / "file").write_text("x")
        raise error
    assert sorted(tmp_path.rglob("*")) == before


def test_only_a_model_folder_is_replaced(tmp_path):
    model = write_bert(tmp_path / "model")
    with pytest.raises(InputError, match="expected a name that is free"), new_folder(model):
        pass
    with new_folder(model, replace=True) as folder:
        (folder / "file").write_text("x")
    assert os.listdir(model) == ["file"] and os.listdir(tmp_path) == ["model"]
    with pytest.raises(InputError, match="expected a model folder to replace"), new_folder(model, replace=True):
        pass
    (tmp_path / "link").symlink_to(write_bert(tmp_path / "other"))
    for place in ("link", "link/config.json"):
        refused = pytest.raises(InputError, match="expected a model folder to replace")
        with refused, new_folder(tmp_path / place, replace=True):
            pass


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_file_is_whole_or_the_one_that_was_there(tmp_path, error):
    file = tmp_path / "file.json"
    file.write_text("before")
    try:
        with whole_file(file) as part:
            part.write_text("after")
            assert file.read_text() == "before" and part.parent == tmp_path
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert file.read_text() == ("before" if error else "after")
    assert os.listdir(tmp_path) == ["file.json"]
