import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from sagitta import Loader, ShardSet
from sagitta.conversion.options import ConvertOptions
from sagitta.conversion.pipeline import convert
from sagitta.errors import DatasetError
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.compiled import Compiled, translated
from sagitta.models.features import FeatureStore, extract
from sagitta.models.heads import split_head
from sagitta.models.inference import prepare
from sagitta.models.networks import build_network
from sagitta.sources.detect import open_source

HOW = Preprocessing((32, 32), 1.0, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def shards(photo_folder: Path, tmp_path: Path) -> ShardSet:
    convert(open_source(str(photo_folder), cache=tmp_path), tmp_path / "dataset", ConvertOptions(workers=1))
    return ShardSet.open(tmp_path / "dataset")


@pytest.fixture
def body() -> nn.Module:
    torch.manual_seed(0)
    return split_head(build_network("resnet20", 2, 3, (32, 32)), "resnet20")[0]


@pytest.fixture
def store(body: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "cache"))
    return FeatureStore("resnet20", body, HOW)


def test_store_finds_rows_by_content(store: FeatureStore) -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert store.missing(pa.array(["a", "b"])).tolist() == [0, 1]
    store.add(pa.array(["a", "b"]), vectors[:2])
    store.add(pa.array(["c", "d"]), vectors[2:])
    assert store.missing(pa.array(["b", "e", "c"])).tolist() == [1]
    wanted = pa.array(["d", "a", "d", "b"])
    assert store.read(wanted).tolist() == vectors[[3, 0, 3, 1]].tolist()


def test_what_lacks_in_several_splits_is_counted_once(store: FeatureStore) -> None:
    store.add(pa.array(["a"]), np.ones((1, 3), np.float32))
    assert store.lacking([pa.array(["a", "b", "c"]), pa.array(["c", "d", "a"])]) == 3
    assert store.lacking([pa.array(["a"]), pa.array([], pa.string())]) == 0


def test_damaged_parts_are_computed_again(store: FeatureStore) -> None:
    store.add(pa.array(["a"]), np.ones((1, 3), np.float32))
    (part,) = store.folder.glob("*.parquet")
    part.write_bytes(part.read_bytes()[:40])
    assert store.missing(pa.array(["a"])).tolist() == [0]
    assert not part.exists()


def test_one_flipped_bit_in_a_part_never_changes_a_feature(store: FeatureStore) -> None:
    hashes, rng = pa.array(["a", "b", "c"]), random.Random(0)
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    ends = []
    for _ in range(200):
        store.add(hashes, vectors)
        (part,) = store.folder.glob("*.parquet")
        data = bytearray(part.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        part.write_bytes(data)
        store.__dict__.pop("_parts", None)  # as another process finds it
        if store.missing(hashes).size:
            ends.append("computed again")
            continue
        ends.append("refused")
        with suppress(DatasetError):
            assert (store.read(hashes) == vectors).all()
            ends[-1] = "right"
        assert bool(store.missing(hashes).size) == (ends[-1] == "refused")  # then it is removed
    assert ends.count("computed again") > 50 and ends.count("refused") > 5


def test_other_weights_or_preprocessing_have_features_of_their_own(store: FeatureStore, body: nn.Module) -> None:
    folders = {store.folder, FeatureStore("resnet20", body, Preprocessing.from_dict(HOW.to_dict())).folder}
    assert len(folders) == 1
    assert FeatureStore("resnet20", body, replace(HOW, size=(40, 40))).folder not in folders
    with torch.no_grad():
        next(body.parameters()).add_(1)
    assert FeatureStore("resnet20", body, HOW).folder not in folders


def test_an_interrupted_run_goes_on(store: FeatureStore, body: nn.Module, shards: ShardSet) -> None:
    hashes = shards.splits["train"].content_hashes
    begun = extract(store, body, shards, "train", HOW, 4)
    done = next(begun) + next(begun)
    begun.close()  # as an exception or Ctrl-C does
    assert len(store.missing(hashes)) == len(hashes) - done > 0
    assert sum(extract(store, body, shards, "train", HOW)) == len(hashes) - done
    assert not store.missing(hashes).size
    assert not list(extract(store, body, shards, "train", HOW))


def test_features_do_not_depend_on_how_they_were_batched(
    store: FeatureStore, body: nn.Module, shards: ShardSet
) -> None:
    hashes = shards.splits["train"].content_hashes
    list(extract(store, prepare(body), shards, "train", HOW, batch_size=7))
    found = store.read(hashes)
    images, _ = Loader(shards, "train", train=False, preprocessing=HOW).take(np.arange(len(hashes)))
    with torch.inference_mode():
        expected = body(images).numpy()
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_features_of_many_images_come_from_another_engine_and_are_the_same(
    store: FeatureStore, body: nn.Module, shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = shards.splits["train"].content_hashes
    list(extract(store, body, shards, "train", HOW))
    plain = store.read(hashes)
    for path in store.folder.glob("*.parquet"):
        path.unlink()
    store = FeatureStore.named(store.folder.name)
    monkeypatch.setattr("sagitta.models.compiled._PIXELS", 1)
    engines: list[object] = []

    def noted(*given: Any) -> Any:
        engines.append(translated(*given))
        return engines[-1]

    monkeypatch.setattr("sagitta.models.features.translated", noted)
    list(extract(store, body, shards, "train", HOW))
    assert isinstance(engines[0], Compiled)
    np.testing.assert_allclose(store.read(hashes), plain, atol=1e-4 * np.abs(plain).max())
