"""The linear probe."""

import numpy as np
import ufbert_weights

import ufbert
from ufbert.glue import load_task, probe
from ufbert.glue.probe import _features

GOOD, BAD = ("lovely", "great", "charming", "superb", "wonderful"), ("awful", "boring", "terrible", "bleak", "dreadful")
NOUNS = ("film", "meal", "song", "trip")


def test_it_reads_a_mood_off_the_bundled_encoder(tmp_path):
    (tmp_path / "Mood").mkdir()
    rows = [(f"a {word} {noun}", mood) for mood, words in (("+", GOOD), ("-", BAD)) for word in words for noun in NOUNS]
    train = [row for row in rows if "superb" not in row[0] and "bleak" not in row[0]]
    dev = [row for row in rows if row not in train]
    for name, part in (("train", train), ("dev", dev)):
        (tmp_path / "Mood" / f"{name}.tsv").write_text("".join(f"{text}\t{mood}\n" for text, mood in part))
    (score,) = probe(ufbert.SentenceEncoder(), *load_task(tmp_path, "Mood"))
    assert score.rows == 8 and score.metrics["accuracy"] >= 0.75


def test_features_of_pairs_are_difference_and_product():
    encoder = ufbert.SentenceEncoder(ufbert_weights.path())
    u, v = encoder.encode(["one text", "another"])
    features = _features(encoder, [("one text", "another"), ("another", "another")], 32, False)
    np.testing.assert_allclose(features[0], np.concatenate([abs(u - v), u * v]), atol=1e-6)
    np.testing.assert_allclose(features[1], np.concatenate([0 * v, v * v]), atol=1e-6)
    np.testing.assert_array_equal(_features(encoder, ["another"], 32, False)[0], v)
