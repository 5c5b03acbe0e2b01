"""A limit to the memory of the process: what is chosen before a model is opened, how batches grow, what is refused."""

import copy
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.common.engines import RecordingEngine

import ortcam
from ortcam.cli.main import main
from ortcam.engine import OnnxEngine, SessionOptions, resolve_providers
from ortcam.engine.batching import limited_sizer
from ortcam.engine.memory import (
    MemoryLimit,
    MemoryPlan,
    ResetPeaks,
    RowMemory,
    Usage,
    memory_of_process,
    model_memory,
)
from ortcam.errors import MemoryLimitError, OptionError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no other system says what a process has")
MB = 10**6


@dataclasses.dataclass
class Process:
    """A process whose runs take so much per row, and whose system tells."""

    now: int = 100 * MB
    peak: int = 100 * MB

    def usage(self) -> Usage:
        return Usage(self.now, self.peak)

    def run(self, rows: int) -> None:
        self.peak = max(self.peak, int(100 * MB + rows * 5 * MB))


def grown(limit: int, batch_size: int | str, *, arena: bool = False) -> list[int]:
    """The rows of each run of 200 that a limit allows."""
    process = Process()
    sizer = limited_sizer(batch_size, MemoryLimit(limit, process.usage), fixed_shape=False, arena=arena)  # type: ignore[arg-type]
    ran = []
    for _ in range(40):
        rows, _padded = sizer.next(200)
        process.run(rows)
        sizer.record(rows, 1.0)  # seconds: more rows are always faster
        ran.append(rows)
    return ran


@pytest.mark.parametrize("limit", [106, 120, 150, 200, 400])
@pytest.mark.parametrize("batch_size", ["auto", 1, 7, 64])
@pytest.mark.parametrize("arena", [False, True])
def test_batches_grow_and_never_beyond_the_limit(limit: int, batch_size: int | str, arena: bool) -> None:
    ran = grown(limit, batch_size, arena=arena)
    assert ran[0] == 1
    assert ran == sorted(ran)
    assert max(ran) <= (32 if batch_size == "auto" else batch_size)  # type: ignore[operator]
    assert 100 + 5 * max(ran) <= limit


def test_with_enough_room_a_batch_size_that_was_asked_for_is_reached_in_few_runs() -> None:
    assert grown(10_000, 24)[:7] == [1, 2, 4, 8, 16, 24, 24]
    assert grown(10_000, "auto")[-1] == 32
    assert grown(153, 24)[-1] == 4  # 8 would take 40 MB, and with a margin more than there are


def test_a_run_that_passes_the_limit_is_an_error_that_says_what_would_do() -> None:
    with pytest.raises(OptionError, match=r"memory_limit=103: .* 105 MB .* run 1 image at a time; accepted is 105"):
        grown(103, 8)


def test_what_a_row_takes_is_counted_from_before_the_first_run() -> None:
    process = Process()
    memory = RowMemory(MemoryLimit(160, process.usage), arena=False)
    assert memory.fits(1000)  # nothing is known
    memory.begin()
    process.run(4)
    process.now = 115 * MB  # what the run has left is used again
    memory.begin()
    memory.end(4)
    assert [rows for rows in (2, 4, 8, 9, 16) if memory.fits(rows)] == [2, 4, 8]


def test_runs_at_once_and_what_is_reserved_leave_less_room_for_rows() -> None:
    def most(**more: int) -> int:
        process = Process()
        memory = RowMemory(MemoryLimit(400, process.usage, **more), arena=False)
        memory.begin()
        process.run(4)  # 20 MB
        memory.end(4)
        return max(rows for rows in range(1, 100) if memory.fits(rows))

    assert (most(), most(runs=2), most(reserved=100 * MB)) == (47, 23, 31)  # of 296 MB at 6.25 MB per row


def test_with_a_steady_limit_all_runs_have_one_size() -> None:
    process = Process()
    limit = MemoryLimit(150, ResetPeaks(process.usage, lambda: False), steady=True)
    sizer = limited_sizer(8, limit, fixed_shape=False, arena=False)
    assert [sizer.next(20), sizer.next(3)] == [(8, 8), (3, 3)]
    process.peak = 151 * MB
    with pytest.raises(MemoryLimitError, match="151 MB once it had run 8 images at a time; accepted is 151"):
        sizer.record(8, 1.0)
    assert sizer.next(20) == (8, 8)


@pytest.mark.parametrize("resets", [True, False])
def test_a_peak_is_refused_once_where_the_process_lives_on_and_later_batches_are_smaller(resets: bool) -> None:
    process = Process()

    def reset() -> bool:
        if resets:
            process.peak = process.now
        return resets

    limit = MemoryLimit(150, ResetPeaks(process.usage, reset))
    sizer = limited_sizer(8, limit, fixed_shape=False, arena=False)
    for rows in (1, 2, 4):
        assert sizer.next(8) == (rows, rows)
        process.run(rows)
        sizer.record(rows, 1.0)
    process.peak = 180 * MB
    with pytest.raises(MemoryLimitError, match="180 MB"):
        sizer.record(4, 1.0)
    limit.check("gone on")
    assert sizer.next(8) == (2, 2)
    process.peak = 181 * MB  # a new one
    with pytest.raises(MemoryLimitError, match="181 MB"):
        limit.check("gone on")


