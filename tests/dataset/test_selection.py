"""A selection is the rows that were selected, in every respect, in another process too."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from sagitta import ShardSet, convert
from sagitta.dataset.selection import Regrouped, Selection


@pytest.fixture
def shards(tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> ShardSet:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    return convert(photo_folder, tmp_path / "dataset", workers=1)


def test_a_selection_is_its_rows(shards: ShardSet) -> None:
    train, val = shards.splits["train"], shards.splits["val"]
    rows = [(train, 5), (train, 2), (val, 1)]
    chosen = Selection("val", [(train, np.array([5, 2])), (val, np.array([1]))])
    for selection in (chosen, pickle.loads(pickle.dumps(chosen))):
        assert len(selection) == 3 and selection.name == "val" and selection.zero_copy
        assert [bytes(image) for image in selection.images([0, 1, 2])] == [bytes(s.image(row)) for s, row in rows]
        assert [selection.path(row) for row in range(3)] == [split.path(row) for split, row in rows]
        assert [selection.where(row) for row in range(3)] == [split.where(row) for split, row in rows]
        assert selection.labels.tolist() == [split.labels[row] for split, row in rows]
        for name in ("content_hashes", "source_hashes"):
            assert getattr(selection, name).to_pylist() == [getattr(split, name)[row].as_py() for split, row in rows]
        widths, wanted = selection.column("width"), [split.column("width") for split, _ in rows]
        assert widths is not None
        assert widths.tolist() == [each[row] for each, (_, row) in zip(wanted, rows, strict=True) if each is not None]
        assert selection.column("group") is None
        selection.release()
        selection.close()
        with pytest.raises(IndexError):
            selection.image(-1)


def test_a_dataset_with_other_splits_says_the_same_of_itself(shards: ShardSet) -> None:
    few = Selection("train", [(shards.splits["train"], np.arange(4))])
    other = pickle.loads(pickle.dumps(Regrouped(shards, {"train": few})))
    assert list(other.splits) == ["train"] and len(other.splits["train"]) == 4
    assert other.info == shards.info and len(shards.splits) == 3
