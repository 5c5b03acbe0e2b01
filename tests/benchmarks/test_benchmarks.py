"""The parts of the benchmarks that compute: ratios, noise, tables, means, targets; nothing is timed here."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.common import fidelity, machine, plots, results, subjects
from benchmarks.common.figures import Figure, Summary, megabytes, read_summaries, table, with_quartiles
from benchmarks.common.replay import load_remembering
from benchmarks.compare import changes
from benchmarks.compare import measurement as compared
from benchmarks.compare import report as comparison
from benchmarks.faithfulness import broadened
from benchmarks.frontier import points as frontier
from benchmarks.frontier import report as frontier_report
from benchmarks.gpu import bench as gpu
from benchmarks.gpu.checks import checks
from benchmarks.gpu.engine_checks import ENGINE
from benchmarks.gpu.report import aims
from onnxruntime import InferenceSession
from tests.conftest import REPOSITORY

import ortcam
from benchmarks import calibration, sweep
from ortcam.bundle.shipped import bundle_path, demo_image


def figures(**values: tuple[float, ...]) -> dict[str, Summary]:
    return {name: Figure(name, "s", series).summary for name, series in values.items()}


def test_a_change_is_judged_by_the_noise_of_both_series() -> None:
    quiet, loud = (1.0, 1.0, 1.0), (0.5, 1.0, 1.5)
    found = changes.changes(
        figures(steady=quiet, slower=quiet, faster=quiet, noisy=loud, gone=quiet),
        figures(steady=(1.01,), slower=(1.3, 1.3), faster=(0.7,), noisy=(1.3, 1.3), new=quiet),
    )
    verdicts = {change.figure: change.verdict(3.0) for change in found}
    assert verdicts == {"steady": "", "slower": "worse", "faster": "better", "noisy": ""}
    assert [change.ratio for change in found] == pytest.approx([1.01, 1.3, 0.7, 1.3])
    assert found[3].noise == pytest.approx(0.25), "half the distance between the quartiles, by the median"


def test_what_is_better_when_higher_is_worse_when_lower() -> None:
    then = {"r": Figure("r", "Pearson", (0.99,), "higher").summary}
    now = {"r": Figure("r", "Pearson", (0.80,), "higher").summary}
    (change,) = changes.changes(then, now)
    assert change.verdict(3.0) == "worse"
    assert "worse" in changes.report([change], threshold=3.0)
    assert changes.report([], threshold=3.0) == "nothing changed"


def test_a_figure_that_was_zero_changes_without_a_division() -> None:
    (change,) = changes.changes(figures(errors=(0.0,)), figures(errors=(2.0,)))
    assert math.isinf(change.ratio)
    assert change.verdict(3.0) == "worse"


def test_figures_are_committed_by_their_quartiles_and_raw_data_lie_beside_them(tmp_path: Path) -> None:
    written = [Figure("a / latency", "s", (1.0, 2.0, 4.0)), Figure("a / Pearson", "Pearson", (0.9,), "higher")]
    raw = {"n": np.float32(1), "settings": {"threads": 2}}
    results.write_results(tmp_path / "x", run={"date": "today"}, raw=raw, figures=written)
    text = (tmp_path / "x.json").read_text("utf-8")
    document = json.loads(text)
    assert list(read_summaries(document).values()) == [
        Summary("a / latency", "s", 2.0, (1.5, 3.0), 3),
        Summary("a / Pearson", "Pearson", 0.9, (0.9, 0.9), 1, "higher"),
    ]
    assert [key for key in document if key != "figures"] == ["date", "settings"]
    assert [line.strip(" ,") for line in text.splitlines() if "latency" in line] == [
        '{"name": "a / latency", "unit": "s", "better": "lower", "median": 2.0, "quartiles": [1.5, 3.0], "count": 3}'
    ]
    assert results.read_raw(tmp_path / "x") == {"date": "today", "n": 1, "settings": {"threads": 2}}


def test_figures_of_before_the_raw_data_were_apart_are_read(tmp_path: Path) -> None:
    older = {"figures": [{"name": "a", "unit": "s", "values": [1.0, 2.0, 4.0], "better": "lower"}]}
    assert read_summaries(older) == {"a": Summary("a", "s", 2.0, (1.5, 3.0), 3)}
    assert read_summaries({"models": {}}) == {}


def test_committed_results_are_figures_alone() -> None:
    files = results.figure_files()
    assert files
    for path in files:
        text = path.read_text("utf-8")
        document = json.loads(text)
        assert set(document) <= {"machine", "versions", "command", "date", "settings", "figures"}, path.name
        assert len(read_summaries(document)) == len(document["figures"]) > 0, path.name
        assert len(text.splitlines()) < len(document["figures"]) + 12, path.name
    assert sum(len(path.read_text("utf-8").splitlines()) for path in files) < 5000


@pytest.mark.slow
def test_every_result_that_has_figures_can_be_compared_with_its_commit() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare.changes"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 1), result.stderr  # 1: something is worse than the noise explains
    assert result.stderr == ""


def test_a_series_is_shown_by_its_median_and_quartiles() -> None:
    assert with_quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.00 [2.00, 4.00]"
    assert with_quartiles([1.234], 1) == "1.2"
    assert megabytes([1e6, 3e6]) == "2"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def settings(**changed: object) -> compared.Settings:
    values = {
        "method": "scorecam",
        "libraries": ("ortcam", "torch-cam"),
        "photograph": "p.jpg",
        "target": 1,
        "label": "cat",
        "repeats": 3,
        "repeats_large": 1,
        "cold_starts": 1,
        "batch_size": 32,
        "threads": 2,
    }
    return compared.Settings(**{**values, **changed})


def measurement(ours: float, theirs: float) -> compared.Measurement:
    return compared.Measurement(
        layer="features",
        random=False,
        channels=512,
        passes=500,
        seconds={"ortcam": [ours] * 3, "torch-cam": [theirs] * 3},
        stages=[{"decode": 0.01, "scoring": ours}] * 3,
        batch_sizes={"ortcam": 32, "torch-cam": 32},
        ten_seconds=[ours * 1.01] * 3,
        forward_seconds={"1": [ours / 400] * 3, "8": [ours / 500] * 3},
        torch_forward_seconds={"8": 0.02},
        cold_start_seconds={"ortcam": [1.0], "torch-cam": [10.0]},
        peak_bytes={"ortcam": [100], "torch-cam": [400]},
        agreement={"torch-cam": 1.0},
    )


def test_targets_are_geometric_means_over_the_models() -> None:
    models = {"a": measurement(1.0, 2.0), "b": measurement(1.0, 8.0)}
    run = machine.describe_run("benchmarks.compare", ["--repeats", "3"])
    text = comparison.report(models, settings(), run)
    assert "| latency, torch-cam by ortcam, geometric mean | at least 2.6 | 4.00 |" in text
    assert "| peak memory, ortcam, by torch-cam | at most 0.35 | 0.25 |" in text
    assert "| cold start, ortcam, by torch-cam | at most 0.2 | 0.10 |" in text
    assert "| explanation by bare passes, ortcam, the worst model | at most 1.03 | 1.000 |" in text
    assert "| ten classes by one, the worst model | at most 1.02 | 1.010 |" in text
    assert "python -m benchmarks.compare --repeats 3" in text
    names = [figure.name for figure in compared.figures(models)]
    assert len(names) == len(set(names))


def test_models_of_an_earlier_run_are_kept_only_where_they_are_comparable(tmp_path: Path) -> None:
    import dataclasses

    run = machine.describe_run("benchmarks.compare", [])
    raw = {"settings": dataclasses.asdict(settings()), "models": {"a": dataclasses.asdict(measurement(1, 2))}}
    results.write_results(tmp_path / "compare", run=run, raw=raw, figures=[])
    kept = results.earlier_models(tmp_path / "compare", run, dataclasses.asdict(settings()))
    assert {model: compared.Measurement(**result) for model, result in kept.items()} == {"a": measurement(1, 2)}
    with pytest.raises(SystemExit, match="settings"):
        results.earlier_models(tmp_path / "compare", run, dataclasses.asdict(settings(threads=1)))


def test_nothing_is_kept_of_a_run_whose_raw_data_are_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = machine.describe_run("benchmarks.compare", [])
    assert results.earlier_models(tmp_path / "none", run, {}) == {}
    assert "none-raw.json: not there" in capsys.readouterr().err


def test_configurations_have_names_of_their_own() -> None:
    found = fidelity.configurations(
        "scorecam",
        families=(fidelity.EXACT, fidelity.COMPLETED, fidelity.PLAIN, fidelity.TOLERANCE),
        budgets=(0.06, 0.12),
        tolerances=(0.05,),
        precisions=("fp32", "int8"),
    )
    names = [item.name for item in found]
    assert names[0] == "exact"
    assert len(names) == len(set(names)) == 9
    assert "budget 0.12, int8" in names
    assert "budget 0.06, energy order alone" in names


def test_methods_that_sample_are_also_stopped_at_a_standard_error() -> None:
    families = (fidelity.EXACT, fidelity.SAMPLED, fidelity.HEAD)
    found = fidelity.configurations("iscam", families=families, budgets=(0.12,), tolerances=(), precisions=("fp32",))
    assert [item.name for item in found] == [
        "exact",
        "sampling error 0.1",
        "budget 0.12, sampling error 0.1",
        "sampling error 0.2",
        "budget 0.12, sampling error 0.2",
    ]


def test_the_correlation_of_flat_maps_is_defined() -> None:
    flat, sloped = np.zeros((4, 4), np.float32), np.arange(16, dtype=np.float32).reshape(4, 4)
    assert fidelity.pearson(flat, flat) == 1
    assert fidelity.pearson(flat, sloped) == 0
    assert fidelity.pearson(sloped, 2 * sloped + 1) == pytest.approx(1)
    np.testing.assert_allclose(plots.nines([-0.5, 0.9, 0.999, 1.0]), [0, 1, 3, 5])


def test_the_fastest_configuration_is_one_that_is_close_enough() -> None:
    def point(family: str, precision: str, mean: float, speedup: float) -> frontier.Point:
        return frontier.Point(family, precision, {}, [mean], [1.0], [1.0], [speedup])

    points = {
        "exact": point(fidelity.EXACT, "fp32", 1.0, 5),
        "close": point(fidelity.COMPLETED, "fp32", 0.992, 25),
        "far": point(fidelity.COMPLETED, "fp32", 0.98, 40),
        "small": point(fidelity.COMPLETED, "int8", 0.99, 35),
        "other": point(fidelity.HEAD, "fp32", 0.995, 400),
    }
    assert frontier.fastest_at(points, {"fp32"}) == "close"
    assert frontier.fastest_at(points, {"fp32", "int8"}) == "small"
    assert frontier.fastest_at({"far": points["far"]}, {"fp32"}) is None


def test_coverage_counts_errors_under_the_tolerance_or_under_the_estimate() -> None:
    runs = [calibration.Run("a", estimated, true, 1.0, 0.5) for estimated, true in ((0.05, 0.04), (0.02, 0.06))]
    assert calibration.coverage(runs, 0.05) == 0.5
    assert calibration.coverage(runs, 0.1) == 1
    assert calibration.coverage(runs, None) == 0.5


def test_photographs_are_taken_at_even_distances(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "DATA", data)
    names = [item.path.name for item in subjects.photographs(3)]
    assert names == [subjects.photographs()[index].path.name for index in (0, 100, 200)]


@pytest.mark.long
@pytest.mark.parametrize("method", ["scorecam", "sscam", "iscam"])
def test_passes_made_once_give_the_same_maps(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ortcam.load(bundle_path(), providers=["cpu"])
    photograph = explainer.read(demo_image())
    settings: dict[str, Any] = {"method": method, "target": [1, 2], "batch_size": 4}
    if method != "scorecam":
        settings["num_samples"] = 2
    ways: tuple[dict[str, Any], ...] = ({}, {"budget": 0.1}, {"budget": 20, "completion": "none"}, {"tolerance": 0.2})
    expected = [explainer.explain(photograph, **settings, **way) for way in ways]
    made: list[int] = []
    run = InferenceSession.run_with_iobinding
    remembering = load_remembering(bundle_path())
    monkeypatch.setattr(InferenceSession, "run_with_iobinding", lambda *given: (made.append(1), run(*given))[1])
    for way, e in zip(ways, expected, strict=True):
        replayed = remembering.explain(photograph, **settings, **way)
        np.testing.assert_allclose(replayed.maps, e.maps, rtol=0, atol=1e-5)
        assert replayed.stats.passes == e.stats.passes
        assert replayed.stats.runs == e.stats.runs
    assert len(made) == expected[0].stats.runs  # the exact map's, and no more


def some_points() -> frontier.Points:
    found = fidelity.configurations(
        "scorecam",
        families=(fidelity.EXACT, fidelity.COMPLETED, fidelity.PLAIN, fidelity.TOLERANCE),
        budgets=(0.06, 0.12),
        tolerances=(0.05,),
        precisions=("fp32", "int8"),
    )
    return {
        item.name: frontier.Point(
            item.family, item.precision, item.options, [1 - 0.01 / (index + 1)], [0.1], [0.1 + index], [20.0]
        )
        for index, item in enumerate(found)
    }


@pytest.mark.long
def test_a_frontier_is_written_and_drawn(tmp_path: Path) -> None:
    models = {"a": some_points(), "b": some_points()}
    facts = {"method": "scorecam", "photographs": 1, "timed": 1, "threads": 2, "calibration": 32}
    text = frontier_report.report(models, facts, machine.describe_run("benchmarks.frontier", []))
    assert "| a: Pearson at 12% of the passes, mean and least | at least 0.99 and 0.95 | 0.9967 and 0.9967 |" in text
    assert "any precision, geometric mean | at least 30 | 20.0 (a: " in text
    frontier_report.plot(models, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_calibration_is_written_and_drawn(tmp_path: Path) -> None:
    runs = {
        "tolerance 0.05": [calibration.Run("a", 0.05, 0.04, 1.0, 0.5), calibration.Run("b", 0.05, 0.06, 1.0, 0.7)],
        "budget 0.12": [calibration.Run("a", 0.1, 0.0, 1.0, 0.12)],
    }
    facts = {"method": "scorecam", "photographs": 2, "threads": 2}
    text = calibration.report({"m": runs}, facts, machine.describe_run("benchmarks.calibration", []))
    assert "50.0% of 2, with 60% of the passes (median)." in text
    assert "| m | tolerance 0.05 | 50.0% | 50.0% |" in text
    calibration.plot({"m": runs}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_aims_on_a_gpu_are_set_against_the_peers_as_their_readme_shows_them() -> None:
    seconds = {
        "ortcam fp32": [1.0],
        "ortcam fp16": [0.5],
        "torch-cam, batch 32": [12.0],
        "torch-cam, batch 512, best settings": [4.0],
        "bare ONNX Runtime fp32, batch 32": [0.0005],
        "bare PyTorch fp16, batch 32": [0.0002],
    }
    measured = {row[0]: row[2] for row in aims(seconds, live=1900)}
    assert measured["× over torch-cam as its README shows it, fp32"] == "12.0"
    assert measured["× over torch-cam at its best settings, fp32"] == "4.0"
    assert measured["explanation by bare passes, fp32"] == "1.053"
    assert measured["masked images a second by the bare fp16 model's at its best batch"] == "0.76"


@pytest.mark.slow
def test_the_gpu_benchmark_stands_in_for_torchvision_and_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    module = gpu.make_module(quick=False)
    assert sum(parameter.numel() for parameter in module.parameters()) == 25_557_032, "as torchvision's resnet50"
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda _: None)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    assert gpu.do_without_opencv()
    stand_in = sys.modules.pop("cv2")
    image, channel = gpu.make_image(20), np.empty((20, 20), np.uint8)
    stand_in.extractChannel(image, 1, channel)
    np.testing.assert_array_equal(channel, image[..., 1])


@pytest.mark.long
def test_a_check_that_fails_does_not_end_the_others() -> None:
    bench = gpu.Bench(Path("none.ortcam"), None, gpu.make_image(8), "cpu", ("fp32",), 1, (1,))
    outcomes = {check.name: check.outcome for check in checks(bench, cases=ENGINE)}
    assert set(outcomes.values()) == {"failed", "skipped"}
    assert outcomes["CUDA graphs give the same map"] == "skipped"


@pytest.mark.parametrize("mean", [0.05, 0.3, 0.5, 0.9])
def test_a_map_is_taken_to_the_power_that_has_the_mean_and_keeps_its_order(mean: float) -> None:
    saliency = np.random.default_rng(0).random((20, 30))
    found = broadened.power_to(saliency, mean)
    assert found.mean() == pytest.approx(mean, abs=1e-9)
    np.testing.assert_array_equal(np.argsort(found, axis=None), np.argsort(saliency, axis=None))


def sweep_gradients(monkeypatch: pytest.MonkeyPatch, stem: Path, *names: str) -> list[list[str]]:
    """The rows of the table after `--gradients`, without its heading."""
    found = {"inputs": ["features"], "differences": 1e-6, "autograd": None}
    monkeypatch.setattr(sweep, "measure_gradient", lambda name: found)
    monkeypatch.setattr("sys.argv", ["sweep", "--gradients", "--models", *names, "--output", str(stem)])
    sweep.main()
    lines = stem.with_suffix(".md").read_text("utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    assert {len(row) for row in rows} == {len(sweep.COLUMNS)}
    return [[cell.strip() for cell in row] for row in rows[1:]]


def test_gradients_alone_are_a_sweep_of_a_fresh_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no export has been measured, the table has the gradients and nothing else."""
    (row,) = sweep_gradients(monkeypatch, tmp_path / "sweep", "alexnet")
    assert row == ["alexnet", *[""] * 6, "1.0e-06", "", "features", *[""] * 3]
    assert "1 of 1 heads that were tried have a gradient graph" in (tmp_path / "sweep.md").read_text("utf-8")


