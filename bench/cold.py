"""Seconds from starting Python to a first embedding, and to the first answer of `ufbert serve`, step by step.

    python bench/cold.py [--model NAME] [--dtypes int8,float32] [--rounds 15]
    python bench/cold.py serve [--dtypes int8]

Each row is a fresh process; rows take turns, and the first turn, which reads the files and writes bytecode, does not
count. A row's clock begins before the process does, and ends when its last line has run; CPU seconds are those of the
process. The row "libraries" is the bound: Python with what `ufbert` requires. An editable installation adds the
seconds of its finder to every row.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TEXT = "How do I run a BERT encoder on a CPU without PyTorch?"
EMBED = "import ufbert; ufbert.SentenceEncoder({model!r}, dtype={dtype!r}).encode({text!r})"
TIMES = "; import time, resource as r; u = r.getrusage(r.RUSAGE_SELF); print(time.monotonic(), u.ru_utime + u.ru_stime)"
STEPS = {
    "Python": "pass",
    "with NumPy": "import numpy",
    "libraries": "import numpy, tokenizers, safetensors",
    "import ufbert.SentenceEncoder": "from ufbert import SentenceEncoder",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("encode", "serve"), default="encode")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--dtypes", default="int8,float32")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has bytecode
    dtypes = arguments.dtypes.split(",")
    if arguments.what == "serve":
        steps = {f"first answer, {dtype}": (serve, (arguments.model, dtype)) for dtype in dtypes}
    else:
        steps = {name: (run, (code,)) for name, code in STEPS.items()}
        codes = {dtype: EMBED.format(model=arguments.model, dtype=dtype, text=TEXT) for dtype in dtypes}
        steps |= {f"first embedding, {dtype}": (run, (code,)) for dtype, code in codes.items()}
    found = {name: [] for name in steps}
    for turn in range(arguments.rounds + 1):
        for name, (measure, given) in steps.items():
            figures = measure(*given)
            if turn:
                found[name].append(figures)
    print("| step | seconds, median | least | CPU seconds |\n|---|---|---|---|")
    for name, figures in found.items():
        seconds, cpu = zip(*figures, strict=True)
        print(f"| {name} | {statistics.median(seconds):.3f} | {min(seconds):.3f} | {statistics.median(cpu):.3f} |")


def run(code: str) -> tuple[float, float]:
    """Seconds and CPU seconds of a process."""
    start = time.monotonic()
    command = [sys.executable, "-c", code + TIMES]
    with tempfile.TemporaryDirectory() as elsewhere:  # not the checkout, which Python would look into first
        ended, cpu = map(float, subprocess.run(command, cwd=elsewhere, capture_output=True, check=True).stdout.split())
    return ended - start, cpu


def serve(model: str, dtype: str) -> tuple[float, float]:
    """Seconds from the start of a service to its answer, and its CPU seconds till its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    body = json.dumps({"inputs": TEXT}).encode()
    head = f"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    options = ["--model", model, "--dtype", dtype, "--port", str(port), "--quiet"]
    before, start = os.times(), time.monotonic()
    server = subprocess.Popen([sys.executable, "-m", "ufbert", "serve", *options], stderr=subprocess.DEVNULL)
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as client:
                client.sendall(head.encode() + b"connection: close\r\n\r\n" + body)
                answer = client.makefile("rb").read()
            break
        except ConnectionRefusedError:
            if server.poll() is not None or time.monotonic() - start > 60:
                raise
            time.sleep(0.001)
    seconds = time.monotonic() - start
    server.terminate()
    server.wait(60)
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    after = os.times()
    return seconds, sum(after[2:4]) - sum(before[2:4])


if __name__ == "__main__":
    main()
