import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from sagitta.dataset.schema import Source
from sagitta.errors import SourceError

Open = Callable[..., Source]
FLAT = dict.fromkeys(["images/a.jpg", "images/b.jpg"])
SITES = dict.fromkeys(["north/a.jpg", "south/b.jpg"])
FOLDERS = dict.fromkeys(["cat/a.jpg", "dog/b.jpg"])


def spreadsheet(text: str, part: str = "xl/sharedStrings.xml", tag: str = "t") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as book:
        book.writestr(part, f"<sst><si><{tag}>{text}</{tag}></si></sst>")
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (FLAT | {"labels/a.txt": "0 .5 .5 .1 .1\n", "labels/b.txt": ""}, r"labels/a\.txt: YOLO's boxes"),
        (FLAT | dict.fromkeys(["xml/a.xml", "xml/b.xml"], "<annotation/>"), r"xml/a\.xml: Pascal VOC's XML"),
        (FLAT | dict.fromkeys(["ann/a.jpg.json", "ann/b.jpg.json"], '{"objects": []}'), "a.jpg.json: Supervisely's"),
        (FLAT | dict.fromkeys(["ann/a.json", "ann/b.json"], '{"item": {}}'), r"ann/a\.json: JSON, one file an image"),
        (
            FLAT | {"annotations.xml": '<annotations><image name="a.jpg"/></annotations>'},
            "annotations.xml: CVAT's XML",
        ),
        (FLAT | {"imagelabels.mat": "MATLAB"}, r"imagelabels\.mat: a MATLAB file .*loadmat"),
        (FLAT | {"labels.xlsx": spreadsheet("A.jpg")}, r"labels\.xlsx: a spreadsheet that names the images"),
        (SITES | {"labels.xlsx": spreadsheet("a.jpg", "xl/worksheets/sheet1.xml")}, "xlsx: a spreadsheet that names"),
        (SITES | {"a.ods": spreadsheet("a", "content.xml", "text:p")}, r"a\.ods: a spreadsheet that names the images"),
        (SITES | {"all.xls": b"\xd0\xcf" + "b.jpg".encode("utf-16-le")}, r"all\.xls: a spreadsheet that names the"),
        (SITES | {"labels.pkl": pickle.dumps({"a.jpg": "cat", "b.jpg": "dog"})}, r"labels\.pkl: names the images, but"),
    ],
)
def test_formats_that_are_not_read_are_named(open_folder: Open, files: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=f"{message}.*--layout folders"):
        open_folder(files)


def test_tfrecord_is_named(open_folder: Open) -> None:
    with pytest.raises(SourceError, match=r"1/a-train\.tfrecord-00000-of-00001: TFRecord, which is not read"):
        open_folder({"1/a-train.tfrecord-00000-of-00001": b"\x10", "1/features.json": "{}"})


def test_archives_in_a_folder_are_named(open_folder: Open) -> None:
    with pytest.raises(SourceError, match=r"among 2 \.zip, 1 \.csv; unpack the archives in it"):
        open_folder({"train.zip": b"PK", "test.zip": b"PK", "labels.csv": "id,label\na,b\n"})


@pytest.mark.parametrize(
    "beside",
    [
        {"cat/a.txt": "0 .5 .5 .1 .1", "dog/b.txt": "1 .5 .5 .1 .1"},
        {"cat/a.xml": "<annotation/>", "dog/b.xml": "<annotation/>"},
        {"prices.xlsx": spreadsheet("food"), "features.mat": "MATLAB"},
        {"prices.xls": b"aa.jpg xb.jpg 2-b.jpg", "data.db": b""},
        {"features.pkl": b"a.jpg", "train.pkl": b"xa.jpg"},
    ],
)
def test_class_folders_may_have_more_beside_them(open_folder: Open, beside: dict[str, Any]) -> None:
    assert open_folder(FOLDERS | beside).class_names == ("cat", "dog")
