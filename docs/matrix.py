"""Write features.md from features.toml: what Sagitta and its peers can do, with the evidence of every cell.

`python docs/matrix.py` writes the page. `python docs/matrix.py --peers FOLDER` compares every cell of a peer with
the wheels that were unpacked in FOLDER, in any folders below it: words that a file lacks, a file that is not there, and
a pattern of a "no" that is found nevertheless are printed, and the exit status is 1. To get them: `pip download
--no-deps` with the versions that the page names.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
SOURCE = HERE / "features.toml"
PAGE = HERE / "features.md"
HEAD = """\
- **A yes of ours** leads to its test. All of these tests must pass before a change is taken (`.ci/run`, and `.ci/full`
  for those marked slow), and none of them may be skipped.
- **A yes of a peer** leads to the place in its source. It says that it is there, not how well it works.
- **Partly**, and **with X**, a further package: explained below each table.
- **A no**: nothing of the kind was found in that release; [how it was looked for](#how-a-no-was-found) stands at the
  end. What can be written with a peer's parts is not counted, nor are other packages of its makers.

What is wrong here, or no longer so, is a bug: please open an issue. `python docs/matrix.py` writes this page from
`features.toml`; with `--peers FOLDER` it compares every cell with the unpacked releases. How fast and how good all of
them are: [bench/README.md](../bench/README.md)."""


class Cell(NamedTuple):
    """What one system does of one row: the verdict, tests of ours or one piece of evidence of a peer's, a remark."""

    verdict: str  # yes, partly, no, or "with X"
    evidence: tuple[str, ...]
    remark: str


class Row(NamedTuple):
    """One line of the matrix: its theme, what it is about, and a cell a system, ours under ``sagitta``."""

    theme: str
    what: str
    cells: dict[str, Cell]


def read() -> dict[str, Any]:
    """Return features.toml as it is."""
    return tomllib.loads(SOURCE.read_text())


def rows(data: dict[str, Any]) -> list[Row]:
    """Return the lines of the matrix in their order."""
    return [
        Row(theme["title"], row["what"], {name: _cell(row[name]) for name in ("sagitta", *data["peers"])})
        for theme in data["theme"]
        for row in theme["row"]
    ]


def _cell(values: list[Any]) -> Cell:
    verdict, evidence, remark = (*values, "")[:3]
    return Cell(verdict, tuple(evidence) if isinstance(evidence, list) else (evidence,), remark)


def page(data: dict[str, Any]) -> str:
    """Return the text of features.md."""
    lines = rows(data)
    own = [row.cells["sagitta"].verdict for row in lines]
    counts = ", ".join(f"{own.count(verdict)} {verdict}" for verdict in ("yes", "partly", "no"))
    number = {name: f"{name} {package['version']}" for name, package in data["packages"].items()}
    versions = "; ".join(
        f"{peer['name']} ({', '.join(number[name] for name in peer['packages'])})" for peer in data["peers"].values()
    )
    parts = [
        "# What Sagitta and its peers can do",
        f"{len(lines)} rows; Sagitta: {counts}. Read on {data['read']} in the source of the releases:\n{versions}.",
        HEAD,
    ]
    for theme in data["theme"]:
        parts += [f"## {theme['title']}", *_tables(data, [row for row in lines if row.theme == theme["title"]])]
    return "\n\n".join([*parts, *_noes(data, lines)]) + "\n"


def _tables(data: dict[str, Any], lines: list[Row]) -> list[str]:
    """Return the table of a theme, and what is to be said of its cells."""
    names = ["Sagitta", *(peer["name"] for peer in data["peers"].values())]
    table = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    notes = []
    for row in lines:
        shown = [_shown(data, name, cell) for name, cell in row.cells.items()]
        table.append(f"| {row.what} | " + " | ".join(shown) + " |")
        remarks = [
            f"{name}: {cell.remark}"
            for name, cell in zip(names, row.cells.values(), strict=True)
            if cell.remark and (cell.verdict != "no" or name == "Sagitta")
        ]
        if remarks:
            notes.append(f"- *{row.what}.* {'; '.join(remarks)}.")
    return ["\n".join(table), "\n".join(notes)]


def _shown(data: dict[str, Any], name: str, cell: Cell) -> str:
    if cell.verdict == "no":
        return "no"
    if name == "sagitta":
        links = [f"../{test.partition('::')[0]}" for test in cell.evidence]
        return f"[**{cell.verdict}**]({links[0]})"
    return f"[{cell.verdict}]({link(data, cell.evidence[0])})"


def link(data: dict[str, Any], evidence: str) -> str:
    """Return where a file of a release can be read."""
    if evidence.startswith("https://"):
        return evidence
    path = evidence.partition("#")[0]
    folder = path.partition("/")[0]
    for package in data["packages"].values():
        if folder == package["folder"]:
            return f"{package['link']}{path}"
        if folder.startswith(package["folder"]) and path.endswith("dist-info/METADATA"):
            return str(package["about"])
    raise ValueError(f"{evidence}: of no package that features.toml names")


def _noes(data: dict[str, Any], lines: list[Row]) -> Iterator[str]:
    """Yield, for ours the tests by row, and for each peer how each no was found."""
    yield "## Tests of ours"
    yield "\n".join(
        f"- *{row.what}*: " + ", ".join(f"`{test}`" for test in row.cells["sagitta"].evidence)
        for row in lines
        if row.cells["sagitta"].evidence
    )
    yield "## How a no was found"
    yield (
        "A pattern in `/…/` is a regular expression of which the Python files of the release hold nothing, whatever\n"
        "the case of letters; otherwise the place is named that shows what is done instead."
    )
    for name, peer in data["peers"].items():
        items = []
        for row in lines:
            cell = row.cells[name]
            if cell.verdict != "no":
                continue
            evidence = cell.evidence[0]
            if evidence.startswith("/"):
                found = f"`{evidence}`"
            else:
                found = f"[{evidence.partition('#')[0].rpartition('/')[2]}]({link(data, evidence)})"
            items.append(f"- *{row.what}*: {found}" + (f"; {cell.remark}" if cell.remark else ""))
        yield f"### {peer['name']}"
        yield "\n".join(items)


def differences(data: dict[str, Any], folder: Path) -> Iterator[str]:
    """Yield, a line each, the cells of peers that the unpacked releases in ``folder`` do not bear out."""
    texts = {
        path.relative_to(root).as_posix(): path.read_text(errors="replace")
        for package in data["packages"].values()
        for root in {path.parent for path in folder.rglob(package["folder"]) if (path / "__init__.py").exists()}
        | {path.parent for path in folder.rglob("autogluon") if (path / "multimodal").is_dir()}
        for path in root.rglob("*")
        if path.is_file() and (path.suffix in (".py", ".yaml") or path.name == "METADATA")
    }
    folders = {name: data["packages"][name]["folder"] for name in data["packages"]}
    for row in rows(data):
        for name, peer in data["peers"].items():
            evidence = row.cells[name].evidence[0]
            said = f"{row.what}, {peer['name']}: {evidence}"
            if evidence.startswith("/"):
                within = tuple(f"{folders[package]}/" for package in peer["packages"])
                found = re.compile(evidence[1:-1], re.IGNORECASE)
                yield from (
                    f"{said} is found in {path}: {hit.group()!r}"
                    for path, text in texts.items()
                    if path.startswith(within) and path.endswith(".py") and (hit := found.search(text))
                )
            elif not evidence.startswith("https://"):
                path, _, words = evidence.partition("#")
                if path not in texts:
                    yield f"{said}: there is no such file"
                elif words not in texts[path]:
                    yield f"{said}: these words are not there"


def main() -> int:
    """Write the page, or compare it with releases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="of unpacked wheels")
    folder = parser.parse_args().peers
    data = read()
    if folder is None:
        PAGE.write_text(page(data))
        return 0
    wrong = list(differences(data, folder))
    print("\n".join(wrong) or "every cell is borne out")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
