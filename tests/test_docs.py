"""What the documents say of the code is so: links, names, tables, pictures, examples."""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.test_architecture import PACKAGES, SOURCE

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "bench" / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "features.md",
    ROOT / "docs" / "serving.md",
]


def script(path: Path) -> Any:
    """Return a script beside the package as a module; it imports its neighbours as it does when it is run."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [str(path.parent), *sys.path]):
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "path", sorted({*DOCUMENTS, *(ROOT / "docs").rglob("*.md")}), ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    named = re.findall(r"`((?:[\w.]+/)*[\w.]+\.(?:py|cpp|toml)|(?:\.?[\w]+/)+)`", text)
    named = [name for name in named if not re.search("[A-Z]{3}", name)]  # RUN/ and the like stand for something
    places = (ROOT, path.parent, SOURCE, ROOT / "src")
    examples = {"checkpoints/", "predictions/", "lightning_logs/"}  # of a run directory
    assert [name for name in named if name not in examples and not any((p / name).exists() for p in places)] == []


def test_the_file_map_is_the_story() -> None:
    rows = README.read_text().partition("## File map")[2].splitlines()
    named = [name for row in rows if row.startswith("| `") for name in re.findall(r"`([\w.]+)/?`", row.split("|")[1])]
    assert [name.removesuffix(".py") for name in named] == PACKAGES


def test_readme_is_short_and_begins_with_commands_a_picture_and_a_table() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 151
    first = "\n".join(lines[:30])
    assert "pip install . && sagitta fit digits" in first and "](docs/fit.svg)" in first and "|---" in first


def test_python_in_readme_compiles_and_imports_what_is_public() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sagitta":
                assert node.attr in importlib.import_module("sagitta").__all__
            elif isinstance(node, ast.ImportFrom) and node.module == "sagitta":
                assert {alias.name for alias in node.names} <= set(importlib.import_module("sagitta").__all__)


@pytest.mark.parametrize("path", [README, ROOT / "bench" / "README.md"], ids=["README", "bench"])
def test_tables_are_those_of_the_results(path: Path) -> None:
    text = path.read_text()
    assert text.count("<!-- bench:") == text.count("<!-- /bench:") > 0
    table = script(ROOT / "bench" / "table.py")
    assert table.with_tables(text, ROOT / "bench" / "results") == text, "run: python bench/table.py"


def test_the_packages_are_drawn_as_they_are() -> None:
    packages = script(ROOT / "docs" / "packages.py")
    drawn = (ROOT / "docs" / "packages.svg").read_text()
    assert [name for name in PACKAGES if not re.search(rf">{name}(\.py|/)<", drawn)] == []
    assert packages.draw() == drawn, "run: python docs/packages.py"


def test_every_box_is_inside_of_the_picture() -> None:
    drawn = (ROOT / "docs" / "packages.svg").read_text()
    boxes = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn)
    assert len(boxes) > 10 and [box for box in boxes if float(box[0]) + float(box[1]) > 1000] == []


def test_arrows_that_follow_from_others_are_left_out_and_rows_are_as_low_as_they_can_be() -> None:
    packages = script(ROOT / "docs" / "packages.py")
    edges: dict[str, set[str]] = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a"}, "e": {"a", "c", "d"}}
    assert packages.reduced(edges) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}, "e": {"c", "d"}}
    assert packages.levels_of(edges) == [["a"], ["b"], ["d", "c"], ["e"]]


def test_the_picture_of_a_run_shows_no_path_of_a_machine() -> None:
    drawn = (ROOT / "docs" / "fit.svg").read_text()
    assert "$ sagitta fit digits" in drawn and "runs/digits-1" in drawn
    assert not re.search(r"/(tmp|home|root|work)/", drawn)
