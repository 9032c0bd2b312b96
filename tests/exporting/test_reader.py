"""The reader that stands beside an exported model: the same pixels as Sagitta's, of any image, to the last bit."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagitta.exporting.graph import specification
from sagitta.exporting.reader import read
from sagitta.images import Reduction
from sagitta.loading import DecodedAhead, EncodedFiles, Preprocessing

MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16")


def preprocessing(size: tuple[int, int], crop_pct: float, interpolation: str, channels: int) -> Preprocessing:
    statistics = (0.5,) * channels
    return Preprocessing(size, crop_pct, interpolation, statistics, statistics)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    mode=st.sampled_from(MODES),
    orientation=st.integers(0, 9),
    jpeg=st.booleans(),
    size=st.sampled_from([(16, 16), (33, 33), (16, 40), (31, 20)]),
    crop_pct=st.sampled_from([1.0, 0.875, 0.9]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**16),
)
def test_any_image_has_sagittas_pixels(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    mode: str,
    orientation: int,
    jpeg: bool,
    size: tuple[int, int],
    crop_pct: float,
    interpolation: str,
    channels: int,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (height, width), np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
        image = image if mode == "RGBA" else image.convert("RGB" if mode != "LA" else "LA").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    form = "JPEG" if mode == "CMYK" or (jpeg and mode in ("RGB", "L")) else "PNG"
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif)
    path = tmp_path_factory.mktemp("read") / "image"
    path.write_bytes(buffer.getvalue())

    how = preprocessing(size, crop_pct, interpolation, channels)
    decoded = DecodedAhead(EncodedFiles([str(path)]), [how], 1).decode(range(1))
    (wanted,) = decoded.pixels[0].permute(0, 2, 3, 1).numpy()
    found = read(str(path), specification(how))
    assert not decoded.errors and found.dtype == np.uint8 and found.shape == (*size, channels)
    np.testing.assert_array_equal(found, wanted)


def test_what_the_reader_does_not_do_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    how = Preprocessing((8, 8), 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, reduction=Reduction((0, 4095)))
    with pytest.raises(ValueError, match="which this reader does not do"):
        read(str(tmp_path / "a.png"), specification(how))


def test_it_stays_small() -> None:
    source = Path(specification.__code__.co_filename).with_name("reader.py")
    assert len(source.read_text().splitlines()) <= 60
