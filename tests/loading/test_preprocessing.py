"""Images meet their statistics, with and without the core; a reduction goes along."""

import pytest
import torch

from sagitta.errors import ConfigError
from sagitta.images import Reduction
from sagitta.loading import Preprocessing

GREY = Preprocessing((4, 5), 1.0, "bilinear", (0.25,), (0.5,))
COLOUR = Preprocessing((4, 5), 1.0, "bilinear", (0.2, 0.4, 0.6), (0.5, 0.25, 0.125))


@pytest.fixture(params=["1", "0"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGITTA_NATIVE", request.param)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_statistics_of_one_channel_serve_any_number(channels: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, channels, 4, 5), dtype=torch.uint8).contiguous(memory_format=layout)
    expected = (images.double() / 255 - 0.25) / 0.5
    found = GREY.normalize(images)
    assert found.dtype == torch.float32 and found.shape == images.shape
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(GREY.denormalize(found), images)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_statistics_of_three_channels_refuse_another_number(channels: int) -> None:
    images = torch.zeros((3, channels, 4, 5), dtype=torch.uint8)
    with pytest.raises(
        ConfigError, match=rf"images of shape \(3, {channels}, 4, 5\), but mean and std are of 3 channels"
    ):
        COLOUR.normalize(images)
    with pytest.raises(ConfigError, match="mean and std are of 3 channels"):
        COLOUR.denormalize(images.float())


def test_fields_are_plain_and_old_ones_are_read() -> None:
    assert "reduction" not in COLOUR.to_dict()  # as every checkpoint before had it
    assert Preprocessing.from_dict(COLOUR.to_dict()) == COLOUR
    how = Preprocessing((4, 5), 1.0, "bilinear", (0.25,), (0.5,), reduction=Reduction((-1000, 400.5), (3, 2, 1)))
    assert how.to_dict()["reduction"] == {"range": [-1000, 400.5], "bands": [3, 2, 1]}
    assert Preprocessing.from_dict(how.to_dict()) == how
    with pytest.raises(ConfigError, match="does not fit this version"):
        Preprocessing.from_dict(COLOUR.to_dict() | {"unheard": 1})
