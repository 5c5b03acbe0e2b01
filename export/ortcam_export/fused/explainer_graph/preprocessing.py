"""From a decoded image to the model's input inside an ONNX graph: what `images.preprocessing` does, bit for bit.

Pillow's fixed-point weights are computed from the image's size, as a matrix of the model's input by the image, and
the two convolutions are products of integers: the weights of 22 bits in three digits of base 256, since MatMulInteger
takes bytes and sums them exactly. What lies outside the image has weight zero, which is the padding. Samples that keep
their depth are resampled in float64 by the same weights before they become fixed-point numbers.
"""

from typing import Final

import numpy as np
import onnx_ir as ir

from ortcam.images.preprocessing import PLANES, Preprocessing
from ortcam.images.resampling.pillow import PRECISION, SUPPORT
from ortcam_export.graphs.builder import Builder

__all__ = ["build_preprocessing"]

_DOUBLE, _INT64, _UINT8 = ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.UINT8
_ZERO_POINT: Final = 128  # of the highest digit, which has a sign
# How much red, green and blue weigh, in parts of 2 to this power: as Pillow's convert("L"), and as cv2.cvtColor.
_GREYS: Final = {"grey": ((19595, 38470, 7471), 16), "grey-opencv": ((9798, 19235, 3735), 15)}


