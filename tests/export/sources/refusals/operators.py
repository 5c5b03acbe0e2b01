"""Graphs with operators that no bundle can have."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tests.export.sources.refusals.case import Case, enter
from tests.export.zoo import ZOO
from tests.export.zoo.contents import looped
from tests.export.zoo.graphs import (
    HEIGHT,
    WIDTH,
    GraphBuilder,
    classes_info,
    image_info,
    tensor_info,
)

CASES: dict[str, tuple[Case, str]] = {}
refused = enter(CASES)


@refused(r"my\.operators.*Fancy")
def custom_operator(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Fancy", g.features("image"), domain="my.operators"), out="logits")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], domains={"my.operators": 1})
    return path, {}


@refused(r"Fancy")
def operator_that_onnx_does_not_have(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    g.head(g.op("Fancy", g.features("image")), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"GRUUnit, which ONNX Runtime keeps for old files, is not supported")
def operator_that_onnx_runtime_keeps_for_old_files(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder(opset=9)
    x = g.pooled(g.features("image"))
    g.dense(g.op("GRUUnit", x, x, x, x), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]), {}


@refused(r"no batch dimension, and Mul .* cannot be given one; accepted is an image \[N,C,H,W\]")
def an_image_without_a_batch_and_its_grey_one(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.op("Mul", "image", g.op("ReduceMean", "image", axes=[0], keepdims=0))
    g.head(g.features(g.axes("Unsqueeze", x, [0])), out="logits")
    image = tensor_info("image", (3, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image], [classes_info("logits", batch=1)]), {}


@refused(r"no batch dimension, and LayerNormalization .* cannot be given one; accepted is an image \[N,C,H,W\]")
def an_operator_on_an_image_without_a_batch(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    x = g.op("LayerNormalization", "image", g.constant(np.ones(WIDTH)), axis=-1)
    g.head(g.features(g.axes("Unsqueeze", x, [0])), out="logits")
    image = tensor_info("image", (3, HEIGHT, WIDTH))
    return g.save(folder / "net.onnx", [image], [classes_info("logits", batch=1)]), {}


@refused(r"cannot be read as ONNX.*(index|indices|bounds)")
def sparse_weights_that_lie_outside(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = ZOO["sparse_weights"](folder).path
    model = onnx.load(path)
    (sparse,) = model.graph.sparse_initializer
    places = onnx.numpy_helper.to_array(sparse.indices).copy()
    places[-1] = 10**6
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(places, sparse.indices.name))
    path.write_bytes(model.SerializeToString())
    return path, {}


@refused(r"its input is int8, pixels less 128; --mean does not go with it")
def statistics_for_an_input_of_signed_bytes(folder: Path) -> tuple[Path, dict[str, Any]]:
    return ZOO["int8_pixels_of_tflite"](folder).path, {}


@refused(r"com\.microsoft\.nchwc.*accepted is the file")
def laid_out_for_a_processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    g = GraphBuilder()
    domain = "com.microsoft.nchwc"
    maps = g.op("ReorderInput", g.features("image"), domain=domain)
    g.head(g.op("ReorderOutput", maps, domain=domain, channels=16), out="logits")
    path = g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], domains={domain: 1})
    return path, {}


@refused(r"'inside'.*Loop")
def layer_in_a_loop(folder: Path) -> tuple[Path, dict[str, Any]]:
    return looped(folder), {"layer": "inside"}
