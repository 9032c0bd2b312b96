"""Text in pictures: in a font that has its letters, or with escapes for those that none has; never as empty boxes."""

import subprocess
import unicodedata
from functools import cache

from PIL import ImageFont

from sagitta.terminal import printable

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_NOWHERE = "\U0010fffe"  # stands for no letter, so that every font draws its box for a missing one


def lettering(text: str, size: int) -> tuple[str, Font]:
    r"""Return the text as it can be drawn, and the font for it.

    Pillow's own font knows hardly more than ASCII. For the rest fontconfig, where the system has it, names the font
    that has the most of the letters; what this lacks, too, becomes an escape such as ``\u732b``.

    Args:
        text: anything; in several lines.
        size: in pixels.
    """
    composed = unicodedata.normalize("NFC", text).replace("\xa0", " ")
    lines = "\n".join(map(printable, composed.split("\n")))
    letters = frozenset(lines) - {"\n"}
    font: Font = ImageFont.load_default(size)
    if not _has_all(font, letters):
        font = _system_font("".join(sorted(letter for letter in letters if not letter.isascii())), size) or font
    return "".join(each if each == "\n" or _has(font, each) else _escape(each) for each in lines), font


@cache
def _system_font(letters: str, size: int) -> Font | None:
    """Return the font of the system that has the most of these letters; None where there is no such system."""
    charset = " ".join(f"{ord(letter):x}" for letter in letters)
    command = ["fc-match", "--format=%{file}", f"sans:scalable=true:color=false:charset={charset}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return ImageFont.truetype(found.stdout, size)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None


def _has_all(font: Font, letters: frozenset[str]) -> bool:
    return all(_has(font, letter) for letter in letters)


def _has(font: Font, letter: str) -> bool:
    """Return whether a font draws something else for a letter than its box for a missing one."""
    if letter == " ":
        return True
    drawn, box = font.getmask(letter), font.getmask(_NOWHERE)
    return drawn.size != box.size or bytes(drawn) != bytes(box)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
