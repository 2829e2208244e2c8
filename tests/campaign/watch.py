"""Runs cases in child processes, and takes note of crashes, hangs, memory, noise and forbidden acts.

A child writes the number of its case to shared memory before it begins. When it dies, or does not get on for
some seconds, the parent knows which case it was, notes it, and starts another child behind it.
"""

import ctypes
import faulthandler
import json
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

MEMORY = 256 * 2**20  # bytes that one case may add to the peak
LIMIT = 3 * 2**30  # bytes of address space beyond what the child begins with
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.kill", "subprocess.Popen", "socket.connect",
    "pickle.find_class", "os.remove", "os.rename", "shutil.rmtree", "ctypes.dlopen", "code.__new__",
)  # fmt: skip
STATE = struct.Struct("<qqd")  # case, cases done, when it began


class Fault(Exception):
    """What a case did and must not do."""


class Acts:
    """Audit events of the case that runs; a hook cannot be taken away, so it is switched on and off."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event.startswith(FORBIDDEN) or writes:
            self.seen.append(f"{event} {arguments!r:.200}")


def child(make_runner, seed, first, step, last, shared, noise):
    """Run the cases first, first + step, ... of `make_runner`; `shared` has where it is."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its parent
    for name in (1, 2):
        os.dup2(noise.fileno(), name)
    faulthandler.enable(noise)
    run = make_runner()
    acts = Acts()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT, size + LIMIT))
    done = 0
    for number in range(first, last, step):
        STATE.pack_into(shared, 0, number, done, time.monotonic())
        before, written = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, os.fstat(noise.fileno()).st_size
        acts.seen.clear()
        try:
            run(seed, number, acts)
            problem = None
        except Fault as error:
            problem = str(error)
        except BaseException as error:  # a panic, MemoryError, anything: it must have been an UfbertError
            problem = f"{type(error).__module__}.{type(error).__name__}: {error!s:.300}"
        acts.on = False
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > MEMORY:
            problem = f"memory: the peak grew by {grown // 2**20} MiB; {problem}"
        if os.fstat(noise.fileno()).st_size != written:
            problem = f"noise: {os.pread(noise.fileno(), 300, written)!r}; {problem}"
        if acts.seen:
            problem = f"acts: {acts.seen[:3]}; {problem}"
        if problem:
            os.write(shared.faults, (json.dumps({"case": number, "fault": problem}) + "\n").encode())
        done += 1
    STATE.pack_into(shared, 0, last, done, 0.0)


class Shared(mmap.mmap):
    """Shared memory of one child, with the file of the faults."""


def campaign(make_runner, seed, seconds, jobs=2, first=0, most=1 << 62, hang=5.0):
    """Run cases for some seconds; a case that takes more than `hang` seconds is a fault.

    Returns
    -------
    cases : int
    faults : list of dict
        Each with ``case`` and ``fault``.
    """
    with tempfile.TemporaryFile() as faults, tempfile.TemporaryFile() as noise:
        settings = make_runner, seed, jobs, first + most, hang
        members = [_Member(settings, first + job, faults, noise) for job in range(jobs)]
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(member.look() for member in members):
            time.sleep(0.05)
        cases = sum(member.stop() for member in members)
        faults.seek(0)
        return cases, [json.loads(line) for line in faults.read().splitlines()]


class _Member:
    def __init__(self, settings, first, faults, noise):
        self.settings = settings
        self.faults, self.noise, self.before = faults, noise, 0
        self.looked, self.waited, self.seen = time.monotonic(), 0.0, -1
        self._start(first)

    def _start(self, first):
        make_runner, seed, step, last, _ = self.settings
        self.shared = Shared(-1, STATE.size)
        self.shared.faults = self.faults.fileno()
        STATE.pack_into(self.shared, 0, first, 0, time.monotonic() + 60)  # the models are made first
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                child(make_runner, seed, first, step, last, self.shared, self.noise)
                code = 0
            finally:
                os._exit(code)

    def look(self):
        """Whether there is more to come; a dead or a stuck child is noted and replaced."""
        if self.pid is None:
            return False
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        case, done, began = STATE.unpack_from(self.shared)
        if ended and os.waitstatus_to_exitcode(status) == 0:
            self.before, self.pid = self.before + done, None
            return False
        if ended:
            self._note(case, f"crash: exit status {os.waitstatus_to_exitcode(status)}")
        elif self._wait(case, began) > (hang := self.settings[4]):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._note(case, f"hang: over {hang:g} s")
        else:
            return True
        self.before += done + 1
        self._start(case + self.settings[2])
        return True

    def _wait(self, case, began):
        """Seconds that a case has taken; time in which this process was stopped too does not count."""
        now = time.monotonic()
        passed, self.looked = min(now - self.looked, 0.5), now
        self.waited = self.waited + passed if case == self.seen and now > began else 0.0
        self.seen = case
        return self.waited

    def _note(self, case, fault):
        os.write(self.faults.fileno(), (json.dumps({"case": case, "fault": fault}) + "\n").encode())

    def stop(self):
        """End the child; return the number of cases."""
        if self.pid is None:
            return self.before
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return self.before + STATE.unpack_from(self.shared)[1]
