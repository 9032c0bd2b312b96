from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sagitta.dataset.schema import Source
from sagitta.errors import SourceError
from sagitta.sources.base import SourceOptions
from sagitta.sources.detect import open_source

from .conftest import image, write_files

Open = Callable[..., Source]
PHOTOS = {"img/a.jpg": None, "img/b.png": None, "img/c.webp": None}


def rows(source: Source) -> list[tuple[str | None, ...]]:
    names = ("path", "label", "split", "group")
    return list(zip(*(source.rows[name].to_pylist() for name in names), strict=True))


def test_a_table_beside_its_images(open_files: Open) -> None:
    source = open_files(PHOTOS | {"labels.csv": "filename,label\nimg/a.jpg,cat\nimg/c.webp,dog\nimg/b.png,cat\n"})
    assert source.layout == "files named in labels.csv"
    assert rows(source) == [
        ("img/a.jpg", "cat", None, None),
        ("img/b.png", "cat", None, None),
        ("img/c.webp", "dog", None, None),
    ]
    assert source.reader.read("img/b.png") == image(1)


@pytest.mark.parametrize(
    "table",
    [
        "id,breed\na,cat\nb,dog\nc,cat\n",  # Kaggle's dog-breed
        "Image;Species\r\na.jpg;cat\r\nb.png;dog\r\nc.webp;cat\r\n",
        "\ufefffile_name,class\n./img/a.jpg,cat\nimg\\b.png,dog\n img/c.webp , cat \n",
        'path,comment,target\na.jpg,"two\nlines",cat\nb.png,"a, b",dog\nc.webp,,cat\n',
    ],
)
def test_spellings_of_paths_columns_and_separators(open_folder: Open, table: str) -> None:
    source = open_folder(PHOTOS | {"labels.csv": table})
    assert source.rows["label"].to_pylist() == ["cat", "dog", "cat"]


def test_columns_of_0_and_1_that_are_named_are_the_classes(open_folder: Open) -> None:
    table = "path,new,a,b,blurred\na.jpg,1,1,0,1\nb.png,1,0,1,0\nc.webp,1,1,0,0\n"
    with pytest.raises(SourceError, match="exactly one of a, b, so 'blurred' may be no class"):
        open_folder(PHOTOS | {"labels.csv": table.replace(",new", "").replace("g,1", "g").replace("p,1", "p")})
    found = open_folder(PHOTOS | {"labels.csv": table}, SourceOptions(label_column="a,b"))
    assert found.rows["label"].to_pylist() == ["a", "b", "a"] and found.class_names == ("a", "b")
    found = open_folder(PHOTOS | {"labels.csv": table}, SourceOptions(label_column="a, b,blurred"))
    assert found.rows["label"].to_pylist() == [["a", "blurred"], ["b"], ["a"]]
    with pytest.raises(SourceError, match="column 'path' does not hold 0 and 1 for a class"):
        open_folder(PHOTOS | {"labels.csv": table}, SourceOptions(label_column="a,path"))
    with pytest.raises(SourceError, match="no column 'a,nothing'"):
        open_folder(PHOTOS | {"labels.csv": table}, SourceOptions(label_column="a,nothing"))
    comma = table.replace("blurred", '"a,b"')
    found = open_folder(PHOTOS | {"labels.csv": comma}, SourceOptions(label_column="a,b"))
    assert found.rows["label"].to_pylist() == ["1", "0", "0"]  # a column of that very name comes first


