"""What is no image for us is named, with what converts it."""

import gzip

import pytest

from sagitta.errors import ImageError
from sagitta.images import decode, read_header, verify

FILES = {
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    "DICOM": b"\0" * 128 + b"DICM\x02\0\0\0",
    "CZI": b"ZISRAWFILE\0\0\0\0\0\0rest",
    r"\.npy\) of 64x64x13, 13 bands": b"\x93NUMPY\x01\0v\0{'descr': '<u2', 'shape': (64, 64, 13), }",
    "JPEG XL": b"\xff\x0a\xfa\x7f\x90",
    "djxl": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
    "NIfTI": b"\x5c\x01\0\0" + b"\0" * 344,
    "nibabel": gzip.compress(b"\x5c\x01\0\0" + b"\0" * 344),
    "gzip": gzip.compress(b"\x07\x08 something else"),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "SVG": b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "web page": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "XML or JSON": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "JPEG XR": b"II\xbc\x01 ",
    "JPEG-LS": b"\xff\xd8\xff\xf7\0\x0b\x08",
    "12 bits a sample": b"\xff\xd8\xff\xfe\0\x03a\xff\xc1\0\x0b\x0c\0\x08\0\x08\x01\x01\x11\0",
    "PDF": b"%PDF-1.7\n%\xe2\xe3",
    "ffmpeg": b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2",
    "a video": b"\x1aE\xdf\xa3\x93B\x82\x88matroska",
    "AVI|video": b"RIFF\x10\0\0\0AVI LIST",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "OpenEXR": b"v/1\x01\x02\0\0\0",
    "raw file": b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
    "ZIP": b"PK\x03\x04\x14\0",
    "not an image but text": b"id,label\n1,cat\n",
    "not an image in a format": b"\x01\x02\x03\x04" * 10,
}


@pytest.mark.parametrize("words", FILES)
def test_it_is_named(words: str) -> None:
    for read in (read_header, verify, decode):
        with pytest.raises(ImageError, match=words) as caught:
            read(FILES[words])
        assert "\n" not in str(caught.value)
