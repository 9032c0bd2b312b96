"""`sagitta new` says what it made, and the next command."""

from pathlib import Path

import pytest

from sagitta.cli import main


def test_new_says_what_it_made_and_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["new", "my photos"]) == 0
    out = capsys.readouterr().out
    assert "train.py" in out and "Next: cd 'my photos' && python train.py PHOTOS" in out
    assert max(map(len, out.splitlines())) <= 80
    monkeypatch.chdir(tmp_path / "my photos")
    assert main(["new", "."]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "sagitta: .: is there already, and not empty; name another folder"
    (empty := tmp_path / "empty").mkdir()
    monkeypatch.chdir(empty)
    assert main(["new", "."]) == 0
    assert "Next: python train.py" in capsys.readouterr().out


def test_where_nothing_can_be_written_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "/proc/mine"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("sagitta: /proc/mine: ")
