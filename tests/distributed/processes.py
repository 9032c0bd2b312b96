"""Real runs of several processes: begun, watched, asked to end or killed, and whoever is left of them."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAGITTA = (sys.executable, "-m", "sagitta")
TWO = ("--devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp")


@dataclass
class Begun:
    """A command that was begun, whose processes all carry its mark.

    Attributes:
        process: the one that was begun.
        mark: in the environment of all.
        said: what they print, both streams.
    """

    process: "subprocess.Popen[bytes]"
    mark: str
    said: Path

    def members(self) -> dict[int, int]:
        """Return the processes that are alive: pid to ``LOCAL_RANK``, -1 where there is none."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    words = (folder / "environ").read_bytes().split(b"\0")
                    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                if f"MARK={self.mark}".encode() in words and state != "Z":
                    ranks = [int(word[11:]) for word in words if word.startswith(b"LOCAL_RANK=")]
                    found[int(folder.name)] = ranks[0] if ranks else -1
        return found

    def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Wait for a condition; fails with what was said where it does not come true."""
        last = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < last, f"waited {seconds:.0f} s; {self.text()}"
            time.sleep(0.05)

    def says(self, words: str) -> None:
        """Wait until it has said some words, while it runs."""
        self.until(lambda: words in self.text() or self.process.poll() is not None)
        assert words in self.text() and self.process.poll() is None, self.text()

    def text(self) -> str:
        return self.said.read_text()

    def ended(self, seconds: float) -> tuple[int, list[str]]:
        """Return the exit code and the lines of Sagitta's errors; within ``seconds`` no process is left."""
        last = time.monotonic() + seconds
        self.until(lambda: self.process.poll() is not None, seconds)
        self.until(lambda: not self.members(), max(0.5, last - time.monotonic()))
        return self.process.returncode, [line for line in self.text().splitlines() if line.startswith("sagitta: ")]

    def end(self) -> None:
        """Kill whatever is left."""
        for pid in self.members():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def begin(command: Sequence[object], cwd: Path, cache: Path, variables: Mapping[str, str] | None = None) -> Begun:
    """Begin a command in a folder."""
    mark, said = uuid.uuid4().hex, cwd / f"said-{uuid.uuid4().hex[:8]}.txt"
    environment = {**os.environ, "SAGITTA_CACHE": str(cache), "MARK": mark, "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        environment.pop(name, None)
    with said.open("wb") as file:
        process = subprocess.Popen(
            list(map(str, command)), cwd=cwd, env=environment | dict(variables or {}), stdout=file, stderr=file
        )
    return Begun(process, mark, said)
