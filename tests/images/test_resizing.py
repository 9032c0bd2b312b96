"""A window of a resized image is Pillow's, and takes no more memory than source and window."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sagitta.images import decoding
from sagitta.images.decoding import JOB, decode_batch
from sagitta.images.resizing import resize_window


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize("shape", [(31, 47, 3), (4, 300, 3), (300, 4, 1), (1, 1, 3), (200, 9, 3)])
def test_any_window_is_that_of_the_whole(shape: tuple[int, int, int], bicubic: bool) -> None:
    rng = np.random.default_rng(sum(shape))
    pixels = rng.integers(0, 256, shape, np.uint8)
    image = Image.fromarray(pixels.squeeze(2) if shape[2] == 1 else pixels)
    how = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    for _ in range(12):
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        left, top = rng.integers(0, 8, 2) / 16  # `source` is the part, in whole pixels
        box = (left, top, shape[1] - left, shape[0] - top)
        whole = np.asarray(image.resize((width, height), how, box=box)).reshape(height, width, -1)
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        part = resize_window(pixels, box, (height, width), (y, x, height - y, width - x), bicubic=bicubic)
        np.testing.assert_array_equal(part, whole[y:, x:])


@pytest.mark.parametrize(
    ("shape", "how", "pixels"),
    [
        ((40, 9), "bilinear", [[133, 130, 139, 128], [130, 136, 128, 132], [141, 148, 137, 121]]),  # down first
        ((9, 40), "bicubic", [[133, 147, 132], [103, 127, 139], [126, 137, 145], [127, 136, 143]]),  # across first
        ((20, 20), "bicubic", [[109, 126, 135, 153], [142, 115, 135, 138], [134, 148, 118, 115]]),  # across first
    ],
)
def test_pillows_own_order_of_passes_is_still_that_which_defines_the_pixels(
    shape: tuple[int, int], how: str, pixels: list[list[int]]
) -> None:
    """In the other order some values differ by one, here too: then `pillow` in pyproject.toml must not allow it."""
    source = ((np.arange(shape[0] * shape[1]) ** 2 * 37) % 251).astype(np.uint8).reshape(shape)
    size = (len(pixels[0]), len(pixels))
    assert np.asarray(Image.fromarray(source).resize(size, Image.Resampling[how.upper()])).tolist() == pixels
    whole = ((0, 0, shape[1], shape[0]), size[::-1], (0, 0, *size[::-1]))
    ours = resize_window(source[..., None], *whole, bicubic=how == "bicubic")
    assert ours[..., 0].tolist() == pixels


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_batches_are_the_same_with_and_without_the_whole(
    kind: str, mode: str, monkeypatch: pytest.MonkeyPatch, photos: dict[str, Any]
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photos["china"][:9, :400]).convert(mode).save(buffer, kind)
    jobs = np.zeros(2, JOB)
    jobs["box"], jobs["resized"], jobs["window"], jobs["orientation"] = (3, 0, 380, 9), (64, 2681), (3, 1300), (1, 6)
    jobs["box"][1], jobs["resized"][1], jobs["window"][1], jobs["flip"][1] = (0, 3, 9, 380), (2681, 64), (1300, 3), 1
    found = []
    for channels in (1, 3):
        for engine, most in (("1", 2**22), ("0", 2**22), ("0", 0)):
            monkeypatch.setenv("SAGITTA_NATIVE", engine)
            monkeypatch.setattr(decoding, "_MOST_RESIZED", most)
            out = np.zeros((2, 56, 50, channels), np.uint8)
            decode_batch([buffer.getvalue()] * 2, jobs, out, filter="bicubic")
            found.append(out)
        np.testing.assert_array_equal(found[-3], found[-2])
        np.testing.assert_array_equal(found[-2], found[-1])


THIN = """
import io, re, sys, resource
import numpy as np
from pathlib import Path
from PIL import Image
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
from sagitta.images import JOB, decode_batch
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
kind, height, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = io.BytesIO()
Image.fromarray(np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)).save(data, kind)
jobs, short, long = np.zeros(1, JOB), 256, 256 * max(height, width) // min(height, width)
jobs["box"] = 0, 0, width, height
jobs["resized"] = (short, long) if height < width else (long, short)
jobs["window"], jobs["orientation"] = (jobs["resized"] - 224) // 2, 1
out = np.zeros((1, 224, 224, 3), np.uint8)
before = peak()
decode_batch([data.getvalue()], jobs, out)
print(peak() - before, len(np.unique(out)))
"""


@pytest.mark.parametrize("engine", ["1", "0"])
@pytest.mark.parametrize("size", [(4, 5000), (5000, 4)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_thin_image_takes_little_memory(
    kind: str, size: tuple[int, int], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", engine)
    command = [sys.executable, "-c", THIN, kind, *map(str, size)]
    grown, levels = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(grown) < 60_000  # kilobytes; the whole resized image has 250,000
    assert int(levels) > 10