def build_preprocessing(build: Builder, image: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    """Resize, crop and normalise an image: float32 [1,C,H,W].

    Args:
        build: of the graph.
        image: uint8 [h,w,3], RGB; or float32 [h,w,C] where the preprocessing `needs_samples`.
        preprocessing: of the model.
    """
    return _Preprocessing(build, preprocessing).build(image)


class _Preprocessing:
    """The nodes of a preprocessing."""

    def __init__(self, build: Builder, preprocessing: Preprocessing) -> None:
        self._build = build
        self._settings = preprocessing
        # As Python's: without antialiasing the image repeats its edge, for as many taps as the kernel reaches beyond.
        self._margin = 0 if preprocessing.antialias else SUPPORT[preprocessing.interpolation]

    def build(self, image: ir.Value) -> ir.Value:
        build, settings = self._build, self._settings
        height, width = (
            build.op("Shape", [image], {"start": axis, "end": axis + 1}) for axis in (0, 1)
        )  # int64 [1] each
        resized_height, resized_width = self._resized(height, width)
        if settings.needs_samples:
            return self._of_floats(image, (height, width), (resized_height, resized_width))
        rows = self._fixed(self._weights(height, resized_height, settings.height), height)
        columns = self._fixed(self._weights(width, resized_width, settings.width), width)
        planes = build.op("Transpose", [image], {"perm": [2, 0, 1]})
        if settings.channel_order in _GREYS:
            planes = self._grey(planes)
        if settings.antialias:
            crop = self._convolve(planes, rows, columns, (height, width), (resized_height, resized_width))
        else:
            crop = self._convolve_unrounded(planes, rows, columns)
        return self._normalize(crop)

    def _resized(self, height: ir.Value, width: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Sides of the image after resizing, int64 [1] each."""
        build, settings = self._build, self._settings
        if settings.resize is None:
            return build.integers(settings.height), build.integers(settings.width)
        short = build.integers(settings.resize)
        if not settings.keep_aspect:
            return short, short

        def long(side: ir.Value, other: ir.Value) -> ir.Value:
            product = self._double(build.op("Mul", [short, side]))
            return build.cast(build.op("Div", [product, self._double(other)]), _INT64)

        wide = build.op("LessOrEqual", [height, width])
        return (
            build.op("Where", [wide, short, long(height, width)]),
            build.op("Where", [wide, long(width, height), short]),
        )

    def _offset(self, resized: ir.Value, crop: int) -> ir.Value:
        """Where the crop begins on an axis, int64 [1]; negative where it begins with padding."""
        build = self._build
        apart = build.op("Sub", [resized, build.integers(crop)])
        half = build.op("Div", [apart, build.integers(2)])  # towards zero
        if self._settings.crop_rounding == "down":
            return half
        remainder = build.op("Sub", [apart, build.op("Add", [half, half])])
        odd = build.op("BitwiseAnd", [half, build.integers(1)])
        return build.op("Add", [half, build.op("Max", [build.op("Mul", [remainder, odd]), build.integers(0)])])

    def _weights(self, size: ir.Value, resized: ir.Value, crop: int) -> ir.Value:
        """Weights of an axis and of the taps beyond its ends: float64 [margin+size+margin,crop].

        They sum up to 1 for each column, and are zero where the crop is not of the image.
        """
        build, antialias = self._build, self._settings.antialias
        steps = build.op("Add", [build.constant(np.arange(crop).reshape(1, -1)), self._offset(resized, crop)])
        inside = build.op(
            "And",
            [
                build.op("GreaterOrEqual", [steps, build.integers(0)]),
                build.op("Less", [steps, resized]),
            ],
        )
        scale = build.op("Div", [self._double(size), self._double(resized)])
        one, half = self._number(1), self._number(0.5)
        stretch = build.op("Max", [scale, one]) if antialias else one
        support = build.op("Mul", [stretch, self._number(SUPPORT[self._settings.interpolation])])
        centre = build.op("Mul", [build.op("Add", [self._double(steps), half]), scale])
        first = build.op("Floor", [build.op("Add", [build.op("Sub", [centre, support]), half])])
        last = build.op("Floor", [build.op("Add", [build.op("Add", [centre, support]), half])])
        margin = self._margin
        begin, end = build.constant(np.int64(-margin)), build.op("Add", [build.reshape(size), self._integer(margin)])
        taps = self._double(build.reshape(build.op("Range", [begin, end, self._integer(1)]), -1, 1))
        reached = build.op("And", [build.op("GreaterOrEqual", [taps, first]), build.op("Less", [taps, last])])
        reached = build.op("And", [reached, inside])
        # In the order of Python's: the tap less the centre, plus a half, times the inverse of the stretch.
        apart = build.op("Add", [build.op("Sub", [taps, centre]), half])
        kernel = self._kernel(build.op("Mul", [apart, build.op("Div", [one, stretch])]))
        kernel = build.op("Where", [reached, kernel, self._number(0)])
        sums = build.op("CumSum", [kernel, self._integer(0)])  # adds in order, as Pillow does
        count = build.op("Shape", [sums], {"start": 0, "end": 1})
        total = build.slice(sums, build.op("Sub", [count, build.integers(1)]), count, 0)
        total = build.op("Where", [inside, total, one])
        return build.op("Div", [kernel, total])

    def _fixed(self, weights: ir.Value, size: ir.Value) -> ir.Value:
        """Fixed-point weights of an axis: int64 [size,crop]."""
        build = self._build
        shifted = build.op("Mul", [weights, self._number(1 << PRECISION)])
        rounded = build.op("Add", [shifted, build.op("Mul", [build.op("Sign", [shifted]), self._number(0.5)])])
        return self._folded(build.cast(rounded, _INT64), size)  # towards zero

    def _of_floats(
        self, image: ir.Value, size: tuple[ir.Value, ir.Value], resized: tuple[ir.Value, ir.Value]
    ) -> ir.Value:
        """The model's input of samples that keep their depth, float32 [h,w,C]: sums in float64, nothing rounded."""
        build, settings = self._build, self._settings
        assert settings.value_range is not None
        low, high = settings.value_range
        rows, columns = (
            self._folded(self._weights(before, after, crop), before)
            for before, after, crop in zip(size, resized, (settings.height, settings.width), strict=True)
        )
        if settings.channel_order == "bgr":
            image = build.op("Gather", [image, build.integers(*PLANES["bgr"])], {"axis": 2})
        planes = build.op("Transpose", [image], {"perm": [2, 0, 1]})
        narrow = build.op("MatMul", [self._double(planes), columns])  # [C,h,W]
        shown = self._along_height(narrow, rows)
        # What lies outside of the image is the low end of the range: 0, before mean and std.
        inside = build.op(
            "Mul",
            [
                build.reshape(build.op("ReduceSum", [rows, build.integers(0)], {"keepdims": 0}), 1, -1, 1),
                build.reshape(build.op("ReduceSum", [columns, build.integers(0)], {"keepdims": 0}), 1, 1, -1),
            ],
        )
        within = build.op("Greater", [inside, self._number(0.5)])  # a sum of weights is 1 or 0
        scaled = build.op("Mul", [build.op("Sub", [shown, self._number(low)]), self._number(settings.scale)])
        units = build.op("Div", [scaled, self._number(high - low)])
        units = build.cast(build.op("Where", [within, units, self._number(0)]), ir.DataType.FLOAT)
        mean, std = (
            build.constant(np.array(values, np.float32).reshape(-1, 1, 1)) for values in (settings.mean, settings.std)
        )
        values = build.op("Div", [build.op("Sub", [units, mean]), std])
        return build.op("Unsqueeze", [values, build.integers(0)])

    def _grey(self, planes: ir.Value) -> ir.Value:
        """The grey of planes uint8 [3,h,w], by weights that are parts of a power of 2: uint8 [1,h,w]."""
        build = self._build
        weights, bits = _GREYS[self._settings.channel_order]
        factors = build.constant(np.array(weights, np.int64).reshape(3, 1, 1))
        weighed = build.op("Mul", [build.cast(planes, _INT64), factors])
        total = build.op("ReduceSum", [weighed, build.integers(0)], {"keepdims": 1})
        total = build.op("Add", [total, self._integer(1 << (bits - 1))])
        return build.cast(build.op("Div", [total, self._integer(1 << bits)]), _UINT8)

    def _kernel(self, x: ir.Value) -> ir.Value:
        build = self._build
        x = build.op("Abs", [x])
        if self._settings.interpolation == "bilinear":
            return build.op("Max", [build.op("Sub", [self._number(1), x]), self._number(0)])
        a = -0.5 if self._settings.antialias else -0.75

        def polynomial(*coefficients: float) -> ir.Value:
            value = self._number(coefficients[0])
            for coefficient in coefficients[1:]:
                value = build.op("Add", [build.op("Mul", [value, x]), self._number(coefficient)])
            return value

        near, far = polynomial(a + 2, -(a + 3), 0, 1), build.op("Mul", [polynomial(1, -5, 8, -4), self._number(a)])
        beyond = build.op("Where", [build.op("Less", [x, self._number(2)]), far, self._number(0)])
        return build.op("Where", [build.op("Less", [x, self._number(1)]), near, beyond])

    def _folded(self, fixed: ir.Value, size: ir.Value) -> ir.Value:
        """The weights of taps beyond the edges, given to the pixels at the edges: [size,crop]."""
        if not self._margin:
            return fixed
        build, margin = self._build, self._build.integers(self._margin)
        whole = build.op("Add", [size, build.integers(2 * self._margin)])
        before = build.slice(fixed, build.integers(0), margin, 0)
        after = build.slice(fixed, build.op("Sub", [whole, margin]), whole, 0)
        middle = build.slice(fixed, margin, build.op("Sub", [whole, margin]), 0)
        first, last = (build.op("ReduceSum", [part, build.integers(0)], {"keepdims": 1}) for part in (before, after))
        places = build.reshape(build.op("Range", [self._integer(0), build.reshape(size), self._integer(1)]), -1, 1)
        ends = self._integer(0), build.op("Sub", [size, build.integers(1)])
        nothing = self._number(0) if self._settings.needs_samples else self._integer(0)
        at_first, at_last = (
            build.op("Where", [build.op("Equal", [places, end]), part, nothing])
            for end, part in zip(ends, (first, last), strict=True)
        )
        return build.op("Add", [middle, build.op("Add", [at_first, at_last])])

    def _convolve(
        self,
        planes: ir.Value,
        rows: ir.Value,
        columns: ir.Value,
        size: tuple[ir.Value, ir.Value],
        resized: tuple[ir.Value, ir.Value],
    ) -> ir.Value:
        """Both convolutions in the order of Pillow 13, each rounded to uint8: [C,H,W]."""
        build = self._build
        shrunk = [build.op("Sub", [before, after]) for before, after in zip(size, resized, strict=True)]
        bound = build.op("Max", [build.op("Add", [shrunk[1], shrunk[1]]), build.integers(0)])
        height_first = build.reshape(build.op("Greater", [shrunk[0], bound]))
        row_digits, column_digits = self._digits(rows), self._digits(columns)

        def branch(*, height_first: bool) -> ir.Graph:
            inner = build.inner()
            image = planes
            for along_height in (height_first, not height_first):
                turned = _transposed(inner, image) if along_height else image
                total = _product(inner, turned, row_digits if along_height else column_digits)
                level = inner.op("Add", [total, inner.constant(np.int64(1 << (PRECISION - 1)))])
                level = inner.op("Div", [level, inner.constant(np.int64(1 << PRECISION))])
                level = inner.op("Clip", [level, inner.constant(np.int64(0)), inner.constant(np.int64(255))])
                image = inner.cast(level, _UINT8)
                image = _transposed(inner, image) if along_height else image
            image.type = ir.TensorType(_UINT8)
            image.shape = ir.Shape((self._settings.channels, self._settings.height, self._settings.width))
            return ir.Graph([], [image], nodes=inner.take_nodes(), name=build.name("branch"))

        branches = {"then_branch": branch(height_first=True), "else_branch": branch(height_first=False)}
        return build.op("If", [height_first], branches)

    def _convolve_unrounded(self, planes: ir.Value, rows: ir.Value, columns: ir.Value) -> ir.Value:
        """Along the width, then along the height, rounded at the end: uint8 [C,H,W]."""
        build = self._build
        unit = self._number(2.0**-PRECISION)
        total = self._double(_product(build, planes, self._digits(columns)))
        total = self._along_height(build.op("Mul", [total, unit]), self._double(rows))
        level = build.op("Round", [build.op("Mul", [total, unit])])
        level = build.op("Clip", [level, self._number(0), self._number(255)])
        return build.cast(level, _UINT8)

    def _along_height(self, planes: ir.Value, rows: ir.Value) -> ir.Value:
        """Planes [C,h,W] times weights [h,H] along their height, all float64: [C,H,W].

        Flattened in between: of Transpose and MatMul ONNX Runtime 1.24 makes a FusedMatMul that it lacks in float64.
        """
        build, settings = self._build, self._settings
        turned = build.op("Flatten", [_transposed(build, planes)], {"axis": 2})
        product = build.op("MatMul", [turned, rows])
        return _transposed(build, build.reshape(product, settings.channels, settings.width, settings.height))

    def _digits(self, weights: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Weights as (d2 - 128) 2^16 + d1 2^8 + d0: three matrices uint8 of the same shape."""
        build = self._build
        byte, base = self._integer(255), self._integer(256)
        digits = []
        for _ in range(2):
            digit = build.op("BitwiseAnd", [weights, byte])
            digits.append(build.cast(digit, _UINT8))
            weights = build.op("Div", [build.op("Sub", [weights, digit]), base])
        high = build.cast(build.op("Add", [weights, self._integer(_ZERO_POINT)]), _UINT8)
        return high, digits[1], digits[0]

    def _normalize(self, crop: ir.Value) -> ir.Value:
        """Levels uint8 [C,H,W] to the model's values float32 [1,C,H,W], by a table."""
        build, settings = self._build, self._settings
        planes = build.cast(crop, _INT64)
        if settings.channel_order == "bgr":
            planes = build.op("Gather", [planes, build.integers(*PLANES["bgr"])])
        table = 256 * np.arange(settings.channels)
        places = build.op("Add", [planes, build.constant(table.reshape(-1, 1, 1))])
        values = build.op("Gather", [build.constant(settings.values().ravel()), places])
        return build.op("Unsqueeze", [values, build.integers(0)])

    def _double(self, value: ir.Value) -> ir.Value:
        return self._build.cast(value, _DOUBLE)

    def _number(self, value: float) -> ir.Value:
        return self._build.constant(np.float64(value))

    def _integer(self, value: int) -> ir.Value:
        return self._build.constant(np.int64(value))


def _product(build: Builder, planes: ir.Value, digits: tuple[ir.Value, ir.Value, ir.Value]) -> ir.Value:
    """Levels uint8 [C,M,n] times weights [n,N] in digits: int64 [C,M,N], exact."""
    zero = build.constant(np.uint8(0))
    total: ir.Value | None = None
    for digit, zero_point, factor in zip(digits, (_ZERO_POINT, 0, 0), (1 << 16, 1 << 8, 1), strict=True):
        part = build.op("MatMulInteger", [planes, digit, zero, build.constant(np.uint8(zero_point))])
        part = build.op("Mul", [build.cast(part, _INT64), build.constant(np.int64(factor))])
        total = part if total is None else build.op("Add", [total, part])
    assert total is not None
    return total


def _transposed(build: Builder, planes: ir.Value) -> ir.Value:
    return build.op("Transpose", [planes], {"perm": [0, 2, 1]})
