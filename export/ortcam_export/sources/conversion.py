"""From a source to one tidy ONNX IR model, image [N,3,H,W] -> logits [N,classes], and the original to compare with."""

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import onnxruntime as ort
from numpy.typing import NDArray

from ortcam.bundle import Activation
from ortcam.images.preprocessing import Preprocessing
from ortcam.parity import PARITY_TOLERANCE, probe_input
from ortcam_export.errors import ExportError, conversion_reason
from ortcam_export.graphs.batch_axis import trace_batch
from ortcam_export.graphs.endings import (
    Bounds,
    Ending,
    bounds_of,
    check_ending,
    gives_probabilities,
    refuse_ranks,
    take_ending,
    take_unranked,
)
from ortcam_export.graphs.normalisation import Taken, take_normalisation
from ortcam_export.graphs.running import run_part
from ortcam_export.graphs.surgery import append_logits, logits_of
from ortcam_export.graphs.tidying import tidy
from ortcam_export.graphs.weights import WeightsFile
from ortcam_export.sources.onnx_files.adapting import adapt
from ortcam_export.sources.onnx_files.reading import PIXELS, Coarse, OnnxFile, computes_with_integers
from ortcam_export.sources.opening import SaidActivation, Source
from ortcam_export.staging import temporary

if TYPE_CHECKING:
    import torch

__all__ = ["HIDES_TO_BLACK", "Converted", "convert"]

# A note on what was said, not on where the preprocessing comes from.
HIDES_TO_BLACK: Final = "masks hide to black: no mean colour was found at the start of the graph, and none was given"

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

# An activation at the end of a file may be one of 8-bit integers, or clipped away from 0 and 1.
_ENDING_TOLERANCE: Final = 1e-2

# Of a probability near 0 or 1: how often it is rounded on its way to the output, and the most that a tolerance may be.
_ROUNDINGS: Final = 8
_COARSEST_TOLERANCE: Final = 1e-1

# Of constants as 1/3, by which means are divided.
_BOUND_ROUNDING: Final = 1e-5

_PICTURES: Final = 2


@dataclasses.dataclass(frozen=True)
class Converted:
    """A classifier as a graph, and the classifier it came from.

    Attributes:
        model: image float32 [N,3,H,W] -> logits float32 [N,classes], N open.
        preprocessing: from a photograph to `image`.
        activation: from logits to probabilities.
        integers: whether the graph computes with 8-bit integers.
        pictures: what it is measured on, uint8 RGB [N,H,W,3] at the input's size.
        logits: the original's for them, float32 [N,classes].
        reference: what computed these.
        tolerance: max |difference| / max |logit| that its head(features(x)) may have.
        scorer_tolerance: the same of its scorers.
        ending: what the original ended in.
        assumed_activation: whether nothing but custom says that its outputs are logits of a softmax.
        notes: what was done to the graph that its user should know, a sentence each.
    """

    model: ir.Model
    preprocessing: Preprocessing
    activation: Activation
    integers: bool
    pictures: NDArray[np.uint8]
    logits: NDArray[np.float32]
    reference: str
    tolerance: float
    scorer_tolerance: float
    ending: Ending
    assumed_activation: bool
    notes: tuple[str, ...] = ()


def convert(source: Source, *, opset: int, activation: SaidActivation | None) -> Converted:
    """Convert a source.

    Args:
        source: as opened.
        opset: version of the ONNX operator set, for a PyTorch module.
        activation: from logits to probabilities, where the user said it, or "probabilities" where the model gives them
            itself; None takes the activation that a graph ends in, else softmax.

    Raises:
        ExportError: a model that cannot be converted, that is no classifier, or whose output could mean several things.
    """
    known = source.preprocessing_source != "not known"
    if isinstance(source.classifier, OnnxFile):
        return _from_onnx(source.classifier, source.preprocessing, activation, known=known)
    notes = list(source.notes)
    return _from_torch(source.classifier, source.preprocessing, opset, activation, notes, known=known)


