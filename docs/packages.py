"""Draws packages.svg: the packages, their modules and who imports whom, as the code says.

python docs/packages.py

An arrow goes from a package to one that it imports; an arrow that follows from others is left out.
"""

import ast
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "sagitta"
WIDTH, MARGIN, GAP, LANE = 1000, 24, 34, 22  # of the picture; around it; between rows; for arrows past other boxes
WIDE, NARROW = 540, 170  # boxes
FONT = "ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
COLOURS = {"plain": "#0f766e", "torch": "#b45309", "lightning": "#7c3aed"}
INK, FAINT, PAPER = "#1f2937", "#6b7280", "#fafaf7"

Edges = dict[str, set[str]]


@dataclass
class Package:
    """A package, or a module beside the packages.

    Attributes:
        name: below ``sagitta``.
        text: first sentence of its docstring.
        modules: its modules, each with what it imports at once: plain, torch or lightning.
        imports: the packages that it imports, inside functions too.
    """

    name: str
    text: str
    modules: dict[str, str]
    imports: set[str]

    @property
    def single(self) -> bool:
        """Whether it is one module."""
        return set(self.modules) == {self.name}


def read(source: Path) -> list[Package]:
    """Return the packages of a source tree, by name."""
    files = {path.stem: [path] for path in source.glob("*.py") if not path.stem.startswith("__")}
    files |= {path.parent.name: _modules_of(path.parent) for path in source.glob("*/__init__.py")}
    return [_package(name, source, files[name], set(files)) for name in sorted(files)]


def _modules_of(folder: Path) -> list[Path]:
    """Return the modules below a package; a folder whose name no import could say holds templates."""
    return sorted(path for path in folder.rglob("*.py") if path.parent.name.isidentifier())


def _package(name: str, source: Path, files: list[Path], names: set[str]) -> Package:
    trees = {path: ast.parse(path.read_text()) for path in files}
    document = (ast.get_docstring(trees[files[0]]) or "").split("\n\n")[0]
    sentence = " ".join(document.split()).split(". ")[0].rstrip(".")
    imports = {word for tree in trees.values() for word in _own(ast.walk(tree))}
    modules = {}
    for path, tree in trees.items():
        inside = path.relative_to(source).with_suffix("").parts[1:]
        if inside != ("__init__",):
            modules["/".join(inside).removesuffix("/__init__") or name] = _kind(tree.body)
    return Package(name, sentence, modules, imports & names - {name})


def _imported(nodes: Iterable[ast.AST]) -> Iterable[str]:
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _own(nodes: Iterable[ast.AST]) -> set[str]:
    return {name.split(".")[1] for name in _imported(nodes) if name.startswith("sagitta.")}


def _kind(body: list[ast.stmt]) -> str:
    tops = {name.split(".")[0] for name in _imported(body)}
    return "lightning" if "lightning" in tops else "torch" if tops & {"torch", "timm", "torchvision"} else "plain"


def ground_of(packages: list[Package]) -> list[Package]:
    """Return the modules that everything stands on: alone, without torch, importing only each other."""
    ground = [package for package in packages if package.single and set(package.modules.values()) == {"plain"}]
    while (kept := [each for each in ground if each.imports <= {other.name for other in ground}]) != ground:
        ground = kept
    return ground


def levels_of(edges: Edges) -> list[list[str]]:
    """Return rows of names, imported ones above; a name stands as low as those who import it allow."""
    level: dict[str, int] = {}
    while len(level) < len(edges):
        ready = [name for name in edges if name not in level and edges[name] <= level.keys()]
        level |= {name: 1 + max((level[other] for other in edges[name]), default=-1) for name in ready}
    for name in sorted(level, key=lambda name: -level[name]):
        users = [level[other] for other in edges if name in edges[other]]
        level[name] = min(users, default=level[name] + 1) - 1
    rows = range(max(level.values()) + 1)
    return [sorted((name for name in level if level[name] == row), reverse=True) for row in rows]  # sources come first


