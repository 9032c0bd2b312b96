"""Where a report goes, what it never replaces, and that nobody is hindered by one that cannot be written."""

import time
from pathlib import Path

import pytest

from sagitta.errors import ConfigError
from sagitta.reporting import leave_report, write_report
from tests.reporting import runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.dataset(tmp_path_factory.mktemp("writing"), ("a", "b"))


def test_a_report_lies_in_its_run_and_a_comparison_beside_the_first(data: Path, tmp_path: Path) -> None:
    both = [runs.run_of(tmp_path / name, data, seed=seed) for seed, name in enumerate("xy")]
    assert write_report(both[:1]) == tmp_path / "x" / "report.html"
    assert write_report(both) == tmp_path / "comparison.html"
    assert 'href="x/report.html"' in (tmp_path / "comparison.html").read_text()
    assert write_report(both, tmp_path / "own.html") == tmp_path / "own.html"


def test_only_a_report_is_replaced(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data)
    write_report([run])
    write_report([run])
    (tmp_path / "mine.html").write_text("<p>mine")
    with pytest.raises(ConfigError, match=r"mine\.html: exists already, and is no report"):
        write_report([run], tmp_path / "mine.html")
    with pytest.raises(ConfigError, match=r"must end in \.html"):
        write_report([run], tmp_path / "page.pdf")
    with pytest.raises(ConfigError, match="named twice"):
        write_report([run, run])
    assert (tmp_path / "mine.html").read_text() == "<p>mine"


def test_one_that_fails_is_a_line_and_leaves_no_stale_page(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.run_of(tmp_path / "run", data)
    assert leave_report(run, 1.0) == run / "report.html"
    (run / "run.json").write_text("{")
    assert leave_report(run, 1.0) is None and not (run / "report.html").exists()
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "no report was written" in line and "not valid JSON" in line


def test_one_that_is_as_new_as_its_run_stays(data: Path, tmp_path: Path) -> None:
    run = runs.run_of(tmp_path / "run", data)
    page = leave_report(run, 1.0)
    assert page is not None
    before = page.stat().st_mtime_ns
    assert leave_report(run, 1.0) == page and page.stat().st_mtime_ns == before
    runs.change(run, seed=7)
    assert leave_report(run, 1.0) == page and page.stat().st_mtime_ns != before


@pytest.mark.parametrize("how", [{"seconds": 1000.0, "limit": 0.0}, {"seconds": 60.0, "spent": 10.0}])
def test_a_limit_is_kept(how: dict[str, float], data: Path, tmp_path: Path) -> None:
    """A glance that took the whole allowance leaves nothing for pictures."""
    run = runs.run_of(tmp_path / "run", data, skill=0.0)
    began = time.monotonic()
    assert leave_report(run, **how) == run / "report.html"
    assert time.monotonic() - began < 10 and "data:image/" not in (run / "report.html").read_text()