def test_a_tsv_or_parquet_given_directly(tmp_path: Path) -> None:
    write_files(tmp_path, PHOTOS | {"t.tsv": "path\tlabel\timg\na.jpg\t01\t5\nb.png\t1\t5\nc.webp\t10\t5\n"})
    pd.DataFrame({"path": ["a.jpg", "b.png"], "label": [1, 0]}).to_parquet(tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.tsv"), cache=tmp_path)
    assert (source.location, source.class_names) == (str(tmp_path / "t.tsv"), ("01", "1", "10"))
    assert open_source(str(tmp_path / "t.parquet"), cache=tmp_path).rows["label"].to_pylist() == ["1", "0"]


def test_splits_and_groups(open_folder: Open) -> None:
    table = "path,label,split,patient\na,x,Train,p1\nb,y,validation,p2\nc,x,,p1\n"
    source = open_folder(PHOTOS | {"labels.csv": table}, SourceOptions(group_column="patient"))
    assert [row[2:] for row in rows(source)] == [("train", "p1"), ("val", "p2"), (None, "p1")]


def test_tables_named_after_splits_are_read_together(open_folder: Open) -> None:
    files = dict.fromkeys(["train/1.jpg", "train/2.jpg", "test/1.jpg", "test/9.jpg"])
    tables = {
        "trainLabels.csv": "id,label\n1,cat\n2,dog\n",
        "test.csv": "id,label\n1,dog\n",
        "sample_submission.csv": "id,label\n9,cat\n",
    }
    source = open_folder(files | tables)
    assert rows(source) == [
        ("test/1.jpg", "dog", "test", None),
        ("train/1.jpg", "cat", "train", None),
        ("train/2.jpg", "dog", "train", None),
    ]


def test_a_table_that_is_not_used_is_named(open_folder: Open) -> None:
    tables = {"labels.csv": "id,label\na,cat\nb,dog\n", "few.csv": "id,label\na,cat\n"}
    assert open_folder(PHOTOS | tables).notes == (
        "file in 'id', class in 'label'",
        "not used: few.csv",
        "skipped 1 image that no row names",
    )


def test_tables_about_something_else_leave_the_folders_alone(open_folder: Open) -> None:
    other = {"prices.csv": "id,label\n77,cheap\n", "broken.csv": "a,b\n1\n", "empty.csv": ""}
    assert open_folder({"cat/1.png": None, "dog/2.png": None} | other).layout == "class folders"


def test_files_outside_the_folder_of_a_table_on_disk(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"pictures/a.png": None, "tables/t.csv": f"path,label\n../pictures/a.png,x\n{tmp_path}/b.png,y\n"}
    )
    write_files(tmp_path, {"b.png": None})
    source = open_source(str(tmp_path / "tables/t.csv"), cache=tmp_path)
    assert [len(source.reader.read(path)) > 0 for path in source.rows["path"].to_pylist()] == [True, True]


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (
            "path,label\na,x\n" + "".join(f"no{i}.jpg,x\n" for i in range(11)),
            SourceOptions(),
            r"labels\.csv: 11 of 12 rows name files that are missing: no0\.jpg, .*no9\.jpg, \.\.\.; put them beside",
        ),
        ("path,label\na,x\nb,\nc,\n", SourceOptions(), r"labels\.csv: row 2 \(and 1 more row\) has no label"),
        ("path,label\na,x\n,y\n", SourceOptions(), r"row 2 has no file name"),
        ("path,label\na,x\nimg/a.jpg,y\n", SourceOptions(), r"1 file named by more than one row: img/a\.jpg; keep one"),
        (
            "path,label\na,x\n",
            SourceOptions(label_column="kind"),
            r"no column 'kind'; its columns are path, label: .*--label",
        ),
        (
            "path,sort\na,x\n",
            SourceOptions(layout="manifest"),
            r"no column called label, .*columns are path, sort: .*--label",
        ),
        (
            "what,label\nz,x\n",
            SourceOptions(layout="manifest"),
            r"no column called path, .*columns are what, label: .*--path",
        ),
        (
            "path,label,s\na,x,fold1\n",
            SourceOptions(split_column="s"),
            r"split column 's' holds fold1; write train, val or test",
        ),
        (
            "path,label\na\n",
            SourceOptions(layout="manifest"),
            r"labels\.csv: cannot be read as a table .*Expected 2 columns",
        ),
        ("", SourceOptions(layout="manifest"), r"labels\.csv: cannot be read as a table"),
        (
            b"path,label\na,\xff\xfe\n",
            SourceOptions(layout="manifest"),
            r"labels\.csv: cannot be read .*save it as UTF-8",
        ),
    ],
)
def test_what_is_wrong_is_said(open_folder: Open, table: str | bytes, options: SourceOptions, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_folder(PHOTOS | {"labels.csv": table}, options)


def test_a_name_that_fits_several_files_is_refused(open_folder: Open) -> None:
    with pytest.raises(
        SourceError, match=r"row 2, '1', fits 2 files: x/1\.jpg, y/1\.jpg; write the path with its folder"
    ):
        open_folder({"x/1.jpg": None, "y/1.jpg": None, "x/2.jpg": None, "labels.csv": "id,label\n2,a\n1,b\n"})


def test_values_that_name_no_split_are_refused_unless_the_column_is_left_out(open_folder: Open) -> None:
    table = {"labels.csv": "id,label,split\na,x,1\nb,y,2\nc,x,train\n"}
    with pytest.raises(SourceError, match=r"'split' holds 1, 2; write train, val or test, or use no .* --split-column"):
        open_folder(PHOTOS | table, SourceOptions(layout="manifest"))
    source = open_folder(PHOTOS | table, SourceOptions(layout="manifest", split_column="none"))
    assert source.rows["split"].null_count == 3


@pytest.mark.parametrize(
    ("columns", "cells", "expected", "note"),
    [
        (
            "split",
            ["train", "dev", "holdout"],
            ["train", "val", "test"],
            "splits of column 'split' (train -> train, dev -> val, holdout -> test)",
        ),
        (
            "is_valid",
            ["False", "True", "False"],
            ["train", "val", "train"],
            "splits of column 'is_valid' (False -> train, True -> val)",
        ),
        (
            "is_test,is_valid",
            ["0,0", "1,0", "0,1"],
            ["train", "test", "val"],
            "splits of column 'is_test' (0 -> train, 1 -> test) and 'is_valid' (0 -> train, 1 -> val)",
        ),
    ],
)
def test_words_and_booleans_are_mapped_and_said(
    open_folder: Open, columns: str, cells: list[str], expected: list[str], note: str
) -> None:
    rows = zip("abc", "xyx", cells, strict=True)
    table = "\n".join([f"id,label,{columns}", *(",".join(row) for row in rows)])
    source = open_folder(PHOTOS | {"labels.csv": table + "\n"})
    assert source.rows["split"].to_pylist() == expected
    assert note in source.notes


def test_a_flag_that_is_true_in_most_rows_is_no_split(open_folder: Open) -> None:
    source = open_folder(PHOTOS | {"labels.csv": "id,label,valid\na,x,True\nb,y,True\nc,x,False\n"})
    assert source.rows["split"].null_count == 3
    assert source.warnings == (
        "labels.csv: column 'valid' is true in most rows, so it counts as no split (--split-column valid)",
    )


@pytest.mark.parametrize("columns", ["file,mode,tone", "file,label,tone"])
def test_a_table_of_one_class_folder_stops_no_class_folders(open_folder: Open, columns: str) -> None:
    """What it says concerns the images of that folder only; at the top it would be asked about."""
    table = "".join(f"{i}.png,{'RL'[i % 2]},{'xy'[i // 2]}\n" for i in range(4))
    images = {f"{name}/{i}.png": None for name in ("odd", "plain") for i in range(4)}
    source = open_folder(images | {"odd/about.csv": f"{columns}\n{table}"})
    assert source.class_names == ("odd", "plain")
    assert source.notes == ("skipped 1 file of text beside the images (.txt, .csv and the like)",)


def test_a_column_that_is_no_class_by_name_and_folders_that_differ_are_asked_about(open_folder: Open) -> None:
    images = {f"{name}/{i}.png": None for name in ("cat", "dog") for i in range(4)}
    rows = "".join(f"{file},{'xy'[place % 2]}\n" for place, file in enumerate(images))
    with pytest.raises(SourceError, match=r"'tone' \(x, y\) may be the class, and so may the folder \(cat, dog\)"):
        open_folder(images | {"about.csv": f"file,tone\n{rows}"})
    asked = open_folder(images | {"about.csv": f"file,tone\n{rows}"}, SourceOptions(label_column="tone"))
    assert asked.class_names == ("x", "y")
    assert open_folder(images, SourceOptions(layout="folders")).class_names == ("cat", "dog")


def test_a_column_that_may_be_about_the_photos_is_asked_about_beside_class_folders(open_folder: Open) -> None:
    images = {f"{name}/{i}.png": None for name in ("cat", "dog") for i in range(4)}
    rows = "".join(f"{file},{'xy'[place % 2]}\n" for place, file in enumerate(images))
    with pytest.raises(SourceError, match=r"'grade' \(x, y\) may be the class, and so may the folder \(cat, dog\)"):
        open_folder(images | {"about.csv": f"file,grade\n{rows}"})
    assert open_folder(images | {"about.csv": f"file,diagnosis\n{rows}"}).class_names == ("x", "y")


@pytest.mark.parametrize("name", ["list_eval_partition.txt", "train_test_split.txt", "anno/splits.csv"])
def test_numbers_of_splits_are_no_classes(open_folder: Open, name: str) -> None:
    """CelebA's, which alone would be a dataset of the classes 0, 1 and 2."""
    mark = "," if name.endswith("csv") else " "
    files = {f"img/{i}.jpg": None for i in range(6)} | {name: "".join(f"{i}.jpg{mark}{i % 3}\n" for i in range(6))}
    message = f"{name}: column 'column 2' holds 0, 1, 2, which are splits by the file's name; write train, val or test"
    with pytest.raises(SourceError, match=message):
        open_folder(files)
    assert open_folder(files, SourceOptions(label_column="column 2")).class_names == ("0", "1", "2")
    lists = {"train_split.txt": "0.jpg 0\n1.jpg 1\n", "test_split.txt": "2.jpg 1\n"}  # each of one split, by its name
    source = open_folder(files | lists | {name: ""})
    assert source.rows["split"].to_pylist() == ["train", "train", "test"] and source.class_names == ("0", "1")


def test_images_whose_label_is_empty_are_named_by_a_row(open_folder: Open) -> None:
    source = open_folder({"a.jpg": None, "b.jpg": None, "c.jpg": None, "t.csv": "id,label\na,x\nb,y\nc,\n"})
    assert source.notes == ("file in 'id', class in 'label'",)
    assert source.warnings == ("t.csv: row 3 has no label (empty, NA, nan or null) and is left out",)


def test_two_images_in_one_row_are_asked_about(open_folder: Open) -> None:
    files = {f"img/{i}.jpg": None for i in range(4)}
    table = "image1,image2,label\n0.jpg,1.jpg,same\n2.jpg,3.jpg,other\n"
    with pytest.raises(SourceError, match=r"'image1' and 'image2' name different images in one row; .* --path-column"):
        open_folder(files | {"pairs.csv": table})
    chosen = open_folder(files | {"pairs.csv": table}, SourceOptions(path_column="image2"))
    assert chosen.rows["path"].to_pylist() == ["img/1.jpg", "img/3.jpg"]


def test_what_was_predicted_is_no_label(open_folder: Open) -> None:
    """The output of ``sagitta predict photos -o photos/out.csv``, whatever it is called."""
    files: dict[str, Any] = dict.fromkeys(["cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/4.jpg"])
    rows = "".join(f"{name},{'dog' if '1' in name else name[:3]},0.9,\n" for name in files)
    files |= {"out.csv": "path,class,probability,error\n" + rows}
    with pytest.raises(SourceError, match=r"out\.csv: what a model predicted, not labels; move it away"):
        open_folder(files)
    assert open_folder(files, SourceOptions(layout="folders")).rows["label"].to_pylist() == ["cat", "cat", "dog", "dog"]
    asked = open_folder(files, SourceOptions(label_column="class"))
    assert asked.rows["label"].to_pylist() == ["dog", "cat", "dog", "dog"]
