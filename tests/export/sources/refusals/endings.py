"""Graphs whose probabilities would not be those of the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx import helper
from tests.export.sources.refusals.case import Case, enter
from tests.export.zoo import ZOO
from tests.export.zoo.contents import looped
from tests.export.zoo.endings import ending
from tests.export.zoo.graphs import (
    CLASSES,
    GraphBuilder,
    classes_info,
    image_info,
)

CASES: dict[str, tuple[Case, str]] = {}
refused = enter(CASES)


@refused(r"net\.onnx.*Softmax at its end.*over all classes")
def softmax_over_the_batch(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ending(folder, "softmax", lambda g, x: g.op("Softmax", x, axis=0, out="scores")).path, {}


@refused(r"Softmax at its end.*over all classes")
def softmax_over_groups_of_classes(folder: Path) -> tuple[Path, dict[str, Any]]:
    def tail(g: GraphBuilder, x: str) -> None:
        groups = g.op("Softmax", g.op("Reshape", x, g.constant([-1, 2, 3])), axis=2)
        g.op("Reshape", groups, g.constant([-1, 6]), out="scores")

    return ending(folder, "softmax", tail, outputs=6).path, {"labels": list("abcdef")}


@refused(r"Softmax at its end.*over all classes")
def softmax_over_an_axis_of_size_1(folder: Path) -> tuple[Path, dict[str, Any]]:
    def tail(g: GraphBuilder, x: str) -> None:
        g.op("Flatten", g.op("Softmax", x, axis=-1), axis=1, out="scores")

    return ending(folder, "softmax", tail, pooled=True).path, {}


@refused(r"--activation sigmoid.*softmax")
def softmax_that_the_user_calls_sigmoid(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["ends_in_softmax"](folder).path, {"activation": "sigmoid"}


@refused(r"--activation sigmoid.*softmax")
def softmax_spelled_out_that_the_user_calls_sigmoid(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["ends_in_softmax_spelled_out"](folder).path, {"activation": "sigmoid"}


@refused(r"between 0 and 1.*Reciprocal")
def sigmoid_spelled_out(folder: Path) -> tuple[Path, dict[str, Any]]:
    def tail(g: GraphBuilder, x: str) -> None:
        g.op("Reciprocal", g.op("Add", g.op("Exp", g.op("Neg", x)), g.constant(1.0)), out="scores")

    return ending(folder, "sigmoid", tail).path, {"activation": "sigmoid"}


@refused(r"between 0 and 1.*HardSigmoid")
def hard_sigmoid(folder: Path) -> tuple[Path, dict[str, Any]]:
    file = ending(folder, "sigmoid", lambda g, x: g.op("HardSigmoid", x, out="scores"))
    return file.path, {"activation": "sigmoid"}


@refused(r"'label'.*int64.*floating")
def classes_that_are_no_numbers(folder: Path) -> tuple[Path, dict[str, Any]]:
    said = {"output": "label", "activation": "sigmoid", "labels": ["class"]}
    return ZOO["label_and_probabilities"](folder).path, said


@refused(r"\[5,N\].*accepted is \[N,classes\]")
def images_behind_the_classes(folder: Path) -> tuple[Path, dict[str, Any]]:
    tail: Callable[[GraphBuilder, str], object] = lambda g, x: g.op("Transpose", x, perm=[1, 0], out="scores")  # noqa: E731
    return ending(folder, "logits", tail, shape=(CLASSES, "N")).path, {}


@refused(r"Dropout.*training mode")
def dropout_in_training_mode(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Dropout", g.features("image"), g.constant(0.5), g.constant(True)), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"BatchNormalization.*training mode")
def batch_normalisation_in_training_mode(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.batch_norm(g.conv("image", 3, 16, stride=4), 16)
    g.nodes[-1].attribute.append(helper.make_attribute("training_mode", 1))
    g.nodes[-1].output.extend(["mean", "variance"])
    g.head(g.op("Relu", x), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"differ.*run again")
def noise_inside(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    maps = g.features("image")
    g.head(g.op("Add", maps, g.op("RandomNormalLike", maps)), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"differ.*another beside it")
def images_that_weigh_each_other(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The shapes do not tell: a softmax over the batch keeps them."""
    g = GraphBuilder()
    g.head(g.op("Softmax", g.features("image"), axis=0), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"Loop.*cannot be opened.*open batch")
def batch_of_1_in_a_loop(folder: Path) -> tuple[Path, dict[str, Any]]:
    return looped(folder, batch=1), {}


@refused(r"no bundle can be made of this model: features\.onnx: node .* is of 'Loop'.*accepted is a graph of plain")
def a_loop(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Of three turns; bundles have none, since their reader cannot tell how long others would run."""
    return looped(folder), {}
