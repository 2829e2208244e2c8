"""Every command that writes, with what it writes and how to tell that it is whole."""

import json
from importlib.util import find_spec
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from conftest import some_texts
from watch import Fault

import ufbert
from ufbert.cli import VERBS

TEXTS = 3_000
READING = {"compare", "doctor", "info", "serve"}
TRAINING = ["--trees", "2", "--depth", "2", "--grow-tokens", "9000", "--local-tokens", "9000", "--tokens", "9000"]
STREAMS = {"classify": "labels", "fill-mask": "fill", "ner": "ner", "qa": "qa", "rerank": "cross"}


class Work(NamedTuple):
    """One run of a command; `resumes`: what a killed one left is gone on with by the same command."""

    name: str
    command: list
    target: object
    resumes: bool = False
    environment: object = MappingProxyType({})


class Writers:
    """Runs of all verbs of `ufbert` but those of `READING`."""

    def __init__(self, root, folders):
        self.root, self.folders = root, folders
        texts = some_texts(TEXTS)
        (root / "texts.txt").write_text("\n".join(texts) + "\n")
        (root / "masks.txt").write_text("\n".join(f"{text} [MASK]" for text in texts) + "\n")
        (root / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for split in ("train", "dev"):
            (root / "data" / "Mood").mkdir(parents=True, exist_ok=True)
            rows = "".join(f"{text}\t{'good' if 'cat' in text else 'bad'}\n" for text in texts[:200])
            (root / "data" / "Mood" / f"{split}.tsv").write_text(rows)
        self.hub = self._hub() if find_spec("huggingface_hub") else None
        missing = {verb for verbs in VERBS.values() for verb in verbs} - READING - self.verbs()
        if missing - {"distill"} or (missing and find_spec("torch")):
            raise AssertionError(f"verbs that write and have no case: {missing}")

    def _hub(self):
        """A hub of this machine that ends with the process."""
        from local_hub import running

        self._running = running()
        hub = self._running.__enter__()
        hub.add("org/model", self.folders["sentence"])
        return hub

    def verbs(self):
        """The verbs that are run."""
        return {work.command[0] for work in self.all("x", "int8")}

    def choose(self, rng):
        """One of all, with a target of its own."""
        return rng.choice(self.all(f"out-{rng.randrange(2**32)}", rng.choice(["float16", "int8"])))

    def all(self, name, dtype):
        """Every command, writing to something of that name."""
        root, target = self.root, self.root / name
        texts, sentence, trees = str(root / "texts.txt"), str(self.folders["sentence"]), str(self.folders["trees"])
        npy, lines = target.with_suffix(".npy"), target.with_suffix(".jsonl")
        found = [
            Work("npy", ["embed", "--model", sentence, "--input", texts, "--output", str(npy)], npy),
            Work("model", ["convert", sentence, str(target), "--dtype", dtype], target),
            Work("model", ["prune", trees, "--corpus", texts, "--out", str(target)], target),
            Work("routes", ["routes", trees, "--corpus", texts, "--out", str(target)], target),
            Work(
                "glue", ["glue", "--model", sentence, "--data", str(root / "data"), "--out", str(target)], target, True
            ),
        ]
        for verb, folder in STREAMS.items():
            texts = str(root / ("masks.txt" if verb == "fill-mask" else "texts.txt"))
            more = {"qa": ["--question", "the"], "rerank": ["--query", "the"]}.get(verb, [])
            command = [verb, "--model", str(self.folders[folder]), "--input", texts, "--output", str(lines), *more]
            found.append(Work("jsonl", command, lines))
        rows = ["--input", str(root / "rows.jsonl"), "--column", "text", "--part-rows", "400", "--resume"]
        for form in ("parquet", "npy", "jsonl"):
            command = ["embed", "--model", sentence, *rows, "--format", form, "--output", str(target)]
            found.append(Work("files", command, target, True))
        if find_spec("torch"):
            command = ["distill", sentence, "--corpus", str(root / "texts.txt"), "--out", str(target), *TRAINING]
            found.append(Work("model", command, target, True))
        if self.hub is not None:
            environment = {"HF_ENDPOINT": self.hub.address, "HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "0"}
            command = ["download", "org/model", "--out", str(target)]
            found.append(Work("model", command, target, environment=environment))
        return found


def check_whole(work):
    """Raise a fault unless the target is what an uninterrupted run writes."""
    target = work.target
    if work.name == "npy":
        whole = np.load(target).shape == (TEXTS, 12)
    elif work.name == "jsonl":
        whole = len([json.loads(line) for line in target.read_text().splitlines()]) == TEXTS
    elif work.name == "routes":
        whole = "layers" in json.loads((target / "routes.json").read_text())
    elif work.name == "glue":
        whole = json.loads((target / "results.json").read_text())["method"] == "probe"
    elif work.name == "files":
        found = json.loads((target / "_manifest.json").read_text())
        whole = found["rows"] == TEXTS and all(
            (target / part["file"]).stat().st_size == part["bytes"] for part in found["parts"]
        )
    else:
        whole = ufbert.load(target)(np.array([[2, 5, 3]])) is not None
    if not whole:
        raise Fault(f"{target}: not whole")
