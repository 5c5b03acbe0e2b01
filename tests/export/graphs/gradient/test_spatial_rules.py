"""The rules of convolutions, pools, resizing, padding and normalisations, against central differences in float64."""

import numpy as np
import pytest
from tests.export.graphs.gradient.exactness import Cases, Graph, error, gradients

TOLERANCE = 3e-5  # float32 sums of a few hundred terms; a wrong rule is off by 1e-2 or more

CASES = Cases()
case = CASES.case


def conv(
    name: str, shape: tuple[int, ...], weight: tuple[int, ...], op_type: str = "Conv", **attributes: object
) -> None:
    case(name, *shape)(lambda g: g.op(op_type, "features", g.weight(*weight), **attributes))


conv("conv 1x1", (3, 4, 5), (2, 3, 1, 1))
conv("conv 1x1 with stride", (3, 4, 5), (2, 3, 1, 1), strides=[2, 2])
conv("conv 3x3", (2, 4, 5), (3, 2, 3, 3), pads=[1, 1, 1, 1])
conv("conv 3x3 without padding", (2, 4, 5), (3, 2, 3, 3))
conv("conv 3x2 padded on one side", (2, 4, 5), (3, 2, 3, 2), pads=[0, 1, 2, 0])
conv("conv padded by more than the kernel", (2, 3, 3), (2, 2, 2, 2), pads=[3, 0, 0, 3])
conv("conv with stride", (2, 5, 6), (3, 2, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
conv("conv with stride that leaves a rest", (2, 6, 6), (3, 2, 3, 2), strides=[3, 4])
conv("conv dilated", (2, 6, 7), (3, 2, 3, 2), pads=[2, 1, 2, 1], dilations=[2, 3])
conv("conv dilated with stride", (2, 6, 7), (3, 2, 3, 2), pads=[2, 1, 2, 1], dilations=[2, 1], strides=[2, 1])
conv("conv same upper", (2, 5, 6), (3, 2, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2])
conv("conv same lower", (2, 5, 6), (3, 2, 2, 3), auto_pad="SAME_LOWER")
conv("conv valid", (2, 5, 6), (3, 2, 2, 3), auto_pad="VALID")
conv("conv in groups", (4, 4, 5), (6, 2, 3, 3), group=2, pads=[1, 1, 1, 1])
conv("conv in groups with stride", (4, 4, 5), (6, 2, 3, 3), group=2, pads=[1, 1, 1, 1], strides=[2, 2])
conv("conv per channel", (3, 5, 5), (3, 1, 3, 3), group=3, pads=[1, 1, 1, 1])
conv("conv per channel, twice as many", (3, 5, 5), (6, 1, 3, 3), group=3, pads=[1, 1, 1, 1])
conv("conv per channel with stride", (3, 5, 6), (3, 1, 3, 3), group=3, pads=[1, 1, 1, 1], strides=[2, 2])
conv("conv 1x1 in groups", (4, 3, 3), (6, 2, 1, 1), group=2)
conv("conv in one dimension", (2, 7), (3, 2, 3), strides=[2])
conv("conv in three dimensions", (2, 3, 3, 4), (2, 2, 2, 2, 3), pads=[1, 0, 0, 0, 0, 1])
conv("transposed conv", (3, 3, 4), (3, 2, 3, 3), "ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1])
conv("transposed conv with rest", (3, 3, 4), (3, 2, 3, 3), "ConvTranspose", strides=[2, 2], output_padding=[1, 1])
conv("transposed conv in groups", (4, 3, 3), (4, 2, 2, 2), "ConvTranspose", group=2, strides=[2, 2])
conv("transposed conv to a shape", (2, 3, 3), (2, 2, 3, 3), "ConvTranspose", strides=[2, 2], output_shape=[6, 5])
conv("transposed conv same", (2, 3, 3), (2, 2, 3, 3), "ConvTranspose", strides=[2, 2], auto_pad="SAME_UPPER")
conv("transposed conv dilated", (2, 3, 3), (2, 2, 2, 2), "ConvTranspose", dilations=[2, 2], pads=[0, 1, 1, 0])


def pool(name: str, shape: tuple[int, ...], op_type: str, *, opset: int = 20, **attributes: object) -> None:
    case(name, *shape, opset=opset)(lambda g: g.op(op_type, "features", **attributes))


for kind in ("MaxPool", "AveragePool"):
    pool(f"{kind} of halves", (2, 4, 6), kind, kernel_shape=[2, 2], strides=[2, 2])
    pool(f"{kind} that overlaps", (2, 5, 6), kind, kernel_shape=[3, 3], strides=[2, 2])
    pool(f"{kind} padded", (2, 5, 6), kind, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    pool(f"{kind} padded on one side", (2, 5, 6), kind, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    pool(f"{kind} to the ceiling", (2, 5, 6), kind, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    pool(
        f"{kind} to the ceiling, padded",
        (2, 6, 6),
        kind,
        kernel_shape=[3, 3],
        strides=[2, 2],
        ceil_mode=1,
        pads=[1] * 4,
    )
    pool(f"{kind} same", (2, 5, 6), kind, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    pool(f"{kind} same lower", (2, 5, 6), kind, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER")
    pool(f"{kind} of all", (2, 3, 4), kind, kernel_shape=[3, 4])
    pool(f"{kind} in one dimension", (2, 7), kind, kernel_shape=[3], strides=[2])
    pool(f"{kind} in three dimensions", (2, 3, 4, 4), kind, kernel_shape=[2, 2, 2], strides=[1, 2, 2])
pool("MaxPool dilated", (2, 6, 7), "MaxPool", kernel_shape=[2, 3], dilations=[2, 2])
pool("MaxPool dilated with stride", (2, 6, 7), "MaxPool", kernel_shape=[2, 3], dilations=[2, 1], strides=[3, 2])
pool(
    "AveragePool with padding counted", (2, 5, 6), "AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
)
pool(
    "AveragePool with padding counted, to the ceiling",
    (2, 5, 6),
    "AveragePool",
    kernel_shape=[3, 3],
    strides=[2, 2],
    pads=[1] * 4,
    count_include_pad=1,
    ceil_mode=1,
)
pool("AveragePool wider than the map", (2, 3, 3), "AveragePool", kernel_shape=[5, 5], pads=[2] * 4, count_include_pad=1)
case("large average", 1, 24, 26)(lambda g: g.op("AveragePool", "features", kernel_shape=[3, 3], strides=[1, 2]))
pool("GlobalAveragePool", (2, 3, 4), "GlobalAveragePool")
pool("GlobalMaxPool", (2, 3, 4), "GlobalMaxPool")
case("GlobalAveragePool of rectified ones", 2, 3, 4)(lambda g: g.op("GlobalAveragePool", g.op("Relu", "features")))

for size in (1, 3, 5):
    case(f"lrn of {size}", 6, 2, 2)(
        lambda g, size=size: g.op("LRN", "features", size=size, alpha=0.9, beta=0.75, bias=1.5)
    )


def resize(name: str, sizes: tuple[int, int], **attributes: object) -> None:
    case(f"resize {name}", 2, 3, 4)(
        lambda g: g.op(
            "Resize", "features", "", "", g.op("Concat", g.batch(), g.integers(2, *sizes), axis=0), **attributes
        )
    )


resize("nearest", (6, 8), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
resize("nearest by odd factors", (5, 7), mode="nearest")
resize("linear", (6, 7), mode="linear")
resize("linear down", (2, 3), mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
resize("linear, corners aligned", (6, 7), mode="linear", coordinate_transformation_mode="align_corners")
resize("cubic", (6, 7), mode="cubic", cubic_coeff_a=-0.5)
resize("antialiased", (2, 2), mode="linear", antialias=1)
case("resize by scales", 2, 3, 4)(
    lambda g: g.op("Resize", "features", "", g.constant([1.0, 1.0, 2.0, 3.0]), mode="linear")
)
case("resize of two axes", 2, 3, 4)(
    lambda g: g.op("Resize", "features", "", "", g.integers(5, 5), mode="linear", axes=[2, 3])
)
case("resize channels last", 3, 4, 2)(
    lambda g: g.op("Resize", "features", "", g.constant([1.0, 2.0, 2.0, 1.0]), mode="nearest")
)

for mode in ("reflect", "edge", "wrap"):
    case(f"pad by {mode}", 2, 3, 4)(
        lambda g, mode=mode: g.op("Pad", "features", g.integers(0, 0, 1, 2, 0, 0, 2, 1), mode=mode)
    )
case("pad by zeros", 2, 3, 4)(lambda g: g.op("Pad", "features", g.integers(0, 0, 1, 2, 0, 1, 2, 0)))
case("pad by a number", 2, 3, 4)(
    lambda g: g.op("Pad", "features", g.integers(1, 2, 0, 1), g.constant(0.7), g.integers(1, -1))
)
case("cut by padding", 2, 4, 4)(lambda g: g.op("Pad", "features", g.integers(0, 0, -1, 1, 0, 0, 0, -2)))

case("BatchNormalization", 3, 2, 2)(
    lambda g: g.op(
        "BatchNormalization",
        "features",
        g.weight(3),
        g.weight(3),
        g.weight(3),
        g.constant([0.5, 1.0, 2.0]),
        epsilon=1e-3,
    )
)
case("LayerNormalization", 3, 5)(
    lambda g: g.op("LayerNormalization", "features", g.weight(5), g.weight(5), epsilon=0.1)
)
case("LayerNormalization of two axes", 3, 5)(
    lambda g: g.op("LayerNormalization", "features", g.weight(3, 5), axis=1, epsilon=1e-6)
)
case("SimplifiedLayerNormalization", 3, 5)(
    lambda g: g.op("SimplifiedLayerNormalization", "features", g.weight(5), axis=-1)
)
case("RMSNormalization", 3, 5, opset=23)(lambda g: g.op("RMSNormalization", "features", g.weight(5), axis=-1))
case("InstanceNormalization", 3, 2, 4)(lambda g: g.op("InstanceNormalization", "features", g.weight(3), g.weight(3)))
case("GroupNormalization per group", 4, 2, 3, opset=20)(
    lambda g: g.op("GroupNormalization", "features", g.weight(2), g.weight(2), num_groups=2)
)
case("GroupNormalization", 4, 2, 3, opset=21)(
    lambda g: g.op("GroupNormalization", "features", g.weight(4), g.weight(4), num_groups=2)
)
case("LpNormalization", 3, 5)(lambda g: g.op("LpNormalization", "features", axis=-1))
case("LpNormalization by the sum", 3, 5)(lambda g: g.op("LpNormalization", "features", axis=1, p=1))


@pytest.mark.sample(every=22)
@pytest.mark.whole
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_what_differences_say(name: str) -> None:
    one, rows = error(CASES[name]())
    assert max(one, rows) < TOLERANCE


def test_of_equal_maxima_the_first_gets_the_gradient() -> None:
    graph = Graph(1, 2, 2)
    pooled = graph.op("MaxPool", "features", kernel_shape=[2, 2])
    model = graph.finish(pooled, 1)
    (found,) = gradients(model, np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 4), np.float32))
    assert np.flatnonzero(found).tolist() == [0]
