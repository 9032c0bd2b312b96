"""What a loader costs: processor time and memory of all its processes, from /proc; and the loader's own process.

A loader runs in a process that leads a session of its own, so that whatever it starts, workers and their helpers, is
found by the session's number. Imports nothing but the standard library: it also runs inside of the peers' environments.
"""

import json
import os
import platform
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS, _IDLE_SECONDS = 0.05, 0.3
_PARTS = ("Pss", "Pss_Anon", "Pss_File", "Pss_Shmem")


class LoaderError(Exception):
    """A loader's process ended, or reported an error."""


def processes(session: int) -> list[int]:
    """Return the ids of a session's processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))) and int(fields[3]) == session:
            found.append(int(folder.name))
    return found


def cpu_seconds(session: int) -> float:
    """Return user and system time of a session's processes, those that ended and were waited for included."""
    stats = filter(None, map(_stat, processes(session)))
    return sum(int(field) for fields in stats for field in fields[11:15]) / _TICKS


def busy_seconds() -> float:
    """Return the time that all cores have computed for anybody."""
    user, nice, system, _idle, _waiting, irq, softirq = Path("/proc/stat").read_text().split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) / _TICKS


def wait_until_idle(share: float, limit: float) -> None:
    """Wait until this machine's cores are busy for no more than ``share`` of the time; ``limit`` seconds at most."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = busy_seconds()
        time.sleep(_IDLE_SECONDS)
        if busy_seconds() - before <= share * _IDLE_SECONDS * len(os.sched_getaffinity(0)):
            return


def memory(session: int) -> dict[str, int]:
    """Return the session's proportional set size in bytes, in all and by kind: shared pages are divided by users."""
    total = dict.fromkeys(_PARTS, 0)
    for process in processes(session):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # ended in between
            continue
        for name, value in (line.split(":") for line in lines):
            if name in total:
                total[name] += int(value.split()[0]) * 1024
    return total


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


class Server:
    """A process that answers requests, one JSON line each, on its standard input and output.

    Args:
        command: starts ``serve.py`` in the loader's environment.
        log: gets the process's standard error.

    Raises:
        LoaderError: from any method: the process ended, or says why it cannot do what is asked.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"},
            )

    def ask(self, request: str) -> dict[str, Any]:
        """Return the answer to a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # then there is no answer either
        line = self._process.stdout.readline()
        if not line:
            tail = " | ".join(self._log.read_text().strip().splitlines()[-3:])
            raise LoaderError(f"ended: {tail[-400:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LoaderError(answer["error"])
        return answer

    def ask_watched(self, request: str) -> tuple[dict[str, Any], dict[str, int]]:
        """Return the answer, and the largest memory seen meanwhile."""
        peak = dict.fromkeys(_PARTS, 0)
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_SAMPLE_SECONDS):
                now = memory(self._process.pid)
                if now["Pss"] > peak["Pss"]:
                    peak.update(now)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            return self.ask(request), peak
        finally:
            done.set()
            watcher.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process and all that it started."""
        for process in processes(self._process.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.communicate()


def _stat(process: int) -> list[str] | None:
    """Return the fields of /proc/ID/stat after the command's name, from the state on."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
