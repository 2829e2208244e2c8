"""Sentences of three subjects, a question on each, and a reranker whose scores are known."""

import json

from conftest import GOLDEN

FOOD = [
    "Leaves turn sunlight into sugar.",
    "Roots draw water out of the soil.",
    "Trees grow a ring a year.",
]
TIDES = ["Tides follow the moon.", "The sea rises twice a day.", "Waves wear the cliffs away."]
MONEY = ["The bank lends money to shops.", "Shares fell on Monday.", "The central bank raised its interest rate."]
SENTENCES = FOOD + TIDES + MONEY
QUESTIONS = {"How do plants make food?": FOOD[0], "Why does the sea rise and fall?": TIDES[1], "Who lends?": MONEY[0]}
MODEL = "all-MiniLM-L6-v2"
RERANKER = str(GOLDEN / "cross-encoders" / "one-label")
EXPECTED = json.loads((GOLDEN / "cross-encoders" / "one-label" / "expected.json").read_text(encoding="utf-8"))
QUERY = EXPECTED["pairs"][0][0]
DOCUMENTS = [document for query, document in EXPECTED["pairs"] if query == QUERY]
RANKED = EXPECTED["rank"]  # the best three of these documents
