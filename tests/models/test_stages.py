"""A head that sees every stage: what it is given, for which networks, and that nothing else changes."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sagitta import Classifier
from sagitta.errors import ConfigError
from sagitta.loading.preprocessing import Preprocessing
from sagitta.models.checkpoint import load_classifier
from sagitta.models.heads import head_names, layer_numbers, split_head
from sagitta.models.inference import prepare
from sagitta.models.networks import build_network
from sagitta.models.stages import see_stages, stage_widths, stages_of
from sagitta.training.solving import write_checkpoint

HOW = Preprocessing((64, 64), 1.0, "bilinear", (0.5,) * 3, (0.25,) * 3)
NETWORKS = ["test_efficientnet", "test_resnet", "test_convnext", "test_vit", "mobilenetv2_050"]


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    size = (160, 160) if name == "test_vit" else (64, 64)
    return build_network(name, 5, 3, size).eval()


def images_for(name: str) -> Tensor:
    return torch.randn(2, 3, *((160, 160) if name == "test_vit" else (64, 64)))


def seeing(name: str) -> nn.Module:
    network = network_of(name)
    return see_stages(network, name, tuple(images_for(name).shape[2:]), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_is_given_each_stage_as_a_unit_vector_before_the_last_features(name: str) -> None:
    images, network = images_for(name), seeing(name)
    plain, _ = split_head(network_of(name), name)
    body, head = split_head(network, name)
    widths, layer = stage_widths(network), network.get_submodule(head)
    assert isinstance(layer, nn.Linear) and 1 < len(widths) <= 5
    with torch.inference_mode():
        *stages, last = body(images).split([*widths, layer.in_features - sum(widths)], dim=1)
        assert torch.equal(last, plain(images))
        for stage in stages:
            torch.testing.assert_close(stage.norm(dim=1), torch.ones(2))
        assert torch.allclose(layer(body(images)), network(images), atol=1e-5)
        fast = prepare(body)(images)
    assert (fast - body(images)).norm() / fast.norm() < 1e-4
    assert not [each for each in prepare(body).modules() if isinstance(each, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", NETWORKS)
def test_other_parameters_keep_names_values_and_layers(name: str) -> None:
    before, after = network_of(name), seeing(name)
    head = head_names(before)[0]
    assert head_names(after) == (head,) and layer_numbers(after) == layer_numbers(before)
    assert after.state_dict().keys() == before.state_dict().keys()
    same = [key for key, value in before.state_dict().items() if torch.equal(value, after.state_dict()[key])]
    assert [key for key in before.state_dict() if key not in same] == [f"{head}.weight", f"{head}.bias"]
    assert type(after).__module__ == type(before).__module__
    images = images_for(name)
    for copied in (copy.deepcopy(after), pickle.loads(pickle.dumps(after))):
        with torch.inference_mode():
            assert torch.equal(copied(images), after(images))
        assert stage_widths(copied) == stage_widths(after)


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v3_small", "deit_tiny_distilled_patch16_224"])
def test_networks_without_stages_or_one_head_are_refused(name: str) -> None:
    size = (224, 224) if name.startswith("deit") else (64, 64)
    network = build_network(name, 5, 3, size).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert stages_of(network, size, 3) == {} and stage_widths(network) == ()
    with pytest.raises(ConfigError, match=f"model '{name}': its head can see the last features only"):
        see_stages(network, name, size, 3)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_looking_changes_nothing_of_the_network() -> None:
    network = network_of("test_resnet").train()
    before = copy.deepcopy(network.state_dict())
    assert stages_of(network, (64, 64), 3) == {0: 32, 1: 32, 2: 48, 3: 192} and network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_checkpoint_and_its_export_keep_the_stages(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = Classifier(
        "test_resnet", stages=True, class_names=["a", "b", "c"], preprocessing=HOW.to_dict(), tune="head"
    ).eval()
    assert not classifier.may_see_stages
    write_checkpoint(classifier, tmp_path / "some.ckpt")
    loaded, images = load_classifier(tmp_path / "some.ckpt").eval(), torch.randn(2, 3, 64, 64)
    assert loaded.network is not None and stage_widths(loaded.network) and loaded.hparams["stages"] is True
    with torch.no_grad():
        assert torch.equal(loaded(images), classifier(images))
        program = torch.export.export(loaded.network, (images,))
        torch.testing.assert_close(program.module()(images), loaded(images))


def test_a_head_that_saw_stages_is_begun_with_for_the_same_classes_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    how = {"preprocessing": HOW.to_dict(), "tune": "head"}
    first = Classifier("test_resnet", stages=True, class_names=["a", "b"], **how).eval()  # type: ignore[arg-type]
    write_checkpoint(first, tmp_path / "some.ckpt")
    file = str(tmp_path / "some.ckpt")
    same = Classifier("test_resnet", weights=file, class_names=["a", "b"], **how).eval()  # type: ignore[arg-type]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(same(images), first(images))
    assert not same.new_head and not same.may_see_stages
    other = Classifier("test_resnet", weights=file, class_names=["a", "c"], **how)  # type: ignore[arg-type]
    assert other.new_head and other.may_see_stages and other.network is not None
    assert stage_widths(other.network) == ()
