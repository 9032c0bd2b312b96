"""`convert` that is stopped, or may not write: one line, the right exit code, and the same command goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def many(photo_folder: Path) -> Path:
    """Enough images that a conversion takes seconds, by several processes."""
    for number in range(150):
        for path in sorted(photo_folder.glob("*/0??.jpg")):
            os.link(path, path.with_name(f"{number}-{path.name}"))
    return photo_folder


def started(folder: Path, cwd: Path, *before: str, **options: Any) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "sagitta", "convert", str(folder), "out", "--workers", "2"]
    environment = {**os.environ, "SAGITTA_CACHE": str(cwd / "cache")}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment, **pipes, **options)


@pytest.mark.parametrize(
    ("number", "code", "word", "times"),
    [(signal.SIGTERM, 143, "ended by SIGTERM", 1), (signal.SIGINT, 130, "interrupted", 2)],
)
def test_a_signal_to_all_processes_ends_them_with_one_line(
    many: Path, tmp_path: Path, number: signal.Signals, code: int, word: str, times: int
) -> None:
    process = started(many, tmp_path, start_new_session=True)
    while not (tmp_path / ".out.partial" / "key").exists():
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(times):
        os.killpg(process.pid, number)
        time.sleep(0.05)
    _, told = process.communicate(timeout=60)
    returned = process.returncode  # below zero where a second signal came when Python was ending
    assert (returned if returned >= 0 else 128 - returned, told) == (
        code,
        f"sagitta: {word}; what is finished is kept, and the same command goes on from there\n",
    )
    assert not (tmp_path / "out").exists()
    with started(many, tmp_path) as again:
        assert again.wait(120) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["out", "photos"]


def test_a_place_that_may_not_be_written_to_is_one_line(photo_folder: Path, tmp_path: Path) -> None:
    before = []
    if os.geteuid() == 0:  # who may write everywhere, unless that right is taken
        if shutil.which("setpriv") is None:
            pytest.skip("root, and no setpriv")
        before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o500)
    _, told = started(photo_folder, place, *before).communicate(timeout=60)
    assert told == "sagitta: out: no permission; change its rights, or name another place\n"
    assert not list(place.iterdir())
