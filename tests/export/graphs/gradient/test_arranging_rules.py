"""The rules of reductions and of operators that arrange and pick elements, against central differences in float64."""

from typing import Any

import numpy as np
import pytest
from tests.export.graphs.gradient.exactness import Cases, Graph, error

TOLERANCE = 3e-5  # float32 sums of a few dozen terms; a wrong rule is off by 1e-2 or more

CASES = Cases()
case = CASES.case


def simple(name: str, op_type: str, *inputs: Any, shape: tuple[int, ...] = (3, 4), **attributes: Any) -> None:
    """One operator on the features and on constants; lists are int64."""

    def build(g: Graph) -> str:
        others = [g.integers(*item) if isinstance(item, list) else g.constant(item) for item in inputs]
        return str(g.op(op_type, "features", *others, **attributes))

    case(name, *shape)(build)


for kind in ("Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp", "Prod"):
    simple(f"Reduce{kind}", f"Reduce{kind}", [2])
    simple(f"Reduce{kind} of all", f"Reduce{kind}", [1, -1], keepdims=0)
case("ReduceLogSum", 3, 4)(lambda g: g.op("ReduceLogSum", g.op("Exp", "features"), g.integers(1), keepdims=0))
simple("ReduceSum of nothing", "ReduceSum", [], noop_with_empty_axes=1)
case("ReduceMean of what is gated", 3, 4)(lambda g: g.op("ReduceMean", g.op("Relu", "features"), g.integers(2)))
for axis in (1, -1):
    simple(f"Softmax {axis}", "Softmax", axis=axis)
    simple(f"LogSoftmax {axis}", "LogSoftmax", axis=axis)
for exclusive in (0, 1):
    for reverse in (0, 1):
        case(f"CumSum {exclusive}{reverse}", 3, 4)(
            lambda g, exclusive=exclusive, reverse=reverse: g.op(
                "CumSum", "features", g.constant(np.array(2)), exclusive=exclusive, reverse=reverse
            )
        )

simple("Reshape", "Reshape", [-1, 4, 3])
simple("Reshape with zero", "Reshape", [0, 2, -1])
simple("Flatten", "Flatten", shape=(2, 3, 2))
simple("Squeeze", "Squeeze", [2], shape=(3, 1, 2))
simple("Unsqueeze", "Unsqueeze", [1, 3])
simple("Transpose", "Transpose", shape=(2, 3, 2), perm=[0, 3, 1, 2])
case("Transpose with the batch behind", 3, 4)(
    lambda g: g.op(
        "Transpose", g.op("Mul", g.op("Transpose", "features", perm=[1, 0, 2]), g.weight(3, 1, 4)), perm=[1, 0, 2]
    )
)
case("Concat", 3, 4)(lambda g: g.op("Concat", "features", g.op("Exp", "features"), axis=1))
case("Concat with a constant", 3, 4)(
    lambda g: g.op(
        "Concat",
        g.op("Expand", g.weight(1, 1, 4), g.op("Concat", g.batch(), g.integers(1, 1), axis=0)),
        "features",
        axis=1,
    )
)


@case("Split", 3, 7)
def _(g: Graph) -> str:
    one, two, three = g.op("Split", "features", g.integers(2, 2, 3), axis=2, outputs=3)
    return str(g.op("Concat", g.op("Exp", three), g.op("Mul", one, two), axis=-1))


@case("Split, of which one part is used", 3, 7)
def _(g: Graph) -> str:
    return str(g.op("Split", "features", g.integers(2, 2, 3), axis=2, outputs=3)[1])


@case("Split, of which the middle part is not used", 3, 6)
def _(g: Graph) -> str:
    one, _, three = g.op("Split", "features", axis=-1, num_outputs=3, outputs=3)
    return str(g.op("Mul", one, three))


