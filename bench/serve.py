"""The process of one loader: prepares its format, then loads an epoch whenever it is asked to.

    python serve.py PEER ROW FOLDER

reads one request a line and answers each with a line of JSON (see ``answer``). ``measure.Server`` is the other end.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from formats import WRITERS
from measure import busy_seconds, cpu_seconds
from peers import CORES, RESIZED, SIZE, Batch, Peer, Work
from rows import PEERS, ROWS


def epoch(peer: Peer, batches: Iterator[Batch], rows: int) -> dict[str, Any]:
    """Load ``rows`` images; an endless loader's batches that were ready beforehand do not count.

    Returns:
        images; seconds; CPU seconds of all processes; the share of the machine that others' processes used meanwhile;
        seconds from the start to the first batch; what a batch is.

    Raises:
        ValueError: there was no batch.
    """
    session = os.getsid(0)
    began = time.perf_counter()
    first = 0.0
    for _ in range(peer.ahead):
        next(batches)
        first = first or time.perf_counter() - began
    start, cpu, busy = time.perf_counter(), cpu_seconds(session), busy_seconds()
    done, batch = 0, {}
    for images, labels in batches:
        first = first or time.perf_counter() - began
        done += len(labels)
        if images is not None:
            batch = {"shape": list(images.shape), "dtype": str(images.dtype)}
        if peer.ahead and done >= rows:
            break
    if not done:
        raise ValueError("no batch")
    seconds, cpu, busy = time.perf_counter() - start, cpu_seconds(session) - cpu, busy_seconds() - busy
    others = max(0.0, busy - cpu) / seconds / CORES
    return {"images": done, "seconds": seconds, "cpu": cpu, "others": others, "first": first, "batch": batch}


def pixels(batches: Iterator[Batch], work: Work) -> dict[str, Any]:
    """Compare an epoch of evaluation crops with Pillow's; labels say which photo an image is.

    Returns:
        Share of images that are equal, mean and largest difference of their values of 0..255.
    """
    file_of = dict(zip(work.labels, work.files, strict=True))
    reference: dict[int, Any] = {}
    equal, mean, largest, done = 0, 0.0, 0, 0
    for images, labels in batches:
        images = np.asarray(images)
        images = images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images
        for image, label in zip(images, map(int, labels), strict=True):
            if label not in reference:
                reference[label] = _evaluated(file_of[label])
            difference = np.abs(image - reference[label])
            equal, mean, largest = (
                equal + (not difference.any()),
                mean + difference.mean(),
                max(largest, int(difference.max())),
            )
        done += len(labels)
        if done >= len(work.files) // work.batch * work.batch:
            break
    return {"equal": equal / done, "mean": float(mean / done), "max": largest}


def _evaluated(file: Path) -> Any:
    """Return Pillow's decode, resize of the shorter side and centre crop, as torchvision rounds them."""
    from PIL import Image

    image = Image.open(file).convert("RGB")
    short = min(image.size)
    width, height = (RESIZED if side == short else RESIZED * side // short for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE))).astype(np.int16)


class _Loading:
    """A loader at work; built with the first request that needs it."""

    def __init__(self, name: str, row: str, folder: Path) -> None:
        self.row = ROWS[row]
        self.kind = PEERS[name]
        self.work = self.row.work(folder, name)
        self.peer: Peer | None = None
        self.endless: Iterator[Batch] | None = None

    def batches(self) -> Iterator[Batch]:
        self.peer = self.peer or self.kind(self.work)
        if not self.peer.ahead:
            return self.peer.run()
        self.endless = self.endless or self.peer.run()
        return self.endless

    def _prepare(self) -> None:
        """Write the loader's own format unless that was done."""
        folder, write = self.work.folder, WRITERS[self.kind.format]
        if write and not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write(self.work.files, self.work.labels, folder)
            (folder / "complete").touch()

    def answer(self, request: str) -> dict[str, Any]:
        """Do ``prepare``, ``pixels`` or ``epoch``."""
        start = time.perf_counter()
        if request == "prepare":
            self._prepare()
            return {"seconds": time.perf_counter() - start}
        batches = self.batches()
        if request == "pixels":
            return pixels(batches, self.work)
        assert self.peer is not None
        built = time.perf_counter() - start
        result = epoch(self.peer, batches, len(self.work.labels) // self.work.batch * self.work.batch)
        return {**result, "first": result["first"] + built}


def main() -> None:
    """Answer requests until there are no more; what libraries print goes to standard error."""
    import torch  # noqa: F401  # as in training: everybody's memory holds it, and nobody's first batch waits for it

    name, row, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    loading = _Loading(name, row, Path(folder))
    for line in sys.stdin:
        try:
            answer = loading.answer(line.strip())
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:400]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
