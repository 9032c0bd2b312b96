"""Weights from every kind of file people have; all must fit but the head, and nothing is executed."""

import argparse
import datetime
import io
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_transform
from torch import Tensor, nn

from sagitta.errors import ConfigError
from sagitta.loading import DecodedAhead, EncodedFiles
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.networks import build_network, pretrained_preprocessing
from sagitta.models.weights import load_weights, open_weights
from sagitta.sources.arrays import read_pickle

State = dict[str, Tensor]


def network(classes: int = 10, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("resnet20", classes, 3, (32, 32))


def same(one: nn.Module, other: nn.Module, *, head: bool) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for (name, a), b in pairs if head or not name.startswith("linear."))


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda state: state, "the head (linear) too"),
        (lambda state: {"state_dict": prefixed("module.", state), "best_prec1": 91.5}, "without 'module.'"),
        (lambda state: {"model": prefixed("module.backbone.", state), "epoch": 3}, "without 'module.backbone.'"),
        (lambda state: {"model": {}, "model_ema": prefixed("_orig_mod.", state)}, "without '_orig_mod.'"),
        (
            lambda state: {
                "state_dict": prefixed("net.", state) | {"loss.weight": torch.ones(3)},
                "hyper_parameters": {"lr": 0.1},
                "pytorch-lightning_version": "2.6.0",
            },
            "1 left over (loss.weight)",
        ),
        (lambda state: {n: v for n, v in state.items() if "num_batches" not in n}, "97 of 97 tensors matched"),
    ],
)
def test_wrappers_and_prefixes_are_seen_through(tmp_path: Path, wrap: Callable[[State], Any], words: str) -> None:
    source, target = network(), network(seed=1)
    torch.save(wrap(source.state_dict()), path := tmp_path / "weights.pth")
    assert words in load_weights(target, open_weights(path))[0]
    assert same(source, target, head=True)


def test_another_number_of_classes_means_a_new_head(tmp_path: Path) -> None:
    source, target = network(10), network(3, seed=1)
    head = target.state_dict()["linear.weight"].clone()
    save_file(source.state_dict(), path := tmp_path / "weights.safetensors")
    report, _new = load_weights(target, open_weights(path))
    assert report == "weights: weights.safetensors: 95 of 97 tensors matched, the head (linear) is new"
    assert same(source, target, head=False) and torch.equal(target.state_dict()["linear.weight"], head)


def test_a_backbone_without_a_head_will_do(tmp_path: Path) -> None:
    source, target = network(), network(seed=1)
    backbone = {name: value for name, value in source.state_dict().items() if not name.startswith("linear.")}
    torch.save(prefixed("backbone.", backbone) | {"head.weight": torch.ones(2, 64)}, path := tmp_path / "weights.pt")
    report, _new = load_weights(target, open_weights(path))
    assert "the head (linear) is new, 1 left over (head.weight)" in report and same(source, target, head=False)


@pytest.mark.parametrize(("name", "size", "tokens"), [("test_vit", (96, 64), 25), ("vit_b_32", (64, 64), 5)])
def test_positions_follow_the_image_size(tmp_path: Path, name: str, size: tuple[int, int], tokens: int) -> None:
    usual = (160, 160) if name == "test_vit" else (224, 224)
    source, target = build_network(name, 3, 3, usual), build_network(name, 3, 3, size)
    save_file(source.state_dict(), path := tmp_path / "weights.safetensors")
    load_weights(target, open_weights(path))
    (key,) = (key for key in target.state_dict() if "pos_emb" in key)
    before, after = source.state_dict(), target.state_dict()
    assert after[key].shape[1] == tokens != before[key].shape[1] and after[key].std() > 0
    assert all(torch.equal(after[other], before[other]) for other in before if other != key)


def test_googlenets_outer_heads_are_left_over(tmp_path: Path) -> None:
    source = torchvision.models.googlenet(num_classes=3, aux_logits=True, init_weights=False)
    save_file(source.state_dict(), path := tmp_path / "weights.safetensors")
    report, _new = load_weights(build_network("googlenet", 3, 3, (64, 64)), open_weights(path))
    assert "the head (fc) too" in report and "left over (aux1" in report


