"""What timm and transformers load answers as the checkpoint does; what they cannot load is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load, load_file, save_file

from sagitta.cli import main
from sagitta.errors import ConfigError
from sagitta.evaluation import one_classifier
from sagitta.exporting import FORMATS, ExportError, export
from sagitta.exporting.proof import prove, write_images
from sagitta.exporting.subject import images_of
from sagitta.verbs import predict_table


def test_timm_loads_the_folder() -> None:
    found = export(Path("timms"), "hub")
    folder = Path("timms/export/hub")
    assert found.proof.images == 6 + 11 and found.proof.difference < 1e-5  # all but the transparent one
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "hub.json", "model.safetensors"}
    network = timm.create_model(f"local-dir:{folder.absolute()}", pretrained=True)
    own = one_classifier(Path("timms")).network
    assert own is not None
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in network.state_dict().items())
    card = (folder / "README.md").read_text()
    for words in ("license:", "## How good it is", "| acc |", "## Calibration", "48 train", "`b`, `g`, `r`"):
        assert words in card, words
    assert str(Path.cwd()) not in card


def test_of_16_bits_the_folder_is_half_as_large_and_timm_loads_it(tmp_path: Path) -> None:
    found, plain = (export(Path("timms"), "hub", tmp_path / bits, precision=bits) for bits in ("16", "32"))
    assert found.bytes < 0.6 * plain.bytes and found.proof.same == found.proof.images
    kept = load_file(found.path)
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.float16}
    network = timm.create_model(f"local-dir:{(tmp_path / '16').absolute()}", pretrained=True)
    assert {value.dtype for value in network.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize(("precision", "within"), [("32", 1e-4), ("16", 1e-2)])
def test_the_pipeline_of_transformers_gives_calibrated_probabilities(
    tmp_path: Path, precision: str, within: float
) -> None:
    from transformers import pipeline

    export(Path("timms"), "hub", tmp_path / "out", precision=precision)
    paths = sorted(str(path) for path in Path("photos").rglob("*.png"))[::10]
    classify = pipeline("image-classification", model=str(tmp_path / "out"), device="cpu")
    table = predict_table("timms", paths)
    for path, name, probability in zip(
        paths, table["class"].to_pylist(), table["probability"].to_pylist(), strict=True
    ):
        best = classify(Image.open(path))[0]
        assert best["label"] == name and abs(best["score"] - probability) < within


@pytest.mark.slow
def test_tampering_is_found_out_and_names_the_image(tmp_path: Path) -> None:
    classifier, out, form = one_classifier(Path("timms")), tmp_path / "out", FORMATS["hub"]
    export(Path("timms"), "hub", out)
    (tmp_path / "images").mkdir()
    photos = write_images(images_of(Path("timms"), Path("timms"), None, None), tmp_path / "images", "bgr")
    assert prove("hub", out, form, classifier, photos).difference < 1e-5
    weights, config = load((out / "model.safetensors").read_bytes()), (out / "config.json").read_text()

    def refused() -> None:
        with pytest.raises(ExportError, match=r"\w/\d\d\.png(, [\w ]+)?: a probability of the exported model is"):
            prove("hub", out, form, classifier, photos)

    head = json.loads(config)["pretrained_cfg"]["classifier"]
    order = torch.tensor([1, 0, 2])  # of the classes
    other = {name: value[order] if name.startswith(f"{head}.") else value for name, value in weights.items()}
    save_file({name: value.contiguous() for name, value in other.items()}, out / "model.safetensors")
    refused()
    first = next(name for name, value in weights.items() if value.ndim == 4)
    save_file(weights | {first: weights[first].flip(0)}, out / "model.safetensors")
    refused()
    save_file(weights, out / "model.safetensors")
    changed = json.loads(config)
    changed["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (out / "config.json").write_text(json.dumps(changed))
    refused()


def test_what_timm_does_not_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="simple-cnn is no network of timm's"):
        export(Path("run"), "hub", tmp_path / "out")
    own = ["--model", "test_resnet", "--image-size", "32", "--epochs", "1", "--batch-size", "8"]
    assert main(["fit", "photos", *own, "--model.stages", "true", "--out", str(tmp_path / "stages")]) == 0
    with pytest.raises(ConfigError, match="sees several stages of the network, which timm does not build"):
        export(tmp_path / "stages", "hub", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert np.isfinite(export(tmp_path / "stages", "safetensors", tmp_path / "out").proof.one)
