"""The campaign: faults are looked for within a time, by a seed.

    python tests/campaign/run.py --seconds 120 --seed 1
    python tests/campaign/run.py files requests --seconds 3600 --seed 7 --report tests/campaign/report.json
    python tests/campaign/run.py files --case 123456 --seed 7      # one case again, with its traceback

Parts are run one after another, and share the time. The report counts inputs and lists every fault. Two parts run only
where they are named, beside the others for all of the time: `fuzz` (see fuzz.py) and `layers`, which compiles
tests/sanitizers/layers.c.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


HOSTILE = ("files", "rows", "requests", "fuzz")
PARTS = ("files", "rows", "requests", "kernels", "calls", "processes")


def runner(name):
    """The class of a part, in the module of its name."""
    return getattr(import_module("service" if name == "requests" else name), name.capitalize())


def main():
    """Run what is asked for; exit with 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--most", type=int, default=1 << 62, help="cases of each part at most")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--case", type=int, help="run this case alone, here")
    parser.add_argument("--hang", type=float, default=5.0, metavar="SECONDS", help="of a file or a request at most")
    parser.add_argument("--share", nargs="*", default=[], metavar="PART=N", help="of the time (default: 1 each)")
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        tempfile.tempdir = folder  # also of the children, which may be killed
        return _main(arguments)


def _main(arguments):
    chosen = {name: runner(name) for name in PARTS if not arguments.parts or name in arguments.parts}
    if arguments.case is not None:
        from watch import Acts

        for part in chosen.values():
            part()(arguments.seed, arguments.case, Acts())
        return 0
    weights = dict.fromkeys(chosen, 1.0)
    weights |= {name: float(share) for name, share in (each.split("=") for each in arguments.share)}
    rows = []
    with ThreadPoolExecutor() as beside:
        alone = [
            beside.submit(_alone, name, arguments, arguments.seconds)
            for name in ("fuzz", "layers")
            if name in arguments.parts
        ]
        for name, part in chosen.items():
            rows.append(_run(name, part, arguments, arguments.seconds * weights[name] / sum(weights.values())))
            _write(arguments.report, rows)
        for each in alone:
            rows += each.result()
            _write(arguments.report, rows)
    return int(any(row["faults"] for row in rows))


def _write(report, rows):
    """Write the report; rows of other parts by the same seed, which stand there already, are kept."""
    if report is None or not rows:
        return
    parts = {row["part"] for row in rows}
    before = json.loads(report.read_text())["parts"] if report.exists() else []
    kept = [row for row in before if row["seed"] == rows[0]["seed"] and row["part"] not in parts]
    report.write_text(json.dumps(_report([*kept, *rows]), indent=1) + "\n")


def _report(rows):
    versions = {
        name: version(name) for name in ("ufbert", "numpy", "safetensors", "tokenizers", "pyarrow", "starlette")
    }
    totals = {
        "hostile inputs": sum(row["inputs"] for row in rows if row["part"].split(",")[0] in HOSTILE),
        "faults left": sum(len(row["faults"]) for row in rows),
    }
    return {"python": sys.version.split()[0], "versions": versions, **totals, "parts": rows}


def _alone(name, arguments, seconds):
    """Rows of a part that has programs of its own."""
    from fuzz import fuzz
    from layers import layers

    rows, started = [], time.monotonic()
    for kind, cases, faults in {"fuzz": fuzz, "layers": layers}[name](arguments.seed, seconds):
        took, started = time.monotonic() - started, time.monotonic()
        print(
            f"{name}, {kind}: seed {arguments.seed}, {cases:,} inputs in {took:.0f} s, {len(faults)} faults", flush=True
        )
        for fault in faults:
            print(f"  {fault['fault'][:900]}")
        rows.append({"part": f"{name}, {kind}", "seed": arguments.seed, "inputs": cases, "seconds": round(took),
                     "faults": faults})  # fmt: skip
    return rows


def _run(name, part, arguments, seconds):
    from watch import campaign

    started = time.monotonic()
    hang = getattr(part, "hang", arguments.hang)
    cases, faults = campaign(part, arguments.seed, seconds, arguments.jobs, arguments.first, arguments.most, hang)
    cases *= getattr(part, "inputs", 1)
    took = time.monotonic() - started
    kinds = Counter(fault["fault"][:60] for fault in faults)
    print(f"{name}: seed {arguments.seed}, {cases:,} inputs in {took:.0f} s, {len(faults)} faults")
    for kind, count in kinds.most_common(20):
        example = next(fault for fault in faults if fault["fault"].startswith(kind))
        print(f"  {count} x {example['fault'][:600]}\n    case {example['case']}")
    sys.stdout.flush()
    return {"part": name, "seed": arguments.seed, "inputs": cases, "seconds": round(took), "faults": faults}


if __name__ == "__main__":
    sys.exit(main())
