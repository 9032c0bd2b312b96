"""Exports answer as the checkpoint does, in a process that cannot import Sagitta; or there is no file."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from sagitta.errors import ConfigError
from sagitta.evaluation import one_classifier
from sagitta.exporting import FORMATS, ExportError, export
from sagitta.exporting.export import _images as images_of
from sagitta.exporting.graph import an_input
from sagitta.exporting.job import Job
from sagitta.exporting.proof import FEWEST, compared, prove, write_images
from sagitta.exporting.reader import read
from sagitta.verbs import predict_table


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


@pytest.mark.parametrize("to", ["openvino", "torch"])
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
    (tmp_path / "images").mkdir()
    photos = write_images(images_of(Path("run"), Path("run"), None, None), tmp_path / "images")
    assert photos.split == "val" and len(photos.files) == len(photos.called) <= FEWEST + 12
    form, out = FORMATS["torch"], tmp_path / "out"
    export(Path("run"), "torch", out)
    form.write(Job(Path("run"), None, other, {}, out))
    with pytest.raises(ExportError, match=r"\w/\d\d\.png(, [\w ]+)?: a probability of the exported model is"):
        prove("torch", out, form, classifier, photos)

    reader = out / "reader.py"
    reader.write_text(reader.read_text().replace("image.getexif().get(274, 1)", "1"))  # forgets to turn photos
    with pytest.raises(ExportError, match="turned by EXIF 2: the exported reader makes other pixels"):
        prove("torch", out, form, classifier, photos)
    reader.write_text("raise SystemExit('no')")
    with pytest.raises(ExportError, match="does not run in a process of its own: no"):
        prove("torch", out, form, classifier, photos)


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
        ("run", "caffe", "out", "--to caffe: no such format; there are onnx, openvino, torch, safetensors, hub"),
        ("nothing", "onnx", "out", "nothing"),
        ("run", "onnx", "several.csv", "is a file; an export is a folder"),
    ],
)
def test_bad_input_is_one_line(run: str, to: str, out: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        export(Path(run), to, Path(out))
    assert not Path("out").exists()


def test_data_that_is_gone_is_to_be_named_by_the_option_that_there_is(tmp_path: Path) -> None:
    shutil.copytree("run", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("source: photos", "source: gone"))
    with pytest.raises(ConfigError, match=r"its data is not there any more, looked for .*gone; name it with --data"):
        export(tmp_path / "run")
