"""Figures and tables as files: any program opens them, and no name of a class or a run is a command in them."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from sagitta.reporting import write_figures
from tests.reporting import runs
from tests.reporting.test_escaping import MARKS

NAMES = ("<script>alert(1)</script>", "\u202eexe\u2069 אבגד", "w" * 300, "中" * 40)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("exporting")
    data = runs.dataset(work / "data", NAMES, each=20)
    called = [work / "a|b_$\u202e & <i>", work / "100%--{x}#\n"]
    for seed, run in enumerate(called):
        runs.log(runs.run_of(run, data, seed=seed, skill=0.0))
    write_figures(called, work / "figures", images=False)
    return work / "figures"


def test_figures_are_svg_that_holds_names_and_no_elements_of_them(figures: Path) -> None:
    drawn = list(figures.rglob("*.svg"))
    assert {"confusion.svg", "class_counts.svg", "compare_acc.svg"} <= {path.name for path in drawn}
    for path in drawn:
        text = path.read_text()
        kinds = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
        assert kinds <= {"svg", "title", "style", "rect", "g", "line", "text", "path", "circle"}
        assert not MARKS.search(text.replace("\n", "")), path
    matrix = next(path for path in drawn if path.name == "confusion.svg").read_text()
    assert "&lt;script&gt;alert(" in matrix and r"\u202eexe\u2069 אבגד" in matrix


def test_tables_hold_names_and_no_commands_of_them(figures: Path) -> None:
    first, second = (figures / "metrics.md").read_text().splitlines()[2:4]
    assert first.startswith(r"| a\|b\_\$\\u202e \& \<i\> | Test (") and second.startswith(r"| 100%--{x}#\\n | Test (")
    assert len(re.findall(r"(?<!\\)\|", first)) == len(re.findall(r"(?<!\\)\|", second)) == 7
    rows = (figures / "metrics.tex").read_text()
    assert r"a\textbar{}b\_\$\textbackslash{}u202e \& \textless{}i\textgreater{} & Test (" in rows
    assert r"100\%-{}-\{x\}\#\textbackslash{}n & Test (" in rows
