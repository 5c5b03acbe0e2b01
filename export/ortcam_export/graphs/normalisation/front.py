"""The front of a graph: the tensors between the image and the first layer, and their values for given images."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.images.preprocessing import Preprocessing
from ortcam_export.graphs.dataflow import TO_NHWC, data_nodes
from ortcam_export.graphs.normalisation.forms import BENT, Form, Layout, Order
from ortcam_export.graphs.normalisation.operators import until_first_layer
from ortcam_export.graphs.running import quiet_session
from ortcam_export.graphs.surgery import extract

__all__ = ["Front"]

_CANDIDATES: Final = 64
_MOST_CHANNELS: Final = 16  # of an image whose front is run: that takes one image per channel


class Front:
    """The nodes between an image and the first layer.

    Args:
        model: whose first input is the image.
        layout: of the image.
        given: from a photograph to the image, NCHW whatever the layout.

    Attributes:
        model: the same.
        graph: its graph.
        image: its input.
        layout: the same.
        given: the same.
        data: the data nodes of the graph.
        candidates: the image and the tensors behind it that all data pass, up to the first layer.
        black: float64 [C], what the channels of the image are where a photograph is black.
        white: likewise.
        whole_numbers: whether pixels are; what the graph rounds may depend on it.
    """

    def __init__(self, model: ir.Model, layout: Layout, given: Preprocessing) -> None:
        self.model = model
        self.graph = model.graph
        self.image = model.graph.inputs[0]
        self.layout: Layout = layout
        self.given = given
        values = given.values().astype(np.float64)
        self.black, self.white = values[:, 0], values[:, -1]
        self.whole_numbers = bool((values == np.rint(values)).all())
        self.data = data_nodes(self.graph)
        most = 1 if self.many else _CANDIDATES
        self.candidates = list(itertools.islice(until_first_layer(self.image, self.data, self.channels), most))

    @property
    def channels(self) -> int:
        """How many channels the image has."""
        return self.given.channels

    @property
    def many(self) -> bool:
        """Whether the image has more channels than the front is run for, one after the other."""
        return self.channels > _MOST_CHANNELS

    @property
    def straight(self) -> Order:
        """The order of the channels where they have not been exchanged."""
        return tuple(range(self.channels))

    @property
    def span(self) -> NDArray[np.float64]:
        """float64 [C], how far black and white are apart."""
        return np.abs(self.white - self.black)

    def has_colour(self, colour: NDArray[np.float64]) -> bool:
        """Whether a pixel of the image can have a colour, float64 [C]."""
        room = BENT * self.span
        low, high = np.minimum(self.black, self.white) - room, np.maximum(self.black, self.white) + room
        return bool(((colour >= low) & (colour <= high)).all())

    def describe_zero(self, form: Form) -> str:
        """Describe a zero that no pixel has."""
        zero = ", ".join(f"{value:.4g}" for value in form.zero)
        return (
            f"its zero is at {zero}, where black is {self.black.min():.4g} and white {self.white.max():.4g}; "
            "check --scale, --mean and --std"
        )

    def run(
        self, values: Iterable[ir.Value], probes: Sequence[NDArray[np.float32]]
    ) -> Iterator[tuple[ir.Value, list[NDArray[np.float64]]]]:
        """Compute floating tensors for each probe, float32 [C,H,W]."""
        values = list(dict.fromkeys(values))
        feeds = [self._fed(probe) for probe in probes]
        made = [value for value in values if value is not self.image]
        results = self._outputs(made, feeds)
        if results is None:  # one that does not run is no reason to leave the others
            singly = [self._outputs([value], feeds) for value in made]
            results = [[] if single is None else single[0] for single in singly]
        responses = {self.image: feeds, **dict(zip(made, results, strict=True))}
        for value in values:
            items = responses[value]
            if items and all(isinstance(item, np.ndarray) and item.dtype == np.float32 for item in items):
                yield value, [item.astype(np.float64) for item in items]

    def _outputs(self, values: list[ir.Value], feeds: list[NDArray[np.float32]]) -> list[list[Any]] | None:
        """Compute each tensor for each of the images. None if ONNX Runtime does not run them."""
        if not values:
            return []
        part = extract(self.model, [self.image.name or ""], [value.name or "" for value in values])
        ir.external_data.load_to_model(part)
        for value in (value for node in part.graph for value in node.outputs):
            value.shape = None
        try:
            session = quiet_session(part, optimized=False)  # as written: fusing would round otherwise
            runs = [session.run(None, {self.image.name: feed}) for feed in feeds]
        except Exception:  # noqa: BLE001 - ONNX Runtime raises its own types
            return None
        return [[run[index] for run in runs] for index in range(len(values))]

    def _fed(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """An image [C,H,W] as the graph takes it."""
        laid_out = image[None] if self.layout == "nchw" else image[None].transpose(TO_NHWC)
        return np.ascontiguousarray(laid_out)
