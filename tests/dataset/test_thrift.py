import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagitta.dataset.thrift import Struct, ThriftError, read_struct

EVERYTHING = bytes(
    [
        *(0x15, 3),  # field 1: -2 as a whole number
        *(0x11,),  # field 2: true
        *(0x12,),  # field 3: false
        *(0x17, *bytes(6), 0xF0, 0x3F),  # field 4: 1.0
        *(0x18, 2, *b"ab"),  # field 5: text
        *(0x19, 0x35, 2, 4, 6),  # field 6: 1, 2, 3
        *(0x1C, 0x15, 4, 0),  # field 7: a struct with field 1: 2
        *(0x06, 0x80, 1, 1),  # field 64, its number written out: -1
        0,
    ]
)


def test_every_kind_of_value_by_hand() -> None:
    fields, position = read_struct(b"--" + EVERYTHING + b"--", 2, 100, 100)
    assert fields == {1: -2, 2: True, 3: False, 4: 1.0, 5: b"ab", 6: [1, 2, 3], 7: {1: 2}, 64: -1}
    assert position == 2 + len(EVERYTHING)
    assert (fields.integer(1), fields.integer(9, 5), fields.struct(7), fields.items_of(6, int)) == (
        -2, 5, Struct({1: 2}), [1, 2, 3],
    )  # fmt: skip


@pytest.mark.parametrize("value", [True, False, 1.0, math.nan, b"1", [1], Struct(), None])
def test_a_count_is_a_whole_number_and_nothing_that_python_takes_for_one(value: object) -> None:
    with pytest.raises(ThriftError, match="field 3 is no whole number"):
        Struct({} if value is None else {3: value}).integer(3)


def test_lists_and_structs_of_another_kind_are_refused() -> None:
    fields = Struct({1: [1, True], 2: 5})
    for number in (1, 2, 3):
        with pytest.raises(ThriftError, match="is no list of int"):
            fields.items_of(number, int)
        with pytest.raises(ThriftError, match="is no struct"):
            fields.struct(number)


HUGE = b"\xff" * 8 + b"\x7f"  # 2 to the 63rd, less one


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x15", "ends early"),
        (b"\x19\xf5" + HUGE, "a list of"),
        (b"\x19\xf1" + HUGE + bytes(100), "a list of"),
        (b"\x18" + HUGE, "ends early"),
        (b"\x15" + b"\xff" * 11, "more than 64 bits"),
        (b"\x1c" * 100, "too many values"),
        (b"\x19\x19" * 50, "too many values"),
        (b"\x15\x02" * 50 + b"\0", "too many values"),
        (b"\x1e", "no type 14"),
    ],
)
def test_damage_is_told_before_it_costs_anything(data: bytes, reason: str) -> None:
    with pytest.raises(ThriftError, match=reason):
        read_struct(data, 0, len(data), 40)


def test_bytes_behind_the_end_are_not_taken() -> None:
    with pytest.raises(ThriftError, match="ends early"):
        read_struct(EVERYTHING, 0, len(EVERYTHING) - 1, 100)


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=60), damage=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=3))
def test_any_bytes_are_a_struct_or_refused(data: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(EVERYTHING)
    for at, byte in damage:
        damaged[at % len(damaged)] = byte
    for some in (data, bytes(damaged)):
        try:
            _, position = read_struct(some, 0, len(some), 1000)
        except ThriftError:
            continue
        assert position <= len(some)
