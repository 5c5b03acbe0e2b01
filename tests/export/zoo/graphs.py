"""Small ONNX graphs written by hand, and what a test has to know of a file to run it: the pieces the zoo is made of."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Layout = Literal["nchw", "nhwc"]
Ending = Literal["logits", "softmax", "log_softmax", "sigmoid"]

CLASSES = 5
LABELS = ("ant", "bee", "cat", "dog", "elk")
# Not square, so that rows taken for columns show.
HEIGHT, WIDTH = 48, 64

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class InputForm:
    """How a file takes a picture: the preprocessing that its user knows, and the layout and type of its input.

    Attributes:
        layout: of the tensor that the file takes.
        dtype: of that tensor.
        channel_order: "rgb" or "bgr".
        scale: S of (pixel / 255 * S - mean) / std.
        mean: in the given channel order.
        std: in the given channel order.
    """

    layout: Layout = "nchw"
    dtype: type[np.generic] = np.float32
    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def tensor(self, pictures: NDArray[np.uint8]) -> NDArray[Any]:
        """The file's input for uint8 RGB pictures [N,H,W,3], computed in float64."""
        pixels = pictures[..., ::-1] if self.channel_order == "bgr" else pictures
        values = (pixels / 255.0 * self.scale - np.array(self.mean)) / np.array(self.std)
        if np.issubdtype(self.dtype, np.integer):
            values = np.rint(values)
        return np.ascontiguousarray(values if self.layout == "nhwc" else values.transpose(0, 3, 1, 2)).astype(
            self.dtype
        )

    def arguments(self) -> dict[str, Any]:
        """What a user of `export` says about it."""
        said: dict[str, Any] = {"channel_order": self.channel_order}
        if np.issubdtype(self.dtype, np.integer):  # pixels as they are: there is nothing to scale
            return said
        said |= {"mean": self.mean, "std": self.std}
        return said if self.scale == 1 else said | {"scale": self.scale}