def test_gradients_alone_fill_in_a_table_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the raw numbers, which no clone has. What is there stays, and is not measured again."""
    committed = (REPOSITORY / "benchmarks" / "results" / "sweep.md").read_text("utf-8")
    versions = dict(re.findall(r"([\w-]+) ([\d.]+\d)", committed.partition("--gradients` with ")[2].splitlines()[0]))
    monkeypatch.setattr(sweep, "tool_versions", lambda: versions)
    (tmp_path / "sweep.md").write_text(committed, "utf-8")
    before = {row[0]: row for row in sweep_gradients(monkeypatch, tmp_path / "sweep", "alexnet")}
    assert (tmp_path / "sweep.md").read_text("utf-8") == committed
    (tmp_path / "sweep.md").write_text(committed.replace(" 1.5e-07 | 1.5e-06 | features ", "  |  |  ", 1), "utf-8")
    after = {row[0]: row for row in sweep_gradients(monkeypatch, tmp_path / "sweep", "alexnet", "resnet18")}
    assert after["alexnet"] == [*before["alexnet"][:7], "1.0e-06", "", "features", *before["alexnet"][10:]]
    assert {**after, "alexnet": 0} == {**before, "alexnet": 0}
    monkeypatch.setattr(sweep, "tool_versions", lambda: {**versions, "numpy": "99"})
    newer = sweep_gradients(monkeypatch, tmp_path / "sweep", "resnet18")
    assert [row[0] for row in newer if row[7]] == ["resnet18"]


def test_the_sweep_has_figures_of_what_does_not_vary() -> None:
    good = {"parity": 1e-6, "model": "a", "bytes": 10, "nodes": 3, "seconds": 1.0}
    found = list(sweep.figures([good, {"model": "b", "error": "fails"}]))
    assert [(figure.name, figure.values) for figure in found] == [("a / bundle", (10,)), ("a / nodes", (3,))]
