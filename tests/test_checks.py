import numpy as np
import pytest

from ufbert import CheckpointError, InputError, checks


@pytest.mark.parametrize("value", [1, 10, np.int64(3), np.uint8(3)])
def test_integers_become_pythons(value):
    found = checks.integer(value, "size", 1, 10)
    assert found == value and type(found) is int


@pytest.mark.parametrize("value", [0, 11, True, np.True_, 2.0, "2", None, [3], 10**400, float("nan")])
def test_what_is_no_integer_in_the_range_is_refused(value):
    with pytest.raises(InputError, match=r"size: expected an integer from 1 to 10, got .*; count them"):
        checks.integer(value, "size", 1, 10, advice="count them")


def test_messages_say_what_a_file_has_and_what_a_caller_gave():
    with pytest.raises(InputError, match=r"^n: expected a positive integer, got 0$"):
        checks.integer(0, "n", 1)
    with pytest.raises(CheckpointError, match=r"^n: expected an integer from 2, found 1$"):
        checks.integer(1, "n", 2, error=CheckpointError)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), float("inf"), True, "1", None, [1]])
def test_what_is_no_number_in_the_range_is_refused(value):
    assert checks.number(np.float32(0.5), "rate", 0, 1) == 0.5
    with pytest.raises(InputError, match="rate: expected a number from 0 to 1, got"):
        checks.number(value, "rate", 0, 1)


def test_infinity_is_no_number():
    with pytest.raises(InputError, match="rate: expected a number from 0, got inf"):
        checks.number(float("inf"), "rate")


@pytest.mark.parametrize("value", ["c", None, ["a"], {"a": 1}, 1])
def test_what_is_no_choice_is_refused(value):
    assert checks.choice("a", "mode", {"a": 1, "b": 2}) == "a"
    with pytest.raises(InputError, match=r"mode: expected one of a, b, got .*; choose one of these"):
        checks.choice(value, "mode", {"a": 1, "b": 2})


def test_paths(tmp_path):
    assert checks.path(str(tmp_path), "folder") == tmp_path
    assert checks.path(tmp_path / "nothing", "folder") == tmp_path / "nothing"
    for value in (None, 3, "a\0b", "x" * 5000):
        with pytest.raises(CheckpointError, match="folder: expected a path, found"):
            checks.path(value, "folder", error=CheckpointError)


def test_arrays_are_not_copied_without_need():
    fine = np.ones((2, 3), np.float32)
    assert checks.array(fine, "x", 2) is fine
    assert checks.array([[1, 2], [3, 4]], "x", 2).dtype == np.float32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1, 2], [3]], "x: expected an array of float32, could not convert it"),
        (np.array([["a"]]), "x: expected an array of float32, got dtype <U1"),
        (np.ones((2, 2), complex), "x: expected an array of float32, got dtype complex128"),
        (np.ones(3), r"x: expected 2 dimensions, got shape \(3,\)"),
    ],
)
def test_what_is_no_array_of_float32_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        checks.array(value, "x", 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 3)), "tried: expected an integer array, got dtype float64; draw"),
        (np.ones((3, 2), int), r"tried: expected shape \(2, 3\), \(T, P\), got \(3, 2\)"),
        (np.full((2, 3), 5), "tried: expected integers from 0 to 4, got 5 to 5; draw"),
        (np.full((2, 3), -1), "tried: expected integers from 0 to 4, got -1 to -1; draw"),
    ],
)
def test_what_are_no_integers_in_the_range_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        checks.integers(value, "tried", (2, 3), "(T, P)", 4, advice="draw them")


@checks.keyword_only(1, "first", "second")
def described(x, *, second="b", first="a"):
    return x, first, second


def test_options_may_still_come_by_position_in_their_former_order():
    with pytest.warns(DeprecationWarning, match="described: pass first, second by name, not by position"):
        assert described(0, 1, 2) == (0, 1, 2)
    with pytest.warns(DeprecationWarning, match="described: pass first by name"):
        assert described(0, 1, second=2) == (0, 1, 2)
    assert described(0, second=2) == (0, "a", 2)


def test_options_that_come_twice_or_that_nobody_knows_are_refused():
    with pytest.warns(DeprecationWarning, match="by name"), pytest.raises(TypeError, match="multiple values"):
        described(0, 1, first=2)
    with pytest.raises(TypeError, match="expected at most 2 arguments after the tensors, got 3"):
        described(0, 1, 2, 3)


def test_messages_stay_short():
    """Libraries quote what they do not understand, and a file may hold a name of a megabyte."""
    message = str(InputError("file: " + "x" * 100_000 + "; correct it"))
    assert message.startswith("file: x") and message.endswith("x; correct it") and len(message) < 2_100
