"""What runs a bundle's graphs, as the rest of ortcam sees it: an engine opens sessions, a session runs a graph.

`engine.session` implements these protocols with ONNX Runtime. `Explainer(bundle, options, engine=...)` takes another
engine, for example one that records what it is asked.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from ortcam.bundle import Bundle
from ortcam.errors import ClosedError

__all__ = ["BoundSession", "Engine", "Providers", "Session", "closed_error"]

# The execution providers of a session that run, in order: (name, options).
Providers = Sequence[tuple[str, Mapping[str, str]]]


class BoundSession(Protocol):
    """A session with inputs that are put on its device once and used by many runs. It is for one thread at a time."""

    @property
    def providers(self) -> Providers:
        """As of the session."""

    @property
    def on_gpu(self) -> bool:
        """As of the session."""

    @property
    def fixed_shape(self) -> bool:
        """As of the session."""

    def put(self, name: str, value: NDArray[Any]) -> None:
        """Place a copy of an input on the device. It stays until it is put again. Ignored if the graph lacks it.

        Raises:
            OutOfMemoryError: it does not fit into memory.
        """

    def run(self) -> tuple[NDArray[Any], ...]:
        """Run on the inputs in place. The outputs come back on the CPU, in the order given to `Session.bind`.

        Raises:
            OutOfMemoryError: the run did not fit into memory.
            ProviderError: anything else that could not be done.
        """


class Session(Protocol):
    """An opened graph. Any number of threads may use it at once."""

    @property
    def providers(self) -> Providers:
        """The execution providers that run, in order."""

    @property
    def on_gpu(self) -> bool:
        """Whether the inputs and outputs of a bound session lie on a GPU."""

    @property
    def fixed_shape(self) -> bool:
        """Whether every new shape costs planning and tuning, so that short runs are better padded than run as such."""

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Run once. Nothing of it stays in the session.

        Args:
            inputs: name -> value. Those that the graph lacks are ignored.
            outputs: names, in the order wanted.

        Raises:
            Exception: of the runtime's own types. `readable_errors` makes ortcam's errors of them, and its caller says
                what was being done.
        """

    def bind(self, outputs: Sequence[str]) -> AbstractContextManager[BoundSession]:
        """Lend a session whose inputs stay in place, for the time of a `with` block.

        Never blocks, however many are lent. Inputs of an earlier loan may still be in place: put all of them.

        Args:
            outputs: of each run, in this order.
        """


@runtime_checkable
class Engine(Protocol):
    """Opens the graphs of one bundle. Any number of threads may use it at once."""

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the execution providers in use, in order."""

    @property
    def speed_key(self) -> Sequence[object] | None:
        """What decides how fast runs are, besides graph and providers; JSON can hold it.

        Batch sizes that a search finds are kept under it for later processes. None: they are not kept.
        """

    def open(self, graph: str) -> Session:
        """Open a graph of the bundle by its file name. It is opened once, and all threads share the session.

        Raises:
            ClosedError: the engine is closed.
            BundleError: the bundle has changed, or the graph cannot be opened.
            ProviderError: an execution provider cannot start, and that is an error; or it does not accept its options.
            OutOfMemoryError: the graph does not fit into memory.
        """

    def close(self) -> None:
        """Release sessions and weights. Runs in other threads finish, and whoever opens a graph gets `ClosedError`."""


def closed_error(bundle: Bundle) -> ClosedError:
    """What every use of a closed explainer raises."""
    return ClosedError(f"{bundle.path}: this explainer is closed; `ortcam.load` makes another")
