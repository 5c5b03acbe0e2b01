"""A model that ends in an activation: its bundle has logits before it and the same probabilities behind it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import TINY_INPUT, TinyNet
from torch import nn

import ortcam
from ortcam_export import ExportError, export


class Ended(TinyNet):
    """TinyNet with something behind its logits."""

    def __init__(self, ending: nn.Module) -> None:
        super().__init__()
        self.ending = ending

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.ending(super().forward(image))


class SpelledOut(nn.Module):
    """A softmax that the graph does not call one."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        powers = logits.exp()
        return powers / powers.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("ending", "activation"),
    [(nn.Softmax(1), "softmax"), (nn.LogSoftmax(1), "softmax"), (nn.Sigmoid(), "sigmoid"), (SpelledOut(), "softmax")],
    ids=["softmax", "log-softmax", "sigmoid", "spelled-out"],
)
def test_a_module_that_ends_in_an_activation_is_not_activated_twice(
    ending: nn.Module, activation: str, tmp_path: Path, picture: np.ndarray
) -> None:
    module = Ended(ending).eval()
    bundle = export(module, tmp_path / "e.ortcam", **TINY_INPUT)
    assert bundle.manifest.activation == activation
    explainer = ortcam.load(bundle.path)
    with torch.inference_mode():
        expected = module(torch.from_numpy(explainer.preprocess(picture)))[0].numpy()
    if isinstance(ending, nn.LogSoftmax):
        expected = np.exp(expected)
    np.testing.assert_allclose(explainer.predict(picture), expected, atol=1e-6)
    plain = ortcam.load(export(TinyNet().eval(), tmp_path / "p.ortcam", activation=activation, **TINY_INPUT).path)
    maps = [e.explain(picture, method="scorecam", top_k=2).maps for e in (explainer, plain)]
    np.testing.assert_allclose(*maps, atol=1e-4)


def test_an_activation_over_something_else_than_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Softmax at its end does not give the softmax of its 6 logits"):
        export(Ended(nn.Softmax(0)), tmp_path / "e.ortcam", **TINY_INPUT)
    assert list(tmp_path.iterdir()) == []


def test_a_sigmoid_of_a_softmax_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--activation sigmoid: the graph ends in a softmax"):
        export(Ended(nn.Softmax(1)), tmp_path / "e.ortcam", activation="sigmoid", **TINY_INPUT)
