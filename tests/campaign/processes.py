"""Processes: threads, forks, signals, kills, full disks, little memory, two writers; one scenario a case."""

import ctypes
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
from writers import Writers, check_whole

import ufbert

COMMAND = [sys.executable, "-m", "ufbert"]


class Processes:
    """Scenarios on tiny models."""

    hang = 90.0

    def __init__(self):
        self.root = scratch()
        self.folders = seeds(self.root)
        self.texts = some_texts(3_000)
        self.writers = Writers(self.root, self.folders)
        self.encoder = ufbert.SentenceEncoder(self.folders["sentence"])
        self.expected = self.encoder.encode(self.texts[:200])
        self.scenarios = [getattr(self, name) for name in sorted(vars(type(self))) if name.startswith("case_")]

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

    def case_kill(self, rng):
        """kill -9 at any moment: nothing, or all of it, or what the same command goes on with."""
        work = self.writers.choose(rng)
        for _ in range(rng.choice([1, 1, 3]) if work.resumes else 1):
            child = start(work)
            time.sleep(rng.uniform(0.1, 4.0))
            child.kill()
            child.communicate()
        left = os.path.lexists(work.target) and (work.target.is_file() or os.listdir(work.target))
        if left and not work.resumes:
            check_whole(work)
            remove(work.target)
        if not (left and (work.target / "config.json").exists()):  # a student that was complete
            done = start(work)
            _, said = done.communicate()
            check(done.returncode == 0, f"{work.command[0]} after a kill: {said[-300:]}")
        check_whole(work)
        self.remove_all(work.target)

    def case_signal(self, rng):
        """SIGINT or SIGTERM: exit code 1, no traceback, nothing half-written."""
        work = self.writers.choose(rng)
        child = start(work)
        time.sleep(rng.uniform(0.5, 2.0))
        child.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM]))
        _, said = child.communicate()
        is_quiet = "Traceback" not in said or child.returncode < 0 or "KeyboardInterrupt" in said[-200:]
        check(is_quiet, f"{work.command[0]}: {said[-400:]}")
        if child.returncode == 0:
            check_whole(work)
        self.remove_all(work.target)

    def case_two_writers(self, rng):
        """Two commands with one target: one may be told so, and the target is whole."""
        work = self.writers.choose(rng)
        children = [start(work) for _ in range(2)]
        said = [child.communicate()[1] for child in children]
        codes = sorted(child.returncode for child in children)
        check(codes[0] == 0 and codes[1] in (0, 1), f"{work.command[0]}: exit codes {codes}: {said}")
        check(not any("Traceback" in text for text in said), f"{work.command[0]}: {said}")
        check_whole(work)
        self.remove_all(work.target)

    def case_full_disk(self, rng):
        """A disk that is full after some bytes: one line, exit code 1, what was there stays."""
        limit = rng.choice([0, 1, 100, 4_096, 60_000])
        self.with_limit(rng, resource.RLIMIT_FSIZE, limit, lambda code: code in (0, 1))

    def case_little_memory(self, rng):
        """Less memory than it takes: it works, or one error; never a crash."""
        self.with_limit(rng, resource.RLIMIT_AS, rng.randint(120, 700) * 2**20, lambda code: code >= 0)

    def with_limit(self, rng, kind, limit, allowed):
        """Run a command under a limit of the system."""
        work = self.writers.choose(rng)
        child = start(work, lambda: resource.setrlimit(kind, (limit, limit)))
        _, said = child.communicate()
        about = f"{work.command[0]} with {limit} bytes"
        check(allowed(child.returncode), f"{about}: exit code {child.returncode}: {said[-300:]}")
        check(kind == resource.RLIMIT_AS or "Traceback" not in said, f"{about}: {said[-400:]}")
        if child.returncode == 0:
            check_whole(work)
        self.remove_all(work.target)

    def case_read_only(self, rng):
        """A folder that may not be written: one line, exit code 1."""
        work = self.writers.choose(rng)
        place = self.root / "read-only"
        place.mkdir(exist_ok=True)
        place.chmod(0o555)
        moved = [part.replace(str(work.target), str(place / work.target.name)) for part in work.command]
        child = start(work._replace(command=moved), _obey_permissions)
        _, said = child.communicate()
        check(child.returncode == 1 and "Traceback" not in said, f"{moved[0]}: {child.returncode}: {said[-400:]}")

    def case_sub_interpreter(self, rng):
        """A sub-interpreter is refused with a sentence, and the process goes on."""
        code = "import _xxsubinterpreters as i; f = i.run_string(i.create(), 'import ufbert'); print(f)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        check("found a sub-interpreter" in done.stdout + done.stderr and done.returncode >= 0, done.stderr[-300:])

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


def start(work, before=None):
    """A command of ufbert in a process of its own."""
    return subprocess.Popen(
        [*COMMAND, *work.command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        text=True, preexec_fn=before, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | work.environment,
    )  # fmt: skip


def check(holds, message):
    """Raise a fault unless something holds."""
    if not holds:
        raise Fault(message)


def remove(path):
    """Remove a file or a folder."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
