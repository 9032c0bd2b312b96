from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.dataset import ShardSet
from sagitta.diagnosis.looks import SIDE, look
from sagitta.diagnosis.rows import Rows
from tests.diagnosis.conftest import Maker, picture, saved


def test_every_row_is_looked_at_and_measured(rows_of_files: Maker) -> None:
    from PIL import Image

    grey = saved(Image.fromarray(np.full((40, 60, 3), (200, 100, 0), np.uint8)), "PNG")
    rows = rows_of_files({"a/0.png": grey, "a/1.jpg": saved(picture(1)), "b/0.jpg": saved(picture(2))})
    looks = look(rows, np.arange(3))
    assert looks.complete and looks.failed == {} and looks.rows.tolist() == [0, 1, 2]
    flat = rows.paths.index("a/0.png")
    assert looks.thumbnails.shape == (3, SIDE, SIDE) and (looks.thumbnails[flat] == (200 * 77 + 100 * 150) >> 8).all()
    assert looks.measure("spread")[flat] == 0 and looks.measure("mean")[flat] == 118
    assert [looks.measure(name)[flat] for name in ("red", "green", "blue")] == [200, 100, 0]
    others = np.flatnonzero(np.arange(3) != flat)
    assert (looks.measure("spread")[others] > 10).all() and (looks.measure("sharpness")[others] > 0).all()


def test_rows_come_in_ascending_order_whatever_the_order_of_looking(rows: Rows) -> None:
    some = np.array([7, 3, 21])
    looks, every = look(rows, some), look(rows, np.arange(len(rows)))
    assert looks.rows.tolist() == [3, 7, 21] and not looks.complete
    assert (looks.thumbnails == every.thumbnails[[3, 7, 21]]).all()
    assert (looks.measures == every.measures[[3, 7, 21]]).all()


def test_no_time_no_look(rows: Rows) -> None:
    looks = look(rows, np.arange(len(rows)), seconds=-1)
    assert len(looks.rows) == 0 and not looks.complete


@pytest.mark.parametrize("damaged", [b"no image", saved(picture(0))[:600]], ids=["header", "pixels"])
def test_what_cannot_be_decoded_is_told_and_left_out(tmp_path: Path, damaged: bytes) -> None:
    images = [saved(picture(0)), damaged, saved(picture(1))]
    column = pa.array([{"bytes": data, "path": None} for data in images])
    pq.write_table(pa.table({"image": column, "label": ["a", "b", "b"]}), tmp_path / "train.parquet")
    rows = Rows(ShardSet.open(tmp_path, cache=tmp_path / "cache"))
    looks = look(rows, np.arange(3))
    assert list(looks.failed) == [1] and looks.rows.tolist() == [0, 2] and looks.complete
