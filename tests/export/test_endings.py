"""A model that ends in an activation: its bundle has logits before it and the same probabilities behind it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.conftest import TINY_INPUT, TinyNet
from tests.export.onnx_graphs import CLASSES, FLOAT, LABELS, GraphBuilder, InputForm, image_info, tensor_info
from tests.export.rounding import logit_error
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
        image = torch.from_numpy(explainer.preprocess(picture))
        expected = module(image)[0].numpy()
    if isinstance(ending, nn.LogSoftmax):
        expected = np.exp(expected)
    np.testing.assert_allclose(explainer.predict(picture), expected, atol=logit_error(TinyNet().eval(), image))
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


class Sorted(nn.Module):
    """Scores from the best to the worst; so many of them, moved by an offset."""

    def __init__(self, count: int, offset: float = 0.0) -> None:
        super().__init__()
        self.count, self.offset = count, offset

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        values = logits.topk(self.count, dim=1).values
        return values + self.offset if self.offset else values


@pytest.mark.parametrize("count", [6, 3])
def test_scores_by_rank_are_taken_in_front_of_the_ranking(count: int, tmp_path: Path, picture: np.ndarray) -> None:
    said: list[str] = []
    bundle = export(Ended(Sorted(count)).eval(), tmp_path / "e.ortcam", report=said.append, **TINY_INPUT)
    plain = export(TinyNet().eval(), tmp_path / "p.ortcam", **TINY_INPUT)
    assert "the model ends in TopK, scores by rank: the scores in front, of all 6 classes, are taken" in said
    assert "scores by rank" in bundle.manifest.preprocessing_source
    found, expected = (ortcam.load(made.path).predict(picture) for made in (bundle, plain))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_scores_that_are_sorted_and_then_changed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="its 6 scores are sorted for every picture, so they are by rank"):
        export(Ended(Sorted(6, 0.5)).eval(), tmp_path / "e.ortcam", **TINY_INPUT)


class Winners(nn.Module):
    """The three best scores where they are, the others 0."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * (logits >= logits.topk(3, dim=1).values[:, -1:])


class Older(nn.Module):
    """Scores of being older than 10, 20, 30: descending for every image, and classes all the same."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, :1] - torch.arange(6) * 0.7


@pytest.mark.parametrize("ending", [Winners(), Older()], ids=["winners", "older"])
def test_scores_in_the_order_of_the_classes_are_left_alone(ending: nn.Module, tmp_path: Path) -> None:
    module = Ended(ending).eval()
    bundle = export(module, tmp_path / "e.ortcam", **TINY_INPUT)
    assert bundle.manifest.parity.logits <= bundle.manifest.parity.tolerance
    assert "rank" not in bundle.manifest.preprocessing_source


def ending_in(folder: Path, end: Any) -> Path:
    """A small `.onnx` classifier with nodes behind its scores [N,5], the last of which makes "scores"."""
    g = GraphBuilder()
    end(g, g.head(g.features("image"), out="plain"))
    return g.save(folder / "net.onnx", [image_info()], [tensor_info("scores", None)])


def top(g: GraphBuilder, x: str, count: int, outputs: tuple[str, str]) -> tuple[str, str]:
    g.nodes.append(onnx.helper.make_node("TopK", [x, g.constant(np.array([count]))], list(outputs), axis=1))
    return outputs


TAKEN: dict[str, Any] = {
    "all of them": lambda g, x: top(g, x, CLASSES, ("scores", "_")),
    "the best three": lambda g, x: top(g, x, 3, ("scores", "_")),
    "their softmax": lambda g, x: g.op("Softmax", top(g, x, CLASSES, ("best", "_"))[0], out="scores", axis=1),
    "of a softmax": lambda g, x: top(g, g.op("Softmax", x, axis=1), 3, ("scores", "_")),
    "through an Identity": lambda g, x: g.op("Identity", top(g, x, 3, ("best", "_"))[0], out="scores"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_file_that_gives_scores_by_rank_is_explained_by_class(name: str, tmp_path: Path, picture: np.ndarray) -> None:
    said: list[str] = []
    arguments = InputForm().arguments() | {"labels": LABELS}
    bundle = export(ending_in(tmp_path, TAKEN[name]), tmp_path / "e.ortcam", report=said.append, **arguments)
    assert any("scores by rank" in sentence and "all 5 classes" in sentence for sentence in said)
    (tmp_path / "plain").mkdir()
    file = ending_in(tmp_path / "plain", lambda g, x: g.op("Identity", x, out="scores"))
    plain = export(file, tmp_path / "p.ortcam", **arguments)
    found, expected = (ortcam.load(made.path).predict(picture) for made in (bundle, plain))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def picked(g: GraphBuilder, x: str) -> str:
    return g.op("GatherElements", x, top(g, x, CLASSES, ("_", "order"))[1], out="scores", axis=1)


REFUSED: dict[str, tuple[Any, str]] = {
    "picked": (picked, "GatherElements at its end picks the scores by indices computed from the image"),
    "indices": (
        lambda g, x: g.op("Cast", top(g, x, CLASSES, ("_", "order"))[1], out="scores", to=FLOAT),
        "'scores' holds indices, which TopK gives",
    ),
    "the best class": (
        lambda g, x: g.op("Cast", g.op("ArgMax", x, axis=1), out="scores", to=FLOAT),
        "'scores' holds indices, which ArgMax gives",
    ),
    "one of the sorted": (
        lambda g, x: g.op("Gather", top(g, x, 5, ("best", "_"))[0], g.constant(np.arange(4)), out="scores", axis=1),
        "TopK at its end gives its scores by rank, not by class",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_whose_scores_change_places_is_refused(name: str, tmp_path: Path) -> None:
    end, message = REFUSED[name]
    with pytest.raises(ExportError, match=message):
        export(ending_in(tmp_path, end), tmp_path / "e.ortcam", **InputForm().arguments(), labels=LABELS)


def test_scores_that_a_constant_puts_in_order_are_fine(tmp_path: Path) -> None:
    order = np.array([4, 2, 0, 1, 3])
    path = ending_in(tmp_path, lambda g, x: g.op("Gather", x, g.constant(order), out="scores", axis=1))
    bundle = export(path, tmp_path / "e.ortcam", **InputForm().arguments(), labels=LABELS)
    assert bundle.manifest.labels == LABELS
