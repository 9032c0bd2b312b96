"""A split as anybody's map-style Dataset."""

import io
import pickle
from pathlib import Path

import albumentations as A
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from sagitta.dataset.shards import ShardSet
from sagitta.errors import ConfigError, DatasetError
from sagitta.loading.mapstyle import SplitDataset


@pytest.fixture
def table(tmp_path: Path, photo_folder: Path) -> Path:
    """Eight photos of several sizes, the second one turned by EXIF, with a further column."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = sorted(photo_folder.rglob("*.jpg"))[:8]
    Image.open(files[1]).save(files[1], exif=exif)
    images = pa.array([{"bytes": file.read_bytes(), "path": file.name} for file in files])
    columns = {"image": images, "label": [0, 1] * 4, "width": pa.array(range(8), pa.int32())}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def test_a_split_gives_itself_as_a_dataset(table: Path) -> None:
    own = ShardSet.open(table).splits["train"].as_dataset(v2.CenterCrop(32))
    assert isinstance(own, torch.utils.data.Dataset) and isinstance(own, SplitDataset)
    expected = SplitDataset(table, transform=v2.CenterCrop(32))
    assert all(torch.equal(own[row][0], expected[row][0]) and own[row][1] == expected[row][1] for row in range(8))
    assert own[0][0].shape == (3, 32, 32)


def test_items_are_whole_upright_images_and_their_labels(table: Path) -> None:
    dataset = SplitDataset(table)
    assert len(dataset) == 8 and [label for _, label in dataset] == [0, 1] * 4  # type: ignore[attr-defined]
    for row in (0, 1, -1):
        image, _ = dataset[row]
        stored = Image.open(io.BytesIO(dataset.split.image(row % 8)))
        expected = np.asarray(ImageOps.exif_transpose(stored)).transpose(2, 0, 1)
        assert image.dtype == torch.uint8 and image.is_contiguous() and (image.numpy() == expected).all()
    assert len({tuple(image.shape) for image, _ in dataset}) > 4  # type: ignore[attr-defined]
    widths = dataset.split.column("width")
    assert widths is not None and widths.tolist() == list(range(8))
    with pytest.raises(IndexError):
        dataset[8]
    with pytest.raises(IndexError):
        dataset[-9]


def test_somebodys_dataloader_takes_it_and_its_workers_may_have_it(table: Path) -> None:
    dataset = SplitDataset(table, "train", v2.Compose([v2.Resize((8, 9)), v2.ToDtype(torch.float32, scale=True)]))
    batches = list(DataLoader(dataset, 4))
    assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 8, 9)] * 2
    sent = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(torch.cat([images for images, _ in DataLoader(sent, 4)]), torch.cat([b[0] for b in batches]))
    assert batches[0][0].dtype == torch.float32 and batches[0][1].tolist() == [0, 1, 0, 1]


def test_albumentations_are_taken_and_labels_are_matched_by_name(table: Path) -> None:
    image, label = SplitDataset(table, transform=A.Resize(5, 6), class_names=["1", "x", "0"])[0]
    assert image.shape == (3, 5, 6) and image.dtype == torch.uint8 and label == 2


def test_several_labels_are_a_row_of_zeros_and_ones(photo_folder: Path, tmp_path: Path) -> None:
    data = sorted(photo_folder.rglob("*.jpg"))[0].read_bytes()
    images = pa.array([{"bytes": data, "path": None}] * 2)
    pq.write_table(pa.table({"image": images, "labels": [[0, 2], [1]]}), tmp_path / "train.parquet")
    _, label = SplitDataset(tmp_path / "train.parquet")[0]
    assert label.dtype == torch.float32 and label.tolist() == [1.0, 0.0, 1.0]


def test_errors_name_what_is_wrong(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no split 'val'; the dataset has train"):
        SplitDataset(table, "val")
    with pytest.raises(ConfigError, match="transform 3: cannot be called"):
        SplitDataset(table, transform=3)  # type: ignore[arg-type]  # wrong on purpose
    images = pa.array([{"bytes": b"nothing", "path": "0.jpg"}])
    pq.write_table(pa.table({"image": images, "label": [0]}), tmp_path / "train-bad.parquet")
    with pytest.raises(DatasetError, match=r"0\.jpg \(train row 0\): not an image"):
        SplitDataset(tmp_path / "train-bad.parquet")[0]
