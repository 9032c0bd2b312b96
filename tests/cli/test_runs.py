"""`predict` as people use it: what is skipped, where it is written, pipes that end early."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sagitta as api

from .test_cli import csv_rows, refused, sagitta


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, and a folder with two images, one of them broken, and what lies beside images."""
    work = tmp_path_factory.mktemp("predict")
    short = ("--epochs", 1, "--trainer.limit_train_batches", 2, "--out", "run")
    assert sagitta("fit", "digits", *short, cwd=work).returncode == 0
    (folder := work / "photos").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "a.png")
    (folder / "b.jpg").write_bytes(b"not an image")
    for name in ("labels.csv", "notes.TXT", ".hidden", "__MACOSX/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    return work


def test_what_conversion_skips_is_skipped_and_what_cannot_be_read_is_counted(work: Path) -> None:
    result = sagitta("predict", "run", "photos", "-o", "found.csv", cwd=work)
    assert result.returncode == 0 and [row["path"] for row in csv_rows(work / "found.csv")] == [
        "photos/a.png",
        "photos/b.jpg",
    ]
    assert "1 of 2 images could not be read" in result.stderr and "skipped 2 files of text" in result.stderr


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_predicted(work: Path) -> None:
    for place, words in (("none/x.csv", "mkdir -p none"), ("x.txt", ".csv, .parquet or .jsonl"), ("photos", ".csv, ")):
        refused(sagitta("predict", "nowhere", "photos", "-o", place, cwd=work), place, words)
    assert not (work / "none").exists()
    refused(sagitta("predict", "nowhere", "", cwd=work), "one of the paths is empty")


def test_a_name_that_is_not_utf8_is_named(work: Path) -> None:
    (folder := work / "latin").mkdir()
    shutil.copy(os.fsencode(work / "photos" / "a.png"), os.fsencode(folder) + b"/caf\xe9.png")
    refused(sagitta("predict", "run", "latin", cwd=work), "caf", "not valid UTF-8")
    refused(sagitta("predict", "run", os.fsdecode(b"caf\xe9.png"), cwd=work), "not valid UTF-8")


@pytest.mark.parametrize("paths", [5, None, [b"x", 3], ["photos", None], object()])
def test_paths_of_another_kind_are_refused_in_python(work: Path, paths: object) -> None:
    with pytest.raises(api.ConfigError, match="paths of type"):
        api.predict(work / "run", paths)  # type: ignore[arg-type]


def test_other_wrong_kinds_are_refused_in_python(work: Path) -> None:
    for run, how in ((5, {}), (None, {}), (work / "run", {"top_k": "3"}), (work / "run", {"top_k": 0})):
        with pytest.raises(api.SagittaError):
            api.predict(run, [str(work / "photos")], **how)  # type: ignore[arg-type]
    assert len(api.predict(str(work / "run"), [work / "photos", str(work / "photos" / "a.png")])) == 3


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = line.replace("sagitta", f"{sys.executable} -m sagitta", 1)
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    "line", ["--help | true", "fit --help | head -1", "inspect --engine >&-", "inspect --engine 2>&-"]
)
def test_closed_streams_and_pipes_end_quietly(work: Path, line: str) -> None:
    result = shell(f"sagitta {line}", work)
    assert result.returncode == 0 and result.stderr == ""


@pytest.mark.parametrize("output", ["-", "-.jsonl"])
def test_predictions_nobody_reads_end_quietly(work: Path, output: str) -> None:
    result = shell(f"sagitta predict run photos -o {output} | true; exit ${{PIPESTATUS[0]}}", work)
    assert result.returncode == 141 and result.stderr == ""


def test_output_that_finds_no_room_is_said(work: Path) -> None:
    result = shell("sagitta predict run photos > /dev/full", work)
    assert result.returncode == 2 and result.stderr == (
        "sagitta: the output: no room left on the disk; make room, or name a place on another disk\n"
    )
    result = shell("sagitta inspect --engine > /dev/full", work)
    assert result.returncode == 2 and result.stderr.startswith("sagitta: the output: no room left on the disk")


def test_members_of_a_tar_that_have_no_bytes_are_rows(work: Path) -> None:
    with tarfile.open(work / "linked.tar", "w") as tar:
        tar.add(work / "photos" / "a.png", "cat/a.png")
        for name, target in (("dog/b.png", "../cat/a.png"), ("dog/c.png", "../../a.png")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    assert sagitta("predict", "run", "linked.tar", "-o", "linked.csv", cwd=work).returncode == 0
    rows = csv_rows(work / "linked.csv")
    assert [row["path"] for row in rows] == ["linked.tar/cat/a.png", "linked.tar/dog/b.png", "linked.tar/dog/c.png"]
    assert rows[0]["class"] == rows[1]["class"] != "" and not rows[1]["error"]
    assert rows[2]["class"] == "" and "a link to ../a.png, which is not in the archive" in rows[2]["error"]


def test_help_says_what_unfamiliar_means(work: Path) -> None:
    words = " ".join(sagitta("predict", "--help", cwd=work).stdout.split())
    assert "unfamiliar: the share of known images that look less unusual" in words and "0.99 on" in words
