"""Inputs that stay on a session's device: put once, used by many runs, replayed as CUDA graphs where that is asked."""

import contextlib
import dataclasses
import itertools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.engine.base import Providers
from ortcam.engine.binding.fixed import FixedShapes
from ortcam.engine.forking import ForkLock, after_fork, keep_forever
from ortcam.engine.plugins import plugin_devices
from ortcam.engine.providers import CPU, CUDA_DEVICES
from ortcam.engine.runtime import ort, readable_errors
from ortcam.errors import ClosedError

__all__ = ["POOL_SIZE", "OnnxBoundSession", "Opened", "Pool"]

# Bound sessions that are kept for each graph and set of outputs: as many threads replay CUDA graphs at once.
POOL_SIZE: Final = 4

# ONNX Runtime's word for a run that is neither captured as a CUDA graph nor replayed from one.
_NOT_CAPTURED: Final = "-1"

# While one thread captures a CUDA graph, CUDA refuses some calls of all others: with such sessions one thread at a time
# works on the device.
_capturing = ForkLock()


@dataclasses.dataclass(eq=False)
class Opened:
    """A session of ONNX Runtime, and what follows from the providers that run.

    Attributes:
        runtime: the `onnxruntime.InferenceSession`.
        inputs: of the graph: name -> shape, in which an open dimension is a name.
        providers: (name, options) of those that run, in order.
        on_gpu: whether inputs lie in a GPU's memory.
        fixed: the shapes of a graph that takes no others; None where a dimension is open.
        fixed_shape: whether short runs are padded: where every new shape is planned and tuned anew, on a GPU and by
            providers that compile, and where the graph takes one shape alone.
        captures: whether runs become CUDA graphs.
        copies_when_bound: whether ONNX Runtime copies an input to the provider's own memory when it is bound, so that
            one that is overwritten has to be bound again: with every provider but the CPU's and those of CUDA.
        device: where inputs are placed: "cuda" or "cpu".
        device_id: which of the GPUs.
        inherited: whether the process was forked since: it has none of the session's threads.
        graph_ids: of CUDA graphs, each once.
    """

    runtime: Any
    inputs: Mapping[str, Sequence[int | str]] = dataclasses.field(init=False)
    providers: Providers = dataclasses.field(init=False)
    on_gpu: bool = dataclasses.field(init=False)
    fixed: FixedShapes | None = dataclasses.field(init=False)
    fixed_shape: bool = dataclasses.field(init=False)
    captures: bool = dataclasses.field(init=False)
    copies_when_bound: bool = dataclasses.field(init=False)
    device: str = dataclasses.field(init=False)
    device_id: int = dataclasses.field(init=False)
    inherited: bool = False
    graph_ids: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.inputs = {item.name: item.shape for item in self.runtime.get_inputs()}
        options = self.runtime.get_provider_options()
        self.providers = [(name, options.get(name, {})) for name in self.runtime.get_providers()]
        name, settings = self.providers[0]
        self.on_gpu = name in CUDA_DEVICES and not plugin_devices(name)  # whose memory only they can allocate
        self.fixed = FixedShapes.of(self.inputs)
        self.fixed_shape = name != CPU or self.fixed is not None
        self.copies_when_bound = name != CPU and not self.on_gpu
        self.device = "cuda" if self.on_gpu else "cpu"
        self.device_id = int(settings.get("device_id", 0)) if self.on_gpu else 0
        self.captures = self.on_gpu and str(settings.get("enable_cuda_graph", 0)).lower() in ("1", "true")

    def check(self) -> None:
        """Refuse to run in a child process what only the parent has.

        Raises:
            ClosedError: the process was forked since this session was opened.
        """
        if self.inherited:
            raise ClosedError(
                "this process was forked while an explanation was under way, and ONNX Runtime's threads are not in it: "
                "explain again, or start processes with `spawn`"
            )

    def alone(self) -> AbstractContextManager[None]:
        """While work on the device must not overlap: a lock with CUDA graphs, else nothing."""
        return _capturing if self.captures else contextlib.nullcontext()

    def uncaptured(self) -> Any:
        """Options of a run that becomes no CUDA graph; None where none does."""
        if not self.captures:
            return None
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", _NOT_CAPTURED)
        return options


