"""What ONNX Runtime reads besides the standard operators."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tests.export.zoo.graphs import (
    CLASSES,
    RAW_PIXELS,
    GraphBuilder,
    ZooFile,
    classes_info,
    image_info,
)
from tests.export.zoo.plain import Builder, enter

FILES: dict[str, Builder] = {}
zoo = enter(FILES)


@zoo
def sparse_weights(folder: Path) -> ZooFile:
    """Of one layer as an initializer with indices of one number, of another as a Constant with indices of two."""

    def sparsen(model: onnx.ModelProto) -> None:
        graph = model.graph
        (linear,) = [tensor for tensor in graph.initializer if list(tensor.dims) == [CLASSES, 16]]
        weights = numpy_helper.to_array(linear).copy()
        weights[np.abs(weights) < 0.3] = 0
        graph.initializer.remove(linear)
        places = np.flatnonzero(weights).astype(np.int64)
        values = numpy_helper.from_array(weights.reshape(-1)[places], linear.name)
        indices = numpy_helper.from_array(places, f"{linear.name}_places")
        graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [CLASSES, 16]))

    g = GraphBuilder(opset=13)
    matrix = np.diag(np.linspace(0.5, 2, 16)).astype(np.float32)
    places = np.argwhere(matrix).astype(np.int64)
    values = numpy_helper.from_array(matrix[tuple(places.T)], "diagonal")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), [16, 16])
    x = g.pooled(g.features("image"))
    x = g.op("MatMul", x, g.op("Constant", sparse_value=sparse))
    g.dense(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], edit=sparsen))


@zoo
def operators_of_winml(folder: Path) -> ZooFile:
    """Those that ONNX Runtime has kept from before ONNX 1.0."""
    g = GraphBuilder(opset=9)
    x = g.op("ImageScaler", "image", scale=1 / 58, bias=[-2.1, -2.0, -1.8])
    x = g.op("Crop", x, border=[2, 1, 2, 3])
    x = g.op("ScaledTanh", g.features(x), alpha=1.7, beta=0.6)
    x = g.op("ParametricSoftplus", x, alpha=1.2, beta=0.8)
    x = g.op("ThresholdedRelu", g.op("Affine", g.op("Scale", x, scale=1.5), alpha=1.1, beta=-0.4), alpha=0.1)
    g.head(x, out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], ir_version=4), RAW_PIXELS)


@zoo
def mean_variance_normalization_of_opset_8(folder: Path) -> ZooFile:
    g = GraphBuilder(opset=8)
    x = g.op("MeanVarianceNormalization", g.features("image"), across_channels=1, normalize_variance=1)
    g.head(g.op("Relu", x), out="logits")
    image, classes = image_info(batch=1), classes_info("logits", batch=1)
    return ZooFile(g.save(folder / "net.onnx", [image], [classes], ir_version=4))


@zoo
def normalised_by_its_mean_square(folder: Path) -> ZooFile:
    """SimplifiedLayerNormalization, which ONNX Runtime's optimiser puts in ONNX's own domain."""
    g = GraphBuilder()
    x = g.op("Transpose", g.features("image"), perm=[0, 2, 3, 1])
    x = g.op("SimplifiedLayerNormalization", x, g.random(16, offset=1, scale=0.1), axis=-1, epsilon=1e-5)
    g.head(g.op("Transpose", x, perm=[0, 3, 1, 2]), out="logits")
    return ZooFile(g.save(folder / "net.onnx", [image_info()], [classes_info("logits")]))
