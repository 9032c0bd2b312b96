import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sagitta.diagnosis.findings import FINDINGS, KINDS, SCORES, Findings, finding, table_of
from sagitta.errors import ConfigError

ROWS = [
    finding("dark", "95 % is dark", path="a/1.jpg", split="train", score=-3.0),
    finding("exact-leak", "the same pixels as t.jpg (test)", path="a/2.jpg", split="train", other_split="test"),
    finding("near-duplicate", "alike", path="<b>.jpg", split="train", other_split="train", score=0.9, action="none"),
    finding(
        "near-duplicate", "more alike", path="c.jpg", split="train", other_split="train", score=0.99, action="none"
    ),
]


@pytest.fixture
def findings() -> Findings:
    return Findings("photos", 12, table_of(ROWS), ("label errors: give a network",))


def test_the_worst_comes_first_and_a_kind_is_one_line(findings: Findings) -> None:
    assert findings.table.schema == FINDINGS
    assert findings.table["kind"].to_pylist() == ["exact-leak", "near-duplicate", "near-duplicate", "dark"]
    assert findings.kinds == {"exact-leak": 1, "near-duplicate": 2, "dark": 1}
    lines = findings.text().split("\n")
    assert lines[0] == "photos: 12 images, 1 serious kind of fault, 2 to know of"
    assert lines[1].startswith(
        "!! 1 image has an exact copy in another split: a/2.jpg: the same pixels as t.jpg (test). To"
    )
    assert lines[2].startswith("!  2 images have a near copy in their split, such as c.jpg: more alike. To do:")
    assert repr(findings) == str(findings) == findings.text()
    assert lines[4] == "not looked for: label errors: give a network" and len(lines) == 5


def test_of_equal_findings_the_one_to_be_reviewed_comes_first() -> None:
    actions = {"a": "none", "b": "review"}
    same = [finding("label-conflict", "", path=path, score=1.0, action=action) for path, action in actions.items()]
    assert table_of(same)["path"].to_pylist() == ["b", "a"]


def test_leaks_are_those_of_train(findings: Findings) -> None:
    assert findings.leaks == 1
    others = [finding("exact-leak", "", split="val", other_split="test"), *ROWS[2:]]
    assert Findings("x", 1, table_of(others)).leaks == 0


def test_nothing_is_said_plainly() -> None:
    assert Findings("x", 1, table_of([])).text() == "x: 1 image, nothing to find fault with"


def test_findings_are_written_and_read_again(findings: Findings, tmp_path: Path) -> None:
    findings.write(tmp_path / "f.parquet")
    assert pq.read_table(tmp_path / "f.parquet").equals(findings.table)
    findings.write(tmp_path / "f.csv")
    with (tmp_path / "f.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["kind"] for row in read] == findings.table["kind"].to_pylist() and read[1]["path"] == "c.jpg"
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        findings.write(tmp_path / "f.txt")


def test_a_notebook_shows_text_escaped(findings: Findings) -> None:
    shown = findings._repr_html_()
    assert "&lt;b&gt;.jpg" in shown and "<b>" not in shown and "exact copy in another split" in shown


def test_every_kind_has_words() -> None:
    assert all(kind.severity in ("serious", "doubtful", "note") and kind.advice for kind in KINDS.values())
    order = [("serious", "doubtful", "note").index(kind.severity) for kind in KINDS.values()]
    assert order == sorted(order)


def test_what_is_about_no_file_says_what_to_do_instead(tmp_path: Path) -> None:
    cue = finding("cue", "image size alone tells it", score=0.9)
    assert cue["action"] == "none"
    assert cue["evidence"] == f"image size alone tells it. No file to mend. To do: {KINDS['cue'].advice}"
    findings = Findings("x", 3, table_of([cue]))
    findings.write(tmp_path / "f.csv")
    with (tmp_path / "f.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == "" and "No file to mend. To do: " in row["evidence"]
    assert findings.text().count("To do") == 1  # nor is it said twice in a terminal


def test_the_lowest_is_the_worst_where_a_score_is_what_an_image_lacks() -> None:
    assert SCORES.keys() == KINDS.keys() - {"unreadable", "quarantined"}
    rows = [finding(kind, "", path=f"{score}.jpg", score=score) for kind in ("tiny", "huge") for score in (9.0, 3.0)]
    assert table_of(rows)["path"].to_pylist() == ["3.0.jpg", "9.0.jpg", "9.0.jpg", "3.0.jpg"]


def test_lines_of_leaks_say_which_copy_goes() -> None:
    for kind in ("exact-leak", "near-leak"):
        assert "the copy in train goes, not that in val or test" in KINDS[kind].advice
