"""`sagitta report`, and the page that fit, probe and test leave behind."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sagitta as package
from sagitta.models.networks import build_network
from tests.cli.test_cli import refused, sagitta
from tests.reporting import runs

pytestmark = pytest.mark.page


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three classes, and a run that was trained on it for one epoch."""
    work = tmp_path_factory.mktemp("report")
    runs.dataset(work / "data", ("a", "b", "c"), each=24, side=16)
    result = sagitta(
        "fit", "data/dataset", "--model", "resnet20", "--epochs", 1, "--batch-size", 8, "--out", "run", cwd=work
    )
    assert result.returncode == 0, result.stderr
    (work / "output.txt").write_text(result.stdout)
    return work


def test_a_fit_ends_with_its_page(work: Path) -> None:
    assert (work / "output.txt").read_text().splitlines()[-1] == "Report: run/report.html"
    page = (work / "run" / "report.html").read_text()
    assert "trained from scratch" in page and 'id="map-svg"' in page and "computed with the run&#39;s weights" in page
    assert "Learning rate" in page and "Throughput" in page and "resnet20" in page


def test_a_test_writes_it_anew_and_a_validation_does_not(work: Path) -> None:
    page = work / "run" / "report.html"
    before = page.stat().st_mtime_ns
    validated = sagitta("validate", "run", cwd=work)
    assert validated.returncode == 0 and "Report:" not in validated.stdout and page.stat().st_mtime_ns == before
    tested = sagitta("test", "run", "--split", "train", cwd=work)
    assert tested.stdout.splitlines()[-1] == "Report: run/report.html", tested.stderr
    assert "were trained on" in page.read_text() and page.stat().st_mtime_ns != before


def test_heat_maps_are_drawn_of_mistakes(work: Path) -> None:
    run = package.Run(work / "run")
    assert "where the network looked" in run.report(out=work / "own.html").read_text()
    assert run.report_file == work / "run" / "report.html"
    assert "where the network looked" not in package.report(run, out=work / "bare.html", images=False).read_text()


def test_figures_are_files_for_a_paper(work: Path) -> None:
    result = sagitta("report", "run", "--figures", "figures", "--no-page", cwd=work)
    assert result.returncode == 0 and "Report:" not in result.stdout, result.stderr
    names = {path.name for path in (work / "figures").iterdir()}
    assert {"confusion.svg", "reliability.svg", "curve_loss.svg", "class_counts.svg", "metrics.md"} <= names
    assert "worst_mistakes.png" in names
    assert (work / "figures" / "metrics.tex").read_text().count(r"\\") == 2
    assert result.stdout.strip() == f"{len(names)} files of figures are in figures"


def test_what_does_not_fit_is_refused_in_one_line(work: Path) -> None:
    refused(sagitta("report", "nothing", cwd=work), "nothing: no such run")
    refused(sagitta("report", "run", "run", cwd=work), "named twice")
    refused(sagitta("report", "run", "--no-page", cwd=work), "--figures DIR")
    refused(sagitta("report", "run", "--out", "no/such/page.html", cwd=work), "mkdir -p no/such")


def test_a_probe_leaves_a_page_with_a_map_of_its_cached_features(work: Path) -> None:
    torch.manual_seed(0)
    save_file(build_network("resnet20", 10, 3, (32, 32)).state_dict(), work / "weights.safetensors")
    command = ("probe", "data/dataset", "--model", "resnet20", "--weights", "weights.safetensors", "--out", "probed")
    result = sagitta(*command, cwd=work)
    assert result.stdout.splitlines()[-1] == "Report: probed/report.html", result.stderr
    page = (work / "probed" / "report.html").read_text()
    assert "features cached by the probe" in page and "Out of fold" in page
    both = sagitta("report", "run", "probed", cwd=work)
    assert both.stdout.splitlines()[-1] == f"Report: {work / 'comparison.html'}", both.stderr