def reduced(edges: Edges) -> Edges:
    """Return the edges that do not follow from others."""

    def below(name: str) -> set[str]:
        return edges[name].union(*(below(other) for other in edges[name]))

    return {name: needed - set().union(*(below(other) for other in needed)) for name, needed in edges.items()}


@dataclass
class Box:
    """Where a package is drawn, pixels."""

    x: float
    y: float
    width: float
    height: float
    row: int

    @property
    def middle(self) -> float:
        """The middle of its width."""
        return self.x + self.width / 2


def draw(source: Path = SOURCE) -> str:
    """Return the picture of a source tree as SVG."""
    packages = {package.name: package for package in read(source)}
    ground = {package.name for package in ground_of(list(packages.values()))}
    edges = {name: {other if other not in ground else "" for other in packages[name].imports} for name in packages}
    edges = {"": set()} | {name: needed for name, needed in edges.items() if name not in ground}
    boxes: dict[str, Box] = {}
    y = float(MARGIN)
    parts = []
    for row, names in enumerate(levels_of(edges)):
        if not row:
            boxes[""] = Box(MARGIN, y, WIDTH - 2 * MARGIN, 0, row)
            parts.append(_ground(boxes[""], [packages[name] for name in sorted(ground)]))
        else:
            placed = _placed([packages[name] for name in names], y, row)
            boxes |= placed
            parts += [_drawn(packages[name], box) for name, box in placed.items()]
        y = max(box.y + box.height for box in boxes.values()) + GAP
    arrows = _arrows(reduced(edges), boxes)
    height = y + 12
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="{FONT}">',
            "<title>The packages of Sagitta and their imports</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0 0.5 L8 4 L0 7.5 Z" fill="{FAINT}"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height:.0f}" rx="12" fill="{PAPER}"/>',
            *arrows,
            *parts,
            _legend(height - 22),
            "</svg>\n",
        ]
    )


def _placed(row_packages: list[Package], y: float, row: int) -> dict[str, Box]:
    """Return the boxes of a row: one package in the middle with modules at its right, or packages side by side."""
    wide = [package for package in row_packages if not package.single] or row_packages[:1]
    narrow = [package for package in row_packages if package not in wide]
    beside = len(narrow) * (NARROW + 12) + 6 if len(wide) > 1 else 0  # one package leaves room enough for modules
    room = WIDTH - 2 * (MARGIN + LANE) - beside
    width = min(WIDE, (room - GAP * (len(wide) - 1)) / len(wide))
    left = (WIDTH - beside - len(wide) * width - GAP * (len(wide) - 1)) / 2
    boxes = {package.name: Box(left + index * (width + GAP), y, width, 0, row) for index, package in enumerate(wide)}
    right = left + len(wide) * (width + GAP) - GAP
    boxes |= {
        package.name: Box(right + 18 + index * (NARROW + 12), y, NARROW, 0, row) for index, package in enumerate(narrow)
    }
    tallest = max(_height(package, boxes[package.name].width) for package in row_packages)
    for box in boxes.values():
        box.height = tallest
    return boxes


def _lines(package: Package, width: float) -> list[str]:
    text = re.split("[:;]", package.text)[0] if package.single else package.text
    return textwrap.wrap(text, int((width - 28) / 6.7))


def _module_lines(package: Package, width: float) -> list[list[str]]:
    lines: list[list[str]] = [[]]
    for name in [] if package.single else package.modules:
        if sum(len(word) + 2.5 for word in [*lines[-1], name]) * 7.4 > width - 24:
            lines.append([])
        lines[-1].append(name)
    return lines if lines[0] else []


def _height(package: Package, width: float) -> float:
    return 34 + 16 * len(_lines(package, width)) + 18 * len(_module_lines(package, width)) + 8


def _heading(package: Package, x: float, y: float) -> str:
    name = package.name + (".py" if package.single else "/")
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="16" font-weight="700" fill="{INK}">{name}</text>'


