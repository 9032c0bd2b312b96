"""The module list is the architecture: imports go upwards only, and the first ones start fast."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sagitta

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "sagitta"


def file_map() -> list[str]:
    """Module names in the order of README's file map."""
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)(?:\.py|/)`", row)]


def imports_of(module: str) -> set[str]:
    """Names of Sagitta's modules that a module, or any file of a package, imports."""
    names: set[str] = set()
    for path in [SOURCE / f"{module}.py", *(SOURCE / module).glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())) if path.exists() else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sagitta."):
                names.add(str(node.module).split(".")[1])
            elif isinstance(node, ast.ImportFrom) and node.module == "sagitta":
                names |= {alias.name for alias in node.names} & set(file_map())
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("sagitta.")}
    return names - {module}


def test_readme_lists_every_module() -> None:
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    modules = {path.stem for path in SOURCE.glob("*.py")} | packages
    modules -= {"__init__", "__main__"}
    assert set(file_map()) == modules


@pytest.mark.parametrize("module", file_map())
def test_a_module_imports_only_from_those_above_it(module: str) -> None:
    above = file_map()[: file_map().index(module)]
    assert imports_of(module) <= set(above)


def test_every_test_file_mirrors_a_module() -> None:
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    assert tests - set(file_map()) == {"architecture", "examples"}


def test_modules_down_to_plan_start_without_torch() -> None:
    names = file_map()[: file_map().index("plan") + 1]
    code = f"import sys; {'; '.join(f'import sagitta.{name}' for name in names)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "torchvision", "sklearn", "timm"} & set(loaded)


def test_public_names_are_there() -> None:
    assert all(getattr(sagitta, name) is not None for name in sagitta.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sagitta.nonsense  # noqa: B018


def test_version_is_in_the_changelog() -> None:
    assert f"## [{sagitta.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f'version = "{sagitta.__version__}"' in (ROOT / "pyproject.toml").read_text()
