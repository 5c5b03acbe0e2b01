"""Write the scorers of a bundle once more in float16, int8 or for QNN, and measure how they compare with float32's."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import Activation, Cut, Graphs, Precision, Variant
from ortcam.errors import OrtcamError
from ortcam.parity import measure_variant
from ortcam_export.errors import ExportError, first_line
from ortcam_export.graphs.layers import count_macs
from ortcam_export.graphs.scorer import write_scorers
from ortcam_export.graphs.weights import Interpolation, WeightsFile
from ortcam_export.precision.calibration import CalibrationImages, masked_inputs
from ortcam_export.precision.fidelity import ImageMaps, compare, explain_all, plan_sample
from ortcam_export.precision.float32 import Float32Graphs
from ortcam_export.precision.quantize import check_float16, collect_ranges, to_float16, to_int8, to_qnn

__all__ = ["write_variants"]

# In the names of files.
_SHORT: Final[dict[Precision, str]] = {"float16": "fp16", "int8": "int8", "qnn": "qnn"}
_IN_INTEGERS: Final = ("int8", "qnn")
_TOLERANCE_FACTOR, _LEAST_TOLERANCE = 2.0, 0.05
_SEED: Final = 0


def write_variants(
    precisions: Sequence[Precision],
    model: ir.Model,
    folder: Path,
    *,
    graphs: Graphs,
    cut: Cut,
    activation: Activation,
    interpolation: Interpolation,
    probe: NDArray[np.float32],
    calibration: CalibrationImages,
    say: Callable[[str], None],
) -> dict[str, Variant]:
    """Build and measure the scorers in other precisions than float32.

    Args:
        precisions: which.
        model: image -> logits in float32, its weights in a file of `folder`.
        folder: of the bundle; the graphs of float32 are there already.
        graphs: those.
        cut: where the maps come from.
        activation: from logits to probabilities.
        interpolation: the matrices of the float32 scorers, which these share.
        probe: float32 [N,C,H,W], what parity is measured on.
        calibration: images to calibrate and to measure on.
        say: told the stages.

    Returns:
        Name of the precision -> its variant.

    Raises:
        ExportError: a graph that cannot be converted, or whose logits are not finite.
    """
    float32, sample = Float32Graphs(folder, graphs, cut), plan_sample(count_macs(model.graph))
    expected: list[ImageMaps] = []
    variants = {}
    for precision in precisions:
        say(f"{_SHORT[precision]}: converting")
        converted = _convert(precision, model, folder, float32, calibration)
        WeightsFile(folder, f"weights-{_SHORT[precision]}.bin").store(converted)
        suffix, terms = f"-{_SHORT[precision]}", graphs.score_terms
        scorers = write_scorers(converted, cut, folder, interpolation, activation, suffix, terms=terms)
        with _running(precision):
            parity = measure_variant(folder.joinpath, graphs, scorers, cut, images=probe)
            _check_finite(precision, parity)
            say(f"{_SHORT[precision]}: comparing maps")
            expected = expected or [*explain_all(float32, graphs.scorers, calibration.measuring, sample)]
            found = [*explain_all(float32, scorers, calibration.measuring, sample)]
        variants[str(precision)] = Variant(
            scorers=scorers,
            parity=parity,
            tolerance=max(_TOLERANCE_FACTOR * parity, _LEAST_TOLERANCE),
            calibration=calibration.words if precision in _IN_INTEGERS else None,
            fidelity=compare(
                expected,
                found,
                held_out=calibration.held_out or precision not in _IN_INTEGERS,
                channels=min(sample.channels, cut.channels),
            ),
        )
    return variants


@contextlib.contextmanager
def _running(precision: Precision) -> Iterator[None]:
    """Turn what ONNX Runtime raises into an error that names the precision."""
    try:
        yield
    except (OrtcamError, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime raises its own types
        raise ExportError(f"{precision}: ONNX Runtime does not run the graphs: {first_line(error)}") from error


def _check_finite(precision: Precision, parity: float) -> None:
    if not np.isfinite(parity):
        raise ExportError(
            f"{precision}: a logit of a masked image is not finite: the model's values go beyond what {precision} "
            f"holds; leave {_SHORT[precision]} out of --precision"
        )


def _convert(
    precision: Precision, model: ir.Model, folder: Path, float32: Float32Graphs, calibration: CalibrationImages
) -> ir.Model:
    """The classifier in a coarser precision, its ranges taken from masked images."""
    generator = np.random.default_rng(_SEED)
    inputs = (
        masked
        for image in (calibration.measuring if precision == "float16" else calibration.calibrating)
        for masked in masked_inputs(image, float32.maps_and_logits(image)[0], generator)
    )
    if precision == "float16":
        check_float16(model)
        return to_float16(model, folder, collect_ranges(model, folder, inputs, quantile=1))
    if precision == "qnn":
        return to_qnn(model, folder, collect_ranges(model, folder, inputs, quantile=1))
    return to_int8(model, folder, collect_ranges(model, folder, inputs))
