"""`sagitta doctor` as a person calls it."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_cli import refused, sagitta
from tests.diagnosis.conftest import faults, picture, put, saved


def test_find_review_mend_and_find_no_more(tmp_path: Path) -> None:
    put(tmp_path / "images", faults())
    found = sagitta("doctor", "images", "--out", "f.csv", "--contact-sheet", "s.png", "--strict", cwd=tmp_path)
    assert found.returncode == 1 and "!! 2 images have an exact copy in another split" in found.stdout
    assert "not looked for: label errors: give a network" in found.stdout
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 500
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["kind"] == "near-leak":
            row["action"] = "drop"
        elif row["path"] == "train/a/03.jpg":  # the wrong one of the two that are there under two labels
            row["action"] = "relabel"
    with (tmp_path / "f.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done = sagitta("convert", "images", "out", "--fix", "f.csv", cwd=tmp_path)
    assert done.returncode == 0 and "dropped and 1 relabelled by f.csv" in done.stdout
    again = sagitta("doctor", "out", "--strict", cwd=tmp_path)
    assert again.returncode == 0 and "another split" not in again.stdout and "another label" not in again.stdout


def test_a_fit_begins_with_a_glance_and_keeps_it(tmp_path: Path) -> None:
    put(tmp_path / "images", faults())
    done = sagitta("fit", "images", "--epochs", 1, "--image-size", 16, "--folds", 2, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "doctor: !! " in done.stdout
    once = f"lesser findings in {Path('run') / 'findings.parquet'}"  # whatever the number of members
    assert done.stdout.count(once) == 1
    assert (tmp_path / "run" / "findings.parquet").is_file()


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    put(tmp_path / "images", {f"{name}/{n}.png": saved(picture(n, 16), "PNG") for name in "ab" for n in range(4)})
    (tmp_path / "empty").mkdir()
    refused(sagitta("doctor", "empty", cwd=tmp_path), "empty")
    refused(sagitta("doctor", "images", "--out", "f.txt", cwd=tmp_path), ".csv or .parquet")
    refused(sagitta("doctor", "images", "--model", "resnet20", cwd=tmp_path), "--weights FILE")
    refused(sagitta("doctor", "images", "--pretrained", cwd=tmp_path), "--model")
    refused(sagitta("doctor", "images", "--run", "r", "--model", "resnet20", cwd=tmp_path), "leave --model")
    refused(sagitta("doctor", "images", "--out", "none/f.csv", cwd=tmp_path), "no such folder")


@pytest.mark.parametrize("columns", ["80", "160"])
def test_lines_fit_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    put(tmp_path / "images", {f"{name}/{n}.png": saved(picture(n, 40), "PNG") for name in "ab" for n in range(4)})
    found = sagitta("doctor", "images", cwd=tmp_path)
    assert found.returncode == 0 and max(map(len, found.stdout.splitlines())) <= int(columns)


def test_help_says_what_is_found_what_goes_and_what_columns_mean(tmp_path: Path) -> None:
    told = " ".join(sagitta("doctor", "--help", cwd=tmp_path).stdout.split())
    for words in (
        "also mirrored or turned by quarters", "Not found: crops of 20 %, turns by a few degrees, borders",
        "the one in train is named by path, and goes where the action is drop", "Column score orders the rows of a",
        "relabel (the class in column proposed_label is taken)", "instead of --model, --weights and --pretrained",
    ):  # fmt: skip
        assert words in told
    assert "those of action relabel get the class in column proposed_label" in " ".join(
        sagitta("convert", "--help", cwd=tmp_path).stdout.split()
    )
