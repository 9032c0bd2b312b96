"""Small pictures of a dataset's images for a page: made once each, under a budget of number, bytes and time."""

import base64
import io
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup
from PIL import Image

from sagitta.clock import Clock
from sagitta.dataset import DatasetInfo, ShardSet, Split
from sagitta.errors import ImageError, SagittaError
from sagitta.evaluation import other_settings, own_settings, quiet
from sagitta.images import JOB, Reduction, decode_batch, read_header
from sagitta.pool import usable_cores
from sagitta.reporting.escaping import apart
from sagitta.run import read_record

T = TypeVar("T")
MOST_PICTURES, MOST_BYTES = 400, 2_800_000
_TINY = 48  # pixels a side up to which an image is kept as it is
_QUALITY = 74


@dataclass(frozen=True)
class Shelf:
    """An open dataset, whose rows are found by their paths.

    Attributes:
        shards: the dataset.
    """

    shards: ShardSet

    @property
    def info(self) -> DatasetInfo:
        """What it says about itself."""
        return self.shards.info

    _known: dict[str, tuple[str, int]] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)

    def path(self, split: str, row: int) -> str:
        """Return the path of a row, which can be found by it from now on."""
        path = self.shards.splits[split].path(row)
        self._known[path] = split, row
        return path

    def _place(self, path: str) -> tuple[str, int] | None:
        """Return where a path is; reads those of train, which may be many, only where it is in no other split."""
        for name in (name for name in ("test", "val", *self.shards.splits) if name in self.shards.splits):
            if path in self._known:
                break
            if name not in self._read:
                self._read.add(name)
                for row in range(len(self.shards.splits[name])):
                    self.path(name, row)
        return self._known.get(path)

    def find(self, path: str) -> tuple[Split, int] | None:
        """Return split and row of a path, or None."""
        if (place := self._place(path)) is None:
            return None
        return self.shards.splits[place[0]], place[1]

    def hashes(self, paths: Sequence[str]) -> list[str] | None:
        """Return the content hashes of rows (N,); None where one of them is not there."""
        columns: dict[str, list[str]] = {}
        found = []
        for path in paths:
            if (place := self._place(path)) is None:
                return None
            name, row = place
            if name not in columns:
                columns[name] = self.shards.splits[name].source_hashes.to_pylist()
            found.append(columns[name][row])
        return found


def open_shelf(run: Path, config: str, source: str | None) -> tuple[Shelf | None, str]:
    """Return the data of a run, or another that it was tested on; or None, and why it cannot be had.

    Args:
        run: its directory.
        config: text of its configuration.
        source: other data; None for its own.
    """
    try:
        if source is None:
            if not config:
                return None, "the run has no config.yaml, which names its data"
            settings = own_settings(run)
        else:
            settings = other_settings(source, "test", _reduction_of(run))
        settings = settings.changed({"data.image_size": None, "data.batch_size": None})
        data = settings.image_data()
        with quiet():
            data.prepare_data()
            data.setup()
    except (SagittaError, OSError) as error:
        return None, " ".join(str(error).split())
    return Shelf(data.shards), ""


def _reduction_of(run: Path) -> Reduction | None:
    """Return how a run's model reads deep samples and bands, by its record: the model itself takes longer to open."""
    evaluated = read_record(run).get("dataset", {}).get("transforms", {}).get("evaluation") or {}
    fields = evaluated.get("reduction")
    return None if fields is None else Reduction.from_dict(fields)


