"""Exports answer as the checkpoint does, in a process that cannot import Sagitta; or there is no file."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from sagitta.cli import main
from sagitta.errors import ConfigError
from sagitta.evaluation import one_classifier
from sagitta.exporting import FORMATS, ExportError, export
from sagitta.exporting.graph import an_input
from sagitta.exporting.job import Job
from sagitta.exporting.precision import PRECISIONS
from sagitta.exporting.proof import FEWEST, prove, write_images
from sagitta.exporting.reader import read
from sagitta.exporting.subject import images_of
from sagitta.serving import Named, Wanted, open_engine
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
    for name, text in metadata.items():
        assert again[name] == text or again[name] == json.loads(text), name
    assert again["class_names"] == ["b", "g", "r"] and again["preprocessing"]["convert"] == "RGB"


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
    photos = write_images(images_of(Path("run"), Path("run"), None, None), tmp_path / "images", "bgr")
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


def test_where_the_proof_fails_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagitta.exporting.judging.CLOSE", dict.fromkeys(PRECISIONS, -1.0))
    for precision in ("32", "bf16"):
        with pytest.raises(ExportError):
            export(Path("run"), "torch", tmp_path / "out", precision=precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "precision"), [("onnx", "16"), ("openvino", "16"), ("torch", "16"), ("safetensors", "16")]
)
def test_of_16_bits_a_model_is_half_as_large_and_near(to: str, precision: str, tmp_path: Path) -> None:
    found, plain = (export(Path("run"), to, tmp_path / bits, precision=bits) for bits in (precision, "32"))
    assert found.bytes < 0.7 * plain.bytes
    assert found.proof.same == found.proof.images and 0 < found.proof.difference < 1e-2
    told = json.loads((tmp_path / precision / f"{to}.json").read_text())
    assert told["precision"] == precision and "within 0.01" in told["gate"] and told["proof"]["labelled_images"] == 6
    assert told["proof"]["accuracy"] == told["proof"]["accuracy_of_checkpoint"]
    assert "precision 16" in found.text() and "of 6 labelled images" in found.text()
    if to in ("onnx", "openvino"):
        served_as_predicted(tmp_path / precision, 1e-2)


def served_as_predicted(folder: Path, close: float) -> None:
    """An export is served as it is, and says of every photo about what the run predicts."""
    paths = sorted(str(path) for path in Path("photos").rglob("*.png"))
    engine = open_engine(folder, Wanted())
    answers = engine.answer([Named(path, Path(path).read_bytes()) for path in paths])
    table = predict_table("run", paths, top_k=3, batch_size=None, flip=False)
    assert not answers.errors and engine.about["precision"] == folder.name
    np.testing.assert_allclose(answers.probabilities.max(1), table["probability"].to_numpy(), atol=close)


def test_bfloat16_is_torchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is near enough is the network's matter, so here everything is."""
    monkeypatch.setattr("sagitta.exporting.judging.CLOSE", dict.fromkeys(PRECISIONS, 1.0))
    monkeypatch.setattr("sagitta.models.task.ROUNDING", 1.0)
    found = export(Path("run"), "torch", tmp_path / "out", precision="bf16-true")
    assert found.precision == "bf16" and 1e-6 < found.proof.difference < 0.1


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take int8 however slow and bad it is: of tiny networks it is."""
    monkeypatch.setattr("sagitta.exporting.judging.FASTER", 0.0)
    monkeypatch.setattr("sagitta.exporting.judging.LOST", 1.0)


@pytest.mark.usefixtures("generous")
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_is_calibrated_on_training_images_and_says_what_it_costs(to: str, tmp_path: Path) -> None:
    if to == "openvino":
        pytest.importorskip("nncf")
    found = export(Path("run"), to, tmp_path / "int8", precision="int8")
    told = json.loads((tmp_path / "int8" / f"{to}.json").read_text())
    assert told["precision"] == "int8" and told["gate"].startswith("at most") and told["bytes"] == found.bytes
    assert told["proof"]["float32_milliseconds_batch_1"] > 0 and found.proof.gains is not None
    assert "of 6 labelled images, the checkpoint's" in found.text() and "times), 32 " in found.text()
    assert found.proof.difference > 1e-4  # it is another model
    if to == "onnx":
        kinds = {node.op_type for node in onnx.load(found.path).graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    served_as_predicted(tmp_path / "int8", 0.5)


def test_int8_that_is_not_faster_is_refused_with_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sagitta.exporting.judging.LOST", 1.0)
    monkeypatch.setattr("sagitta.exporting.judging.FASTER", 1e6)
    out = tmp_path / "out"
    assert main(["export", "run", "--precision", "int8", "-o", str(out)]) == 2
    line = capsys.readouterr().err
    assert "int8 is not 1e+06 times as fast as float32 here: an image" in line and line.count("\n") == 1
    assert re.search(r"an image [\d.]+ ms before, [\d.]+ ms now \([\d.]+ times\), 32 [\d.]+ ms before", line)
    assert list(tmp_path.iterdir()) == []


def test_int8_needs_the_runs_own_training_images(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    for name in ("run.json", "checkpoints"):
        (tmp_path / "moved" / name).symlink_to(Path("run", name).absolute())
    with pytest.raises(ConfigError, match="int8 is calibrated on the run's own training images, and it has no config"):
        export(tmp_path / "moved", out=tmp_path / "out", precision="int8", data="photos")
    configured = Path("run/config.yaml").read_text().replace("source: photos", "source: gone")
    (tmp_path / "moved" / "config.yaml").write_text(configured)
    with pytest.raises(ConfigError, match=r"own training images: .*its data is not there any more"):
        export(tmp_path / "moved", out=tmp_path / "out", precision="int8", data="photos")
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize(
    ("to", "precision", "words"),
    [
        ("onnx", "8", "--precision 8: no such precision of an export; there are 32, 16, bf16, int8"),
        (
            "onnx",
            "bf16-mixed",
            "--precision bf16-mixed: mixed is a training's way, a file has one precision; give bf16",
        ),
        ("onnx", "bf16", "--to onnx --precision bf16: not offered, no processor runs that"),
        ("openvino", "bf16", "--to openvino --precision bf16: not offered"),
        ("torch", "int8", "--to torch --precision int8: not offered, --to onnx and --to openvino have it"),
        ("safetensors", "int8", "--to safetensors --precision int8: not offered"),
        ("hub", "bf16-true", "--to hub --precision bf16: not offered"),
    ],
)
def test_what_is_not_offered_is_one_line(
    to: str, precision: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "run", "--to", to, "--precision", precision, "-o", "none"]) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1 and not Path("none").exists()


def test_a_library_that_int8_needs_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else there(name))
    with pytest.raises(ConfigError, match=r"--to openvino needs nncf: pip install 'sagitta\[int8\]'"):
        export(Path("run"), "openvino", tmp_path / "out", precision="int8")
    assert list(tmp_path.iterdir()) == []
