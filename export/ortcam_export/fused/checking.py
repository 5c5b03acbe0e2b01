"""Check a fused file before it is put in its place: with onnx.checker, and against the runtime."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ortcam.bundle import Bundle
from ortcam.engine import Model, OnnxEngine
from ortcam.explainer import Explainer
from ortcam.explainer.scored import blank_scores
from ortcam.methods import Plan
from ortcam.parity import read_probe
from ortcam.request import ExplainRequest
from ortcam_export.errors import ExportError, first_line
from ortcam_export.fused.explainer_graph import ExplainerSpec, Masking
from ortcam_export.graphs.running import cpu_options

__all__ = ["baseline_scores", "check_model", "difference_by_rounding", "difference_from_runtime", "is_expression"]

_ROUNDINGS: Final = 4  # how often the last digits are moved


def check_model(path: Path, say: Callable[[str], None]) -> None:
    """Check a file with onnx.checker, and say which of its operators not every runtime has.

    Raises:
        ExportError: it does not.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # of onnx's own kinds, or of its C++ parts
        raise ExportError(f"onnx.checker refuses the file: {first_line(error)}. Nothing was written") from error
    model = onnx.load(path, load_external_data=False)
    own = {function.domain for function in model.functions}
    others = {opset.domain for opset in model.opset_import} - {"", "ai.onnx", *own}
    if others:
        say(f"the model has operators of {', '.join(sorted(others))}, which not every runtime has")


def baseline_scores(bundle: Bundle, request: ExplainRequest, plan: Plan) -> NDArray[np.float32] | None:
    """What the blank image gives, if the plan subtracts it: float32 [outputs], or [1] for an expression."""
    if not plan.baseline or plan.weighting != "probability":
        return None
    targets = np.array([-1]) if is_expression(request) else np.arange(bundle.manifest.outputs)
    with contextlib.closing(Model(bundle, OnnxEngine(bundle, cpu_options()))) as model:
        return blank_scores(request, bundle.manifest, targets, model.blank_logits())


def is_expression(request: ExplainRequest) -> bool:
    """Whether one score is explained in place of classes."""
    return request.score is not None and request.score.word is None


def difference_from_runtime(bundle: Bundle, request: ExplainRequest, spec: ExplainerSpec, path: Path) -> float | None:
    """Measure the largest difference of the file's maps from the runtime's, on the bundle's probe."""
    if bundle.manifest.probe is None:
        return None
    with contextlib.closing(_explainer(bundle, spec)) as explainer:
        image, values = _probe(bundle, spec)
        explanation = explainer.explain_request(_of_some_classes(bundle, request, spec), preprocessed=values)
        inputs: dict[str, NDArray[Any]] = {"image": image if spec.uint8_input else values}
    if spec.top_k is None:
        inputs["classes"] = np.array(explanation.targets, np.int64)
    try:
        session = onnxruntime.InferenceSession(
            path, providers=["CPUExecutionProvider"]
        )  # as users open it, warnings too
        targets, saliency = session.run(["targets", "saliency"], inputs)
    except Exception as error:  # ONNX Runtime raises its own types
        raise ExportError(f"ONNX Runtime does not run the file: {first_line(error)}. Nothing was written") from error
    if tuple(targets) != explanation.targets:
        raise ExportError(
            f"the file explains the classes {targets.tolist()} and the runtime {list(explanation.targets)}. "
            "Nothing was written"
        )
    return float(np.abs(saliency - explanation.maps).max())


def difference_by_rounding(bundle: Bundle, request: ExplainRequest, spec: ExplainerSpec) -> float:
    """Measure how far the runtime's own maps move when the last digit of each input value does, on the bundle's probe.

    Weights may have a denominator that vanishes, such as that of Grad-CAM++ where features are of either sign. Then
    rounding decides about the map, and two files that round differently cannot agree better than this.
    """
    request = _of_some_classes(bundle, request, spec)
    generator = np.random.default_rng(0)
    with contextlib.closing(_explainer(bundle, spec)) as explainer:
        _, values = _probe(bundle, spec)
        maps = explainer.explain_request(request, preprocessed=values).maps
        largest = 0.0
        for _ in range(_ROUNDINGS):
            towards = np.where(generator.random(values.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
            moved = explainer.explain_request(request, preprocessed=np.nextafter(values, towards))
            largest = max(largest, float(np.abs(moved.maps - maps).max()))
    return largest


def _explainer(bundle: Bundle, spec: ExplainerSpec) -> Explainer:
    return Explainer(bundle, cpu_options(), precision=spec.how.precision if isinstance(spec.how, Masking) else None)


def _probe(bundle: Bundle, spec: ExplainerSpec) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """An image of the probe, and the model's input float32 [1,C,H,W] that the preprocessing makes of it.

    The image is of a size and shape of its own where the file resizes and crops: uint8 [h,w,3], or the samples float32
    [h,w,C] that a model with a value range takes.
    """
    preprocessing = bundle.manifest.preprocessing
    levels = read_probe(bundle)[0][0]  # uint8 [H,W,C]
    if not spec.uint8_input:
        return levels, preprocessing.of_levels(levels)
    image: NDArray[Any] = np.ascontiguousarray(levels.repeat(2, axis=1)[:, 3:])
    if preprocessing.value_range is not None:
        low, high = preprocessing.value_range
        image = (low + image.astype(np.float64) / 255 * (high - low)).astype(np.float32)
    elif preprocessing.channels == 1:
        image = image.repeat(3, axis=2)  # whose grey is the same level
    return image, preprocessing(image)


def _of_some_classes(bundle: Bundle, request: ExplainRequest, spec: ExplainerSpec) -> ExplainRequest:
    if spec.top_k is not None:
        return request
    return dataclasses.replace(request, top_k=min(2, bundle.manifest.outputs))
