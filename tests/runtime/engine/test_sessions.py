"""Sessions that threads share: opened once, lent without waiting, closed while they run, and gone afterwards."""

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import ortcam
from ortcam.engine import OnnxEngine, OnnxSession, SessionOptions, resolve_providers
from ortcam.engine.binding import POOL_SIZE
from ortcam.engine.session import SESSIONS

CUDA = "CUDAExecutionProvider"
CPU = SessionOptions(resolve_providers(["cpu"]), threads=1)


class Place:
    """An `OrtValue` on a GPU, in the memory of the CPU."""

    def __init__(self, value: np.ndarray) -> None:
        self.value = value

    @classmethod
    def ortvalue_from_numpy(cls, value: np.ndarray, device: str, device_id: int) -> "Place":
        assert (device, device_id) == ("cuda", 0)
        return cls(value)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: list[int], *_: object) -> "Place":
        return cls(np.zeros(shape, np.float32))

    def update_inplace(self, value: np.ndarray) -> None:
        self.value[...] = value


class Binding:
    def __init__(self) -> None:
        self.inputs: dict[str, Place] = {}
        self.answer = np.zeros(0)

    def bind_ortvalue_input(self, name: str, place: Place) -> None:
        self.inputs[name] = place

    def bind_ortvalue_output(self, *_: object) -> None: ...

    def bind_output(self, *_: object) -> None: ...

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        return [self.answer]


class Gpu:
    """A session of ONNX Runtime on a GPU: y = 2 x. It notes the graph of each run, and runs that overlap."""

    class Item:
        def __init__(self, name: str) -> None:
            self.name = name
            self.shape = ["B", 2]

    def __init__(self, *, captures: bool, inside: Callable[[], object] = lambda: None) -> None:
        self.graphs: list[str] = []
        self.running = 0
        self.most_running = 0
        self._options = {"enable_cuda_graph": "1" if captures else "0"}
        self._inside = inside

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: self._options}

    def get_inputs(self) -> list[Item]:
        return [self.Item("x")]

    def get_outputs(self) -> list[Item]:
        return [self.Item("y")]

    def io_binding(self) -> Binding:
        return Binding()

    def run(self, outputs: list[str], feeds: dict[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
        self._note(options)
        return [2 * feeds["x"]]

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        self._note(options)
        binding.answer = 2 * binding.inputs["x"].value

    def _note(self, options: Any) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.graphs.append(options.get_run_config_entry("gpu_graph_id") if options else "")
        self._inside()
        self.running -= 1


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "gpu" in request.node.name:
        monkeypatch.setattr(ort, "OrtValue", Place)


def doubled(bound: Any, value: float) -> None:
    x = np.full((1, 2), value, np.float32)
    bound.put("x", x)
    (y,) = bound.run()
    np.testing.assert_array_equal(y, 2 * x)


def test_of_a_gpu_a_few_bound_sessions_are_kept_and_the_next_ones_capture_nothing() -> None:
    gpu = Gpu(captures=True)
    session = OnnxSession(gpu)
    with ExitStack() as stack:
        lent = [stack.enter_context(session.bind(("y",))) for _ in range(POOL_SIZE + 2)]
        for number, bound in enumerate(lent):
            doubled(bound, number)
    assert gpu.graphs == [*map(str, range(1, POOL_SIZE + 1)), "-1", "-1"]
    kept = set()
    for _ in range(3):
        with ExitStack() as stack:
            again = [stack.enter_context(session.bind(("y",))) for _ in range(POOL_SIZE + 1)]
            kept.update(map(id, again[:POOL_SIZE]))
            assert again[-1] not in lent
    assert kept == set(map(id, lent[:POOL_SIZE]))


def test_of_a_gpu_one_thread_gets_the_same_bound_session_whose_graphs_are_replayed() -> None:
    gpu = Gpu(captures=True)
    session = OnnxSession(gpu)
    for value in range(5):
        with session.bind(("y",)) as bound:
            doubled(bound, value)
    assert gpu.graphs == ["1"] * 5
    with pytest.raises(ZeroDivisionError), session.bind(("y",)):
        1 / 0  # noqa: B018
    with session.bind(("y",)) as after:
        assert after is bound
    with session.bind(("y", "y")) as other:
        assert other is not bound


def test_of_a_gpu_runs_that_capture_graphs_do_not_overlap_and_those_of_one_call_capture_none() -> None:
    """Of two sessions either: CUDA refuses calls of any thread while another one captures."""
    running: list[int] = []

    def alone() -> None:
        running.append(1)
        assert len(running) == 1
        threading.Event().wait(0.002)
        running.pop()

    sessions = [OnnxSession(Gpu(captures=True, inside=alone)) for _ in range(2)]

    def work(number: int) -> None:
        session = sessions[number % 2]
        for value in range(5):
            with session.bind(("y",)) as bound:
                doubled(bound, number + value)
            np.testing.assert_array_equal(session.run({"x": np.ones((1, 2)), "nothing": 0}, ["y"])[0], [[2, 2]])

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert all({"1", "-1"} <= set(session.runtime.graphs) for session in sessions)


def test_of_a_gpu_runs_without_graphs_may_overlap() -> None:
    barrier = threading.Barrier(2, timeout=20)
    gpu = Gpu(captures=False, inside=barrier.wait)
    session = OnnxSession(gpu)

    def work(value: int) -> None:
        with session.bind(("y",)) as bound:
            doubled(bound, value)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))
    assert gpu.most_running == 2
    assert gpu.graphs == ["", ""]


