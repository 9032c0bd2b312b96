"""Several labels a row: lists, or text such as ``cat;dog``."""

from collections import Counter
from collections.abc import Sequence

Cell = str | list[str] | None
"""A row's labels as written in a table; None where nothing is."""

_SEPARATORS = (";", "|")
_RECURRING = 0.75


def several_labels(cells: Sequence[Cell], separator: str | None) -> tuple[list[list[str]] | None, str | None]:
    """Return the labels of every row where rows have several, else None; and what was decided, in one sentence.

    Text is split without being asked only where the parts are seen to be labels of their own: three quarters of them
    also occur beside other parts or alone. ``tench; Tinca tinca`` stays one class.

    Args:
        cells: one a row.
        separator: of labels in text; empty for one label a row; None to detect ``;`` and ``|``.
    """
    if any(isinstance(cell, list) for cell in cells):
        lists = [cell if isinstance(cell, list) else split_text(cell, separator) for cell in cells]
        return lists, "several labels a row, as lists"
    texts = [cell for cell in cells if isinstance(cell, str)]
    found = next((mark for mark in _SEPARATORS if any(mark in text for text in texts)), None)
    if separator is None and found and _joins_labels(texts, found):
        separator = found
    if separator:
        note = f"several labels a row, separated by {separator!r} (if it is one: --label-separator '')"
        return [split_text(text if isinstance(text, str) else None, separator) for text in cells], note
    if separator is None and found:
        return None, f"labels with {found!r} count as one class each (if they are several: --label-separator {found!r})"
    return None, None


def split_text(text: str | None, separator: str | None) -> list[str]:
    """Return the labels in ``text``, each once, in their order; none in None or empty text."""
    parts = (text or "").split(separator) if separator else [text or ""]
    return list(dict.fromkeys(part for part in map(str.strip, parts) if part))


def _joins_labels(texts: Sequence[str], mark: str) -> bool:
    """Say whether most parts of the texts that hold ``mark`` occur in more than one distinct text."""
    distinct = set(texts)
    counts = Counter(part for text in distinct for part in split_text(text, mark))
    parts = {part for text in distinct if mark in text for part in split_text(text, mark)}
    return sum(counts[part] > 1 for part in parts) >= _RECURRING * max(len(parts), 1)
