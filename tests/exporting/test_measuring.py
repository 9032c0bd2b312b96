"""Every format side by side: what can be had is measured, what cannot says why, and nothing stays."""

import tempfile
from pathlib import Path
from typing import Any

import pytest

import sagitta
from sagitta.cli import main
from sagitta.exporting.formats import FORMATS
from sagitta.exporting.measuring import Measured


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what is temporary."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def few(monkeypatch: pytest.MonkeyPatch, *formats: str) -> None:
    """Have fewer formats: each takes a second and more."""
    monkeypatch.setattr("sagitta.exporting.measuring.FORMATS", {name: FORMATS[name] for name in formats})


def test_formats_are_measured_against_the_checkpoint_and_refused_ones_say_why(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, "onnx", "hub")
    monkeypatch.setattr("sagitta.exporting.judging.FASTER", 1e6)
    before = sorted(Path("run").rglob("*"))
    found = sagitta.Run(Path("run")).benchmark()
    assert sorted(Path("run").rglob("*")) == before and list(elsewhere.iterdir()) == []
    rows = {(row.format, row.precision): row for row in found.rows}
    assert next(iter(rows)) == ("checkpoint", "32-true")
    assert set(rows) == {("checkpoint", "32-true"), *(("onnx", bits) for bits in ("32", "16", "int8")),
                         *(("hub", bits) for bits in ("32", "16"))}  # fmt: skip
    for key in [("checkpoint", "32-true"), ("onnx", "32"), ("onnx", "16")]:
        row = rows[key]
        assert row.proof is not None and row.refused is None and row.bytes and row.agreement == 1, key
        assert row.proof.accuracy == row.proof.before and row.proof.labelled == 6
        assert row.images_per_second is not None and row.images_per_second >= 1 / row.proof.one
    assert rows["onnx", "16"].bytes < rows["onnx", "32"].bytes  # type: ignore[operator]
    for key, words in {("onnx", "int8"): "int8", ("hub", "32"): "simple-cnn is no network of timm's"}.items():
        assert rows[key].proof is None and words in str(rows[key].refused)
        assert f"{key[0]} {key[1]}: " in found.text()


@pytest.mark.usefixtures("elsewhere")
def test_the_table_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few(monkeypatch, "safetensors", "openvino")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sagitta.exporting.formats.FORMATS", {**FORMATS,
        "openvino": FORMATS["openvino"]._replace(needs=("not_installed",))
    })  # fmt: skip
    assert main(["benchmark", "run", "--data", "photos"]) == 0
    told = capsys.readouterr()
    assert max(map(len, told.out.splitlines())) <= 80, told.out
    assert "safetensors 16" in told.out and "openvino 32: --to openvino needs not_installed" in told.out
    assert "of 60 labelled images" in " ".join(told.out.split()) and "1 of 6: checkpoint" in told.err


def test_ctrl_c_leaves_nothing(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few(monkeypatch, "torch")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sagitta.exporting.measuring.made", interrupted)
    assert main(["benchmark", "run"]) == 130
    assert list(elsewhere.iterdir()) == [] and "nothing was kept" in capsys.readouterr().err


def test_what_a_row_says_of_nothing() -> None:
    row = Measured("onnx", "int8", refused="slow")
    assert row.agreement is None and row.images_per_second is None


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nothing"], ["run", "--data", "nowhere"]):
        assert main(["benchmark", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
