"""Several labels a row through the real command line; what a test leaves behind, on one process and on two."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from sagitta.evaluation.result import judge, mean_of
from sagitta.models import task_of
from tests.cli.test_cli import refused, sagitta
from tests.conftest import Command

SHAPES = ("circle", "square", "bar")
COLOURS = {"red": (220, 30, 30), "blue": (40, 60, 230), "green": (30, 180, 40)}


def shapes(folder: Path, rows: int) -> Path:
    """Images of 20x20 with up to two coloured shapes, and the CSV that says which; some hold nothing."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = ["path,labels"]
    for row in range(rows):
        image = Image.fromarray(rng.integers(90, 140, (20, 20, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(image)
        labels = set()
        for left in (1, 11)[: rng.choice(3, p=[0.1, 0.4, 0.5])]:
            shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
            top = int(rng.integers(0, 10))
            box = (left, top + 3, left + 8, top + 5) if shape == "bar" else (left, top, left + 8, top + 8)
            (draw.ellipse if shape == "circle" else draw.rectangle)(box, fill=COLOURS[colour])
            labels |= {str(shape), str(colour)}
        image.save(folder / f"{row:04d}.png")
        lines.append(f"{row:04d}.png,{';'.join(sorted(labels))}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def done(work: Path, *arguments: object) -> str:
    """Run a command that must succeed; return what it printed."""
    result = sagitta(*arguments, cwd=work)
    assert result.returncode == 0, result.stderr
    return result.stdout


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shapes, a dataset of them, and a run of three epochs."""
    work = tmp_path_factory.mktemp("shapes")
    shapes(work / "shapes", 500)
    converted = done(work, "convert", "shapes", "dataset", "--val", 0.2, "--test", 0.2)
    assert "several labels a row, separated by ';'" in converted and "6 classes" in converted
    output = done(work, "fit", "dataset", "--epochs", 3, "--batch-size", 16, "--out", "run")
    (work / "output.txt").write_text(output)
    return work


def test_several_labels_are_learned(work: Path) -> None:
    result = json.loads((work / "run" / "run.json").read_text())["result"]
    assert {"val_map", "val_f1", "val_f1_micro", "test_map", "test_f1", "test_f1_micro", "test_loss"} <= set(result)
    assert result["test_map"] > 0.8 and result["test_f1_micro"] > 0.7
    assert "val_map" in (work / "output.txt").read_text()


def test_the_dataset_opens_in_hugging_faces_library(work: Path) -> None:
    from datasets import load_dataset

    dataset = load_dataset(str(work / "dataset"), split="train", cache_dir=str(work / "huggingface"))
    assert dataset.features["label"].feature.names == ["bar", "blue", "circle", "green", "red", "square"]
    labels = [tuple(row) for row in dataset["label"]]
    assert () in labels and max(map(len, labels)) >= 3
    info = json.loads((work / "dataset" / "sagitta.json").read_text())
    assert info["multilabel"] is True


def test_every_split_has_every_label(work: Path) -> None:
    shares = []
    for split in ("train", "val", "test"):
        lists = pq.read_table(work / "dataset" / split)["label"].to_pylist()
        shares.append(np.array([sum(label in row for row in lists) / len(lists) for label in range(6)]))
    assert np.abs(np.array(shares) - shares[0]).max() < 0.12


def test_evaluation_repeats_the_values_with_intervals(work: Path) -> None:
    result = json.loads((work / "run" / "run.json").read_text())["result"]
    output = done(work, "test", "run")
    for name in ("test_map", "test_f1", "test_f1_micro", "test_log_loss"):
        assert f"{name:<14} {result[name]:.4f}  " in output
    assert f"{'val_f1':<14} {result['val_f1']:.4f}  " in done(work, "validate", "run")
    done(work, "test", "run", "--tta", "flip")
    first, second, flipped = csv_rows(work / "run" / "test_logs.csv")
    assert first.keys() == second.keys() and [first["tta"], second["tta"], flipped["tta"]] == ["", "", "flip"]
    assert flipped["test_loss"] != first["test_loss"]
    assert float(first["test_map_low"]) < float(first["test_map"]) < float(first["test_map_high"])
    classes = csv_rows(work / "run" / "tests" / "001-dataset" / "per_class.csv")
    assert [row["class"] for row in classes] == ["bar", "blue", "circle", "green", "red", "square"]
    assert sum(int(row["support"]) for row in classes) > 100


def test_predictions_of_a_test_are_kept(work: Path) -> None:
    table = pq.read_table(work / "run" / "tests" / "001-dataset" / "predictions.parquet")
    assert table.column_names == ["path", "label", "predicted", "probabilities"]
    truth = {row["path"]: row["labels"] for row in csv_rows(work / "shapes" / "labels.csv")}
    assert len(set(table["path"].to_pylist())) == table.num_rows
    for path, label in zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True):
        assert ";".join(label) == truth[path]
    assert {len(row) for row in table["probabilities"].to_pylist()} == {6}


def test_predict_lists_the_labels_above_their_thresholds(work: Path) -> None:
    done(work, "predict", "run", "shapes", "-o", "out.parquet")
    (work / "shapes" / "broken.png").write_bytes(b"no image")
    done(work, "predict", "run", "shapes/broken.png", "shapes/0001.png", "-o", "out.csv", "--tta", "flip")
    table = pq.read_table(work / "out.parquet")
    tested = pq.read_table(work / "run" / "tests" / "001-dataset" / "predictions.parquet")
    found = dict(
        zip([Path(path).name for path in table["path"].to_pylist()], table["classes"].to_pylist(), strict=False)
    )
    for path, predicted in zip(tested["path"].to_pylist(), tested["predicted"].to_pylist(), strict=True):
        assert set(found[path]) == set(predicted)
    broken, good = csv_rows(work / "out.csv")
    assert broken["classes"] == "" and broken["error"] and good["error"] == ""
    assert len(good["classes"].split(";")) == len(good["probabilities"].split(";"))


def test_a_model_of_one_label_is_refused_on_data_of_several(work: Path) -> None:
    (work / "one").mkdir()
    for name in ("bar", "blue"):
        (work / "one" / name).mkdir()
        for index in range(6):
            Image.new("RGB", (20, 20), (index, 0, 0)).save(work / "one" / name / f"{name}{index}.png")
    result = sagitta("test", "run", "one", cwd=work)
    refused(result, "the model gives several labels an image, but the dataset has one label")


def test_images_without_any_label_are_tested_and_what_cannot_be_said_is_named(work: Path) -> None:
    table = csv_rows(work / "shapes" / "labels.csv")
    names = [row["path"] for row in table if not row["labels"]][:6]
    rows = [*(f"{name}," for name in names), f"{next(row['path'] for row in table if ';' in row['labels'])},red;bar"]
    (work / "shapes" / "few.csv").write_text("\n".join(["path,labels", *rows, ""]))
    printed = done(work, "test", "run", "shapes/few.csv", "--label-separator", ";")
    assert "7 images of shapes/few.csv (all of its rows); 2 of the model's 6 classes" in printed
    assert "warning: " in printed and "trained on" in printed and "nan" not in printed


@pytest.mark.slow
def test_two_processes_evaluate_every_row_once(work: Path, sagitta_process: Command) -> None:
    done(work, "test", "run")
    alone = csv_rows(work / "run" / "test_logs.csv")[-1]
    before = pq.read_table(work / "run" / alone["predictions"])
    sagitta_process("test", "run", "--devices", 2, "--batch-size", 7, cwd=work)
    together = csv_rows(work / "run" / "test_logs.csv")[-1]
    assert together["predictions"] != alone["predictions"]
    after = pq.read_table(work / "run" / together["predictions"])
    assert before.select(["path", "label", "predicted"]).equals(after.select(["path", "label", "predicted"]))
    for name in ("test_map", "test_f1", "test_map_low", "test_log_loss", "test_loss"):
        assert float(together[name]) == pytest.approx(float(alone[name]), abs=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_the_mean_of_evaluations_matches_classes_by_name(several: bool) -> None:
    task, rng = task_of(several), np.random.default_rng(0)
    targets = rng.integers(0, 2, (30, 3)) if several else rng.integers(0, 3, 30)
    first, second = rng.dirichlet((1, 1, 1), (2, 30)).astype(np.float32)
    paths, thresholds = [f"{row}.png" for row in range(30)], [0.3, 0.4, 0.5]
    other = [2, 0, 1]  # the second model calls them c, a, b
    moved = targets[:, other] if several else np.array([1, 2, 0])[targets]
    evaluations = [
        judge(task, first, targets, paths, list("abc"), {}, "test_", thresholds),
        judge(task, second[:, other], moved, paths, list("cab"), {}, "test_", thresholds),
    ]
    mean = mean_of(evaluations, [0.75, 0.25], task, ["abc", "cab"], thresholds, "test_")
    wanted = judge(task, 0.75 * first + 0.25 * second, targets, paths, list("abc"), {}, "test_", thresholds)
    assert mean.predictions["label"].equals(wanted.predictions["label"])
    assert mean.predictions["predicted"].equals(wanted.predictions["predicted"])
    assert {name: score.value for name, score in mean.scores.items()} == pytest.approx(
        {name: score.value for name, score in wanted.scores.items()}, abs=1e-6
    )
    assert mean.metrics["test_loss"] == mean.metrics["test_log_loss"]
