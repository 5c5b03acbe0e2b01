"""What a gradient graph takes and returns, what it leaves out, and what has none."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from tests.export.graphs.gradient.exactness import Graph, differences, error, gradients

from ortcam_export.graphs.gradient import NoDerivativeError, differentiate
from ortcam_export.graphs.gradient.float64 import Float64Graph
from ortcam_export.graphs.running import quiet_session

TOLERANCE = 3e-5


def names(values: object) -> list[str | None]:
    return [value.name for value in values]  # type: ignore[attr-defined]


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def pooled(g: Graph, value: str, channels: int, classes: int = 4) -> ir.Model:
    """An average over the positions, and one linear layer."""
    flat = g.op("Flatten", g.op("GlobalAveragePool", value))
    inputs = [flat, g.weight(classes, channels), g.weight(classes)]
    g.nodes.append(helper.make_node("Gemm", inputs, ["logits"], name="last", transB=1))
    return g.model(classes)


def test_an_affine_head_needs_no_features() -> None:
    graph = Graph(3, 4, 5)
    model = pooled(graph, "features", 3)
    gradient = differentiate(model, wrt=["features"])
    assert names(gradient.graph.inputs) == ["seed"]
    assert [str(side) for side in gradient.graph.inputs[0].shape or ()] == ["K", "4"]
    assert names(gradient.graph.outputs) == ["gradient"]
    assert [str(side) for side in gradient.graph.outputs[0].shape or ()] == ["K", "3", "4", "5"]
    assert operators(gradient) == {"MatMul": 1, "Reshape": 1, "Mul": 1, "Expand": 1}
    assert max(error(model)) < TOLERANCE


def test_the_given_model_stays_as_it_is() -> None:
    graph = Graph(3, 4, 4)
    model = pooled(graph, graph.op("MaxPool", "features", kernel_shape=[2, 2]), 3)
    before = ir.to_proto(model).SerializeToString()
    differentiate(model, wrt=["features"])
    assert ir.to_proto(model).SerializeToString() == before


def test_only_what_the_derivative_needs_runs_forward() -> None:
    """Of conv, ReLU, conv: the first and its ReLU for the gate; nobody needs what the second gives."""
    graph = Graph(3, 4, 4)
    value = graph.op("Relu", graph.op("Conv", "features", graph.weight(5, 3, 1, 1)))
    value = graph.op("Conv", value, graph.weight(3, 5, 3, 3), pads=[1] * 4)
    gradient = differentiate(pooled(graph, value, 3), wrt=["features"])
    found = operators(gradient)
    assert found["Conv"] == 3  # forward once, back twice
    assert found["GlobalAveragePool"] == found["Gemm"] == found["ConvTranspose"] == 0
    assert names(gradient.graph.inputs) == ["seed", "features"]


def test_weights_stay_as_they_are() -> None:
    """A bundle's graphs share one file of weights, and whoever changes it changes the derivative."""
    graph = Graph(3, 4, 4)
    value = graph.op("Conv", "features", graph.weight(3, 3, 3, 3), pads=[1] * 4)
    value = graph.op("Conv", graph.op("Relu", value), graph.weight(3, 1, 3, 3), group=3, strides=[2, 2])
    model = pooled(graph, graph.op("Tanh", value), 3)
    own = {value.const_value.tobytes() for value in model.graph.initializers.values() if value.const_value is not None}
    gradient = differentiate(model, wrt=["features"])
    large = [value.const_value for value in gradient.graph.initializers.values() if len(value.shape or ()) > 1]
    assert len(large) == 3
    assert all(tensor is not None and tensor.tobytes() in own for tensor in large)


def test_several_layers_each_begin_a_part_and_each_have_a_gradient() -> None:
    """Shallow and deep layer: the graph computes the shallow one's gradient through the deep one, given as an input."""
    graph = Graph(2, 4, 4)
    deep = graph.op("Softplus", graph.op("Conv", "features", graph.weight(3, 2, 3, 3), pads=[1] * 4))
    model = pooled(graph, graph.op("Tanh", graph.op("Conv", deep, graph.weight(3, 3, 1, 1))), 3)
    gradient = differentiate(model, wrt=[deep, "features"])
    assert names(gradient.graph.inputs) == ["seed", "features", "features_1"]
    assert names(gradient.graph.outputs) == ["gradient", "gradient_1"]
    random = np.random.default_rng(0)
    shallow, seeds = (random.normal(size=shape).astype(np.float32) for shape in ((1, 2, 4, 4), (2, 4)))
    session = quiet_session(_with_output(model, deep))
    maps = session.run([deep], {"features": shallow})[0]
    feeds = {"seed": seeds, "features": maps, "features_1": shallow}
    by_deep, by_shallow = quiet_session(gradient).run(None, feeds)
    expected = differences(Float64Graph(model), shallow, seeds)
    assert np.abs(by_shallow - expected).max() < TOLERANCE * np.abs(expected).max()
    (alone,) = gradients(model, maps, seeds, wrt=[deep])
    assert np.abs(by_deep - alone).max() <= 1e-6 * np.abs(alone).max()