def _from_torch(
    module: "torch.nn.Module",
    preprocessing: Preprocessing,
    opset: int,
    activation: SaidActivation | None,
    notes: list[str],
    *,
    known: bool,
) -> Converted:
    """Convert a module with torch's exporter, the batch dimension left open."""
    import torch  # noqa: PLC0415

    name = type(module).__name__
    model, taken = _open_module(module, preprocessing, opset)
    notes += _notes_on_normalisation(taken, preprocessing, known=known)
    try:
        ranking = take_unranked(model.graph)
    except ExportError as error:
        raise ExportError(f"{name}: {error}") from None
    whole = model.clone() if ranking else model
    ending = take_ending(model.graph, said=activation)
    tidy(model)

    pictures = _probe_pictures(_PICTURES, preprocessing.height, preprocessing.width)
    images = probe_input(pictures, preprocessing)
    with torch.inference_mode():
        logits: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
    if ranking:
        logits = _unranked(name, whole, probe_input(pictures, taken.preprocessing), logits)
        notes.append(_taken_in_front(ranking, logits.shape[1]))
    if ending.activation is not None:
        # PyTorch has only the probabilities: they vouch for the logits.
        probabilities, logits = logits, _run_whole(model, probe_input(pictures, taken.preprocessing))
        check_ending(name, ending, logits, probabilities, tolerance=PARITY_TOLERANCE)
        notes.append(f"the model ends in {ending.operator}: what goes into it are the logits")
    refuse_ranks(name, model.graph, logits)
    # Small logits that happen to be positive are no reason to ask: modules give logits unless their end says otherwise.
    if activation is None and ending == Ending(None, None) and _within(bounds_of(model.graph.outputs[0]), 0, 1):
        ending = Ending(None, "the end of its graph")
    given = gives_probabilities(name, ending, logits, said=activation or "softmax")
    tolerance = PARITY_TOLERANCE
    if given is not None:
        logits, tolerance = _take_logits(model, logits, given, notes)
    return Converted(
        model,
        taken.preprocessing,
        _activation_of(activation, ending, given),
        False,
        pictures,
        logits,
        f"torch {torch.__version__}",
        tolerance,
        tolerance,
        ending,
        activation is None and given is None and ending.activation is None,
        tuple(notes),
    )


