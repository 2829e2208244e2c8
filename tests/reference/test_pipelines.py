"""transformers' own pipelines beside the tasks: long texts in windows, given words, targets."""

import warnings

import pytest
import transformers
from conftest import GOLDEN

import ufbert

PIPELINES = GOLDEN / "pipelines"
TEXT = "the then there he went the way in heer. " * 30
WORDS = "the then there he went , the way".split()


def same(own, other):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for mine, theirs in zip(own, other, strict=True):
            assert mine.keys() == theirs.keys()
            assert mine["score"] == pytest.approx(float(theirs["score"]), abs=1e-4)
            assert {k: v for k, v in mine.items() if k != "score"} == {k: v for k, v in theirs.items() if k != "score"}


@pytest.mark.parametrize(
    "name", ["token-classification", "token-classification-cased", "token-classification-distilbert"]
)
@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
@pytest.mark.parametrize("stride", [0, 3, 11])
def test_entities_of_long_texts(name, strategy, stride):
    pipeline = transformers.pipeline("token-classification", str(PIPELINES / name), device="cpu")
    find = ufbert.TokenClassifier(PIPELINES / name)
    for ignored in (["O"], []):
        options = {"aggregation_strategy": strategy, "ignore_labels": ignored, "stride": stride}
        same(find(TEXT, **options), pipeline(TEXT, **options))


@pytest.mark.parametrize("name", ["token-classification", "token-classification-xlm-roberta"])
@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_words_that_are_given(name, strategy):
    options = {"aggregation_strategy": strategy, "ignore_labels": [], "is_split_into_words": True}
    pipeline = transformers.pipeline("token-classification", str(PIPELINES / name), device="cpu")
    find = ufbert.TokenClassifier(PIPELINES / name)
    same(find(WORDS, **options), pipeline(WORDS, **options)[0])  # it gives a list of one
    for own, other in zip(find([WORDS, WORDS[:3]], **options), pipeline([WORDS, WORDS[:3]], **options), strict=True):
        same(own, other)


def test_words_without_a_space_before_them_are_refused():
    find = ufbert.TokenClassifier(PIPELINES / "token-classification-roberta")
    with pytest.raises(ufbert.InputError, match="add_prefix_space"):  # as transformers 4 does; 5 runs them together
        find(WORDS, is_split_into_words=True)


@pytest.mark.parametrize("name", ["fill-mask", "fill-mask-roberta", "fill-mask-xlm-roberta"])
def test_targets(name):
    fill = ufbert.FillMask(PIPELINES / name)
    pipeline = transformers.pipeline("fill-mask", str(PIPELINES / name), device="cpu")
    vocabulary = pipeline.tokenizer.get_vocab()
    targets = [token for token in ("the", "a", "he", "\u0120the", "\u2581the") if token in vocabulary]
    text = f"he {fill.mask_token} way"
    same(fill(text, targets=targets), pipeline(text, targets=targets))
    same(fill(text, targets=targets, top_k=1), pipeline(text, targets=targets, top_k=1))
    if name == "fill-mask":
        with pytest.warns(UserWarning, match="stands for it"):
            found = fill(text, targets=["thenx"])
        same(found, pipeline(text, targets=["thenx"]))
