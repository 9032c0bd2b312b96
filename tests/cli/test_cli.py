"""The real command line, end to end: what a person types, sees and finds on disk."""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from sagitta.cli import main
from sagitta.cli.options import DIVIDING
from sagitta.settings import OPTIONS


@dataclass
class Result:
    """What a command printed and returned."""

    returncode: int
    stdout: str
    stderr: str


def sagitta(*arguments: object, cwd: Path) -> Result:
    """Run the real command line in this process: importing torch anew for each command would take most of the time."""
    out, err = io.StringIO(), io.StringIO()
    variables = {"SAGITTA_CACHE": str(cwd / "cache"), "WANDB_MODE": "offline"}
    with contextlib.chdir(cwd), environment(variables), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse, after --help
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def refused(result: Result, *words: str) -> None:
    """Assert one clear line on standard error and exit code 2."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("sagitta: "), result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def run(work: Path) -> Path:
    """A finished run on the digits, two epochs."""
    result = sagitta("fit", "digits", "--epochs", 2, "--out", "run", "--logger", "csv,tensorboard", cwd=work)
    assert result.returncode == 0, result.stderr
    (work / "output.txt").write_text(result.stdout)
    return work / "run"


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    result = sagitta("--help", cwd=tmp_path)
    assert result.returncode == 0
    for command in ("convert", "inspect", "verify", "fit", "validate", "test", "ensemble", "predict", "explain"):
        assert command in result.stdout
    code = "import sys; from sagitta.cli import main; main([]); print({'torch', 'numpy', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("set()\n")


@pytest.mark.parametrize("command", ["convert", "inspect", "verify", "fit", "validate", "test", "ensemble", "predict"])
def test_every_command_has_its_help(tmp_path: Path, command: str) -> None:
    result = sagitta(command, "--help", cwd=tmp_path)
    assert result.returncode == 0 and f"sagitta {command}" in result.stdout and len(result.stdout) > 300


def test_the_help_of_fit_is_one_screen_of_what_people_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = sagitta("fit", "--help", cwd=tmp_path).stdout.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 80
    for option in OPTIONS:
        (line,) = (line for line in lines if line.startswith(f"  --{option.name} "))
        assert option.help in line
    everything = sagitta("fit", "--help", "all", cwd=tmp_path).stdout
    for name in ("--trainer.max_steps", "--data.augmentation.erase", "--model.layer_decay"):
        assert name in everything


def test_commands_that_take_data_take_the_same_options(tmp_path: Path) -> None:
    """Those that divide are for training only: a test takes all that it is given."""
    data = [f"--{option.name} " for option in OPTIONS if option.group == "data"]
    reading = [name for name in data if name.strip("- ") not in DIVIDING]
    for command, names in (("convert", data), ("fit", data), ("probe", data), ("validate", reading), ("test", reading)):
        text = sagitta(command, "--help", cwd=tmp_path).stdout
        assert [name for name in data if name in text] == names, command


def test_columns_are_named_alike_for_every_command(tmp_path: Path, photo_folder: Path) -> None:
    """A table whose columns have names that no detection knows, converted, trained on and tested on."""
    rows = [
        (path, path.parent.name, ("train", "val", "test", "train")[index % 4])
        for index, path in enumerate(sorted(photo_folder.glob("*/*.jpg")))
    ]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("where", "what", "when"), *rows])
    columns = ("--path-column", "where", "--label-column", "what", "--split-column", "when")
    converted = sagitta("convert", "table.csv", "dataset", *columns, cwd=tmp_path)
    assert converted.returncode == 0 and "train 20, val 10, test 10" in converted.stdout, converted.stderr
    short = ("--epochs", 1, "--image-size", 32, "--batch-size", 8, "--out", "run")
    fitted = sagitta("fit", "table.csv", *columns, *short, cwd=tmp_path)
    assert fitted.returncode == 0 and "train 20, val 10, test 10" in fitted.stdout, fitted.stderr
    tested = sagitta("test", "run", "table.csv", *columns, cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    wrong = ("--path-column", "where", "--label-column", "nothing")
    refused(sagitta("test", "run", "table.csv", *wrong, cwd=tmp_path), "nothing")


def test_augmented_mixed_and_balanced_training_is_repeated_by_its_configuration(work: Path) -> None:
    flags = "--data.augmentation.auto trivial --data.augmentation.erase 0.25 --data.augmentation.cutout 0.2"
    flags += " --data.balanced true --mixup 0.2 --cutmix 1.0 --epochs 1 --ema 0 --trainer.limit_train_batches 5"
    first = sagitta("fit", "digits", *flags.split(), "--out", "mixed", "--seed", 3, cwd=work)
    again = sagitta("fit", "digits", "--config", "mixed/config.yaml", "--out", "again", cwd=work)
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    results = [json.loads((work / name / "run.json").read_text())["result"] for name in ("mixed", "again")]
    assert results[0] == results[1]
    refused(sagitta("fit", "digits", "--data.augmentation.cutout", 1.5, cwd=work), "augmentation out of range")


def test_fit_leaves_everything_in_the_run_directory(run: Path) -> None:
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert "last.ckpt" in names and any(name.startswith("image-classifier-epoch=0") for name in names)
    assert (run / "lightning_logs" / "version_0" / "metrics.csv").is_file()
    assert any((run / "tensorboard").rglob("events.out*"))
    assert {path.name for path in (run / "predictions").iterdir()} == {"epoch=00.png", "epoch=01.png"}
    record = json.loads((run / "run.json").read_text())
    assert {"train_loss_epoch", "val_loss", "val_acc", "test_loss", "test_acc", "test_f1"} <= set(record["result"])
    assert record["seed"] == 0 and record["command"].startswith("sagitta")
    assert record["dataset"]["splits"].keys() == {"train", "val", "test"} and record["dataset"]["fingerprint"]
    (row,) = csv_rows(run / "test_logs.csv")
    assert float(row["test_acc"]) == pytest.approx(record["result"]["test_acc"])


def test_fit_ends_with_history_and_summary(run: Path) -> None:
    text = (run.parent / "output.txt").read_text()
    for word in (
        "Run history",
        "Run summary",
        "train_loss_step",
        "val_acc",
        "test_acc",
        "epoch   2/2",
        "sagitta predict",
    ):
        assert word in text, text


def test_the_saved_configuration_repeats_the_run_exactly(run: Path, work: Path) -> None:
    result = sagitta("fit", "--config", run / "config.yaml", "--out", "repeated", cwd=work)
    assert result.returncode == 0, result.stderr
    first, second = (json.loads((path / "run.json").read_text())["result"] for path in (run, work / "repeated"))
    assert first == second


def test_evaluation_repeats_the_result(run: Path, work: Path) -> None:
    record = json.loads((run / "run.json").read_text())["result"]
    for command, name in (("validate", "val_acc"), ("test", "test_acc")):
        result = sagitta(command, run, cwd=work)
        assert result.returncode == 0, result.stderr
        assert f"{name:<14} {record[name]:.4f}" in result.stdout
    assert len(csv_rows(run / "test_logs.csv")) == 2


def test_classes_are_remapped_by_name_or_refused(run: Path, work: Path) -> None:
    """A folder with some of the digits under other positions, and one with a class that the model does not know."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for name, names in (("some", {7: "7", 3: "3"}), ("strange", {7: "7", 3: "drei"})):
        for label, folder in names.items():
            (work / name / folder).mkdir(parents=True)
            for index in [i for i in range(400) if labels[i] == label]:
                pixels = (images[index].reshape(8, 8) * 255 / 16).round().astype("uint8")
                Image.fromarray(pixels).save(work / name / folder / f"{index}.png")
    result = sagitta("test", run, "some", cwd=work)
    assert result.returncode == 0, result.stderr
    accuracy = float(result.stdout.split("test_acc")[1].split()[0])
    assert accuracy > 0.6
    refused(sagitta("test", run, "strange", cwd=work), "drei", "does not know")


