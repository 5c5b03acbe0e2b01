"""Differentiate a model and measure its gradient without writing a bundle: much faster than an export."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from ortcam.bundle import Cut, Gradient
from ortcam.parity import probe_input
from ortcam_export.gradients.originals import autograd_of
from ortcam_export.gradients.writing import Opened, write_gradient
from ortcam_export.graphs.layers import choose_layers, cut_open, find_layers
from ortcam_export.graphs.surgery import build_features
from ortcam_export.graphs.weights import WeightsFile
from ortcam_export.sources.conversion import convert
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.types import DEFAULT_OPSET, InputSpec
from ortcam_export.staging import temporary

if TYPE_CHECKING:
    from ortcam_export.sources.types import Model

__all__ = ["Trial", "try_gradient"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came out for a model.

    Attributes:
        cut: of the primary layer.
        layers: further cuts.
        gradient: as a bundle would record it; None if there is none.
        no_gradient: why there is none.
    """

    cut: Cut
    layers: tuple[Cut, ...]
    gradient: Gradient | None
    no_gradient: str | None


def try_gradient(
    model: "Model", *, weights: str = "none", layers: Sequence[str] = (), spec: InputSpec | None = None
) -> Trial:
    """Convert a model, cut it, and write and measure its gradient graph in a folder that is then removed.

    Args:
        model: as `ortcam_export.export` takes it.
        weights: of torchvision's models.
        layers: names; none for the default layer.
        spec: what is said of input and output; None for nothing.

    Raises:
        ExportError: the model cannot be converted or cut.
    """
    spec = spec or InputSpec()
    source = open_source(model, weights=weights, checkpoint=None, spec=spec)
    converted = convert(source, opset=DEFAULT_OPSET, activation=spec.activation)
    images = probe_input(converted.images, converted.preprocessing)
    with temporary() as folder:
        file = WeightsFile(folder)
        file.store(converted.model)
        found = find_layers(converted.model, folder, images)
        chosen = choose_layers(found, layers, model=converted.model, folder=folder, probe=images)
        opened, cuts = converted.model, []
        for layer in (chosen[-1], *chosen[:-1]):
            opened, cut = cut_open(opened, layer)
            cuts.append(cut)
        ir.save(build_features(opened, *(cut.tensor for cut in cuts)), folder / "features.onnx")
        names = {f"features_{i}" if i else "features": cut for i, cut in enumerate(cuts)}
        ready = Opened(opened, "features.onnx", names, converted.integers)
        gradient, why = write_gradient(ready, file, folder, images, autograd_of(source, converted))
    return Trial(cuts[0], tuple(cuts[1:]), gradient, why)
