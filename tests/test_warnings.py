"""Every warning names the caller's line, and a deprecated name says when it goes."""

import ast
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN

import ufbert
from ufbert import cmm, reference

PACKAGE = Path(ufbert.__file__).parent
TEXTS = ["a text that is too long " * 200]
OLD_NAMES = {"evaluate": "compare", "torch": "train", "distill": "train.distill"}


def calls():
    """``(where, call)`` of each `warnings.warn` in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.warn", "warn"):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_every_warning_says_at_which_level_the_callers_line_is():
    found = dict(calls())
    assert len(found) >= 7
    for where, call in found.items():
        level = next((word.value for word in call.keywords if word.arg == "stacklevel"), None)
        assert level is not None, f"{where}: expected a stacklevel"
        assert ast.unparse(level) == "callers_level()" or ast.literal_eval(level) >= 2, where


def test_no_warning_escapes_this_look():
    for path in PACKAGE.rglob("*.py"):
        assert "from warnings import" not in path.read_text("utf-8"), path


def test_deprecations_name_the_version_in_which_they_go():
    for where, call in calls():
        if "DeprecationWarning" in ast.unparse(call):
            source = (PACKAGE / where.rpartition(":")[0]).read_text("utf-8")
            assert "goes with 0.3" in source, where


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_an_old_name_warns_at_the_line_that_imports_it(old, new, tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(f"\n\nimport ufbert.{old}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("theirs", f"ufbert.{old}"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("ufbert.train", "ufbert.train.distill"):  # which need PyTorch
        monkeypatch.setitem(sys.modules, name, _Anything(name))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        __import__("theirs")
    (warning,) = [each for each in caught if "ufbert" in str(each.message)]
    assert (warning.category, warning.filename, warning.lineno) == (DeprecationWarning, str(tmp_path / "theirs.py"), 3)
    assert f"ufbert.{old} is now ufbert.{new}" in str(warning.message)
    monkeypatch.delitem(sys.modules, f"ufbert.{old}", raising=False)


class _Anything(type(sys)):
    """A module that has every name."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return object()


def layer(seed=0):
    draw = np.random.default_rng(seed)
    return [draw.standard_normal(shape, np.float32) for shape in ((3, 4), (1, 7, 4), (1, 7), (1, 7, 5))]


def packed():
    _, w_in, b_in, w_out = layer()
    return cmm.PackedFFF(w_in, b_in, w_out, depth=2)


def fill_mask():
    return ufbert.FillMask(GOLDEN / "pipelines" / "fill-mask")


CALLERS = {
    "cmm.fff_forward": lambda: cmm.fff_forward(*layer(), 2, 1),
    "reference.fff_forward": lambda: reference.fff_forward(*layer(), 2, 1),
    "cmm.PackedFFF": lambda: cmm.PackedFFF(*layer()[1:], 2, "float32"),
    "PackedFFF.__call__": lambda: packed()(layer()[0], 1),
    "a text that is cut": lambda: ufbert.SentenceEncoder("all-MiniLM-L6-v2").encode(TEXTS, on_overflow="warn"),
    "a text of a stream that is cut": lambda: list(
        ufbert.SentenceEncoder("all-MiniLM-L6-v2").stream(iter(TEXTS), on_overflow="warn")
    ),
    "targets": lambda: fill_mask()("a [MASK].", targets=["the", "notaword"]),
}


@pytest.mark.parametrize("name", CALLERS)
def test_a_warning_names_the_line_that_called(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLERS[name]()
    assert {warning.filename for warning in caught} == {__file__}
