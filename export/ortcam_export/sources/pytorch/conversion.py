"""From a module to a converted classifier: torch's exporter, the batch dimension left open, and the module itself."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import torch
from numpy.typing import NDArray

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
    refuse_infinite,
    refuse_ranks,
    take_ending,
    take_unranked,
)
from ortcam_export.graphs.normalisation import Taken, take_normalisation
from ortcam_export.graphs.tidying import tidy
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
from ortcam_export.sources.pytorch.library_modules import attention_in_steps
from ortcam_export.sources.pytorch.outputs import LogitsOf, forget_adapter, output_shape
from ortcam_export.sources.types import BaselineValue, SaidActivation

__all__ = ["convert_module"]

# Of constants as 1/3, by which means are divided.
_BOUND_ROUNDING: Final = 1e-5


def convert_module(
    module: torch.nn.Module,
    given: Preprocessing,
    *,
    opset: int,
    activation: SaidActivation | None,
    notes: Sequence[str],
    known: bool,
    embeddings: ClassEmbeddings | None = None,
    baseline: BaselineValue | None = None,
) -> Converted:
    """Convert a module with torch's exporter, the batch dimension left open.

    Args:
        module: in eval mode; images [N,C,H,W] to logits [N,classes].
        given: from a photograph to the module's own input.
        opset: version of the ONNX operator set.
        activation: as the user said it.
        notes: what was done to the module so far.
        known: whether anybody said what `given` is.
        embeddings: of the classes, if its logits are cosines with these.
        baseline: what masks hide to, where the user said it.

    Raises:
        ExportError: a module that cannot be converted, or whose output could mean several things.
    """
    name = type(module).__name__
    model, taken = _open_module(module, given, opset, baseline)
    told = [*notes, *notes_on_normalisation(taken, given, known=known)]
    if activation == "identity" or embeddings is not None:
        return _as_it_is(module, model, given, taken, activation, told)
    try:
        ranking = take_unranked(model.graph)
    except ExportError as error:
        raise ExportError(f"{name}: {error}") from None
    whole = model.clone() if ranking else model
    ending = take_ending(model.graph, said=activation)
    tidy(model)

    images = probe_images(given.height, given.width, given.channels)
    inputs = probe_input(images, given)
    with torch.inference_mode():
        logits: NDArray[np.float32] = module(torch.from_numpy(inputs)).numpy()
    if ranking:
        logits = _unranked(name, whole, probe_input(images, taken.preprocessing), logits)
        told.append(taken_in_front(ranking, logits.shape[1]))
    if ending.activation is not None:
        # PyTorch has only the probabilities: they vouch for the logits.
        activated, logits = logits, run_whole(model, probe_input(images, taken.preprocessing))
        check_ending(name, ending, logits, activated, tolerance=PARITY_TOLERANCE)
        told.append(f"the model ends in {ending.operator}: what goes into it are the logits")
    refuse_ranks(name, model.graph, logits)
    # Small logits that happen to be positive are no reason to ask: modules give logits unless their end says otherwise.
    if activation is None and ending == Ending(None, None) and _within(bounds_of(model.graph.outputs[0]), 0, 1):
        ending = Ending(None, "the end of its graph")
    probabilities = gives_probabilities(name, ending, logits, said=activation or "softmax")
    tolerance = PARITY_TOLERANCE
    if probabilities is not None:
        logits, tolerance = take_logits(model, logits, probabilities, told)
    return Converted(
        model,
        taken.preprocessing,
        activation_of(activation, ending, probabilities),
        False,
        images,
        logits,
        f"torch {torch.__version__}",
        tolerance,
        tolerance,
        ending,
        activation is None and probabilities is None and ending.activation is None,
        tuple(told),
    )


def _as_it_is(
    module: torch.nn.Module,
    model: ir.Model,
    given: Preprocessing,
    taken: Taken,
    activation: SaidActivation | None,
    notes: Sequence[str],
) -> Converted:
    """A module whose outputs mean what they are said to mean: values, or logits that are cosines with embeddings."""
    tidy(model)
    images = probe_images(given.height, given.width, given.channels)
    with torch.inference_mode():
        outputs: NDArray[np.float32] = module(torch.from_numpy(probe_input(images, given))).numpy()
    refuse_infinite(type(module).__name__, outputs)
    return Converted(
        model,
        taken.preprocessing,
        activation_of(activation, Ending(None, None), None),
        False,
        images,
        outputs,
        f"torch {torch.__version__}",
        PARITY_TOLERANCE,
        PARITY_TOLERANCE,
        Ending(None, None),
        activation is None,
        tuple(notes),
        output_shape(module, outputs.shape[1]),
        module.parts if isinstance(module, LogitsOf) else (),
    )


def _unranked(
    name: str, model: ir.Model, inputs: NDArray[np.float32], ranked: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The scores of all classes, which sorted have to be those that the module gives."""
    scores = run_whole(model, inputs)
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


def _open_module(
    module: torch.nn.Module, given: Preprocessing, opset: int, baseline: BaselineValue | None
) -> tuple[ir.Model, Taken]:
    """A module's graph for any number of images, and the normalisation it began with.

    A module that reads the batch size as a number, say by len(x), makes torch's exporter fix it, or give up: its graph
    for one image is then opened as that of an `.onnx` file is.
    """
    sides = given.channels, given.height, given.width
    try:
        model = _export_module(module, (2, *sides), opset, open_batch=True)
    except ExportError:
        fixed = True
    else:
        fixed = model.graph.inputs[0].shape is None or isinstance(model.graph.inputs[0].shape[0], int)
    if fixed:
        model = _export_module(module, (1, *sides), opset, open_batch=False)
        model.graph.inputs[0].shape = ir.Shape(("N", *sides))
    taken = take_normalisation(model, "nchw", given, baseline)
    common_passes.RemoveUnusedNodesPass()(model)
    trace_batch(model, fixed=fixed)
    return model, taken


def _export_module(
    module: torch.nn.Module, shape: tuple[int, int, int, int], opset: int, *, open_batch: bool
) -> ir.Model:
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


def _within(bounds: Bounds, least: float, most: float) -> bool:
    """Whether bounds lie in a range, but for what float32 rounds."""
    return bounds[0] >= least - _BOUND_ROUNDING and bounds[1] <= most + _BOUND_ROUNDING


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
