"""Class names of the whole world in pictures: their letters, or escapes, and never the box of a missing one."""

from pathlib import Path

import pytest
from PIL import ImageFont

from sagitta.images import lettering as module
from sagitta.images.lettering import lettering

NAMES = ["plain", "caf\u00e9", "cafe\u0301", "\u732b", "\U0001f431", "\u043a\u043e\u0442", "a\u200bb", "\U0010fffd"]


@pytest.fixture(params=["", "nowhere"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With whatever fonts this system has, and without any."""
    module._system_font.cache_clear()
    if request.param:
        monkeypatch.setenv("PATH", request.param)
    return str(request.param)


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("name", NAMES)
def test_every_letter_that_is_drawn_is_in_the_font(name: str) -> None:
    text, font = lettering(name, 12)
    box = font.getmask("\U0010fffe")
    assert all(bytes(font.getmask(letter)) != bytes(box) or letter == " " for letter in text)
    assert text == name or text.isascii() or len(text) < len(name)  # the last: two letters composed into one


def test_without_fonts_what_pillow_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    module._system_font.cache_clear()
    monkeypatch.setenv("PATH", "nowhere")
    assert lettering("cat \u732b\n7 in train", 15)[0] == "cat \\u732b\n7 in train"
    assert lettering("\U0001f431", 15)[0] == "\\U0001f431"
    module._system_font.cache_clear()


def test_plain_names_stay_in_pillows_own_font() -> None:
    text, font = lettering("plain", 12)
    assert text == "plain" and isinstance(font, ImageFont.FreeTypeFont) and font.getname()[0] == "Aileron"


def test_a_font_that_cannot_be_opened_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command := tmp_path / "fc-match").write_text("#!/bin/sh\nprintf /no/such/font.ttf\n")
    command.chmod(0o755)
    module._system_font.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lettering("caf\u00e9", 12)[0] == "caf\\xe9"
    module._system_font.cache_clear()
