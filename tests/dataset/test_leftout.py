"""What a dataset left out is told apart: what nobody could read, and what somebody wanted left out."""

from pathlib import Path

import pytest
from PIL import Image

from sagitta.cli import main
from sagitta.dataset import left_out_lines, unreadable_files
from sagitta.dataset.schema import DatasetInfo


def test_unreadable_files_and_copies_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            place = tmp_path / "photos" / name / f"{number}.png"
            Image.new("RGB", (8, 8), (number * 20, 50, 200 if name == "a" else 0)).save(place)
    (tmp_path / "photos" / "a" / "4.png").write_bytes((tmp_path / "photos" / "a" / "3.png").read_bytes())
    (tmp_path / "photos" / "b" / "4.png").write_text("no image")
    out = tmp_path / "dataset"
    assert main(["convert", str(tmp_path / "photos"), str(out), "--drop-duplicates", "--workers", "1"]) == 0
    info = DatasetInfo.read(out)
    assert info.quarantined == 2
    assert [row["path"] for row in unreadable_files(out, info)] == ["b/4.png"]
    first, second = left_out_lines(out, info)
    assert first == "1 image could not be read when it was converted; none is counted here"
    assert second == "1 image left out when it was converted: copies, small classes, or by review"

    capsys.readouterr()
    run = str(tmp_path / "run")
    assert main(["fit", str(out), "--model", "simple-cnn", "--epochs", "1", "--batch-size", "4", "--out", run]) == 0
    printed = capsys.readouterr().out
    assert first in printed and second in printed and "2 images could not be read" not in printed
