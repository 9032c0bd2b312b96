"""Every pixel is compared with Pillow's.

To run the core under the sanitizers, build it with ``CXXFLAGS="-O1 -g -fsanitize=address,undefined
-fno-sanitize-recover=all" python setup.py build_ext --inplace --force`` and start pytest with
``LD_PRELOAD=$(g++ -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0``.
"""

import csv
import io
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sagitta.errors import ConfigError, ImageError
from sagitta.images import decoding, native
from sagitta.images.decoding import JOB, BatchError, Filter, Profile, decode_batch
from sagitta.images.encoding import add_restart_markers

Pixels = npt.NDArray[np.uint8]
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1")
FILTERS: tuple[Filter, Filter] = ("bilinear", "bicubic")
PROFILES: tuple[Profile, Profile] = ("exact", "fast")


@pytest.fixture(params=["native", "pillow"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pillow":
        monkeypatch.setenv("SAGITTA_NATIVE", "0")
    elif native.library() is None:
        pytest.skip("the native core is not built")
    return str(request.param)


@pytest.fixture
def core() -> None:
    if native.library() is None:
        pytest.skip("the native core is not built")


def jpeg(pixels: Pixels, *, subsampling: str = "4:2:0", **options: Any) -> bytes:
    """Encode (H, W, 3) or (H, W) pixels; Pillow writes three subsamplings, simplejpeg the others."""
    if subsampling in ("4:4:0", "4:1:1"):
        return bytes(simplejpeg.encode_jpeg(pixels, 85, "RGB", subsampling.replace(":", ""), True))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85, subsampling=subsampling, **options)
    return buffer.getvalue()


def random_jobs(rng: np.random.Generator, count: int, image: Image.Image, out: tuple[int, int]) -> npt.NDArray[np.void]:
    """Boxes of any shape; half of them resized to the output, half to something larger with a window."""
    jobs = np.zeros(count, JOB)
    for job in jobs:
        width, height = rng.integers(1, image.width + 1), rng.integers(1, image.height + 1)
        left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
        job["box"] = left, top, left + width, top + height
        job["resized"] = out + rng.integers(0, 40, 2) * rng.integers(0, 2)
        job["window"] = rng.integers(0, job["resized"] - out + 1)
        job["flip"] = rng.integers(0, 2)
        job["orientation"] = 1
    return jobs


def by_pillow(upright: Image.Image, job: np.void, out: tuple[int, int], filter: Filter) -> Pixels:
    height, width = (int(side) for side in job["resized"])
    top, left = job["window"]
    resized = upright.crop(tuple(job["box"].tolist())).resize((width, height), Image.Resampling[filter.upper()])
    window = np.asarray(resized.convert("RGB"))[top : top + out[0], left : left + out[1]]
    return window[:, ::-1] if job["flip"] else window


def run(data: list[bytes], jobs: npt.NDArray[np.void], out: tuple[int, int], **options: Any) -> Pixels:
    pixels = np.full((len(jobs), *out, 3), 77, np.uint8)
    decode_batch(data, jobs, pixels, threads=2, **options)
    return pixels


def assert_like_pillow(data: bytes, upright: Image.Image, orientation: int, count: int, seed: int) -> None:
    """Compare ``count`` random crops by each filter with those of ``upright``, which is decoded already."""
    upright.load()  # Pillow reads an image when it is first looked at, which two threads must not do at once
    rng = np.random.default_rng(seed)
    for filter, out in zip(FILTERS, ((64, 48), (31, 57)), strict=True):
        jobs = random_jobs(rng, count, upright, out)
        jobs["orientation"] = orientation
        pixels = run([data] * count, jobs, out, filter=filter)
        with ThreadPoolExecutor(2) as pool:
            wanted = pool.map(by_pillow, *zip(*((upright, job, out, filter) for job in jobs), strict=True))
            for job, got, right in zip(jobs, pixels, wanted, strict=True):
                np.testing.assert_array_equal(got, right, err_msg=f"{job} {filter}")


def variants(pixels: Pixels) -> dict[str, bytes]:
    files = {name: jpeg(pixels, subsampling=name) for name in SUBSAMPLINGS}
    for name in SUBSAMPLINGS[:3]:
        files[f"{name} progressive"] = jpeg(pixels, subsampling=name, progressive=True)
        for rows in (1, 2):
            files[f"{name} restart {rows}"] = jpeg(pixels, subsampling=name, restart_marker_rows=rows)
        files[f"{name} restart 5 blocks"] = jpeg(pixels, subsampling=name, restart_marker_blocks=5)
    files["rgb"] = jpeg(pixels, subsampling="4:4:4", keep_rgb=True)
    files["grey"] = jpeg(pixels[..., 1])
    frame = files["grey"].index(b"\xff\xc0")
    files["grey, sampling 2x2"] = files["grey"][: frame + 11] + b"\x22" + files["grey"][frame + 12 :]
    files["grey progressive"] = jpeg(pixels[..., 1], progressive=True)
    if native.library():
        files |= {f"{name} marked": add_restart_markers(data) for name, data in files.items()}
    return files


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("size", [(240, 320), (97, 131), (33, 17), (3, 200), (200, 3), (1, 1)])
def test_batch_equals_pillow_for_every_kind_of_jpeg(photos: dict[str, Pixels], size: tuple[int, int]) -> None:
    pixels = np.ascontiguousarray(photos["china"][100 : 100 + size[0], 200 : 200 + size[1]])
    for index, data in enumerate(variants(pixels).values()):
        orientation = 1 + index % 8
        image = Image.open(io.BytesIO(data))
        upright = image.transpose(decoding._TRANSPOSE[orientation]) if orientation > 1 else image
        assert_like_pillow(data, upright, orientation, count=4, seed=index)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("count", [25, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("folder", ["photos", "exif-orientation", "camera-photos", "odd-images"])
def test_batch_equals_pillow_on_crops_of_every_real_photo(data_dir: Path, folder: str, count: int) -> None:
    compared = 0
    for seed, path in enumerate(sorted((data_dir / folder).iterdir())):
        data = path.read_bytes()
        if not data.startswith(b"\xff\xd8"):
            continue
        try:
            upright = Image.fromarray(decoding.decode(data))
        except ImageError:
            continue
        assert_like_pillow(data, upright, decoding.read_header(data).orientation, count=count, seed=seed)
        compared += 1
    print(f"{folder}: {compared} files")  # shown by pytest -s
    assert compared >= 5


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("channels", [1, 3])
def test_engines_and_threads_give_the_same_pixels(
    photos: dict[str, Pixels], profile: Profile, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list(variants(photos["flower"]).values()) * 2
    jobs = random_jobs(np.random.default_rng(3), len(files), Image.new("L", (427, 427)), (40, 30))
    jobs["orientation"] = np.arange(len(files)) % 8 + 1
    results = []
    for switch, threads in (("1", 1), ("1", 2), ("1", 8), ("0", 1), ("0", 3)):
        monkeypatch.setenv("SAGITTA_NATIVE", switch)
        out = np.zeros((len(files), 40, 30, channels), np.uint8)
        decode_batch(files, jobs, out, filter="bicubic", profile=profile, threads=threads)
        results.append(out)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.usefixtures("engine")
def test_fast_profile_is_close_to_exact(photos: dict[str, Pixels]) -> None:
    jobs = np.zeros(1, JOB)
    jobs["box"], jobs["resized"], jobs["orientation"] = (9, 3, 633, 420), (96, 96), 1
    exact, fast = (run([jpeg(photos["flower"])], jobs, (96, 96), profile=profile) for profile in PROFILES)
    difference = np.abs(exact.astype(int) - fast)
    assert 0 < difference.mean() < 2


# --- what becomes of every kind of image --------------------------------------------------------------------------


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def first_pixel(data: bytes) -> list[int]:
    pixels = decoding.decode(data)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    return [int(value) for value in pixels[0, 0]]


def test_alpha_is_composited_over_white() -> None:
    assert first_pixel(encoded(Image.new("RGBA", (2, 2), (255, 0, 100, 0)))) == [255, 255, 255]
    assert first_pixel(encoded(Image.new("RGBA", (2, 2), (255, 0, 100, 51)))) == [255, 204, 224]
    assert first_pixel(encoded(Image.new("LA", (2, 2), (0, 51)))) == [204, 204, 204]
    assert first_pixel(encoded(Image.new("L", (2, 2), 7), transparency=7)) == [255, 255, 255]
    assert first_pixel(encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))) == [255, 255, 255]
    assert first_pixel(encoded(Image.new("1", (2, 2), 1), transparency=1)) == [255, 255, 255]
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert first_pixel(encoded(palette)) == [10, 20, 30]
    assert first_pixel(encoded(palette, transparency=1)) == [255, 255, 255]


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (128, 0), (129, 1), (32768, 128), (65535, 255)])
def test_16_bits_are_scaled_not_clipped(value: int, grey: int) -> None:
    image = Image.fromarray(np.full((2, 3), value, np.uint16))
    assert first_pixel(encoded(image)) == [grey] * 3
    assert first_pixel(encoded(image, "TIFF")) == [grey] * 3
    assert first_pixel(encoded(Image.new("I", (2, 2), value), "TIFF")) == [grey] * 3


