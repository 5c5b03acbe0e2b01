"""Measure what the gradient graph says of each token's attention: against central differences in float64."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam_export.gradients.attention import TokenAttention
from ortcam_export.gradients.differences import Array, sample_differences
from ortcam_export.graphs.gradient.float64 import Float64Graph
from ortcam_export.graphs.surgery import extract

__all__ = ["RelevanceDifferences"]

_ELEMENTS: Final = 16


class RelevanceDifferences:
    """Differences of the logits in factors on the values of one attention, whose derivative the relevance is.

    Args:
        model: image -> logits in floating numbers.
        inputs: where it begins: the layer's tensor, and the image where the model has it as an input.
        found: the attention behind it.

    Raises:
        ExportError: a part of the model does not run in float64.
    """

    def __init__(self, model: ir.Model, inputs: Sequence[str], found: TokenAttention) -> None:
        self._found = found
        self._values = Float64Graph(extract(model, inputs, [found.value]))
        self._logits = Float64Graph(extract(model, [*inputs, found.value], ["logits"]))

    def gap(
        self, feeds: Mapping[str, NDArray[np.float32]], relevance: Sequence[NDArray[np.float32]], seeds: Array
    ) -> float:
        """Compare a relevance: max |relevance - difference| / max |relevance|.

        Args:
            feeds: float32 [1,...] of the layer's tensor, and of the image where the model has it as an input.
            relevance: float32 [heads,T] per seed.
            seeds: float64 [K,classes].
        """
        point = {name: value.astype(np.float64) for name, value in feeds.items()}
        (values,) = self._values.run(point)

        def logits(factors: Array) -> Array:
            rows = {name: np.repeat(value, len(factors), axis=0) for name, value in point.items()}
            return self._logits.run({**rows, self._found.value: self._found.times(values, factors)})[0]

        ones = np.ones((1, self._found.heads, self._found.tokens), np.float32)
        return sample_differences(logits, ones, relevance, seeds, _ELEMENTS)
