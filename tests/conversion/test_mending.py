import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

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
