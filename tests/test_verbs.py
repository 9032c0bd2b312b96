"""Python does what the command line does, with the same names and the same results; also in a notebook."""

import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbconvert.preprocessors import ExecutePreprocessor
from PIL import Image

import sagitta
from sagitta.cli import main


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verbs")


@pytest.fixture(autouse=True)
def inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("SAGITTA_CACHE", str(work / "cache"))


@pytest.fixture(scope="module")
def run(work: Path) -> sagitta.Run:
    """Two epochs on the digits, from Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("SAGITTA_CACHE", str(work / "cache"))
        return sagitta.fit("digits", epochs=2)


def test_python_and_the_command_line_end_with_equal_weights(run: sagitta.Run) -> None:
    assert main(["fit", "digits", "--epochs", "2", "--out", "typed"]) == 0
    typed = sagitta.Run(Path("typed"))
    assert typed.metrics == run.metrics
    mine, theirs = run.classifier().state_dict(), typed.classifier().state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_tells_what_it_is(run: sagitta.Run) -> None:
    assert run.path == Path("runs/digits-1") and os.fspath(run) == "runs/digits-1"
    assert run.class_names == tuple("0123456789") and run.metrics["test_acc"] > 0.7
    history = run.history
    assert {"step", "epoch", "val_loss", "train_loss_step"} <= set(history.column_names)
    assert sum(value is not None for value in history["val_loss"].to_pylist()) == 2
    assert run.test is not None and run.test.metrics["test_acc"] == run.metrics["test_acc"]
    assert run.settings.trainer["max_epochs"] == 2 and pickle.loads(pickle.dumps(run.settings)) == run.settings
    assert "test_acc" in run.text() and "Run history" in run.text()
    html = run._repr_html_()
    assert "test_acc" in html and "val_loss" in html and "<script" not in html
    with pytest.raises(sagitta.ConfigError, match="no such run"):
        sagitta.Run(Path("nowhere"))


def test_a_second_fit_in_the_same_process_has_its_own_directory(run: sagitta.Run) -> None:
    second = sagitta.fit(settings=run.settings)
    assert second.path == Path("runs/digits-2") and second.metrics == run.metrics
    assert len(list((run.path / "lightning_logs").iterdir())) == 1


def test_evaluate_and_predict_agree_with_the_run(run: sagitta.Run) -> None:
    evaluation = run.evaluate()
    assert evaluation.metrics["test_acc"] == run.metrics["test_acc"]
    folder = Path("new")
    folder.mkdir()
    dataset = sagitta.ShardSet.open(next(Path("cache/datasets").iterdir()))
    test = dataset.splits["test"]
    for row in range(8):
        (folder / f"{row}.png").write_bytes(test.image(row))
    table = run.predict(folder)
    assert isinstance(table, pd.DataFrame) and list(table["path"]) == [f"new/{row}.png" for row in range(8)]
    expected = evaluation.predictions["predicted"].to_pylist()[:8]
    assert list(table["class"]) == expected
    again = sagitta.predict("runs/digits-1", ["new/0.png", Path("new/1.png")], top_k=2)
    assert list(again["class"]) == expected[:2] and "class_2" in again and "class_3" not in again


def test_convert_returns_the_dataset_open(photo_folder: Path) -> None:
    dataset = sagitta.convert(photo_folder, "dataset", val=0.2, test=0.2)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 24, "val": 8, "test": 8}
    with pytest.raises(sagitta.DatasetError, match="exists already"):
        sagitta.convert(str(photo_folder), Path("dataset"))


def test_probe_makes_a_run(photo_folder: Path) -> None:
    from safetensors.torch import save_file

    from sagitta.models.networks import build_network

    torch.manual_seed(0)
    save_file(build_network("resnet20", 10, 3, (32, 32)).state_dict(), "weights.safetensors")
    run = sagitta.probe(photo_folder, "resnet20", weights="weights.safetensors", test=0.3, out="probed")
    assert run.metrics["test_acc"] == run.record["probe"][0]["test_acc"] and "resnet20" in run.text()
    assert run.evaluate().metrics["test_acc"] == run.metrics["test_acc"]
    tuned = sagitta.fit(photo_folder, weights=run, epochs=1, batch_size=8, test=0.3, out="tuned")
    assert tuned.class_names == ("china", "flower")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": "abc"}, "--lr abc: must be a number"),
        ({"settings": {"model.nonsense": 1}}, "no such option"),
        ({"model": "resnet5O"}, "near: resnet50"),
        ({"model": "resnet50.nonsense"}, "resnet50.nonsense"),
        ({"logger": "comet"}, "choose from csv"),
        ({"settings": {"trainer.accelerator": "gpu"}}, "the Trainer refuses"),
        ({"settings": {"trainer.val_check_interval": 100}, "batch_size": 512}, "an epoch has"),
        ({"model": "resnet18", "batch_size": 1}, "batch"),
        ({"weights": "none.pth", "model": "resnet18"}, "none.pth: no such checkpoint"),
        ({"out": "cache"}, "never overwritten"),
        ({"epochs": 0}, "--epochs 0: must be above 0"),
        ({"lr": float("inf")}, "learning rate inf"),
        ({"seed": -1}, "--seed -1: must be from 0"),
        ({"logger": ["csv"]}, "--logger"),
        ({"settings": {"trainer.limit_val_batches": 0}}, "limit_val_batches 0: must be above 0"),
        (
            {"settings": {"trainer.enable_checkpointing": False}},
            "enable_checkpointing false: a run is tested by its best",
        ),
        ({"settings": {"trainer.barebones": True}}, "barebones true: a run is made of logs"),
        ({"devices": 2, "settings": {"trainer.strategy": "ddp_spawn", "trainer.accelerator": "cpu"}}, "devices"),
    ],
)
def test_what_does_not_fit_is_an_error_and_leaves_nothing(options: dict[str, object], words: str) -> None:
    before = sorted(Path("runs").glob("*")) if Path("runs").exists() else []
    with pytest.raises(sagitta.SagittaError, match=words):
        sagitta.fit("digits", **({"epochs": 1} | options))  # type: ignore[arg-type]
    assert (sorted(Path("runs").glob("*")) if Path("runs").exists() else []) == before


def test_what_is_known_from_the_settings_is_said_before_conversion(
    tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGITTA_CACHE", str(tmp_path / "untouched"))
    for options in ({"model": "resnet5O"}, {"logger": "comet"}, {"settings": {"trainer.accelerator": "gpu"}}):
        with pytest.raises(sagitta.SagittaError):
            sagitta.fit(photo_folder, **options)
    assert not (tmp_path / "untouched").exists()


def test_two_devices_from_python_c_are_refused_in_one_line() -> None:
    code = "import sagitta; sagitta.fit('digits', devices=2, settings={'trainer.accelerator': 'cpu'})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and "sagitta fit DATA --devices N" in result.stderr.splitlines()[-1]


NOTEBOOK = [
    "import sagitta",
    "run = sagitta.fit('digits', epochs=1)",
    "run",
    "Image = sagitta.ShardSet.open(next(__import__('pathlib').Path('cache/datasets').iterdir())); Image",
    "try:\n    sagitta.fit('digits', devices=2, settings={'trainer.accelerator': 'cpu'})\n"
    "except sagitta.SagittaError as error:\n    print(error)",
    "try:\n    sagitta.fit('digits', lr='abc')\nexcept sagitta.SagittaError as error:\n    print(error)",
    "run.predict('new.png')",
]


def test_everything_works_in_a_notebook(work: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("new.png")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in NOTEBOOK])
    ExecutePreprocessor(timeout=300, kernel_name="python3").preprocess(notebook, {"metadata": {"path": str(work)}})
    outputs = [json.dumps(cell["outputs"]) for cell in notebook.cells]
    assert len(outputs[1]) < 5_000  # a line for each epoch, no progress bar a step
    assert "epoch   1/1" in outputs[1] and "text/html" in outputs[2] and "test_acc" in outputs[2]
    assert "text/html" in outputs[3] and "sagitta fit DATA --devices N" in outputs[4]
    assert "--lr abc: must be a number" in outputs[5] and "new.png" in outputs[6]


def test_a_fit_that_ends_before_a_validation_or_without_a_test_is_a_run() -> None:
    short = sagitta.fit("digits", epochs=5, settings={"trainer.max_steps": 3}, out="short")
    assert short.metrics["test_acc"] >= 0 and (short.path / short.record["best_checkpoint"]).is_file()
    untested = sagitta.fit("digits", epochs=1, settings={"trainer.limit_test_batches": 0}, out="untested")
    assert untested.test is None and "val_acc" in untested.metrics and "test_acc" not in untested.metrics


def test_a_resume_that_is_refused_changes_nothing(run: sagitta.Run, photo_folder: Path) -> None:
    before = run.record
    with pytest.raises(sagitta.SagittaError):
        sagitta.fit(photo_folder, resume=run, epochs=3, image_size=8)
    assert run.record == before


def test_dir_lists_what_is_public() -> None:
    assert {"fit", "probe", "convert", "evaluate", "predict", "Run", "Settings", "Loader"} <= set(dir(sagitta))


ONLY_TYPED = {
    "config": "Python has a Settings, or a file, as `settings`",
    "strict": "an exit code; in Python the findings' `leaks`, or the rows with an `error`",
    "sort_into": "files of a stream; in Python there is the table",
    "copy": "of --sort-into",
    "figures": "a function of its own",
    "no_page": "of --figures",
}
"""Options that no function has, each with the reason."""
OTHERWISE = {
    ("export", "output"): "out",
    ("predict", "all"): "every",  # a function of Python's
    ("predict", "tta"): "flip",
    ("test", "tta"): "flip",
    ("explain", "class"): "class_name",  # a word that Python keeps for itself
    ("report", "no_images"): "images",
}
"""Options that have another name in Python."""
RETURNED = {("predict", "output")}
"""What the command writes, and the function returns."""
ONLY_PYTHON = {("fit", "settings")}
"""Dotted names are options on the command line."""


@pytest.mark.parametrize(
    "command",
    [
        "benchmark",
        "convert",
        "doctor",
        "ensemble",
        "explain",
        "export",
        "fit",
        "new",
        "predict",
        "probe",
        "report",
        "test",
        "verify",
    ],
)
def test_functions_have_the_options_of_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    options = re.findall(r"^  (?:-\w(?: \w+)?, )?--([\w-]+)", capsys.readouterr().out, re.MULTILINE)
    typed = {OTHERWISE.get((command, name), name) for name in (each.replace("-", "_") for each in options)} - {"help"}
    function = getattr(sagitta, "evaluate" if command == "test" else command)
    parameters = inspect.signature(function).parameters.values()
    named = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    positional = {each.name for each in parameters if each.kind is not each.KEYWORD_ONLY}
    returned = {name for verb, name in RETURNED if verb == command}
    assert typed - named - positional - returned - ONLY_TYPED.keys() == set()
    assert named - typed - {name for verb, name in ONLY_PYTHON if verb == command} == set()