def _with_output(model: ir.Model, name: str) -> ir.Model:
    copy = model.clone()
    (value,) = [value for node in copy.graph for value in node.outputs if value.name == name]
    copy.graph.outputs.append(value)
    return copy


def test_tensors_within_have_gradients_and_can_be_returned() -> None:
    graph = Graph(2, 3)
    inner = graph.op("Exp", "features")
    model = graph.finish(graph.op("Mul", inner, inner), 6)
    gradient = differentiate(model, wrt=["features"], also={inner: "slope"}, forward={inner: "value"})
    assert names(gradient.graph.outputs) == ["gradient", "slope", "value"]
    random = np.random.default_rng(0)
    features, seeds = (random.normal(size=shape).astype(np.float32) for shape in ((1, 2, 3), (3, 4)))
    by_features, slope, value = quiet_session(gradient).run(None, {"seed": seeds, "features": features})
    assert np.allclose(value, np.exp(features), rtol=1e-6)
    assert np.allclose(slope * value, by_features, rtol=1e-5, atol=1e-6)


def test_the_image_is_an_input_where_the_logits_depend_on_it_besides() -> None:
    graph = Graph(2, 3)
    cut = graph.op("Sin", "features")
    model = graph.finish(graph.op("Mul", cut, graph.op("Exp", "features")), 6)
    gradient = differentiate(model, wrt=[cut])
    assert gradient.graph.inputs[1].name == "features"
    assert len(gradient.graph.inputs) == 3


def test_a_batch_size_that_comes_from_the_image_comes_from_the_layer() -> None:
    graph = Graph(2, 3)
    cut = graph.op("Sin", "features")
    token = graph.op("Expand", graph.weight(1, 1, 3), graph.op("Concat", graph.batch(), graph.integers(1, 3), axis=0))
    model = graph.finish(graph.op("Concat", token, graph.op("Tanh", cut), axis=1), 9)
    gradient = differentiate(model, wrt=[cut])
    assert names(gradient.graph.inputs) == ["seed", "features"]
    features = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
    seeds = np.eye(4, dtype=np.float32)[:3]
    for rows in (features[:1], features):
        (found,) = quiet_session(gradient).run(None, {"seed": seeds, "features": np.sin(rows)})
        assert found.shape == features.shape
        by_image = differences(Float64Graph(model), rows, seeds)
        assert np.abs(found * np.cos(rows) - by_image).max() < TOLERANCE * np.abs(by_image).max()


@pytest.mark.slow
def test_a_head_that_reads_one_token_computes_that_token_alone() -> None:
    """One block with a class token: queries and the rest of the block are of one token, keys and values of all."""
    graph = Graph(5, 4)
    normal = graph.op("LayerNormalization", "features", graph.weight(4), graph.weight(4), axis=-1)
    queries, keys, values = (graph.op("MatMul", normal, graph.weight(4, 4)) for _ in range(3))
    scores = graph.op("Softmax", graph.op("MatMul", queries, graph.op("Transpose", keys, perm=[0, 2, 1])), axis=-1)
    tokens = graph.op("Add", "features", graph.op("MatMul", scores, values))
    inner = graph.op("Gelu", graph.op("Add", graph.op("MatMul", tokens, graph.weight(4, 6)), graph.weight(6)))
    tokens = graph.op("Add", tokens, graph.op("MatMul", inner, graph.weight(6, 4)))
    tokens = graph.op("LayerNormalization", tokens, graph.weight(4), graph.weight(4), axis=-1)
    model = graph.finish(graph.op("Gather", tokens, graph.constant(np.array(0)), axis=1), 4)
    assert max(error(model)) < TOLERANCE
    gradient = differentiate(model, wrt=["features"])
    shapes = {
        node.outputs[0].name: shape
        for node, shape in zip(gradient.graph, _shapes(gradient, (1, 5, 4)), strict=True)
        if node.op_type == "Gelu"
    }
    assert set(shapes.values()) <= {(1, 1, 6)}
    products = [
        shape
        for node, shape in zip(gradient.graph, _shapes(gradient, (1, 5, 4)), strict=True)
        if node.op_type == "Softmax"
    ]
    assert products == [(1, 1, 5)]


