"""What a person reads in a terminal: lines and tables that fit it, with no word broken and no path cut."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

from rich.cells import cell_len

_WIDTH, _GAP = 100, 2  # of a table that goes to no terminal; between columns
# A word with the spaces before it. A command behind a colon or a gap is one word, if nothing but a gap follows it: with
# punctuation in it, it is a sentence.
_WORDS = re.compile(r"\s*(?:(?:(?<=: )|(?<=   ))sagitta(?: \S*[^\s;,.:])+(?=$|   )|\S+)")


def columns(stream: TextIO | None = None) -> int | None:
    """Return how wide lines may be: ``COLUMNS`` where it is set, else the terminal; None for a file or a pipe."""
    stream = stream or sys.stdout
    if (given := os.environ.get("COLUMNS", "")).isdigit() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80 if stream.isatty() else None
    except (OSError, ValueError):  # no file behind it, or it is closed
        return None


def show(text: str, stream: TextIO | None = None) -> None:
    """Print text at once; in a terminal its lines are broken between words, in a file they stay whole."""
    stream = stream or sys.stdout
    wide = columns(stream)
    lines = [part for line in text.split("\n") for part in (wrapped(line, wide, "  ") if wide else [line])]
    print("\n".join(lines), file=stream, flush=True)


def wrapped(text: str, wide: int, indent: str = "") -> list[str]:
    """Return one line of text in several, none broken within a word; a word that is wider has a line of its own.

    A command at its end, or before a gap of three spaces, counts as a word, so that it can be copied.

    Args:
        text: leading spaces, and those between columns, stay as they are where no line ends.
        wide: cells, of which a letter of East Asia takes two.
        indent: of all lines but the first.
    """
    if cell_len(text) <= wide:
        return [text]
    lines: list[str] = []
    line = ""
    for word in _WORDS.findall(text):
        if line and cell_len(f"{line}{word}") > wide:
            lines.append(line)
            line = f"{indent}{word.lstrip()}"
        else:
            line += word
    return [*lines, line]


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, foot: Sequence[str] = (), wide: int | None = None
) -> list[str]:
    """Return the lines of a table: first column left, the others right.

    Where a first cell leaves no room for the others, they stand in the line below it.

    Args:
        heads: of the columns.
        rows: their cells; the first of a row may have several lines.
        foot: a last row, behind a line.
        wide: cells; by default the terminal.
    """
    wide = wide or columns() or _WIDTH
    every = [heads, *rows, *([foot] if foot else [])]
    widths = [max(cell_len(row[column]) for row in every) for column in range(1, len(heads))]
    room = wide - sum(width + _GAP for width in widths)
    firsts = [line for row in every for line in row[0].split("\n")]
    first = max((length for line in firsts if (length := cell_len(line)) <= room), default=0)
    rule = "─" * min(first + sum(width + _GAP for width in widths), wide)

    def drawn(row: Sequence[str]) -> list[str]:
        named = row[0].split("\n")
        if any(cell_len(line) > first for line in named):
            named = [*(part for line in named for part in wrapped(line, wide, "  ")), ""]
            named, below = named[-1:], named[:-1]
        else:
            below = []
        numbers = "".join(
            " " * (_GAP + width - cell_len(cell)) + cell for width, cell in zip(widths, row[1:], strict=True)
        )
        head = f"{named[0]}{' ' * (first - cell_len(named[0]))}{numbers}".rstrip()
        return [*below, head, *named[1:]]

    lines = [*drawn(heads), rule, *(line for row in rows for line in drawn(row))]
    return [*lines, rule, *drawn(foot)] if foot else lines


class WholeWords(argparse.HelpFormatter):
    """Formats the help of options without breaking a word, not even ``bf16-mixed`` at its hyphen."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(" ".join(text.split()), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(f"{indent}{line}" for line in wrapped(" ".join(text.split()), width - len(indent)))


def printable(text: str) -> str:
    r"""Return text with everything that would move the cursor, such as a new line, as ``\n``."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )
