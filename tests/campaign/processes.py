"""Processes: threads, forks, signals, kills, full disks, little memory, two writers; one scenario a case."""

import ctypes
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
from conftest import some_texts
from folders import scratch, seeds
from mutate import generator
from watch import Fault

import ufbert

COMMAND = [sys.executable, "-m", "ufbert"]


class Processes:
    """Scenarios on tiny models."""

    hang = 90.0

    def __init__(self):
        self.root = scratch()
        self.folders = seeds(self.root)
        self.texts = some_texts(3_000)
        (self.root / "texts.txt").write_text("\n".join(self.texts) + "\n")
        self.encoder = ufbert.SentenceEncoder(self.folders["sentence"])
        self.expected = self.encoder.encode(self.texts[:200])
        self.scenarios = [getattr(self, name) for name in sorted(vars(type(self))) if name.startswith("case_")]
        self.whole = {}

    def __call__(self, seed, number, acts):
        rng = generator(seed, number)
        self.scenarios[number % len(self.scenarios)](rng)

    # one model, many users

    def case_threads(self, rng):
        """32 threads on one model: each gets its own bits."""
        wrong = []

        def user(seed):
            draw = np.random.default_rng(seed)
            for _ in range(20):
                chosen = draw.integers(0, 200, draw.integers(1, 20))
                found = self.encoder.encode(
                    [self.texts[index] for index in chosen], batch_size=int(draw.integers(1, 9))
                )
                if not np.array_equal(found, self.expected[chosen]):
                    wrong.append(chosen)

        members = [threading.Thread(target=user, args=(rng.randrange(2**32),)) for _ in range(32)]
        for member in members:
            member.start()
        for member in members:
            member.join()
        check(not wrong, f"{len(wrong)} calls with other bits")

    def case_children(self, rng):
        """A child of each kind computes what its parent does."""
        context = multiprocessing.get_context(rng.choice(["fork", "spawn", "forkserver"]))
        with context.Pool(1) as pool:
            found = pool.apply(_encode, (self.encoder, self.texts[:50]))
        check(np.array_equal(found, self.expected[:50]), "other bits in a child")

    # commands that write

    def writers(self, rng):
        """A command that writes, with what it writes and how to tell that it is whole."""
        target = self.root / f"out-{rng.randrange(2**32)}"
        texts, sentence = str(self.root / "texts.txt"), str(self.folders["sentence"])
        commands = {
            "npy": ["embed", "--model", sentence, "--input", texts, "--output", f"{target}.npy"],
            "jsonl": [
                "classify",
                "--model",
                str(self.folders["labels"]),
                "--input",
                texts,
                "--output",
                f"{target}.jsonl",
            ],
            "convert": ["convert", sentence, str(target), "--dtype", rng.choice(["float16", "int8"])],
            "prune": ["prune", str(self.folders["trees"]), "--corpus", texts, "--out", str(target)],
            "routes": ["routes", str(self.folders["trees"]), "--corpus", texts, "--out", str(target)],
        }
        name = rng.choice(list(commands))
        return name, commands[name], target.with_suffix({"npy": ".npy", "jsonl": ".jsonl"}.get(name, ""))

    def is_whole(self, name, target):
        """Raise a fault unless the target is what an uninterrupted run writes."""
        if name == "npy":
            check(np.load(target).shape == (3_000, 12), f"{target}: not whole")
        elif name == "jsonl":
            check(len([json.loads(line) for line in target.read_text().splitlines()]) == 3_000, f"{target}: not whole")
        elif name == "routes":
            check("layers" in json.loads((target / "routes.json").read_text()), f"{target}: not whole")
        else:
            ufbert.load(target)(np.array([[2, 5, 3]]))

    def case_kill(self, rng):
        """kill -9 at any moment: nothing, or all of it; and the same command then writes it."""
        name, command, target = self.writers(rng)
        child = start(command)
        time.sleep(rng.uniform(0.1, 2.5))
        child.kill()
        child.communicate()
        if os.path.lexists(target) and (target.is_file() or os.listdir(target)):
            self.is_whole(name, target)
            remove(target)
        done = start(command)
        _, said = done.communicate()
        check(done.returncode == 0, f"{name} after a kill: {said[-300:]}")
        self.is_whole(name, target)
        self.remove_all(target)

    def case_signal(self, rng):
        """SIGINT or SIGTERM: exit code 1, no traceback, nothing half-written."""
        name, command, target = self.writers(rng)
        child = start(command)
        time.sleep(rng.uniform(0.5, 2.0))
        child.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM]))
        _, said = child.communicate()
        check(
            "Traceback" not in said or child.returncode < 0 or "KeyboardInterrupt" in said[-200:],
            f"{name}: {said[-400:]}",
        )
        if child.returncode == 0 or (target.is_dir() and os.listdir(target)):
            self.is_whole(name, target)
        self.remove_all(target)

    def case_two_writers(self, rng):
        """Two commands with one target: one may be told so, and the target is whole."""
        name, command, target = self.writers(rng)
        children = [start(command) for _ in range(2)]
        said = [child.communicate()[1] for child in children]
        codes = sorted(child.returncode for child in children)
        check(codes[0] == 0 and codes[1] in (0, 1), f"{name}: exit codes {codes}: {said}")
        check(not any("Traceback" in text for text in said), f"{name}: {said}")
        self.is_whole(name, target)
        self.remove_all(target)

    def case_full_disk(self, rng):
        """A disk that is full after some bytes: one line, exit code 1, what was there stays."""
        name, command, target = self.writers(rng)
        limit = rng.choice([0, 1, 100, 4_096, 60_000])
        child = start(command, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        _, said = child.communicate()
        check("Traceback" not in said, f"{name} with {limit} bytes: {said[-400:]}")
        check(child.returncode in (0, 1), f"{name} with {limit} bytes: exit code {child.returncode}: {said[-300:]}")
        if child.returncode == 0:
            self.is_whole(name, target)
        self.remove_all(target)

    def case_read_only(self, rng):
        """A folder that may not be written: one line, exit code 1."""
        name, command, target = self.writers(rng)
        place = self.root / "read-only"
        place.mkdir(exist_ok=True)
        place.chmod(0o555)
        command = [part.replace(str(target.parent), str(place)) if str(target) in part else part for part in command]
        child = start(command, _obey_permissions)
        _, said = child.communicate()
        check(child.returncode == 1 and "Traceback" not in said, f"{name}: {child.returncode}: {said[-400:]}")

    def case_little_memory(self, rng):
        """Less memory than it takes: it works, or one error; never a crash."""
        name, command, target = self.writers(rng)
        limit = rng.randint(120, 700) * 2**20
        child = start(command, lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        _, said = child.communicate()
        check(child.returncode >= 0, f"{name} with {limit >> 20} MiB: signal {-child.returncode}: {said[-300:]}")
        if child.returncode == 0:
            self.is_whole(name, target)
        self.remove_all(target)

    def case_clock(self, rng):
        """Times that jump: results and files do not depend on the clock."""
        before = time.time
        try:
            time.time = lambda: before() + rng.choice([-1e9, 1e9, -3_600])
            check(np.array_equal(self.encoder.encode(self.texts[:5]), self.expected[:5]), "other bits at another time")
            target = ufbert.convert(self.folders["sentence"], self.root / f"clock-{rng.randrange(2**32)}", "float16")
            ufbert.load(target)
            shutil.rmtree(target)
        finally:
            time.time = before

    def remove_all(self, target):
        """Remove a target and what a kill may have left beside it."""
        for path in target.parent.glob(f"*{target.stem}*"):
            remove(path)


def _encode(encoder, texts):
    return encoder.encode(texts)


def _obey_permissions():
    """Let root of the child be bound by permissions of files (Linux: drop CAP_DAC_OVERRIDE)."""
    ctypes.CDLL(None).prctl(24, 1)


def start(command, before=None):
    """A command of ufbert in a process of its own."""
    return subprocess.Popen(
        [*COMMAND, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        preexec_fn=before, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def check(holds, message):
    """Raise a fault unless something holds."""
    if not holds:
        raise Fault(message)


def remove(path):
    """Remove a file or a folder."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
