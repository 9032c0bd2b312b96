"""Small whole files of every kind that is read, for fuzz.py to damage: the same bytes each time."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

Pixels = npt.NDArray[np.uint8]


def picture(seed: int, height: int = 36, width: int = 50) -> Pixels:
    """A slope with some noise, (height, width, 3)."""
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] // np.array([1, 2, 3])
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    pixels: Pixels = (slope + noise).astype(np.uint8)
    return pixels


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def images() -> list[bytes]:
    """Every format and mode that people have, and those that are refused by name."""
    rgb = Image.fromarray(picture(0))
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "said before the pixels", zip=True)
    deep = Image.fromarray(picture(1)[..., 0].astype(np.uint16) * 257)
    floats = Image.fromarray(picture(1)[..., 0].astype(np.float32))
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.convert("L"))
    jpegs: list[dict[str, object]] = [
        {}, {"progressive": True}, {"subsampling": "4:4:4", "exif": exif}, {"subsampling": "4:2:2"},
        {"restart_marker_rows": 1}, {"restart_marker_blocks": 2, "comment": b"hello"},
        {"restart_marker_blocks": 1, "subsampling": "4:4:4"},
    ]  # fmt: skip
    found = [encoded(rgb, "JPEG", **options) for options in jpegs]
    found += [encoded(rgb.convert(mode), "JPEG") for mode in ("L", "CMYK")]
    found *= 3  # which the native core reads
    found += [encoded(rgb.convert(mode), "PNG") for mode in ("RGB", "L", "P", "1", "LA")]
    found += [encoded(deep, "PNG"), encoded(alpha, "PNG", exif=exif), encoded(rgb, "PNG", pnginfo=text)]
    found += [found[-1][:-12] + _chunk(b"zTXt", b"k\0\0" + zlib.compress(b"behind the pixels")) + found[-1][-12:]]
    found += [encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])]
    found += [encoded(rgb, "WEBP"), encoded(alpha, "WEBP", lossless=True)]
    found += [encoded(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("WEBP", "GIF", "TIFF")]
    found += [encoded(rgb, "TIFF", compression=each) for each in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    found += [encoded(each, "TIFF") for each in (deep, floats, alpha, rgb.convert("CMYK"), rgb.convert("1"))]
    found += [encoded(rgb, kind) for kind in ("BMP", "PPM", "TGA", "ICO", "JPEG2000", "QOI", "SGI", "PCX")]
    found += [encoded(rgb.convert("P"), kind) for kind in ("GIF", "BMP")]
    array = io.BytesIO()
    np.save(array, picture(0))
    return [*found, array.getvalue()]


def _chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)


def named(count: int = 8) -> dict[str, bytes]:
    """``CLASS/NUMBER.EXTENSION`` -> bytes of small images in two classes."""
    kinds = ("png", "jpeg")
    return {
        f"{'ab'[number % 2]}/{number}.{kinds[number // 2 % 2]}": encoded(
            Image.fromarray(picture(number, 9, 11)), kinds[number // 2 % 2]
        )
        for number in range(count)
    }


def _tar(files: Iterable[tuple[str, bytes]], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _zip(files: Iterable[tuple[str, bytes]], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def archives() -> dict[str, bytes]:
    """File name -> an archive of class folders, or of WebDataset's samples."""
    files = named()
    samples = [
        (f"{number:04d}.{extension}", data)
        for number, (path, image) in enumerate(files.items())
        for extension, data in ((path.rpartition(".")[2], image), ("cls", path[:1].encode()))
    ]
    return {
        "x.tar": _tar(files.items()),
        "x.tar.gz": _tar(files.items(), "w:gz"),
        "x.tar.xz": _tar(files.items(), "w:xz"),
        "x.tar.bz2": _tar(files.items(), "w:bz2"),
        "samples.tar": _tar(samples),
        "stored.zip": _zip(files.items(), zipfile.ZIP_STORED),
        "packed.zip": _zip(files.items(), zipfile.ZIP_DEFLATED),
    }


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def tables() -> dict[str, bytes]:
    """File name -> a table or list over the files of :func:`named`, or one that holds images."""
    files = named()
    rows = [(path, {"a": "cat", "b": "dog"}[path[0]], "train" if number < 6 else "test")
            for number, path in enumerate(files)]  # fmt: skip
    lines = [f"{path},{label},{split}" for path, label, split in rows]
    coco = {
        "images": [{"id": number, "file_name": path} for number, (path, *_) in enumerate(rows)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": n, "image_id": n, "category_id": 1 + n % 2} for n in range(len(rows))],
    }
    columns = dict(zip(("path", "label", "split"), map(list, zip(*rows, strict=True)), strict=True))
    stored = [{"bytes": data, "path": path} for path, data in files.items()]
    return {
        "t.csv": "\n".join(["path,label,split", *lines]).encode(),
        "t.tsv": "\n".join(["path\tlabel\tsplit", *lines]).replace(",", "\t").encode(),
        "utf16.csv": "\n".join(["path,label,split", *lines]).encode("utf-16"),
        "t.txt": "\n".join(f"{path} {label}" for path, label, _ in rows).encode(),
        "t.json": json.dumps(coco).encode(),
        "t.jsonl": "\n".join(json.dumps({"path": path, "label": label}) for path, label, _ in rows).encode(),
        "t.parquet": _parquet(pa.table(columns)),
        "images.parquet": _parquet(pa.table({"image": stored, "label": [row[1] for row in rows]})),
    }


def arrays() -> dict[str, dict[str, bytes]]:
    """Name -> files of MNIST's and of CIFAR's kind."""
    grey = np.stack([picture(number, 28, 28)[..., 0] for number in range(12)])
    labels = np.arange(12, dtype=np.uint8) % 3
    idx = {
        f"{part}-{kind}-ubyte": b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
        + array.tobytes()
        for part in ("train", "t10k")
        for kind, array in (("images-idx3", grey), ("labels-idx1", labels))
    }  # fmt: skip
    packed = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in idx.items()}
    data = np.stack([picture(number, 32, 32).transpose(2, 0, 1).reshape(-1) for number in range(12)])
    cifar = {
        "batches.meta": pickle.dumps({b"label_names": [b"cat", b"dog", b"cow"]}, 2),
        "data_batch_1": pickle.dumps({b"data": data, b"labels": labels.tolist()}, 2),
        "test_batch": pickle.dumps({b"data": data[::-1].copy(), b"labels": labels[::-1].tolist()}, 2),
    }
    return {"idx": idx, "idx.gz": packed, "cifar": cifar}


def write(files: dict[str, bytes], folder: Path) -> None:
    """Write files below a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
