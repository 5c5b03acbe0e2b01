"""The gradient graph of a bundle where it is used: measured again at some elements, which the export has recorded."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Bundle, Cut, Gradient, Graphs
from ortcam.engine.features import check_finite
from ortcam.engine.opening import SessionOptions
from ortcam.engine.providers import resolve_providers
from ortcam.engine.session import open_session
from ortcam.errors import BundleError, NotFiniteError
from ortcam.parity.graphs import Opener
from ortcam.parity.probe import probe_input, read_array, read_probe
from ortcam.support.terminal import first_line

__all__ = ["gradient_failure", "sample_gradient", "verify_gradient"]

_ELEMENTS: Final = 256
# Two values that are all but equal may be ordered otherwise on another machine, and a maximum of them then passes its
# gradient on to the other one: of the elements, so many may differ.
_ALIKE: Final = 0.99


def sample_gradient(
    opener: Opener,
    graphs: Graphs,
    gradient: Gradient,
    cuts: Mapping[str, Cut],
    *,
    images: NDArray[np.float32],
    logits: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Compute the gradient of each image's most probable class, and take some elements of it, evenly spaced.

    Args:
        opener: of the graphs.
        graphs: of the bundle.
        gradient: of the bundle.
        cuts: by their output of the features graph, the primary layer first.
        images: float32 [N,C,H,W], preprocessed.
        logits: float32 [N,classes], which tell the classes.

    Returns:
        float32 [L,N,S] for L layers.

    Raises:
        BundleError: a graph that ONNX Runtime does not accept, or whose gradients have another shape.
        NotFiniteError: a gradient is infinite or not a number.
    """
    options = SessionOptions(resolve_providers(["CPUExecutionProvider"]))
    features = open_session(opener(graphs.features), options).run({"image": images}, [*cuts])
    derivative = open_session(opener(gradient.graph), options)
    names = [name.replace("features", "gradient") for name in cuts]
    seeds = np.zeros_like(logits)
    seeds[np.arange(len(logits)), logits.argmax(axis=1)] = 1
    rows = []
    for index in range(len(images)):
        of_one = {name: value[index : index + 1] for name, value in zip(cuts, features, strict=True)}
        feeds = {**of_one, "image": images[index : index + 1], "seed": seeds[index : index + 1]}
        found = derivative.run(feeds, names)
        for value, cut in zip(found, cuts.values(), strict=True):
            if value.dtype != np.float32 or value.shape != (1, *cut.shape):
                raise BundleError(
                    f"{gradient.graph} gives {value.dtype} {list(value.shape)}; by bundle.json it is float32 "
                    f"{[1, *cut.shape]}"
                )
        check_finite("gradients of the probe", *found)
        rows.append([_some(value) for value in found])
    return np.array(rows, np.float32).transpose(1, 0, 2)


def verify_gradient(bundle: Bundle) -> float | None:
    """Measure on the bundle's own probe how far its gradient is from what it was at export, on the CPU.

    Args:
        bundle: read, so its hashes have been checked.

    Returns:
        max |difference| / max |gradient| without the most different hundredth of the elements; None if the bundle has
        no gradient. `gradient_failure` tells whether it is too much.

    Raises:
        BundleError: no probe, a probe of another form, or graphs that cannot be run or do not fit the manifest.
        NotFiniteError: a gradient is infinite or not a number.
    """
    manifest = bundle.manifest
    if manifest.gradient is None:
        return None
    pictures, logits = read_probe(bundle)
    if manifest.probe is None or manifest.probe.gradient is None:
        raise BundleError(f"{bundle.path}: no gradient was recorded to measure it against; export the bundle again")
    shape = len(manifest.cuts), len(pictures), _ELEMENTS
    recorded = read_array(bundle, manifest.probe.gradient, np.float32, shape)
    check_finite("gradients recorded for the probe", recorded)
    try:
        found = sample_gradient(
            bundle.graph,
            manifest.graphs,
            manifest.gradient,
            manifest.cuts,
            images=probe_input(pictures, manifest.preprocessing),
            logits=logits,
        )
    except (BundleError, NotFiniteError):
        raise
    except Exception as error:  # a graph that does not fit its manifest raises what it meets first
        raise BundleError(f"{bundle.path}: its graphs do not fit its bundle.json: {first_line(error)}") from error
    largest = np.maximum(np.abs(recorded).max(axis=2), 1e-30)
    return float((np.quantile(np.abs(found - recorded), _ALIKE, axis=2, method="lower") / largest).max())


def gradient_failure(difference: float | None, gradient: Gradient | None) -> str | None:
    """Say that a gradient is too far from what it was at export; None if it is not."""
    if gradient is None or difference is None or difference <= gradient.parity.tolerance:
        return None
    return (
        f"the gradient differs from the one at export by {difference:.1e} relative; accepted is "
        f"{gradient.parity.tolerance:.0e}"
    )


def _some(gradient: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = gradient.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, _ELEMENTS).astype(np.int64)]
