"""Execution providers: names and options as ONNX Runtime takes them, and hints about those that are not installed."""

import contextlib
import functools
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ortcam.engine.runtime import ort
from ortcam.errors import OptionError, ProviderError
from ortcam.support.extras import install
from ortcam.support.suggestions import suggestions

__all__ = ["CPU", "CUDA_DEVICES", "OPENVINO", "Provider", "preload_cuda", "resolve_providers", "warn_left_out"]

# ONNX Runtime's own form: a name, or a name with that provider's options.
Provider = str | tuple[str, Mapping[str, Any]]

CPU: Final = "CPUExecutionProvider"
OPENVINO: Final = "OpenVINOExecutionProvider"
CUDA_DEVICES: Final = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")

_DEFAULT_ORDER: Final = ("CUDAExecutionProvider", "CPUExecutionProvider")
_SUFFIX: Final = "ExecutionProvider"
# Short spellings of what OpenVINO computes in; ONNX Runtime's provider knows the upper-case names by itself.
_OPENVINO_PRECISIONS: Final = {
    "fp32": "FP32",
    "f32": "FP32",
    "float32": "FP32",
    "fp16": "FP16",
    "f16": "FP16",
    "float16": "FP16",
    "accuracy": "ACCURACY",
    "bf16": "bf16",
    "bfloat16": "bf16",
}
# Of providers by their short names: the extra of ortcam that brings them, and the package that has them.
_EXTRA_OF: Final = {"cuda": "gpu", "tensorrt": "gpu", "openvino": "openvino"}
_BUILDS: Final = {"cuda": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}


def resolve_providers(providers: Sequence[Provider] | None) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Full names and options of the providers to use.

    Args:
        providers: names (`"CUDAExecutionProvider"`, or short and in any case: `"cuda"`) or (name, options) pairs, in
            order of preference; None takes CUDA where this ONNX Runtime has it, then the CPU. OpenVINO's `precision`
            may be spelled "fp32", "bf16", "accuracy" or, on a GPU or NPU, "fp16".

    Raises:
        ProviderError: a name that this ONNX Runtime does not have; the message lists the ones it has.
        OptionError: a precision that OpenVINO does not have.
    """
    available = ort.get_available_providers()
    if providers is None:
        return tuple((name, {}) for name in _DEFAULT_ORDER if name in available)
    if isinstance(providers, str) or not providers:
        raise ProviderError(f"providers={providers!r}: accepted is a list of one or more of {', '.join(available)}")
    by_short_name = {name.removesuffix(_SUFFIX).lower(): name for name in available}
    resolved = []
    for provider in providers:
        name, options = (provider, {}) if isinstance(provider, str) else _pair(provider)
        full = by_short_name.get(name.lower().removesuffix(_SUFFIX.lower()))
        if full is None:
            hint = _provider_hint(name.lower().removesuffix(_SUFFIX.lower()), by_short_name)
            raise ProviderError(
                f"execution provider {name!r} is not available; this onnxruntime {ort.__version__} has "
                f"{', '.join(available)}{hint}"
            )
        # ONNX Runtime makes text of them, too.
        given = {key: str(value) for key, value in options.items()}
        resolved.append((full, _openvino_options(given) if full == OPENVINO else given))
    return tuple(resolved)


def _provider_hint(name: str, available: Mapping[str, str]) -> str:
    """The end of the message about a provider that is not there: the extra that brings it, or what was meant."""
    close = suggestions(name, [*available, *_EXTRA_OF])
    if not close:
        return ""
    if close[0] in available:
        return f"; did you mean {available[close[0]]!r}?"
    installed = next((_BUILDS[short] for short in available if short in _BUILDS), "onnxruntime")
    return f"; for {close[0]}: pip uninstall {installed}, then {install(_EXTRA_OF[close[0]])}"


def _pair(provider: object) -> tuple[str, Mapping[str, Any]]:
    match provider:
        case (str(name), Mapping() as options):
            return name, options
    raise ProviderError(f"provider {provider!r}: accepted is a name, or a pair of a name and its options")


def _openvino_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """OpenVINO's options as its provider takes them: its `precision` has no bfloat16, its configuration has.

    Raises:
        OptionError: a precision that it does not have.
    """
    given = dict(options)
    if "precision" not in given:
        return given
    device = str(given.get("device_type", "CPU")).partition(".")[0].upper()
    precision = _OPENVINO_PRECISIONS.get(str(given["precision"]).lower())
    if precision is None or (precision == "FP16" and device == "CPU"):
        raise OptionError(
            f"OpenVINO's precision={given['precision']!r}: accepted is fp32, bf16, accuracy, or fp16 on a GPU or NPU"
        )
    if precision != "bf16":
        return given | {"precision": precision}
    if "load_config" in given:
        raise OptionError("OpenVINO's precision=bf16 and load_config: give one or the other")
    del given["precision"]
    return given | {"load_config": json.dumps({device: {"INFERENCE_PRECISION_HINT": "bf16"}})}


@functools.cache
def warn_left_out(missing: tuple[str, ...], running: str, failure: str) -> None:
    """Warn of providers that cannot start, once in a process."""
    warnings.warn(
        f"{', '.join(missing)} cannot start ({failure}); {running} runs instead", RuntimeWarning, stacklevel=4
    )


@functools.cache
def preload_cuda() -> None:
    """Load the CUDA and cuDNN libraries that pip installed, so that none have to be installed on the system."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; the session says so, too
            preload()