def _shapes(gradient: ir.Model, features: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Of what each node gives, for one seed."""
    copy = gradient.clone()
    copy.graph.outputs[:] = [node.outputs[0] for node in copy.graph]
    feeds = {"seed": np.ones((1, 4), np.float32), "features": np.ones(features, np.float32)}
    return [array.shape for array in quiet_session(copy).run(None, feeds)]


def test_tokens_in_front_of_the_batch_are_no_images() -> None:
    """[N,T,C] -> [T,N,C] -> [T N,C] and back, as PyTorch's own attention goes, and one token is read behind it."""
    graph = Graph(5, 4)
    rows = graph.op("Reshape", graph.op("Transpose", "features", perm=[1, 0, 2]), graph.integers(-1, 4))
    rows = graph.op("Exp", graph.op("Gemm", rows, graph.weight(4, 4), graph.weight(4)))
    tokens = graph.op("Transpose", graph.op("Reshape", rows, graph.integers(5, -1, 4)), perm=[1, 0, 2])
    model = graph.finish(graph.op("Gather", tokens, graph.constant(np.array(1)), axis=1), 4)
    assert max(error(model)) < TOLERANCE


def test_a_token_that_others_read_too_is_computed_with_the_others() -> None:
    graph = Graph(5, 4)
    tokens = graph.op("Tanh", graph.op("MatMul", "features", graph.weight(4, 4)))
    first = graph.op("Gather", tokens, graph.integers(0), axis=1)
    rest = graph.op("ReduceMean", tokens, graph.integers(1), keepdims=1)
    assert max(error(graph.finish(graph.op("Mul", first, rest), 4))) < TOLERANCE


def test_ranges_move_through_what_tokens_go_through() -> None:
    graph = Graph(4, 6)
    heads = graph.op("Transpose", graph.op("Reshape", "features", graph.integers(-1, 4, 2, 3)), perm=[0, 2, 1, 3])
    both = graph.op("Concat", heads, graph.op("Exp", heads), axis=3)
    joined = graph.op("Reshape", graph.op("Transpose", both, perm=[0, 2, 1, 3]), graph.integers(-1, 4, 12))
    place = graph.op("Add", joined, graph.weight(1, 4, 12))
    scaled = graph.op("Mul", place, graph.weight(4, 1))
    mixed = graph.op(
        "Softmax", graph.op("Where", graph.op("Greater", place, graph.constant(0.0)), scaled, place), axis=2
    )
    picked = graph.op("Slice", mixed, graph.integers(1), graph.integers(3), graph.integers(1))
    assert max(error(graph.finish(picked, 24))) < TOLERANCE


def test_a_flat_view_by_strides_is_no_more_than_a_view() -> None:
    """PyTorch takes some views as a gather of all elements whose places it computes from the batch size."""
    graph = Graph(3, 2)
    flat = graph.op("Reshape", graph.op("Exp", "features"), graph.integers(-1))
    zero, one = graph.constant(np.array(0)), graph.constant(np.array(1))
    count = graph.op("Squeeze", graph.batch())
    starts = graph.op("Mul", graph.op("Range", zero, count, one), graph.constant(np.array(6)))
    places = graph.op("Add", graph.op("Unsqueeze", starts, graph.integers(1)), graph.constant(np.arange(6)[None]))
    assert max(error(graph.finish(graph.op("Gather", flat, places), 6))) < TOLERANCE


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [("ArgMax", {"axis": 1, "keepdims": 1}), ("Round", {}), ("Sign", {}), ("Cast", {"to": 7})],
)
def test_an_operator_without_a_derivative_is_named(op_type: str, attributes: dict[str, int]) -> None:
    graph = Graph(2, 3)
    value = graph.op(op_type, graph.op("Exp", "features"), **attributes)
    model = graph.finish(graph.op("Cast", value, to=1), 3 if op_type == "ArgMax" else 6)
    with pytest.raises(
        NoDerivativeError, match=f"its operator {op_type} \\(node 'node 1'\\) has no derivative"
    ) as raised:
        differentiate(model, wrt=["features"])
    assert raised.value.reason in str(raised.value)


