from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sagitta.dataset import ShardSet
from sagitta.diagnosis.findings import KINDS, Findings, finding, table_of
from sagitta.diagnosis.sheet import captions, findings_sheet


def test_pairs_stand_side_by_side_a_line_a_kind(faulty: Path, tmp_path: Path) -> None:
    shards = ShardSet.open(faulty)
    pair = {"split": "train", "path": "train/a/00.jpg", "other_split": "test", "other_path": "test/a/same.jpg"}
    rows = [finding("exact-leak", "", **pair), finding("dark", "", split="train", path="train/b/dark.jpg")]
    rows += [finding("imbalance", "of no image")]
    findings_sheet(Findings("x", 50, table_of(rows)), shards, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    red = (np.abs(pixels - (200, 30, 30)).sum(axis=2) < 10).sum(axis=1)
    assert len(np.flatnonzero(np.diff((red > 100).astype(int)) == 1)) == 4  # two frames: each an upper and a lower edge


def test_of_two_labels_both_are_said_and_their_images_shown_once(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    text = ImageDraw.ImageDraw.text

    def note(draw: ImageDraw.ImageDraw, place: Any, shown: str, *how: Any, **more: Any) -> None:
        drawn.append(shown)
        text(draw, place, shown, *how, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    one, other = ("train/b/other.jpg", "b"), ("train/a/03.jpg", "a")
    rows = [
        finding("label-conflict", "", split="train", path=path, label=label, other_split="train", other_path=like[0])
        for (path, label), like in ((one, other), (other, one))
    ]
    findings_sheet(Findings("x", 50, table_of(rows)), ShardSet.open(faulty), tmp_path / "sheet.png")
    shown = " ".join(drawn).split()
    assert shown.count("other.jpg") == shown.count("03.jpg") == 1
    assert "train: b" in " ".join(shown) and "train: a" in " ".join(shown)


def test_a_sheet_without_images_says_so(faulty: Path, tmp_path: Path) -> None:
    findings = Findings("x", 50, table_of([finding("imbalance", "of no image")]))
    findings_sheet(findings, ShardSet.open(faulty), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height < 50 and np.asarray(sheet).min() < 100  # a line of text


def test_the_proposed_class_has_lines_of_its_own() -> None:
    row = {"path": "a/b.jpg", "split": "train", "label": "Pieris_rapae", "proposed_label": "Heliconius_charitonius"}
    assert captions(row) == ["is it Heliconius_charitonius?", "b.jpg", "train: Pieris_rapae"]
    assert captions(row | {"proposed_label": None}) == ["b.jpg", "train: Pieris_rapae"]


def test_long_names_are_whole_on_a_sheet(faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    text = ImageDraw.ImageDraw.text  # which draws several lines, too

    def note(draw: ImageDraw.ImageDraw, place: Any, shown: str, *how: Any, **more: Any) -> None:
        drawn.append(shown)
        text(draw, place, shown, *how, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    proposed = "Heliconius_charitonius_var"
    path = {"split": "train", "path": "train/a/00.jpg", "label": "Pieris_rapae_of_the_North"}
    rows = [finding(kind, "", **path, proposed_label=proposed) for kind in KINDS]
    findings_sheet(Findings("x", 50, table_of(rows)), ShardSet.open(faulty), tmp_path / "sheet.png")
    shown = " ".join(drawn).replace("\n", " ")
    assert "…" not in shown and all(kind.many in shown for kind in KINDS.values())
    assert f"is it {proposed}?" in shown.replace("_ ", "_") and "Pieris_rapae_of_the_North" in shown.replace("_ ", "_")
