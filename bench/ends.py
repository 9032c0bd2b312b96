"""Stop conversions in every way at random moments, go on, and compare with one that was left alone.

    python bench/ends.py                        # some 120 trials: about a quarter of an hour
    python bench/ends.py --trials 5 kill worker # so many of some faults

After a fault: OUT is not there or whole, the exit code is the fault's, at most one line was said. The same command then
ends with the same bytes, and nothing else lies beside OUT. A disk that is full is a tmpfs where this process may mount
one, else a limit on the size of files.
"""

import argparse
import contextlib
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, SIDE = 90, 500  # 67 MB: enough for several processes
DEFAULTS = {"kill": 60}
OTHERS = 10
Process = subprocess.Popen[str]
RNG = np.random.default_rng(0)


def start(folder: Path, limit: int | None = None) -> Process:
    """Begin the conversion of ``folder/source`` to ``folder/place/out``."""
    command = [sys.executable, "-m", "sagitta", "convert", str(folder / "source"), str(folder / "place" / "out")]
    command += ["--shard-size", "5M", "--workers", "2"]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit or resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "SAGITTA_CACHE": str(folder / "cache")}, preexec_fn=limited if limit else None,
    )  # fmt: skip


def digest(out: Path) -> str:
    """Return a digest of a dataset's names and bytes; empty where there is none."""
    if not out.exists():
        return ""
    whole = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        whole.update(str(path.relative_to(out)).encode() + path.read_bytes())
    return whole.hexdigest()


def to_group(number: signal.Signals, times: int = 1) -> Callable[[Path, Process], None]:
    """Return what sends a signal to a conversion and its workers."""

    def send(_folder: Path, process: Process) -> None:
        for _ in range(times):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            time.sleep(0.02)

    return send


def kill_worker(_folder: Path, process: Process) -> None:
    """Kill one worker, as a system that lacks memory does."""
    workers = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (path / "cmdline").read_bytes():
                workers.append(int(path.name))
    with contextlib.suppress(ProcessLookupError):
        if workers:
            os.kill(int(RNG.choice(workers)), signal.SIGKILL)


def unplug(folder: Path, process: Process) -> None:
    """Take the source away until the conversion has ended."""
    (folder / "source").rename(folder / "away")
    process.wait()
    (folder / "away").rename(folder / "source")


def rewrite(folder: Path, process: Process) -> None:
    """Exchange an image until the conversion has ended."""
    path = sorted((folder / "source").rglob("*.png"))[int(RNG.integers(IMAGES))]
    former, when = path.read_bytes(), path.stat()
    path.write_bytes(sorted((folder / "source").rglob("*.png"))[0].read_bytes()[:-5000])
    process.wait()
    path.write_bytes(former)
    os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))


def nothing(_folder: Path, _process: Process) -> None:
    """Do nothing: the disk is full."""


FAULTS: dict[str, tuple[Callable[[Path, Process], None], tuple[int, ...]]] = {
    "kill": (to_group(signal.SIGKILL), (-9,)),
    "worker": (kill_worker, (2,)),
    "terminate": (to_group(signal.SIGTERM), (143, -15)),  # below zero: before, or after, Python heeds signals
    "interrupt": (to_group(signal.SIGINT), (130, -2, 1)),
    "interrupt twice": (to_group(signal.SIGINT, 2), (130, -2, 1)),
    "full": (nothing, (2,)),
    "unplug": (unplug, (2,)),
    "rewrite": (rewrite, (2,)),
}


def trial(folder: Path, fault: str, seconds: float, wanted: str) -> list[str]:
    """Stop a conversion, look at what is left, go on; returns what is wrong."""
    act, codes = FAULTS[fault]
    place, size = folder / "place", 0
    place.mkdir()
    mounted = False
    if fault == "full":
        size = int(RNG.uniform(1, 60)) * 2**20
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
        size = int(RNG.uniform(0.1, 4) * 2**20)
    wrong = []
    try:
        process = start(folder, size if fault == "full" and not mounted else None)
        if fault != "full":
            time.sleep(RNG.uniform(0.2, 1) * seconds)
        act(folder, process)
        told = process.communicate(timeout=120)[1]
        late = process.returncode == 0  # it had ended before
        began = "Traceback" in told and not (place / ".out.partial").exists()  # Ctrl-C while Python imports
        if process.returncode not in codes and not late:
            wrong.append(f"exit code {process.returncode}")
        if (told.count("\n") > 1 or "Traceback" in told) and not began and not late:
            wrong.append(f"said: {told}")
        if (found := digest(place / "out")) not in ("", wanted) and fault != "rewrite":
            wrong.append("OUT is there and not whole")
        if found and fault == "rewrite":
            shutil.rmtree(place / "out")
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=200m", str(place)], check=True)
        if not (place / "out").exists() and start(folder).wait(120):
            wrong.append("it does not go on")
        if digest(place / "out") != wanted:
            wrong.append("other bytes")
        if start(folder).wait(120) != 2:
            wrong.append("it was converted twice")
        if sorted(path.name for path in place.iterdir()) != ["out"]:
            wrong.append(f"left: {sorted(path.name for path in place.iterdir())}")
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
    shutil.rmtree(place)
    return wrong


def main() -> int:
    """Print a table; returns 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--trials", type=int, help=f"of each fault ({OTHERS}; 60 kills)")
    a = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ends-"))
    for number in range(IMAGES):
        path = folder / "source" / "ab"[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path, compress_level=0)
    began = time.monotonic()
    (folder / "place").mkdir()
    if start(folder).wait():
        raise SystemExit("it does not convert")
    seconds, wanted = time.monotonic() - began, digest(folder / "place" / "out")
    shutil.rmtree(folder / "place")
    failed = 0
    for fault in a.faults or FAULTS:
        count = a.trials or DEFAULTS.get(fault, OTHERS)
        wrong = [found for _ in range(count) if (found := trial(folder, fault, seconds, wanted))]
        print(f"{fault}: {count} trials, {len(wrong)} wrong {wrong[:3] or ''}", flush=True)
        failed += len(wrong)
    shutil.rmtree(folder)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
