"""Nearness to a teacher: the measures against their definitions, and the command."""

import importlib
import json

import numpy as np
import pytest
from conftest import some_texts, write_sentence_model
from scipy import stats

from ufbert import SentenceEncoder
from ufbert.cli import main
from ufbert.compare import ScoredPairs, compare, neighbours_kept, reciprocal_rank
from ufbert.errors import InputError


def unit_rows(count, seed):
    rows = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_neighbours_kept_is_the_mean_overlap_of_nearest_sets():
    first, second = unit_rows(1_100, 0), unit_rows(1_100, 1)  # more than a block
    nearest = []
    for rows in (first, second):
        similar = rows @ rows.T
        np.fill_diagonal(similar, -np.inf)
        nearest.append(np.argsort(-similar, axis=1)[:, :10])
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)])
    assert neighbours_kept(first, second) == pytest.approx(expected)
    assert neighbours_kept(first, first) == 1


def test_reciprocal_rank_counts_the_first_ten():
    documents = np.eye(12, dtype=np.float32)
    assert reciprocal_rank(documents, documents) == 1
    weights = np.arange(12, 0, -1, dtype=np.float32)  # every query likes document 0 best, document 11 least
    queries = np.tile(weights, (12, 1))
    assert reciprocal_rank(queries, documents) == pytest.approx(sum(1 / rank for rank in range(1, 11)) / 12)


def test_the_teacher_comes_first_and_another_model_is_measured(tmp_path):
    teacher = write_sentence_model(tmp_path / "teacher")
    other = write_sentence_model(tmp_path / "other", hidden_act="relu")
    texts = some_texts(60)
    pairs = list(zip(texts[:20], texts[20:40], strict=True))
    scores = list(range(20))
    first, second = compare(teacher, [other], texts, {"pairs": ScoredPairs(pairs, scores)})
    assert (first.model, first.neighbours, second.model) == ("teacher", 1, "other")
    assert first.cosine == pytest.approx(1, abs=1e-5)
    a, b = (SentenceEncoder(folder).encode(texts, normalize_embeddings=True) for folder in (teacher, other))
    assert second.cosine == pytest.approx(float((a * b).sum(1).mean()), abs=1e-5)
    similar = (b[:20] * b[20:40]).sum(1)
    assert second.spearman["pairs"] == pytest.approx(stats.spearmanr(scores, similar)[0], abs=0.01)


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
    teacher = write_sentence_model(tmp_path / "teacher")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(some_texts(30)) + "\n")
    assert main(["compare", str(teacher), str(teacher), "--texts", str(texts), "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("| model | cosine |")
    assert main(["compare", str(teacher), "--texts", str(texts), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["neighbours"] == 1


def test_too_few_texts_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least 11"):
        compare(write_sentence_model(tmp_path / "teacher"), [], some_texts(10))


def test_the_former_name_warns_and_gives_the_same():
    with pytest.warns(DeprecationWarning, match=r"ufbert\.evaluate is now ufbert\.compare"):
        module = importlib.reload(importlib.import_module("ufbert.evaluate"))
    assert all(
        getattr(module, name) is getattr(importlib.import_module("ufbert.compare"), name) for name in module.__all__
    )