def test_on_the_cpu_what_is_lent_is_new_and_any_number_at_once(tiny_bundle: Path) -> None:
    engine = OnnxEngine(ortcam.read_bundle(tiny_bundle), CPU)
    session = engine.open("head.onnx")
    shape = (1, *engine.open("features.onnx").runtime.get_outputs()[0].shape[1:])
    with ExitStack() as stack:
        lent = [stack.enter_context(session.bind(("logits",))) for _ in range(3 * POOL_SIZE)]
        for number, bound in enumerate(lent):
            bound.put("features", np.full(shape, number, np.float32))
        for number, bound in enumerate(lent):
            (expected,) = session.run({"features": np.full(shape, number, np.float32)}, ["logits"])
            np.testing.assert_array_equal(bound.run()[0], expected)


def test_threads_that_ask_at_once_get_one_session(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = ort.InferenceSession

    def slow(*arguments: Any, **others: Any) -> Any:
        made.append(1)
        threading.Event().wait(0.05)
        return real(*arguments, **others)

    monkeypatch.setattr(ort, "InferenceSession", slow)
    bundle = ortcam.read_bundle(tiny_bundle)
    options = SessionOptions(resolve_providers(["cpu"]), threads=7)  # so that no other test has opened it
    engines = [OnnxEngine(bundle, options) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda number: engines[number % 2].open("head.onnx"), range(8)))
    assert len(set(map(id, opened))) == 1
    assert len(made) == 1


def test_a_failure_to_open_is_that_of_each_who_asks(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = OnnxEngine(ortcam.read_bundle(tiny_bundle), SessionOptions(resolve_providers(["cpu"]), threads=5))
    with monkeypatch.context() as patch:
        patch.setattr(ort, "InferenceSession", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no")))
        for _ in range(2):
            with pytest.raises(ortcam.BundleError, match=r"head\.onnx: ONNX Runtime cannot open this graph: no"):
                engine.open("head.onnx")
    assert engine.open("head.onnx").providers[0][0] == "CPUExecutionProvider"


def looping(explainer: ortcam.Explainer, image: Path, started: threading.Event) -> Iterator[None]:
    while True:
        explainer.explain(image, method="scorecam", batch_size=2)
        explainer.predict(image)
        started.set()
        yield


@pytest.mark.slow
def test_closing_while_threads_explain_ends_them_with_one_error(tiny_bundle: Path, photograph: Path) -> None:
    for _ in range(5):
        explainer = ortcam.load(tiny_bundle, providers=["cpu"])
        started = [threading.Event() for _ in range(3)]

        def work(event: threading.Event, explainer: ortcam.Explainer = explainer) -> str:
            try:
                for _ in looping(explainer, photograph, event):
                    pass
            except ortcam.ClosedError as error:
                return str(error)

        with ThreadPoolExecutor(3) as threads:
            ended = [threads.submit(work, event) for event in started]
            for event in started:
                assert event.wait(60)
            explainer.close()
            assert {item.result(60) for item in ended} == {
                f"{explainer.bundle.path}: this explainer is closed; `ortcam.load` makes another"
            }


@pytest.mark.slow
def test_a_graph_that_is_being_opened_while_the_engine_closes_is_not_kept(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OnnxEngine(ortcam.read_bundle(tiny_bundle), SessionOptions(resolve_providers(["cpu"]), threads=6))
    real = ort.InferenceSession

    def closed_meanwhile(*arguments: Any, **others: Any) -> Any:
        engine.close()
        return real(*arguments, **others)

    monkeypatch.setattr(ort, "InferenceSession", closed_meanwhile)
    gc.collect()
    before = len(SESSIONS)
    with pytest.raises(ortcam.ClosedError):
        engine.open("head.onnx")
    gc.collect()
    assert engine.sessions == {}
    assert len(SESSIONS) == before


@pytest.mark.slow
def test_weights_by_name_give_the_bits_of_weights_by_file(
    tiny_bundle: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime 1.21 takes no files from memory."""
    taken: list[str] = []

    class Older(ort.SessionOptions):
        @property
        def add_external_initializers_from_files_in_memory(self) -> None:
            raise AttributeError

        def add_external_initializers(self, names: list[str], values: list[Any]) -> None:
            taken.extend(names)
            super().add_external_initializers(names, values)

    def saliency() -> np.ndarray:
        gc.collect()  # sessions that nobody holds any more
        return ortcam.load(tiny_bundle, threads=1).explain(photograph, method="scorecam++").maps

    expected = saliency()
    monkeypatch.setattr(ort, "SessionOptions", Older)
    assert np.array_equal(saliency(), expected)
    assert taken
