"""What clients send -> images: a raw body, JSON with base64, or a form with files; within limits, or refused.

==============================  ==================================================================
``image/…``                     the body is one image; likewise ``application/octet-stream``, and no type or that of
                                a form without files, which curl says of whatever it sends, where an image follows
``application/json``            ``{"images": [BASE64, {"name": …, "data": BASE64}]}``, or ``image``
``multipart/form-data``         each file of the form is an image
==============================  ==================================================================
"""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sagitta.errors import ImageError
from sagitta.images import read_header
from sagitta.serving.engine import Named
from sagitta.serving.refusal import Limits, RequestError

_TAKEN = "send an image as image/jpeg or the like, JSON with base64, or a form with files"
_UNSAID = (b"", b"application/x-www-form-urlencoded")  # kinds that clients say without being told to
_LONGEST = 255  # letters of a name
_HEADER = 4096  # bytes of a part's headers


class Budget:
    """The memory that all bodies take together."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def take(self, count: int) -> None:
        """Take so many bytes.

        Raises:
            RequestError: others have them.
        """
        if self.taken + count > self.most:
            raise RequestError(429, "busy", "the server holds as many bytes of requests as it may; ask again", 1)
        self.taken += count

    def give(self, count: int) -> None:
        """Give them back."""
        self.taken -= count


def announced(headers: Mapping[str, str], limits: Limits) -> int | None:
    """Return how many bytes a request says that it has; None where it does not say.

    Raises:
        RequestError: that is no number, too many, or they are compressed.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "compressed", "send the body as it is, without Content-Encoding: images are compressed")
    text = headers.get("content-length")
    if text is None:
        return None
    if not text.isdigit():
        raise RequestError(400, "bad_length", "Content-Length is no number")
    if (length := int(text)) > limits.body:
        raise too_large(limits)
    return length


def too_large(limits: Limits) -> RequestError:
    """Return what is said of a body that is too large."""
    return RequestError(413, "body_too_large", f"the body has more than the {limits.body:,} bytes that are taken")


async def read_body(stream: AsyncIterator[bytes], limits: Limits, budget: Budget, known: int | None) -> bytearray:
    """Return a request's body; who calls gives its length back to the budget, but for what was announced.

    Args:
        stream: of the request.
        limits: of bytes and seconds.
        budget: that bytes are taken from which were not announced.
        known: bytes that were, and are taken already.

    Raises:
        RequestError: it is too large, or has not come in time.
    """
    body = bytearray()
    taken = 0
    try:
        async with asyncio.timeout(limits.receive):
            async for piece in stream:
                if len(body) + len(piece) > limits.body:
                    raise too_large(limits)
                if known is None:
                    budget.take(len(piece))
                    taken += len(piece)
                body += piece
    except TimeoutError:
        budget.give(taken)
        raise RequestError(408, "body_too_slow", f"the body did not come within {limits.receive:g} seconds") from None
    except BaseException:
        budget.give(taken)
        raise
    return body


def images_of(kind: str, body: bytearray, limits: Limits, name: str | None) -> tuple[list[Named], dict[str, Any]]:
    """Return the images of a body, and what else JSON says.

    Args:
        kind: Content-Type.
        body: the whole of it.
        limits: of the number of images.
        name: of a raw body's image, where the client says one.

    Raises:
        RequestError: it is malformed, or has no image or too many.
    """
    media, options = parse_options_header(kind)
    if media == b"application/json":
        images, said = _of_json(body)
    elif media == b"multipart/form-data":
        images, said = _of_form(options.get(b"boundary", b""), body, limits), {}
    elif media.startswith(b"image/") or media == b"application/octet-stream" or (media in _UNSAID and _is_image(body)):
        images, said = [Named(_short(name or "image"), bytes(body))] if body else [], {}
    else:
        sent = media.decode("latin-1")[:80] or "no type"
        raise RequestError(415, "unknown_type", f"Content-Type says {sent!a}; {_TAKEN}")
    if not images:
        raise RequestError(400, "no_image", f"there is no image in the body; {_TAKEN}")
    if len(images) > limits.images:
        raise RequestError(
            413, "too_many_images", f"{len(images)} images, more than the {limits.images} that are taken"
        )
    return images, said


def _is_image(body: bytearray) -> bool:
    try:
        read_header(bytes(body))
    except ImageError:
        return False
    return True


def _of_json(body: bytearray) -> tuple[list[Named], dict[str, Any]]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "bad_json", "the body is no JSON") from None
    if not isinstance(found, dict) or ("images" in found) == ("image" in found):
        raise RequestError(400, "bad_json", 'give an object with "images", a list, or with "image"')
    listed = found.pop("images") if "images" in found else [found.pop("image")]
    if not isinstance(listed, list):
        raise RequestError(400, "bad_json", '"images" is no list')
    if unknown := found.keys() - {"top_k", "model"}:
        raise RequestError(400, "bad_json", f"{min(unknown)[:80]!a}: nothing of this name is taken beside images")
    return [_decoded(place, each) for place, each in enumerate(listed)], found


def _decoded(place: int, item: Any) -> Named:
    name, data = f"image {place + 1}", item
    if isinstance(item, dict):
        name, data = item.get("name", name), item.get("data")
    if not isinstance(data, str) or not isinstance(name, str):
        raise RequestError(400, "bad_json", f'image {place + 1}: give base64 as a string, or "name" and "data"')
    if data.startswith("data:"):  # as browsers write files
        data = data.partition(",")[2]
    try:
        return Named(_short(name), base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        raise RequestError(400, "bad_base64", f"image {place + 1}: no valid base64") from None


def _of_form(boundary: bytes, body: bytearray, limits: Limits) -> list[Named]:
    if not boundary:
        raise RequestError(400, "bad_form", "multipart/form-data without a boundary")
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks)
        parser.write(bytes(body))
        parser.finalize()
    except FormParserError:
        raise RequestError(400, "bad_form", "the form is malformed") from None
    if not form.ended:
        raise RequestError(400, "bad_form", "the form ends before its last boundary")
    return form.images


class _Form:
    """Gathers the files of a form."""

    def __init__(self, limits: Limits) -> None:
        self.images: list[Named] = []
        self.ended = False
        self._limits = limits
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    @property
    def callbacks(self) -> Any:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.images) >= self._limits.images:
            most = self._limits.images
            raise RequestError(413, "too_many_images", f"more than the {most} images that are taken")
        self._headers, self._data = {}, []

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if len(self._field) + len(self._value) > _HEADER or len(self._headers) > 16:
            raise RequestError(400, "bad_form", "a part of the form has too many headers")
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _end_part(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise RequestError(400, "bad_form", "a part of the form has no name")
        if b"filename" not in options:
            field = options[b"name"].decode(errors="replace")[:80]
            raise RequestError(400, "bad_form", f"field {field!a} is no file; say model and top_k in the address")
        name = options[b"filename"].decode(errors="replace").replace("\\", "/").rpartition("/")[2]
        self.images.append(Named(_short(name or f"image {len(self.images) + 1}"), b"".join(self._data)))
        self._data = []

    def _end(self) -> None:
        self.ended = True


def _short(name: str) -> str:
    """Return a name without what no name needs."""
    return "".join(letter if letter.isprintable() else "�" for letter in name[:_LONGEST])
