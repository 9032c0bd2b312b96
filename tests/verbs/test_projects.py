"""A new project is whole or not there, is found in an installed package, and its own test passes."""

import errno
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sagitta
from sagitta.errors import ConfigError
from sagitta.verbs import projects

WHOLE = {".gitignore", "README.md", "config.yaml", "predict.py", "test_train.py", "train.py"}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run(*command: str, cwd: Path) -> str:
    variables = {**os.environ, "SAGITTA_CACHE": str(cwd / "cache")}
    result = subprocess.run([sys.executable, *command], cwd=cwd, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def test_its_files_are_in_the_package_and_are_what_is_made(tmp_path: Path) -> None:
    assert set(projects.project_files()) == WHOLE
    made = sagitta.new(tmp_path / "above" / "mine")
    assert made == tmp_path / "above" / "mine" and names_in(made) == WHOLE and names_in(made.parent) == {"mine"}
    for name in WHOLE:
        template = files("sagitta.verbs") / "new-project" / name.removeprefix(".")
        assert (made / name).read_bytes() == template.read_bytes() != b""
    assert len((made / "train.py").read_text().splitlines()) <= 60


def test_its_readme_names_each_file_and_commands_that_are_there() -> None:
    text = projects.project_files()["README.md"].read_text(encoding="utf-8")
    assert {name for name in WHOLE - {".gitignore", "README.md"} if f"`{name}`" not in text} == set()
    assert set(re.findall(r"python (\S+\.py)", text)) == {"train.py", "predict.py"}


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    sagitta.new(".")
    assert names_in(tmp_path) == WHOLE and tmp_path.stat().st_ino == before


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "-x", "full", "file", "link"])
def test_a_bad_name_and_what_is_there_are_refused_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full", "mine").touch()
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="name"):
        sagitta.new(name)
    assert names_in(tmp_path) == {"full", "file", "link"} and names_in(Path("full")) == {"mine"}


@pytest.mark.parametrize("there", [False, True])
def test_what_cannot_be_written_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    class Full(type(tmp_path)):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            raise OSError(errno.ENOSPC, "no room")

    found = {"README.md": files("sagitta.verbs") / "new-project" / "README.md", "train.py": Full("train.py")}
    monkeypatch.setattr(projects, "project_files", lambda: found)
    target = tmp_path / "above" / "mine"
    if there:
        target.mkdir(parents=True)
    with pytest.raises(OSError, match="mine") as caught:
        sagitta.new(target)
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.rglob("*")] == (["above", "mine"] if there else [])


def test_its_own_test_passes(tmp_path: Path) -> None:
    made = sagitta.new(tmp_path / "mine")
    assert "1 passed" in run("-m", "pytest", "-q", cwd=made)


def test_its_commands_train_on_photos_and_predict(tmp_path: Path) -> None:
    made = sagitta.new(tmp_path / "mine")
    rng = np.random.default_rng(0)
    for number in range(40):
        place = made / "photos" / "ab"[number % 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(place)
    (made / "photos" / "b" / "broken.jpg").write_bytes(b"no image")
    config = made / "config.yaml"
    for name, value in (("epochs", "1"), ("image_size", "32"), ("batch_size", "8"), ("lr", "1e-3")):
        text, count = re.subn(rf"^{name}: \S+", f"{name}: {value}", config.read_text(), flags=re.MULTILINE)
        assert count == 1
        config.write_text(text)
    (last,) = re.findall(r"test_acc [\d.]+%; next: python predict\.py (\S+)", run("train.py", "photos", cwd=made))
    assert (made / last).is_file()
    rows = run("predict.py", last, "photos", "photos/a/0.jpg", cwd=made).splitlines()
    assert rows[0] == "path,class,probability" and len(rows) == 1 + 40 + 1
    assert rows[1].split(",")[0] == "photos/a/0.jpg" and rows[1] == rows[-1]


def test_where_there_are_no_photos_one_line_says_so(tmp_path: Path) -> None:
    made = sagitta.new(tmp_path / "mine")
    result = subprocess.run([sys.executable, "train.py", "none"], cwd=made, capture_output=True, text=True)
    assert result.returncode == 2 and "none" in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
