"""Loading a classifier: a torchvision name, a callable that returns a module, a module, or an `.onnx` file."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ortcam.support.extras import install
from ortcam_export.errors import ExportError
from ortcam_export.sources.model_names import check_takes_checkpoint
from ortcam_export.sources.source import Source
from ortcam_export.sources.types import DEFAULT_WEIGHTS, BaselineValue, InputSpec

if TYPE_CHECKING:
    from ortcam_export.sources.types import Model

__all__ = ["open_source"]


def open_source(
    model: "Model",
    *,
    weights: str = DEFAULT_WEIGHTS,
    checkpoint: str | Path | None = None,
    spec: InputSpec | None = None,
) -> Source:
    """Load a classifier with its preprocessing and labels.

    Args:
        model: torchvision name, `package.module:callable`, path of an `.onnx` file, or a module.
        weights: "DEFAULT", a name among torchvision's weights of the model, or "none" for random ones.
        checkpoint: file with a state dict, plain or xz-compressed; loaded weights-only.
        spec: what the user says about input and classes; it overrides what the weights' metadata say.

    Raises:
        ExportError: unknown model, weights that cannot be loaded or do not fit, or what only the user can say.
    """
    spec = spec or InputSpec()
    source = _opened(model, weights, checkpoint, spec)
    beyond = _beyond_pixels(spec.baseline_value, source)
    return dataclasses.replace(source, baseline_value=spec.baseline_value, assumed=(*source.assumed, *beyond))


def _beyond_pixels(baseline: BaselineValue | None, source: Source) -> tuple[str, ...]:
    """What masks hide to where no sample of the model's range becomes it, as a sentence.

    Raises:
        ExportError: no pixel of 8 bits becomes it.
    """
    scale, span = source.preprocessing.scale, source.preprocessing.value_range
    if not isinstance(baseline, tuple) or (min(baseline) >= 0 and max(baseline) <= scale):
        return ()
    values = ",".join(f"{value:g}" for value in baseline)
    if span is None:
        white = "" if scale == 255 else "; --scale 255 goes with values of bytes"
        raise ExportError(
            f"--baseline-value {values}: accepted are 0 (black) to {scale:g} (white), as --mean has them{white}"
        )
    low, high = span
    sentence = (
        f"masks hide to {values}, which no sample becomes: {low:g} becomes 0 and {high:g} becomes {scale:g}; "
        "--baseline-value is in the units of --mean"
    )
    return (sentence,)


def _opened(model: "Model", weights: str, checkpoint: str | Path | None, spec: InputSpec) -> Source:
    if isinstance(model, (str, Path)) and str(model).lower().endswith(".onnx"):
        if checkpoint is not None:
            check_takes_checkpoint(model)
        try:
            from ortcam_export.sources.onnx_files.opening import open_onnx_file  # noqa: PLC0415 - only here, as PyTorch below
        except ModuleNotFoundError as error:
            raise _needs_extra(error, str(model), "onnx") from None
        return open_onnx_file(Path(model), spec)
    try:
        # Only here, so that an `.onnx` file needs no PyTorch.
        from ortcam_export.sources.pytorch.opening import open_torch_model  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _needs_extra(error, str(model) if isinstance(model, (str, Path)) else "the module", "export") from None
    return open_torch_model(model, weights=weights, checkpoint=checkpoint, spec=spec)


def _needs_extra(error: ModuleNotFoundError, model: str, extra: str) -> ExportError:
    """The sentence that names the command which helps, for a library that the export needs and that is missing."""
    return ExportError(f"{model}: {error}; {install(extra)} brings what exporting it needs")
