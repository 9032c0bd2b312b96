"""Odd metadata neither warns nor stops a decode, and the process's warning filters stay as they are."""

import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from sagitta.images.decoding import JOB, decode, decode_batch, read_header, verify


def odd() -> bytes:
    """A JPEG whose EXIF ends in the middle of a tag: Pillow warns when it reads that."""
    exif = Image.Exif()
    exif[0x010E] = "a description of some length"
    cut = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")[:-12]
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (200, 30, 60)).save(buffer, "JPEG", exif=cut)
    return buffer.getvalue()


def read_all(data: bytes) -> None:
    read_header(data)
    verify(data)
    assert decode(data).shape == (12, 16, 3)
    jobs = np.zeros(1, JOB)
    jobs["box"], jobs["resized"], jobs["orientation"] = (0, 0, 16, 12), (8, 8), 1
    decode_batch([data], jobs, np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("engine", ["1", "0"])
def test_no_filter_is_touched_and_no_file_refused(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", engine)
    before, data = list(warnings.filters), odd()
    with ThreadPoolExecutor(4) as pool:  # warnings are errors in these tests
        list(pool.map(read_all, [data] * 40))
    assert list(warnings.filters) == before


def test_pillow_warns_everybody_else_as_ever() -> None:
    data = odd()
    read_header(data)
    with pytest.warns(UserWarning, match="EXIF|EOF|Truncated|read") as caught:
        Image.open(io.BytesIO(data)).getexif()
    assert {warning.filename.rpartition("/")[2] for warning in caught} == {"TiffImagePlugin.py"}


@pytest.mark.parametrize("options", [[], ["-W", "error"], ["-W", "always"]])
def test_nothing_is_printed(options: list[str]) -> None:
    code = "import sys; from sagitta.images import decode, verify; d = sys.stdin.buffer.read(); decode(d); verify(d)"
    result = subprocess.run([sys.executable, *options, "-c", code], input=odd(), capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_libtiff_and_pillows_log_are_silent_and_come_back() -> None:
    code = """
import io, sys
import numpy as np, tifffile
from PIL import Image
from sagitta.errors import ImageError
from sagitta.images import decode
packed = io.BytesIO()
Image.fromarray(np.zeros((64, 64), np.uint8)).save(packed, "TIFF", compression="tiff_deflate")
damaged = packed.getvalue().replace(b"x\\x9c", b"x\\x9d", 1)
many = io.BytesIO()
tifffile.imwrite(many, np.zeros((4, 4, 13), np.uint16), photometric="minisblack", planarconfig="contig")
for data in (damaged, many.getvalue()):
    try: decode(data)
    except ImageError as error: print(error)
sys.stdout.flush()
print("now", file=sys.stderr, flush=True)
for data in (damaged, many.getvalue()):
    try: Image.open(io.BytesIO(data)).load()
    except Exception: pass
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.startswith("now\n") and "More samples per pixel" in result.stderr and "ZIP" in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_tifffile_says_nothing_about_a_damaged_file() -> None:
    code = """
import io, logging, sys
import numpy as np, tifffile
from sagitta.images import Reduction, reduce
file = io.BytesIO()
tifffile.imwrite(file, np.zeros((4, 4, 13), np.uint16), photometric="minisblack", planarconfig="contig")
damaged = file.getvalue().replace(bytes((0x17, 1)), bytes((0x77, 0x77)), 1)  # the tag of the strips' lengths
reduce(damaged, Reduction(None, (1,)))
print("now", file=sys.stderr, flush=True)
tifffile.TiffFile(io.BytesIO(damaged)).pages.first.dataoffsets  # what is read beside us; old versions say nothing of it
logging.getLogger("tifffile").error("nobody is muted")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.startswith("now\n") and "nobody is muted" in result.stderr
    logged = result.stderr.count("missing data ByteCounts tag")
    assert logged == 1 or tuple(map(int, version("tifffile").split("."))) < (2026,)
