"""The engine of ONNX Runtime: sessions that threads and explainers share, and what becomes of them in a fork."""

import contextlib
import json
import os
import platform
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from ortcam.bundle import Bundle, Content, Graph
from ortcam.engine.base import BoundSession, Providers, closed_error
from ortcam.engine.binding import FixedBoundSession, Opened, Pool
from ortcam.engine.forking import ForkLock, after_fork, keep_forever
from ortcam.engine.memory import give_back, graph_size
from ortcam.engine.opening import LeftOut, SessionOptions, open_graph
from ortcam.engine.processors import processor_name, usable_cores
from ortcam.engine.providers import warn_left_out
from ortcam.engine.runtime import runtime_version

__all__ = [
    "SESSIONS",
    "OnnxEngine",
    "OnnxSession",
    "SharedSessions",
    "open_session",
]


class OnnxSession:
    """A graph opened with ONNX Runtime. Any number of threads may use it at once: it implements `Session`.

    Attributes:
        runtime: the `onnxruntime.InferenceSession`, for what goes beyond the protocol.
        left_out: providers that were asked for and do not run, and why.
    """

    def __init__(self, runtime: Any, left_out: LeftOut | None = None) -> None:
        self.runtime = runtime
        self.left_out = left_out or LeftOut()
        self._opened = Opened(runtime)
        self._pool = Pool(self._opened)
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

    @property
    def place(self) -> tuple[str, int]:
        """Where inputs of a bound session lie, as ONNX Runtime calls it: a kind of device, and which of them."""
        return self._opened.device, self._opened.device_id

    @contextlib.contextmanager
    def uncaptured(self) -> Iterator[Any]:
        """Options of a run that becomes no CUDA graph, for the time of which nobody captures one."""
        with self._opened.alone():
            yield self._opened.uncaptured()

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Run once, or as often as a graph of fixed shapes needs for all rows. Inputs that the graph lacks are ignored.

        Raises:
            ClosedError: the process was forked since.
            BundleError: the graph has fixed shapes, and an input has another.
            Exception: of ONNX Runtime's own types; see `readable_errors`.
        """
        self._opened.check()
        feeds = {name: value for name, value in inputs.items() if name in self._opened.inputs}
        if self._opened.fixed is not None:
            return self._opened.fixed.run(feeds, outputs, lambda inputs: self._run(inputs, outputs))
        return self._run(feeds, outputs)

    def _run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> tuple[NDArray[Any], ...]:
        with self.uncaptured() as options:
            found = self.runtime.run(list(outputs), feeds, options)
        # Not in the session's memory, which nobody could give back in a process that is forked later.
        return tuple(value if value.flags.owndata else value.copy() for value in found)

    @contextlib.contextmanager
    def bind(self, outputs: Sequence[str]) -> Iterator[BoundSession]:
        """Lend a session whose inputs stay in place, for the time of a `with` block. Never blocks.

        Raises:
            ClosedError: the process was forked since.
        """
        fixed = self._opened.fixed
        with self._pool.lend(outputs) as bound:
            yield bound if fixed is None else FixedBoundSession(bound, fixed, outputs)

    def warn(self) -> None:
        """Warn of the providers that were left out, once in a process."""
        if self.left_out.providers:
            warn_left_out(self.left_out.providers, self.providers[0][0], self.left_out.failure)

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
        options = self._options
        if options.limit is not None:
            options.limit.check_opening(name, graph_size(self._bundle, [name]))
        session = self._make(name)
        if options.limit is not None:
            options.limit.check(f"opened {name}")
        return session

    def _make(self, name: str) -> OnnxSession:
        graph, options = self._bundle.graph(name), self._options
        if not options.on_cpu_alone:
            return OnnxSession(*open_graph(graph, options))
        providers = [[provider, dict(values)] for provider, values in options.providers]
        files = {file: content.sha256 for file, content in graph.files.items()}
        key = [graph.model.sha256, files, providers, options.operator_threads, options.low_memory]
        return SESSIONS.open(json.dumps(key), lambda: OnnxSession(*open_graph(graph, options)))

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
    session = OnnxSession(*open_graph(graph, options))
    session.warn()
    return session
