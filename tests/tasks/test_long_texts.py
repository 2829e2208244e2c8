"""Token classifiers over long texts and given words, targets of masks: as transformers has them.

`tests/reference` compares with transformers itself; here the parts are put together by hand.
"""

from itertools import pairwise

import numpy as np
import pytest
from task_folders import byte_level, unigram, word_ends_marked, wordpiece, write_task

import ufbert
from ufbert import InputError

WORDS = "maria moved to berlin the cat sat on mat".split()
STRATEGIES = ["simple", "first", "average", "max"]
TOKENIZERS = {
    "wordpiece": lambda: wordpiece([*WORDS, "##x", "."]),
    "bytes": byte_level,
    "ends": word_ends_marked,
    "unigram": unigram,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tagger(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagger")
    return ufbert.TokenClassifier(write_task(folder, "BertForTokenClassification", TOKENIZERS[request.param]()))


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    tokenizer = wordpiece([*WORDS, "##x"])
    return ufbert.FillMask(write_task(tmp_path_factory.mktemp("filler"), "BertForMaskedLM", tokenizer))


def long_text(words):
    return " ".join(WORDS[number * 7 % len(WORDS)] for number in range(words))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("stride", [0, 5, 20])
def test_with_a_stride_a_text_is_read_to_its_end(tagger, strategy, stride):
    text = long_text(150)
    found = tagger(text, strategy, None, stride=stride)
    cut = tagger(text, strategy, None)
    assert cut[-1]["end"] < len(text) / 2 < found[-1]["end"] <= len(text)
    assert all(before["end"] <= entity["start"] for before, entity in pairwise(found))
    assert all(text[entity["start"] : entity["end"]].strip() for entity in found)


def test_a_stride_changes_nothing_where_texts_are_short(tagger):
    text = " ".join(WORDS)
    for strategy in STRATEGIES:
        assert tagger(text, strategy, None, stride=3) == tagger(text, strategy, None)


def test_windows_that_share_no_token_are_texts_of_their_own(tagger):
    word, room = "maria", 62
    pieces = len(tagger._texts.tokenizer.pieces([f" {word}"])[0])
    text = " ".join([word] * (3 * room // pieces))
    alone = tagger(text[: len(" ".join([word] * (room // pieces)))], "simple", None, stride=0)
    found = tagger(text, "simple", None, stride=0)
    assert [entity["score"] for entity in found[: len(alone) - 1]] == pytest.approx(
        [entity["score"] for entity in alone[:-1]], abs=1e-5
    )


def test_any_number_of_long_texts_in_order(tagger):
    texts = [long_text(count) for count in (3, 150, 0, 80, 1)]
    expected = [tagger(text, stride=4) for text in texts]
    assert list(tagger.stream(iter(texts), stride=4, batch_size=2)) == tagger(texts, stride=4)
    for found, alone in zip(tagger(texts, stride=4), expected, strict=True):
        assert [(e["start"], e["end"]) for e in found] == [(e["start"], e["end"]) for e in alone]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stride": 62}, "stride: expected from 0 to 61"),
        ({"stride": -1}, "stride"),
        ({"stride": 3, "aggregation_strategy": "none"}, "stride: expected an aggregation_strategy that joins tokens"),
        ({"is_split_into_words": True, "delimiter": None}, "delimiter: expected str"),
    ],
)
def test_what_does_not_fit_is_refused(tagger, options, sentence):
    with pytest.raises(InputError, match=sentence):
        tagger("the cat", **options)
    with pytest.raises(InputError, match=sentence):
        list(tagger.stream(["the cat"], **options))


def test_texts_where_words_are_wanted(tagger):
    with pytest.raises(
        InputError, match="expected lists of words, for is_split_into_words is True, got str as number 0"
    ):
        list(tagger.stream(["the cat"], is_split_into_words=True))
    with pytest.raises(InputError, match="expected str, got list as number 0"):
        tagger([["the", "cat"]])


@pytest.mark.parametrize("delimiter", [" ", "", "_"])
def test_words_that_are_given(tagger, delimiter):
    found = tagger(WORDS, "first", None, is_split_into_words=True, delimiter=delimiter)
    text = delimiter.join(WORDS)
    parts = [text[entity["start"] : entity["end"]] for entity in found]
    starts = {text.index(word) if delimiter else len("".join(WORDS[:number])) for number, word in enumerate(WORDS)}
    assert {entity["start"] for entity in found} <= starts
    assert "".join(parts).replace(delimiter, "") == "".join(WORDS)
    tokens = tagger(WORDS, "none", None, is_split_into_words=True, delimiter=delimiter)
    assert all(text[t["start"] : t["end"]] in text and t["start"] < t["end"] for t in tokens)


def test_one_list_of_words_or_many(tagger):
    one = tagger(WORDS, is_split_into_words=True)
    many = tagger([WORDS, WORDS[:3], []], is_split_into_words=True)
    assert len(many) == 3 and many[2] == []
    assert [entity["start"] for entity in many[0]] == [entity["start"] for entity in one]
    assert tagger([], is_split_into_words=True) == []
    assert len(tagger([WORDS * 20], is_split_into_words=True, stride=5, ignore_labels=None)[0]) > 0


def test_words_that_are_too_long_follow_the_policy(tagger):
    with pytest.raises(InputError, match="longer than 64 tokens"):
        tagger(WORDS * 30, is_split_into_words=True, on_overflow="error")
    with pytest.warns(UserWarning, match="longer than 64 tokens"):
        tagger([long_text(200)], on_overflow="warn")
    tagger([long_text(200)], on_overflow="error", stride=2)  # nothing is cut


# Fill-mask


def test_targets_alone_are_ranked_with_their_own_probabilities(filler):
    text = f"maria {filler.mask_token} to berlin"
    everything = {fill["token_str"]: fill for fill in filler(text, top_k=100)}
    found = filler(text, targets=["cat", "moved", "cat"])
    assert sorted(fill["token_str"] for fill in found) == ["cat", "moved"]
    assert all(fill == everything[fill["token_str"]] for fill in found)
    assert found[0]["score"] >= found[1]["score"]
    assert filler(text, targets="moved") == [everything["moved"]]
    assert [len(row) for row in filler([text, text], targets=["cat", "sat"], top_k=1)] == [1, 1]
    two = filler(f"{filler.mask_token} {filler.mask_token}", targets=["cat", "sat"])
    assert [len(row) for row in two] == [2, 2]


def test_targets_that_the_vocabulary_does_not_have(filler):
    text = f"maria {filler.mask_token} to berlin"
    with pytest.warns(UserWarning, match="the vocabulary has no 'catx'; its first token 'cat' stands for it"):
        assert filler(text, targets=["catx"]) == filler(text, targets=["cat"])
    with pytest.warns(UserWarning, match="targets: '' has no token"), pytest.raises(InputError, match="at least one"):
        filler(text, targets=[""])
    with pytest.raises(InputError, match="targets"):
        filler(text, targets=[3])


def test_functions_over_logits(tmp_path):
    classifier = ufbert.TextClassifier(write_task(tmp_path, "BertForSequenceClassification", wordpiece(WORDS)))
    logits = classifier.logits(["the cat"])[0]

    def scores(function):
        return [label["score"] for label in classifier("the cat", None, function)]

    assert scores("none") == pytest.approx(sorted(logits, reverse=True), rel=1e-6)
    assert scores("sigmoid") == pytest.approx(sorted(1 / (1 + np.exp(-logits)), reverse=True), rel=1e-5)
    assert sum(scores("softmax")) == pytest.approx(1)
    assert scores(None) == scores("softmax")
