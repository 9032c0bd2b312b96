"""Some mutants of bench/fuzz.py, of which 100,000 are for a quiet hour."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sagitta.errors import SourceError
from tests.test_docs import ROOT, script

FUZZ = ROOT / "bench" / "fuzz.py"


@pytest.mark.parametrize(
    ("target", "count"),
    [("images", 1600), ("convert", 15), ("archives", 40), ("tables", 80), ("arrays", 80), ("shards", 80)],
)
def test_mutants_are_read_or_refused(target: str, count: int, tmp_path: Path) -> None:
    command = [sys.executable, str(FUZZ), target, "--count", str(count), "--seed", "13", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{target}: {count} mutants" in done.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, "read"),
        (SourceError("x.tar: damaged; get it again"), "refused"),
        (SourceError("two\nlines"), "traceback"),
        (KeyError("x"), "traceback"),
        (MemoryError(), "memory"),
    ],
)
def test_verdicts(error: Exception | None, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz = script(FUZZ)

    def target(_rng: Any, _folder: Path) -> Iterator[bytes]:
        yield b"mutant"
        if error:
            raise error

    monkeypatch.setitem(fuzz.TARGETS, "images", target)
    assert fuzz.attempt("images", 0, 7, tmp_path).split()[0] == verdict
    kept = [path.read_bytes() for path in tmp_path.iterdir()]
    assert kept == ([] if verdict in fuzz.GOOD else [b"mutant"])


def test_a_crash_and_a_hang_are_told_with_their_mutant_and_the_next_one_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz = script(FUZZ)
    (tmp_path / "child.py").write_text(
        "import os, sys, time\n"
        "first = int(sys.argv[sys.argv.index('--first') + 1])\n"
        "for number in range(first, 5):\n"
        "    print(number, 'begins', flush=True)\n"
        "    if number == 1: os.abort()\n"
        "    if number == 3: time.sleep(60)\n"
        "    print(number, 'read', flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(tmp_path / "child.py"))
    monkeypatch.setattr(fuzz, "SECONDS", 3)
    assert fuzz.run("images", 0, range(5), tmp_path) == {"read": 3, "crash": 1, "hang": 1}
    told = capsys.readouterr().out
    assert "images 1: crash -6" in told and "images 3: hang of more than 3 s" in told
