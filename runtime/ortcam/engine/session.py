"""ONNX Runtime sessions: the execution providers asked for and those that ran, inputs that stay on the device."""

import contextlib
import dataclasses
import functools
import io
import json
import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Graph
from ortcam.engine.memory import give_back
from ortcam.engine.processors import usable_cores
from ortcam.engine.telemetry import decline_telemetry
from ortcam.errors import BundleError, OptionError, OutOfMemoryError, ProviderError
from ortcam.support.extras import end_the_command, install, runtimes
from ortcam.support.ranges import THREADS
from ortcam.support.suggestions import suggestions

decline_telemetry()
try:
    import onnxruntime as ort
    from onnxruntime import InferenceSession as Session
except ImportError as error:  # pragma: no cover - exercised in a subprocess
    is_missing = isinstance(error, ModuleNotFoundError)
    reason = "which is not installed" if is_missing else f"which cannot be imported here ({error})"
    message = f"ortcam needs an ONNX Runtime, {reason}: {runtimes()}"
    end_the_command(message)  # which has no use for a traceback
    raise ImportError(message) from error

__all__ = [
    "Bound",
    "Provider",
    "Session",
    "SessionOptions",
    "SharedSession",
    "first_line",
    "open_session",
    "readable_errors",
    "resolve_providers",
    "runtime_version",
    "share_session",
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
_CPU: Final = "CPUExecutionProvider"
# Of providers by their short names: the extra of ortcam that brings them, and the package that has them.
_EXTRA_OF: Final = {"cuda": "gpu", "tensorrt": "gpu", "openvino": "openvino"}
_BUILDS: Final = {"cuda": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}

# A folder that cannot be: below a file.
_NOWHERE: Final = str(Path(os.devnull, "nowhere"))

# What ONNX Runtime, CUDA and cuDNN say when memory runs out; lower case.
_OUT_OF_MEMORY: Final = (
    "failed to allocate memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
    "memory allocation failure",
)


@dataclasses.dataclass(frozen=True)
class SessionOptions:
    """How sessions are opened.

    Attributes:
        providers: execution providers in order of preference, already resolved to full names.
        threads: threads inside an operator; None takes the physical cores that the process may use by its affinity and
            its control group's quota.
        low_memory: give memory back after every run and take no more than asked for: slower, for small devices.
    """

    providers: tuple[tuple[str, Mapping[str, Any]], ...]
    threads: int | None = None
    low_memory: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None:
            THREADS.check(self.threads)


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
        resolved.append((full, _openvino_options(given) if full == _OPENVINO else given))
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


class SharedSession:
    """A session that all who open the same graph in the same way have in common, with its threads and its memory."""

    __slots__ = ("__weakref__", "session")

    def __init__(self, session: Session) -> None:
        self.session = session


# What is open; the last one who lets go of a session closes it.
_shared: "weakref.WeakValueDictionary[str, SharedSession]" = weakref.WeakValueDictionary()
_opening = threading.Lock()


def _after_fork() -> None:
    """Give a child a lock of its own: the thread that held the parent's may not exist there."""
    global _opening  # noqa: PLW0603
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share_session(graph: Graph, options: SessionOptions) -> SharedSession:
    """Open a graph, or take the session in which somebody in this process has opened the same bytes in the same way.

    ONNX Runtime gives every session threads and memory of its own. Explainers of one model need them once: runs of a
    session may overlap. Only sessions that run on the CPU alone are shared: on a device a session keeps more than its
    graph.

    Raises:
        ProviderError: the first provider does not accept the options that were given for it.
        BundleError: ONNX Runtime does not accept the graph.
        OutOfMemoryError: its weights do not fit into the device's memory.
    """
    if any(name != _CPU for name, _ in options.providers):
        return SharedSession(open_session(graph, options))
    providers = [[name, dict(values)] for name, values in options.providers]
    files = {name: content.sha256 for name, content in graph.files.items()}
    key = json.dumps([graph.model.sha256, files, providers, _threads(options), options.low_memory])
    with _opening:
        shared = _shared.get(key)
        if shared is None:
            shared = _shared[key] = SharedSession(open_session(graph, options))
        return shared


def open_session(graph: Graph | str | os.PathLike[str], options: SessionOptions) -> Session:
    """Open a graph: one of a bundle, whose bytes were verified, or a file that this process has just written.

    A provider that this ONNX Runtime has but that cannot start (no driver, no CUDA libraries) is left out with one
    warning; `get_providers()` of the session says which ones run.

    Raises:
        ProviderError: the first provider does not accept the options that were given for it.
        BundleError: ONNX Runtime does not accept the graph.
        OutOfMemoryError: its weights do not fit into the device's memory.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised, too
    # Threads that spin between runs take the cores from whatever happens there.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    threads = _threads(options)
    if threads is not None:
        settings.intra_op_num_threads = threads
    wanted = {name: dict(values) for name, values in options.providers}
    if any(name in _CUDA_DEVICES for name in wanted):
        _preload_cuda()
    if options.low_memory:
        settings.enable_cpu_mem_arena = False
        settings.enable_mem_pattern = False
        if "CUDAExecutionProvider" in wanted:
            wanted["CUDAExecutionProvider"].setdefault("arena_extend_strategy", "kSameAsRequested")
    if _OPENVINO in wanted and options.threads is not None:
        wanted[_OPENVINO].setdefault("num_of_threads", str(options.threads))  # it has a pool of its own
    model = _model(graph, settings)
    name = graph.name if isinstance(graph, Graph) else Path(graph).name
    failure = "it was left out without a word"
    try:
        # Without ONNX Runtime's own fallback, which prints.
        session = _create(model, settings, providers=list(wanted.items()), enable_fallback=0)
    except Exception as error:
        failure = first_line(error)
        if _is_out_of_memory(error):
            raise OutOfMemoryError(f"{name}: this graph does not fit into memory: {failure}") from error
        for provider, values in wanted.items():
            if values and provider.removesuffix(_SUFFIX) in failure and "option" in failure:
                raise ProviderError(f"{provider} does not accept its options: {failure}") from error
        try:
            session = _create(model, settings, providers=[_CPU], enable_fallback=0)
        except Exception:  # noqa: BLE001 - then it is not the provider's fault
            raise BundleError(f"{name}: ONNX Runtime cannot open this graph: {failure}") from error
    give_back()  # opening takes a multiple of what stays
    running = session.get_providers()
    if missing := [provider for provider in wanted if provider not in running]:
        _warn_once(tuple(missing), running[0], failure)
    return session


def _model(graph: Graph | str | os.PathLike[str], settings: Any) -> bytes | str:
    """What ONNX Runtime is to open; of a bundle's graph the bytes themselves, and nothing from any disk."""
    if not isinstance(graph, Graph):
        return os.fspath(graph)
    contents = [content.data for content in graph.files.values()]
    if contents:
        settings.add_external_initializers_from_files_in_memory([*graph.files], contents, [*map(len, contents)])
    # Where it would look for a file that is not among them: the working directory, if nothing were said.
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    settings.add_session_config_entry("session.load_model_format", "ONNX")  # which alone has been looked at
    return graph.model.data


def _create(model: bytes | str, settings: Any, **others: Any) -> Session:
    """A session, with the threads of the process where the user has made such (`set_global_thread_pool_sizes`).

    Then ONNX Runtime refuses sessions with threads of their own. ortcam does not make them by itself: every other
    session in the process that does not ask for them, whoever opens it, would be refused from then on.
    """
    try:
        return Session(model, settings, **others)
    except Exception as error:
        if "use_per_session_threads" not in str(error):
            raise
    settings.use_per_session_threads = False
    settings.intra_op_num_threads = 0  # another number is ignored with a message
    return Session(model, settings, **others)


def _threads(options: SessionOptions) -> int | None:
    """Threads inside an operator; None leaves the choice to ONNX Runtime, which knows no affinity and no quota."""
    return usable_cores() if options.threads is None else int(options.threads)


@functools.cache
def _warn_once(missing: tuple[str, ...], running: str, failure: str) -> None:
    warnings.warn(
        f"{', '.join(missing)} cannot start ({failure}); {running} runs instead", RuntimeWarning, stacklevel=4
    )


@functools.cache
def _preload_cuda() -> None:
    """Load the CUDA and cuDNN libraries that pip installed, so that none have to be installed on the system."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; the session says so, too
            preload()


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


def first_line(error: Exception) -> str:
    """The first line of an error's message, for errors of ONNX Runtime, whose messages are long."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Bound:
    """A session with inputs that are put on its device once and used by many runs.

    What is put stays at its address, where the next value of the same shape overwrites it, and so do the outputs. So
    with the CUDA provider's option `enable_cuda_graph` a run can be captured as a CUDA graph, one for every combination
    of shapes, and replayed: such a `Bound` has to live as long as its session.
    """

    def __init__(self, session: Session, *, outputs: Sequence[str]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._outputs = tuple(outputs)
        self._inputs = {item.name: item.shape for item in session.get_inputs()}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._placed: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._graphs: dict[tuple[tuple[int, ...], ...], tuple[Any, list[Any]]] = {}
        self._options: Any = None
        self._new_shapes = True
        options = session.get_provider_options()
        self.providers = [(name, options.get(name, {})) for name in session.get_providers()]
        provider, settings = self.providers[0]
        self.on_gpu = provider in _CUDA_DEVICES
        # Every new shape is planned and tuned anew, on a GPU and by providers that compile.
        self.fixed_shape = provider != _CPU
        self._device = "cuda" if self.on_gpu else "cpu"
        self._device_id = int(settings.get("device_id", 0)) if self.on_gpu else 0
        self.captures = self.on_gpu and str(settings.get("enable_cuda_graph", 0)).lower() in ("1", "true")

    def put(self, name: str, value: NDArray[Any]) -> None:
        """Place a copy of an input on the device, where it stays until it is put again; ignored if the graph lacks it.

        Raises:
            OutOfMemoryError: it does not fit into memory.
        """
        if name not in self._inputs:
            return
        value = np.ascontiguousarray(value)
        place = self._placed.get((name, value.shape))
        if place is not None:
            place.update_inplace(value)
            if self._shapes[name] == value.shape:
                return
        else:
            with readable_errors("place an input"):
                # On the CPU the memory is that of the array: a copy is overwritten, never what the caller has.
                place = ort.OrtValue.ortvalue_from_numpy(value.copy(), self._device, self._device_id)
            if not self.captures:
                self._placed.pop((name, self._shapes.get(name, ())), None)
            self._placed[name, value.shape] = place
        self._binding.bind_ortvalue_input(name, place)
        self._shapes[name] = value.shape
        self._new_shapes = True

    def run(self) -> tuple[NDArray[Any], ...]:
        """Run on the inputs in place; the outputs come back on the CPU, in the order given to the constructor.

        Raises:
            OutOfMemoryError: the run did not fit into memory.
            ProviderError: whatever else ONNX Runtime could not do.
        """
        with readable_errors("run this graph"):
            if self._new_shapes:
                self._bind_outputs()
            self._new_shapes = True  # unless all goes well
            self._session.run_with_iobinding(self._binding, self._options)
            outputs = tuple(self._binding.copy_outputs_to_cpu())
            self._new_shapes = False
        return outputs

    def _bind_outputs(self) -> None:
        if not self.captures:
            for name in self._outputs:
                self._binding.bind_output(name, "cpu")
            return
        key = tuple(self._shapes.values())
        if key not in self._graphs:
            options = ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(len(self._graphs) + 1))
            places = [
                ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self._device, self._device_id)
                for shape in self._output_shapes()
            ]
            self._graphs[key] = options, places
        self._options, places = self._graphs[key]
        for name, place in zip(self._outputs, places, strict=True):
            self._binding.bind_ortvalue_output(name, place)

    def _output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs, their open dimensions (B, K) taken from the inputs in place."""
        sizes = {
            symbol: size
            for name, shape in self._shapes.items()
            for symbol, size in zip(self._inputs[name], shape, strict=True)
        }
        shapes = {item.name: item.shape for item in self._session.get_outputs()}
        return [tuple(sizes.get(size, size) for size in shapes[name]) for name in self._outputs]


@contextlib.contextmanager
def readable_errors(doing: str) -> Iterator[None]:
    """Raise what this package documents instead of what ONNX Runtime raises, which has types of its own.

    Raises:
        OutOfMemoryError: that is what went wrong.
        ProviderError: anything else did.
    """
    try:
        yield
    except Exception as error:
        if _is_out_of_memory(error):
            raise OutOfMemoryError(f"out of memory: {first_line(error)}") from error
        raise ProviderError(f"ONNX Runtime cannot {doing}: {first_line(error)}") from error
