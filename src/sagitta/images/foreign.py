"""Files that are no images for us, by their first bytes, and what makes images of them."""

import re
import zlib
from collections.abc import Callable

_HEAD = 1024

_START: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the image; run `git lfs pull`"),
    (b"ZISRAWFILE", "Zeiss CZI is not read; export TIFF or PNG with Fiji or Bio-Formats' bfconvert"),
    (b"\xda\xce\xbe\x0a", "Nikon ND2 is not read; export TIFF or PNG with Fiji or Bio-Formats' bfconvert"),
    (b"\xff\x0a", "JPEG XL is not read; convert it to PNG or JPEG with djxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL is not read; convert it to PNG or JPEG with djxl"),
    (b"\x5c\x01\0\0", "a NIfTI volume is not read; write its slices as 16-bit PNG, with nibabel for instance"),
    (b"\0\0\x01\x5c", "a NIfTI volume is not read; write its slices as 16-bit PNG, with nibabel for instance"),
    (b"NRRD000", "an NRRD volume is not read; write its slices as 16-bit PNG, with pynrrd for instance"),
    (b"\x89HDF", "HDF5 is not read; write its images as PNG or TIFF, with h5py for instance"),
    (b"CDF\x01", "NetCDF is not read; write its images as PNG or TIFF"),
    (b"CDF\x02", "NetCDF is not read; write its images as PNG or TIFF"),
    (b"MATLAB 5.0", "a MATLAB file is not read; write its images as PNG or TIFF, with scipy.io for instance"),
    (b"v/1\x01", "OpenEXR's floating-point pixels are not read; convert it to 8- or 16-bit PNG"),
    (b"#?RADIANCE", "Radiance HDR's floating-point pixels are not read; convert it to 8- or 16-bit PNG"),
    (b"II\xbc\x01", "JPEG XR is not read; convert it to PNG with JxrDecApp"),
    (b"\xff\xd8\xff\xf7", "JPEG-LS is not read; convert it to PNG, with ffmpeg for instance"),
    (b"%PDF", "a PDF; make images of its pages with `pdftoppm -png`"),
    (b"%!PS", "PostScript; make an image of it with Ghostscript"),
    (b"gimp xcf", "GIMP's own format is not read; export PNG"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file is not read; develop it to JPEG or TIFF"),
    (b"IIRO", "a camera's raw file is not read; develop it to JPEG or TIFF"),
    (b"IIU\0", "a camera's raw file is not read; develop it to JPEG or TIFF"),
    (b"\x1aE\xdf\xa3", "a video; extract its frames with ffmpeg"),
    (b"\0\0\x01\xba", "a video; extract its frames with ffmpeg"),
    (b"\0\0\x01\xb3", "a video; extract its frames with ffmpeg"),
    (b"PK\x03\x04", "a ZIP archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
)
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_WEB = (b"<!doctype html", b"<html", b"<head", b"<body")


def foreign(data: bytes | memoryview) -> str | None:
    """Return what a file is and what converts it, for what is not read; None where its first bytes say nothing."""
    head = bytes(data[:_HEAD])
    if head.startswith(b"\x1f\x8b"):
        return _named(_unpacked(head)) or "a gzip file; unpack it"
    return _named(head)


def _named(head: bytes) -> str | None:
    tests: tuple[Callable[[bytes], str | None], ...] = (_by_start, _jpeg, _array, _dicom, _container, _text)
    return next((found for test in tests if (found := test(head))), None)


def _by_start(head: bytes) -> str | None:
    return next((text for start, text in _START if head.startswith(start)), None)


def _jpeg(head: bytes) -> str | None:
    """Name a JPEG of more than 8 bits by its frame header: a marker, two bytes of length, then the bits."""
    at = 2
    while head.startswith(b"\xff\xd8") and at + 4 < len(head) and head[at] == 255:
        if 0xC0 <= head[at + 1] <= 0xC3 and head[at + 4] > 8:
            return f"a JPEG of {head[at + 4]} bits a sample is not read; convert it to 16-bit PNG"
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    return None


def _array(head: bytes) -> str | None:
    if not head.startswith(b"\x93NUMPY"):
        return None
    shape = re.search(rb"'shape': \(([\d, ]+)\)", head)
    sides = [int(side) for side in shape[1].split(b",") if side.strip()] if shape else []
    bands = f", {sides[2]} bands" if len(sides) == 3 else ""
    size = f" of {'x'.join(map(str, sides))}{bands}" if sides else ""
    return f"a NumPy array (.npy){size} is not read; write one band or three as PNG of 8 or 16 bits, or all as TIFF"


def _dicom(head: bytes) -> str | None:
    if head[128:132] != b"DICM":
        return None
    return "DICOM is not read; convert it to 16-bit PNG with dcm2img (DCMTK), or with pydicom"


def _container(head: bytes) -> str | None:
    """Name files of ISO's base media and of RIFF."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _HEIC:
            return "HEIC is not read; convert it to JPEG with heif-convert, or take photos as JPEG"
        if brand == b"crx ":
            return "a camera's raw file is not read; develop it to JPEG or TIFF"
        return None if brand in (b"avif", b"avis") else "a video; extract its frames with ffmpeg"
    return "a video; extract its frames with ffmpeg" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


def _text(head: bytes) -> str | None:
    """Name what is text: drawings, web pages that were stored in an image's place, anything else."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return "SVG is a drawing; make a PNG of it with rsvg-convert"
    if start.startswith(_WEB):
        return "not an image but a web page, as a failed download leaves it; fetch it again"
    if start.startswith((b"<?xml", b"{", b"[")):
        return "not an image but XML or JSON, perhaps a server's error; fetch it again"
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return None
    plain = len(text) > 3 and all(letter.isprintable() or letter in "\t\r\n" for letter in text)
    return "not an image but text" if plain else None


def _unpacked(head: bytes) -> bytes:
    """Return the beginning of what gzip has packed."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _HEAD)
    except zlib.error:
        return b""