@case("Split of tokens in front of the batch", 4, 6)
def _(g: Graph) -> str:
    """ONNX Runtime moves the Transpose over the Pad that the adjoint becomes."""
    first, _ = g.op("Split", g.op("Transpose", "features", perm=[1, 0, 2]), axis=0, num_outputs=2, outputs=2)
    return str(g.op("Transpose", first, perm=[1, 0, 2]))


case("Expand", 3, 1)(lambda g: g.op("Expand", "features", g.integers(1, 1, 4)))
case("Expand to more dimensions", 3, 2)(
    lambda g: g.op("Transpose", g.op("Expand", "features", g.integers(5, 1, 3, 2)), perm=[1, 0, 2, 3])
)
simple("Tile", "Tile", [1, 2, 3])
simple("Tile of one axis", "Tile", [1, 1, 3])
for mode in ("DCR", "CRD"):
    simple(f"DepthToSpace {mode}", "DepthToSpace", shape=(8, 2, 3), blocksize=2, mode=mode)
simple("SpaceToDepth", "SpaceToDepth", shape=(2, 4, 6), blocksize=2)

simple("Slice", "Slice", [1], [3], [2])
simple("Slice from the end", "Slice", [-3], [-1], [2])
simple("Slice backwards", "Slice", [-1], [-100], [2], [-1])
simple("Slice backwards by two", "Slice", [3], [0], [2], [-2])
simple("Slice by two", "Slice", [1], [9], [-1], [2], shape=(3, 6))
simple("Slice of two axes", "Slice", [0, 1], [100, -1], [1, 2], [2, 1])
simple("Slice of all axes", "Slice", [0, 1, 1], [2**40, 3, 4])
simple("Gather one", "Gather", np.array(0), axis=1)
simple("Gather the last", "Gather", np.array(-1), axis=2)
simple("Gather in another order", "Gather", [2, 0, 1], axis=1)
simple("Gather some", "Gather", [3, 1], axis=2)
simple("Gather twice the same", "Gather", [1, 1, 0, 3], axis=2)
simple("Gather a table", "Gather", np.array([[0, 1], [2, 3]]), axis=2)
case("GatherND along two axes, as of an adaptive pool", 3, 4, 5)(
    lambda g: g.op(
        "Transpose",
        g.op(
            "GatherND",
            g.op("Transpose", "features", perm=[2, 3, 0, 1]),
            g.constant(np.array([[[0, 0], [0, -1], [3, 2]], [[1, 2], [0, 0], [3, 4]]])),
        ),
        perm=[2, 0, 1, 3],
    )
)
case("GatherElements of a long axis", 70, 2)(
    lambda g: g.op("GatherElements", "features", g.op("ArgMax", "features", axis=1), axis=1)
)
simple("Trilu", "Trilu", shape=(3, 4), upper=0)
case("TopK", 3, 5)(lambda g: g.op("TopK", "features", g.integers(2), axis=-1, outputs=2)[0])
case("GatherElements", 3, 4)(
    lambda g: g.op(
        "GatherElements",
        "features",
        g.op(
            "Expand",
            g.constant(np.array([[[0, 0], [1, 2], [3, 3]]])),
            g.op("Concat", g.batch(), g.integers(1, 1), axis=0),
        ),
        axis=2,
    )
)
case("GatherElements by the largest", 3, 4)(
    lambda g: g.op("GatherElements", "features", g.op("ArgMax", "features", axis=2), axis=2)
)


@case("heads joined with the batch", 3, 4)
def _(g: Graph) -> str:
    """[N,T,2 d] -> [N 2,T,d] and back, with a product, a softmax and a function of each element within."""
    heads = g.op("Transpose", g.op("Reshape", "features", g.integers(-1, 3, 2, 2)), perm=[0, 2, 1, 3])
    rows = g.op("Reshape", heads, g.integers(-1, 3, 2))
    scores = g.op("Softmax", g.op("MatMul", rows, g.op("Transpose", rows, perm=[0, 2, 1])), axis=-1)
    mixed = g.op("Sigmoid", g.op("MatMul", scores, rows))
    return str(g.op("Reshape", mixed, g.integers(-1, 2, 3, 2)))


