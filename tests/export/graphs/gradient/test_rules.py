"""The rule of every operator, against central differences in float64: one image for all seeds, and row by row."""

import numpy as np
import pytest
from tests.export.graphs.gradient.exactness import Cases, Graph, error

# float32 sums of up to a few hundred terms, tanh and differences: a wrong rule is off by 1e-2 or more.
TOLERANCE = 3e-5

CASES = Cases()
case = CASES.case


def unary(op_type: str, *, name: str | None = None, shift: float = 0.0, **attributes: object) -> None:
    """A function of each element, of normal numbers squeezed to (-1,1) and shifted."""

    def build(g: Graph) -> str:
        x = g.op("Mul", "features", g.constant(1.3))
        if shift:
            x = g.op("Add", g.op("Tanh", x), g.constant(shift))
        return str(g.op(op_type, x, **attributes))

    case(name or op_type, 2, 3)(build)


for plain in (
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSwish", "HardSigmoid", "Mish", "Gelu"),
    *("Sigmoid", "Tanh", "Erf", "Exp", "Neg", "Abs", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Identity"),
):
    unary(plain)
for positive in ("Log", "Sqrt", "Reciprocal"):
    unary(positive, shift=1.5)
unary("Acosh", shift=2.5)
for small in ("Asin", "Acos", "Atanh", "Tan"):
    case(small, 2, 3)(lambda g, small=small: g.op(small, g.op("Mul", g.op("Tanh", "features"), g.constant(0.8))))
unary("LeakyRelu", name="leaky by 0.3", alpha=0.3)
unary("Elu", name="elu by 0.6", alpha=0.6)
unary("Celu", name="celu by 0.6", alpha=0.6)
unary("HardSigmoid", name="hard sigmoid of keras", alpha=0.3, beta=0.4)
unary("Gelu", name="gelu by tanh", approximate="tanh")
unary("ThresholdedRelu", alpha=0.4)
unary("Shrink", lambd=0.4, bias=0.1)
case("clip", 2, 3)(lambda g: g.op("Clip", "features", g.constant(-0.4), g.constant(0.7)))
case("clip from below", 2, 3)(lambda g: g.op("Clip", "features", g.constant(-0.4)))
case("prelu", 3, 2)(lambda g: g.op("PRelu", "features", g.weight(3, 1)))
case("prelu by the features", 3, 2)(lambda g: g.op("PRelu", g.op("Sin", "features"), "features"))
case("cast to float64 and back", 2, 3)(lambda g: g.op("Cast", g.op("Exp", g.op("Cast", "features", to=11)), to=1))

# Of two tensors, and with what is broadcast.
for binary in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
    case(f"{binary} of two", 2, 3)(
        lambda g, binary=binary: g.op(binary, g.op("Sin", "features"), g.op("Exp", "features"))
    )
    case(f"{binary} of constants", 2, 3)(
        lambda g, binary=binary: g.op(binary, g.op("Reshape", "features", g.integers(-1, 1, 2, 3)), g.weight(4, 1, 1))
    )
    case(f"{binary} by constants", 2, 3)(lambda g, binary=binary: g.op(binary, g.weight(3), g.op("Exp", "features")))
    case(f"{binary} of a thin one", 2, 3)(
        lambda g, binary=binary: g.op(
            binary, g.op("ReduceMean", "features", g.integers(2), keepdims=1), g.op("Exp", "features")
        )
    )
case("squares", 2, 3)(lambda g: g.op("Mul", "features", "features"))
case("three summed", 2, 3)(lambda g: g.op("Sum", "features", g.op("Sin", "features"), g.op("Exp", "features")))
case("mean of three", 2, 3)(lambda g: g.op("Mean", "features", g.op("Sin", "features"), g.weight(3)))
case("greatest of three", 2, 3)(lambda g: g.op("Max", "features", g.op("Sin", "features"), g.weight(3)))
for power in (2.0, 3.0, 0.5, -1.0, 1.0):
    case(f"power {power}", 2, 3)(lambda g, power=power: g.op("Pow", g.op("Exp", "features"), g.constant(power)))
case("powers", 2, 3)(lambda g: g.op("Pow", g.op("Exp", "features"), g.weight(3)))
for name in ("Gelu", "QuickGelu", "FastGelu"):
    case(f"{name} of ONNX Runtime", 2, 3)(lambda g, name=name: g.op(name, "features", domain="com.microsoft"))
for name in ("BiasGelu", "FastGelu"):
    case(f"{name} of a sum", 2, 3)(lambda g, name=name: g.op(name, "features", g.weight(3), domain="com.microsoft"))
case("powers that are whole numbers", 2, 3)(lambda g: g.op("Pow", "features", g.integers(1, 2, 3)))
case("power of features", 2, 3)(lambda g: g.op("Pow", g.constant(1.7), "features"))
case("where by the features", 2, 3)(
    lambda g: g.op("Where", g.op("Greater", "features", g.constant(0.1)), g.op("Exp", "features"), g.weight(3))
)
case("where by constants", 2, 3)(
    lambda g: g.op("Where", g.constant(np.array([True, False, True])), g.weight(1), g.op("Exp", "features"))
)

# Products.
case("matmul", 5, 3)(lambda g: g.op("MatMul", "features", g.weight(3, 4)))
case("matmul from the left", 5, 3)(lambda g: g.op("MatMul", g.weight(4, 5), "features"))
case("matmul of two", 5, 3)(
    lambda g: g.op("MatMul", "features", g.op("Transpose", g.op("Sin", "features"), perm=[0, 2, 1]))
)
case("matmul broadcast", 2, 5, 3)(lambda g: g.op("MatMul", "features", g.weight(2, 3, 4)))
case("matmul of one row of matrices", 5, 3)(
    lambda g: g.op("MatMul", g.op("Unsqueeze", "features", g.integers(1)), g.weight(3, 3, 4))
)
case("matmul by a vector", 5, 3)(lambda g: g.op("MatMul", "features", g.weight(3)))
case("vector by matmul", 5, 3)(lambda g: g.op("MatMul", g.weight(5), "features"))
for turned in (0, 1):
    case(f"gemm {turned}", 6)(
        lambda g, turned=turned: g.op(
            "Gemm", "features", g.weight(*((4, 6) if turned else (6, 4))), g.weight(4), transB=turned, alpha=0.7
        )
    )
    case(f"gemm turned {turned}", 6)(
        lambda g, turned=turned: g.op(
            "Gemm",
            g.op("Transpose", "features", perm=[1, 0]),
            g.weight(*((4, 6) if turned else (6, 4))),
            transA=1,
            transB=turned,
        )
    )
case("gemm with addend", 6)(
    lambda g: g.op("Gemm", "features", g.weight(6, 4), g.op("MatMul", "features", g.weight(6, 4)), beta=0.3)
)
for equation, sides in {
    "nab,bc->nac": (3, 4),
    "bc,nab->nca": (3, 4),
    "nab,bc->n": (3, 4),
    "...b,bc->...c": (3, 4),
    "nab,c->nc": (2,),
    "abc,bd": (5, 4),
}.items():
    order = (lambda x, w: (w, x)) if equation.startswith("bc") else (lambda x, w: (x, w))
    case(f"einsum {equation}", 5, 3)(
        lambda g, equation=equation, sides=sides, order=order: g.op(
            "Einsum", *order("features", g.weight(*sides)), equation=equation
        )
    )
case("einsum of two", 5, 3)(lambda g: g.op("Einsum", "features", g.op("Exp", "features"), equation="nab,ncb->nac"))
case("einsum to the right", 5, 3)(
    lambda g: g.op("Einsum", "features", g.op("Exp", "features"), equation="nab,ncb->nca")
)


@pytest.mark.sample(every=20)
@pytest.mark.whole
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_what_differences_say(name: str) -> None:
    one, rows = error(CASES[name]())
    assert max(one, rows) < TOLERANCE