def test_a_prediction_needs_no_room_for_masks(tiny_bundle: Path) -> None:
    bundle, process = ortcam.read_bundle(tiny_bundle), Process()
    need = -(-(process.now + model_memory(bundle, "float32", masks=False)) // MB)
    assert model_memory(bundle, "float32", masks=False) < model_memory(bundle, "float32")
    MemoryLimit(need, process.usage).plan(bundle, masks=False)
    with pytest.raises(MemoryLimitError, match=f"accepted is {need} or more"):
        MemoryLimit(need - 1, process.usage).plan(bundle, masks=False)


def test_the_plan_takes_the_arena_where_there_is_room_for_it(tiny_bundle: Path) -> None:
    bundle, process = ortcam.read_bundle(tiny_bundle), Process()
    need = -(-(process.now + model_memory(bundle, "float32")) // MB)
    assert MemoryLimit(need, process.usage).plan(bundle) == MemoryPlan("float32", low_memory=True)
    assert MemoryLimit(2 * need, process.usage).plan(bundle) == MemoryPlan("float32", low_memory=False)
    assert MemoryLimit(2 * need, process.usage).plan(bundle, low_memory=True) == MemoryPlan("float32", low_memory=True)
    with pytest.raises(OptionError, match=rf"memory_limit={need - 1}: .*float32; accepted is {need} or more"):
        MemoryLimit(need - 1, process.usage).plan(bundle)


def test_the_plan_takes_a_smaller_precision_only_where_nothing_else_was_asked_for(tiny_bundle: Path) -> None:
    """A bundle whose float32 scorers have 40 MB of weights, and those in int8 10 MB."""
    bundle, process = ortcam.read_bundle(tiny_bundle), Process()
    graphs = bundle.manifest.graphs
    small = {kind: f"int8-{name}" for kind, name in graphs.scorers.items()}
    sizes = dict.fromkeys(graphs.scorers.values(), 40 * MB) | dict.fromkeys(small.values(), 10 * MB)
    files = dict(bundle.manifest.files)
    some = next(iter(files.values()))
    files |= {name: dataclasses.replace(some, size=size) for name, size in sizes.items()}

    class Variant:
        scorers = small

    manifest = dataclasses.replace(bundle.manifest, files=files, variants={"int8": Variant()})  # type: ignore[dict-item]
    bundle = dataclasses.replace(bundle, manifest=manifest, weights=dict.fromkeys(files, ()))
    of = {name: -(-(process.now + model_memory(bundle, name)) // MB) for name in ("float32", "int8")}
    assert of["int8"] + 70 < of["float32"]
    assert MemoryLimit(of["float32"], process.usage).plan(bundle).precision == "float32"
    assert MemoryLimit(of["float32"] - 1, process.usage).plan(bundle).precision == "int8"
    with pytest.raises(OptionError, match=r"in float32; accepted is \d+ or more"):
        MemoryLimit(of["float32"] - 1, process.usage).plan(bundle, "float32")
    with pytest.raises(OptionError, match=rf"in int8; accepted is {of['int8']} or more"):
        MemoryLimit(of["int8"] - 1, process.usage).plan(bundle)


def test_graphs_of_fixed_shapes_need_what_all_their_rows_do(tiny_bundle: Path) -> None:
    bundle = ortcam.read_bundle(tiny_bundle)
    need = {}
    for rows in (None, 1, 9):
        graphs = dataclasses.replace(bundle.manifest.graphs, static_batch=rows)
        manifest = dataclasses.replace(bundle.manifest, graphs=graphs)
        need[rows] = model_memory(dataclasses.replace(bundle, manifest=manifest), "float32")
    assert need[None] == need[1]
    image = bundle.manifest.preprocessing
    assert need[9] - need[1] >= 8 * 4 * image.channels * image.height * image.width


def test_a_peak_of_the_past_counts(tiny_bundle: Path) -> None:
    process = Process(peak=900 * MB)
    with pytest.raises(OptionError, match=r"900 at its peak, .*; accepted is 900 or more"):
        MemoryLimit(800, process.usage).plan(ortcam.read_bundle(tiny_bundle))
    MemoryLimit(900, process.usage).plan(ortcam.read_bundle(tiny_bundle))


def test_a_graph_that_will_not_fit_is_not_opened() -> None:
    limit = MemoryLimit(120, Process().usage)
    limit.check_opening("head.onnx", 8 * MB)
    with pytest.raises(OptionError, match=r"open head.onnx takes about 123 MB .*; accepted is 123 or more"):
        limit.check_opening("head.onnx", 9 * MB)


def test_more_classes_than_there_is_memory_for_their_maps_are_refused_at_the_start() -> None:
    limit = MemoryLimit(200, lambda: Usage(120 * MB, 130 * MB))
    limit.check_classes(1, (4096, 4096))  # the model's need has it
    limit.check_classes(80, (224, 224))
    with pytest.raises(OptionError, match=r"the maps of 90 classes need about 90 MB more; accepted is 210 or more"):
        limit.check_classes(90, (224, 224))


def test_what_is_a_little_beyond_the_limit_is_told_as_more_than_it() -> None:
    with pytest.raises(OptionError, match=r"=100: this process had 101 MB once it had slept; accepted is 101 or more"):
        MemoryLimit(100, lambda: Usage(0, 100 * MB + 1)).check("slept")


def test_where_the_system_does_not_say_a_limit_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    assert memory_of_process(tmp_path) is None
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "status").write_text("Name:\tx\nVmHWM:\t  2000 kB\nVmRSS:\t 1000 kB\nThreads:\t1\n")
    assert memory_of_process(tmp_path) == Usage(1000 << 10, 2000 << 10)
    with pytest.raises(OptionError, match=r"does not say .*; accepted is low_memory=True"):
        MemoryLimit(100, lambda: None).plan(ortcam.read_bundle(tiny_bundle))


@linux
def test_a_limit_changes_no_map_and_copies_keep_it(tiny_bundle: Path, photograph: Path) -> None:
    plain = ortcam.load(tiny_bundle, threads=1).explain(photograph, method="scorecam", batch_size=1)
    with ortcam.load(tiny_bundle, threads=1, memory_limit=1_000_000) as roomy:
        with pytest.raises(OptionError, match="memory_limit=1"):
            ortcam.load(tiny_bundle, memory_limit=1)
        limited = roomy.explain(photograph, method="scorecam", batch_size=1)
        assert (limited.maps == plain.maps).all()
        grows = copy.copy(roomy).explain(photograph, method="scorecam", batch_size=4)
        assert grows.stats.runs == 4  # of 1, 2, 4 and 3 rows; without a limit there are three


@linux
def test_batches_grow_from_one_and_head_only_methods_run_one_row(tiny_bundle: Path, photograph: Path) -> None:
    bundle = ortcam.read_bundle(tiny_bundle)
    options = SessionOptions(resolve_providers(["cpu"]), threads=1, memory_limit=1_000_000)
    engine = RecordingEngine(OnnxEngine(bundle, options))
    explainer = ortcam.Explainer(bundle, options, engine=engine)
    explainer.explain(photograph, method="scorecam", batch_size=4)
    assert [call.rows for call in engine.calls if "scorer" in call.graph] == [1, 2, 4, 3]
    engine.calls.clear()
    explainer.explain(photograph, method="recipro-cam", batch_size=4)
    assert {call.rows for call in engine.calls if call.graph == bundle.manifest.graphs.head} == {1}


@linux
def test_the_command_says_what_is_needed_in_one_line(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path / "out"), "--memory-limit"]
    assert main([*given, "1"]) == 2
    assert re.search(r"memory_limit=1: .*; accepted is \d+ or more", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert main([*given, "1000000"]) == 0


SCRIPT = """
import json, sys, ortcam
from ortcam.engine.memory import memory_of_process
bundle, image, limit, method = sys.argv[1:]
try:
    explainer = ortcam.load(bundle, threads=1, memory_limit=int(limit))
    found = explainer.explain(image, method=method, budget=48, completion="none", batch_size=16).stats.batch_size
except ortcam.OptionError as error:
    found = str(error)
print(json.dumps([found, memory_of_process().peak]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("methods", ["scorecam", "cam,scorecam,scorecam++"])
def test_a_limit_that_was_passed_is_told_once(
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    methods: str,
) -> None:
    begun: list[RowMemory] = []
    monkeypatch.setattr(RowMemory, "begin", lambda memory: begun.append(memory))  # noqa: PLW0108 - a method needs self
    monkeypatch.setattr(MemoryLimit, "used", lambda _: Usage(0, 2000 * MB if begun else 0))
    words = ["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path / "out"), "--memory-limit", "1000"]
    assert main([*words, "-m", methods]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "memory_limit=" in line]
    assert line.endswith("had 2000 MB once it had run 1 image at a time; accepted is 2000 or more")


@linux
@pytest.mark.long
@pytest.mark.parametrize("method", ["scorecam", "scorecam++"])
def test_real_peaks_stay_below_the_limit_and_what_is_said_to_be_needed_does(method: str, photograph: Path) -> None:
    def found(limit: int) -> tuple[int | str, int]:
        command = [sys.executable, "-c", SCRIPT, "shapes", str(photograph), str(limit), method]
        size, peak = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return size, peak

    refused, peak = found(20)
    assert isinstance(refused, str)
    need = int(re.search(r"accepted is (\d+) or more", refused)[1])  # type: ignore[index]
    assert peak < need * MB  # nothing was opened
    sizes = []
    for limit in (need + 2, int(1.3 * need), 3 * need):
        size, peak = found(limit)
        assert isinstance(size, int), size
        assert peak <= limit * MB
        sizes.append(size)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 16
