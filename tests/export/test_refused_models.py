"""Models that are not exported: no classifiers, not reproduced, checkpoints that do not fit."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT, TINY_LABELS
from torch import nn

from ortcam_export import ExportError, export


class Restless(TinyNet):
    """Gives other logits each time, as a model left with dropout on would."""

    calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        Restless.calls += 1
        return super().forward(image) * Restless.calls


@pytest.mark.slow
def test_a_model_that_its_graphs_do_not_reproduce_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"head\(features\(x\)\) differs from the model by .* relative; accepted is 1e-04"
    ):
        export(Restless(), tmp_path / "a.ortcam", **TINY_INPUT)
    assert list(tmp_path.iterdir()) == []


class Detector(nn.Module):
    """Two outputs."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image.mean((2, 3)), image


class Flat(nn.Module):
    """No spatial tensor at all."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 48, len(TINY_LABELS))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.linear(image.flatten(1))


@pytest.mark.sample(every=3)
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Detector(), "accepted is a classifier, which returns one tensor of logits"),
        (Flat(), "no spatial tensor"),
        (nn.Linear(3, 4), "does not take an image"),
    ],
)
def test_what_is_not_an_image_classifier_is_refused(module: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export(module, tmp_path / "a.ortcam", **TINY_INPUT)
    assert list(tmp_path.iterdir()) == []


def save(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_names_the_keys(tmp_path: Path) -> None:
    state = torchvision.models.squeezenet1_1().state_dict()
    del state["features.0.bias"]
    state["extra.weight"] = torch.zeros(2)
    state.move_to_end("classifier.1.bias")
    with pytest.raises(ExportError, match=r"lacks features\.0\.bias and also has extra\.weight"):
        export("squeezenet1_1", tmp_path / "a.ortcam", checkpoint=save(state, tmp_path / "state.pth"))
    state = torchvision.models.squeezenet1_1().state_dict()
    state["features.0.weight"] = torch.zeros(7, 3, 3, 3)
    with pytest.raises(ExportError, match=r"size mismatch for features\.0\.weight"):
        export("squeezenet1_1", tmp_path / "a.ortcam", checkpoint=save(state, tmp_path / "state.pth"))


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("/tmp/ortcam-was-here",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_checkpoint_with_code_or_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint")
    (tmp_path / "noise.pth.xz").write_bytes(b"not xz")
    save({"a": 1}, tmp_path / "numbers.pth")
    save(OrderedDict(), tmp_path / "empty.pth")
    for name in ("pickle.pth", "noise.pth", "noise.pth.xz", "numbers.pth", "empty.pth", "missing.pth"):
        with pytest.raises(ExportError, match=name.replace(".", r"\.")):
            export("squeezenet1_1", tmp_path / "a.ortcam", checkpoint=tmp_path / name)
    assert not Path("/tmp/ortcam-was-here").exists()
