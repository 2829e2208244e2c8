"""Coverage-guided cases (atheris, Linux, pip install atheris): bytes that reach new lines are kept and mutated further.

python tests/campaign/run.py fuzz --seconds 600 --seed 7
python tests/campaign/fuzz.py safetensors FOLDER -runs=0     # libFuzzer's own options; a file of bytes: one input again
"""

import io
import json
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

TARGETS = ("safetensors", "config", "pickle", "tokenizer", "jsonl", "csv", "body")
HANG = 5.0  # seconds of processor time; libFuzzer counts those in which the machine stops us, so its limit is larger
LIMITS = ("-timeout=120", "-rss_limit_mb=1500", "-max_len=4096", "-print_final_stats=1", "-verbosity=0")


def fuzz(seed, seconds):
    """All targets side by side; a row of the report for each."""
    from folders import scratch

    running = []
    for target in TARGETS:
        corpus, left = scratch(), scratch()
        command = [sys.executable, __file__, target, str(corpus), f"-seed={seed}", f"-max_total_time={round(seconds)}"]
        command += [*LIMITS, f"-artifact_prefix={left}/"]
        with open(left / "said", "wb") as said:
            running.append((target, left, subprocess.Popen(command, stdout=said, stderr=said)))
    for target, left, process in running:
        code = process.wait()
        said = (left / "said").read_text("utf-8", "replace")
        counted = re.search(r"number_of_executed_units: *(\d+)", said)
        faults = []
        if code or not counted:
            inputs = [path.read_bytes()[:400].hex() for path in left.iterdir() if path.name != "said"]
            faults = [{"case": inputs, "fault": f"{target}: exit status {code}: {said[-900:]}"}]
        yield target, int(counted[1]) if counted else 0, faults


def seeds_of(target, folders, root):
    """Inputs to begin with."""
    golden = root / "labels"
    if target == "safetensors":
        return [(folders["sentence"] / "model.safetensors").read_bytes()[:3000], _small(), _small("I8", ".scale")]
    if target == "config":
        return [
            (folder / "config.json").read_bytes() for folder in folders.values() if (folder / "config.json").exists()
        ]
    if target == "pickle":
        with zipfile.ZipFile(folders["pickled"] / "pytorch_model.bin") as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            return [archive.read(name), archive.read(name)[:300] + b"."]
    if target == "tokenizer":
        return [(golden / "tokenizer.json").read_bytes()[:4000], b'{"model": {"type": "WordPiece", "vocab": {"a": 0}}}']
    if target == "jsonl":
        return [b'{"text": "a", "id": 1}\n\n{"text": null, "id": 2}\r\n', b'\xef\xbb\xbf{"text": "\\ud800"}']
    if target == "csv":
        return [b'text,id\n"a ""b"", c\n",1\n\nd,2\n', b"\xef\xbb\xbftext\r\na\r\n"]
    from service import BODIES

    return [
        bytes([number]) + json.dumps(body).encode() for number, bodies in enumerate(BODIES.values()) for body in bodies
    ]


def _small(dtype="F32", more=None):
    header = {"a": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 16 if dtype == "F32" else 4]}}
    if more:
        header[f"a{more}"] = {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + bytes(16 if more is None else 12)


def make(target, folders, root, acts):
    """The function of bytes that a target is; anything it raises is a fault."""
    from files import accepted_or_refused

    from ufbert.checkpoint import ModelFolder, load_tokenizer
    from ufbert.checkpoint.pickled import read_pickled
    from ufbert.checkpoint.tensors import read_safetensors
    from ufbert.scale.sources import Columns, Cursor, open_source

    if target == "body":
        return _body(acts)
    names = {"safetensors": "model.safetensors", "config": "config.json", "pickle": "pytorch_model.bin"}
    folder = folders["sentence"] if target == "tokenizer" else root
    file = folder / names.get(target, "tokenizer.json" if target == "tokenizer" else f"a.{target}")

    def rows():
        source = open_source(file, Columns(("text",), "id"))
        return list(Cursor(source).read(0, source.count()))

    run = {
        "safetensors": lambda: [tensor.array() for tensor in read_safetensors(file)],
        "config": lambda: ModelFolder(folder).config(),
        "pickle": lambda: [tensor.array() for tensor in read_pickled(file)],
        "tokenizer": lambda: load_tokenizer(ModelFolder(folder), 32).backend.encode("the cat"),
        "jsonl": rows,
        "csv": rows,
    }[target]

    def one(data):
        file.write_bytes(_archive(data) if target == "pickle" else data)
        acts.seen.clear()
        with accepted_or_refused(acts, folder):
            run()
        if acts.seen:
            raise RuntimeError(f"acts: {acts.seen[:3]}")

    return one


def timed(one):
    """A target that takes no more than `HANG` seconds."""

    def run(data):
        started = time.process_time()
        one(data)
        if time.process_time() - started > HANG:
            raise RuntimeError(f"hang: over {HANG:g} s")

    return run


def _body(acts):
    from service import BODIES, Requests

    requests, paths = Requests(), list(BODIES)

    def one(data):
        path = paths[data[0] % len(paths)] if data else "/"
        acts.on = True
        status, answer = requests.loop.run_until_complete(
            requests.ask(path, data[1:], [(b"content-type", b"application/json")])
        )
        acts.on = False
        json.loads(answer)
        if status >= 500 or acts.seen:
            raise RuntimeError(f"{path}: {status}: {answer[:200]!r}: {acts.seen[:3]}")

    return one


def _archive(data):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", data)
        for name in range(3):
            archive.writestr(f"a/data/{name}", bytes(256))
    return stream.getvalue()


def main():
    """Run one target under libFuzzer."""
    import atheris

    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    target, corpus = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=["ufbert"], enable_loader_override=False):
        from folders import scratch, seeds
        from watch import Acts

        root = scratch()
        folders = seeds(root)
        if corpus.is_dir():
            for number, content in enumerate(seeds_of(target, folders, root)):
                (corpus / f"seed-{number}").write_bytes(content[:4096])
        one = timed(make(target, folders, scratch(), Acts()))
    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
