"""What is printed for an issue: everything that is asked for, and nothing private."""

import getpass
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from sagitta.images import engine
from sagitta.verbs import system
from sagitta.verbs.system import without_folders


def test_all_that_an_issue_needs_is_there() -> None:
    lines = dict(line.split(maxsplit=1) for line in system().replace("Pillow's own", "Pillow's").splitlines())
    assert lines["sagitta"] == version("sagitta") and lines["Python"].endswith(platform.python_version())
    assert lines["decoder"] == without_folders(engine()) and lines["Pillow's"].startswith("libjpeg-turbo ")
    assert lines["memory"].endswith(" GiB") and " may be used, of " in lines["cores"]
    for name in ("torch", "torchvision", "timm", "lightning", "pyarrow", "pillow"):
        assert f"{name} {version(name)}" in lines["packages"]
    assert lines["GPUs"] and lines["processor"] and platform.system() in lines["system"]


def test_nothing_private_is_in_it() -> None:
    text = system()
    assert str(Path.home()) not in text and str(Path.cwd()) not in text and platform.node() not in text.split()
    assert getpass.getuser() not in text.split()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("does not load (/home/ada/venv/core.so: cannot open)", "does not load (…/core.so: cannot open)"),
        ("of C:\\Users\\Ada\\core.dll", "of …/core.dll"),
        ("~/work/core.so, and /opt/x/y", "…/core.so, and …/y"),
        ("libjpeg-turbo 2.1.5; Debian GNU/Linux 12 (bookworm)", "libjpeg-turbo 2.1.5; Debian GNU/Linux 12 (bookworm)"),
    ],
)
def test_of_paths_the_last_part_is_left(text: str, left: str) -> None:
    assert without_folders(text) == left


def test_the_command_prints_it_without_a_dataset(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sagitta", "inspect", "--system"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("sagitta ") and "GPUs" in done.stdout and not done.stderr
    assert not list(tmp_path.iterdir())
