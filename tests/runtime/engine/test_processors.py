"""Threads and memory: as many threads as the process may use, one set for a model, and all given back at the end."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ortcam
from ortcam.engine import OnnxEngine, OnnxSession, SessionOptions, open_session, resolve_providers
from ortcam.engine.memory import available_memory
from ortcam.engine.processors import processor_facts, processor_name, usable_cores
from ortcam.engine.session import SESSIONS

linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="of Linux")


def machine(root: Path, *, processors: int, siblings: int = 1, cgroup: str = "", **files: str) -> Path:
    """A file system of a machine: its cores, and control groups; keys of files have `/` as `__` and `.` as `_dot_`."""
    for processor in range(processors):
        folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
        folder.mkdir(parents=True)
        first = processor - processor % siblings
        (folder / "thread_siblings_list").write_text(f"{first}-{first + siblings - 1}\n")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for key, text in files.items():
        path = root / key.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "0::/a/b\n"
V1 = "4:memory:/m\n3:cpu,cpuacct:/a\n1:name=systemd:/\n"


@linux
@pytest.mark.parametrize(
    ("processors", "siblings", "cgroup", "files", "expected"),
    [
        (8, 1, "", {}, 8),
        (8, 2, "", {}, 4),
        (8, 1, V2, {"sys__fs__cgroup__a__b__cpu_dot_max": "max 100000\n"}, 8),
        (8, 1, V2, {"sys__fs__cgroup__a__b__cpu_dot_max": "300000 100000\n"}, 3),
        (8, 1, V2, {"sys__fs__cgroup__a__b__cpu_dot_max": "250000 100000\n"}, 3),
        (8, 1, V2, {"sys__fs__cgroup__a__b__cpu_dot_max": "5000 100000\n"}, 1),
        (8, 2, V2, {"sys__fs__cgroup__a__b__cpu_dot_max": "600000 100000\n"}, 4),
        (8, 1, V2, {"sys__fs__cgroup__a__cpu_dot_max": "200000 100000\n"}, 2),
        (8, 1, "0::/\n", {"sys__fs__cgroup__cpu_dot_max": "200000 100000\n"}, 2),
        (8, 1, "0::/../other\n", {"sys__fs__cgroup__cpu_dot_max": "200000 100000\n"}, 2),
        (8, 1, V2, {"sys__fs__cgroup__a__b__cpu_dot_max": "nonsense\n"}, 8),
        (8, 1, V2, {"sys__fs__cgroup__a__b__cpu_dot_max": "1 0\n"}, 8),
        (
            8,
            1,
            V1,
            {
                "sys__fs__cgroup__cpu,cpuacct__a__cpu_dot_cfs_quota_us": "150000\n",
                "sys__fs__cgroup__cpu,cpuacct__a__cpu_dot_cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            8,
            1,
            V1,
            {
                "sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us": "-1\n",
                "sys__fs__cgroup__cpu__cpu_dot_cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_cores_that_a_process_may_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processors: int,
    siblings: int,
    cgroup: str,
    files: dict[str, str],
    expected: int,
) -> None:
    root = machine(tmp_path, processors=processors, siblings=siblings, cgroup=cgroup, **files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    assert usable_cores(root) == expected


@linux
def test_affinity_counts_cores_and_not_their_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path, processors=8, siblings=2)
    for allowed, expected in (({0}, 1), ({0, 1}, 1), ({1, 2}, 2), ({0, 1, 2, 3, 7}, 3), ({90, 91}, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: allowed)
        assert usable_cores(root) == expected


def test_a_processor_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "x/proc").mkdir(parents=True)
    (tmp_path / "x/proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n\nmodel name\t: other\n")
    assert processor_name(tmp_path / "x") == "Some CPU @ 3 GHz"
    (tmp_path / "arm/proc").mkdir(parents=True)
    (tmp_path / "arm/proc/cpuinfo").write_text("processor: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n")
    assert processor_name(tmp_path / "arm") == "0x41 0xd0c"
    assert processor_name(tmp_path / "none")


def test_facts_have_the_first_value_of_each_name(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    text = "model name\t: first\ncpu family\t: 6\n\nmodel name\t: second\nmodel\t: 85\n"
    (tmp_path / "proc/cpuinfo").write_text(text)
    facts = processor_facts(tmp_path)
    assert [facts[name] for name in ("model name", "cpu family", "model")] == ["first", "6", "85"]
    assert processor_facts(tmp_path / "none") == {}


def counted(script: str, *arguments: object) -> dict[str, int]:
    """What a process of its own prints, which has the numbers of its threads and MB at `now()`."""
    prelude = """
import ctypes, gc, json, os, re, sys
import ortcam
threads = lambda: len(os.listdir("/proc/self/task"))
memory = lambda: int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1000
"""
    done = subprocess.run(
        [sys.executable, "-c", prelude + script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@linux
def test_one_allowed_processor_gets_no_second_thread(tiny_bundle: Path, photograph: Path) -> None:
    found = counted(
        """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
explainer = ortcam.load(sys.argv[1])
explainer.read(sys.argv[2])
before = threads()
explainer.predict(sys.argv[2])
explainer.explain(sys.argv[2], method="scorecam++", batch_size=4)
print(json.dumps({"before": before, "after": threads()}))
""",
        tiny_bundle,
        photograph,
    )
    assert found["after"] == found["before"]


@pytest.mark.slow
@linux
def test_many_explainers_of_a_model_have_the_threads_and_the_memory_of_one(tiny_bundle: Path, photograph: Path) -> None:
    found = counted(
        """
def use(explainer):
    explainer.predict(sys.argv[2])
    for method in ("scorecam", "scorecam++", "recipro-cam"):
        explainer.explain(sys.argv[2], method=method, batch_size=4, **({"budget": 2} if method[0] == "s" else {}))
    return explainer
