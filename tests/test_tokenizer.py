import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import GOLDEN, VOCABULARY
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from ufbert.checkpoint import ModelFolder, load_tokenizer
from ufbert.errors import InputError
from ufbert.tokenizer import cut_pair


@pytest.fixture
def tokenizer(bert_folder):
    return load_tokenizer(ModelFolder(bert_folder), 32)


def tokens(encoding):
    return " ".join(VOCABULARY[index] for index in encoding.ids)


def test_vocabulary_file_gives_the_ids_of_transformers(tmp_path):
    source = GOLDEN / "pipelines" / "tokenizers"
    shutil.copy(source / "vocab.txt", tmp_path)
    cases = json.loads((source / "tokenizer_ids.json").read_text(encoding="utf-8"))
    assert len(cases) > 100
    for case in cases:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(case["options"]))
        (encoding,), _ = load_tokenizer(ModelFolder(tmp_path), 512).encode([case["text"]])
        assert encoding.ids == case["ids"], case


def test_truncation_is_counted_to_the_token(tokenizer):
    encodings, truncated = tokenizer.encode(["a b c", "a b c d e f", ""], max_length=6)
    assert [tokens(e) for e in encodings] == ["[CLS] a b c [SEP]", "[CLS] a b c d [SEP]", "[CLS] [SEP]"]
    assert truncated == [0, 2, 0]


def test_the_longer_text_of_a_pair_is_cut(tokenizer):
    encodings, truncated = tokenizer.encode([("a b", "a b c d e f")], max_length=8)
    assert tokens(encodings[0]) == "[CLS] a b [SEP] a b c [SEP]"
    assert encodings[0].type_ids == [0, 0, 0, 0, 1, 1, 1, 1]
    assert truncated == [3]


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 14))
def test_pairs_are_cut_as_the_library_cuts_them(first, second, room):
    backend = Backend(models.WordLevel({"x": 0}, unk_token="x"))
    backend.enable_truncation(room, strategy="longest_first")
    encoding = backend.encode(["x"] * first, ["x"] * second, is_pretokenized=True)
    lengths = encoding.type_ids.count(0), encoding.type_ids.count(1)
    assert cut_pair(first, second, room) == lengths


def test_all_of_unicode(tokenizer):
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    pieces = [everything[start : start + 4096] for start in range(0, len(everything), 4096)]
    encodings, truncated = tokenizer.encode(pieces)
    assert all(len(encoding.ids) <= 32 for encoding in encodings)
    assert sum(truncated) > 50_000


def test_half_characters_become_the_replacement_character(tokenizer):
    assert tokens(tokenizer.encode(["a \ud83d b"])[0][0]) == tokens(tokenizer.encode(["a \ufffd b"])[0][0])


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["a"], ("a", 1), ("a", "b", "c")])
def test_other_things_than_texts_are_refused(tokenizer, text):
    with pytest.raises(InputError, match="expected str"):
        tokenizer.encode([text])


@pytest.mark.parametrize("length", [0, 2, 33, 2.5, None, True, "8"])
def test_max_length_must_leave_room_and_fit_the_model(tokenizer, length):
    with pytest.raises(InputError, match=r"from 3 to 32, got .*; the model takes 32 tokens at most"):
        tokenizer.checked_length(length)


def test_the_shortest_texts_and_pairs(tokenizer):
    assert tokens(tokenizer.encode(["a b"], np.int64(3))[0][0]) == "[CLS] a [SEP]"
    with pytest.raises(InputError, match="from 4"):
        tokenizer.encode([("a", "b")], 3)


def test_a_tokenizer_without_special_tokens_still_tells_pairs_apart(tmp_path):
    backend = Backend(models.WordLevel({"a": 0, "x": 1}, unk_token="x"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    encodings, truncated = load_tokenizer(ModelFolder(tmp_path), 8).encode([("a a a a", "a a a"), "a"], max_length=5)
    assert [encoding.type_ids for encoding in encodings] == [[0, 0, 0, 1, 1], [0]] and truncated == [2, 0]


@pytest.mark.parametrize("token", ["b hello", "a:1", "$A", "[CLS]:0"])
def test_special_tokens_may_be_spelled_like_a_template(bert_folder, token):
    (bert_folder / "vocab.txt").write_text("\n".join([*VOCABULARY, token]))
    (bert_folder / "tokenizer_config.json").write_text(json.dumps({"cls_token": token}))
    (encoding,), _ = load_tokenizer(ModelFolder(bert_folder), 32).encode(["a"])
    assert encoding.ids == [len(VOCABULARY), 5, 3]


def test_sixteen_threads_share_one_tokenizer(tokenizer):
    texts = [" ".join(VOCABULARY[5 : 5 + count]) for count in range(1, 31)] * 5
    alone = [e.ids for e in tokenizer.encode(texts)[0]]
    with ThreadPoolExecutor(16) as pool:
        for result in pool.map(lambda _: tokenizer.encode(texts, 32), range(64)):
            assert [e.ids for e in result[0]] == alone


def test_a_long_text_alone_is_tokenised_like_short_ones(tokenizer):
    """The library has two functions for them."""
    short = tokenizer.pieces(["the cat a b"])[0]
    long = tokenizer.pieces(["the cat a b " * 2_000])[0]
    assert long.ids == short.ids * 2_000
    assert long.offsets[-len(short) :] == [(start + 12 * 1_999, stop + 12 * 1_999) for start, stop in short.offsets]
