import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sagitta.conversion.options import ConvertOptions
from sagitta.conversion.pipeline import convert
from sagitta.dataset.inspection import contact_sheet, summarise
from sagitta.dataset.schema import DatasetInfo
from sagitta.dataset.shards import ShardSet
from sagitta.errors import DatasetError
from sagitta.sources.detect import open_source


@pytest.fixture
def dataset(photo_folder: Path, tmp_path: Path) -> Path:
    """Twenty photos of each of two classes, and one file that is no image."""
    (photo_folder / "china" / "broken.jpg").write_bytes(b"no image")
    convert(open_source(str(photo_folder), cache=tmp_path), tmp_path / "dataset")
    return tmp_path / "dataset"


def many_classes(tmp_path: Path, count: int) -> Path:
    for label in range(count):
        (tmp_path / "source" / f"[bold]{label:02d}").mkdir(parents=True)
        for index in range(3):
            Image.new("L", (8, 9), label * 5 + index).save(tmp_path / "source" / f"[bold]{label:02d}" / f"{index}.png")
    convert(open_source(str(tmp_path / "source"), cache=tmp_path), tmp_path / "dataset", ConvertOptions(quality=80))
    return tmp_path / "dataset"


def test_the_summary_counts_and_answers_the_four_questions(dataset: Path) -> None:
    words = summarise(dataset).split("\n")
    lines = [line.split() for line in words]
    assert ["class", "train", "val", "test"] in lines
    assert ["china", "16", "2", "2"] in lines
    assert ["total", "32", "4", "4"] in lines
    assert ["formats", "JPEG", "40"] in lines
    text = " ".join(" ".join(words).split())
    assert "40 images, 2 classes, RGB" in text
    assert DatasetInfo.read(dataset).fingerprint in text
    assert "quarantine 1 left out, listed in quarantine.parquet: 1 x not an image" in text
    assert "which splits? train 32, val 4, test 4: made from all rows: val 0.1, test 0.1" in text
    assert "which transforms? none, the original bytes are stored" in text
    assert "which normalisation? mean 0." in text
    assert "class folders" in text
    assert "\x1b" not in text


def test_long_class_lists_are_shortened_and_names_are_taken_literally(tmp_path: Path) -> None:
    text = " ".join(summarise(many_classes(tmp_path, 30)).split())  # lines are broken by the length of paths
    assert "[bold]19" in text
    assert "[bold]20" not in text
    assert "... and 10 more classes" in text
    assert "all encoded as JPEG of quality 80" in text
    assert "90 images, 30 classes, grey" in text


def test_what_is_no_dataset_or_misses_a_shard_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        summarise(tmp_path / "nowhere")
    (dataset / "val" / "00000.parquet").unlink()
    with pytest.raises(DatasetError, match=r"val/00000\.parquet"):
        summarise(dataset)


def test_the_contact_sheet_shows_images_of_each_class(dataset: Path, tmp_path: Path) -> None:
    contact_sheet(dataset, tmp_path / "sheet.png", per_class=5)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (200 + 5 * 136 + 8, 2 * 136 + 8)
        cells = [sheet.crop((200 + place * 136, 8, 328 + place * 136, 136)).tobytes() for place in range(5)]
    assert len(set(cells)) == 5


def test_the_contact_sheet_of_many_small_grey_classes_stays_small(tmp_path: Path) -> None:
    contact_sheet(many_classes(tmp_path, 15), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 12 * 136 + 8 + 24  # with a line that says "12 of 15 classes"


def picture(page: str) -> Image.Image:
    found = re.search(r'<img alt="samples of \w+" src="data:image/jpeg;base64,([^"]*)">', page)
    assert found
    return Image.open(io.BytesIO(base64.b64decode(found[1])))


def test_a_dataset_shows_itself_in_a_notebook(dataset: Path) -> None:
    with ShardSet.open(dataset) as shards:
        assert repr(shards) == f"ShardSet({str(dataset)!r}: 40 rows, 2 classes)"
        page = shards._repr_html_()
    assert "<th>class</th><th>train</th><th>val</th><th>test</th>" in page
    assert "<td><b>total</b></td><td>32</td><td>4</td><td>4</td>" in page
    assert "<td>china</td><td>16</td><td>2</td><td>2</td>" in page
    assert picture(page).height == 2 * 80 + 8


def test_names_in_a_notebook_are_text_and_the_page_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names, images = [], []
    for label in range(30):
        for _ in range(9):
            data = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(data, "PNG")
            images.append(data.getvalue())
            names.append(f"<script>alert({label})</script>")
    pq.write_table(pa.table({"image": images, "label": names}), tmp_path / "test.parquet")
    with ShardSet.open(tmp_path, cache=tmp_path / "cache") as shards:
        page = shards._repr_html_()
    assert "<script" not in page and "&lt;script&gt;alert(0)&lt;/script&gt;" in page
    assert "... and 10 more classes" in page
    assert len(page.encode()) < 300_000
    assert picture(page).width < 1000


def test_several_labels_a_row_in_a_notebook(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("L", (8, 8)).save(data, "PNG")
    labels = [["a", "b"], ["b"], []]
    pq.write_table(pa.table({"image": [data.getvalue()] * 3, "label": labels}), tmp_path / "x.parquet")
    with ShardSet.open(tmp_path, cache=tmp_path / "cache") as shards:
        page = shards._repr_html_()
    assert "<td>a</td><td>1</td>" in page and "<td>b</td><td>2</td>" in page


def test_fields_that_somebody_has_edited_are_refused_by_name(dataset: Path) -> None:
    path = dataset / "sagitta.json"
    values = json.loads(path.read_text()) | {"checksum": None}
    for name, value in (
        ("mean", "x"), ("mean", [0.5, 0.5]), ("splits", {}), ("splits", []), ("splits", {"train": 3}),
        ("splits", {"train": {"rows": "x", "files": ["a"]}}), ("class_names", 5), ("class_names", [1, 2]),
        ("max_size", [1]), ("channels", "3"), ("warnings", None), ("reduced", []), ("provenance", None),
        ("reduction", {"range": "x"}),
    ):  # fmt: skip
        path.write_text(json.dumps(values | {name: value}))
        with pytest.raises(DatasetError, match="convert the source again"):
            summarise(dataset)
    path.write_text(json.dumps(values | {"novel": 1}))
    assert "images" in summarise(dataset)
    next((dataset / "train").iterdir()).unlink()
    with pytest.raises(DatasetError, match="the file is missing"):
        summarise(dataset)