def test_predict_writes_csv_and_parquet(run: Path, work: Path) -> None:
    folder = work / "new"
    folder.mkdir()
    for index in range(3):
        Image.new("L", (8, 8), 80 * index).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"no image")
    result = sagitta("predict", run, folder, "-o", "out.csv", "--top-k", 2, cwd=work)
    assert result.returncode == 0 and "1 of 4 images could not be read" in result.stderr
    rows = csv_rows(work / "out.csv")
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png", "2.png", "broken.png"]
    assert rows[0]["class"] in "0123456789" and float(rows[0]["probability"]) >= float(rows[0]["probability_2"])
    assert rows[3]["class"] == "" and rows[3]["error"]
    assert sagitta("predict", run, folder, "-o", "out.parquet", cwd=work).returncode == 0
    table = pq.read_table(work / "out.parquet")
    assert table.num_rows == 4 and "class_5" in table.column_names and table["class"][0].as_py() == rows[0]["class"]


def test_wandb_offline(work: Path) -> None:
    result = sagitta("fit", "digits", "--epochs", 1, "--out", "wandb-run", "--logger", "wandb", cwd=work)
    assert result.returncode == 0, result.stderr
    files = list((work / "wandb-run" / "wandb").glob("offline-run-*"))
    assert files and any(files[0].rglob("*.table.json"))


