"""Thrift's compact protocol, as far as Parquet needs it: one struct of a buffer that may hold anything.

What is damaged ends as a :class:`ThriftError`, after work and memory that the bytes themselves bound: no count is
believed before there is room for so many values. Source: the Apache Thrift compact protocol specification.
"""

import mmap
import struct
from typing import Any

Buffer = bytes | mmap.mmap

_DEPTH = 16  # of structs and lists in each other; Parquet has 6
_double_at = struct.Struct("<d").unpack_from


class ThriftError(ValueError):
    """The bytes are no struct of the protocol, or a field of it is of another kind than it should be."""


class Struct(dict[int, Any]):
    """Fields by number."""

    def integer(self, number: int, default: int | None = None) -> int:
        """Return a whole number; ``default``, if given, where the field is missing.

        Raises:
            ThriftError: it is missing, or something else: a boolean and a double are none.
        """
        value = self.get(number, default)
        if type(value) is not int:
            raise ThriftError(f"field {number} is no whole number")
        return value

    def struct(self, number: int) -> "Struct":
        """Return a struct.

        Raises:
            ThriftError: it is missing, or something else.
        """
        value = self.get(number)
        if not isinstance(value, Struct):
            raise ThriftError(f"field {number} is no struct")
        return value

    def items_of(self, number: int, kind: type) -> list[Any]:
        """Return a list of values of one kind.

        Raises:
            ThriftError: it is missing, or something else.
        """
        value = self.get(number)
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise ThriftError(f"field {number} is no list of {kind.__name__}")
        return value


def read_struct(data: Buffer, position: int, end: int, most: int) -> tuple[Struct, int]:
    """Read one struct.

    Args:
        data: the buffer.
        position: where the struct begins.
        end: no byte from here on belongs to it.
        most: values that it may hold, those of inner structs and lists included.

    Returns:
        the struct, and the position behind it.

    Raises:
        ThriftError: there is none, or a larger one.
    """
    reader = _Reader(data, position, end, most)
    return reader.struct(0), reader.position


class _Reader:
    def __init__(self, data: Buffer, position: int, end: int, most: int) -> None:
        self.data, self.position, self.end, self.left = data, position, min(end, len(data)), most

    def struct(self, depth: int) -> Struct:
        fields = Struct()
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.zigzag()
            fields[number] = self.value(head & 15, depth + 1)
        return fields

    def value(self, kind: int, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > _DEPTH:
            raise ThriftError("too many values")
        if kind in (1, 2):  # true, false: the kind is the value
            return kind == 1
        if kind == 3:
            return self.byte()
        if kind in (4, 5, 6):  # i16, i32, i64
            return self.zigzag()
        if kind == 7:
            return _double_at(self.bytes(8))[0]
        if kind == 8:  # binary or string
            return self.bytes(self.varint())
        if kind in (9, 10):  # list, set
            return self.items(depth)
        if kind == 12:
            return self.struct(depth)
        raise ThriftError(f"no type {kind}")

    def items(self, depth: int) -> list[Any]:
        head = self.byte()
        size, kind = head >> 4, head & 15
        size = self.varint() if size == 15 else size
        if size > self.end - self.position:  # a value takes a byte at least
            raise ThriftError(f"a list of {size} values where there is no room for them")
        # Unlike a field, a boolean in a list takes a byte.
        return [self.value(3 if kind in (1, 2) else kind, depth + 1) for _ in range(size)]

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def varint(self) -> int:
        value = shift = 0
        while (byte := self.byte()) > 127:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ThriftError("a number of more than 64 bits")
        return value | byte << shift

    def byte(self) -> int:
        if self.position >= self.end:
            raise ThriftError("it ends early")
        self.position += 1
        return self.data[self.position - 1]

    def bytes(self, size: int) -> bytes:
        if size > self.end - self.position:
            raise ThriftError("it ends early")
        self.position += size
        return self.data[self.position - size : self.position]
