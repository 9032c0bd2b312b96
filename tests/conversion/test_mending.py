import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import sagitta
from sagitta.conversion import ConvertOptions
from sagitta.dataset import ShardSet
from sagitta.errors import ConfigError, SourceError
from tests.diagnosis.conftest import converted, picture, put, saved


def paths_of(shards: ShardSet) -> dict[str, str]:
    names = shards.info.class_names
    return {
        split.path(row): f"{split.name}/{names[split.labels[row]]}"
        for split in shards.splits.values()
        for row in range(len(split))
    }


def quarantine(shards: ShardSet) -> dict[str, str]:
    table = pq.read_table(shards.root / "quarantine.parquet")
    return dict(zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True))


def fix(path: Path, *rows: dict[str, Any]) -> str:
    names = ["split", "path", "hash", "kind", "action", "proposed_label"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def about(shards: ShardSet, path: str, **fields: str) -> dict[str, Any]:
    for split in shards.splits.values():
        for row in range(len(split)):
            if split.path(row) == path:
                found = {"split": split.name, "path": path, "hash": split.source_hashes[row].as_py(), "kind": "dark"}
                return found | fields
    raise AssertionError(path)


@pytest.fixture
def plain(faulty: Path) -> ShardSet:
    return ShardSet.open(faulty)


def test_copies_are_dropped_from_train_before_what_measures_and_nothing_else_moves(
    tmp_path: Path, faulty: Path, plain: ShardSet
) -> None:
    shards = converted(faulty.parent / "images", tmp_path / "out", ConvertOptions(drop_duplicates=True))
    before, after = paths_of(plain), paths_of(shards)
    assert quarantine(shards) == {
        "train/a/00.jpg": "the same pixels as test/a/same.jpg (test)",
        "train/a/02.jpg": "the same pixels as val/a/turned.png (val)",
        "train/a/saved.png": "the same pixels as train/a/01.jpg (train)",
    }
    assert after == {path: where for path, where in before.items() if path not in quarantine(shards)}
    assert shards.info.provenance["options"]["drop_duplicates"] is True
    assert "--drop-duplicates left out 3 images of equal pixels" in shards.info.provenance["notes"]
    assert any("under different labels, and kept" in warning for warning in shards.info.warnings)
    assert "drop_duplicates" not in plain.info.provenance["options"]


def test_of_copies_under_two_labels_none_is_dropped_whatever_their_splits(tmp_path: Path) -> None:
    files = {
        f"{split}/{name}/{n}.jpg": saved(picture(n + 9 * (name == "b") + 20 * (split == "test")))
        for split in ("train", "test")
        for name in "ab"
        for n in range(4)
    }
    put(tmp_path / "images", files | {"test/b/copy.jpg": files["train/a/0.jpg"]})
    shards = converted(tmp_path / "images", tmp_path / "out", ConvertOptions(drop_duplicates=True))
    assert quarantine(shards) == {} and len(paths_of(shards)) == 17
    assert any("1 image is there twice under different labels, and kept" in each for each in shards.info.warnings)


def test_reviewed_findings_are_done_and_recorded(tmp_path: Path, faulty: Path, plain: ShardSet) -> None:
    rows = [
        about(plain, "train/b/other.jpg", action="relabel", proposed_label="a"),
        about(plain, "train/b/dark.jpg", action="drop"),
        about(plain, "train/a/blank.jpg", action="review"),
        about(plain, "train/a/wide.jpg", action="none"),
    ]
    shards = converted(faulty.parent / "images", tmp_path / "out", ConvertOptions(fix=fix(tmp_path / "f.csv", *rows)))
    expected = paths_of(plain) | {"train/b/other.jpg": "train/a"}
    del expected["train/b/dark.jpg"]
    assert paths_of(shards) == expected
    assert quarantine(shards) == {"train/b/dark.jpg": "dropped by f.csv: dark"}
    assert "1 image dropped and 1 relabelled by f.csv" in shards.info.provenance["notes"]
    assert shards.info.provenance["options"]["fix"].startswith("f.csv ")


def test_exact_copies_are_proposed_to_be_dropped_and_stay_where_the_cell_is_emptied(
    tmp_path: Path, faulty: Path, plain: ShardSet
) -> None:
    images = faulty.parent / "images"
    findings = sagitta.doctor(str(images), out=tmp_path / "findings.csv").table.to_pylist()
    copies = {row["path"] for row in findings if row["kind"].startswith("exact") and row["action"] == "drop"}
    assert "train/a/00.jpg" in copies
    assert copies == {row["path"] for row in findings if row["action"] == "drop"}
    reviewed = [{**about(plain, path), "kind": "exact-duplicate", "action": "drop"} for path in sorted(copies)]
    reviewed[0]["action"] = ""
    path = fix(tmp_path / "emptied.csv", *reviewed)
    left_out = quarantine(converted(images, tmp_path / "emptied", ConvertOptions(fix=path)))
    assert left_out.keys() == copies - {reviewed[0]["path"]} and len(copies) > 1
    as_found = ConvertOptions(fix=str(tmp_path / "findings.csv"))
    assert quarantine(converted(images, tmp_path / "dropped", as_found)).keys() == copies


def test_a_converted_dataset_is_mended_too(tmp_path: Path, faulty: Path, plain: ShardSet) -> None:
    rows = [about(plain, "train/b/dark.jpg", action="drop")]
    shards = converted(faulty, tmp_path / "out", ConvertOptions(fix=fix(tmp_path / "f.csv", *rows)))
    assert [path.partition("/0")[2].partition("/")[2] for path in quarantine(shards)] == ["train/b/dark.jpg"] or [
        path for path in quarantine(shards) if path.endswith("/train/b/dark.jpg")
    ]
    assert sum(map(len, shards.splits.values())) == 49


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"hash": "0" * 32}], r"row 2: no image train/a/04.jpg of this hash in train"),
        ([{"split": "test"}], r"row 2: no image train/a/04.jpg of this hash in test"),
        ([{"action": "remove"}], r"row 2: action 'remove'"),
        ([{"action": "relabel", "proposed_label": "c"}], r"row 2: relabel to 'c', which is none of the classes"),
        ([{"action": "relabel"}], r"row 2: relabel to ''"),
        ([{}, {"action": "relabel", "proposed_label": "b"}], r"row 3: .* both dropped and relabelled"),
    ],
)
def test_what_matches_nothing_or_contradicts_is_refused(
    tmp_path: Path, faulty: Path, plain: ShardSet, changes: list[dict[str, str]], message: str
) -> None:
    rows = [about(plain, "train/a/04.jpg", action="drop") | change for change in changes]
    options = ConvertOptions(fix=fix(tmp_path / "f.csv", *rows))
    with pytest.raises(ConfigError, match=message):
        converted(faulty.parent / "images", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_no_findings_no_conversion(tmp_path: Path, faulty: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file of findings; make one: sagitta doctor"):
        converted(faulty, tmp_path / "out", ConvertOptions(fix=str(tmp_path / "none.csv")))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"no column split"):
        converted(faulty, tmp_path / "out", ConvertOptions(fix=str(tmp_path / "other.csv")))


def test_a_class_is_not_dropped_as_a_whole(tmp_path: Path) -> None:
    files = {
        f"{name}/{number}.jpg": saved(picture(number + 9 * (name == "b"), 32)) for name in "ab" for number in range(3)
    }
    put(tmp_path / "images", files)
    plain = converted(tmp_path / "images", tmp_path / "plain", ConvertOptions(val=0, test=0))
    rows = [about(plain, f"a/{number}.jpg", action="drop") for number in range(3)]
    options = ConvertOptions(val=0, test=0, fix=fix(tmp_path / "f.csv", *rows))
    with pytest.raises(SourceError, match="class 'a' has no image left"):
        converted(tmp_path / "images", tmp_path / "out", options)


def test_another_review_is_another_dataset(tmp_path: Path, plain: ShardSet) -> None:
    rows = [about(plain, "train/a/04.jpg", action="drop")]
    first = ConvertOptions(fix=fix(tmp_path / "f.csv", *rows)).settings()
    assert ConvertOptions(fix=fix(tmp_path / "f.csv", rows[0] | {"action": "none"})).settings() != first
    assert not {"fix", "drop_duplicates"} & ConvertOptions().settings().keys()


SAVED = 'split,path,hash,kind,evidence,action,proposed_label\r\ntrain,train/b/dark.jpg,HASH,dark,"a,b\nc",Drop,\r\n'


@pytest.mark.parametrize(
    "saved",
    [
        SAVED.encode("utf-8-sig"),
        SAVED.encode("utf-16"),
        SAVED.replace("train,", "\r\n\r\ntrain,", 1).encode(),
        SAVED.replace(",", ";").encode(),
        SAVED.replace(",", "\t").encode("utf-8-sig"),
        SAVED.replace("Drop,", "Drop").encode(),
        b"action,hash,path,split\n drop ,HASH,train/b/dark.jpg,train\n,,,\n",
    ],
    ids=["mark", "utf-16", "empty lines", "semicolons", "tabs", "cells left out", "few columns in another order"],
)
def test_findings_that_a_spreadsheet_saved_are_done(
    tmp_path: Path, faulty: Path, plain: ShardSet, saved: bytes
) -> None:
    digest = about(plain, "train/b/dark.jpg")["hash"]
    wide = saved.startswith(b"\xff\xfe")
    old, new = ("HASH".encode("utf-16-le"), digest.encode("utf-16-le")) if wide else (b"HASH", digest.encode())
    (tmp_path / "f.csv").write_bytes(saved.replace(old, new))
    shards = converted(faulty.parent / "images", tmp_path / "out", ConvertOptions(fix=str(tmp_path / "f.csv")))
    assert list(quarantine(shards)) == ["train/b/dark.jpg"]


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (b"split,path,hash,action\n\n\ntrain,a,b,remove\n", "row 4: action 'remove'"),
        (b"split,path,hash,action,action\ntrain,a,b,drop,none\n", "two columns are named action"),
        (b"split,path,hash,action\ntrain,a,b,drop,c\n", "row 2: 5 cells below 4 names; put text that has ',' in it"),
        (b"split,path,hash,action\n,,,drop\n", "row 2: drop names no image"),
        (
            "split,path,hash,action\ntrain,ä,b,drop\n".encode("latin-1"),
            "not UTF-8; have the spreadsheet save it as CSV",
        ),
        (b"PK\x03\x04of a spreadsheet", "not UTF-8; have the spreadsheet save it as CSV"),
        (b"", "no column split"),
    ],
)
def test_what_a_spreadsheet_spoilt_is_refused_in_a_line(
    tmp_path: Path, faulty: Path, saved: bytes, message: str
) -> None:
    (tmp_path / "f.csv").write_bytes(saved)
    with pytest.raises(ConfigError, match=message) as told:
        converted(faulty.parent / "images", tmp_path / "out", ConvertOptions(fix=str(tmp_path / "f.csv")))
    assert "\n" not in str(told.value)


