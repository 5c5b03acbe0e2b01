"""ONNX Runtime's sessions and the engine of them: how graphs are opened, shared, run, and what becomes of a fork."""

import contextlib
import dataclasses
import json
import os
import platform
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from ortcam.bundle import Bundle, Content, Graph
from ortcam.engine.base import Providers, closed_error
from ortcam.engine.binding import OnnxBoundSession, Opened, Pool
from ortcam.engine.forking import ForkLock, after_fork, keep_forever
from ortcam.engine.memory import give_back
from ortcam.engine.processors import processor_name, usable_cores
from ortcam.engine.providers import (
    CPU,
    CUDA_DEVICES,
    OPENVINO,
    add_providers,
    preload_cuda,
    warn_left_out,
)
from ortcam.engine.runtime import first_line, is_out_of_memory, ort, runtime_version
from ortcam.errors import BundleError, OutOfMemoryError, ProviderError
from ortcam.support.ranges import THREADS

__all__ = [
    "SESSIONS",
    "OnnxEngine",
    "OnnxSession",
    "SessionOptions",
    "SharedSessions",
    "open_session",
]

# Providers of devices that have run here; and in a process that was forked those that had run before.
_started: set[str] = set()
_started_before_fork: set[str] = set()
_FORKED: Final = "it ran before this process was forked, and that it does not survive: start processes with `spawn`"

# A folder that cannot be: below a file.
_NOWHERE: Final = str(Path(os.devnull, "nowhere"))


@dataclasses.dataclass(frozen=True)
class SessionOptions:
    """How sessions are opened.

    Attributes:
        providers: execution providers in order of preference, already resolved to full names.
        threads: threads inside an operator; None takes the physical cores that the process may use by its affinity and
            its control group's quota.
        low_memory: give memory back after every run and take no more than asked for: slower, for small devices.
        strict_providers: a provider that cannot start is an error instead of a warning.
    """

    providers: tuple[tuple[str, Mapping[str, Any]], ...]
    threads: int | None = None
    low_memory: bool = False
    strict_providers: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None:
            THREADS.check(self.threads)

    @property
    def on_cpu_alone(self) -> bool:
        """Whether no provider but the CPU's is asked for."""
        return all(name == CPU for name, _ in self.providers)

    @property
    def operator_threads(self) -> int | None:
        """Threads inside an operator; None leaves it to ONNX Runtime, which knows no affinity and no quota."""
        return usable_cores() if self.threads is None else int(self.threads)


class OnnxSession:
    """A graph opened with ONNX Runtime. Any number of threads may use it at once: it implements `Session`.

    Attributes:
        runtime: the `onnxruntime.InferenceSession`, for what goes beyond the protocol.
        left_out: providers that were asked for and do not run, and why.
    """

    def __init__(self, runtime: Any, left_out: tuple[tuple[str, ...], str] = ((), "")) -> None:
        self.runtime = runtime
        self.left_out = left_out
        self._opened = Opened(runtime)
        self._pool = Pool(self._opened)
        self._inputs = frozenset(item.name for item in runtime.get_inputs())
        _sessions.add(self)

    @property
    def providers(self) -> Providers:
        """(name, options) of the execution providers that run, in order."""
        return self._opened.providers

    @property
    def on_gpu(self) -> bool:
        """Whether inputs of a bound session lie in a GPU's memory."""
        return self._opened.on_gpu

    @property
    def fixed_shape(self) -> bool:
        """Whether every new shape is planned and tuned anew."""
        return self._opened.fixed_shape

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Run once. Inputs that the graph lacks are ignored.

        Raises:
            ClosedError: the process was forked since.
            Exception: of ONNX Runtime's own types; see `readable_errors`.
        """
        self._opened.check()
        feeds = {name: value for name, value in inputs.items() if name in self._inputs}
        with self._opened.alone():
            return tuple(self.runtime.run(list(outputs), feeds, self._opened.uncaptured()))

    def bind(self, outputs: Sequence[str]) -> AbstractContextManager[OnnxBoundSession]:
        """Lend a session whose inputs stay in place, for the time of a `with` block. Never blocks.

        Raises:
            ClosedError: the process was forked since.
        """
        return self._pool.lend(outputs)

    def warn(self) -> None:
        """Warn of the providers that were left out, once in a process."""
        missing, failure = self.left_out
        if missing:
            warn_left_out(missing, self.providers[0][0], failure)

    def inherit(self) -> None:
        """Become what a child process finds: a session that nothing may run, close or destroy."""
        self._opened.inherited = True
        keep_forever(self)


class SharedSessions:
    """Sessions that all who open the same graph in the same way have in common, with their threads and their memory.

    ONNX Runtime gives every session threads and memory of its own. Explainers of one model need them once: runs of a
    session may overlap. The last one who lets go of a session closes it.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakValueDictionary[str, OnnxSession] = weakref.WeakValueDictionary()
        self._opening: weakref.WeakValueDictionary[str, ForkLock] = weakref.WeakValueDictionary()
        self._lock = ForkLock()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, key: str, make: Callable[[], OnnxSession]) -> OnnxSession:
        """The session of a key; made unless somebody has it. Two threads that ask at once get the same one."""
        found = self._open.get(key)
        if found is not None:
            return found
        with self._lock:
            opening = self._opening.get(key)
            if opening is None:
                opening = self._opening[key] = ForkLock()
        with opening:
            found = self._open.get(key)
            if found is None:
                found = self._open[key] = make()
            return found

    def clear(self) -> None:
        """Forget all sessions; who has one keeps it."""
        self._open = weakref.WeakValueDictionary()
        self._opening = weakref.WeakValueDictionary()


