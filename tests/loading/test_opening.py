"""Train and val divided anew: every row is val in one fold, groups stay on one side, test stays what it is."""

from pathlib import Path

import pytest

from sagitta import ConfigError, ImageData, SourceOptions
from sagitta.dataset import Split


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))


def opened(source: Path, **options: object) -> ImageData:
    data = ImageData(source, 4, **options)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data


def paths(split: Split) -> set[str]:
    return {split.path(row) for row in range(len(split))}


def test_every_row_of_train_and_val_is_val_in_one_fold(photo_folder: Path) -> None:
    whole = opened(photo_folder)
    folds = [opened(photo_folder, folds=4, fold=fold) for fold in (1, 2, 3, 4)]
    pooled = paths(whole.shards.splits["train"]) | paths(whole.shards.splits["val"])
    vals = [paths(data.shards.splits["val"]) for data in folds]
    assert set().union(*vals) == pooled and sum(map(len, vals)) == len(pooled)
    for data, val in zip(folds, vals, strict=True):
        assert paths(data.shards.splits["train"]) == pooled - val
        assert paths(data.shards.splits["test"]) == paths(whole.shards.splits["test"])
        assert data.info == whole.info and data.class_counts.sum() == data.rows == len(pooled) - len(val)
    labels = folds[0].shards.splits["val"].labels
    assert sorted(len(labels[labels == label]) for label in (0, 1)) in ([4, 4], [4, 5], [5, 5])
    images, found = next(iter(folds[0].val_dataloader()))
    assert len(images) == len(found) and found.tolist() == labels[: len(found)].tolist()
    assert vals[0] != paths(opened(photo_folder, folds=4, fold=1, seed=1).shards.splits["val"])


def test_a_group_stays_on_one_side(photo_folder: Path) -> None:
    files = sorted(path.relative_to(photo_folder).as_posix() for path in photo_folder.rglob("*.jpg"))
    lines = [
        f"{file},{file.split('/')[0]},{'' if number % 7 == 6 else number % 7}" for number, file in enumerate(files)
    ]
    (photo_folder / "labels.csv").write_text("\n".join(["path,label,camera", *lines]) + "\n")
    layout = SourceOptions(group_column="camera")
    for fold in (1, 2, 3):
        shards = opened(photo_folder, folds=3, fold=fold, layout=layout).shards
        groups = {name: split.column("group") for name, split in shards.splits.items()}
        sides = {name: {value for value in column if value} for name, column in groups.items() if column is not None}
        assert sides["val"] and not sides["val"] & sides["train"]
    ungrouped = opened(photo_folder, folds=3, fold=1).shards
    assert ungrouped.splits["train"].column("group") is None


def test_a_fold_that_is_not_there_is_refused(photo_folder: Path) -> None:
    for options, words in (({"folds": 1}, "folds 1"), ({"fold": 1}, "fold 1"), ({"folds": 3, "fold": 4}, "fold 4")):
        with pytest.raises(ConfigError, match=words):
            ImageData(photo_folder, **options)  # type: ignore[arg-type]
