"""What is tested, and what is said of it: every row of what is given, whatever its layout, order or classes."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score, f1_score

import sagitta as package
from sagitta.models import build_network
from tests.cli.test_cli import Result, csv_rows, refused, sagitta

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
RNG = np.random.default_rng(0)


def image(name: str, path: Path) -> Path:
    """A noisy image of 16 x 16 of a class's colour; every fifth of another, so that a model errs."""
    colour = COLOURS[name] if RNG.random() > 0.2 else (120, 120, 120)
    pixels = np.clip(RNG.normal(colour, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def folders(root: Path, count: int, names: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """Class folders below ``root`` with ``count`` images each."""
    for name in names:
        for index in range(count):
            image(name, root / name / f"{root.name}-{name}-{index}.png")
    return root


def done(work: Path, *arguments: object) -> str:
    result = sagitta(*arguments, cwd=work)
    assert result.returncode == 0, result.stderr
    return result.stdout


def figures(printed: str) -> dict[str, float]:
    """Return the printed metrics."""
    rows = [line.split() for line in printed.splitlines() if line.startswith(("test_", "val_", "train_"))]
    return {row[0]: float(row[1]) for row in rows}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos/train`` and ``photos/test``, and a probe of them."""
    work = tmp_path_factory.mktemp("testing")
    folders(work / "photos" / "train", 20)
    folders(work / "photos" / "test", 9)
    torch.manual_seed(0)
    save_file(build_network("resnet20", 10, 3, (16, 16)).state_dict(), work / "weights.safetensors")
    done(work, *probe("photos", "run"))
    return work


def probe(source: object, out: str) -> tuple[object, ...]:
    model = ("--model", "resnet20", "--weights", "weights.safetensors", "--image-size", 16)
    return ("probe", source, *model, "--out", out)


def test_a_folder_of_test_images_is_tested_whole(work: Path) -> None:
    """27 images, as many as ``predict`` classifies, and the figures are those of its answers, by scikit-learn."""
    printed = done(work, "test", "run", "photos/test")
    assert "27 images of photos/test (all of its rows)\n" in printed and "warning" not in printed
    done(work, "predict", "run", "photos/test", "-o", "answers.csv")
    answers = csv_rows(work / "answers.csv")
    labels, predicted = [Path(row["path"]).parent.name for row in answers], [row["class"] for row in answers]
    found = figures(printed)
    assert found["test_acc"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-4)
    assert found["test_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-4)
    assert 0.3 < found["test_acc"] < 1
    assert json.loads((work / "run" / "run.json").read_text())["result"]["test_acc"] == pytest.approx(
        found["test_acc"], abs=1e-4
    )


def flat(root: Path) -> Path:
    for name in ("red", "green"):
        for index in range(4):
            image(name, root / f"{name}.{index}.png")
    return root


def manifest(root: Path) -> Path:
    rows = [(image(name, root / "images" / f"{name}{index}.png"), name) for name in COLOURS for index in range(3)]
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label", "split"), *((path.relative_to(root), name, "test") for path, name in rows)]
        )
    return root / "table.csv"


def parquet(root: Path) -> Path:
    """As Hugging Face's library writes it: the file's name says test."""
    paths = [
        (image(name, root.parent / "loose" / f"{name}{index}.png"), name) for name in COLOURS for index in range(3)
    ]
    root.mkdir()
    images = pa.array([{"bytes": path.read_bytes(), "path": path.name} for path, _ in paths])
    table = pa.table({"image": images, "label": pa.array([name for _, name in paths])})
    pq.write_table(table, root / "test-00000-of-00001.parquet")
    return root


def divided(root: Path) -> Path:
    folders(root / "train", 3)
    folders(root / "test", 2)
    return root


@pytest.mark.parametrize(
    ("name", "make", "head"),
    [
        (
            "one",
            lambda root: folders(root, 5, ("green",)),
            "5 images of one (all of its rows); 1 of the model's 3 classes",
        ),
        ("each", lambda root: folders(root, 1), "3 images of each (all of its rows)"),
        ("single", lambda root: folders(root, 1, ("red",)), "1 image of single (all of its rows); 1 of the model's 3"),
        (
            "some",
            lambda root: folders(root, 4, ("red", "green")),
            "8 images of some (all of its rows); 2 of the model's 3 classes; classes matched by name",
        ),
        ("flat", flat, "8 images of flat (all of its rows); 2 of the model's 3 classes"),
        ("table", manifest, "9 images of table/table.csv (all of its rows)"),
        ("foreign", parquet, "9 images of foreign (all of its rows)"),
        ("lone", lambda root: folders(root / "val", 2).parent, "6 images of lone (all of its rows)"),
        ("divided", divided, "6 of 15 images of divided (split test)"),
    ],
)
def test_every_image_counts_whatever_is_given(work: Path, name: str, make: Callable[[Path], Path], head: str) -> None:
    source = make(work / name)
    printed = done(work, "test", "run", source.relative_to(work))
    assert any(line.startswith(head) for line in printed.splitlines()), printed
    found = figures(printed)
    assert {"test_acc", "test_f1", "test_log_loss"} <= set(found) and not any(map(np.isnan, found.values()))
    assert "nan" not in printed and "warning" not in printed
    row = csv_rows(work / "run" / "test_logs.csv")[-1]
    assert int(row["images"]) == pq.read_metadata(work / "run" / row["predictions"]).num_rows
    assert row["trained_on"] == "0" and row["test_acc"]
    assert len(row["fingerprint"]) == 32


def test_one_split_of_several_can_be_picked(work: Path) -> None:
    divided(work / "several")
    printed = done(work, "test", "run", "several", "--split", "train")
    assert "9 of 15 images of several (split train)" in printed and "train_acc" in figures(printed)
    refused(sagitta("validate", "run", "several", cwd=work), "no split 'val', only train and test", "--split")
    refused(sagitta("test", "run", "several", "--test", 0.5, cwd=work), "--test")


def test_an_order_of_classes_of_ones_own_is_matched_by_name(work: Path) -> None:
    """Labels in Parquet with names are numbers in the file's order."""
    paths = [(image(name, work / "numbered" / f"{name}{index}.png"), name) for name in COLOURS for index in range(3)]
    names = ["red", "green", "blue"]
    feature = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pa.table(
        {
            "image": pa.array([{"bytes": path.read_bytes(), "path": path.name} for path, _ in paths]),
            "label": pa.array([names.index(name) for _, name in paths]),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    (work / "ordered").mkdir()
    pq.write_table(table, work / "ordered" / "test.parquet")
    printed = done(work, "test", "run", "ordered")
    assert "9 images of ordered (all of its rows); classes matched by name, other order" in printed
    row = csv_rows(work / "run" / "test_logs.csv")[-1]
    tested = pq.read_table(work / "run" / row["predictions"])
    assert [Path(path).name.rstrip("012.png") for path in tested["path"].to_pylist()] == [
        name.rstrip("n") for name in tested["label"].to_pylist()
    ]


def test_images_that_were_trained_on_are_counted_aloud(work: Path) -> None:
    """Also in another layout, resized at conversion, and a few among many; a probe is fitted on train and val."""
    printed = done(work, "test", "run", "photos/train")
    assert "warning: 60 of 60 images were trained on: the figures say little about new ones" in printed
    mixed = folders(work / "mixed", 3)
    shutil.copy(work / "photos" / "train" / "red" / "train-red-0.png", mixed / "red" / "renamed.png")
    assert "warning: 1 of 10 images was trained on" in done(work, "test", "run", "mixed")
    done(work, "convert", "photos", "small", "--resize", 8)
    printed = done(work, "test", "run", "small", "--split", "train")
    assert "warning: 54 of 54 images were trained on" in printed
    assert csv_rows(work / "run" / "test_logs.csv")[-1]["trained_on"] == "54"
    evaluation = package.evaluate(work / "run", work / "mixed")
    assert evaluation.trained_on == 1 and "1 of 10 images was trained on" in evaluation.text()


def test_each_test_keeps_what_it_found(work: Path) -> None:
    shutil.copytree(work / "run", work / "kept")
    rows = len(csv_rows(work / "kept" / "test_logs.csv"))
    done(work, "test", "kept", "photos/test")
    done(work, "test", "kept", "photos/test", "--tta", "flip")
    log = csv_rows(work / "kept" / "test_logs.csv")
    assert len(log) == rows + 2 and [row["tta"] for row in log[-2:]] == ["", "flip"]
    assert [row["predictions"] for row in log[-2:]] == [
        f"tests/{rows + n:03d}-test/predictions.parquet" for n in (1, 2)
    ]
    for row in log:
        folder = (work / "kept" / row["predictions"]).parent
        assert pq.read_metadata(folder / "predictions.parquet").num_rows == int(row["images"])
        assert sum(int(each["support"]) for each in csv_rows(folder / "per_class.csv")) == int(row["images"])


def test_a_log_of_version_0_1_0_goes_on(work: Path) -> None:
    shutil.copytree(work / "run", work / "old")
    shutil.rmtree(work / "old" / "tests")
    (work / "old" / "training_images.parquet").unlink()
    (work / "old" / "test_logs.csv").write_text("dataset,checkpoint,tta,test_loss\nphotos,a.ckpt,,0.5\n")
    printed = done(work, "test", "old", "photos/train")
    assert "trained on" not in printed and "nobody noted which images the model has learned from" in printed
    first, second = csv_rows(work / "old" / "test_logs.csv")
    assert (first["test_loss"], first["images"]) == ("0.5", "")
    assert (second["images"], second["trained_on"], second["predictions"]) == (
        "60", "", "tests/002-train/predictions.parquet",
    )  # fmt: skip


def test_a_run_finds_its_data_from_elsewhere(work: Path, tmp_path: Path) -> None:
    here = figures(done(work, "test", "run"))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    assert figures(done(elsewhere, "test", work / "run")) == pytest.approx(here, abs=1e-4)
    shutil.copytree(work / "run", tmp_path / "moved")
    record = json.loads((tmp_path / "moved" / "run.json").read_text())
    assert record["directory"] == str(work.resolve())
    (tmp_path / "moved" / "run.json").write_text(json.dumps(record | {"directory": "/nowhere"}))
    refused(sagitta("test", "moved", cwd=tmp_path), "looked for /nowhere/photos", "name it as DATA")


def test_changed_data_is_said(work: Path) -> None:
    folders(work / "changing" / "train", 6)
    folders(work / "changing" / "test", 2)
    done(work, *probe("changing", "changed"))
    image("red", work / "changing" / "test" / "red" / "new.png")
    assert "7 of 25 images of changing (split test)\nthe data is not what the run was trained on" in done(
        work, "test", "changed"
    )


def test_without_a_test_set_the_figures_are_those_of_val_and_named_so(work: Path) -> None:
    folders(work / "pair" / "train", 8)
    folders(work / "pair" / "val", 4)
    printed = done(work, *probe("pair", "pair-probe"))
    assert "there is no test set" in printed
    assert set(json.loads((work / "pair-probe" / "run.json").read_text())["result"]) == {
        "val_acc", "val_loss", "val_f1", "val_ece", "val_log_loss",
    }  # fmt: skip
    printed = done(work, "test", "pair-probe")
    assert (
        "12 of 36 images of pair (split val)\nthere is no test set: the figures are those of val, which also" in printed
    )
    assert "trained on" not in printed and "test_" not in printed  # a val that the source gives stays unseen
    short = ("--model", "resnet20", "--image-size", 16, "--epochs", 1, "--batch-size", 8)
    printed = done(work, "fit", "pair", *short, "--out", "pair-fit")
    assert "there is no test set" in printed and "Validation, with 95 % intervals" in printed and "test_" not in printed
    record = json.loads((work / "pair-fit" / "run.json").read_text())
    assert "val_acc" in record["result"] and not any(name.startswith("test_") for name in record["result"])
    (row,) = csv_rows(work / "pair-fit" / "test_logs.csv")
    assert row["split"] == "val" and float(row["val_acc"]) == record["result"]["val_acc"] and "test_acc" not in row
    # Other images chose this checkpoint than trained it.
    assert "warning: 12 of 12 images chose the checkpoint" in done(work, "test", "pair-fit", "pair/val")
    assert "warning: 24 of 24 images were trained on" in done(work, "test", "pair-fit", "pair/train")


def test_what_earlier_weights_were_trained_on_counts(work: Path) -> None:
    folders(work / "other", 8)
    short = ("--epochs", 1, "--batch-size", 8, "--image-size", 16)
    done(work, "fit", "other", "--weights", "run", *short, "--out", "tuned")
    assert "warning: 60 of 60 images were trained on" in done(work, "test", "tuned", "photos/train")


def test_a_checkpoint_of_a_run_is_tested_like_the_run(work: Path) -> None:
    (checkpoint,) = (work / "run" / "checkpoints").iterdir()
    printed = done(work, "test", checkpoint)
    assert figures(printed) == figures(done(work, "test", "run"))


def test_what_is_no_run_is_told_so(work: Path) -> None:
    def test(*arguments: object) -> Result:
        return sagitta("test", *arguments, cwd=work)

    refused(test("nosuch"), "nosuch: no such run directory or checkpoint")
    refused(test("rum"), "did you mean run")
    refused(test("photos", "run"), "photos: no run", "stands before the data")
    shutil.copytree(work / "run", work / "early")
    shutil.rmtree(work / "early" / "checkpoints")
    refused(test("early"), "no checkpoint in it", "ended before")
    shutil.copytree(work / "run", work / "interrupted")
    (checkpoint,) = (work / "interrupted" / "checkpoints").iterdir()
    shutil.copy(checkpoint, checkpoint.with_name("image-classifier-epoch=00-val_loss=99.10.ckpt"))
    shutil.copy(checkpoint, checkpoint.with_name("last.ckpt"))
    record = json.loads((work / "interrupted" / "run.json").read_text())
    del record["best_checkpoint"]
    (work / "interrupted" / "run.json").write_text(json.dumps(record))
    printed = done(work, "test", "interrupted")
    assert (
        f"the run did not come to its end: this is {checkpoint.name}, its best so far, and it is not calibrated"
        in printed
    )