SESSIONS: Final = SharedSessions()

_sessions: "weakref.WeakSet[OnnxSession]" = weakref.WeakSet()
_engines: "weakref.WeakSet[OnnxEngine]" = weakref.WeakSet()


@after_fork
def _leave_to_the_parent() -> None:
    """In a child process: nobody touches the parent's sessions, and engines open their graphs anew."""
    _started_before_fork.update(_started)
    SESSIONS.clear()
    for session in list(_sessions):
        session.inherit()
    for engine in list(_engines):
        engine.forget()


class OnnxEngine:
    """Opens the graphs of a bundle with ONNX Runtime: it implements `Engine`.

    Sessions that run on the CPU alone are shared with other engines in the process. On a device a session keeps more
    than its graph, so there each engine has its own. In a process that was forked the graphs are opened anew.
    """

    def __init__(self, bundle: Bundle, options: SessionOptions, *, precision: str | None = None) -> None:
        """Open nothing yet.

        Args:
            bundle: whose graphs.
            options: how sessions are opened. With `low_memory` files are read and verified again when a graph is
                opened. Otherwise they are held from now on.
            precision: of the scorers that are to be held; None takes that of the bundle's own graphs.
        """
        self._bundle = bundle
        self._options = options
        self._closed = False
        self._contents: Mapping[str, Content] = {} if options.low_memory else bundle.hold(precision)
        self._sessions: dict[str, OnnxSession] = {}
        self._locks: dict[str, ForkLock] = {}
        _engines.add(self)

    @property
    def contents(self) -> Mapping[str, Content]:
        """The files that are held, by name."""
        return self._contents

    @property
    def sessions(self) -> Mapping[str, OnnxSession]:
        """What is open, by the file name of the graph."""
        return dict(self._sessions)

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the execution providers in use, in order. Opens the features if they are not open yet."""
        return tuple(name for name, _ in self.open(self._bundle.manifest.graphs.features).providers)

    @property
    def speed_key(self) -> Sequence[object]:
        """Threads, processor, architecture, cores and the version of ONNX Runtime.

        Not the name of the host, which a container has for itself.
        """
        cores = usable_cores() or os.cpu_count()
        return self._options.threads, processor_name(), platform.machine(), cores, runtime_version()

    def open(self, graph: str) -> OnnxSession:
        """Open a graph of the bundle by its file name. It is opened once, and all threads share the session.

        A provider that cannot start is left out with one warning.

        Raises:
            ClosedError: the engine is closed.
            ProviderError: a provider does not accept its options.
            BundleError: the bundle has changed, or ONNX Runtime does not accept the graph.
            OutOfMemoryError: its weights do not fit into the device's memory.
        """
        self._check_open()
        session = self._sessions.get(graph)
        if session is not None:
            return session
        with self._locks.setdefault(graph, ForkLock()):
            session = self._sessions.get(graph)
            if session is None:
                session = self._open(graph)
                self._sessions[graph] = session
        session.warn()  # no lock is held: a warning may run the user's code
        self._check_open()
        return session

    def _open(self, name: str) -> OnnxSession:
        graph, options = self._bundle.graph(name), self._options
        if not options.on_cpu_alone:
            return create_session(graph, options)
        providers = [[provider, dict(values)] for provider, values in options.providers]
        files = {file: content.sha256 for file, content in graph.files.items()}
        key = [graph.model.sha256, files, providers, options.operator_threads, options.low_memory]
        return SESSIONS.open(json.dumps(key), lambda: create_session(graph, options))

    def _check_open(self) -> None:
        if self._closed:
            self._sessions = {}  # what another thread has opened meanwhile
            raise closed_error(self._bundle)

    def close(self) -> None:
        """Release sessions and weights. Runs in other threads finish. Every later use raises `ClosedError`."""
        self._closed = True
        self._contents = {}
        opened, self._sessions = self._sessions, {}
        if opened:
            opened.clear()
            give_back()

    def forget(self) -> None:
        """In a process that was forked: open every graph anew when it is next asked for."""
        self._sessions = {}
        self._locks = {}

    def __del__(self) -> None:
        if getattr(self, "_sessions", None):  # it is not there if the constructor failed
            self.close()


def open_session(graph: Graph | str | os.PathLike[str], options: SessionOptions) -> OnnxSession:
    """Open a graph: one of a bundle, whose bytes were verified, or a file that this process has just written.

    A provider that this ONNX Runtime has but that cannot start (no driver, no CUDA libraries) is left out with one
    warning; `providers` of the session says which ones run. With `strict_providers` that is an error.

    Raises:
        ProviderError: a provider does not accept the options that were given for it, or cannot start.
        BundleError: ONNX Runtime does not accept the graph.
        OutOfMemoryError: its weights do not fit into the device's memory.
    """
    session = create_session(graph, options)
    session.warn()
    return session


def create_session(graph: Graph | str | os.PathLike[str], options: SessionOptions) -> OnnxSession:
    """Open a graph as `open_session` does, without a warning: `OnnxSession.warn` gives it."""
    name = graph.name if isinstance(graph, Graph) else Path(graph).name
    lost = [provider for provider, _ in options.providers if provider in _started_before_fork]
    wanted = {provider: values for provider, values in _wanted(options).items() if provider not in lost}
    failure = "it was left out without a word"
    try:
        runtime = _attempt(graph, options, wanted or {CPU: {}})
    except ProviderError:
        raise
    except Exception as error:
        failure = first_line(error)
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
    return OnnxSession(runtime, (missing, failure))


def _wanted(options: SessionOptions) -> dict[str, dict[str, Any]]:
    """Providers with their options, and with those that follow from how sessions are opened."""
    wanted = {name: dict(values) for name, values in options.providers}
    if options.low_memory and "CUDAExecutionProvider" in wanted:
        wanted["CUDAExecutionProvider"].setdefault("arena_extend_strategy", "kSameAsRequested")
    if OPENVINO in wanted and options.threads is not None:
        wanted[OPENVINO].setdefault("num_of_threads", str(options.threads))  # it has a pool of its own
    return wanted


def _attempt(
    graph: Graph | str | os.PathLike[str], options: SessionOptions, wanted: Mapping[str, Mapping[str, Any]]
) -> Any:
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
    graph: Graph | str | os.PathLike[str], options: SessionOptions, wanted: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """The first provider that starts once its options are left out: then it was them that it did not accept."""
    for provider, values in options.providers:
        if values and provider in wanted:
            with contextlib.suppress(Exception):
                if provider in _attempt(graph, options, {**wanted, provider: {}}).get_providers():
                    return provider
    return None


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
