"""ONNX Runtime sessions: the execution providers asked for and those that ran, inputs that stay on the device."""

import dataclasses
import difflib
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
            order of preference; None takes CUDA where this ONNX Runtime has it, then the CPU.

    Raises:
        ProviderError: a name that this ONNX Runtime does not have; the message lists the ones it has.
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
        resolved.append((full, dict(options)))
    return tuple(resolved)


def open_session(path: str | os.PathLike[str], options: SessionOptions) -> Session:
    """Open a graph of a bundle.

    Raises:
        BundleError: ONNX Runtime does not accept the graph.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised, too
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    try:
        return Session(
            os.fspath(path), settings, providers=[(name, dict(values)) for name, values in options.providers]
        )
    except Exception as error:
        raise BundleError(f"{Path(path).name}: ONNX Runtime cannot open this graph: {first_line(error)}") from error


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
