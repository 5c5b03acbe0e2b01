"""A model that ends in an activation: its bundle has logits before it and the same probabilities behind it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from tests.common.sharing import export_once
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT
from tests.export.rounding import logit_error
from tests.export.zoo.graphs import CLASSES, FLOAT, LABELS, GraphBuilder, InputForm, image_info, tensor_info
from torch import nn

import ortcam
from ortcam.cli import main
from ortcam.engine.features import exact_probabilities
from ortcam_export import ExportError, export
from ortcam_export.graphs.endings import bounds_of
from ortcam_export.graphs.surgery import logits_of


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "activation"),
    [(nn.Softmax(1), "softmax"), (nn.LogSoftmax(1), "softmax"), (nn.Sigmoid(), "sigmoid"), (SpelledOut(), "softmax")],
    ids=["softmax", "log-softmax", "sigmoid", "spelled-out"],
)
def test_a_module_that_ends_in_an_activation_is_not_activated_twice(
    ending: nn.Module, activation: str, shared: Path, tmp_path: Path, picture: np.ndarray
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
    said = TINY_INPUT | {"activation": activation}
    plain = ortcam.load(export_once(TinyNet().eval(), shared / f"tiny-{activation}.ortcam", **said))
    maps = [e.explain(picture, method="scorecam", top_k=2).maps for e in (explainer, plain)]
    np.testing.assert_allclose(*maps, atol=1e-4)


@pytest.mark.slow
def test_an_activation_over_something_else_than_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Softmax at its end does not give the softmax of its 6 logits"):
        export(Ended(nn.Softmax(0)), tmp_path / "e.ortcam", **TINY_INPUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
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


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 3])
def test_scores_by_rank_are_taken_in_front_of_the_ranking(
    count: int, tiny_bundle: Path, tmp_path: Path, picture: np.ndarray
) -> None:
    said: list[str] = []
    bundle = export(Ended(Sorted(count)).eval(), tmp_path / "e.ortcam", report=said.append, **TINY_INPUT)
    assert "the model ends in TopK, scores by rank: the scores in front, of all 6 classes, are taken" in said
    assert "scores by rank" in bundle.manifest.preprocessing_source
    found, expected = (ortcam.load(path).predict(picture) for path in (bundle.path, tiny_bundle))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.long
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


@pytest.mark.slow
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


@pytest.mark.slow
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


class Ensemble(TinyNet):
    """Two classifiers on the same features, and what becomes of their logits."""

    def __init__(self, combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.second = nn.Linear(6, 6)
        with torch.no_grad():
            self.second.weight.normal_(0, 1, generator=torch.Generator().manual_seed(1))
        self.combine = combine

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = super().forward(image)
        return self.combine(logits, self.second(logits))


def groups(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """One softmax per group of classes."""
    return first.unflatten(1, (2, 3)).softmax(2).flatten(1)


COMBINED: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str]] = {
    "mean of softmaxes": (lambda a, b: (a.softmax(1) + b.softmax(1)) / 2, "softmax"),
    "groups": (groups, "sigmoid"),
    "groups apart": (lambda a, b: torch.cat([a[:, :2].softmax(1), a[:, 2:].softmax(1)], 1), "sigmoid"),
    "mean of sigmoids": (lambda a, b: torch.stack([a, b]).sigmoid().mean(0), "sigmoid"),
    "sigmoid by hand": (lambda a, _: 1 / (1 + torch.exp(-a)), "sigmoid"),
    "saturated": (lambda a, _: 1 / (1 + torch.exp(-300 * a)), "sigmoid"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINED)
def test_probabilities_that_are_declared_stay_what_they_are(name: str, tmp_path: Path, picture: np.ndarray) -> None:
    combine, activation = COMBINED[name]
    module = Ensemble(combine).eval()
    bundle = export(module, tmp_path / "e.ortcam", activation="probabilities", **TINY_INPUT)
    assert bundle.manifest.activation == activation
    explainer = ortcam.load(bundle.path)
    with torch.inference_mode():
        expected = module(torch.from_numpy(explainer.preprocess(picture)))[0].numpy()
    # p goes through a logarithm and back: its error is that of the logit, at most 88, in float32, times p (1 - p).
    # Of the saturated one the model itself multiplies the error of a logit of about 10 by 300.
    tolerance = 88 * 1.2e-7 if name != "saturated" else 300 * 10 * 1.2e-7 / 4
    np.testing.assert_allclose(explainer.predict(picture), expected, rtol=0, atol=tolerance)
    explanation = explainer.explain(picture, method="scorecam", top_k=2)
    assert np.isfinite(explanation.maps).all()
    if name != "mean of softmaxes":  # whose rows sum to 1: no declaration is needed
        with pytest.raises(ExportError, match=r"--activation probabilities"):
            export(module, tmp_path / "u.ortcam", **TINY_INPUT)


@pytest.mark.long
def test_a_file_of_several_softmaxes_can_be_declared_as_well(tmp_path: Path, picture: np.ndarray) -> None:
    module = Ensemble(groups).eval()
    file = tmp_path / "groups.onnx"
    torch.onnx.export(module, (torch.zeros(1, 3, 32, 48),), file, dynamo=True, verbose=False)
    said = TINY_INPUT | {"channel_order": "rgb"}
    with pytest.raises(
        ExportError,
        match=r"between 0 and 1 .*--activation probabilities|at its end does not .*--activation probabilities",
    ):
        export(file, tmp_path / "u.ortcam", **said)
    assert main(["inspect", str(file), "--activation", "probabilities"]) == 0
    bundle = export(file, tmp_path / "e.ortcam", activation="probabilities", **said)
    explainer = ortcam.load(bundle.path)
    with torch.inference_mode():
        expected = module(torch.from_numpy(explainer.preprocess(picture)))[0].numpy()
    assert bundle.manifest.activation == "sigmoid"
    np.testing.assert_allclose(explainer.predict(picture), expected, rtol=0, atol=88 * 1.2e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("combine", "activation", "message"),
    [
        (lambda a, _: a, "probabilities", r"outputs for a picture go from -.* to .*; accepted are outputs from 0 to 1"),
        (lambda a, _: 255 * (a / 50).softmax(1), None, "sum to 255 for each picture: they are probabilities times 255"),
        (lambda a, _: 100 * a.softmax(1), None, "sum to 100 for each picture: they are probabilities times 100"),
        (lambda a, _: 100 * a.softmax(1), "probabilities", "accepted are outputs from 0 to 1"),
    ],
)
def test_what_is_neither_logits_nor_probabilities_is_refused(
    combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], activation: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export(Ensemble(combine).eval(), tmp_path / "e.ortcam", activation=activation, **TINY_INPUT)


def test_logits_of_probabilities_are_finite_and_give_them_back() -> None:
    smallest = np.finfo(np.float32).tiny
    values = np.array([[0, smallest, 1e-20, 1e-3, 0.5, 0.999, 1 - 2.0**-24, 1]], np.float32)
    for activation in ("softmax", "sigmoid"):
        rows = values / values.sum() if activation == "softmax" else values
        logits = logits_of(rows, activation)
        assert np.isfinite(logits).all()
        found = exact_probabilities(logits, activation)
        # 0 comes back as the least number that is kept; a logit of 88 is exact to 88 eps.
        least = 1.1 * smallest if activation == "softmax" else 2.0**-24
        np.testing.assert_allclose(found, rows, rtol=88 * 1.2e-7, atol=least)


GRAPH = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,3] x) => (float[N,3] y)
<float third = {{0.3333}}, float one = {{1.0}}, float two = {{2.0}}, int64[1] axis = {{1}}>
{{
{body}
}}"""


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ("y = Sigmoid(x)", (0, 1)),
        ("a = Sigmoid(x) b = Softmax(x) c = Add(a, b) y = Div(c, two)", (0, 1)),
        ("a = Sigmoid(x) y = Sub(one, a)", (0, 1)),
        ("a = Neg(x) b = Exp(a) c = Add(one, b) y = Div(one, c)", (0, 1)),
        ("a = Neg(x) b = Exp(a) c = Add(one, b) y = Reciprocal(c)", (0, 1)),
        ("a = Tanh(x) b = Add(a, one) y = Div(b, two)", (0, 1)),
        ("a = Sigmoid(x) b = Tanh(x) y = Mul(a, b)", (-1, 1)),
        ("a = Sigmoid(x) y = Mul(a, third)", (0, 0.3333)),
        ("y = Relu(x)", (0, np.inf)),
        ("a = Relu(x) y = ReduceMean(a, axis)", (0, np.inf)),
        ("a = Sigmoid(x) y = Add(a, x)", (-np.inf, np.inf)),
        ("a = Exp(x) b = Sub(a, one) y = Div(one, b)", (-np.inf, np.inf)),
        ("a = Exp(x) b = Mul(a, x) y = Mul(b, a)", (-np.inf, np.inf)),
        ("y = Clip(x, one, two)", (1, 2)),
        ("y = Clip(x, , two)", (-np.inf, 2)),
        ("y = Identity(x)", (-np.inf, np.inf)),
    ],
)
def test_bounds_of_a_graph_are_those_of_its_operators(body: str, bounds: tuple[float, float]) -> None:
    model = ir.from_onnx_text(GRAPH.format(body=body))
    np.testing.assert_allclose(bounds_of(model.graph.outputs[0]), bounds, rtol=1e-6)