def test_of_copies_that_a_finding_may_mean_its_label_tells_which(tmp_path: Path) -> None:
    names = [*(f"{number}.jpg" for number in range(6)), "copies/0.jpg"]
    put(tmp_path / "images", {name: saved(picture(int(name[-5]), 32)) for name in names})
    lines = ["path,label,split", *(f"{name},{label},train" for name, label in zip(names, "abababb", strict=True))]
    (tmp_path / "images" / "labels.csv").write_text("\n".join(lines) + "\n")
    shares: dict[str, Any] = {"val": 0.0, "test": 0.0}
    plain = converted(tmp_path / "images", tmp_path / "plain", ConvertOptions(**shares))
    row = about(plain, "0.jpg", action="drop")
    with pytest.raises(ConfigError, match=r"row 2: 0.jpg may be one of several labels; give the one that is meant"):
        converted(tmp_path / "plain", tmp_path / "out", ConvertOptions(fix=fix(tmp_path / "f.csv", row), **shares))
    for label in "ab":
        chosen = tmp_path / f"{label}.csv"
        chosen.write_text(",".join([*row, "label"]) + "\n" + ",".join([*row.values(), label]) + "\n")
        shards = converted(tmp_path / "plain", tmp_path / label, ConvertOptions(fix=str(chosen), **shares))
        left = list(paths_of(shards).values())
        assert (left.count("train/a"), left.count("train/b")) == ((2, 4) if label == "a" else (3, 3))