@case("tokens first, heads joined with the batch behind it", 3, 4)
def _(g: Graph) -> str:
    """[N,T,2 d] -> [T,N 2,d] -> [N 2,T,d], as PyTorch's own attention has it."""
    tokens = g.op("Transpose", "features", perm=[1, 0, 2])
    rows = g.op("Transpose", g.op("Reshape", tokens, g.integers(3, -1, 2)), perm=[1, 0, 2])
    scores = g.op("Softmax", g.op("MatMul", rows, g.op("Transpose", rows, perm=[0, 2, 1])), axis=-1)
    mixed = g.op("Transpose", g.op("MatMul", scores, g.op("Exp", rows)), perm=[1, 0, 2])
    joined = g.op("Reshape", mixed, g.integers(3, -1, 4))
    return str(g.op("Transpose", joined, perm=[1, 0, 2]))


@case("images joined with tokens that lie in front", 3, 4)
def _(g: Graph) -> str:
    """[N,T,d] -> [T N,d] and back."""
    rows = g.op("Reshape", g.op("Transpose", "features", perm=[1, 0, 2]), g.integers(-1, 4))
    mixed = g.op("Tanh", g.op("Gemm", rows, g.weight(4, 4), g.weight(4)))
    return str(g.op("Transpose", g.op("Reshape", mixed, g.integers(3, -1, 4)), perm=[1, 0, 2]))


@case("windows", 4, 6, 2)
def _(g: Graph) -> str:
    """Channels last in windows of 2 x 3, [N 4,6,C], with a term per window, as Swin's mask is."""
    opened = g.op("Reshape", "features", g.integers(-1, 2, 2, 2, 3, 2))
    rows = g.op("Reshape", g.op("Transpose", opened, perm=[0, 1, 3, 2, 4, 5]), g.integers(-1, 6, 2))
    scores = g.op("MatMul", rows, g.op("Transpose", rows, perm=[0, 2, 1]))
    masked = g.op("Add", g.op("Reshape", scores, g.integers(-1, 4, 6, 6)), g.weight(4, 6, 6))
    return str(g.op("MatMul", g.op("Softmax", g.op("Reshape", masked, g.integers(-1, 6, 6)), axis=-1), rows))


@case("rolled", 4, 3)
def _(g: Graph) -> str:
    front = g.op("Slice", "features", g.integers(0), g.integers(1), g.integers(1))
    rest = g.op("Slice", "features", g.integers(1), g.integers(2**31), g.integers(1))
    return str(g.op("Concat", rest, front, axis=1))


@case("attention of opset 23", 2, 3, 4, opset=23)
def _(g: Graph) -> str:
    return str(g.op("Attention", "features", g.op("Exp", "features"), g.op("Sin", "features"), scale=0.7))


@case("attention of opset 23 in three dimensions", 3, 4, opset=23)
def _(g: Graph) -> str:
    operands = "features", g.op("Exp", "features"), g.op("Sin", "features")
    return str(g.op("Attention", *operands, q_num_heads=2, kv_num_heads=2))


@case("attention in a model of a later opset than its definition", 2, 3, 4, opset=24)
def _(g: Graph) -> str:
    return str(g.op("Attention", "features", g.op("Exp", "features"), g.op("Sin", "features"), scale=0.7))


@case("scatter of updates", 3, 4)
def _(g: Graph) -> str:
    turned = g.op("Transpose", "features", perm=[1, 0, 2])
    updates = g.op("Slice", g.op("Exp", turned), g.integers(1), g.integers(2), g.integers(0))
    put = g.op("ScatterND", turned, g.constant(np.array([[2]])), updates)
    return str(g.op("Transpose", put, perm=[1, 0, 2]))


@pytest.mark.sample(every=28)
@pytest.mark.whole
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_what_differences_say(name: str) -> None:
    one, rows = error(CASES[name]())
    assert max(one, rows) < TOLERANCE
