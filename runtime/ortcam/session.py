"""ONNX Runtime sessions: the execution providers asked for and those that ran, inputs that stay on the device."""

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import BundleError, OptionError, ProviderError

try:
    import onnxruntime as ort
    from onnxruntime import InferenceSession as Session
except ImportError as error:  # pragma: no cover - exercised in a subprocess
    raise ImportError(
        "ortcam needs an ONNX Runtime: install `ortcam[cpu]` (any machine) or `ortcam[gpu]` (NVIDIA CUDA)"
    ) from error

__all__ = [
    "Bound",
    "Provider",
    "Session",
    "SessionOptions",
    "first_line",
    "open_session",
    "resolve_providers",
    "runtime_version",
]

# ONNX Runtime's own form: a name, or a name with that provider's options.
Provider = str | tuple[str, Mapping[str, Any]]

_DEFAULT_ORDER: Final = ("CUDAExecutionProvider", "CPUExecutionProvider")
_SUFFIX: Final = "ExecutionProvider"
_OPENVINO: Final = "OpenVINOExecutionProvider"
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
_CUDA_DEVICES: Final = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")


@dataclasses.dataclass(frozen=True)
class SessionOptions:
    """How sessions are opened.

    Attributes:
        providers: execution providers in order of preference, already resolved to full names.
        threads: threads inside an operator; None leaves the choice to ONNX Runtime (physical cores).
    """

    providers: tuple[tuple[str, Mapping[str, Any]], ...]
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise OptionError(
                f"threads={self.threads!r}: accepted is a whole number from 1, or None for physical cores"
            )


def runtime_version() -> str:
    """The version of the ONNX Runtime in use."""
    return str(ort.__version__)


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
        name, options = (provider, {}) if isinstance(provider, str) else provider
        full = by_short_name.get(name.lower().removesuffix(_SUFFIX.lower()))
        if full is None:
            close = difflib.get_close_matches(name.lower(), by_short_name, n=1)
            hint = f"; did you mean {by_short_name[close[0]]!r}?" if close else ""
            raise ProviderError(
                f"execution provider {name!r} is not available; this onnxruntime {ort.__version__} has "
                f"{', '.join(available)}{hint}"
            )
        resolved.append((full, _openvino_options(options) if full == _OPENVINO else dict(options)))
    return tuple(resolved)


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


def open_session(path: str | os.PathLike[str], options: SessionOptions) -> Session:
    """Open a graph of a bundle.

    Raises:
        ProviderError: the first provider does not accept the options that were given for it.
        BundleError: ONNX Runtime does not accept the graph.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised, too
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    providers = [(name, dict(values)) for name, values in options.providers]
    for name, values in providers:
        if name == _OPENVINO and options.threads is not None:
            values.setdefault("num_of_threads", str(options.threads))  # it has a pool of its own
    first, wanted = options.providers[0]
    try:
        # With options of its own a provider that cannot be had is an error: the CPU would run without them, unnoticed.
        session = Session(os.fspath(path), settings, providers=providers, enable_fallback=0 if wanted else 1)
    except Exception as error:
        if wanted and first.removesuffix(_SUFFIX) in str(error) and "option" in str(error):
            raise ProviderError(f"{first} does not accept its options: {first_line(error)}") from error
        raise BundleError(f"{Path(path).name}: ONNX Runtime cannot open this graph: {first_line(error)}") from error
    if wanted and first not in session.get_providers():
        raise ProviderError(f"{first} cannot be had with the options {dict(wanted)}")
    return session


def first_line(error: Exception) -> str:
    """The first line of an error's message, for errors of ONNX Runtime, whose messages are long."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Bound:
    """A session with inputs that are put on its device once and used by many runs."""

    def __init__(self, session: Session, *, outputs: Sequence[str]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._outputs = tuple(outputs)
        self._inputs = {item.name for item in session.get_inputs()}
        provider = session.get_providers()[0]
        settings = session.get_provider_options().get(provider, {})
        self._device = "cuda" if provider in _CUDA_DEVICES else "cpu"
        self._device_id = int(settings.get("device_id", 0)) if provider in _CUDA_DEVICES else 0

    def put(self, name: str, value: NDArray[Any]) -> None:
        """Place an input on the device; it stays there until it is put again. Inputs the graph lacks are ignored."""
        if name in self._inputs:
            placed = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), self._device, self._device_id)
            self._binding.bind_ortvalue_input(name, placed)

    def run(self) -> tuple[NDArray[Any], ...]:
        """Run on the inputs in place; the outputs come back on the CPU, in the order given to the constructor."""
        for name in self._outputs:
            self._binding.bind_output(name, "cpu")
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime raises its own types
            raise ProviderError(
                f"ONNX Runtime cannot run this graph: {first_line(error)}; where memory ran out, a smaller batch size "
                "helps"
            ) from error
        return tuple(self._binding.copy_outputs_to_cpu())
