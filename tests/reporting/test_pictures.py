"""Small pictures: upright, never enlarged, each once, within number, bytes and time."""

import base64
import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sagitta
from sagitta.clock import Clock
from sagitta.reporting import pictures
from sagitta.reporting.pictures import Album, Shelf, open_shelf, paced, thumbnail
from tests.reporting import runs


def encoded(width: int, height: int, orientation: int = 1) -> memoryview:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = 255  # the upper half is white, as it is stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return memoryview(file.getvalue())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    work = tmp_path_factory.mktemp("pictures")
    run = runs.run_of(work / "run", runs.dataset(work / "data", ("a", "b"), each=20, side=60))
    found, why = open_shelf(run, (run / "config.yaml").read_text(), None)
    assert found is not None and not why
    return found


def paths(shelf: Shelf) -> list[str]:
    split = shelf.shards.splits["train"]
    return [split.path(row) for row in range(len(split))]


def test_a_thumbnail_is_upright_and_never_enlarged() -> None:
    assert thumbnail(encoded(400, 200), 100).size == (100, 50)
    assert thumbnail(encoded(40, 20), 100).size == (40, 20)
    turned = np.asarray(thumbnail(encoded(400, 200, orientation=6), 100))  # its top is on the right
    assert turned.shape[:2] == (100, 50) and turned[50, 45].mean() > 200 > 50 > turned[50, 5].mean()


def test_each_picture_is_made_once_and_stands_once_in_the_page(shelf: Shelf) -> None:
    album, (first, second, *_) = Album(), paths(shelf)
    album.take(shelf, [first, first, second, "unknown"])
    album.take(shelf, [first])
    assert len(album.pictures) == 2 and album.number(shelf, "unknown") is None
    number = album.number(shelf, first)
    assert "src=" in album.tag(number, "a <b>") and "&lt;b&gt;" in album.tag(number, "a <b>")
    assert "src=" not in album.tag(number, "again") and "data-p" in album.tag(number, "again")
    assert album.rest()[0] == "" and album.rest()[1].startswith("data:image/jpeg")
    assert "no picture" in album.tag(None, "words")
    data = base64.b64decode(album.pictures[0].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (60, 60)


def test_number_bytes_and_time_are_limits(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PICTURES", 3)
    album = Album()
    album.take(shelf, paths(shelf))
    assert len(album.pictures) == 3 and not album.room
    monkeypatch.setattr(pictures, "MOST_PICTURES", 400)
    monkeypatch.setattr(pictures, "MOST_BYTES", 1)
    album = Album()
    album.take(shelf, paths(shelf)[:1])
    assert not album.room and len(album.pictures) == 1
    for empty in (Album(Clock(0)), Album(wanted=False)):
        empty.take(shelf, paths(shelf))
        assert not empty.pictures


def test_batches_begin_small_and_end_with_the_time() -> None:
    assert [len(batch) for batch in paced(range(50), 16, Clock())] == [1, 4, 16, 16, 13]
    assert list(paced(range(50), 16, Clock(0))) == []
    some = []
    for batch in paced(range(50), 16, Clock(0.2)):
        some += list(batch)
        time.sleep(0.06 * len(batch))
    assert some == [0]  # four more would take longer than there is


def test_tiny_images_keep_their_pixels(tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", runs.dataset(tmp_path / "data", ("a", "b"), side=8))
    shelf, _ = open_shelf(run, (run / "config.yaml").read_text(), None)
    assert shelf is not None
    album, path = Album(), paths(shelf)[0]
    album.take(shelf, [path])
    found = shelf.find(path)
    assert found is not None and album.tiny == [0]
    image = Image.open(io.BytesIO(base64.b64decode(album.pictures[0].partition(",")[2])))
    assert (np.asarray(image) == np.asarray(Image.open(io.BytesIO(bytes(found[0].image(found[1])))))).all()


def test_other_data_is_shown_as_the_model_was_given_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of 16 bits whose values end at 4,095 are black by any other range than the model's."""
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    for number in range(20):
        place = tmp_path / "deep" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 4095 - number, np.uint16)).save(place)
    sagitta.convert(tmp_path / "deep", tmp_path / "data", range=(0, 4095))
    run = runs.run_of(tmp_path / "run", tmp_path / "data")
    shelf, why = open_shelf(run, (run / "config.yaml").read_text(), str(tmp_path / "deep"))
    assert shelf is not None and not why
    assert shelf.info.reduction is not None and list(shelf.info.reduction["range"]) == [0, 4095]


def test_data_that_is_gone_is_a_reason(tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", runs.dataset(tmp_path / "data", ("a", "b")))
    text = (run / "config.yaml").read_text()
    assert open_shelf(run, text, str(tmp_path / "gone"))[0] is None
    assert open_shelf(run, "", None) == (None, "the run has no config.yaml, which names its data")


def test_hashes_are_those_of_the_rows(shelf: Shelf) -> None:
    split = shelf.shards.splits["train"]
    assert shelf.hashes([split.path(3), split.path(0)]) == split.source_hashes.take([3, 0]).to_pylist()
    assert shelf.hashes(["unknown"]) is None
