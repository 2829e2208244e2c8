"""`ufbert embed --ray` on a cluster whose worker and node die, against one process.

    python bench/clusters.py FOLDER --corpus train.txt.xz --rows 1000000 --dtype int8

Makes Parquet files of numbered short texts in FOLDER as bench/files.py does, and starts a cluster of nodes with one CPU
each, which are processes of this machine. One process without Ray embeds all texts ("alone"), and so does the cluster
("command"): there a process that computes is killed with SIGKILL, and later a whole node, for which another one starts.
For each it prints rows, duplicates, and a digest of all ids and embeddings in the order of the ids. Digests must be
equal, and so must the bytes of all files. Stages that are finished are not run again. Needs the extra ray.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("RAY_worker_niceness", "0")  # 15 otherwise, at which a busy machine gives them nothing
import files
import numpy as np
import ray
from pyarrow import parquet
from ray.cluster_utils import Cluster

WORKER = "ray::_run_part"  # title of a process that computes
TRIES = 10  # of starting a node


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", required=True, help="one text a line; plain, .gz or .xz")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--part-rows", type=int, help="default: a 50th of the rows, and 20,000 at most")
    parser.add_argument("--longest", type=int, default=16, help="characters of a line that is taken, at most")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--model", default="all-MiniLM-L6-v2-fff-1x11")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--stages", default="alone,command")
    arguments = parser.parse_args()
    arguments.part_rows = arguments.part_rows or min(-(-arguments.rows // 50), 20_000)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    arguments.folder = arguments.folder.absolute()
    os.environ["UFBERT_NUM_THREADS"] = "1"
    inputs = files.make_inputs(arguments)
    report = arguments.folder / "report.json"
    found = json.loads(report.read_text()) if report.exists() else {}
    for stage in arguments.stages.split(","):
        if stage not in found:
            found[stage] = STAGES[stage](arguments, inputs) | contents(arguments.folder / stage, arguments.rows)
            report.write_text(json.dumps(found, indent=1) + "\n")
            print(stage, json.dumps(found[stage]), flush=True)
    first = next(iter(found.values()))["digest"]
    checks = {f"{stage}: all rows once": not (row["missing"] or row["duplicates"]) for stage, row in found.items()}
    checks |= {f"{stage}: same bits": row["digest"] == first for stage, row in found.items()}
    if {"alone", "command"} <= found.keys():
        same = files.digests(arguments.folder / "alone") == files.digests(arguments.folder / "command")
        checks["command: same files"] = same
    print(json.dumps({"ray": ray.__version__, "stages": found, "checks": checks}, indent=1))
    sys.exit(not all(checks.values()))


def contents(folder, rows):
    """Count the rows of a folder of Parquet files, and digest them in the order of their ids."""
    ids, each = [], []
    for path in sorted(folder.glob("*.parquet")):
        for batch in parquet.ParquetFile(path).iter_batches(10_000, columns=["id", "embedding"]):
            ids.append(batch["id"].to_numpy())
            values = batch["embedding"].flatten().to_numpy().reshape(batch.num_rows, -1)
            each += [hashlib.blake2b(row, digest_size=16).digest() for row in values]
    ids, each = np.concatenate(ids), np.array(each, "V16")
    order = np.argsort(ids, kind="stable")
    digest = hashlib.sha256(ids[order].astype("<i8").tobytes() + each[order].tobytes()).hexdigest()
    distinct = np.unique(ids)
    missing = rows - len(np.intersect1d(distinct, np.arange(rows)))
    return {"rows": len(ids), "duplicates": len(ids) - len(distinct), "missing": missing, "digest": digest}


def alone(arguments, inputs):
    """One process, without Ray."""
    return files.run(files.command(arguments, "alone"))


class Nodes:
    """A cluster on this machine: a head without CPUs, and nodes with one CPU each."""

    def __init__(self, count):
        self.cluster, self.nodes, self.killed = Cluster(), [], []
        self.start(num_cpus=0, include_dashboard=False)
        self.nodes += [self.start(num_cpus=1) for _ in range(count)]

    def start(self, **settings):
        """Start a node; a busy machine may need more than the 30 seconds that Ray gives it."""
        for attempt in range(TRIES):
            try:
                return self.cluster.add_node(wait=False, **settings)
            except Exception as error:  # Ray has no other for it
                if "timed out" not in str(error) or attempt == TRIES - 1:
                    raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        ray.shutdown()
        self.cluster.shutdown()

    def kill(self, title, done, total, is_over):
        """Kill a process called `title` once a quarter of `total` is done, and a node once a half is."""
        while not is_over() and len(self.killed) < 2:
            count = done()
            if not self.killed and count >= total / 4 and (running := processes(title)):
                os.kill(running[0], signal.SIGKILL)
                self.killed.append({"worker": running[0], "done": count})
            elif len(self.killed) == 1 and count >= total / 2:
                self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
                self.killed.append({"node": len(self.nodes) + 1, "done": count})
                self.nodes.append(self.start(num_cpus=1))
            time.sleep(0.05)


def processes(title):
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if line.split(None, 1)[1].startswith(title)]


def command(arguments, inputs):
    """`ufbert embed --ray`."""
    parts = sum(-(-parquet.read_metadata(path).num_rows // arguments.part_rows) for path in inputs)
    with Nodes(arguments.nodes) as nodes:
        start = time.monotonic()
        words = files.command(arguments, "command", "--ray", nodes.cluster.address)
        process = subprocess.Popen(list(map(str, words)))
        done = lambda: files.finished(arguments.folder / "command")  # noqa: E731
        nodes.kill(WORKER, done, parts, lambda: process.poll() is not None)
        if process.wait():
            sys.exit(f"{' '.join(map(str, words))}: ended with {process.returncode}")
        return {"seconds": time.monotonic() - start, "killed": killed(nodes)}


def killed(nodes):
    if len(nodes.killed) < 2:
        sys.exit(f"expected a worker and a node to be killed on the way, was over after {nodes.killed}; use more rows")
    return nodes.killed


STAGES = {"alone": alone, "command": command}

if __name__ == "__main__":
    main()
