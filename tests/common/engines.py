"""An engine that records what it is asked, and whose answers a test may delay, alter or refuse."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ortcam
from ortcam.engine import BoundSession, Engine, OnnxEngine, Session, SessionOptions, resolve_providers

__all__ = ["Call", "RecordingEngine", "recorded"]

Outputs = tuple[NDArray[Any], ...]


@dataclasses.dataclass(frozen=True)
class Call:
    """A run of a graph.

    Attributes:
        graph: its file name.
        inputs: in place, by name.
        outputs: names.
        bound: whether inputs stay in place between runs (`Session.bind`), as they do for scorers and heads.
    """

    graph: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]
    bound: bool

    @property
    def rows(self) -> int:
        """Masked images of a scorer, with padding; seeds of a gradient; of other graphs images or features."""
        return len(next(self.inputs[name] for name in ("seed", "channels", "image", "features") if name in self.inputs))


# What answers a call: it may call `run`, which asks the real session.
Answer = Callable[[Call, Callable[[], Outputs]], Outputs]


class RecordingEngine:
    """Another engine, with every run recorded in `calls`; `answer` may stand between. Remembers no batch sizes."""

    def __init__(self, engine: Engine, answer: Answer = lambda _, run: run()) -> None:
        self.calls: list[Call] = []
        self.answer = answer
        self._engine = engine
        self._sessions: dict[str, RecordingSession] = {}

    @property
    def providers(self) -> tuple[str, ...]:
        return self._engine.providers

    @property
    def speed_key(self) -> Sequence[object] | None:
        return None

    def open(self, graph: str) -> "RecordingSession":
        session = self._engine.open(graph)
        return self._sessions.setdefault(graph, RecordingSession(self, graph, session))

    def close(self) -> None:
        self._sessions.clear()
        self._engine.close()

    def ask(self, call: Call, run: Callable[[], Outputs]) -> Outputs:
        self.calls.append(call)
        return self.answer(call, run)


class RecordingSession:
    def __init__(self, engine: RecordingEngine, graph: str, session: Session) -> None:
        self._engine = engine
        self._graph = graph
        self._session = session
        self.providers, self.on_gpu, self.fixed_shape = session.providers, session.on_gpu, session.fixed_shape

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Outputs:
        call = Call(self._graph, dict(inputs), tuple(outputs), bound=False)
        return self._engine.ask(call, lambda: self._session.run(inputs, outputs))

    @contextlib.contextmanager
    def bind(self, outputs: Sequence[str]) -> Iterator["RecordingBoundSession"]:
        with self._session.bind(outputs) as bound:
            yield RecordingBoundSession(self._engine, self._graph, bound, tuple(outputs))


class RecordingBoundSession:
    def __init__(self, engine: RecordingEngine, graph: str, bound: BoundSession, outputs: tuple[str, ...]) -> None:
        self._engine = engine
        self._graph = graph
        self._bound = bound
        self._outputs = outputs
        self._inputs: dict[str, NDArray[Any]] = {}
        self.providers, self.on_gpu, self.fixed_shape = bound.providers, bound.on_gpu, bound.fixed_shape

    def put(self, name: str, value: NDArray[Any]) -> None:
        self._inputs[name] = np.asarray(value)
        self._bound.put(name, value)

    def run(self) -> Outputs:
        return self._engine.ask(Call(self._graph, dict(self._inputs), self._outputs, bound=True), self._bound.run)


def recorded(
    bundle: Path, answer: Answer = lambda _, run: run(), **options: Any
) -> tuple[ortcam.Explainer, RecordingEngine]:
    """An explainer on the CPU, and the engine that records what it runs.

    Args:
        bundle: its folder.
        answer: stands between the explainer and the sessions.
        **options: of `SessionOptions`, besides `providers`.
    """
    read = ortcam.read_bundle(bundle)
    settings = SessionOptions(resolve_providers(["cpu"]), **options)
    engine = RecordingEngine(OnnxEngine(read, settings), answer)
    return ortcam.Explainer(read, settings, engine=engine), engine