def test_convert_inspect_and_fit_on_a_dataset(work: Path, photo_folder: Path) -> None:
    result = sagitta("convert", photo_folder, "dataset", "--val", 0.2, "--test", 0.2, cwd=work)
    assert result.returncode == 0, result.stderr
    assert "class folders" in result.stdout and "train 24, val 8, test 8" in result.stdout
    result = sagitta("inspect", "dataset", "--contact-sheet", "sheet.png", cwd=work)
    assert result.returncode == 0 and "china" in result.stdout and "JPEG" in result.stdout
    with Image.open(work / "sheet.png") as sheet:
        assert sheet.width > 200
    arguments = ("--epochs", 1, "--image-size", 32, "--batch-size", 8, "--trainer.limit_train_batches", 2)
    result = sagitta("fit", "dataset", *arguments, cwd=work)
    assert result.returncode == 0 and (work / "runs" / "dataset-1" / "run.json").is_file(), result.stderr


def test_verify_names_every_damage_and_training_refuses_what_it_reads(tmp_path: Path, photo_folder: Path) -> None:
    assert sagitta("convert", photo_folder, "dataset", cwd=tmp_path).returncode == 0
    whole = sagitta("verify", "dataset", cwd=tmp_path)
    assert (whole.returncode, whole.stdout) == (0, "dataset: 40 rows in 5 files, all as they were written\n")
    train = tmp_path / "dataset" / "train" / "00000.parquet"
    data = bytearray(train.read_bytes())
    data[data.index(b"\0\0\0\0\1\0\0\0\0\0\0\0")] ^= 1  # among the labels
    train.write_bytes(data)
    refused(sagitta("fit", "dataset", "--epochs", 1, cwd=tmp_path), "train/00000.parquet", "CRC")
    refused(sagitta("verify", "dataset", cwd=tmp_path), "train/00000.parquet, rows 0 to ", "column label")
    (tmp_path / "dataset" / "quarantine.parquet").unlink()
    both = sagitta("verify", "dataset", cwd=tmp_path)
    assert both.returncode == 2 and len(both.stdout.splitlines()) == 2 and "dataset: damaged in 2 places" in both.stderr
    refused(sagitta("verify", "nowhere", cwd=tmp_path), "nowhere")


