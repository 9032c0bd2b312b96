"""Plots: round numbers, points where they belong, gaps, and files that any program opens."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from sagitta.reporting.svg import STANDALONE, Axes, Series, line_plot, number, percent, spread, ticks


def test_ticks_are_round_and_few() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.93, 1.0, most=5) == [0.94, 0.96, 0.98, 1.0]
    assert ticks(3, 3) == [3]
    assert all(len(ticks(0, high)) <= 7 for high in (0.0013, 7, 12345, 9.9e9))


def test_numbers_read_well() -> None:
    assert [number(value) for value in (0, 0.25, 1234.5, 3.2e-6, 5e7)] == ["0", "0.25", "1234", "3.2e-06", "5e+07"]
    assert percent(0.123456) == "12.35%"


def test_points_lie_between_the_axes() -> None:
    axes = Axes((0, 10), (0, 1))
    left, top, right, bottom = axes.box
    assert axes.at(0, 0) == (left, bottom) and axes.at(10, 1) == (right, top)
    logarithmic = Axes((0, 10), (0.01, 1), logarithmic=True)
    assert logarithmic.at(0, 0.1)[1] == pytest.approx((top + bottom) / 2)
    assert spread([1.0, math.nan, 3.0])[0] < 1 < 3 < spread([1.0, 3.0])[1] and spread([]) == (0, 1)
    assert (
        spread([1e-9, 1e-3])[0] == 0 and spread([0.0])[0] == 0 and spread([-1.0, 1.0])[0] < -1
    )  # a rate is never below


def test_letters_of_a_figure_stand_out_as_wcag_asks() -> None:
    colours = dict(re.findall(r"(text|\.[\w.]+)\{[^}]*?fill:#(\w+)", STANDALONE.replace(".cell.off", ".off")))

    def light(colour: str, strength: float = 1.0) -> float:
        digits = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
        parts = [(int(digits[at : at + 2], 16) * strength + 255 * (1 - strength)) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(letters: str, ground: float) -> float:
        return (ground + 0.05) / (light(colours[letters]) + 0.05)

    assert min(contrast("text", 1.0), contrast(".faint", 1.0)) >= 4.5
    assert min(contrast(".count", light(colours[cell], 0.65)) for cell in (".cell", ".off")) >= 4.5


def test_a_value_that_is_none_leaves_a_gap_and_one_alone_is_a_dot() -> None:
    figure = line_plot("x", "T", [Series("a", [1, 2, 3, 4], [1, math.nan, 2, 3])], "epoch", "loss")
    assert figure.inline().count("M") - figure.inline().count("MM") >= 2
    assert [len(each["points"]) for each in (figure.hover or {})["series"]] == [3]
    assert "<circle" in line_plot("x", "T", [Series("a", [1], [1])], "epoch", "loss").body


def test_a_file_is_svg_with_its_legend_and_names_are_escaped() -> None:
    figure = line_plot("x", "<T>", [Series("<a & b>", [1, 2], [1, 2]), Series("c", [1, 2], [2, 1])], "epoch", "loss")
    root = ElementTree.fromstring(figure.standalone())
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "<a & b>" in words and "c" in words
    assert ElementTree.fromstring(figure.inline()).attrib["aria-label"].startswith("<T>. <a & b>: from 1 to 2")