first = use(ortcam.load(sys.argv[1], threads=3))
one = threads()
others = [use(ortcam.load(sys.argv[1], threads=3)) for _ in range(12)]
many = threads()
from ortcam.engine.session import SESSIONS
opened = len(SESSIONS)
del first, others
gc.collect()
print(json.dumps({"one": one, "many": many, "left": threads(), "opened": opened}))
""",
        tiny_bundle,
        photograph,
    )
    assert found["opened"] == 4  # features, head, two scorers
    assert found["many"] == found["one"]
    assert found["left"] == found["one"] - 4 * 2  # two threads each beside the one that calls


@pytest.mark.slow
@linux
@pytest.mark.parametrize("end", ["explainer.close()", "del explainer", "with explainer: pass"])
def test_memory_is_given_back_at_the_end(photograph: Path, end: str) -> None:
    """In pieces of 64 kB, which the C library takes from its heap and keeps when they are freed."""
    found = counted(
        f"""
from ortcam.bundle.shipped import bundle_path
import numpy
def hoard():
    return [bytearray(60_000) for _ in range(2000)]
explainer = ortcam.load(bundle_path())
explainer.explain(sys.argv[1], method="scorecam++", budget=4, batch_size=4)
before = memory()
hoarded = hoard()
pin = bytearray(60_000)  # behind them, so that the heap does not shrink by itself
full = memory()
del hoarded
{end}
gc.collect()
print(json.dumps({{"before": before, "full": full, "after": memory()}}))
""",
        photograph,
    )
    assert found["full"] - found["before"] > 100
    assert found["after"] < found["before"] + 10


@pytest.mark.slow
def test_sessions_are_shared_by_content_and_by_how_they_are_opened(tiny_bundle: Path, bundle_copy: Path) -> None:
    one, two = ortcam.read_bundle(tiny_bundle), ortcam.read_bundle(bundle_copy)
    cpu = resolve_providers(["cpu"])
    options = SessionOptions(cpu, threads=1)
    engines = [OnnxEngine(one, options), OnnxEngine(two, options)]
    gc.collect()
    before = len(SESSIONS)

    def opened(options: SessionOptions, graph: str = "head.onnx") -> OnnxSession:
        engines.append(OnnxEngine(one, options))
        return engines[-1].open(graph)

    shared = engines[0].open("head.onnx")
    assert engines[1].open("head.onnx") is shared
    others = [
        opened(options, "features.onnx"),
        opened(SessionOptions(cpu, threads=2)),
        opened(SessionOptions(cpu, threads=1, low_memory=True)),
        opened(SessionOptions(resolve_providers([("cpu", {"arena_extend_strategy": "kSameAsRequested"})]), threads=1)),
    ]
    assert len({id(item) for item in (shared, *others)}) == 5
    del shared, others
    engines[0].close()
    engines.clear()
    gc.collect()
    assert len(SESSIONS) <= before


def test_an_explainers_own_inputs_stay_its_own(tiny_bundle: Path, photograph: Path, picture: object) -> None:
    """Sessions are shared, what is bound to them is not."""
    first, second = ortcam.load(tiny_bundle), ortcam.load(tiny_bundle)
    expected = first.explain(photograph, method="scorecam", batch_size=2).maps
    steps = first.explain_iter(photograph, method="scorecam", batch_size=2)
    *_, last = (second.explain(photograph, method="scorecam", batch_size=2, target=1) and step for step in steps)
    assert abs(last.maps - expected).max() < 1e-6


@pytest.mark.slow
def test_threads_of_the_process_are_used_where_the_user_made_them(tiny_bundle: Path, photograph: Path) -> None:
    """ONNX Runtime then refuses sessions with threads of their own."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if not hasattr(onnxruntime, "set_global_thread_pool_sizes"):
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} makes no threads for the process")
    script = """
import sys, onnxruntime
onnxruntime.set_global_thread_pool_sizes(2, 1)
import ortcam
explanation = ortcam.load(sys.argv[1]).explain(sys.argv[2], method="scorecam++", batch_size=4)
assert explanation.maps.any()
"""
    command = [sys.executable, "-W", "error", "-c", script, str(tiny_bundle), str(photograph)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_sessions_of_the_user_are_left_as_they_are(tiny_bundle: Path) -> None:
    """Ortcam makes no threads for the whole process: other sessions in it could then not be opened any more."""
    import onnxruntime

    ortcam.load(tiny_bundle).providers  # noqa: B018 - it opens a session
    assert onnxruntime.InferenceSession(tiny_bundle / "head.onnx").get_inputs()
    options = SessionOptions(resolve_providers(["cpu"]))
    assert open_session(tiny_bundle / "head.onnx", options).runtime.get_inputs()


FREE = {"proc__meminfo": "MemTotal:       2000 kB\nMemAvailable:   1000 kB\n"}


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("", {}, None),
        ("", FREE, 1024000),
        (V2, FREE | {"sys__fs__cgroup__a__memory_dot_max": "max\n"}, 1024000),
        (V2, FREE | {"sys__fs__cgroup__a__memory_dot_max": "4096\n"}, 4096),
        (V2, FREE | {"sys__fs__cgroup__a__b__memory_dot_max": "9000000\n"}, 1024000),
        (V1, FREE | {"sys__fs__cgroup__memory__m__memory_dot_limit_in_bytes": "8192\n"}, 8192),
    ],
)
def test_memory_is_what_is_left_and_no_more_than_the_control_groups_allow(tmp_path, cgroup, files, expected):
    assert available_memory(machine(tmp_path, processors=1, cgroup=cgroup, **files)) == expected
