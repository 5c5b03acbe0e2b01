"""After `fork` an explainer works in the child, and in a process that `spawn` starts its pickle does; nothing hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# Ends a child that hangs: the parent then sees the signal.
START = """
import gc, os, signal, sys, threading, traceback
import numpy as np, onnxruntime
import ortcam
folder, image = sys.argv[1:3]

def explain(explainer):
    return explainer.explain(image, method="scorecam", batch_size=2, target=1).maps

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0

"""


def run(script: str, *arguments: Path, code: int = 0) -> str:
    command = [sys.executable, "-c", START + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.slow
@forks
def test_a_child_explains_as_its_parent_and_may_drop_what_it_got(tiny_bundle: Path, photograph: Path) -> None:
    """Dropping the parent's sessions waits for threads that the child does not have."""
    run(
        """
explainer = ortcam.load(folder, threads=2)
expected = explain(explainer)
model = ortcam.load("shapes", threads=2)  # which has more channels than a first step takes
steps = model.explain_iter(image, method="scorecam", batch_size=4, budget=24)
next(steps)

def work():
    global explainer, model, steps
    try:
        next(steps)
        raise SystemExit("a run of the parent's session")
    except ortcam.ClosedError as error:
        assert "was forked while an explanation was under way" in str(error), error
    assert (explain(explainer) == expected).all()
    assert (explainer.features(image) == features).all()
    del explainer, model, steps
    gc.collect()
    with ortcam.load(folder, threads=2) as another:
        assert (explain(another) == expected).all()

features = explainer.features(image)
for _ in range(2):
    in_child(work)
assert (explain(explainer) == expected).all()
*_, last = steps
assert last.maps.any()
""",
        tiny_bundle,
        photograph,
    )


@pytest.mark.slow
@forks
def test_locks_that_other_threads_hold_are_free_in_a_child(tiny_bundle: Path, photograph: Path) -> None:
    run(
        """
explainer = ortcam.load(folder, threads=2)
real = onnxruntime.InferenceSession
opening, go_on = threading.Event(), threading.Event()

def slow(*arguments, **others):
    opening.set()
    go_on.wait()
    return real(*arguments, **others)

onnxruntime.InferenceSession = slow
thread = threading.Thread(target=explain, args=(explainer,))
thread.start()
opening.wait()

def work():
    onnxruntime.InferenceSession = real
    assert explain(explainer).any()

in_child(work)
go_on.set()
thread.join()
assert explain(explainer).any()
""",
        tiny_bundle,
        photograph,
    )


@pytest.mark.slow
@forks
def test_a_child_ends_by_itself(tiny_bundle: Path, photograph: Path) -> None:
    """The end of the interpreter destroys all objects."""
    run(
        """
explainer = ortcam.load(folder, threads=2)
explain(explainer)
child = os.fork()
if child == 0:
    signal.alarm(30)
    explain(explainer)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
""",
        tiny_bundle,
        photograph,
    )


@pytest.mark.slow
@forks
def test_a_device_that_the_parent_used_is_left_out_in_a_child_with_a_warning(
    tiny_bundle: Path, photograph: Path
) -> None:
    out = run(
        """
import warnings
class Gpu(onnxruntime.InferenceSession):
    def __init__(self, model, settings, providers=None, **others):
        names = [name for name, _ in providers]
        super().__init__(model, settings, providers=["CPUExecutionProvider"], **others)
        self.names = names

    def get_providers(self):
        return self.names

onnxruntime.InferenceSession = Gpu
onnxruntime.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
explainer = ortcam.load(folder)
expected = explainer.predict(image)
print(explainer.providers, flush=True)

def work():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.allclose(explainer.predict(image), expected)
    print(explainer.providers, *[item.message for item in caught], flush=True)

in_child(work)
assert explainer.providers[0] == "CUDAExecutionProvider"
""",
        tiny_bundle,
        photograph,
    )
    in_parent, in_child = out.splitlines()
    assert in_parent == "('CUDAExecutionProvider', 'CPUExecutionProvider')"
    assert in_child == (
        "('CPUExecutionProvider',) CUDAExecutionProvider cannot start (it ran before this process was forked, and that "
        "it does not survive: start processes with `spawn`); CPUExecutionProvider runs instead"
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_are_started_afresh_get_a_reference(
    method: str, tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    if method == "forkserver" and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    script = tmp_path / "script.py"
    script.write_text(
        """
import multiprocessing, sys
import numpy as np
import ortcam

if __name__ == "__main__":
    explainer = ortcam.load(sys.argv[1])
    expected = explainer.predict(sys.argv[2])
    with multiprocessing.get_context(sys.argv[3]).Pool(1) as pool:
        assert np.allclose(pool.map(explainer.predict, [sys.argv[2]])[0], expected)
"""
    )
    command = [sys.executable, str(script), str(tiny_bundle), str(photograph), method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="of Linux")
def test_a_hundred_explainers_leave_files_threads_and_memory_as_they_were(tiny_bundle: Path, photograph: Path) -> None:
    """One explainer of this bundle takes about 2 MB; a leak of a session or of its weights would show at once."""
    run(
        """
def held():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), pages * os.sysconf("SC_PAGE_SIZE")

def use():
    with ortcam.load(folder, threads=2, low_memory=bool(len(done) % 2)) as explainer:
        explainer.predict(image)
        explainer.explain(image, method="scorecam", batch_size=2, budget=2)
        explainer.explain(image, method="recipro-cam", batch_size=8)
    done.append(1)

done = []
for _ in range(10):
    use()
files, threads, memory = held()
for _ in range(100):
    use()
files_now, threads_now, memory_now = held()
assert (files_now, threads_now) == (files, threads), (files_now, threads_now)
assert memory_now < memory + 20e6, (memory, memory_now)
""",
        tiny_bundle,
        photograph,
    )


@forks
def test_a_child_gives_no_memory_back_to_a_session_of_its_parent(tiny_bundle: Path, photograph: Path) -> None:
    """The lock of that memory may be one that a thread of the parent held when it forked."""
    run(
        """
import weakref
from ortcam.engine import SessionOptions, open_session
bundle = ortcam.read_bundle(folder)
session = open_session(bundle.graph(bundle.manifest.graphs.features), SessionOptions((("CPUExecutionProvider", {}),)))
inputs = {"image": ortcam.load(folder).read(image).model_input}
assert all(value.flags.owndata for value in session.run(inputs, ["features"]))
lending = session.bind(["features"])
bound = lending.__enter__()
bound.put("image", inputs["image"])
bound.run()
seen = weakref.ref(bound)

def work():
    global session, lending, bound
    del session, lending, bound
    gc.collect()
    assert seen() is not None

in_child(work)
del session, lending, bound
gc.collect()
assert seen() is None
""",
        tiny_bundle,
        photograph,
    )
