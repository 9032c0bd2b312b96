"""Deep samples and many bands through a conversion: said, or kept by a range and bands, which are recorded."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sagitta.conversion import ConvertOptions, convert
from sagitta.dataset import DatasetInfo, ShardSet, summarise
from sagitta.errors import ConfigError, SourceError
from sagitta.sources import open_source


def square(label: int, rng: np.random.Generator) -> np.ndarray:
    """12 bits; the class is a brighter square."""
    pixels = rng.normal(1200, 100, (32, 32))
    pixels[8:16, 8:16] += 600 * label
    return pixels.clip(0, 4095).astype(np.uint16)


def folder(root: Path, kind: str, count: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for index in range(count):
        label = index % 2
        path = root / ("plain", "square")[label] / f"{index}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = square(label, rng)
        if kind == "tif":
            stack = np.stack([pixels, *rng.integers(0, 4096, (12, 32, 32))]).astype(np.uint16).transpose(1, 2, 0)
            tifffile.imwrite(path, stack, photometric="minisblack", planarconfig="contig")
        else:
            Image.fromarray(pixels).save(path)
    return root


def made(source: Path, out: Path, **options: object) -> DatasetInfo:
    return convert(open_source(str(source), cache=out.parent), out, ConvertOptions(**options))  # type: ignore[arg-type]


def contrast(out: Path) -> dict[str, float]:
    """How much brighter the square is than the rest, in grey levels; the least of a class, or the most of the other."""
    found: dict[str, list[float]] = {"plain": [], "square": []}
    with ShardSet.open(out) as shards:
        for split in shards.splits.values():
            for row in range(len(split)):
                pixels = np.asarray(Image.open(io.BytesIO(split.image(row)))).astype(float)
                pixels = pixels if pixels.ndim == 2 else pixels[..., 0]
                found[split.path(row).split("/")[0]].append(float(pixels[8:16, 8:16].mean() - pixels[20:].mean()))
    return {"plain": max(found["plain"]), "square": min(found["square"])}


@pytest.mark.parametrize("resize", [None, 16])
def test_few_grey_levels_are_said_whatever_is_stored(tmp_path: Path, resize: int | None) -> None:
    info = made(folder(tmp_path / "xray", "png"), tmp_path / "out", resize=resize)
    (words,) = info.reduced
    assert info.reduced[words] == 8 and info.reduction is None
    assert words.startswith("16-bit grey to 8 bits (values ") and "6 grey levels left; --range auto" in words
    assert words in " ".join(summarise(tmp_path / "out").split())


def test_a_range_keeps_the_signal_and_is_recorded(tmp_path: Path) -> None:
    source = folder(tmp_path / "xray", "png")
    info = made(source, tmp_path / "out", range="auto")
    assert info.reduced == {} and info.warnings == ()
    low, high = info.reduction["range"] if info.reduction else (0, 0)
    assert 700 < low < 950 and 1900 < high < 2200
    found = contrast(tmp_path / "out")
    assert found["square"] > 80 and found["plain"] < 8
    given = made(source, tmp_path / "given", range=f"{low:.0f},{high:.0f}")
    assert given.fingerprint == info.fingerprint
    text = " ".join(summarise(tmp_path / "out").split())
    assert f"made 8-bit by --range {low:.0f},{high:.0f}, as PNG" in text


def test_bands_are_chosen_from_thirteen(tmp_path: Path) -> None:
    source = folder(tmp_path / "satellite", "tif")
    with pytest.raises(SourceError, match=r"13 bands of 16 bits; choose three with --bands, such as --bands 3,2,1$"):
        made(source, tmp_path / "out")
    with pytest.raises(SourceError, match=r"13 bands of 16 bits; choose three"):
        made(source, tmp_path / "out", range="auto")
    info = made(source, tmp_path / "out", range="0,4095", bands="1,2,3")
    assert info.channels == 3 and info.reduction == {"range": [0, 4095], "bands": [1, 2, 3]}
    assert contrast(tmp_path / "out")["square"] > 20
    assert DatasetInfo.read(tmp_path / "out") == info


def test_mixed_depths_and_a_range_without_effect_are_warnings(tmp_path: Path) -> None:
    source = folder(tmp_path / "mixed", "png")
    for index in range(4):
        Image.new("L", (32, 32), 40 * index).save(source / "plain" / f"eight{index}.png")
    for name, options in (("without", {}), ("with", {"range": "0,4095"})):
        (words,) = made(source, tmp_path / name, **options).warnings
        assert words.startswith("mixed depths: 8 images have more than 8 bits a sample and 4 8")
    plain = tmp_path / "plain"
    for index in range(8):
        path = plain / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 20 * index).save(path)
    for text in ("auto", "0,4095"):
        info = made(plain, tmp_path / text, range=text)
        assert info.warnings == (f"--range {text} changed nothing: no image has more than 8 bits a sample",)
    for index in range(2):
        (plain / "ab"[index] / "deep.ppm").write_bytes(b"P6 9 9 4095\n" + bytes([index]) * 486)
    (words,) = made(plain, tmp_path / "ppm", range="0,4095").warnings
    assert words.startswith("--range 0,4095 changed nothing in 2 images of more than 8 bits, whose format is read in 8")


def test_options_are_checked() -> None:
    for options, words in (({"range": "4095,0"}, "--range 4095,0"), ({"bands": "1,2"}, "--bands 1,2")):
        with pytest.raises(ConfigError, match=words):
            ConvertOptions(**options)  # type: ignore[arg-type]
