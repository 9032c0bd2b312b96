from pathlib import Path

import numpy as np
from PIL import Image

from sagitta.dataset import ShardSet
from sagitta.diagnosis.findings import Findings, finding, table_of
from sagitta.diagnosis.sheet import findings_sheet


def test_pairs_stand_side_by_side_a_line_a_kind(faulty: Path, tmp_path: Path) -> None:
    shards = ShardSet.open(faulty)
    pair = {"split": "train", "path": "train/a/00.jpg", "other_split": "test", "other_path": "test/a/same.jpg"}
    rows = [finding("exact-leak", "", **pair), finding("dark", "", split="train", path="train/b/dark.jpg")]
    rows += [finding("imbalance", "of no image")]
    findings_sheet(Findings("x", 50, table_of(rows)), shards, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    red = (np.abs(pixels - (200, 30, 30)).sum(axis=2) < 10).sum(axis=1)
    assert len(np.flatnonzero(np.diff((red > 100).astype(int)) == 1)) == 4  # two frames: each an upper and a lower edge


def test_a_sheet_without_images_says_so(faulty: Path, tmp_path: Path) -> None:
    findings = Findings("x", 50, table_of([finding("imbalance", "of no image")]))
    findings_sheet(findings, ShardSet.open(faulty), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height < 50 and np.asarray(sheet).min() < 100  # a line of text
