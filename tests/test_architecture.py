"""The packages are the story: imports run one way, through faces, and the first packages start fast."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import sagitta

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "sagitta"

PACKAGES = [
    "errors",
    "clock",
    "signals",
    "files",
    "network",
    "terminal",
    "pool",
    "images",
    "dataset",
    "sources",
    "conversion",
    "loading",
    "ranks",
    "run",
    "models",
]
PACKAGES += ["settings", "evaluation", "training", "diagnosis", "reporting", "exporting", "serving", "verbs", "cli"]
"""From the ground to the roof; each imports only from those before it."""
APART = {"sources": {"conversion"}, "conversion": {"sources"}}
"""What must not be imported though it comes before."""


def imports_of(path: Path) -> list[tuple[str, str]]:
    """Return (module below sagitta, name) of everything that a file imports from Sagitta, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "sagitta":
            found += [((node.module or "").removeprefix("sagitta").lstrip("."), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(a.name[8:], "") for a in node.names if a.name.startswith("sagitta.")]
    return found


def files_of(package: str) -> list[Path]:
    """Return the modules of a package; a folder whose name no import could say holds templates."""
    inside = [path for path in (SOURCE / package).rglob("*.py") if path.parent.name.isidentifier()]
    return [path for path in [SOURCE / f"{package}.py", *inside] if path.exists()]


def test_every_module_belongs_to_a_package_of_the_story() -> None:
    found = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    found |= {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    assert found == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_from_those_before_it_and_through_their_faces(package: str) -> None:
    before = set(PACKAGES[: PACKAGES.index(package)]) - APART.get(package, set())
    for path in files_of(package):
        for module, name in imports_of(path):
            top, _, inside = (module or name).partition(".")
            if top == package:
                continue
            where = f"{path.relative_to(SOURCE)} imports {name or module} from sagitta.{module}"
            assert top in before, where
            assert not inside and not name.startswith("_"), f"{where}: past the face"


@pytest.mark.parametrize("package", [name for name in PACKAGES if (SOURCE / name).is_dir()])
def test_imports_inside_a_package_run_in_no_circle(package: str) -> None:
    graph: dict[str, set[str]] = {}
    for path in (SOURCE / package).glob("*.py"):
        inside = [module.split(".") for module, _ in imports_of(path) if module.startswith(f"{package}.")]
        inside += [[package, name] for module, name in imports_of(path) if module == package]
        graph[path.stem] = {parts[1] for parts in inside} & {other.stem for other in (SOURCE / package).glob("*.py")}
    while leaves := {name for name, needed in graph.items() if not needed & graph.keys()}:
        graph = {name: needed for name, needed in graph.items() if name not in leaves}
    assert not graph


def test_the_ground_imports_nothing() -> None:
    assert not [
        node
        for node in ast.walk(ast.parse((SOURCE / "errors.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def test_every_test_file_mirrors_a_module() -> None:
    tests = {path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    tests = {path for path in tests if path.parts[0] not in ("distributed", "golden")}
    mirrored = {path.with_name(f"{path.name.removeprefix('test_')}") for path in tests}
    packages = {path.with_suffix(".py").relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_dir()}
    assert {str(path) for path in mirrored - packages if not (SOURCE / path).exists()} == {
        "architecture.py",
        "checks.py",
        "community.py",
        "docs.py",
        "examples.py",
        "features.py",
        "fuzz.py",
        "guides.py",
        "site.py",
        "snippets.py",
        "cli/cli.py",
    }


def test_packages_down_to_conversion_start_without_torch() -> None:
    names = PACKAGES[: PACKAGES.index("conversion") + 1]
    paths = [path.relative_to(SOURCE.parent).with_suffix("") for name in names for path in files_of(name)]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "torchvision", "sklearn", "timm"} & set(loaded)


FACES = ["sagitta", *(f"sagitta.{name}" for name in PACKAGES if (SOURCE / name / "__init__.pyi").exists())]


@pytest.mark.parametrize("package", FACES)
def test_public_names_are_there(package: str) -> None:
    face = importlib.import_module(package)
    assert all(getattr(face, name) is not None for name in face.__all__) and set(face.__all__) <= set(dir(face))


def test_nonsense_is_no_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        sagitta.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_version_is_in_the_changelog() -> None:
    assert f"## [{sagitta.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f'version = "{sagitta.__version__}"' in (ROOT / "pyproject.toml").read_text()
