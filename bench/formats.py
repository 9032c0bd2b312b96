"""Each peer's own writer: image files on disk -> the format that its loader reads, original bytes untouched.

Runs inside of the peer's environment; the converter benchmark times these same functions.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WORKERS = 2
_SHARDS = 4  # at least as many as a loader has workers

Writer = Callable[[Sequence[Path], Sequence[int], Path], None]


def write_sagitta(files: Sequence[Path], _labels: Sequence[int], folder: Path) -> None:
    """Convert the class folders that hold the files: every image decoded, hashed and measured."""
    from sagitta.conversion.options import ConvertOptions
    from sagitta.conversion.pipeline import convert
    from sagitta.sources.detect import open_source

    source = open_source(str(files[0].parents[1]), cache=folder)
    convert(source, folder / "dataset", ConvertOptions(val=0, test=0))


def write_parquet(files: Sequence[Path], labels: Sequence[int], folder: Path) -> None:
    """Write with Hugging Face datasets: image files embedded in Parquet."""
    from datasets import Dataset, Image
    from datasets.table import embed_table_storage

    rows = Dataset.from_dict({"image": list(map(str, files)), "label": list(labels)}).cast_column("image", Image())
    for shard in range(_SHARDS):
        part = rows.shard(_SHARDS, shard, contiguous=True).with_format("arrow")
        part = part.map(embed_table_storage, batched=True, batch_size=200, num_proc=1)
        part.to_parquet(str(folder / f"train-{shard:05d}.parquet"))


def write_webdataset(files: Sequence[Path], labels: Sequence[int], folder: Path) -> None:
    """Write tar shards with WebDataset's ShardWriter."""
    import webdataset

    per_shard = -(-len(files) // _SHARDS)
    with webdataset.ShardWriter(str(folder / "%05d.tar"), maxcount=per_shard, verbose=0) as sink:
        for index, (file, label) in enumerate(zip(files, labels, strict=True)):
            sink.write({"__key__": f"{index:06d}", "jpg": file.read_bytes(), "cls": str(label)})


def _sample(item: tuple[str, int]) -> dict[str, Any]:
    return {"image": Path(item[0]).read_bytes(), "label": item[1]}


def write_litdata(files: Sequence[Path], labels: Sequence[int], folder: Path) -> None:
    """Write chunks with LitData's optimize, in two processes."""
    import litdata

    items = list(zip(map(str, files), labels, strict=True))
    litdata.optimize(_sample, items, str(folder), chunk_bytes="64MB", num_workers=WORKERS, verbose=False)


def write_streaming(files: Sequence[Path], labels: Sequence[int], folder: Path) -> None:
    """Write MosaicML's MDS shards."""
    from streaming import MDSWriter

    with MDSWriter(out=str(folder / "mds"), columns={"image": "bytes", "label": "int"}, size_limit="64mb") as sink:
        for file, label in zip(files, labels, strict=True):
            sink.write({"image": file.read_bytes(), "label": label})


class _Original(np.ndarray[Any, Any]):
    """Pixels that remember the file they came from."""

    jpeg: bytes


class _Samples:
    """What FFCV's writer iterates: (pixels, label)."""

    def __init__(self, files: Sequence[Path], labels: Sequence[int]) -> None:
        self._files, self._labels = files, labels

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        data = self._files[index].read_bytes()
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).view(_Original)
        pixels.jpeg = data
        return pixels, self._labels[index]


def write_ffcv(files: Sequence[Path], labels: Sequence[int], folder: Path) -> None:
    """Write FFCV's beton in its JPEG mode; it would encode anew, so its encoder is handed the original bytes."""
    from ffcv.fields import IntField, RGBImageField, rgb_image
    from ffcv.writer import DatasetWriter

    rgb_image.encode_jpeg = lambda pixels, _quality: np.frombuffer(pixels.jpeg, np.uint8)
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    writer = DatasetWriter(str(folder / "data.beton"), fields, num_workers=WORKERS)
    writer.from_indexed_dataset(_Samples(files, labels))


def write_ffcv_raw(files: Sequence[Path], labels: Sequence[int], folder: Path) -> None:
    """Write FFCV's beton with decoded pixels, its fastest form, for thumbnails."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    writer = DatasetWriter(str(folder / "data.beton"), fields, num_workers=WORKERS)
    writer.from_indexed_dataset(_Samples(files, labels))


WRITERS: dict[str, Writer | None] = {
    "files": None,  # the loader reads the image files themselves
    "sagitta": write_sagitta,
    "parquet": write_parquet,
    "webdataset": write_webdataset,
    "litdata": write_litdata,
    "streaming": write_streaming,
    "ffcv": write_ffcv,
    "ffcv_raw": write_ffcv_raw,
}
