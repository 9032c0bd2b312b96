"""The page of one run in every situation: nothing fails, and a part that means nothing says so in a line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sagitta.clock import Clock
from sagitta.reporting.gathering import gather
from sagitta.reporting.page import render
from sagitta.reporting.single import Single
from tests.reporting import runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.dataset(tmp_path_factory.mktemp("single"), ("a", "b", "c"), each=20)


def page(run: Path, *, images: bool = True, clock: Clock | None = None) -> tuple[dict[str, Any], str]:
    """Return what a page shows, and the page."""
    values = Single(gather(run), images=images, clock=clock or Clock(), umap=False).values()
    return values, render("run.html", values)


def missing(html: str, *words: str) -> None:
    """Make sure that something is said."""
    for each in words:
        assert each in html, each


def test_everything_is_there(data: Path, tmp_path: Path) -> None:
    runs.log(run := runs.run_of(tmp_path / "run", data, skill=0.5))
    runs.find(run, data)
    values, html = page(run)
    (part,) = values["parts"]
    assert part["matrix"]["whole"] and part["worst"] and all(each["picture"] is not None for each in part["worst"])
    assert [figure.name for figure in values["curves"]] == [
        "curve_loss", "curve_acc", "curve_lr", "throughput", "data_wait",
    ]  # fmt: skip
    assert [each["proposed_label"] for each in values["suspects"]] == [runs.EVIL[0], ""]
    labels = html.partition('<section id="labels">')[2].partition("</section>")[0]
    sure, _, doubted = labels.partition("<h3>Labels in doubt</h3>")
    assert 'title="label: plain"' in sure and 'title="label: plain"' not in doubted
    assert 'title="label: &lt;!-- a &amp; b --&gt;"' in doubted
    assert values["findings"]["total"] == 3 and values["findings"]["rows"][0]["other_picture"] is not None
    facts = dict(values["data"]["facts"])  # of a tall and a wide image, so of no image
    assert "largest image" not in facts and facts["largest height and width"] == "24 x 24"
    assert len(values["data"]["examples"]) == 3 and values["data"]["counts"] is not None
    missing(html, "Which normalisation?", "made from all rows", "holds no calibration")
    assert html.count("data:image/") == len(set(values["album"].pictures)) <= 400


def test_a_label_of_which_a_copy_has_another_is_no_contradiction_by_a_model(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data, skill=0.5)
    runs.find(run, data)
    rows = pq.read_table(run / "findings.parquet").to_pylist()
    rows[0] |= {"kind": "label-conflict", "label": "plain", "proposed_label": runs.EVIL[0]}
    pq.write_table(pa.Table.from_pylist(rows), run / "findings.parquet")
    values, html = page(run)
    assert [each["kind"] for each in values["suspects"]] == ["label-error", "label-doubt"]
    assert [each["kind"] for each in values["findings"]["rows"]] == ["label-conflict"]
    assert html.count('<span class="evidence">&lt;b&gt;it&lt;/b&gt;</span>') == 2  # whole, not cut to one line


def test_without_pictures_no_image_is_in_the_page(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data, skill=0.5)
    _, html = page(run, images=False)
    assert "data:image/" not in html and "<img" not in html
    missing(html, "left out with --no-images")


def test_where_time_is_over_the_figures_are_there_and_the_rest_says_so(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data, skill=0.5)
    values, html = page(run, clock=Clock(0))
    assert values["parts"][0]["metrics"] and not values["album"].pictures
    missing(html, "no time was left", f"sagitta report {run}")


def test_before_and_after_calibration(data: Path, tmp_path: Path) -> None:
    about = {
        "temperature": 2.0, "rows": 40, "fitted_on": "val", "before": {"loss": 1.0, "ece": 0.2},
        "after": {"loss": 0.8, "ece": 0.1},
    }  # fmt: skip
    values, html = page(runs.run_of(tmp_path / "run", data, tempered=2.0, calibration=about))
    assert list(values["parts"][0]["errors"]) == ["before", "after"]
    # Another checkpoint's test, or one with mirror images, knows nothing of the temperature.
    other, _ = page(runs.run_of(tmp_path / "other", data, calibration=about))
    assert list(other["parts"][0]["errors"]) == ["as it is"]
    missing(html, "logits are divided by 2; fitted on 40 rows of val", "calibration error there from 0.2000 to 0.1000")
    _, html = page(
        runs.run_of(tmp_path / "probe", data, tempered=2.0, calibration=about | {"fitted_on": "out-of-fold"})
    )
    missing(html, "fitted on 40 rows out of fold")


def test_a_temperature_of_one_says_why(data: Path, tmp_path: Path) -> None:
    about = {"temperature": 1, "rows": 9, "fitted_on": "val", "reason": "only 9 rows"}
    values, html = page(runs.run_of(tmp_path / "run", data, calibration=about))
    assert list(values["parts"][0]["errors"]) == ["as it is"] and "left as they are" in html and "only 9 rows" in html


@pytest.mark.parametrize("count", [2, 120, 1000])
def test_few_and_many_classes(count: int, tmp_path: Path) -> None:
    names = [f"class {number:04d}" for number in range(count)]
    data = runs.dataset(tmp_path / "data", names, each=12 if count == 2 else 3, side=8)
    values, html = page(runs.run_of(tmp_path / "run", data, skill=1.0))
    (part,) = values["parts"]
    assert len(part["matrix"]["names"]) == (2 if count == 2 else 40)
    assert len(part["pairs"]) <= 100 and part["pairs"] == sorted(part["pairs"], key=lambda pair: -pair["count"])
    assert len(part["classes"]) == count and len(html) < 5_000_000
    shown = {pair["key"] for pair in part["pairs"]}
    assert shown <= set(part["data"]["cells"])


def test_several_labels_say_where_a_part_means_nothing(tmp_path: Path) -> None:
    data = runs.dataset(tmp_path / "data", runs.EVIL, each=20, several=True)
    values, html = page(runs.run_of(tmp_path / "run", data, skill=0.5))
    (part,) = values["parts"]
    missing(html, "no label stands in the place of another", "falsely given")
    assert {each["missed"] + each["false"] for each in part["classes"]} != {0} and part["data"]["cells"]
    assert "<script>alert" not in html


def test_an_interrupted_run_and_lost_data(data: Path, tmp_path: Path) -> None:
    runs.log(run := runs.run_of(tmp_path / "run", data))
    for path in (run / "tests").rglob("*.*"):
        path.unlink()
    (run / "test_logs.csv").unlink()
    runs.change(run, result=None, best_checkpoint=None)
    config = (run / "config.yaml").read_text().replace(str(data), str(tmp_path / "gone"))
    (run / "config.yaml").write_text(config)
    values, html = page(run)
    missing(
        html, "has not come to its end", "The data itself is not shown", "not there any more", "No findings.parquet"
    )
    assert not values["parts"] and values["curves"] and "confusions" not in dict(values["sections"])


def test_folds_and_probes_show_their_members_and_networks(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "folds", data)
    for fold in "12":
        runs.log(run / "members" / fold)
    runs.change(run, members=[{"run": f"members/{fold}", "weight": 0.5} for fold in "12"], best_checkpoint=None)
    values, html = page(run)
    assert [name for name, *_ in _legend(values["curves"])] == ["1", "2"] and "members of a cross-validation" in html
    probe = {
        "model": "resnet20", "parameters": 270_000, "features": "none", "val_acc": 0.5, "val_interval": [0.4, 0.6],
        "test_acc": None, "test_interval": None, "feature_seconds": 1.0, "head_seconds": 0.5,
    }  # fmt: skip
    values, html = page(runs.run_of(tmp_path / "probe", data, probe=[probe]))
    assert values["probe"][0]["val"] == "50.0%"
    missing(html, "A probe solves its head at once", "a head on frozen features")


def _legend(curves: Sequence[Any]) -> Any:
    return curves[0].legend