def without(name: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("layer2.0.conv1.weight"), r"1 missing \(layer2.0.conv1.weight\)"),
        (lambda state: state | {"conv1.weight": torch.ones(16, 1, 3, 3)}, r"conv1.weight is \(16, 1, 3, 3\), needed"),
        (
            lambda state: state | {"layer3.3.conv1.weight": torch.ones(1)},
            r"1 without a place \(layer3.3.conv1.weight\)",
        ),
        (lambda _: {"blocks.0.weight": torch.ones(3)}, r"95 missing \(conv1.weight, .*…\)"),
    ],
)
def test_a_mismatch_beyond_the_head_is_refused_and_changes_nothing(
    tmp_path: Path, change: Callable[[State], State], words: str
) -> None:
    target, before = network(seed=1), network(seed=1)
    torch.save(change(network().state_dict()), path := tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=words):
        load_weights(target, open_weights(path))
    assert same(target, before, head=True)


def test_a_head_of_other_classes_is_not_taken_from_a_run(tmp_path: Path) -> None:
    fields = {"name": "resnet20", "num_classes": 2, "class_names": ["cat", "dog"], "preprocessing": None}
    state = prefixed("network.", network(2).state_dict())
    torch.save({"state_dict": state, "hyper_parameters": fields}, path := tmp_path / "last.ckpt")
    weights = open_weights(path)
    assert "(linear) too" in load_weights(network(2), weights, ["cat", "dog"])[0]
    assert "(linear) is new" in load_weights(network(2), weights, ["dog", "cat"])[0]


def test_preprocessing_follows_the_weights(tmp_path: Path) -> None:
    own = Preprocessing((48, 48), 0.9, "bilinear", (0.4,), (0.2,))
    fields = {"name": "resnet20", "num_classes": 2, "class_names": None, "preprocessing": own.to_dict()}
    torch.save({"state_dict": network().state_dict()}, plain := tmp_path / "plain.pth")
    torch.save({"state_dict": network().state_dict(), "hyper_parameters": fields}, run := tmp_path / "run.ckpt")
    assert open_weights(run).preprocessing("resnet20") == own
    for model in ("mobilenetv2_100", "squeezenet1_1", "resnet20", "simple-cnn"):
        assert open_weights(plain).preprocessing(model) == pretrained_preprocessing(model)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    (path := tmp_path / f"broken{suffix}").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"broken\{suffix}: not (a )?readable"):
        open_weights(path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    torch.save(network().state_dict(), path := tmp_path / "half.pth")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ConfigError, match=r"half\.pth: not a readable checkpoint"):
        open_weights(path)


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pth: no such checkpoint"):
        open_weights(tmp_path / "none.pth")
    with pytest.raises(ConfigError, match=r"no checkpoint in it"):
        open_weights(tmp_path)
    torch.save({"epoch": 3}, path := tmp_path / "empty.pth")
    with pytest.raises(ConfigError, match="no weights in it"):
        open_weights(path)
    torch.save([torch.ones(3)], path)
    with pytest.raises(ConfigError, match="holds a list"):
        open_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", io.BytesIO(np.ones(3).tobytes()).getvalue())
    with pytest.raises(ConfigError, match="not a readable checkpoint"):
        open_weights(path)


def test_nothing_in_a_weights_file_is_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": network().state_dict(), "args": Bomb(tmp_path / "run")}, path := tmp_path / "bomb.pth")
    with pytest.raises(ConfigError, match="only tensors in it"):
        open_weights(path)
    assert not (tmp_path / "run").exists()


