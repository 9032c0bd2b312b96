"""Where each value of a Parquet byte-array column lies in its file: pure functions over a buffer.

A column chunk is a row of pages. An uncompressed PLAIN page is a header (Thrift compact protocol), definition
levels (which values are there), then the values, each behind its length::

    | header | levels | length | bytes | length | bytes | ... | header | levels | ...

Pages in another encoding are passed over; their values have to be read by a Parquet library. Source: the
Apache Parquet format specification, parquet.thrift and Encodings.md, version 2.11.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sagitta.dataset.thrift import Buffer, ThriftError, read_struct

NOT_PLAIN = -1
"""Offset of a value whose page is not PLAIN."""
NULL = -2
"""Offset of a value that is null."""

Ints = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.uint32]

_DATA_PAGE, _DATA_PAGE_V2 = 0, 3
_PLAIN, _RLE = 0, 3
_MOST_HEADER = 1000  # values in a page header; those of the format are some 30
length_at = struct.Struct("<I").unpack_from
"""Reads the length before a PLAIN value: ``length_at(data, offset - 4)[0]``."""


class PageError(Exception):
    """A column chunk is damaged.

    Attributes:
        value: number of the first value, counted from the chunk's start, that is not to be trusted.
    """

    def __init__(self, value: int, reason: str) -> None:
        super().__init__(reason)
        self.value = value


def locate_values(data: Buffer, start: int, size: int, count: int, max_level: int) -> tuple[Ints, Lengths]:
    """Return where the values of one uncompressed column chunk lie.

    Args:
        data: the whole file.
        start: offset of the chunk's first page.
        size: of the chunk, bytes.
        count: number of values, nulls included.
        max_level: definition level of a value that is there: how many of the column's levels are nullable.

    Returns:
        (count,) int64 offsets of the values' first bytes, :data:`NOT_PLAIN` or :data:`NULL`; (count,) uint32
        lengths.

    Raises:
        PageError: headers, lengths and counts do not agree.
    """
    offsets = np.full(count, NOT_PLAIN, np.int64)
    lengths = np.zeros(count, np.uint32)
    position, end, done = start, start + size, 0
    while position < end:
        try:
            page = _read_page(data, position, end, max_level > 0)
        except (ThriftError, struct.error):
            raise PageError(done, f"no valid page header at byte {position}") from None
        position = page.end
        part = slice(done, done + page.values)
        if part.stop > count:
            raise PageError(done, f"the pages hold more than the {count} values of their chunk")
        if page.plain:
            try:
                offsets[part], lengths[part] = _locate_page(data, page, max_level)
            except PageError as error:
                raise PageError(done + error.value, str(error)) from None
        done = part.stop
    if done < count:
        raise PageError(done, f"the pages hold {done} of the {count} values of their chunk")
    return offsets, lengths


class _Page(NamedTuple):
    """One page: number of values (a dictionary has none), and where its body, levels and values begin and end."""

    values: int
    plain: bool
    body: int
    levels_at: int
    values_at: int
    end: int
    checksum: int | None


def _read_page(data: Buffer, position: int, limit: int, nullable: bool) -> _Page:
    """Read a page header.

    Raises:
        ThriftError: there is none, or its sizes do not fit.
    """
    header, body = read_struct(data, position, limit, _MOST_HEADER)
    kind, size = header.integer(1), header.integer(3)
    levels_at = values_at = body
    count, plain = 0, False
    if kind == _DATA_PAGE:
        count, encoding, level_encoding = (header.struct(5).integer(number) for number in (1, 2, 3))
        plain = encoding == _PLAIN and (level_encoding == _RLE or not nullable)
        if plain and nullable:  # version 1 puts the levels' size before them
            levels_at = body + 4
            values_at = levels_at + length_at(data, body)[0]
    elif kind == _DATA_PAGE_V2:
        count, encoding, level_size, repetition_size = (header.struct(8).integer(number) for number in (1, 4, 5, 6))
        plain = encoding == _PLAIN
        levels_at = body + repetition_size
        values_at = levels_at + level_size
    if not (count >= 0 and body <= levels_at <= values_at <= body + size <= limit):
        raise ThriftError("sizes out of range")
    checksum = header.integer(4) if 4 in header else None
    return _Page(count, plain, body, levels_at, values_at, body + size, checksum)


def damaged_values(data: Buffer, start: int, size: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield the values of the pages that are not as they were written: the first, and the one behind the last.

    Only pages that carry a checksum can be judged. Where a header is damaged, all that follows counts.

    Args:
        data: the whole file.
        start: offset of the column chunk's first page.
        size: of the chunk, bytes.
        count: number of values.
    """
    position, done = start, 0
    while position < start + size:
        try:
            page = _read_page(data, position, start + size, nullable=False)
        except (ThriftError, struct.error):
            yield done, count
            return
        if page.checksum is not None and zlib.crc32(data[page.body : page.end]) != page.checksum & 0xFFFFFFFF:
            yield done, done + page.values if page.values else count
        position, done = page.end, done + page.values


def _locate_page(data: Buffer, page: _Page, max_level: int) -> tuple[Ints, Lengths]:
    """Return offsets (or :data:`NULL`) and lengths of a PLAIN page's values."""
    if not max_level:
        return _walk(data, page.values_at, page.end, page.values)
    levels = _read_levels(data[page.levels_at : page.values_at], page.values, max_level.bit_length())
    present = np.flatnonzero(levels == max_level)
    try:
        found = _walk(data, page.values_at, page.end, len(present))
    except PageError as error:
        raise PageError(int(present[error.value]) if len(present) else 0, str(error)) from None
    offsets, lengths = np.full(page.values, NULL, np.int64), np.zeros(page.values, np.uint32)
    offsets[present], lengths[present] = found
    return offsets, lengths


def _walk(data: Buffer, position: int, end: int, count: int) -> tuple[Ints, Lengths]:
    """Return offsets and lengths of ``count`` values, each behind its length, that together fill the page."""
    if 4 * count > end - position:  # before there is a list of so many
        raise PageError(0, f"{count} values do not fit their page")
    ends = [position] * (count + 1)
    for index in range(1, count + 1):
        if position > end - 4:
            raise PageError(max(index - 2, 0), f"a length before byte {position} does not fit its page")
        position += 4 + length_at(data, position)[0]
        ends[index] = position
    if position != end:
        raise PageError(max(count - 1, 0), f"the values end at byte {position}, their page at {end}")
    bounds = np.array(ends, np.int64)
    offsets = bounds[:-1] + 4
    return offsets, (bounds[1:] - offsets).astype(np.uint32)


def _read_levels(data: bytes, count: int, width: int) -> npt.NDArray[np.uint8]:
    """Return (count,) levels of ``width`` bits, at most 8, from runs and bit-packed groups of eight."""
    levels = np.empty(count, np.uint8)
    position = done = 0
    try:
        while done < count:
            head, position = _varint(data, position)
            if head & 1:
                size = (head >> 1) * width
                bits = np.frombuffer(data, np.uint8, size, position)
                run = _unpack(bits, width)[: count - done]
                position += size
                levels[done : done + len(run)] = run
                done += len(run)
            else:
                levels[done : done + (head >> 1)] = data[position]
                position += 1
                done += head >> 1
            if head < 2:
                raise ValueError("an empty run")
    except (IndexError, ValueError):
        raise PageError(done, "the definition levels end early") from None
    return levels


def _unpack(packed: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    bits = np.unpackbits(packed, bitorder="little").reshape(-1, width)
    return np.packbits(bits, axis=1, bitorder="little")[:, 0]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[position]) > 127:
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
    return value | byte << shift, position + 1
