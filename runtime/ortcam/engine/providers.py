"""Execution providers: names and options as ONNX Runtime takes them, and hints about those that are not installed."""

import contextlib
import functools
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ortcam.engine.plugins import OPENVINO, choose_devices, plugin_devices, plugin_named, plugin_options
from ortcam.engine.runtime import ort
from ortcam.errors import OptionError, ProviderError
from ortcam.support.extras import install
from ortcam.support.suggestions import suggestions

__all__ = [
    "CPU",
    "CUDA_DEVICES",
    "OPENVINO",
    "Provider",
    "add_providers",
    "preload_cuda",
    "resolve_providers",
    "warn_left_out",
]

# ONNX Runtime's own form: a name, or a name with that provider's options.
Provider = str | tuple[str, Mapping[str, Any]]

CPU: Final = "CPUExecutionProvider"
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
# Providers whose extra lies beside the ONNX Runtime for the CPU, in place of no other build.
_PLUGINS: Final = ("openvino",)
# Plugins that no extra brings, because they are not for every machine.
_WHEELS: Final = {"qnn": "onnxruntime-qnn"}


def resolve_providers(providers: Sequence[Provider] | None) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Full names and options of the providers to use.

    Args:
        providers: names (`"CUDAExecutionProvider"`, or short and in any case: `"cuda"`) or (name, options) pairs, in
            order of preference; None takes CUDA where this ONNX Runtime has it, then the CPU. A name may also be that
            of a plugin: of an installed wheel `onnxruntime-ep-NAME`, or registered with ONNX Runtime by the caller.
            `device_type` in its options ("CPU", "GPU", "NPU", "GPU.1") picks one of its devices. OpenVINO's `precision`
            may be spelled "fp32", "bf16", "accuracy" or, on a GPU or NPU, "fp16".

    Raises:
        ProviderError: a name that this ONNX Runtime does not have, or a device that this machine does not have; the
            message lists what there is.
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
        short = name.lower().removesuffix(_SUFFIX.lower())
        built_in = by_short_name.get(short)
        full = built_in or plugin_named(short)
        if full is None:
            hint = _provider_hint(short, by_short_name)
            raise ProviderError(
                f"execution provider {name!r} is not available; this onnxruntime {ort.__version__} has "
                f"{', '.join(available)}{hint}"
            )
        # ONNX Runtime makes text of them, too.
        given = {key: str(value) for key, value in options.items()}
        resolved.append((full, _openvino_options(given) if full == OPENVINO else given))
        if built_in is None or plugin_devices(full):
            choose_devices(full, given)
    return tuple(resolved)


def _provider_hint(name: str, available: Mapping[str, str]) -> str:
    """The end of the message about a provider that is not there: what brings it, or what was meant."""
    close = suggestions(name, [*available, *_EXTRA_OF, *_WHEELS])
    if not close:
        return ""
    if close[0] in available:
        return f"; did you mean {available[close[0]]!r}?"
    if close[0] in _WHEELS:
        return f"; for {close[0]}: pip install {_WHEELS[close[0]]}"
    installed = next((_BUILDS[short] for short in available if short in _BUILDS), "onnxruntime")
    command = install(_EXTRA_OF[close[0]])
    if installed == "onnxruntime" and close[0] in _PLUGINS:
        return f"; for {close[0]}: {command}"
    return f"; for {close[0]}: pip uninstall {installed}, then {command}"


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


def add_providers(settings: Any, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Put plugins into the options of a session; the arguments of `onnxruntime.InferenceSession` say the rest.

    Args:
        settings: `onnxruntime.SessionOptions`, which is changed where a plugin is among the providers.
        wanted: full name -> options, in order of preference.

    Raises:
        ProviderError: a plugin has no such device here.
    """
    for name in wanted:
        if name not in ort.get_available_providers():  # say, in a process that a pickle has reached
            plugin_named(name.lower().removesuffix(_SUFFIX.lower()))
    plugins = [name for name in wanted if plugin_devices(name)]
    # Without ONNX Runtime's own fallback, which prints.
    arguments: dict[str, Any] = {"enable_fallback": 0}
    if not plugins:
        return arguments | {"providers": [(name, dict(options)) for name, options in wanted.items()]}
    for name, options in wanted.items():
        if name in plugins:
            settings.add_provider_for_devices(choose_devices(name, options), plugin_options(name, options))
        else:
            settings.add_provider(name, dict(options))
    return arguments


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
