import gzip
import io
import lzma
import os
import sys
import types

import pytest

from ufbert import InputError
from ufbert.routes import Corpus
from ufbert.routes import corpus as module

TEXTS = ["first text", "ünïcödé 🙂", "third"]
CONTENT = ("\ufeff" + TEXTS[0] + "\r\n\n   \n" + TEXTS[1] + " \n" + TEXTS[2]).encode()
COMPRESS = {"texts.txt": bytes, "texts": bytes, "texts.txt.xz": lzma.compress, "texts.gz": gzip.compress}


@pytest.mark.parametrize("name", COMPRESS)
def test_texts_of_files(tmp_path, name):
    (tmp_path / name).write_bytes(COMPRESS[name](CONTENT))
    corpus = Corpus(tmp_path / name)
    assert corpus.is_file
    assert list(corpus) == list(corpus) == TEXTS
    assert list(Corpus(tmp_path / name, 2)) == TEXTS[:2]


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(CONTENT)))
    corpus = Corpus("-")
    assert not corpus.is_file and list(corpus) == TEXTS
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input: expected texts, found it closed"):
        list(Corpus("-"))


@pytest.mark.parametrize("path", ["no/such/file", "", ".", None, "a\0b", [], "x" * 300])
def test_what_is_no_file(path):
    with pytest.raises(InputError, match="corpus: expected a file of texts"):
        Corpus(path)


@pytest.mark.parametrize("name", [name for name, compress in COMPRESS.items() if compress is not bytes])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: CONTENT, lambda data: data[:20] + b"x" * 50])
def test_damaged_files(tmp_path, name, damage):
    (tmp_path / name).write_bytes(damage(COMPRESS[name](CONTENT * 99)))
    with pytest.raises(InputError, match=f"{name}: expected a readable file, found a fault: .+; copy it anew"):
        list(Corpus(tmp_path / name))


def test_texts_that_are_not_utf8(tmp_path):
    (tmp_path / "texts").write_bytes(b"good\nn\xf6t\n")
    with pytest.raises(InputError, match="texts: line 2: expected UTF-8"):
        list(Corpus(tmp_path / "texts"))


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE", 9)
    (tmp_path / "texts").write_bytes(b"123456789")
    assert list(Corpus(tmp_path / "texts")) == ["123456789"]
    (tmp_path / "texts").write_bytes(b"1234567890")
    with pytest.raises(InputError, match="expected one text a line, found one of more than 9 bytes"):
        list(Corpus(tmp_path / "texts"))


def test_a_corpus_left_early_is_closed(tmp_path):
    (tmp_path / "texts").write_bytes(CONTENT)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        assert next(iter(Corpus(tmp_path / "texts", 1))) == TEXTS[0]
    assert len(os.listdir("/proc/self/fd")) == before