@pytest.mark.parametrize("native", ["1", "0"])
def test_restart_markers_and_the_engine(
    tmp_path: Path, photo_folder: Path, native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", native)
    engine = sagitta("inspect", "--engine", cwd=tmp_path).stdout
    converted = sagitta("convert", photo_folder, "marked", "--restart-markers", cwd=tmp_path)
    if engine.startswith("native core with libjpeg-turbo"):
        assert converted.returncode == 0, converted.stderr
        result = sagitta("inspect", "marked", "--engine", cwd=tmp_path)
        assert result.stdout.startswith(engine) and "china" in result.stdout
    else:
        assert "unset SAGITTA_NATIVE" in engine or "install a C++ compiler" in engine
        refused(converted, "restart markers need the native core")
        assert not list(tmp_path.glob("*marked*"))


def test_a_missing_core_is_said_with_its_remedy(
    tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", "0")
    converted = sagitta("convert", photo_folder, "dataset", cwd=tmp_path)
    fitted = sagitta("fit", "dataset", "--trainer.fast_dev_run", "true", "--image-size", 32, cwd=tmp_path)
    inspected = sagitta("inspect", "dataset", cwd=tmp_path)
    for result, text in ((converted, converted.stderr), (fitted, fitted.stdout), (inspected, inspected.stderr)):
        assert result.returncode == 0, result.stderr
        assert text.count("the native core is switched off: unset SAGITTA_NATIVE") == 1
        assert "restart" not in result.stdout + result.stderr


def test_an_interrupted_run_is_resumed(work: Path) -> None:
    """Three epochs in one go, and two epochs plus one after a resume, end with the same weights and metrics."""
    how = ("--model.schedule", "constant", "--trainer.limit_train_batches", 6)
    for epochs, out in ((3, "whole"), (2, "parts")):
        assert sagitta("fit", "digits", "--epochs", epochs, *how, "--out", out, cwd=work).returncode == 0
    result = sagitta("fit", "--resume", "parts", "--epochs", 3, cwd=work)
    assert result.returncode == 0, result.stderr
    whole, parts = (json.loads((work / name / "run.json").read_text())["result"] for name in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "missing-folder"], ["missing-folder"]),
        (["fit", "digits", "--batch-size", "0"], ["batch size 0"]),
        (["fit", "digits", "--model", "resnet5O"], ["resnet5O", "near", "resnet50"]),
        (["fit", "digits", "--modle", "resnet50"], ["--modle", "did you mean --model?"]),
        (["fit", "digits", "--learning-rate", "1"], ["--learning-rate", "did you mean --lr?"]),
        (["fit", "digits", "--lr", "abc"], ["--lr abc: must be a number or auto"]),
        (["fit", "digits", "--epochs", "2.5"], ["--epochs 2.5: must be a whole number"]),
        (["fit", "digits", "--data.threads"], ["--data.threads", "value is missing"]),
        (["fit", "digits", "mnist"], ["mnist", "one argument too many"]),
        (["convert", "digits", "out", "--resise", "3"], ["--resise", "did you mean --resize?"]),
        (["convert", "digits", "out", "--val", "much"], ["--val much: must be a number"]),
        (["test", "run", "--spilt-column", "x"], ["did you mean --split-column?"]),
        (["nonsense"], ["nonsense", "sagitta --help"]),
        (["fit", "digits", "--trainer.max_epoch", "3"], ["max_epoch"]),
        (["fit", "digits", "--logger", "comet"], ["comet", "wandb"]),
        (["fit", "digits", "--val", "1.5"], ["val"]),
        (["fit"], ["no DATA given"]),
        (["fit", "--resume", "nowhere"], ["nowhere", "cannot be resumed"]),
        (["test", "nowhere"], ["nowhere"]),
        (["predict", "nowhere", "x.jpg"], ["nowhere: no such run"]),
        (["inspect", "nowhere"], ["nowhere"]),
        (["inspect"], ["DATASET"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refused(sagitta(*arguments, cwd=tmp_path), *words)


def test_bad_sources_are_one_line_and_nothing_is_written(tmp_path: Path, photo_folder: Path) -> None:
    def convert(source: object, *options: object) -> Result:
        return sagitta("convert", source, "out", *options, cwd=tmp_path)

    (tmp_path / "empty").mkdir()
    refused(convert("empty"), "empty")
    one = tmp_path / "one" / "cats"
    one.mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (9, 9), (index, 0, 0)).save(one / f"{index}.png")
    refused(convert("one"), "one class", "cats")
    (single := tmp_path / "one" / "dogs").mkdir()
    Image.new("RGB", (9, 9), "blue").save(single / "0.png")
    named = sagitta("convert", "one", "named", cwd=tmp_path)
    assert named.returncode == 0 and "single readable image, kept in train: dogs" in named.stdout
    for name in ("a", "b"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "x.jpg").write_bytes(b"not an image")
    refused(convert("bad"), "no", "image")
    (tmp_path / "labels.csv").write_text("path,colour\nx.jpg,red\n")
    refused(convert("labels.csv"), "label", "colour")
    (tmp_path / "taken").mkdir()
    refused(sagitta("convert", photo_folder, "taken", cwd=tmp_path), "taken", "exists")
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_in_the_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("source: digits\nmodel:\n  learning_rate: 0.1\n")
    refused(sagitta("fit", "--config", "run.yaml", cwd=tmp_path), "learning_rate")


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"state_dict": {}, "hyper_parameters": {}}, tmp_path / "other.ckpt")
    refused(sagitta("test", "other.ckpt", "digits", cwd=tmp_path), "other.ckpt", "another model")


def test_a_corrupt_shard_is_named_with_its_row(work: Path, photo_folder: Path) -> None:
    assert sagitta("convert", photo_folder, "damaged", cwd=work).returncode == 0
    (shard,) = (work / "damaged" / "train").glob("*.parquet")
    data = bytearray(shard.read_bytes())
    start = data.find(b"\xff\xd8\xff") + 300
    data[start : start + 3000] = bytes(3000)
    shard.write_bytes(data)
    result = sagitta("fit", "damaged", "--epochs", 1, "--image-size", 32, "--batch-size", 4, cwd=work)
    refused(result, "row")


