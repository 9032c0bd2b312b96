"""A run as a folder of safetensors and JSON does what the run does, and nothing of its machine is told."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from sagitta.cli import main
from sagitta.errors import ConfigError
from sagitta.exporting import export
from sagitta.models import load_classifier
from sagitta.verbs import Run, evaluate, fit, predict_table


def test_the_folder_is_a_run(tmp_path: Path) -> None:
    found = export(Path("run"), "safetensors")
    folder = Path("run/export/safetensors")
    assert found.path == folder / "model.safetensors" and found.proof.difference == 0
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # whoever reads one of them reads all
    paths = sorted(str(path) for path in Path("photos").rglob("*.png"))
    mine, theirs = predict_table("run", paths), predict_table(folder, paths)
    assert mine.equals(theirs) and "class" in mine.column_names
    assert Run(folder).metrics == Run(Path("run")).metrics
    table = evaluate(folder, "photos")
    assert table.metrics["test_acc"] == evaluate("run", "photos").metrics["test_acc"]
    if (folder / "validation.parquet").is_file():
        assert "path" not in pq.read_schema(folder / "validation.parquet").names
    with pytest.raises(ConfigError, match="DATA"):
        evaluate(folder)
    told = "".join(path.read_text() for path in folder.glob("*.json"))
    assert str(tmp_path.parent) not in told and "--model" not in told and str(Path.cwd()) not in told

    again = fit("photos", weights=folder, epochs=1, batch_size=8, image_size=16, out=tmp_path / "again")
    assert again.classifier().name == "simple-cnn"


@pytest.mark.parametrize("to", ["safetensors", "onnx"])
def test_another_checkpoint_than_the_kept_one_claims_nothing_of_it(to: str, tmp_path: Path) -> None:
    """Its last epoch had been handed on with the calibration and the results of the best."""
    kept, last = tmp_path / "kept", tmp_path / "last"
    export(Path("run"), to, kept)
    export(Path("run/checkpoints/last.ckpt"), to, last)
    for name in {"run.json", f"{to}.json"} & {path.name for path in kept.iterdir()}:
        mine, other = (json.loads((place / name).read_text()) for place in (kept, last))
        for each in ("result", "calibration"):
            assert mine[each] and other.get(each) in (None, "null"), (name, each)
    assert not (last / "validation.parquet").exists()


@pytest.mark.parametrize(
    "how",
    [
        ["--ema", "0.9"],
        ["--precision", "bf16-mixed"],
        pytest.param(["--model.compile", "true"], marks=pytest.mark.slow),
        pytest.param(["--devices", "2", "--trainer.accelerator", "cpu"], marks=pytest.mark.slow),
    ],
    ids=["mean of weights", "bfloat16", "compiled", "two devices"],
)
def test_whatever_trained_it(how: list[str], tmp_path: Path) -> None:
    small = ["--model", "simple-cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "8"]
    command = ["fit", "photos", *small, *how, "--out", str(tmp_path / "run")]
    if "--devices" in how or "--model.compile" in how:
        subprocess.run([sys.executable, "-m", "sagitta", *command], check=True)
    else:
        assert main(command) == 0
    export(tmp_path / "run", "safetensors", tmp_path / "out")
    one, other = Run(tmp_path / "run").classifier().state_dict(), load_classifier(tmp_path / "out/model.safetensors")
    assert all(torch.equal(value, one[name]) for name, value in other.state_dict().items())


def test_of_several_labels_thresholds_go_along(tmp_path: Path) -> None:
    export(Path("several"), "safetensors", tmp_path / "out")
    own = Run(Path("several")).classifier()
    again = load_classifier(tmp_path / "out" / "model.safetensors")
    assert again.thresholds == own.thresholds and again.multilabel and again.class_names == own.class_names


def test_a_weight_that_changed_is_found_out(tmp_path: Path) -> None:
    export(Path("run"), "safetensors", tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match="its tensors are not those that were written"):
        load_classifier(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ConfigError, match="a checkpoint of another model"):
        load_classifier(path)
    assert np.array_equal(load_file(path)["a"], np.zeros(2))


def test_what_is_there_is_not_overwritten_unless_it_is_an_export(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="is there already, and no export as safetensors"):
        export(Path("run"), "safetensors", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"mine"
    first = export(Path("run"), "safetensors", tmp_path / "out")
    told = json.loads((tmp_path / "out/safetensors.json").read_text())
    assert (
        "model.safetensors" in told["files"] and export(Path("run"), "safetensors", tmp_path / "out").path == first.path
    )