def _drawn(package: Package, box: Box) -> str:
    kinds = set(package.modules.values())
    colour = COLOURS[next(kind for kind in ("lightning", "torch", "plain") if kind in kinds)]
    parts = [
        f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="8" '
        f'fill="#ffffff" stroke="{colour}" stroke-width="1.6"/>',
        _heading(package, box.x + 14, box.y + 24),
    ]
    y = box.y + 27
    for line in _lines(package, box.width):
        y += 16
        parts.append(f'<text x="{box.x + 14:.0f}" y="{y:.0f}" font-size="12.5" fill="{FAINT}">{escape(line)}</text>')
    for names in _module_lines(package, box.width):
        y += 18
        spans = "  ".join(f'<tspan fill="{COLOURS[package.modules[name]]}">{name}</tspan>' for name in names)
        parts.append(
            f'<text x="{box.x + 14:.0f}" y="{y:.0f}" font-size="12.5" font-weight="600" xml:space="preserve">'
            f"{spans}</text>"
        )
    return "\n".join(parts)


def _ground(box: Box, packages: list[Package]) -> str:
    cell = box.width / max(1, len(packages))
    box.height = max((_height(package, cell) for package in packages), default=20)
    parts = [
        f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="8" '
        f'fill="#e6f2f0" stroke="{COLOURS["plain"]}" stroke-width="1.6"/>'
    ]
    for index, package in enumerate(packages):
        x = box.x + index * cell + 14
        parts.append(_heading(package, x, box.y + 24))
        parts += [
            f'<text x="{x:.0f}" y="{box.y + 43 + 16 * line:.0f}" font-size="12.5" fill="{FAINT}">{escape(text)}</text>'
            for line, text in enumerate(_lines(package, cell))
        ]
    return "\n".join(parts)


def _arrows(edges: Edges, boxes: dict[str, Box]) -> list[str]:
    """Return an arrow for each edge: straight up to the next row, or along a lane past the boxes between."""
    arrows, lane = [], 0
    for name in edges:
        box = boxes[name]
        for other in sorted(edges[name]):
            target = boxes[other]
            if box.row - target.row == 1:
                x, y, end = box.middle, box.y, target.y + target.height
                to = min(max(x, target.x + 30), target.x + target.width - 30)
                turn = (y + end) / 2
                path = f"M{x:.0f} {y:.0f} C{x:.0f} {turn:.0f} {to:.0f} {turn:.0f} {to:.0f} {end + 2:.0f}"
            else:
                x, y, end = box.x + box.width, box.y + box.height / 2, target.y + target.height
                to = WIDTH - MARGIN - 8 - 10 * lane
                lane += 1
                path = f"M{x:.0f} {y:.0f} H{to - 8:.0f} Q{to:.0f} {y:.0f} {to:.0f} {y - 8:.0f} "
                if other:
                    side, level = target.x + target.width, target.y + target.height / 2
                    path += f"V{level + 8:.0f} Q{to:.0f} {level:.0f} {to - 8:.0f} {level:.0f} H{side + 2:.0f}"
                else:
                    path += f"V{end + 2:.0f}"
            arrows.append(f'<path d="{path}" fill="none" stroke="{FAINT}" stroke-width="1.5" marker-end="url(#tip)"/>')
    return arrows


def _legend(y: float) -> str:
    words = (("plain", "imports neither"), ("torch", "imports torch"), ("lightning", "imports Lightning"))
    parts = [f'<tspan fill="{COLOURS[kind]}" font-weight="600">{text}</tspan>   ' for kind, text in words]
    return (
        f'<text x="{WIDTH / 2:.0f}" y="{y:.0f}" font-size="12.5" text-anchor="middle" fill="{FAINT}" '
        f'xml:space="preserve">module colour:  {"".join(parts)}an arrow: imports</text>'
    )


if __name__ == "__main__":
    (HERE / "packages.svg").write_text(draw())
