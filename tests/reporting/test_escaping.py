"""Text from data: nothing of it is markup, unseen or turns what stands beside it, wherever it is written."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from markupsafe import Markup

from sagitta.reporting import escaping
from sagitta.reporting.escaping import (
    apart,
    as_json,
    escaped,
    json_script,
    latex,
    lines,
    markdown,
    named,
    phrase,
    visible,
)
from tests.reporting.runs import HOSTILE

MARKS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""What nobody sees, and what turns text."""


@pytest.mark.parametrize("name", [*HOSTILE, "\udcff", "\u2066\u2067\u2068\u2069", "a\u200eb"])
def test_nothing_unseen_is_left_and_nothing_is_lost(name: str) -> None:
    shown = visible(name)
    assert not MARKS.search(shown) and unescape(escaped(name)) == shown
    assert not re.search("[<>\"']", escaped(name)) and named(name).striptags() == shown.strip()
    for text in (markdown(name), as_json(name), json_script(name, "x")[:-1]):
        assert not MARKS.search(text.replace("\u2068", "").replace("\u2069", ""))
    assert json.loads(as_json({name: [name]})) == {shown: [shown]}


def test_emoji_and_scripts_that_need_joiners_stay_whole() -> None:
    for name in ("👩‍🔬", "می‌خواهم", "a\u3000b\xa0c", "中文", "ñ"):
        assert visible(name) == name
    assert visible("a\nb\t\x00\u202ec") == r"a\nb\t\x00\u202ec"


def test_data_in_a_script_cannot_end_it() -> None:
    block = json_script({"name": "</script><!-- &"}, 'a"b')
    assert block.count("<") == 2 and 'id="a&#34;b"' in block
    assert json.loads(block.split(">", 1)[1].rsplit("<", 1)[0]) == {"name": "</script><!-- &"}


def test_names_are_elements_of_their_own_direction_and_may_be_broken() -> None:
    assert named("<b>_a/b") == "<bdi>&lt;b&gt;_<wbr>a/<wbr>b</bdi>"
    assert apart('"a"') == "&#34;a&#34;" and apart("אבגד") == "\u2068אבגד\u2069"
    assert apart("אבגד\u2069\u202e") == "\u2068אבגד\\u2069\\u202e\u2069"
    assert phrase("<b>{}</b>", "<i>") == "<b>&lt;i&gt;</b>" and apart(Markup("<b>")) == "<b>"


def test_lines_and_tabs_of_a_file_stay() -> None:
    assert lines("a: <b>\n\tc\r\nd\x00\u202e") == "a: &lt;b&gt;\n\tc\nd\\x00\\u202e"


def test_tables_of_papers_hold_words_and_no_commands() -> None:
    assert markdown("a|b_*[c](d)`<i>`&lt;~\\$") == r"a\|b\_\*\[c\](d)\`\<i\>\`\&lt;\~\\\$"
    assert markdown("אבגד") == "\u2068אבגד\u2069"
    assert latex('50% of a_b & {c}\\d--e~^|"`<#$\n') == (
        r"50\% of a\_b \& \{c\}\textbackslash{}d-{}-e\textasciitilde{}\textasciicircum{}\textbar{}{\char34}"
        r"\textasciigrave{}\textless{}\#\$\textbackslash{}n"
    )


def test_no_other_module_escapes_by_itself() -> None:
    for file in Path(escaping.__file__).parent.glob("*.py"):
        if file.name != "escaping.py":
            assert not re.search(r"html import|markupsafe import .*\bescape\b", file.read_text()), file
