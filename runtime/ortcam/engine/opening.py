"""How a graph is opened with ONNX Runtime: its settings, its bytes, the providers, and what to say when it fails."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ortcam.bundle import Bundle, Graph
from ortcam.bundle.graph_contents import GraphReader
from ortcam.engine.forking import after_fork
from ortcam.engine.memory import MemoryLimit, give_back
from ortcam.engine.processors import usable_cores
from ortcam.engine.providers import CPU, CUDA_DEVICES, OPENVINO, add_providers, preload_cuda
from ortcam.engine.runtime import is_out_of_memory, ort
from ortcam.errors import BundleError, OutOfMemoryError, ProviderError
from ortcam.support.ranges import MEMORY_LIMIT, THREADS, check_flags
from ortcam.support.terminal import first_line

__all__ = ["GraphSource", "LeftOut", "SessionOptions", "open_graph"]

# A graph of a bundle, or the path of a file.
GraphSource = Graph | str | os.PathLike[str]

# A line of OpenVINO's errors that is the place in its source where it was raised.
_PLACE: Final = re.compile(r"Exception from \S+:\d+:$")

# In what ONNX Runtime says: the failure of a call of CUDA's, among places, hosts and expressions; and where its own
# words begin, behind a place in its source and a signature.
_CUDA_FAILURE: Final = re.compile(r"(CUDA|CUDNN|CUBLAS) failure \d+: [^;]*")
_OWN_WORDS: Final = "[ONNXRuntimeError]"

# numpy's type, by TensorProto.DataType.
_DTYPES: Final = {
    number: np.dtype(name)
    for number, name in enumerate(
        ("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "", "bool", "float16", "float64", "uint32"), 1
    )
    if name
}

# A folder that cannot be: below a file.
_NOWHERE: Final = str(Path(os.devnull, "nowhere"))

# Providers of devices that have run here; and in a process that was forked those that had run before.
_started: set[str] = set()
_started_before_fork: set[str] = set()
_FORKED: Final = "it ran before this process was forked, and that it does not survive: start processes with `spawn`"


@after_fork
def _lose_devices() -> None:
    _started_before_fork.update(_started)


@dataclasses.dataclass(frozen=True)
class SessionOptions:
    """How sessions are opened.

    Attributes:
        providers: execution providers in order of preference, already resolved to full names.
        threads: threads inside an operator; None takes the physical cores that the process may use by its affinity and
            its control group's quota.
        low_memory: give memory back after every run and take no more than asked for: slower, for small devices.
        strict_providers: a provider that cannot start is an error instead of a warning.
        memory_limit: megabytes that this process may have at its peak, or all of a limit; None: as many as there are.
    """

    providers: tuple[tuple[str, Mapping[str, Any]], ...]
    threads: int | None = None
    low_memory: bool = False
    strict_providers: bool = False
    memory_limit: int | MemoryLimit | None = None

    def __post_init__(self) -> None:
        if self.threads is not None:
            THREADS.check(self.threads)
        if self.memory_limit is not None and not isinstance(self.memory_limit, MemoryLimit):
            MEMORY_LIMIT.check(self.memory_limit)
        check_flags(low_memory=self.low_memory, strict_providers=self.strict_providers)

    @property
    def limit(self) -> MemoryLimit | None:
        """The limit of the process's memory, where there is one."""
        limit = self.memory_limit
        return limit if limit is None or isinstance(limit, MemoryLimit) else MemoryLimit(limit)

    def fitted(
        self, bundle: Bundle, precision: str | None, *, masks: bool = True
    ) -> "tuple[SessionOptions, str | None]":
        """The options and the precision with which a bundle stays below the limit; as they are where there is none.

        Args:
            bundle: that will be opened.
            precision: of the scorers; None takes the first that fits.
            masks: whether images will be masked.

        Raises:
            MemoryLimitError: it cannot fit.
            OptionError: the system does not say what the process has.
        """
        if self.limit is None:
            return self, precision
        plan = self.limit.plan(bundle, precision, low_memory=self.low_memory, masks=masks)
        return dataclasses.replace(self, low_memory=plan.low_memory), plan.precision

    @property
    def on_cpu_alone(self) -> bool:
        """Whether no provider but the CPU's is asked for."""
        return all(name == CPU for name, _ in self.providers)

    @property
    def operator_threads(self) -> int | None:
        """Threads inside an operator; None leaves it to ONNX Runtime, which knows no affinity and no quota."""
        return usable_cores() if self.threads is None else int(self.threads)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Providers that were asked for and do not run, and why."""

    providers: tuple[str, ...] = ()
    failure: str = ""


def open_graph(graph: GraphSource, options: SessionOptions) -> tuple[Any, LeftOut]:
    """Open a graph: one of a bundle, whose bytes were verified, or a file that this process has just written.

    Returns:
        The `onnxruntime.InferenceSession`, and the providers that do not run on it.

    Raises:
        ProviderError: a provider does not accept the options that were given for it, or cannot start where
            `strict_providers` says that it must.
        BundleError: ONNX Runtime does not accept the graph.
        OutOfMemoryError: its weights do not fit into the device's memory.
    """
    name = graph.name if isinstance(graph, Graph) else Path(graph).name
    lost = [provider for provider, _ in options.providers if provider in _started_before_fork]
    wanted = {provider: values for provider, values in _wanted(options).items() if provider not in lost}
    failure = "it was left out without a word"
    try:
        runtime = _attempt(graph, options, wanted or {CPU: {}})
    except ProviderError:
        raise
    except Exception as error:
        failure = _cause(error)
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"{name}: this graph does not fit into memory: {failure}") from error
        refused = _refused_options(graph, options, wanted)
        if refused is not None:
            raise ProviderError(f"{refused} does not accept its options: {failure}") from error
        try:
            runtime = _attempt(graph, options, {CPU: {}})
        except Exception:  # noqa: BLE001 - then it is not the provider's fault
            raise BundleError(f"{name}: ONNX Runtime cannot open this graph: {failure}") from error
    give_back()  # opening takes a multiple of what stays
    running = runtime.get_providers()
    _started.update(provider for provider in running if provider != CPU)
    missing = tuple(provider for provider, _ in options.providers if provider not in running)
    failure = _FORKED if lost else failure
    if missing and options.strict_providers:
        raise ProviderError(f"{', '.join(missing)} cannot start ({failure}), and strict_providers accepts no other")
    return runtime, LeftOut(missing, failure)


def _cause(error: Exception) -> str:
    """What an error of ONNX Runtime says, in one line, without the places in the source that stand before it."""
    lines = [line for line in str(error).splitlines() if line.strip() and not _PLACE.search(line)]
    if not lines:
        return first_line(error)
    failure = _CUDA_FAILURE.search(lines[0])
    if failure is not None:
        return failure[0].strip()
    return lines[0][max(lines[0].find(_OWN_WORDS), 0) :].strip()


def _wanted(options: SessionOptions) -> dict[str, dict[str, Any]]:
    """Providers with their options, and with those that follow from how sessions are opened."""
    wanted = {name: dict(values) for name, values in options.providers}
    if options.low_memory and "CUDAExecutionProvider" in wanted:
        wanted["CUDAExecutionProvider"].setdefault("arena_extend_strategy", "kSameAsRequested")
    if OPENVINO in wanted and options.threads is not None:
        wanted[OPENVINO].setdefault("num_of_threads", str(options.threads))  # it has a pool of its own
    return wanted


def _attempt(graph: GraphSource, options: SessionOptions, wanted: Mapping[str, Mapping[str, Any]]) -> Any:
    """An `onnxruntime.InferenceSession` on some providers.

    Raises:
        ProviderError: a plugin has no such device here.
        Exception: of ONNX Runtime's own types.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised, too
    # Threads that spin between runs take the cores from whatever happens there.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    threads = options.operator_threads
    if threads is not None:
        settings.intra_op_num_threads = threads
    if options.low_memory:
        settings.enable_cpu_mem_arena = False
        settings.enable_mem_pattern = False
    if any(name in CUDA_DEVICES for name in wanted):
        preload_cuda()
    model = _model(graph, settings)
    return _create(model, settings, **add_providers(settings, wanted))