def test_what_decoding_loses_is_one_line_and_a_range_keeps_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(12):
        for name, kind in (("xray", np.uint16), ("ct", np.int16)):
            path = tmp_path / name / "ab"[index % 2] / f"{index}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = rng.integers(1000, 3000, (16, 16)) - (2000 if name == "ct" else 0)
            tifffile.imwrite(path, values.astype(kind))
    said = sagitta("convert", "xray", "out", cwd=tmp_path)
    assert said.returncode == 0
    (line,) = (line for line in said.stdout.splitlines() if line.startswith("reduced: "))
    assert re.match(
        r"reduced: 16-bit grey to 8 bits \(values 1,0\d\d to 2,9\d\d: 9 grey levels left; .*\), in 12 files", line
    )
    assert "9 grey levels left" in sagitta("inspect", "out", cwd=tmp_path).stdout.replace("\n", " ")
    said = sagitta("convert", "ct", "none", cwd=tmp_path)
    assert said.returncode == 2 and "--range LOW,HIGH" in said.stderr and said.stderr.count("\n") == 1
    for command in (["--range", "-1000,1000"], ["--range=-1000,1000"], ["--range", "auto"]):
        said = sagitta("convert", "ct", f"ct{len(list(tmp_path.iterdir()))}", *command, cwd=tmp_path)
        assert (said.returncode, said.stderr) == (0, "") and "reduced" not in said.stdout
    said = sagitta("convert", "ct", "none", "--bands", "1,2", cwd=tmp_path)
    assert said.returncode == 2 and "--bands 1,2: give one band or three" in said.stderr


REFUSED = """
convert nowhere out
convert digits out --layout nonsense
convert digits out --nonsense 3
inspect nowhere
verify nowhere
doctor nowhere
doctor empty
doctor nothing
doctor digits --val 2
doctor digits --model resnet18
doctor digits --run nowhere
doctor digits --out findings.txt
fit
fit nowhere
fit empty
fit nothing
fit digits --nonsense 3
fit digits --epochs x
fit digits --epochs -5
fit digits --lr x
fit digits --lr -1
fit digits --folds 1
fit digits --val 2
fit digits --seed -1
fit digits --tune nonsense
fit digits --time nonsense
fit digits --precision nonsense
fit digits --logger nonsense
fit digits --layout nonsense
fit digits --model.nonsense 3
fit digits --trainer.max_steps x
fit digits --trainer.nonsense 3
fit digits --out RUN
fit digits --config nowhere.yaml
fit digits --weights nowhere.pth
fit digits --weights empty
fit digits --resume nowhere
probe nowhere --model resnet18
probe digits
probe digits --model resnet18 --layout nonsense
probe digits --model resnet18 --weights a,b
probe digits --model resnet18 --weights nowhere.pth
probe digits --model resnet18 --batch-size 0
probe digits --model resnet18 --out RUN
test nowhere
test empty
test RUN nowhere
test RUN nothing
test RUN digits --layout nonsense
test RUN --split nonsense
validate nowhere
predict nowhere photo.png
predict empty photo.png
predict RUN nowhere.png
predict RUN empty
predict RUN photo.png --device nonsense
predict RUN photo.png --top-k 0
predict RUN photo.png --accuracy 2
predict RUN photo.png --coverage 2
predict RUN photo.png --columns id,id
predict RUN photo.png -o x.txt
explain nowhere photo.png
explain RUN nowhere.png
explain RUN photo.png --nearest x
export nowhere
export RUN --to nonsense
export RUN --precision nonsense
export RUN -o photo.png
export RUN --data nowhere
benchmark nowhere
benchmark RUN --data nowhere
push nowhere user/name
push RUN nonsense
serve nowhere
serve empty
serve RUN --port x
serve RUN --accuracy 2
serve RUN --device nonsense
ensemble RUN
ensemble RUN nowhere
ensemble RUN RUN
ensemble RUN empty
report nowhere
report empty
report RUN RUN
report RUN --no-page
report RUN --out photo.png
"""
REFUSE = """
import shlex, sys
from sagitta.cli import main
for line in sys.stdin.read().split("\\n"):
    if not line:
        continue
    try:
        code = main(shlex.split(line))
    except SystemExit as end:
        code = end.code
    print("@", code, "torch" in sys.modules, line, flush=True)
    if "torch" in sys.modules:
        break
"""


def test_what_is_refused_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "notes.txt").write_text("none of them is an image")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    run = Path(__file__).parents[1] / "golden" / "run"
    lines = [line for line in REFUSED.replace("RUN", str(run)).split("\n") if line]
    done = subprocess.run(
        [sys.executable, "-c", REFUSE], input="\n".join(lines), capture_output=True, text=True, check=True,
        cwd=tmp_path, env={**os.environ, "SAGITTA_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    told = [line for line in done.stdout.split("\n") if line.startswith("@")]
    assert told == [f"@ 2 False {line}" for line in lines]