@pytest.mark.parametrize(
    ("op_type", "domain"), [("GridSample", ""), ("Det", ""), ("NhwcMaxPool", "com.microsoft"), ("Own", "my.own")]
)
def test_an_operator_without_a_rule_is_named(op_type: str, domain: str) -> None:
    graph = Graph(3, 3)
    value = graph.op(op_type, graph.op("Exp", "features"), domain=domain)
    with pytest.raises(NoDerivativeError, match=op_type):
        differentiate(graph.finish(value, 9), wrt=["features"])


def test_a_path_of_whole_numbers_beside_a_smooth_one_adds_nothing() -> None:
    graph = Graph(2, 3)
    steps = graph.op("Floor", graph.op("Mul", "features", graph.constant(3.0)))
    assert max(error(graph.finish(graph.op("Mul", graph.op("Exp", "features"), steps), 6))) < TOLERANCE


def test_logits_that_do_not_depend_on_the_layer_have_no_derivative() -> None:
    graph = Graph(2, 3)
    unused = graph.op("Exp", "features")
    model = graph.finish(graph.op("Sin", "features"), 6)
    with pytest.raises(NoDerivativeError, match=f"'logits' does not depend on '{unused}'"):
        differentiate(model, wrt=[unused])


def test_of_several_layers_one_that_a_flat_operator_cuts_off_is_named() -> None:
    graph = Graph(5)
    flat, smooth = graph.op("Exp", "features"), graph.op("Sin", "features")
    model = graph.finish(graph.op("Add", graph.op("Floor", flat), smooth), 5)
    with pytest.raises(NoDerivativeError, match=r"its operator Floor \(node 'node 2'\) has no derivative"):
        differentiate(model, wrt=[smooth, flat])


@pytest.mark.parametrize("operator", ["Sqrt", "ReduceL2"])
def test_a_root_of_zero_has_a_finite_gradient(operator: str) -> None:
    """As PyTorch's norm and deviation of a channel that is 0 everywhere: the others keep their gradients."""
    graph = Graph(2, 3)
    if operator == "ReduceL2":
        value = graph.op("ReduceL2", "features", graph.integers(2), keepdims=0)
    else:
        value = graph.op("Sqrt", graph.op("ReduceSumSquare", "features", graph.integers(2), keepdims=0))
    model = graph.finish(value, 2)
    features = np.array([[[0, 0, 0], [1, 2, 2]]], np.float32)
    (found,) = gradients(model, features, np.eye(4, dtype=np.float32)[:1])
    np.testing.assert_array_equal(found[0, 0], 0)
    assert np.abs(found[0, 1]).min() > 0
    assert np.isfinite(found).all()


def test_a_gradient_graph_with_a_maximum_pool_runs_in_float64() -> None:
    """There the places of the maxima are an output of the pool."""
    graph = Graph(3, 7, 8)
    options = {"kernel_shape": [3, 2], "strides": [2, 2], "dilations": [2, 1], "pads": [1, 1, 0, 1], "ceil_mode": 1}
    value = graph.op("MaxPool", graph.op("Relu", "features"), **options)
    model = graph.finish(value, graph.elements(value))
    random = np.random.default_rng(0)
    features, seeds = (random.normal(size=size).astype(np.float32) for size in ((3, 3, 7, 8), (3, 4)))
    (found,) = gradients(model, features, seeds)
    exact = Float64Graph(differentiate(model, wrt=["features"]))
    (expected,) = exact.run({"seed": seeds, "features": features})
    assert expected.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_tensor_that_is_not_there_is_named() -> None:
    graph = Graph(2, 3)
    with pytest.raises(ValueError, match="no tensor of the graph is called 'elsewhere'"):
        differentiate(graph.finish("features", 6), wrt=["elsewhere"])


def test_names_that_the_graph_has_already_are_kept_apart() -> None:
    """A tensor called seed, or gradient, or features: each output is still what its name says."""
    graph = Graph(2, 3)
    model = graph.finish(graph.op("Exp", graph.op("Sin", "features")), 6)
    expected = gradients(model, np.ones((1, 2, 3), np.float32), np.eye(4, dtype=np.float32))[0]
    taken = iter(("seed", "gradient", "features_1", "ortcam_constant"))
    for node in model.graph:
        if node.outputs[0].name != "logits" and (name := next(taken, None)):
            node.outputs[0].name = name
    found = gradients(model, np.ones((1, 2, 3), np.float32), np.eye(4, dtype=np.float32))[0]
    assert np.array_equal(found, expected)
