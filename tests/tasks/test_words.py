"""Words and characters of tokenizers of every kind: NER's groups and QA's answers."""

import pytest
from task_folders import byte_level, unigram, word_ends_marked, wordpiece, write_task

import ufbert

TEXT = "Maria moved to Berlin"
WORDS = TEXT.split()
HANGUL = ["\u1112\u1161\u11ab\u1100\u116e\u11a8", "##\u110b\u1165", "\u1109\u1161"]  # 한국, 어, 사 in their letters
KINDS = {
    "word ends marked": (word_ends_marked, TEXT, WORDS),
    "byte level": (byte_level, TEXT, WORDS),
    "unigram": (unigram, TEXT, WORDS),
    "unigram without words": (lambda: unigram(split=False), TEXT, WORDS),
    "accents that are stripped": (
        lambda: wordpiece(["cafe", "##s", "ecole", "a"], strip_accents=True),
        "cafés a École",
        ["cafés", "a", "École"],
    ),
    "accents in two characters": (
        lambda: wordpiece(["cafe", "##s", "a"], strip_accents=True),
        "a cafe\u0301s cafe\u0301s",
        ["a", "cafe\u0301s", "cafe\u0301s"],
    ),
    "hangul": (lambda: wordpiece(HANGUL, strip_accents=True), "한국어 사 한국", ["한국어", "사", "한국"]),
}


@pytest.fixture(params=KINDS)
def kind(request):
    make, text, words = KINDS[request.param]
    return make(), text, words


@pytest.mark.parametrize("strategy", ["first", "average", "max"])
def test_words_are_the_tokenizers(tmp_path, kind, strategy):
    tokenizer, text, words = kind
    folder = write_task(tmp_path, "BertForTokenClassification", tokenizer, labels=("B-X", "B-Y"))
    entities = ufbert.TokenClassifier(folder)(text, strategy, None)
    assert [text[entity["start"] : entity["end"]].strip() for entity in entities] == words


def test_tokens_stand_where_the_tokenizer_says(tmp_path, kind):
    tokenizer, text, _ = kind
    folder = write_task(tmp_path, "BertForTokenClassification", tokenizer)
    tokens = ufbert.TokenClassifier(folder)(text, "none", None)
    expected = tokenizer.encode(text)
    assert [(t["index"], t["start"], t["end"]) for t in tokens] == [
        (index, *place)
        for index, (place, special) in enumerate(zip(expected.offsets, expected.special_tokens_mask, strict=True))
        if not special
    ]


def test_an_answer_is_a_row_of_whole_words(tmp_path, kind):
    tokenizer, text, words = kind
    answerer = ufbert.QuestionAnswerer(write_task(tmp_path, "BertForQuestionAnswering", tokenizer))
    rows = {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    answers = answerer(question=words[0], context=text, top_k=100)
    assert {answer["answer"].strip() for answer in answers} == rows
    assert all(text[answer["start"] : answer["end"]] == answer["answer"] for answer in answers)


def test_spaces_are_trimmed_once(tmp_path):
    """Byte-level tokens of one character, whose offsets a second trimming would move."""
    folder = write_task(tmp_path / "ner", "BertForTokenClassification", byte_level())
    text = "a  b c"
    tokens = ufbert.TokenClassifier(folder)(text, "none", None)
    assert [text[t["start"] : t["end"]] for t in tokens if t["start"] < t["end"]] == ["a", "b", "c"]
    answerer = ufbert.QuestionAnswerer(write_task(tmp_path / "qa", "BertForQuestionAnswering", byte_level()))
    answers = answerer(question="to", context="a b c", align_to_words=False, top_k=50, max_answer_len=1)
    assert {answer["answer"] for answer in answers} == {"a", "b", "c"}


def test_groups_of_words_are_spelled_with_spaces(tmp_path):
    labels = ("I-X", "I-X")
    for number, make in enumerate((word_ends_marked, unigram, byte_level)):
        folder = write_task(tmp_path / str(number), "BertForTokenClassification", make(), labels)
        (entity,) = ufbert.TokenClassifier(folder)(TEXT, "first", None)
        assert entity["word"].strip() == TEXT
