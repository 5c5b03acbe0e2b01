"""From an `.onnx` file as read to a converted classifier: adapted, and measured against the file itself."""

from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ortcam.images.preprocessing import Preprocessing
from ortcam.parity import PARITY_TOLERANCE, probe_input, relative_difference
from ortcam_export.errors import ExportError
from ortcam_export.graphs.endings import (
    append_similarity,
    check_ending,
    gives_probabilities,
    refuse_infinite,
    refuse_ranks,
)
from ortcam_export.sources.converted import (
    Converted,
    activation_of,
    notes_on_normalisation,
    probe_images,
    run_whole,
    take_logits,
    taken_in_front,
)
from ortcam_export.sources.given.embeddings import ClassEmbeddings
from ortcam_export.sources.onnx_files.adapting import adapt
from ortcam_export.sources.onnx_files.arithmetic import PIXELS, Coarse, computes_with_integers
from ortcam_export.sources.onnx_files.file import OnnxFile
from ortcam_export.sources.types import BaselineValue, SaidActivation

__all__ = ["convert_file"]

# A graph of 8-bit integers rounds its input: a pixel that falls between two of them may go either way, which moved the
# logits by up to 4 % of the largest on real models.
_INTEGER_TOLERANCE: Final = 1e-1
# How far float32 arithmetic may take the logits from those of a file with coarser arithmetic.
_COARSE_TOLERANCE: Final[dict[Coarse, float]] = {
    "float16": 2e-2,
    "bfloat16": 1e-1,
    "dynamic int8": 1e-1,
    "16-bit integer": 2e-2,
    "4-bit": 1e-1,
    "block-quantized": 1e-1,
    "float8": 2e-1,
}
# A file whose rounding adds up to more is taken if its own logits move as far for pixels that are nearly the same: by
# up to this part of one of 255 grey levels, in this many drawings. A difference beyond the last number is an error.
_INVISIBLE: Final = 1e-2
_DRAWINGS: Final = 4
_MOST_OF_ROUNDING: Final = 5e-1

# An activation at the end of a file may be one of 8-bit integers, or clipped away from 0 and 1.
_ENDING_TOLERANCE: Final = 1e-2


def convert_file(
    file: OnnxFile,
    given: Preprocessing,
    activation: SaidActivation | None,
    *,
    known: bool,
    embeddings: ClassEmbeddings | None = None,
    baseline: BaselineValue | None = None,
) -> Converted:
    """Convert an `.onnx` file.

    Args:
        file: as read.
        given: from a photograph to the file's own input.
        activation: as the user said it.
        known: whether anybody said what `given` is.
        embeddings: of the classes, if the file is an encoder of images.
        baseline: what masks hide to, where the user said it.

    Raises:
        ExportError: a graph that cannot be adapted, is no classifier, or whose output could mean several things.
    """
    classifier = adapt(file, given, baseline)
    model = classifier.model
    notes = notes_on_normalisation(classifier.taken, given, integers=file.dtype in PIXELS, known=known)
    prepared = classifier.taken.preprocessing
    reference = f"onnxruntime {ort.__version__}"
    images = probe_images(given.height, given.width, given.channels)
    inputs = probe_input(images, given)
    # What was opened was made for one image; a batch of it may well be something else.
    together = not classifier.opened and file.coarse != "dynamic int8"
    if file.coarse is None:
        logits = file.logits(inputs, together=together)
    else:
        logits = run_whole(model, probe_input(images, prepared))
        notes.append(f"computed in float32: {_distance_to_file(file, given, inputs, logits, together=together)}")
        reference += f", the {file.coarse} file computed in float32"
    ending = file.ending
    if embeddings is not None:
        embeddings.check_dimension(logits.shape[1], str(file.path))
        refuse_infinite(str(file.path), logits)
        append_similarity(model, embeddings.rows, embeddings.scale, embeddings.bias)
        logits = embeddings.logits(logits)
    if ending.activation is not None:
        _check_ending(file, inputs, logits)
    if ending.ranking is not None:
        notes.append(taken_in_front(ending.ranking, logits.shape[1]))
    probabilities = None
    if activation == "identity" or embeddings is not None:
        refuse_infinite(str(file.path), logits)
    else:
        refuse_ranks(str(file.path), model.graph, logits)
        probabilities = gives_probabilities(str(file.path), ending, logits, said=activation)
    tolerance = PARITY_TOLERANCE
    if probabilities is not None:
        logits, tolerance = take_logits(model, logits, probabilities, notes)
    return Converted(
        model,
        prepared,
        activation_of(activation, ending, probabilities),
        computes_with_integers(model.graph),
        images,
        logits,
        reference,
        # Integers give the same integers, unless the image comes to them by another way.
        _INTEGER_TOLERANCE if file.quantized and prepared != given else tolerance,
        _INTEGER_TOLERANCE if file.quantized else tolerance,
        ending,
        activation is None and probabilities is None and ending.activation is None,
        tuple(notes),
        classifier.output_shape if activation == "identity" else (),
        classifier.parts,
    )


def _check_ending(file: OnnxFile, inputs: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    try:
        outputs = file.outputs(inputs)
    except ExportError:
        if file.coarse is None:
            raise
        return  # computed in float32 because nothing here can run it as it is
    tolerance = _ENDING_TOLERANCE if file.coarse is None else _COARSE_TOLERANCE[file.coarse]
    check_ending(str(file.path), file.ending, logits, outputs, tolerance=tolerance)


def _distance_to_file(
    file: OnnxFile, given: Preprocessing, inputs: NDArray[np.float32], logits: NDArray[np.float32], *, together: bool
) -> str:
    """How far float32 takes the logits from the file's own arithmetic, in words.

    Raises:
        ExportError: further than the coarser arithmetic explains.
    """
    assert file.coarse is not None
    try:
        expected = file.logits(inputs, together=together)
    except Exception:  # noqa: BLE001 - ONNX Runtime on the CPU has few operators in bfloat16
        return f"this ONNX Runtime cannot run the {file.coarse} file itself"
    distance = relative_difference(logits, expected)
    words = f"the logits are within {distance:.1e} of the {file.coarse} file's"
    if distance <= _COARSE_TOLERANCE[file.coarse]:
        return words
    own = _own_rounding(file, given, inputs, expected)
    if not distance <= min(own, _MOST_OF_ROUNDING):
        raise ExportError(
            f"{file.path}: computed in float32 its logits differ from the {file.coarse} file's by {distance:.1e} "
            f"relative; accepted is {_COARSE_TOLERANCE[file.coarse]:.0e}, or the {own:.1e} that the file's own logits "
            "move by if pixels change by a hundredth of a grey level"
        )
    return f"{words}, whose own move by {own:.1e} if pixels change by a hundredth of a grey level"


def _own_rounding(
    file: OnnxFile, given: Preprocessing, inputs: NDArray[np.float32], logits: NDArray[np.float32]
) -> float:
    """The relative difference between a file's logits for images, and for those with noise that nobody sees."""
    level = given.scale / 255 / np.asarray(given.std).reshape(1, -1, 1, 1)
    generator = np.random.default_rng(0)
    noises = (generator.uniform(-1, 1, inputs.shape) * level * _INVISIBLE for _ in range(_DRAWINGS))
    moved = [file.logits((inputs + noise).astype(np.float32), together=False) for noise in noises]
    return max(relative_difference(rows, logits) for rows in moved)
