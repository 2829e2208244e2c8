"""Logging: quiet unless a program asks for it."""

import logging
import subprocess
import sys

import ufbert


def test_loading_a_model_is_logged(caplog, bert_folder):
    with caplog.at_level(logging.DEBUG, "ufbert"):
        ufbert.load(bert_folder)
    assert f"loaded {bert_folder}: float32 on " in caplog.text and "of 2 layers fused" in caplog.text


def test_nothing_is_said_otherwise(bert_folder):
    code = f"import ufbert; ufbert.load({str(bert_folder)!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not result.stderr
