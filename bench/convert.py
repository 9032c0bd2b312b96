"""Converters: 10,000 real photos of distinct content, 1.1 GB, to each loader's format; beside ``cp -r``.

Sagitta decodes every image (a bad one goes to quarantine), hashes it and syncs what it writes. The others write bytes
as they are, unseen, into the page cache. So each time runs until everything is on the disk (``sync``), and the time
before that is noted too.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
from measure import Server

PHOTOS = 10_000
CONVERTERS = ("Sagitta", "HF datasets", "LitData", "WebDataset", "MosaicML Streaming", "FFCV")
COPY = "cp -r"


def compare(root: Path, serve: Callable[[str], Server], repeats: int) -> dict[str, dict[str, Any]]:
    """Time every converter in turn, ``repeats`` times; what they read and wrote is deleted afterwards.

    Args:
        root: folder for the images and what is written.
        serve: starts the process of a converter.
        repeats: rounds.
    """
    folder = root / "convert"
    size = write_photos(folder / "files")
    results: dict[str, dict[str, Any]] = {
        name: {"bytes": size, "photos": PHOTOS, "seconds": [], "seconds_written": []} for name in (*CONVERTERS, COPY)
    }
    _copy(folder)  # what is read comes from memory in every round
    for _ in range(repeats):
        for name in CONVERTERS:
            with serve(name) as server:
                _time(lambda server=server: server.ask("prepare"), results[name])  # type: ignore[misc]
            for written in folder.iterdir():
                if written.name != "files":
                    shutil.rmtree(written)
        _time(lambda: _copy(folder), results[COPY])
        shutil.rmtree(folder / "copy")
    shutil.rmtree(folder)
    return results


def write_photos(folder: Path) -> int:
    """Write the photos, each with a comment of its own; returns their size in bytes."""
    photos = data.photos("photos")
    size = 0
    for number in range(PHOTOS):
        label = number % len(photos)
        photo = _with_comment(photos[label], f"{number:08d}".encode())
        file = folder / f"{label:03d}" / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo)
        size += len(photo)
    return size


def _with_comment(photo: bytes, comment: bytes) -> bytes:
    """Return a JPEG with a comment behind its first segment."""
    at = 4 + int.from_bytes(photo[4:6], "big")
    return photo[:at] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + photo[at:]


def _copy(folder: Path) -> None:
    subprocess.run(["cp", "-r", str(folder / "files"), str(folder / "copy")], check=True)


def _time(work: Callable[[], Any], result: dict[str, Any]) -> None:
    os.sync()
    start = time.perf_counter()
    work()
    result["seconds_written"].append(round(time.perf_counter() - start, 2))
    os.sync()
    result["seconds"].append(round(time.perf_counter() - start, 2))