def test_resnet20_of_the_wild_classifies_cifar(data_dir: Path) -> None:
    """91.5 % on the first 1,000 test images; the weights were trained with ImageNet's statistics."""
    (file,) = (data_dir / "weights").glob("resnet20-*.th")
    weights, net = open_weights(file), network().eval()
    assert "97 of 97 tensors matched (without 'module.'), the head (linear) too" in load_weights(net, weights)[0]
    batch = data_dir / "cifar-10-batches-py" / "test_batch"
    fields = read_pickle(batch.name, batch.read_bytes())  # an array becomes an inert record that ends with its bytes
    raw = np.frombuffer(fields[b"data"].state[-1], np.uint8)
    pixels = torch.from_numpy(raw.reshape(-1, 3, 32, 32)[:1000].copy())
    preprocessing = weights.preprocessing("resnet20")
    assert preprocessing is not None
    with torch.inference_mode():
        right = net(preprocessing.normalize(pixels)).argmax(dim=1) == torch.tensor(fields[b"labels"][:1000])
    assert int(right.sum()) == 915


def test_mobilenet_equals_timms_own_pipeline_on_real_photos(data_dir: Path) -> None:
    """Decoding, resize, crop, normalisation and network: the same best class on all 160 photos, logits within 1e-3."""
    weights = open_weights(data_dir / "weights" / "mobilenetv2_100.imagenet1k.safetensors")
    net = build_network("mobilenetv2_100", 1000, 3, (224, 224)).eval()
    assert "the head (classifier) too" in load_weights(net, weights)[0]
    files = sorted(str(path) for path in (data_dir / "photos").iterdir())
    preprocessing = weights.preprocessing("mobilenetv2_100")
    assert preprocessing is not None and len(files) == 160
    reference = timm.create_model("mobilenetv2_100", checkpoint_path=str(weights.path)).eval()
    config: dict[str, Any] = timm.data.resolve_model_data_config(reference)  # type: ignore[no-untyped-call]
    transform = create_transform(**config)
    with torch.inference_mode():
        chunks = DecodedAhead(EncodedFiles(files), [preprocessing], 32)
        ours = torch.cat([net(preprocessing.normalize(chunk.pixels[0])) for chunk in chunks])
        theirs = [reference(transform(Image.open(file).convert("RGB"))[None]) for file in files]
    torch.testing.assert_close(ours, torch.cat(theirs), atol=1e-3, rtol=0)
    assert torch.equal(ours.argmax(dim=1), torch.cat(theirs).argmax(dim=1))
    synsets = ImageNetInfo()
    right = [
        synsets.index_to_label_name(int(i)) in Path(f).name for i, f in zip(ours.argmax(dim=1), files, strict=True)
    ]
    assert sum(right) >= 0.8 * len(files)


def test_what_other_programs_leave_beside_the_weights_is_opened(tmp_path: Path) -> None:
    """As timm, torchvision's references, MMPretrain and Lightning write it; prefixes and averages are found."""
    beside = {
        "args": argparse.Namespace(lr=0.1, output=Path("x"), nested=argparse.Namespace(a=[1])),
        "best": np.float64(0.9),
        "counts": np.arange(3),
        "kind": np.dtype("float32"),
        "when": datetime.datetime(2026, 1, 1),
        "log": defaultdict(list, {"loss": [1.0]}),
        "path": PureWindowsPath("c:/data"),
    }
    averaged = network()
    state = {"state_dict": prefixed("module.", network(seed=1).state_dict()), "state_dict_ema": averaged.state_dict()}
    torch.save(state | beside, path := tmp_path / "timm.pth.tar")
    target = network(seed=2)
    assert "97 of 97 tensors matched" in load_weights(target, open_weights(path))[0]
    assert torch.equal(target.state_dict()["conv1.weight"], averaged.state_dict()["conv1.weight"])


class Unknown:
    """A class that no list has."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {}, "args": Unknown()}, r"not only tensors in it: .*\.Unknown could run code"),
        (nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear could run code .* save the model's state_dict"),
    ],
)
def test_a_class_that_is_refused_is_named(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, path := tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=words):
        open_weights(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), ("<!DOCTYPE html>", "download the file itself")],
)
def test_what_stands_in_the_place_of_weights_is_said(tmp_path: Path, text: str, words: str) -> None:
    for suffix in ("pth", "safetensors"):
        (path := tmp_path / f"x.{suffix}").write_text(text)
        with pytest.raises(ConfigError, match=words):
            open_weights(path)
