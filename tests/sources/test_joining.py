"""Layouts of other fields and tools, as small as they can be: every label is what the image's colour says."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sagitta.dataset.schema import Source
from sagitta.errors import ImageError, SourceError
from sagitta.sources.base import SourceOptions
from sagitta.sources.detect import open_source

from .conftest import KINDS, coloured, seen, write_files

Open = Callable[..., Source]
N = range(12)
FIRST, LAST = range(9), range(9, 12)  # train and test


def kind(index: int) -> str:
    return KINDS[index % 3]


def numbered(label: int) -> Callable[[int], str]:
    return lambda i: f"{i}.png;5;{label}"


def shifted(by: int) -> Callable[[int], str]:
    return lambda i: f"{i:04},{kind(i + by)}"


def csv(head: str, row: Callable[[int], object], which: range = N) -> str:
    return head + "\n" + "".join(f"{row(i)}\n" for i in which)


def lines(row: Callable[[int], object], which: range = N) -> str:
    return "".join(f"{row(i)}\n" for i in which)


def flat(suffix: str = ".jpg", folder: str = "images/") -> dict[str, Any]:
    return dict(coloured([f"{folder}{i:04}{suffix}" for i in N]))


def in_folders() -> dict[str, Any]:
    return dict(coloured([f"images/{kind(i)}/{i:04}.jpg" for i in N]))


def one_hot(index: int) -> str:
    return ", ".join(str(float(index % 3 == place)) for place in range(3))


ONE_SPLIT = {
    "dermatology": coloured([f"part_{1 + i // 6}/ISIC_{i}.jpg" for i in N])
    | {"HAM_metadata.csv": csv("image_id,dx,age,sex", lambda i: f"ISIC_{i},{kind(i)},{50.5 + i},{'mf'[i % 2]}")},
    "the suffix in capitals": flat(".JPG")
    | {"labels.csv": csv("id,label", lambda i: f"{i:04}{'.jpg' if i % 2 else ''},{kind(i)}")},
    "images and masks": flat(".png")
    | flat(".png", "masks/")
    | {"labels.csv": csv("image,class", lambda i: f"{i:04},{kind(i)}")},
    "Kaggle": flat(folder="train/")
    | {"train.csv": csv("id_code,diagnosis", lambda i: f"{i:04},{kind(i)}"), "test.csv": "id_code\n99\n"},
    "no header": flat() | {"labels.csv": lines(lambda i: f"images/{i:04}.jpg,{kind(i)}")},
    "Vertex": flat() | {"all_data.csv": lines(lambda i: f"gs://bucket/images/{i:04}.jpg,{kind(i)}")},
    "addresses": flat() | {"a.csv": csv("url,animal", lambda i: f"https://x.org/{i}/{i:04}.jpg?w=1&h=2,{kind(i)}")},
    "one-hot": flat() | {"truth.csv": csv("image, cat, dog, bird", lambda i: f"{i:04}, {one_hot(i)}")},
    "Label Studio's CSV": flat(folder="images/0a1b2c3d-")
    | {"p.csv": csv("image,id,choice,lead_time", lambda i: f"/data/upload/1/0a1b2c3d-{i:04}.jpg,{i},{kind(i)},1.{i}1")},
    "Label Studio's originals": flat()
    | {
        "p.json": json.dumps(
            [
                {
                    "id": i,
                    "data": {"image": f"/data/upload/1/0a1b2c3{i % 10}-{i:04}.jpg"},
                    "annotations": [{"result": [{"type": "choices", "value": {"choices": [kind(i)]}}]}],
                }
                for i in N
            ]
        )
    },
    "COCO without boxes": flat()
    | {
        "coco.json": json.dumps(
            {
                "images": [{"id": i, "file_name": f"{i:04}.jpg"} for i in N],
                "annotations": [{"image_id": i, "category_id": i % 3} for i in N],
                "categories": [{"id": number, "name": name} for number, name in enumerate(KINDS)],
            }
        )
    },
    "FiftyOne": flat(folder="data/")
    | {"labels.json": json.dumps({"classes": KINDS, "labels": {f"{i:04}": i % 3 for i in N}})},
    "lines of JSON": flat()
    | {"a.jsonl": lines(lambda i: json.dumps({"image_url": f"Store://ws/images/{i:04}.jpg", "label": kind(i)}))},
    "nested JSON": flat()
    | {"x.manifest": lines(lambda i: json.dumps({"source-ref": f"s3://b/{i:04}.jpg", "m": {"class-name": kind(i)}}))},
    "VGG Image Annotator": flat()
    | {
        "via.json": json.dumps(
            {f"{i}": {"filename": f"{i:04}.jpg", "regions": [], "file_attributes": {"kind": kind(i)}} for i in N}
        )
    },
    "CVAT's list with names": flat()
    | {"train.txt": lines(lambda i: f"{i:04}.jpg {i % 3}"), "synsets.txt": "\n".join(KINDS)},
    "names of numbers": flat()
    | {"train.csv": csv("image_id,label", lambda i: f"{i:04}.jpg,{i % 3}")}
    | {"label_num_to_disease_map.json": json.dumps(dict(enumerate(KINDS)))},
    "numbers and names": flat()
    | {"a.csv": csv(",Filename,Label,ClassName", lambda i: f"{i},{i:04}.jpg,{i % 3},{kind(i)}")},
    "a table a class": coloured([f"{i % 3:03}/{i // 3}.png" for i in N])
    | {f"{k:03}/GT.csv": csv("Filename;Roi.X1;ClassId", numbered(k), range(4)) for k in range(3)}
    | {"names.csv": csv("ClassId,Name", lambda i: f"{i},{KINDS[i]}", range(3))},
    "UTF-16": flat() | {"a.csv": csv("file,label", lambda i: f"{i:04}.jpg,{kind(i)}").encode("utf-16")},
}


@pytest.mark.parametrize("files", ONE_SPLIT.values(), ids=ONE_SPLIT)
def test_labels_come_from_the_table(open_folder: Open, files: dict[str, Any]) -> None:
    found = seen(open_folder(files))
    assert len(found) == len(N) and all(colour == label for colour, label, _ in found)


SPLIT = {
    "Hugging Face": coloured([f"{'train' if i in FIRST else 'test'}/{i}.png" for i in N])
    | {"train/metadata.csv": csv("file_name,label", lambda i: f"{i}.png,{kind(i)}", FIRST)}
    | {"test/metadata.csv": csv("file_name,label", lambda i: f"{i}.png,{kind(i)}", LAST)},
    "folders of one table": coloured([f"{'train' if i in FIRST else 'test'}/{i}.png" for i in N])
    | {"metadata.csv": csv("file_name,label", lambda i: f"{'train' if i in FIRST else 'test'}/{i}.png,{kind(i)}")},
    "ImageNet": flat()
    | {"LOC_train_solution.csv": csv("ImageId,PredictionString", lambda i: f"{i:04},{kind(i)} 1 2 3 4 ", FIRST)}
    | {"LOC_test_solution.csv": csv("ImageId,PredictionString", lambda i: f"{i:04},{kind(i)} 1 2 3 4 ", LAST)},
    "Vertex with uses": flat()
    | {"all.csv": lines(lambda i: f"{'training' if i in FIRST else 'test'},gs://b/images/{i:04}.jpg,{kind(i)}")},
    "lists of numbers": flat()
    | {"train.txt": lines(lambda i: f"images/{i:04}.jpg {i % 3}", FIRST), "classes.txt": "\n".join(KINDS)}
    | {"test.txt": lines(lambda i: f"images/{i:04}.jpg {i % 3}", LAST)},
    "lists of names": flat()
    | {
        "train.txt": lines(lambda i: f"{i:04} {kind(i)}", FIRST),
        "test.txt": lines(lambda i: f"{i:04} {kind(i)}", LAST),
    },
    "Food-101": in_folders()
    | {"meta/train.txt": lines(lambda i: f"{kind(i)}/{i:04}", FIRST)}
    | {"meta/test.txt": lines(lambda i: f"{kind(i)}/{i:04}", LAST)},
    "CUB": in_folders()
    | {"images.txt": lines(lambda i: f"{i + 1} {kind(i)}/{i:04}.jpg")}
    | {"train_test_split.txt": lines(lambda i: f"{i + 1} {int(i in FIRST)}")},
    "splits in a list of their own": flat()
    | {"Anno/list.txt": "12\nimage_name category_label\n" + lines(lambda i: f"images/{i:04}.jpg  {kind(i)}")}
    | {"Eval/split.txt": csv("image_name split", lambda i: f"images/{i:04}.jpg {'train' if i in FIRST else 'test'}")},
    "lists of files": flat()
    | {"labels.csv": csv("id,label", lambda i: f"{i:04},{kind(i)}")}
    | {"train_list.txt": lines(lambda i: f"{i:04}.jpg", FIRST), "test_list.txt": lines(lambda i: f"{i:04}.jpg", LAST)},
    "lists of names in any folder": in_folders()
    | {"a-train.txt": lines(lambda i: f"{i:04}.jpg", FIRST), "a-test.txt": lines(lambda i: f"{i:04}.jpg", LAST)},
    "a table of splits": in_folders()
    | {"splits.csv": csv("path,subset", lambda i: f"{kind(i)}/{i:04}.jpg,{'trn' if i in FIRST else 'tst'}")},
    "splits of paths": in_folders()
    | {"splits.json": json.dumps({"train": [f"{i:04}" for i in FIRST], "test": [f"{i:04}" for i in LAST]})},
    "JSON of splits": in_folders()
    | {
        "split.json": json.dumps(
            {
                split: [[f"{kind(i)}/{i:04}.jpg", i % 3, kind(i)] for i in which]
                for split, which in (("train", FIRST), ("test", LAST))
            }
        )
    },
}


@pytest.mark.parametrize("files", SPLIT.values(), ids=SPLIT)
def test_splits_come_with_them(open_folder: Open, files: dict[str, Any]) -> None:
    found = seen(open_folder(files))
    assert all(colour == label for colour, label, _ in found)
    assert sorted(split or "" for _, _, split in found) == ["test"] * len(LAST) + ["train"] * len(FIRST)


def test_several_labels_by_flags_in_each_split(open_folder: Open) -> None:
    files = coloured([f"{'train' if i in FIRST else 'test'}/{i}.png" for i in N])
    for split, which in (("train", FIRST), ("test", LAST)):
        table = csv("filename, even, cat", lambda i: f"{i}.png, {int(i % 2 == 0)}, {int(i % 3 == 0)}", which)
        files[f"{split}/_classes.csv"] = table.encode()
    found = open_folder(files).rows.to_pylist()
    assert all(("cat" in row["label"]) == (int(row["path"].split("/")[1][:-4]) % 3 == 0) for row in found)
    assert {row["split"] for row in found} == {"train", "test"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            flat() | {"a.csv": csv("file,one,two", lambda i: f"{i:04}.jpg,{kind(i)},{'xy'[i % 2]}")},
            r"a\.csv: names the images in 'file', but .*'one', 'two' may each be the class.*--label-column.*--layout",
        ),
        (
            flat()
            | {"a.csv": csv("Path,Edema,Mass", lambda i: f"CheX/images/{i:04}.jpg,{['1.0', '', '-1.0'][i % 3]},1")},
            r"Edema.* hold 1 and 0, but also -1 or nothing",
        ),
        (
            flat() | {name: csv("id,label", shifted(len(name))) for name in ("a.csv", "bb.csv")},
            r"a\.csv \(.*\) and bb\.csv \(.*\) give different labels to the same images; give one of them itself",
        ),
        (
            flat(".png") | flat(".png", "small/") | {"a.csv": csv("image,label", lambda i: f"{i:04},{kind(i)}")},
            r"row 1, '0000', fits 2 files: images/0000\.png, small/0000\.png",
        ),
        (
            flat() | {"a.csv": csv("id,label", lambda i: f"{i},{kind(i)}")},
            r"'0' is nearly images/0000\.jpg: .*leading zeros",
        ),
        (
            in_folders() | {"a.csv": lines(lambda i: f"set/images/{kind(i)}/,{i % 2}")},
            r"a\.csv: column 'column 1' names folders of images",
        ),
        (
            flat() | {"a.csv": csv("id,label", lambda i: f"{i}.0,{kind(i)}")},
            r"'0.0' is nearly images/0000\.jpg",
        ),
        (
            coloured([f"scans/P{i}/0.jpg" for i in N]) | {"a.csv": csv("patient,label", lambda i: f"P{i},{kind(i)}")},
            r"a\.csv: column 'patient' names folders of images, not files, and 'label' their classes",
        ),
        (
            flat() | {"a.csv": csv("file,label,label", lambda i: f"{i:04}.jpg,{kind(i)},{i % 2}")},
            r"'label', '3\.label' may each be the class",
        ),
        (
            flat() | {"a.csv": csv("file,class,order,family,species", lambda i: f"{i:04}.jpg,{i % 2},x,y,{kind(i)}")},
            r"class, order, family, species are ranks of a taxonomy",
        ),
        (flat() | {"a.csv": csv("Image,Id", lambda i: f"{i:04}.jpg,{kind(i)}")}, r"its columns are Image, Id: name it"),
        (
            flat()
            | {"a.csv": csv("file,label", lambda i: f"{i:04}.jpg,{kind(i)}")}
            | {"b.csv": csv("file,partition", lambda i: f"{i:04}.jpg,{i % 3}")},
            r"b\.csv: split column 'partition' holds 0, 1, 2; .*--split-column none",
        ),
        (
            coloured([f"images/{kind(i)}_{i}.jpg" for i in N])
            | {
                f"{split}.txt": lines(lambda i: f"{kind(i)}_{i}.jpg", which)
                for split, which in (("train", FIRST), ("test", LAST))
            },
            r"train\.txt.* list images of .*, but not their classes; .*--layout",
        ),
        (flat() | {"a.csv": csv("file,split", lambda i: f"{i:04}.jpg,{'train' if i in FIRST else 'test'}")}, "divides"),
        (
            flat() | {"a.json": json.dumps([{"file": f"{i:04}.jpg", "label": [{"name": kind(i)}]} for i in N])},
            r"column 'label' holds objects, not labels",
        ),
        (
            flat() | {"a.json": json.dumps([{"file": f"{i:04}.jpg", "tags": []} for i in N])},
            r"a\.json: names the images",
        ),
        (in_folders() | {"test_list.txt": lines(lambda i: f"{kind(i)}/{i:04}.jpg", LAST)}, r"no list those of train"),
        (
            in_folders() | {f"train{k}.txt": lines(lambda i: f"{kind(i)}/{i:04}.jpg") for k in (1, 2)},
            r"train1\.txt and train2\.txt both list images of train",
        ),
        (
            in_folders() | {"bad.csv": csv("file,label", lambda i: f"{kind(i)}/{i:04}.jpg,{i % 2}", range(4))},
            r"bad\.csv names 4 of 8 images|bad\.csv names 4 of 12 images",
        ),
        (
            flat() | {"a.csv": csv("file,tags", lambda i: f"{i:04}.jpg,{kind(i)} dog")},
            r"--label-separator ' '; if .*''",
        ),
        (
            flat() | {"a.csv": csv("file,kind", lambda i: f'{i:04}.jpg,"{kind(i)},{kind(i + 1)}"')},
            r"column 'kind' may hold several labels a row, as in 'bird,cat': if so, --label-separator ','",
        ),
        (
            flat() | {"a.csv": csv("file,label", lambda i: f'{i:04}.jpg,"{kind(i)}\n"').replace("dog", "do\ng")},
            "line break",
        ),
        (
            flat() | {"a.csv": csv("file,label", lambda i: f"{i:04}.jpg,café").encode("cp1252")},
            r"byte \d+ is not UTF-8 .*1252",
        ),
    ],
)
def test_what_is_not_evident_is_refused(open_folder: Open, files: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_folder(files)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "beside",
    [
        {
            "README.txt": "of cats and dogs\ncat/0.jpg is one\n",
            "config.json": '{"a": ["b"]}',
            "requirements.txt": "numpy\n",
        },
        {"results.csv": csv("epoch,loss,lr", lambda i: f"{i},{1 / (i + 3)},{[0.1, 0.2][i % 2]}")},
        {"classes.csv": "id,label\n0,cat\n1,dog\n2,bird\n", "classes.txt": "\n".join(KINDS)},
        {"sizes.csv": csv("filename,width,height", lambda i: f"{kind(i)}/{i}.jpg,4,4")},
        {"train/labels.json": '{"images": []}'},
        {"kinds.csv": "label,superclass\ncat,mammal\ndog,mammal\nbird,other\n"},
    ],
)
def test_class_folders_stay_class_folders(open_folder: Open, beside: dict[str, Any]) -> None:
    found = seen(open_folder(coloured([f"{kind(i)}/{i}.jpg" for i in N]) | beside, SourceOptions()))
    assert len(found) == len(N) and all(colour == label for colour, label, _ in found)


def test_folders_can_be_insisted_on(open_folder: Open) -> None:
    files = in_folders() | {"images/a.csv": csv("file,label", lambda i: f"{kind(i)}/{i:04}.jpg,x{i % 2}")}
    assert open_folder(files).class_names == ("x0", "x1")
    assert open_folder(files, SourceOptions(layout="folders")).layout == "class folders"


def test_rows_without_a_label_are_left_out_and_said(open_folder: Open) -> None:
    nothing = {1: "NA", 4: "", 8: "nan"}
    source = open_folder(flat() | {"a.csv": csv("file,label", lambda i: f"{i:04}.jpg,{nothing.get(i, f'{i % 2}.0')}")})
    assert source.class_names == ("0", "1") and source.rows.num_rows == 9
    assert source.warnings == ("a.csv: row 2 (and 2 more rows) has no label (empty, NA, nan or null) and is left out",)


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        ({"a.csv": csv("file,label,fold", lambda i: f"{i:04}.jpg,{kind(i)},{i % 5}")}, r"column 'fold' is not used"),
        ({"a.csv": csv("file,label,train", lambda i: f"{i:04}.jpg,{kind(i)},{i % 2}")}, r"--split-column train if"),
        (
            {"a.csv": csv("file,label", lambda i: f"{i:04}.jpg,{kind(i)}"), "splits.json": '{"train": ["place 1"]}'},
            r"splits\.json: not used, .*its splits are lost",
        ),
    ],
)
def test_splits_that_are_not_used_are_said(open_folder: Open, files: dict[str, Any], warning: str) -> None:
    (said,) = open_folder(flat() | files).warnings
    assert re.search(warning, said)


def test_rows_of_nothing_are_no_rows(open_folder: Open) -> None:
    table = csv("file,label,", lambda i: f"{i:04}.jpg,{kind(i)},") + ",,\n,,\n"
    assert open_folder(flat() | {"a.csv": table}).rows.num_rows == len(N)


def test_sequences_of_camera_traps_are_groups(open_folder: Open) -> None:
    images = [{"id": i, "file_name": f"{i:04}.jpg", "location": f"place {i % 2}", "seq_id": f"s{i // 3}"} for i in N]
    marks = [{"image_id": i, "category_id": i % 3} for i in N]
    kinds = [{"id": number, "name": name} for number, name in enumerate(KINDS)]
    files = flat() | {"a.json": json.dumps({"images": images, "annotations": marks, "categories": kinds})}
    (warning,) = open_folder(files).warnings
    assert "--group 'seq_id'" in warning
    source = open_folder(files, SourceOptions(group_column="location"))
    assert source.rows["group"].to_pylist() == [f"place {i % 2}" for i in N]


def test_groups_are_hinted_at_and_taken_from_a_table_beside(open_folder: Open) -> None:
    files = flat() | {"truth.csv": csv("image,label", lambda i: f"{i:04},{kind(i)}")}
    files["meta.csv"] = csv("image,Patient ID", lambda i: f"{i:04},p{i // 3}")
    assert open_folder(files).warnings == (
        "meta.csv: rows of one 'Patient ID' may be spread over train, val and test; if they belong together, "
        "--group 'Patient ID'",
    )
    source = open_folder(files, SourceOptions(group_column="Patient ID"))
    assert source.rows["group"].to_pylist() == [f"p{i // 3}" for i in N] and not source.warnings
    with pytest.raises(SourceError, match="no column 'doctor'"):
        open_folder(files, SourceOptions(group_column="doctor"))


def test_missing_files_can_be_kept_for_quarantine(tmp_path: Path) -> None:
    write_files(tmp_path, flat() | {"a.csv": csv("file,label", lambda i: f"{i:04}.jpg,{kind(i)}", range(14))})
    with pytest.raises(SourceError, match=r"2 of 14 rows name files that are missing: 0012\.jpg, 0013\.jpg; put"):
        open_source(str(tmp_path), cache=tmp_path / "cache")
    source = open_source(str(tmp_path), SourceOptions(keep_missing=True), cache=tmp_path / "cache")
    assert source.rows.num_rows == 14
    with pytest.raises(ImageError, match=r"named in a\.csv, but no such file is there"):
        source.reader.read("0012.jpg")


def test_lists_of_two_divisions_are_not_mixed(open_folder: Open) -> None:
    """DTD's: ten times train, val and test, of which the last read would win."""
    table = {"labels/all.txt": lines(lambda i: f"{i:04}.jpg {kind(i)}")}
    parts = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    lists = {f"labels/{split}1.txt": lines(lambda i: f"{i:04}.jpg", rows) for split, rows in parts.items()}
    source = open_folder(flat() | table | lists)
    assert source.rows["split"].to_pylist() == ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    second = {"labels/train2.txt": lines(lambda i: f"{i:04}.jpg", range(6, 12))}
    with pytest.raises(
        SourceError, match=r"labels/train1\.txt, labels/train2\.txt: images/0009\.jpg is in test and in train"
    ):
        open_folder(flat() | table | lists | second)
