"""The project's own machinery: requirements, the files of a wheel, and what decides on the checks."""

import ast
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_docs import ROOT, script

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Return requirements by their canonical names; comments are left out."""
    texts = [line.partition("#")[0].strip() for line in lines]
    return {canonicalize_name(each.name): each for each in map(Requirement, filter(None, texts))}


def pinned(text: str) -> dict[str, tuple[Version, int]]:
    """Return version and number of digests of each package in a file that ``uv pip compile`` wrote."""
    found: dict[str, tuple[Version, int]] = {}
    for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE):
        if match := re.match(r"([\w.-]+)==([^\s;]+)", block):
            found[canonicalize_name(match[1])] = Version(match[2]), block.count("--hash=sha256:")
    return found


def test_what_is_pinned_for_serving_satisfies_what_serving_wants() -> None:
    pins = pinned((ROOT / "requirements" / "serve.txt").read_text())
    wanted = requirements((ROOT / "requirements" / "serve.in").read_text().splitlines())
    assert len(wanted) > 5 and len(pins) > len(wanted)
    assert all(digests for _, digests in pins.values())
    for source in (wanted, requirements(EXTRAS["serve"])):
        for name, requirement in source.items():
            assert name in pins and pins[name][0] in requirement.specifier, requirement


def test_a_pin_that_does_not_satisfy_would_be_seen() -> None:
    pins = pinned(
        "anyio==4.16.0 \\\n    --hash=sha256:59 \\\n    --hash=sha256:c6\nuvloop==0.20 ; sys_platform != 'x'\n"
    )
    assert pins == {"anyio": (Version("4.16.0"), 2), "uvloop": (Version("0.20"), 0)}
    assert pins["uvloop"][0] not in requirements(["uvloop>=0.21; sys_platform != 'win32'  # why"])["uvloop"].specifier


def test_requirements_that_are_said_twice_are_the_same() -> None:
    said = {"dependencies": requirements(PROJECT["project"]["dependencies"])}
    said |= {name: requirements(lines) for name, lines in EXTRAS.items()}
    said |= {name: requirements(lines) for name, lines in PROJECT["dependency-groups"].items()}
    said["serve.in"] = requirements((ROOT / "requirements" / "serve.in").read_text().splitlines())
    for name in {name for group in said.values() for name in group}:
        specifiers = {place: str(group[name].specifier) for place, group in said.items() if name in group}
        assert len(set(specifiers.values())) == 1, (name, specifiers)
    assert set(said["serve.in"]) >= set(said["serve"])


def test_every_file_of_the_package_goes_into_a_wheel() -> None:
    listed = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git, which knows the package's files")
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for path in map(Path, listed.stdout.split()):
        if path.suffix == ".py" or path.suffix in {".cpp", ".h", ".map"}:
            continue
        package = next(parent for parent in path.parents if (ROOT / parent / "__init__.py").exists())
        patterns = data["*"] + data.get(".".join(package.parts[1:]), [])
        assert any(fnmatch.fnmatch(str(path.relative_to(package)), each) for each in patterns), path


def copy_of_the_source(folder: Path) -> Path:
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    return folder


def setup(source: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``setup.py`` where no compiler works."""
    pytest.importorskip("setuptools")
    return subprocess.run(
        [sys.executable, "setup.py", "-q", *map(str, arguments)],
        cwd=source,
        env={**os.environ, "CC": "false", "CXX": "false", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_compiler_an_install_goes_on_and_a_wheel_to_hand_on_does_not(tmp_path: Path) -> None:
    source = copy_of_the_source(tmp_path)
    for name in ("README.ijg", "LICENSE.md"):
        (tmp_path / "jpeg" / "share" / "doc" / "libjpeg-turbo").mkdir(parents=True, exist_ok=True)
        (tmp_path / "jpeg" / "share" / "doc" / "libjpeg-turbo" / name).write_text(f"of {name}\n")
    refused = setup(source, "bdist_wheel", SAGITTA_LIBJPEG=str(tmp_path / "jpeg"))
    assert refused.returncode and "false" in refused.stderr and not list(source.glob("dist/*"))
    assert setup(source, "bdist_wheel", SAGITTA_LIBJPEG="").returncode == 0
    (wheel,) = source.glob("dist/*")
    assert re.fullmatch(r"sagitta-[\d.]+-py3-none-(?!any)\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as opened:
        assert not [name for name in opened.namelist() if "libjpeg-turbo" in name]
        metadata = next(name for name in opened.namelist() if name.endswith("/METADATA"))
        opened.extract(metadata, tmp_path / "wheel")
    distinfo = (tmp_path / "wheel" / metadata).parent
    added = f"import setup; from pathlib import Path; setup.add_licences(Path({str(distinfo)!r}))"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['setup.py', '--version']; {added}"],
        cwd=source,
        env={**os.environ, "SAGITTA_LIBJPEG": str(tmp_path / "jpeg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    head = (distinfo / "METADATA").read_text().partition("\n\n")[0]
    assert "License-Expression: Apache-2.0 AND IJG AND Zlib\n" in head + "\n"
    for name in re.findall(r"^License-File: (libjpeg-turbo/.*)$", head, re.MULTILINE):
        assert (distinfo / "licenses" / name).read_text().strip()
    assert "Independent JPEG Group" in (distinfo / "licenses" / "libjpeg-turbo" / "NOTICE").read_text()


def test_the_source_of_libjpeg_is_known_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libjpeg: Any = script(ROOT / "tools" / "libjpeg.py")
    (tmp_path / "CMakeLists.txt").write_text("\n")
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(tmp_path / "CMakeLists.txt", f"libjpeg-turbo-{libjpeg.VERSION}/CMakeLists.txt")
    monkeypatch.setattr(libjpeg, "UPSTREAM", archive.as_uri())
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=f"has the SHA-256 .*, not {libjpeg.SHA256}"):
        libjpeg.source(tmp_path / "a")
    monkeypatch.setattr(libjpeg, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert (libjpeg.source(tmp_path / "a") / "CMakeLists.txt").exists()


def test_without_any_source_of_libjpeg_the_reasons_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libjpeg: Any = script(ROOT / "tools" / "libjpeg.py")
    monkeypatch.setattr(libjpeg, "UPSTREAM", (tmp_path / "nothing").as_uri())
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    with pytest.raises(libjpeg.NoSourceError, match=r"from_upstream: .*; from_debian: "):
        libjpeg.source(tmp_path)


def git(folder: Path, *arguments: str, days: int = 0) -> None:
    """Run git with fixed names; what is committed is so many days old."""
    when = f"{1_700_000_000 - days * 86_400} +0000"
    names = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, env=os.environ | names | dates)


def commit(folder: Path, name: str, days: int) -> None:
    (folder / name).write_text(f"{days}\n")
    git(folder, "add", name)
    git(folder, "commit", "-m", name, days=days)


def changed(folder: Path, *paths: str) -> str:
    """Return what ``.ci/changed`` says in a repository."""
    (folder / ".ci").mkdir(exist_ok=True)
    shutil.copy(ROOT / ".ci" / "changed", folder / ".ci")
    status = subprocess.run(["bash", ".ci/changed", *paths], cwd=folder, capture_output=True, check=False).returncode
    return {0: "yes", 1: "no", 2: "unknown"}[status]


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_what_was_changed_lately(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    assert changed(origin, "a") == "unknown"  # no repository
    git(origin, "init", "-b", "main")
    commit(origin, "a", days=9)
    assert changed(origin, "a") == "unknown"  # nothing is older
    commit(origin, "b", days=5)
    commit(origin, "c", days=4)
    assert [changed(origin, name) for name in "abc"] == ["no", "no", "yes"]  # no origin: against a day before
    (origin / "a").write_text("not committed\n")
    assert changed(origin, "b", "a") == "yes" and changed(origin, "b") == "no"
    (origin / "d").write_text("new, and not added yet")
    assert changed(origin, "d") == "yes"
    (origin / "d").unlink()
    git(origin, "checkout", "a")
    git(tmp_path, "clone", str(origin), "clone")
    clone = tmp_path / "clone"
    assert [changed(clone, name) for name in "abc"] == ["no", "no", "yes"]  # origin/main itself: likewise
    git(clone, "checkout", "-b", "branch")
    commit(clone, "d", days=0)
    assert [changed(clone, name) for name in "abcd"] == ["no", "no", "no", "yes"]  # against where it left origin/main
    git(tmp_path, "clone", "--depth", "1", origin.as_uri(), "shallow")
    assert changed(tmp_path / "shallow", "c") == "unknown"


def sessions() -> dict[str, ast.FunctionDef]:
    """Return the functions of ``noxfile.py`` that are sessions."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {each.name: each for each in functions if each.decorator_list}


def commands(session: ast.FunctionDef) -> list[str]:
    """Return the commands of a session that consist of literals."""
    calls = [node for node in ast.walk(session) if isinstance(node, ast.Call)]
    runs = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "run"]
    return [" ".join(str(ast.literal_eval(each)) for each in run.args) for run in runs if all_literals(run)]


def all_literals(call: ast.Call) -> bool:
    return all(isinstance(each, ast.Constant) for each in call.args)


def test_all_places_call_sessions_that_exist() -> None:
    gate = re.findall(r"\bcheck (\w+)", (ROOT / ".ci" / "run").read_text())
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    there: list[str] = []
    for job in workflow["jobs"].values():
        there += job.get("strategy", {}).get("matrix", {}).get("session", [])
        there += [name for step in job["steps"] for name in re.findall(r"nox -s (\w+)", step.get("run", ""))]
    assert set(gate) >= {"lint", "types", "tests", "slow", "docs", "wheel", "fuzz"}
    assert set(gate) | set(there) <= set(sessions()) == set(there)


def test_a_commit_is_checked_by_the_commands_of_the_sessions() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {hook["entry"] for hook in hooks}
    own = {command for name in ("lint", "types") for command in commands(sessions()[name])}
    assert own == {"ruff check .", "ruff format --check .", "hadolint Containerfile", "mypy"} and own <= entries