class OnnxBoundSession:
    """A session with inputs that are put on its device once and used by many runs. It is for one thread at a time.

    What is put stays at its address, and the next value of the same shape overwrites it. So do the outputs. With the
    CUDA provider's option `enable_cuda_graph` a run is therefore captured as a CUDA graph, one for every combination of
    shapes, and replayed. Such a bound session has to live as long as its session.
    """

    def __init__(self, opened: Opened, outputs: Sequence[str], *, captures: bool | None = None) -> None:
        """Place nothing yet.

        Args:
            opened: the session.
            outputs: of each run, in this order.
            captures: whether runs become CUDA graphs; None: where the session says so.
        """
        self._opened = opened
        self._binding = opened.runtime.io_binding()
        self._outputs = tuple(outputs)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._placed: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._graphs: dict[tuple[tuple[int, ...], ...], tuple[Any, list[Any]]] = {}
        self._options = opened.uncaptured()
        self._new_shapes = True
        self.captures = opened.captures if captures is None else captures
        _bound.add(self)

    @property
    def providers(self) -> Providers:
        """(name, options) of the execution providers that run, in order."""
        return self._opened.providers

    @property
    def on_gpu(self) -> bool:
        """Whether inputs lie in a GPU's memory."""
        return self._opened.on_gpu

    @property
    def fixed_shape(self) -> bool:
        """Whether every new shape is planned and tuned anew."""
        return self._opened.fixed_shape

    def put(self, name: str, value: NDArray[Any]) -> None:
        """Place a copy of an input on the device. It stays until it is put again. Ignored if the graph lacks it.

        Raises:
            OutOfMemoryError: it does not fit into memory.
            ClosedError: the process was forked since.
        """
        if name not in self._opened.inputs:
            return
        self._opened.check()
        value = np.asarray(value, order="C")  # `ascontiguousarray` makes a vector of a scalar
        key = name, value.shape
        place = self._placed.get(key)
        if place is not None:
            with self._opened.alone():
                place.update_inplace(value)
            if self._shapes[name] == value.shape and not self._opened.copies_when_bound:
                return
        else:
            with readable_errors("place an input"), self._opened.alone():
                # On the CPU the memory is that of the array: a copy is overwritten, never what the caller has.
                place = ort.OrtValue.ortvalue_from_numpy(value.copy(), self._opened.device, self._opened.device_id)
            if not self.captures:
                self._placed.pop((name, self._shapes.get(name, ())), None)
            self._placed[key] = place
        self._binding.bind_ortvalue_input(name, place)
        self._shapes[name] = value.shape
        self._new_shapes = True

    def run(self) -> tuple[NDArray[Any], ...]:
        """Run on the inputs in place. The outputs come back on the CPU, in the order given to the constructor.

        Raises:
            OutOfMemoryError: the run did not fit into memory.
            ProviderError: whatever else ONNX Runtime could not do.
            ClosedError: the process was forked since.
        """
        self._opened.check()
        with readable_errors("run this graph"), self._opened.alone():
            if self._new_shapes:
                self._bind_outputs()
            self._new_shapes = True  # unless all goes well
            self._opened.runtime.run_with_iobinding(self._binding, self._options)
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
            options.add_run_config_entry("gpu_graph_id", str(next(self._opened.graph_ids)))
            places = [
                ort.OrtValue.ortvalue_from_shape_and_type(
                    shape, np.float32, self._opened.device, self._opened.device_id
                )
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
            for symbol, size in zip(self._opened.inputs[name], shape, strict=True)
        }
        shapes = {item.name: item.shape for item in self._opened.runtime.get_outputs()}
        return [tuple(sizes.get(size, size) for size in shapes[name]) for name in self._outputs]


_bound: "weakref.WeakSet[OnnxBoundSession]" = weakref.WeakSet()


@after_fork
def _keep_outputs() -> None:
    """Their memory goes back to an arena of the session, whose lock a thread of the parent may have held."""
    for bound in list(_bound):
        keep_forever(bound)


class Pool:
    """Bound sessions of one session, for threads to borrow.

    On a GPU up to `size` of them are kept for each set of outputs, with what lies on the device and the CUDA graphs
    that were captured. When all are lent out the next one is temporary and captures nothing: nobody waits. On the CPU,
    where a buffer costs nothing, all are temporary.
    """

    def __init__(self, opened: Opened, size: int = POOL_SIZE) -> None:
        self._opened = opened
        self._size = size
        # The last one is taken first; None stands for one that is still to be made. Only operations of lists that are
        # atomic: a lock could be held when the garbage collector closes a generator that returns what it borrowed.
        self._idle: dict[tuple[str, ...], list[OnnxBoundSession | None]] = {}

    @contextlib.contextmanager
    def lend(self, outputs: Sequence[str]) -> Iterator[OnnxBoundSession]:
        """Lend a bound session for the time of a `with` block."""
        self._opened.check()
        if not self._opened.on_gpu:
            yield OnnxBoundSession(self._opened, outputs)
            return
        idle = self._idle.setdefault(tuple(outputs), [None] * self._size)
        try:
            kept = idle.pop()
        except IndexError:
            yield OnnxBoundSession(self._opened, outputs, captures=False)
            return
        try:
            kept = kept or OnnxBoundSession(self._opened, outputs)
            yield kept
        finally:
            idle.append(kept)
