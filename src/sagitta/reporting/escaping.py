r"""What people call their classes, files and runs, made harmless: the one place where text from data becomes markup.

Three things happen to such a text, whatever it is written into:

1. :func:`visible`: what has no shape of its own stands there as an escape, such as ``\n``, ``\x00`` or ``\u202e``. A
   mark of direction could otherwise turn everything around it, and two names that differ by one would look alike.
2. Signs that mean something there are escaped: :func:`escaped` for HTML and SVG, :func:`as_json` for the page's script,
   :func:`markdown` and :func:`latex` for tables.
3. What is written from right to left keeps to itself: :func:`named` in a page, :func:`apart` in an attribute.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

_JOINERS = "\u200c\u200d"  # hold emoji and letters of many scripts together
_ISOLATED = "\u2068{}\u2069"  # the direction of what is between is its own
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$])")
_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"{\char34}",  # babel makes it a command in some languages
}


def visible(words: str) -> str:
    r"""Return text in which everything can be seen: controls, marks of direction, new lines as escapes."""
    if words.isprintable():
        return words
    return "".join(letter if _has_shape(letter) else _escape(letter) for letter in words)


def _has_shape(letter: str) -> bool:
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()


def escaped(words: str) -> str:
    """Return text for HTML or SVG, between tags or in a quoted attribute."""
    return str(escape(visible(words)))


def lines(words: str) -> Markup:
    """Return text of several lines for a page, which keeps its line ends and tabs."""
    return Markup(re.sub(r"[^\n\t]+", lambda found: escaped(found[0]), words.replace("\r\n", "\n")))


def apart(words: str) -> Markup:
    """Return text for an attribute, isolated where it is written from right to left, so that it turns nothing else.

    What is markup already stays as it is.
    """
    if isinstance(words, Markup):
        return words
    shown = escaped(words)
    return Markup(_ISOLATED.format(shown) if _turns(words) else shown)


def _turns(words: str) -> bool:
    return not words.isascii() and any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in words)


def named(words: str) -> Markup:
    """Return a name for a page: an element of its own direction, which may be broken behind signs that join parts."""
    return Markup("<bdi>" + re.sub(r"([_/\-])(?=\w)", r"\1<wbr>", escaped(words)) + "</bdi>")


def phrase(text: str, *words: str) -> Markup:
    """Return a sentence of ours, whose ``{}`` are filled with words from data."""
    return Markup(text).format(*map(apart, words))


def as_json(value: Any) -> str:
    """Return a value as JSON, which a template escapes like any text."""
    return json.dumps(_all_visible(value), ensure_ascii=False, separators=(",", ":"))


def _all_visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {_all_visible(key): _all_visible(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_all_visible(each) for each in value]
    return value


def json_script(value: Any, name: str) -> Markup:
    r"""Return a value as a block of data, in which no ``</script>`` and no ``<!--`` can stand: ``<`` is ``\u003c``."""
    text = as_json(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(f'<script type="application/json" id="{escaped(name)}">{text}</script>\n')


def markdown(words: str) -> str:
    """Return words in which nothing is a sign of Markdown or HTML."""
    shown = _MARKDOWN.sub(r"\\\1", visible(words))
    return _ISOLATED.format(shown) if _turns(words) else shown


def latex(words: str) -> str:
    """Return words in which nothing is a command of LaTeX, and no two hyphens become a dash."""
    return re.sub("-(?=-)", "-{}", "".join(_LATEX.get(letter, letter) for letter in visible(words)))