def _refused_options(
    graph: GraphSource, options: SessionOptions, wanted: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """The first provider that starts once its options are left out: then it was them that it did not accept."""
    for provider, values in options.providers:
        if values and provider in wanted:
            with contextlib.suppress(Exception):
                if provider in _attempt(graph, options, {**wanted, provider: {}}).get_providers():
                    return provider
    return None


def _model(graph: GraphSource, settings: Any) -> bytes | str:
    """What ONNX Runtime is to open; of a bundle's graph the bytes themselves, and nothing from any disk."""
    if not isinstance(graph, Graph):
        return os.fspath(graph)
    contents = [content.data for content in graph.files.values()]
    if contents and hasattr(settings, "add_external_initializers_from_files_in_memory"):
        settings.add_external_initializers_from_files_in_memory([*graph.files], contents, [*map(len, contents)])
    elif contents:
        _add_weights(graph, settings)
    # Where it would look for a file that is not among them: the working directory, if nothing were said.
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    settings.add_session_config_entry("session.load_model_format", "ONNX")  # which alone has been looked at
    return graph.model.data


def _add_weights(graph: Graph, settings: Any) -> None:
    """Give ONNX Runtime each weight by name, from the bytes that were verified: 1.21 takes no files of them.

    Raises:
        ProviderError: a weight of a type that numpy lacks.
    """
    sizes = {name: len(content.data) for name, content in graph.files.items()}
    names, values = [], []
    for name, (dtype, shape, place) in GraphReader(sizes).external_tensors(graph.model.data).items():
        file, offset, length = place
        if dtype not in _DTYPES:
            raise ProviderError(
                f"{graph.name}: {name} is of ONNX's type {dtype}, which ONNX Runtime {ort.__version__} does not take "
                f"from memory; a newer one does"
            )
        data = np.frombuffer(graph.files[file].data, _DTYPES[dtype], length // _DTYPES[dtype].itemsize, offset)
        names.append(name)
        values.append(ort.OrtValue.ortvalue_from_numpy(data.reshape(shape)))
    settings.add_external_initializers(names, values)


def _create(model: bytes | str, settings: Any, **others: Any) -> Any:
    """A session, with the threads of the process where the user has made such (`set_global_thread_pool_sizes`).

    Then ONNX Runtime refuses sessions with threads of their own. ortcam does not make them by itself: every other
    session in the process that does not ask for them, whoever opens it, would be refused from then on.
    """
    try:
        return ort.InferenceSession(model, settings, **others)
    except Exception as error:
        if "use_per_session_threads" not in str(error):
            raise
    settings.use_per_session_threads = False
    settings.intra_op_num_threads = 0  # another number is ignored with a message
    return ort.InferenceSession(model, settings, **others)
