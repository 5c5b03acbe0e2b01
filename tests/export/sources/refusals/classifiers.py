"""Graphs that are no classifier of images, or not of one image at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tests.export.sources.refusals.case import Case, enter
from tests.export.zoo.graphs import (
    CLASSES,
    HEIGHT,
    WIDTH,
    GraphBuilder,
    classes_info,
    image_info,
    tensor_info,
)
from tests.export.zoo.plain import plain

CASES: dict[str, tuple[Case, str]] = {}
refused = enter(CASES)


@refused(r"--model-output.*boxes.*scores|boxes.*scores.*--model-output")
def detector(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    maps = g.features("image")
    g.op("Reshape", g.conv(maps, 16, 4, kernel=1), g.constant([0, -1, 4]), out="boxes")
    g.op("Sigmoid", g.op("Reshape", g.conv(maps, 16, 9, kernel=1), g.constant([0, -1, 9])), out="scores")
    cells = HEIGHT * WIDTH // 16
    outputs = [tensor_info("boxes", ("N", cells, 4)), tensor_info("scores", ("N", cells, 9))]
    return g.save(folder / "net.onnx", [image_info()], outputs), {}


@refused(r"'boxes'.*accepted is \[N,classes\]")
def boxes_of_a_detector(folder: Path) -> tuple[Path, dict[str, Any]]:
    return detector(folder)[0], {"output": "boxes"}


@refused(r"'masks'.*21.*segment.*accepted is \[N,classes\]")
def segmenter(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    small = g.conv(g.features("image"), 16, 21, kernel=1)
    g.op("Resize", small, "", g.constant([1.0, 1.0, 4.0, 4.0], np.float32), mode="linear", out="masks")
    output = tensor_info("masks", ("N", 21, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image_info()], [output]), {"labels": [str(index) for index in range(21)]}


@refused(r"'input_ids'.*int64.*accepted is an image")
def text_model(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    words = g.op("Gather", g.random(100, 16), "input_ids", axis=0)
    g.dense(g.op("ReduceMean", words, axes=[1], keepdims=0), out="logits")
    return g.save(folder / "net.onnx", [tensor_info("input_ids", ("N", "T"), np.int64)], [classes_info("logits")]), {}


@refused(r"no spatial tensor|nothing to explain")
def no_maps(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.dense(g.op("Flatten", "image"), 3 * HEIGHT * WIDTH, out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"'image'.*1,48,64.*an image of 1 channel; said are 3, by --channels, --mean")
def grayscale(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Relu", g.conv("image", 1, 16, stride=4)), out="logits")
    image = tensor_info("image", ("N", 1, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image], [classes_info("logits")]), {}


@refused(r"65,48,70.*accepted is an image of 1 to 64 channels")
def many_channels(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Relu", g.conv("image", 65, 16, stride=4)), out="logits")
    image = tensor_info("image", ("N", 65, 48, 70))
    return g.save(folder / "net.onnx", [image], [classes_info("logits")]), {}


@refused(r"4,48,64.*an image of 4 channels or 64 channels; said are 3")
def four_channels(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Relu", g.conv("image", 4, 16, stride=4)), out="logits")
    image = tensor_info("image", ("N", 4, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image], [classes_info("logits")]), {}


@refused(r"'video'.*accepted is an image")
def video(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.op("Relu", g.conv(g.op("ReduceMean", "video", axes=[2], keepdims=0), 3, 16, stride=4))
    g.head(x, out="logits")
    return g.save(folder / "net.onnx", [tensor_info("video", ("N", 3, 8, HEIGHT, WIDTH))], [classes_info("logits")]), {}


@refused(r"'left'.*'right'.*accepted is one image")
def two_images(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.features(g.op("Sub", "left", "right")), out="logits")
    return g.save(folder / "net.onnx", [image_info("left"), image_info("right")], [classes_info("logits")]), {}


@refused(r"'threshold'.*accepted is one image")
def second_input_that_counts(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Max", g.features("image"), "threshold"), out="logits")
    return g.save(folder / "net.onnx", [image_info(), tensor_info("threshold", ())], [classes_info("logits")]), {}


@refused(r"batch size is fixed at 8")
def batch_of_8(folder: Path) -> tuple[Path, dict[str, Any]]:
    return plain(folder, batch=8), {}


@refused(r"batch|images")
def batch_averaged(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.pooled(g.features("image"))
    g.dense(g.op("ReduceMean", x, axes=[0], keepdims=1), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits", batch=1)]), {}


@refused(r"nan|finite|differs")
def weights_that_are_not_numbers(folder: Path) -> tuple[Path, dict[str, Any]]:
    def spoil(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.dims == [CLASSES]:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(CLASSES, np.nan, np.float32), tensor.name))

    return plain(folder, edit=spoil), {}
