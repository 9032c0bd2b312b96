"""The page that compares Sagitta with its peers is current, has evidence for every cell, and names tests that run."""

import ast
import functools
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import ROOT, script

features = script(ROOT / "docs" / "matrix.py")
DATA = features.read()
ROWS = features.rows(DATA)
OURS = [(row.what, row.cells["sagitta"]) for row in ROWS]
SKIPS = ("skip", "skipif", "importorskip", "xfail")


@functools.cache
def functions(path: Path) -> dict[str, ast.FunctionDef]:
    """Return the functions of a file by their names."""
    return {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def skipping(nodes: list[ast.AST]) -> bool:
    """Say whether anything in these trees skips, or expects to fail."""
    return any(isinstance(n, ast.Attribute) and n.attr in SKIPS for node in nodes for n in ast.walk(node))


def taken(path: Path, name: str, seen: frozenset[str] = frozenset()) -> Iterator[ast.AST]:
    """Yield a test or fixture, and the fixtures that it takes, of its own file or of conftest.py above it."""
    places = [path, *(folder / "conftest.py" for folder in path.parents if folder.is_relative_to(ROOT / "tests"))]
    found = next((p for p in places if p.exists() and name in functions(p)), None)
    if found is None:  # a fixture of pytest, or a parameter
        return
    node = functions(found)[name]
    yield node
    for argument in {a.arg for a in node.args.args} - seen - {name}:
        yield from taken(path, argument, seen | {name})


def fault(test: str) -> str | None:
    """Return what is wrong with a named test: it is not there, or may be skipped."""
    file, _, name = test.partition("::")
    path = ROOT / file
    if not path.is_file() or name not in functions(path) or not name.startswith("test_"):
        return f"{test} is not there"
    marks = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    marks = [node for node in marks if any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets)]
    return f"{test} may be skipped" if skipping([*marks, *taken(path, name)]) else None


def test_the_page_is_current() -> None:
    assert features.PAGE.read_text() == features.page(DATA), "run: python docs/matrix.py"


def test_there_are_enough_rows_each_once_and_enough_that_we_lack() -> None:
    assert len(ROWS) >= 25 and len(DATA["peers"]) == 6
    assert len({row.what for row in ROWS}) == len(ROWS)
    assert sum(cell.verdict == "no" for _, cell in OURS) >= 5
    assert all(set(row.cells) == {"sagitta", *DATA["peers"]} for row in ROWS)


@pytest.mark.parametrize(("what", "cell"), OURS, ids=[what for what, _ in OURS])
def test_what_we_say_of_us_has_tests_that_are_there_and_run(what: str, cell: Any) -> None:
    assert cell.verdict in ("yes", "partly", "no"), what
    assert (cell.verdict == "no") == (not cell.evidence), "a yes names its tests, a no has none"
    assert cell.verdict != "partly" or cell.remark
    assert [wrong for test in cell.evidence if (wrong := fault(test))] == []


@pytest.mark.parametrize("peer", DATA["peers"])
def test_what_we_say_of_a_peer_has_a_source_of_a_version(peer: str) -> None:
    for package in DATA["peers"][peer]["packages"]:
        assert re.fullmatch(r"\d+\.\d+\.\d+", DATA["packages"][package]["version"])
        assert DATA["packages"][package]["version"] in DATA["packages"][package]["link"]
    for row in ROWS:
        cell = row.cells[peer]
        assert re.fullmatch(r"yes|partly|no|with [\w-]+", cell.verdict), row.what
        assert cell.verdict != "partly" or cell.remark, row.what
        (evidence,) = cell.evidence
        if evidence.startswith("/"):
            assert cell.verdict == "no" and evidence.endswith("/") and re.compile(evidence[1:-1]), row.what
        else:
            assert features.link(DATA, evidence).startswith("https://github.com/"), row.what
            assert "#" in evidence or re.search(r"/blob/[0-9a-f]{40}/", evidence), row.what


def test_the_licence_is_what_the_table_says() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("test", "wrong"),
    [
        ("tests/test_features.py::test_the_page_is_current", None),
        ("tests/test_features.py::test_that_nobody_wrote", "is not there"),
        ("tests/images/test_native.py::test_normalize_checks", "may be skipped"),  # by its module's mark
        ("tests/serving/test_server.py::test_the_containerfile_passes_its_linter", "may be skipped"),  # inside
        ("tests/test_examples.py::test_dogs_vs_cats", "may be skipped"),  # by a fixture that it takes
    ],
)
def test_faults_of_named_tests_are_seen(test: str, wrong: str | None) -> None:
    found = fault(test)
    assert found is None if wrong is None else found is not None and wrong in found


@pytest.fixture
def release(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return the differences of one row from a release of one file with this text."""

    def compared(text: str) -> list[str]:
        folder = tmp_path / "peer-1.0.0" / "peer"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("")
        (folder / "export.py").write_text(text)
        data = {
            "peers": {
                "one": {"name": "One", "packages": ["peer"]},
                "two": {"name": "Two", "packages": ["peer"]},
                "three": {"name": "Three", "packages": ["peer"]},
            },
            "packages": {"peer": {"version": "1.0.0", "folder": "peer", "link": "https://github.com/"}},
            "theme": [
                {
                    "title": "A",
                    "row": [
                        {
                            "what": "B",
                            "sagitta": ["no", []],
                            "one": ["yes", "peer/export.py#def onnx"],
                            "two": ["no", "/tensorrt/"],
                            "three": ["yes", "peer/gone.py#x"],
                        }
                    ],
                }
            ],
        }
        return [line.partition(": ")[2] for line in features.differences(data, tmp_path)]

    return compared


def test_a_release_that_says_otherwise_is_told(release: Callable[[str], list[str]]) -> None:
    gone = "peer/gone.py#x: there is no such file"
    assert release("def onnx(): ...") == [gone]
    assert release("def TensorRT(): ...") == [
        "peer/export.py#def onnx: these words are not there",
        "/tensorrt/ is found in peer/export.py: 'TensorRT'",
        gone,
    ]