def test_modes_without_an_agreed_range_are_refused() -> None:
    for image in (Image.new("F", (2, 2), 0.5), Image.new("I", (2, 2), 70000), Image.new("I", (2, 2), -1)):
        with pytest.raises(ImageError, match="no agreed range"):
            decoding.decode(encoded(image, "TIFF"))


def test_other_colour_spaces_become_rgb() -> None:
    assert first_pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")) == [255, 0, 0]
    assert first_pixel(encoded(Image.new("1", (2, 2), 1))) == [255, 255, 255]
    lab = ImageCms.createProfile("LAB")
    red = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    image = ImageCms.applyTransform(Image.new("RGB", (2, 2), (200, 30, 40)), red)
    assert image is not None
    np.testing.assert_allclose(first_pixel(encoded(image, "TIFF")), (200, 30, 40), atol=3)


def test_one_channel_is_pillows_grey_of_the_colours(photos: dict[str, Pixels]) -> None:
    data = encoded(Image.fromarray(photos["china"]))
    np.testing.assert_array_equal(
        decoding.decode(data, channels=1)[..., 0], np.asarray(Image.fromarray(photos["china"]).convert("L"))
    )
    grey = photos["china"][..., 0]
    np.testing.assert_array_equal(decoding.decode(encoded(Image.fromarray(grey)), channels=1)[..., 0], grey)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert first_pixel(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_exactly_once(format: str, orientation: int) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = 255, 0, 0
    back = {6: 8, 8: 6}.get(orientation, orientation)
    image = Image.fromarray(upright)
    stored = image.transpose(decoding._TRANSPOSE[back]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, format, exif=exif)
    header = decoding.read_header(data)
    assert (header.width, header.height, header.format) == (48, 32, format)
    for pixels in (decoding.decode(data), decoding.decode(data, orientation=header.orientation)):
        assert pixels.shape == (32, 48, 3)
        assert (pixels[4:12, 4:12, 0] > 200).all()
        assert (pixels[20:, 20:] < 50).all()


@pytest.mark.usefixtures("engine")
def test_real_orientations_come_out_alike(data_dir: Path) -> None:
    files = [path.read_bytes() for path in sorted((data_dir / "exif-orientation").iterdir())]
    jobs = np.zeros(len(files), JOB)
    jobs["box"], jobs["resized"] = (0, 0, 1200, 1800), (90, 60)
    jobs["orientation"] = [decoding.read_header(data).orientation for data in files]
    pixels = run(files, jobs, (90, 60)).astype(int)
    assert np.abs(pixels - pixels[1]).mean(axis=(1, 2, 3)).max() < 2


@pytest.mark.usefixtures("engine")
def test_odd_images_agree_with_the_manifest(data_dir: Path) -> None:
    folder = data_dir / "odd-images"
    jobs = np.zeros(1, JOB)
    jobs["box"], jobs["resized"], jobs["orientation"] = (0, 0, 1, 1), (1, 1), 1
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        data, started = (folder / row["file"]).read_bytes(), time.monotonic()
        results = []
        for read in (decoding.decode, lambda data: run([data], jobs, (1, 1))):
            try:
                read(data)
                results.append("ok")
            except ImageError as error:
                results.append("refused" if re.fullmatch(r"\w.{3,250}", str(error)) else repr(error))
        fine = row["pil_result"] == "ok" and not row["odd"].startswith("bad zTXt")  # three quarters of it are missing
        assert results == ["ok" if fine else "refused"] * 2, row["file"]
        assert time.monotonic() - started < 10, row["file"]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the file cut off, or with one to eight bytes changed, or some left out."""
    changed, (at, end) = bytearray(data), sorted(rng.integers(2, len(data), 2))
    kind = rng.integers(3)
    if kind == 0:
        del changed[at:]
    elif kind == 1:
        del changed[at : min(end, at + 40)]
    else:
        for place in rng.integers(2, len(data), rng.integers(1, 9)):
            changed[place] = rng.integers(256)
    return bytes(changed)


def assert_verified_as_decoded(data: bytes) -> bool:
    try:
        decoding.decode(data)
    except ImageError as error:
        with pytest.raises(ImageError, match=f"^{re.escape(str(error))}$"):
            decoding.verify(data)
        return False
    told, found = decoding.read_header(data), decoding.verify(data)  # which alone knows the values
    assert replace(found, reduced=None, lowest=None, highest=None) == replace(told, reduced=None)
    return True


def test_verify_refuses_what_decode_refuses(photos: dict[str, Pixels]) -> None:
    rng = np.random.default_rng(5)
    files = list(variants(photos["china"][:64, :90]).values())
    files += [encoded(Image.fromarray(photos["china"][:64, :90]).convert(mode), "JPEG") for mode in ("CMYK", "YCbCr")]
    files += [encoded(Image.fromarray(photos["china"][:64, :90]), format) for format in ("PNG", "GIF", "TIFF", "WEBP")]
    assert all(assert_verified_as_decoded(data) for data in files)
    fine = [assert_verified_as_decoded(damaged(data, rng)) for data in files for _ in range(12)]
    assert len(fine) > 400
    assert 0.2 < np.mean(fine) < 0.8


def test_verify_refuses_the_odd_images_that_decode_refuses(data_dir: Path) -> None:
    rng = np.random.default_rng(6)
    for path in sorted((data_dir / "odd-images").iterdir()):
        data = path.read_bytes()
        assert_verified_as_decoded(data)
        if data.startswith(b"\xff\xd8") and len(data) < 200_000:
            for _ in range(5):
                assert_verified_as_decoded(damaged(data, rng))


def test_odd_images_take_little_memory(data_dir: Path) -> None:
    code = (
        "import pathlib, re, sys; from sagitta.errors import ImageError; from sagitta.images import decode\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: decode(path.read_bytes())\n"
        "    except ImageError: pass\n"
        # Not ru_maxrss, in which the process that started this one counts too.
        "print(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(data_dir / "odd-images")]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < 1 << 20  # kilobytes


def test_reasons() -> None:
    for data, reason in {
        b"": "empty",
        b"version https://git-lfs.github.com/spec/v1\n": "git lfs pull",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "HEIC",
        b"no image at all": "not an image",
    }.items():
        for read in (decoding.read_header, decoding.decode):
            with pytest.raises(ImageError, match=reason):
                read(data)
    bomb = io.BytesIO()
    Image.new("1", (10000, 9000)).save(bomb, "PNG")
    with pytest.raises(ImageError, match="10000x9000 pixels, more than"):
        decoding.decode(bomb.getvalue())


# --- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
def test_the_first_bad_image_is_named(photos: dict[str, Pixels]) -> None:
    good = jpeg(photos["china"])
    jobs = np.zeros(5, JOB)
    jobs["box"], jobs["resized"], jobs["orientation"] = (0, 0, 64, 64), (8, 8), 1
    out = np.zeros((5, 8, 8, 3), np.uint8)
    with pytest.raises(BatchError, match=r"image 2 of the batch: .*truncated") as caught:
        decode_batch([good, good, good[:-5000], b"", good], jobs, out, threads=2)
    assert caught.value.index == 2
    assert list(caught.value.failures) == [2, 3] and caught.value.failures[2] == caught.value.reason
    assert (out[0] == out[4]).all() and (out[0] == out[1]).all() and out[0].any()  # the others are there
    for box in ((0, 0, 641, 5), (5, 5, 5, 9), (-1, 0, 4, 4), (0, 0, 4, 428)):
        jobs["box"][1] = box
        with pytest.raises(BatchError, match=r"image 1 .* not inside 640x427"):
            decode_batch([good] * 5, jobs, out)
    jobs["box"][1], jobs["window"][1] = (0, 0, 4, 4), (1, 0)
    with pytest.raises(BatchError, match=r"image 1 .*window"):
        decode_batch([good] * 5, jobs, out)


def test_arguments_that_do_not_fit(photos: dict[str, Pixels]) -> None:
    data, jobs, out = [jpeg(photos["china"])], np.zeros(1, JOB), np.zeros((1, 8, 8, 3), np.uint8)
    jobs["orientation"] = 1
    bad: list[tuple[Any, Any]] = [
        (np.zeros(2, JOB), out),
        (np.zeros((1, 10), np.int32), out),
        (np.zeros(1, JOB), out),
        (jobs, out.astype(np.float32)),
        (jobs, np.zeros((1, 8, 8, 2), np.uint8)),
        (jobs, np.zeros((1, 8, 16, 3), np.uint8)[:, :, ::2]),
    ]
    for bad_jobs, bad_out in bad:
        with pytest.raises(ValueError, match="must be"):
            decode_batch(data, bad_jobs, bad_out)
    decode_batch([], np.zeros(0, JOB), np.zeros((0, 8, 8, 3), np.uint8))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 8), st.integers(0, 2**32 - 1), st.sampled_from(["flip", "cut", "zero", "insert"]))
def test_damaged_files_are_treated_as_pillow_treats_them(kind: int, seed: int, damage: str) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.add.outer(np.arange(50) * 5, np.arange(70) * 2)[..., None].astype(np.uint8) // [1, 2, 3]
    kinds: list[dict[str, Any]] = [{}, {"progressive": True}, {"restart_marker_rows": 1}]
    data = bytearray(jpeg(pixels.astype(np.uint8), subsampling=SUBSAMPLINGS[kind // 3], **kinds[kind % 3]))
    at = int(rng.integers(2, len(data)))
    if damage == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif damage == "cut":
        del data[at:]
    elif damage == "zero":
        data[at : at + 20] = bytes(min(20, len(data) - at))
    else:
        data[at:at] = rng.integers(0, 256, 5, np.uint8).tobytes()
    jobs = np.zeros(1, JOB)
    jobs["box"], jobs["resized"], jobs["orientation"] = (0, 0, 70, rng.integers(1, 51)), (20, 20), 1
    results = []
    for switch in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAGITTA_NATIVE", switch)
            try:
                results.append(run([bytes(data)], jobs, (20, 20)).tobytes())
            except BatchError as error:
                results.append(str(error).encode())
    assert results[0] == results[1]
    if native.library():
        add_restart_markers(bytes(data))


# --- restart markers ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("core")
def test_restart_markers_are_lossless_and_keep_metadata(photos: dict[str, Pixels]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for progressive in (False, True):
        data = jpeg(photos["china"], exif=exif, icc_profile=profile, comment=b"hello", progressive=progressive)
        marked = add_restart_markers(data)
        assert marked != data
        assert add_restart_markers(marked) == marked
        before, after = (Image.open(io.BytesIO(file)) for file in (data, marked))
        assert np.array_equal(np.asarray(before), np.asarray(after))
        assert "progression" not in after.info
        for key in ("exif", "icc_profile", "comment", "jfif"):
            assert after.info[key] == before.info[key]
        assert len(marked) < 1.02 * len(jpeg(photos["china"], optimize=True)) + len(profile) + 1000


def segments(data: bytes) -> list[bytes]:
    """Return a JPEG's application segments and comments, in their order."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        found += [data[at:end]] if data[at + 1] >= 0xE0 else []
        at = end
    return found


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("order", ["JE", "EJ", "E", "", "CEXJ"])
def test_restart_markers_keep_metadata_in_its_order(photos: dict[str, Pixels], order: str, progressive: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = jpeg(photos["china"], exif=exif, progressive=progressive, dpi=(72, 300))
    jfif, camera = segments(plain)
    own = {"J": jfif, "E": camera, "C": b"\xff\xfe\0\7hello", "X": b"\xff\xeb\0\6own!"}
    head = b"".join(own[letter] for letter in order)
    data = plain[:2] + head + plain[2 + len(jfif) + len(camera) :]
    marked = add_restart_markers(data)
    assert b"\xff\xd0" in marked and b"".join(segments(marked)) == head
    before, after = (Image.open(io.BytesIO(file)) for file in (data, marked))
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert {**before.info, "progressive": None, "progression": None} == {
        **after.info,
        "progressive": None,
        "progression": None,
    }


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("progressive", [False, True])
def test_restart_markers_leave_a_file_alone_where_something_follows_the_picture(
    photos: dict[str, Pixels], progressive: bool
) -> None:
    data = jpeg(photos["china"], progressive=progressive)
    for rest in (b"\0", b"\xff\xd9", b"a video", jpeg(photos["flower"])):
        assert add_restart_markers(data + rest) == data + rest
    assert add_restart_markers(data) != data


@pytest.mark.usefixtures("core")
def test_restart_markers_leave_other_files_alone(data_dir: Path) -> None:
    png = encoded(Image.new("RGB", (4, 4)))
    cmyk = encoded(Image.new("CMYK", (16, 16)), "JPEG")
    for data in (png, cmyk, b"", (data_dir / "odd-images" / "sugarshack.mpo").read_bytes()):
        assert add_restart_markers(data) == data


@pytest.mark.usefixtures("core")
def test_only_the_tiles_that_are_needed_are_read(photos: dict[str, Pixels]) -> None:
    marked = add_restart_markers(jpeg(photos["flower"]))  # 640 pixels: 20 tiles of 32 a row
    markers = np.flatnonzero([a == 0xFF and 0xD0 <= b <= 0xD7 for a, b in pairwise(marked)])
    damaged = bytearray(marked)
    for row, column in ((1, 7), (20, 7), (9, 1), (9, 12)):
        tile = 20 * row + column - 1  # the marker before it
        damaged[markers[tile] + 2 : markers[tile + 1]] = bytes(markers[tile + 1] - markers[tile] - 2)
    jobs = np.zeros(1, JOB)
    jobs["box"], jobs["resized"], jobs["orientation"] = (100, 80, 300, 280), (50, 50), 1
    np.testing.assert_array_equal(run([bytes(damaged)], jobs, (50, 50)), run([marked], jobs, (50, 50)))


def test_restart_markers_need_the_core(photos: dict[str, Pixels], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", "0")
    assert "switched off" in decoding.engine()
    with pytest.raises(ConfigError, match="native core"):
        add_restart_markers(jpeg(photos["china"]))


@pytest.mark.usefixtures("core")
def test_engine_names_the_decoder() -> None:
    assert decoding.engine().startswith("native core with libjpeg-turbo")


# Where the core is missing, one line says why and what to do


@pytest.mark.usefixtures("core")
def test_a_core_that_is_there_is_not_missing() -> None:
    assert native.missing_core() is None


def compiled(path: Path, code: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", path], input=code.encode(), check=True)
    return path


def test_a_missing_core_says_why_and_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core.cpython-311-x86_64-linux-gnu.so").write_bytes(b"built before")
    (tmp_path / "damaged.so").write_bytes(b"no library")
    cases = [
        (tmp_path / "core.so", "the native core is not built: install a C.. compiler and libjpeg-turbo's headers"),
        (tmp_path / "damaged.so", "is built but does not load .*damaged.so.*: install libjpeg-turbo"),
        (compiled(tmp_path / "old.so", ""), r"built by another version \(its interface is 0, not 1\): install sagitta"),
        (compiled(tmp_path / "new.so", "int sagitta_interface() { return 7; }"), "its interface is 7, not 1"),
    ]
    for path, expected in cases:
        monkeypatch.setattr(native, "_FILE", path)
        reason = native.missing_core()
        assert reason and re.search(expected, reason) and "\n" not in reason
        assert native.library() is None and decoding.engine().endswith(reason)
    monkeypatch.setenv("SAGITTA_NATIVE", "0")
    assert native.missing_core() == "the native core is switched off: unset SAGITTA_NATIVE"