@dataclass
class Album:
    """The pictures of a page; each stands in it once, wherever it is shown.

    Attributes:
        clock: when to end.
        wanted: whether there are any.
        pictures: ``data:`` addresses by number; empty behind one that stands in the page itself.
    """

    clock: Clock = field(default_factory=Clock)
    wanted: bool = True
    pictures: list[str] = field(default_factory=list)
    _numbers: dict[tuple[int, str, int], int] = field(default_factory=dict)
    _tiny: set[int] = field(default_factory=set)
    _shown: set[int] = field(default_factory=set)
    _bytes: int = 0

    @property
    def room(self) -> int:
        """How many more there may be."""
        full = not self.wanted or self._bytes >= MOST_BYTES or self.clock.left <= 0
        return 0 if full else MOST_PICTURES - len(self.pictures)

    def take(self, shelf: Shelf | None, paths: Iterable[str], side: int = 96) -> None:
        """Make pictures of rows, as many as there is room for; what cannot be decoded is left out.

        Args:
            shelf: the data; None makes none.
            paths: of the rows.
            side: pixels of the longer one.
        """
        if shelf is None or not self.room:
            return
        new = [path for path in dict.fromkeys(paths) if (id(shelf), path, 0) not in self._numbers]
        with ThreadPoolExecutor(usable_cores()) as pool:
            for path, made in zip(
                new, pool.map(lambda path: self._made(shelf, path, side), new[: self.room]), strict=False
            ):
                if made is not None:
                    self._numbers[id(shelf), path, 0] = self._add(*made)

    def add(self, image: Image.Image) -> int | None:
        """Keep a picture that was made elsewhere; returns its number, or None where there is no room."""
        return self._add(*_encoded(image, tiny=False)) if self.room else None

    def _add(self, address: str, tiny: bool) -> int:
        self._bytes += len(address)
        self.pictures.append(address)
        if tiny:
            self._tiny.add(len(self.pictures) - 1)
        return len(self.pictures) - 1

    def _made(self, shelf: Shelf, path: str, side: int) -> tuple[str, bool] | None:
        if self.clock.left <= 0 or (found := shelf.find(path)) is None:
            return None
        try:
            image = thumbnail(found[0].image(found[1]), side)
        except (ImageError, SagittaError, OSError):
            return None
        return _encoded(image, tiny=max(image.size) <= _TINY)

    def number(self, shelf: Shelf | None, path: str) -> int | None:
        """Return the number of a row's picture, or None where there is none."""
        return self._numbers.get((id(shelf), path, 0))

    def tag(self, number: int | None, words: str) -> Markup:
        """Return an ``<img>``: the first of a picture holds it, the others are filled by the page's script."""
        if number is None:
            return Markup('<span class="nopic" role="img" aria-label="{}">no picture</span>').format(apart(words))
        look = "pic px" if number in self._tiny else "pic"
        if number in self._shown:
            return Markup('<img class="{}" data-p="{}" alt="{}">').format(look, number, apart(words))
        self._shown.add(number)
        return Markup(f'<img class="{look}" id="p{number}" alt="{apart(words)}" src="{self.pictures[number]}">')

    def rest(self) -> list[Any]:
        """Return the addresses for the page's script, empty for those that stand in it; tiny ones are told apart."""
        return ["" if number in self._shown else address for number, address in enumerate(self.pictures)]

    @property
    def tiny(self) -> list[int]:
        """The numbers of pictures whose pixels should stay sharp."""
        return sorted(self._tiny)


def paced(items: Sequence[T], most: int, clock: Clock) -> Iterator[Sequence[T]]:
    """Yield batches as long as there is time for another, the first of one item: some networks take seconds for it."""
    began, done, size = time.monotonic(), 0, 1
    while done < len(items):
        each = (time.monotonic() - began) / max(done, 1)
        if clock.left <= each * size:
            return
        yield items[done : done + size]
        done += size
        size = min(most, size * 4)


def thumbnail(data: memoryview, side: int) -> Image.Image:
    """Return an image, upright, at most ``side`` pixels a side; never enlarged.

    Raises:
        ImageError: it cannot be decoded.
    """
    header = read_header(data)
    height, width = header.height, header.width
    scale = min(1.0, side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    job, out = np.zeros(1, JOB), np.empty((1, *size, 3), np.uint8)
    job["box"] = 0, 0, width, height
    job["resized"], job["orientation"] = size, header.orientation
    decode_batch([data], job, out, profile="fast")
    return Image.fromarray(out[0])


def _encoded(image: Image.Image, *, tiny: bool) -> tuple[str, bool]:
    file = io.BytesIO()
    if tiny:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    kind = "png" if tiny else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", tiny
