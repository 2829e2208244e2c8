"""The campaign: faults are looked for within a time, by a seed.

    python tests/campaign/run.py --seconds 120 --seed 1
    python tests/campaign/run.py files requests --seconds 3600 --seed 7 --report tests/campaign/report.json
    python tests/campaign/run.py files --case 123456 --seed 7      # one case again, with its traceback

Parts are run one after another, and share the time. The report counts cases and lists every fault.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


def parts():
    """Runners by name; the parts are modules of this folder."""
    from files import Files
    from kernels import Kernels
    from processes import Processes
    from rows import Rows

    def requests():
        from service import Requests

        return Requests()

    return {"files": Files, "rows": Rows, "requests": requests, "kernels": Kernels, "processes": Processes}


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
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        tempfile.tempdir = folder  # also of the children, which may be killed
        return _main(arguments)


def _main(arguments):
    chosen = {name: part for name, part in parts().items() if not arguments.parts or name in arguments.parts}
    if arguments.case is not None:
        from watch import Acts

        for part in chosen.values():
            part()(arguments.seed, arguments.case, Acts())
        return 0
    rows = [_run(name, part, arguments, arguments.seconds / len(chosen)) for name, part in chosen.items()]
    if arguments.report:
        arguments.report.write_text(json.dumps({"version": version("ufbert"), "parts": rows}, indent=1) + "\n")
    return int(any(row["faults"] for row in rows))


def _run(name, part, arguments, seconds):
    from watch import campaign

    started = time.monotonic()
    cases, faults = campaign(part, arguments.seed, seconds, arguments.jobs, arguments.first, arguments.most)
    took = time.monotonic() - started
    kinds = Counter(fault["fault"][:60] for fault in faults)
    print(f"{name}: seed {arguments.seed}, {cases:,} cases in {took:.0f} s, {len(faults)} faults")
    for kind, count in kinds.most_common(20):
        example = next(fault for fault in faults if fault["fault"].startswith(kind))
        print(f"  {count} x {example['fault'][:600]}\n    case {example['case']}")
    sys.stdout.flush()
    return {"part": name, "seed": arguments.seed, "first": arguments.first, "cases": cases, "seconds": round(took),
            "faults": faults}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
