"""`ufbert embed` over files: kill it at random moments, share it out, and weigh it against `encode`.

    python bench/files.py FOLDER --corpus train.txt.xz --rows 2000000 --kills 10

Makes Parquet files of numbered short texts in FOLDER, and embeds them three times: killed with SIGKILL at random
moments and begun again with the same command; without interruption; as two shards in two processes at once. All three
must leave the same bytes, file by file. Then the same texts go through `SentenceEncoder.encode` in one process: the
difference in CPU seconds is what reading and writing files costs. Peak memory is the largest resident set of any run.
Stages that are finished are not run again. Use seconds only of a machine that has nothing else to do.
"""

import argparse
import contextlib
import gzip
import hashlib
import itertools
import json
import lzma
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

ENCODE = """
import sys
from pyarrow import parquet
from ufbert import SentenceEncoder
encoder = SentenceEncoder(sys.argv[1], dtype=sys.argv[2])
for file in sys.argv[3:]:
    encoder.encode(parquet.read_table(file, columns=["text"])["text"].to_pylist(), batch_size=1024)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", required=True, help="one text a line; plain, .gz or .xz")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--part-rows", type=int, default=20_000)
    parser.add_argument("--longest", type=int, default=16, help="characters of a line that is taken, at most")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="all-MiniLM-L6-v2-fff-1x11")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default="killed,shards,whole,encode")
    arguments = parser.parse_args()
    os.environ.setdefault("UFBERT_NUM_THREADS", "1")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    inputs = make_inputs(arguments)
    report = arguments.folder / "report.json"
    found = json.loads(report.read_text()) if report.exists() else {}
    for stage in arguments.stages.split(","):
        if stage not in found:
            found[stage] = STAGES[stage](arguments, inputs)
            report.write_text(json.dumps(found, indent=1) + "\n")
    outputs = {stage: digests(arguments.folder / stage) for stage in found if stage != "encode"}
    first = next(iter(outputs.values()))
    found["same bytes"] = {stage: other == first for stage, other in outputs.items()}
    if {"whole", "encode"} <= found.keys():
        found["overhead"] = found["whole"]["cpu"] / found["encode"]["cpu"] - 1
    print(json.dumps(found, indent=1))
    sys.exit(not all(found["same bytes"].values()))


def make_inputs(arguments):
    """Parquet files with the columns id and text."""
    paths = [arguments.folder / f"input-{number}.parquet" for number in range(arguments.files)]
    if all(path.exists() for path in paths):
        return paths
    kind = {".xz": lzma, ".gz": gzip}.get(Path(arguments.corpus).suffix)
    with (kind.open if kind else open)(arguments.corpus, "rt") as stream:
        lines = [line.strip() for line in itertools.islice(stream, 1_000_000) if len(line) <= arguments.longest]
    each = -(-arguments.rows // arguments.files)
    for number, path in enumerate(paths):
        ids = range(number * each, min((number + 1) * each, arguments.rows))
        texts = [f"{lines[i % len(lines)]} {i // len(lines)}" for i in ids]
        parquet.write_table(pa.table({"id": list(ids), "text": texts}), path, row_group_size=250_000)
    return paths


def command(arguments, name, *more):
    pattern = arguments.folder / "input-*.parquet"
    return [
        sys.executable, "-m", "ufbert", "embed", "--input", pattern, "--column", "text", "--id", "id",
        "--output", arguments.folder / name, "--part-rows", str(arguments.part_rows), "--model", arguments.model,
        "--dtype", arguments.dtype, "--resume", *more,
    ]  # fmt: skip


def run(*commands):
    """Run commands at once; seconds, CPU seconds and the largest peak of memory."""
    start = time.monotonic()
    processes = [launch(words) for words in commands]
    return summary(start, [ended(process) for process in processes])


def launch(words):
    """Start a command, whose `peak_kb` is kept from now on."""
    process = subprocess.Popen(list(map(str, words)))
    process.peak_kb = 0
    threading.Thread(target=watch, args=(process,), daemon=True).start()
    return process


def watch(process):
    """Read the high-water mark of a process till it ends; `ru_maxrss` has ours too, from before the program began."""
    place = Path(f"/proc/{process.pid}/status")
    with contextlib.suppress(OSError):
        while found := re.search(r"VmHWM:\s*(\d+)", place.read_text()):
            process.peak_kb = int(found[1])
            time.sleep(0.01)


def ended(process):
    """Wait for a command; how it ended, what it used, and its peak of memory."""
    _, status, usage = os.wait4(process.pid, 0)
    return status, usage, process.peak_kb


def summary(start, all_ended, **more):
    codes = [os.waitstatus_to_exitcode(status) for status, _, _ in all_ended]
    assert set(codes) <= {0, -signal.SIGKILL}, codes
    return {
        "seconds": time.monotonic() - start,
        "cpu": sum(usage.ru_utime + usage.ru_stime for _, usage, _ in all_ended),
        "peak_mb": max(peak for _, _, peak in all_ended) / 1024,
        **more,
    }


def killed(arguments, inputs):
    """Kill the run after random numbers of finished parts and a random part of the time that one takes."""
    chance = random.Random(arguments.seed)
    parts = sum(-(-parquet.read_metadata(path).num_rows // arguments.part_rows) for path in inputs)
    moments = sorted(chance.uniform(0, parts) for _ in range(arguments.kills))
    start, all_ended, kills = time.monotonic(), [], []
    for moment in [*moments, None]:
        process = launch(command(arguments, "killed"))
        if moment is not None:
            kill_at(arguments.folder / "killed", process, moment)
            kills.append({"parts": moment, "after": time.monotonic() - start})
        all_ended.append(ended(process))
    return summary(start, all_ended, kills=kills)


def kill_at(folder, process, moment):
    """Wait until `moment` parts are finished, a fraction being a share of the time of the next one."""
    seen = time.monotonic()
    each, done = 1.0, finished(folder)
    while process.poll() is None:
        now, count = time.monotonic(), finished(folder)
        if count > done:
            each, seen, done = (now - seen) / (count - done), now, count
        if count > int(moment) or (count == int(moment) and now - seen >= (moment % 1) * each):
            process.kill()
            return
        time.sleep(0.02)


def finished(folder):
    records = folder / "_parts"
    return len([name for name in os.listdir(records) if not name.startswith(".")]) if records.exists() else 0


def digests(folder):
    """The digest of every file in a folder, by its name below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


STAGES = {
    "killed": killed,
    "whole": lambda arguments, _: run(command(arguments, "whole")),
    "shards": lambda arguments, _: run(*(command(arguments, "shards", "--shard", f"{i}/2") for i in (1, 2))),
    "encode": lambda arguments, inputs: run([sys.executable, "-c", ENCODE, arguments.model, arguments.dtype, *inputs]),
}

if __name__ == "__main__":
    main()