def _unranked(
    name: str, model: ir.Model, images: NDArray[np.float32], ranked: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The scores of all classes, which sorted have to be those that the module gives."""
    scores = _run_whole(model, images)
    count = ranked.shape[1]
    expected = np.sort(ranked, axis=1)
    sides = (np.sort(scores, axis=1)[:, -count:], np.sort(scores, axis=1)[:, :count])
    if min(np.abs(side - expected).max() for side in sides) > PARITY_TOLERANCE * max(
        float(np.abs(scores).max()), 1e-12
    ):
        raise ExportError(
            f"{name}: it gives scores by rank, which are not those in front of its TopK, sorted; accepted is one score "
            "for each class, always in the same order"
        )
    return scores


def _taken_in_front(operator: str, classes: int) -> str:
    return f"the model ends in {operator}, scores by rank: the scores in front, of all {classes} classes, are taken"


def _open_module(module: "torch.nn.Module", given: Preprocessing, opset: int) -> tuple[ir.Model, Taken]:
    """A module's graph for any number of images, and the normalisation it began with.

    A module that reads the batch size as a number, say by len(x), makes torch's exporter fix it, or give up: its graph
    for one image is then opened as that of an `.onnx` file is.
    """
    height, width = given.height, given.width
    try:
        model = _export_module(module, (2, 3, height, width), opset, open_batch=True)
    except ExportError:
        fixed = True
    else:
        fixed = model.graph.inputs[0].shape is None or isinstance(model.graph.inputs[0].shape[0], int)
    if fixed:
        model = _export_module(module, (1, 3, height, width), opset, open_batch=False)
        model.graph.inputs[0].shape = ir.Shape(("N", 3, height, width))
    taken = take_normalisation(model, "nchw", given)
    common_passes.RemoveUnusedNodesPass()(model)
    trace_batch(model, fixed=fixed)
    return model, taken


def _export_module(
    module: "torch.nn.Module", shape: tuple[int, int, int, int], opset: int, *, open_batch: bool
) -> ir.Model:
    import torch  # noqa: PLC0415

    from ortcam_export.sources.pytorch.library_modules import attention_in_steps  # noqa: PLC0415 - these two import torch
    from ortcam_export.sources.pytorch.outputs import LogitsOf, forget_adapter  # noqa: PLC0415

    with _quiet(), attention_in_steps(module):
        try:
            program = torch.onnx.export(
                module,
                (torch.zeros(shape),),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=({0: torch.export.Dim("batch")},) if open_batch else None,
                input_names=["image"],
                output_names=["logits"],
                verbose=False,
            )
        except Exception as error:
            raise ExportError(f"torch.onnx.export cannot convert the model: {conversion_reason(error)}") from error
    assert program is not None
    if isinstance(module, LogitsOf):
        forget_adapter(program.model)
    return program.model


def _from_onnx(file: OnnxFile, given: Preprocessing, activation: SaidActivation | None, *, known: bool) -> Converted:
    """Make the graph of an `.onnx` file, whose own input is made by `given`, the form that the export works on."""
    classifier = adapt(file, given)
    model, notes = (
        classifier.model,
        _notes_on_normalisation(classifier.taken, given, integers=file.dtype in PIXELS, known=known),
    )
    prepared = classifier.taken.preprocessing
    reference = f"onnxruntime {ort.__version__}"
    pictures = _probe_pictures(_PICTURES, given.height, given.width)
    images = probe_input(pictures, given)
    # What was opened was made for one image; a batch of it may well be something else.
    together = not classifier.opened and file.coarse != "dynamic int8"
    if file.coarse is None:
        logits = file.logits(images, together=together)
    else:
        logits = _run_whole(model, probe_input(pictures, prepared))
        notes.append(f"computed in float32: {_distance_to_file(file, images, logits, together=together)}")
        reference += f", the {file.coarse} file computed in float32"
    ending = file.ending
    if ending.activation is not None:
        _check_ending(file, images, logits)
    if ending.ranking is not None:
        notes.append(_taken_in_front(ending.ranking, logits.shape[1]))
    refuse_ranks(str(file.path), model.graph, logits)
    probabilities = gives_probabilities(str(file.path), ending, logits, said=activation)
    tolerance = PARITY_TOLERANCE
    if probabilities is not None:
        logits, tolerance = _take_logits(model, logits, probabilities, notes)
    return Converted(
        model,
        prepared,
        _activation_of(activation, ending, probabilities),
        computes_with_integers(model.graph),
        pictures,
        logits,
        reference,
        # Integers give the same integers, unless the image comes to them by another way.
        _INTEGER_TOLERANCE if file.quantized and prepared != given else tolerance,
        _INTEGER_TOLERANCE if file.quantized else tolerance,
        ending,
        activation is None and probabilities is None and ending.activation is None,
        tuple(notes),
    )


def _notes_on_normalisation(taken: Taken, given: Preprocessing, *, integers: bool = False, known: bool) -> list[str]:
    """What became of the normalisation that a graph began with, and the colour that masks hide to.

    Args:
        taken: what was taken out of the graph.
        given: from a photograph to the graph's own input.
        integers: whether that is of integers, whose mean is one of their type and no normalisation.
        known: whether anybody said what `given` is.
    """
    notes = list(taken.notes)
    prepared = taken.preprocessing
    if taken.operators and taken.dropped:
        notes.append(f"the graph's own normalisation ({taken.operators}) is now part of the preprocessing")
    elif taken.operators:
        notes.append(
            f"the graph's own normalisation ({taken.operators}) is now part of the preprocessing, and undone in front "
            "of the graph, which stays as it is"
        )
    if prepared.channel_order != given.channel_order:
        notes.append(
            f"the graph's own exchange of the channels, too: the bundle's graphs take {prepared.channel_order}"
        )
    if taken.operators and any(given.mean) and not integers:
        notes.append(
            f"the graph normalises what is normalised already: together that is a mean of {_listed(prepared.mean)} and "
            f"a std of {_listed(prepared.std)}, of pixels in [0, {prepared.scale:g}]"
        )
    if not known and not any(prepared.mean):
        notes.append("the graph has no normalisation of its own: masks will hide to the colour that --mean says")
    elif not any(prepared.mean):
        notes.append(HIDES_TO_BLACK)
    return notes


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _check_ending(file: OnnxFile, images: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    try:
        outputs = file.outputs(images)
    except ExportError:
        if file.coarse is None:
            raise
        return  # computed in float32 because nothing here can run it as it is
    tolerance = _ENDING_TOLERANCE if file.coarse is None else _COARSE_TOLERANCE[file.coarse]
    check_ending(str(file.path), file.ending, logits, outputs, tolerance=tolerance)


def _within(bounds: Bounds, least: float, most: float) -> bool:
    """Whether bounds lie in a range, but for what float32 rounds."""
    return bounds[0] >= least - _BOUND_ROUNDING and bounds[1] <= most + _BOUND_ROUNDING


def _activation_of(said: SaidActivation | None, ending: Ending, given: Activation | None) -> Activation:
    """The bundle's activation: of the probabilities that the model gives, as said, or what its graph ended in."""
    if given is not None:
        return given
    if said is None or said == "probabilities":
        return ending.activation or "softmax"
    return said


def _take_logits(
    model: ir.Model, probabilities: NDArray[np.float32], activation: Activation, notes: list[str]
) -> tuple[NDArray[np.float32], float]:
    """Make logits of probabilities, in the graph and in what it is compared with.

    Returns:
        The logits, float32 [N,classes], and how far float32 lets them differ, relative to the largest. The logit
        of a probability near 0 or 1 has few digits.
    """
    append_logits(model, activation)
    how = "their logarithms are" if activation == "softmax" else "log p - log(1 - p) of each is"
    notes.append(f"the model gives probabilities: {how} taken for logits")
    logits = logits_of(probabilities, activation)
    if activation == "softmax":
        return logits, PARITY_TOLERANCE
    spacing = float(np.finfo(np.float32).eps)
    nearest = min(float(probabilities.min()), 1 - float(probabilities.max()))
    lost = _ROUNDINGS * spacing / max(nearest, spacing) / float(np.abs(logits).max())
    return logits, min(PARITY_TOLERANCE + lost, _COARSEST_TOLERANCE)


def _run_whole(model: ir.Model, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The converted graph in ONNX Runtime, before anything is cut."""
    with temporary() as folder:
        WeightsFile(folder).store(whole := model.clone())
        return run_part(whole, folder, {"image": images})[0]


def _distance_to_file(
    file: OnnxFile, images: NDArray[np.float32], logits: NDArray[np.float32], *, together: bool
) -> str:
    """How far float32 takes the logits from the file's own arithmetic, in words.

    Raises:
        ExportError: further than the coarser arithmetic explains.
    """
    assert file.coarse is not None
    try:
        expected = file.logits(images, together=together)
    except Exception:  # noqa: BLE001 - ONNX Runtime on the CPU has few operators in bfloat16
        return f"this ONNX Runtime cannot run the {file.coarse} file itself"
    distance = float(np.abs(logits - expected).max() / max(np.abs(expected).max(), 1e-12))
    if not distance <= _COARSE_TOLERANCE[file.coarse]:
        raise ExportError(
            f"{file.path}: computed in float32 its logits differ from the {file.coarse} file's by {distance:.1e} "
            f"relative; accepted is {_COARSE_TOLERANCE[file.coarse]:.0e}"
        )
    return f"the logits are within {distance:.1e} of the {file.coarse} file's"


def _probe_pictures(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Pictures to measure with, always the same: colours that change smoothly, edges, and a little noise.

    Returns:
        uint8 RGB [count,height,width,3].
    """
    generator = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    frequency = generator.uniform(-12, 12, (2, count, 3, 6, 1, 1))
    phase = generator.uniform(0, 2 * np.pi, (count, 3, 6, 1, 1))
    waves = np.sin(frequency[0] * rows + frequency[1] * columns + phase)
    edges = np.where(waves[:, :, 0] > 0.3, 0.25, 0)
    noise = generator.normal(0, 0.03, edges.shape)
    pixels = np.clip(0.5 + edges + waves[:, :, 1:].sum(axis=2) / 12 + noise, 0, 1)
    pictures: NDArray[np.uint8] = np.rint(pixels.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    return pictures


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own progress and warnings off the terminal; errors are raised all the same."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
