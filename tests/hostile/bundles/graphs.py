"""Makes the graphs of hostile bundles, and what a test does with them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from tests.conftest import reseal

from ortcam.bundle.graph_contents import GraphContents, GraphReader
from ortcam.errors import BundleError

CLASSES = 7
FEATURES = ["N", 1024, 7, 7]
SIZES = {"weights.bin": 1000, "other.bin": 1000}
PLACE = Path("head.onnx")


def constant(name: str, value: object, dtype: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def elsewhere(location: str, *, size: int = 8, **entries: object) -> TensorProto:
    """A tensor of bytes in another file."""
    tensor = TensorProto(name="secret", data_type=TensorProto.UINT8, dims=[size], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": location, "offset": 0, "length": size} | entries).items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


MEAN = [
    helper.make_node("ReduceMean", ["features", "axes"], ["mean"], keepdims=0),
    helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
    helper.make_node("Expand", ["column", "row"], ["x"]),
]
CONSTANTS = [constant("axes", [1, 2, 3]), constant("one", [1]), constant("row", [1, CLASSES])]
IDENTITY = helper.make_node("Identity", ["x"], ["logits"])


def head(
    nodes: Sequence[onnx.NodeProto] = (IDENTITY,),
    tensors: Sequence[Any] = (),
    *,
    shape: Sequence[object] | None = ("N", CLASSES),
    dtype: int = TensorProto.FLOAT,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Features -> logits: the mean of the features for every class, and what is asked for."""
    graph = helper.make_graph(
        [*MEAN, *nodes],
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, FEATURES)],
        [helper.make_tensor_value_info("logits", dtype, shape)],
        [*CONSTANTS, *tensors],
    )
    imports = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)


def body(name: str, nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def branches(tensors: Sequence[TensorProto] = ()) -> onnx.NodeProto:
    """An If whose branch has tensors of its own."""
    then = body("then", [helper.make_node("Identity", ["x"], ["y"])], "y")
    then.initializer.extend(tensors)
    other = body("else", [helper.make_node("Identity", ["x"], ["z"])], "z")
    return helper.make_node("If", ["true"], ["logits"], then_branch=then, else_branch=other)


def loop() -> onnx.NodeProto:
    """A Loop that never ends."""
    inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, ["N", CLASSES]),
    ]
    outputs = [
        helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, ["N", CLASSES]),
    ]
    nodes = [helper.make_node("Identity", ["going"], ["goes_on"]), helper.make_node("Identity", ["state"], ["next"])]
    return helper.make_node("Loop", ["", "true", "x"], ["logits"], body=helper.make_graph(nodes, "b", inputs, outputs))


TRUE = constant("true", True, np.bool_)


def function(nodes: Sequence[onnx.NodeProto], name: str = "F") -> onnx.FunctionProto:
    return helper.make_function(
        "own", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    )


CALL = helper.make_node("F", ["x"], ["logits"], domain="own")


def with_function(nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    return head([CALL], domains=["own"], functions=[function(nodes)])


def doubling(depth: int) -> onnx.ModelProto:
    """Functions that each call the next one twice: 2**depth nodes of a few kilobytes."""
    functions = [
        function(
            [
                helper.make_node(f"F{level + 1}", ["a"], ["c"], domain="own"),
                helper.make_node(f"F{level + 1}", ["c"], ["b"], domain="own"),
            ],
            f"F{level}",
        )
        for level in range(depth)
    ]
    functions.append(function([helper.make_node("Tanh", ["a"], ["b"])], f"F{depth}"))
    call = helper.make_node("F0", ["x"], ["logits"], domain="own")
    return head([call], domains=["own"], functions=functions)


def sparse(location: str) -> onnx.SparseTensorProto:
    values = TensorProto(name="s", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        values.external_data.add(key=key, value=value)
    return onnx.SparseTensorProto(values=values, indices=constant("", [0, 1]), dims=[4])


def attribute(kind: int, **values: Any) -> onnx.NodeProto:
    """A Constant with one attribute of a kind."""
    node = helper.make_node("Constant", [], ["unused"])
    name = {AttributeProto.SPARSE_TENSOR: "sparse_value"}.get(kind, "value")
    added = AttributeProto(name=name, type=kind)
    for field, value in values.items():
        if isinstance(value, list):
            getattr(added, field).extend(value)
        else:
            getattr(added, field).CopyFrom(value)
    node.attribute.append(added)
    return node


def training(tensor: TensorProto) -> onnx.ModelProto:
    model = head()
    graph = model.training_info.add().algorithm
    graph.name = "training"
    graph.initializer.append(tensor)
    return model


def sparse_initializer(location: str) -> onnx.ModelProto:
    model = head()
    model.graph.sparse_initializer.append(sparse(location))
    return model


# Where a tensor, or a location, may be in a file: a graph that has it there.
PLACES: dict[str, Callable[[str], onnx.ModelProto]] = {
    "initializer": lambda where: head(tensors=[elsewhere(where)]),
    "attribute": lambda where: head([IDENTITY, attribute(AttributeProto.TENSOR, t=elsewhere(where))]),
    "attributes": lambda where: head([IDENTITY, attribute(AttributeProto.TENSORS, tensors=[elsewhere(where)])]),
    "sparse attribute": lambda where: head(
        [IDENTITY, attribute(AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse(where))]
    ),
    "sparse attributes": lambda where: head(
        [IDENTITY, attribute(AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse(where)])]
    ),
    "sparse initializer": sparse_initializer,
    "branch": lambda where: head([branches([elsewhere(where)])], [TRUE]),
    "graph of an attribute": lambda where: head([branches([elsewhere(where)])], [TRUE]),
    "function": lambda where: with_function(
        [attribute(AttributeProto.TENSOR, t=elsewhere(where)), helper.make_node("Identity", ["a"], ["b"])]
    ),
    "training": lambda where: training(elsewhere(where)),
}


def look(data: bytes) -> GraphContents:
    return GraphReader(SIZES).read(data, PLACE)


def put(bundle: Path, model: onnx.ModelProto | bytes, name: str = "head.onnx") -> Path:
    (bundle / name).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    reseal(bundle)
    return bundle


PICTURE = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)


def refusal(use: Callable[[], object]) -> str:
    """What a BundleError says: one short line."""
    with pytest.raises(BundleError) as caught:
        use()
    text = str(caught.value)
    text.encode()
    assert "\n" not in text
    assert len(text) < 1000
    return text