RAW_PIXELS = InputForm(scale=255.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class ZooFile:
    """An `.onnx` classifier and how to call it.

    Attributes:
        path: the file.
        form: how it takes a picture.
        size: (H, W) of its input.
        ending: what its output holds.
        labels: one per class.
        output: the output that holds the classes, by name; None is the only one.
        said: further arguments of `export` that a user has to give.
        precision: what a bundle of it says.
        tolerance: accepted max |logits - expected| / max |expected|.
    """

    path: Path
    form: InputForm = InputForm()
    size: tuple[int, int] = (HEIGHT, WIDTH)
    ending: Ending = "logits"
    labels: tuple[str, ...] = LABELS
    output: str | None = None
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    precision: Literal["float32", "int8"] = "float32"
    tolerance: float = 1e-4

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `export`."""
        return self.form.arguments() | {"labels": list(self.labels)} | dict(self.said)

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """How its logits become probabilities."""
        sigmoid = self.ending == "sigmoid" or self.said.get("activation") == "sigmoid"
        return "sigmoid" if sigmoid else "softmax"

    def pictures(self, count: int = 3) -> NDArray[np.uint8]:
        """Pictures at its input size."""
        return pictures(count, *self.size)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """What the file itself gives for uint8 RGB pictures [N,H,W,3], one at a time: float64 [N,classes]."""
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        session = ort.InferenceSession(self.path, settings, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_outputs()]
        image, *others = session.get_inputs()
        feeds: dict[str, NDArray[Any]] = {item.name: np.zeros(item.shape, np.float32) for item in others}
        rows = []
        for picture in self.form.tensor(images):
            fed = picture if len(image.shape) == 3 else picture[None]
            (value,) = session.run([self.output or names[0]], feeds | {image.name: fed})
            if isinstance(value, list):  # ZipMap's sequence of maps
                value = np.array([[row[key] for key in sorted(row)] for row in value])
            rows.append(np.reshape(value, -1))
        return np.stack(rows).astype(np.float64)

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The file's logits [N,classes]; behind a softmax they are known up to a constant, here with log-sum-exp 0."""
        value = self.run(images)
        if self.ending == "softmax":
            return np.log(value)
        return np.log(value / (1 - value)) if self.ending == "sigmoid" else value

    def comparable(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """A bundle's logits as `logits` gives the file's."""
        exact = logits.astype(np.float64)
        return log_softmax(exact) if self.ending in ("softmax", "log_softmax") else exact

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The file's probabilities [N,classes]: its own where it ends in them."""
        value = self.run(images)
        if self.ending in ("softmax", "sigmoid"):
            return value
        return 1 / (1 + np.exp(-value)) if self.activation == "sigmoid" else np.exp(log_softmax(value))

    def weight_elements(self) -> int:
        """The number of values stored in the file, constants of nodes and of functions included."""
        model = onnx.load(self.path)
        nodes = [node for body in (model.graph, *model.functions) for node in body.node]
        tensors = [
            *model.graph.initializer,
            *(item.t for node in nodes for item in node.attribute if item.HasField("t")),
        ]
        return sum(int(np.prod(tensor.dims)) for tensor in tensors)


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def pictures(count: int, height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures that differ in colour and in where their bright patch lies: uint8 RGB [count,height,width,3]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    result = []
    for index in range(count):
        top, left = generator.uniform(0.2, 0.8, 2) * (height, width)
        patch = np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / (0.04 * height * width))[..., None]
        ground = generator.uniform(0, 160, 3) + generator.uniform(-30, 30, (height, width, 3))
        waves = 40 * np.sin((index + 1) * (rows + 2 * columns) / 9)[..., None]
        result.append(ground + waves + patch * generator.uniform(60, 255, 3))
    return np.clip(result, 0, 255).astype(np.uint8)


class GraphBuilder:
    """Writes a graph node by node; weights are random but seeded.

    Args:
        opset: of the default domain.
        dtype: of weights and constants.
        name: turns an operator's type and number into the name of its output.
    """

    def __init__(
        self,
        *,
        opset: int = 17,
        dtype: type[np.generic] = np.float32,
        name: Callable[[str, int], str] = "{}_{}".format,
        seed: int = 0,
    ) -> None:
        self.opset = opset
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._name = name
        self._generator = np.random.default_rng(seed)

    def op(self, op_type: str, *inputs: str, out: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its one output."""
        output = out or self._name(op_type, len(self.nodes))
        self.nodes.append(
            helper.make_node(op_type, list(inputs), [output], name=f"{output}/node", domain=domain, **attributes)
        )
        return output

    def constant(self, value: Any, dtype: Any = None, name: str | None = None) -> str:
        """Add an initializer; floats take the graph's type unless another is given."""
        array = np.asarray(value)
        if dtype is not None or array.dtype.kind == "f":
            array = array.astype(dtype or self.dtype)
        name = name or self._name("const", len(self.initializers))
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def axes(self, op_type: str, x: str, axes: Sequence[int], *, since: int = 13, **attributes: Any) -> str:
        """Squeeze, Unsqueeze, ReduceSum: axes are an input from opset 13 (reductions but ReduceSum: 18) on."""
        if self.opset < since:
            return self.op(op_type, x, axes=list(axes), **attributes)
        return self.op(op_type, x, self.constant(np.array(axes, np.int64)), **attributes)

    def random(self, *shape: int, scale: float = 1.0, offset: float = 0.0) -> str:
        """A constant of normal values."""
        return self.constant(offset + scale * self._generator.normal(size=shape))

    def conv(
        self, x: str, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, group: int = 1, bias: bool = True
    ) -> str:
        """A convolution that keeps the size or divides it."""
        fan_in = inputs // group * kernel**2
        weights = [self.random(outputs, inputs // group, kernel, kernel, scale=float(np.sqrt(2 / fan_in)))]
        if bias:
            weights.append(self.random(outputs, scale=0.2))
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": group}
        return self.op("Conv", x, *weights, **shape)

    def batch_norm(self, x: str, channels: int) -> str:
        """A batch normalisation with statistics unlike 0 and 1."""
        gamma, beta, mean = (self.random(channels, scale=0.2, offset=offset) for offset in (1, 0.3, 0))
        variance = self.constant(self._generator.uniform(0.5, 1.5, channels))
        return self.op("BatchNormalization", x, gamma, beta, mean, variance)

    def features(self, x: str, *, channels: int = 16) -> str:
        """Three convolutions, image [N,3,H,W] -> maps [N,channels,H/4,W/4]."""
        x = self.op("Relu", self.batch_norm(self.conv(x, 3, 8, stride=2, bias=False), 8))
        x = self.op("Relu", self.conv(x, 8, 12, stride=2))
        return self.op("Relu", self.conv(x, 12, channels))

    def pooled(self, x: str) -> str:
        """Maps -> [N,C]."""
        return self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)

    def dense(self, x: str, inputs: int = 16, outputs: int = CLASSES, out: str | None = None) -> str:
        """[N,inputs] -> [N,outputs]."""
        weights = self.random(outputs, inputs, scale=float(2 / np.sqrt(inputs)))
        return self.op("Gemm", x, weights, self.random(outputs, scale=0.5), out=out, transB=1)

    def head(self, x: str, outputs: int = CLASSES, out: str | None = None) -> str:
        """Maps [N,16,h,w] -> logits [N,outputs]."""
        return self.dense(self.pooled(x), 16, outputs, out)

    def save(
        self,
        path: Path,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        *,
        ir_version: int = 8,
        domains: Mapping[str, int] | None = None,
        functions: Sequence[onnx.FunctionProto] = (),
        edit: Callable[[onnx.ModelProto], None] | None = None,
    ) -> Path:
        """Write the file; `edit` may change the whole model first."""
        graph = helper.make_graph(self.nodes, "net", inputs, outputs, self.initializers)
        opsets = [
            helper.make_opsetid(domain, version) for domain, version in {"": self.opset, **(domains or {})}.items()
        ]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=functions)
        model.producer_name = "handmade"
        if edit is not None:
            edit(model)
        onnx.save(model, path)
        return path


def tensor_info(name: str, shape: Sequence[int | str | None] | None, dtype: Any = np.float32) -> onnx.ValueInfoProto:
    """A graph input or output."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def image_info(
    name: str = "image",
    *,
    layout: Layout = "nchw",
    batch: int | str = "N",
    size: tuple[int | str, int | str] = (HEIGHT, WIDTH),
    dtype: Any = np.float32,
) -> onnx.ValueInfoProto:
    """The graph input of an image."""
    return tensor_info(name, (batch, 3, *size) if layout == "nchw" else (batch, *size, 3), dtype)


def classes_info(name: str, *, batch: int | str = "N", classes: int = CLASSES, dtype: Any = np.float32) -> Any:
    """The graph output of the classes, [N,classes]."""
    return tensor_info(name, (batch, classes), dtype)


FLOAT16, FLOAT, DOUBLE, INT64 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
