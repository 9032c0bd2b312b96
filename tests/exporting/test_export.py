"""Exports answer as the checkpoint does, in a process that cannot import Sagitta; or there is no file."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from sagitta.cli import main
from sagitta.errors import ConfigError
from sagitta.evaluation import one_classifier
from sagitta.exporting import FORMATS, ExportError, export
from sagitta.exporting.export import _images as images_of
from sagitta.exporting.graph import Graph, an_input
from sagitta.exporting.proof import FEWEST, compared, prove, write_images
from sagitta.exporting.reader import read
from sagitta.verbs import predict_table


@pytest.fixture(scope="module", autouse=True)
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with ``run`` and ``several``: networks of one label an image, and of several."""
    folder = tmp_path_factory.mktemp("export")
    before, cache = Path.cwd(), os.environ.get("SAGITTA_CACHE")
    os.chdir(folder)
    os.environ["SAGITTA_CACHE"] = str(folder / "cache")
    rng = np.random.default_rng(0)
    rows = ["path,r,g,b,odd"]
    for number in range(60):
        kind = number % 3
        pixels = rng.integers(0, 120, (20 + number % 7, 24, 3), np.uint8)
        pixels[..., kind] += 130
        place = folder / "photos" / "rgb"[kind] / f"{number:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
        rows.append(f"photos/{'rgb'[kind]}/{number:02d}.png,{('1,0,0,0', '0,1,0,1', '0,0,1,1')[kind]}")
    (folder / "several.csv").write_text("\n".join(rows) + "\n")
    small = ["--model", "simple-cnn", "--image-size", "16", "--epochs", "2", "--batch-size", "8"]
    assert main(["fit", "photos", *small, "--out", "run"]) == 0
    assert main(["fit", "several.csv", *small, "--out", "several"]) == 0
    yield folder
    os.chdir(before)
    os.environ.pop("SAGITTA_CACHE")
    if cache is not None:
        os.environ["SAGITTA_CACHE"] = cache


def test_onnx_holds_all_that_is_needed() -> None:
    found = export(Path("run"))
    assert found.path == Path("run/export/model.onnx") and found.proof.same == found.proof.images == 6 + 12
    assert {path.name for path in Path("run/export").iterdir()} == {
        "model.onnx", "onnx.json", "preprocessing.json", "reader.py",
    }  # fmt: skip
    onnx.checker.check_model(onnx.load(found.path))

    session = onnxruntime.InferenceSession(found.path)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["b", "g", "r"]
    assert json.loads(metadata["preprocessing"]) == json.loads(Path("run/export/preprocessing.json").read_text())
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 16, 16, 3])
    paths = sorted(str(path) for path in Path("photos").rglob("*.png"))
    how = json.loads(metadata["preprocessing"])
    (answers,) = session.run(None, {"images": np.stack([read(path, how) for path in paths])})
    table = predict_table("run", paths, top_k=3, batch_size=None, flip=False)
    assert [["b", "g", "r"][best] for best in answers.argmax(1)] == table["class"].to_pylist()
    np.testing.assert_allclose(answers.max(1), table["probability"].to_numpy(), atol=1e-5)

    again = json.loads(Path("run/export/onnx.json").read_text())
    assert again["proof"]["same_decision"] == again["proof"]["images"] and again["bytes"] == found.path.stat().st_size


@pytest.mark.parametrize("to", [name for name in FORMATS if name != "onnx"])
def test_other_formats_answer_alike(to: str, tmp_path: Path) -> None:
    found = export(Path("run"), to, tmp_path / "out")
    assert found.proof.same == found.proof.images and found.proof.difference < 1e-5
    for name in ("class_names", "preprocessing"):
        if to == "torch":
            extra = {name: ""}
            torch.export.load(found.path, extra_files=extra)
            assert json.loads(extra[name])


def test_of_several_labels_each_has_its_probability(tmp_path: Path) -> None:
    found = export(Path("several"), out=tmp_path / "out")
    session = onnxruntime.InferenceSession(found.path)
    metadata = session.get_modelmeta().custom_metadata_map
    assert len(json.loads(metadata["thresholds"])) == len(json.loads(metadata["class_names"])) == 4
    pixels = an_input(one_classifier(Path("several")).preprocessing, 5)  # type: ignore[arg-type]
    (answers,) = session.run(None, {"images": pixels.numpy()})
    assert np.abs(answers.sum(axis=1) - 1).max() > 1e-3


def test_another_model_does_not_pass(tmp_path: Path) -> None:
    """A file whose weights are others than the checkpoint's, as by a wrong export, is found out by its answers."""
    classifier, other = one_classifier(Path("run")), one_classifier(Path("run"))
    with torch.no_grad():
        next(iter(other.parameters())).mul_(1.05)
    data = images_of(Path("run"), Path("run"), None)
    (tmp_path / "images").mkdir()
    split, files, called = write_images(data, tmp_path / "images")
    assert split == "val" and len(files) == len(called) <= FEWEST + 12
    export(Path("run"), "torch", tmp_path / "out")
    FORMATS["torch"].write(Graph(other), an_input(classifier.preprocessing, 2), {}, tmp_path / "out" / "model.pt2")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="a probability of the exported model is"):
        prove("torch", tmp_path / "out", "model.pt2", classifier, files, called, split)

    reader = tmp_path / "out" / "reader.py"
    reader.write_text(reader.read_text().replace("image.getexif().get(274, 1)", "1"))  # forgets to turn photos
    with pytest.raises(ExportError, match="turned by EXIF 2: the exported reader makes other pixels"):
        prove("torch", tmp_path / "out", "model.pt2", classifier, files, called, split)
    reader.write_text("raise SystemExit('no')")
    with pytest.raises(ExportError, match="does not run in a process of its own: no"):
        prove("torch", tmp_path / "out", "model.pt2", classifier, files, called, split)


def test_what_counts_as_equal() -> None:
    wanted = np.array([[0.6, 0.4], [0.50003, 0.49997]], np.float32)
    near = wanted + np.array([[5e-5, -5e-5], [-5e-5, 5e-5]], np.float32)  # the second decides otherwise, by a hair
    assert compared(wanted, near, ["a", "b"], None, "val", 0, 0).same == 1
    with pytest.raises(ExportError, match=r"b: a probability .* is 0\.001 off"):
        compared(wanted, wanted + np.array([[0], [1e-3]], np.float32), ["a", "b"], None, "val", 0, 0)
    wide = np.array([[0.9, 0.1], [0.50008, 0.49992]], np.float32)
    moved = wide + np.array([[0, 0], [-9e-5, 9e-5]], np.float32)
    with pytest.raises(ExportError, match="b: the exported model decides otherwise"):
        compared(wide, moved, ["a", "b"], None, "val", 0, 0)
    with pytest.raises(ExportError, match="not all finite"):
        compared(wanted, wanted * np.nan, ["a", "b"], None, "val", 0, 0)


def test_where_the_proof_fails_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagitta.exporting.proof.CLOSE", -1.0)
    with pytest.raises(ExportError):
        export(Path("run"), "torch", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("run", "to", "out", "words"),
    [
        ("run", "caffe", "out", "--to caffe: no such format; there are onnx, openvino, torch"),
        ("nothing", "onnx", "out", "nothing"),
        ("run", "onnx", "several.csv", "is a file; an export is a folder"),
    ],
)
def test_bad_input_is_one_line(run: str, to: str, out: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        export(Path(run), to, Path(out))
    assert not Path("out").exists()
