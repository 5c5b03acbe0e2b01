"""`ortcam benchmark`: what it reports and how it refuses; how long anything takes is nobody's promise here."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from ortcam import BundleError, OptionError, read_bundle
from ortcam.benchmarking import Row, Timings, benchmark
from ortcam.cli import main
from ortcam.cli.latency.plot import draw
from ortcam.cli.latency.table import in_words
from ortcam.images.reading import read_image
from ortcam.methods.auto import row_of


def measured(bundle: Path, photograph: Path, **options: object) -> Timings:
    values = {"methods": ["scorecam"], "batch_sizes": [4], "runs": 2, "threads": 1, **options}
    return benchmark(bundle, photograph, **values)


def test_every_combination_gets_a_row(tiny_bundle: Path, photograph: Path) -> None:
    report = measured(tiny_bundle, photograph, methods=["scorecam", "ScoreCAMpp"], batch_sizes=[2, 4])
    assert [(row.method, row.batch_size) for row in report.rows] == [
        ("scorecam", 2),
        ("scorecam", 4),
        ("scorecam++", 2),
        ("scorecam++", 4),
    ]
    for row in report.rows:
        assert len(row.seconds) == 2
        assert 0 < row.passes == row.all_passes <= 10
        assert 0 < row.median <= row.p95
        assert row.overhead == pytest.approx(row.median / (row.bare_seconds * row.passes) - 1)
        assert row.providers[-1] == "CPUExecutionProvider"
    assert report.peak_memory_bytes is None or report.peak_memory_bytes > 1e6


def test_a_cut_in_a_branch_has_bare_passes_too(branch_bundle: Path, photograph: Path) -> None:
    (row,) = measured(branch_bundle, photograph).rows
    assert row.bare_seconds > 0


def test_little_time_means_fewer_passes_and_a_scaled_time(tiny_bundle: Path, photograph: Path) -> None:
    (row,) = measured(tiny_bundle, photograph, seconds=1e-6).rows
    assert row.passes == 4 < row.all_passes
    assert row.median > min(row.seconds)
    assert row.overhead == pytest.approx(row.median / (row.bare_seconds * row.all_passes) - 1)  # of what is shown


def test_samples_count_as_passes(tiny_bundle: Path, photograph: Path) -> None:
    (row,) = measured(tiny_bundle, photograph, methods=["iscam"], seconds=600).rows
    assert row.passes == row.all_passes
    assert row.all_passes % 10 == 0


def test_json_has_the_machine_the_versions_and_the_rows(
    tiny_bundle: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--methods", "scorecam", "--batch-sizes", "1,4", "--runs", "1", "--image", str(photograph), "--json"]
    assert main(["benchmark", str(tiny_bundle), *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {"bundle", "machine", "versions", "threads", "runs", "rows", "notes", "peak_memory"} <= printed.keys()
    assert [row["batch_size"] for row in printed["rows"]] == [1, 4]
    assert {"method", "precision", "passes", "seconds", "median", "p95", "overhead"} <= printed["rows"][0].keys()
    assert printed["bundle"]["path"] == str(tiny_bundle)


@pytest.mark.slow
def test_the_shipped_bundle_is_measured_on_the_shipped_picture_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.png"
    arguments = ["--methods", "scorecam", "--batch-sizes", "16", "--runs", "1", "--seconds", "2", "--plot", str(plot)]
    assert main(["benchmark", "shapes", *arguments]) == 0
    table = capsys.readouterr().out
    for word in ("scorecam", "overhead", "peak memory", "CPUExecutionProvider"):
        assert word in table
    assert table.splitlines()[-1] == f"Open {plot}"
    assert read_image(plot).shape[1] > 400


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--methods", "fullgrad"], "fullgrad"),
        (["--method", "scorecam", "--batch-size", "0"], "batch-size"),
        (["--methods", "scorecam", "--batch-sizes", "many"], "batch-size"),
        (["--runs", "0"], "runs"),
        (["--seconds", "0"], "seconds"),
        (["--image", "nowhere.jpg"], "nowhere.jpg"),
        (["--image", __file__], "image"),
        (["--image", "/dev/zero"], "is a device"),
        (["--max-pixels", "9"], "more than the limit of 9"),
        (["--max-pixels", "0"], "max_pixels=0"),
        (["--provider", "abacus"], "abacus"),
        (["--threads", "0"], "threads"),
        (["--plot", "plot.txt"], "plot.txt"),
        (["--plot", "no/such/folder/plot.png"], "no/such/folder"),
    ],
)
def test_what_is_not_accepted_is_refused_in_one_line(
    tiny_bundle: Path, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", str(tiny_bundle), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ortcam: ")
    assert captured.err.count("\n") == 1
    assert word in captured.err


def test_no_bundle_is_one_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(tmp_path / "none.ortcam")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_plot_without_matplotlib_names_the_extra(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["benchmark", str(tiny_bundle), "--plot", "plot.png"]) == 2
    assert "[plot]" in capsys.readouterr().err


def test_an_unknown_method_is_refused_before_anything_runs(tmp_path: Path, photograph: Path) -> None:
    with pytest.raises(OptionError, match="unknown method"):
        measured(tmp_path / "none.ortcam", photograph, methods=["fullgrad"])


def test_methods_that_mask_nothing_have_one_row_and_no_bare_passes(tiny_bundle: Path, photograph: Path) -> None:
    report = measured(tiny_bundle, photograph, methods=["recipro-cam", "eigen-cam", "cam"], batch_sizes=[2, 4])
    assert [row.method for row in report.rows] == ["recipro-cam", "eigen-cam", "cam"]
    assert [(row.passes, row.overhead) for row in report.rows] == [(0, None)] * 3
    assert report.rows[0].head_passes == 8 * 12


def test_a_method_that_the_model_cannot_have_becomes_a_note(branch_bundle: Path, photograph: Path) -> None:
    report = measured(branch_bundle, photograph, methods=["scorecam", "recipro-cam"])
    assert [row.method for row in report.rows] == ["scorecam"]
    assert report.notes[0].startswith("recipro-cam is left out: ")


def test_options_limits_and_auto_are_measured_as_they_are_asked_for(tiny_bundle: Path, photograph: Path) -> None:
    methods = ["scorecam:budget=4", "recipro-cam:augment=3", "scorecam:budget=2:augment=3", "auto"]
    rows = measured(tiny_bundle, photograph, methods=methods).rows
    chosen = row_of(read_bundle(tiny_bundle).manifest).method
    assert [row.method for row in rows] == [*methods[:3], f"auto: {chosen}"]
    assert [(row.passes, row.all_passes) for row in rows[:3]] == [(4, 4), (0, 0), (6, 6)]
    assert rows[1].head_passes == 3 * 8 * 12
    assert not any(row.is_scaled for row in rows)
    with pytest.raises(OptionError, match="precision=int8: accepted is --precision"):
        measured(tiny_bundle, photograph, methods=["scorecam:precision=int8"])


def test_what_cannot_be_measured_is_said_before_anything_is(tiny_bundle: Path, photograph: Path) -> None:
    said: list[object] = []
    with pytest.raises(BundleError, match="no scorers in int8 in this bundle"):
        measured(tiny_bundle, photograph, precisions=["fp32", "int8"], progress=lambda *told: said.append(told))
    for nothing in ({"methods": []}, {"batch_sizes": []}):
        with pytest.raises(OptionError, match="accepted is one of each or more"):
            measured(tiny_bundle, photograph, progress=lambda *told: said.append(told), **nothing)
    assert not said


def a_row(method: str, precision: str, *, passes: int, all_passes: int) -> Row:
    masked = all_passes > 0
    return Row(
        method=method,
        precision=precision,
        batch_size=32,
        providers=("CPUExecutionProvider",),
        passes=passes,
        all_passes=all_passes,
        head_passes=0 if masked else 49,
        seconds=(1.0,),
        bare_seconds=0.0018 if masked else None,
        median=0.002 * max(all_passes, 1),
        p95=0.0022 * max(all_passes, 1),
        overhead=0.08 if masked else None,
    )


ROWS = {
    "one": (a_row("scorecam++", "float32", passes=512, all_passes=512),),
    "twenty": tuple(
        a_row(method, precision, passes=min(passes, 896), all_passes=passes)
        for method, passes in (("scorecam", 512), ("scorecam++", 512), ("sscam", 17920), ("iscam", 5120), ("cam", 0))
        for precision in ("float32", "float16", "int8", "float32")
    ),
}


def a_report(rows: tuple[Row, ...]) -> Timings:
    return Timings(
        bundle={"path": "models/resnet18.ortcam", "sha256": "0"},
        model="resnet18 $x$",
        image="cat.jpg",
        machine={"processor": "A processor with a long name @ 2.90GHz", "logical_cores": 2, "system": "Linux-6.1.0"},
        versions={"ortcam": "0", "onnxruntime": "1", "numpy": "2", "python": "3"},
        threads=None,
        runs=5,
        seconds_allowed=60,
        rows=rows,
        notes=("recipro-cam is left out: it needs the head alone, and the cut of this bundle lies in a branch",),
        peak_memory_bytes=10**9,
    )


@pytest.mark.parametrize("count", ROWS)
def test_the_table_fits_eighty_columns_and_marks_what_was_scaled(count: str) -> None:
    text = in_words(a_report(ROWS[count]))
    assert max(map(len, text.splitlines())) <= 80
    assert ("~35.8 s" in text) == ("scaled up" in text) == (count == "twenty")


@pytest.mark.slow
@pytest.mark.parametrize("count", ROWS)
def test_the_plot_carries_values_units_and_a_title_and_marks_what_was_scaled(count: str, tmp_path: Path) -> None:
    with mpl.rc_context({"svg.fonttype": "none", "text.usetex": False}):
        draw(a_report(ROWS[count]), tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    for words in ("Time per explanation: resnet18 ", "time per explanation (logarithmic)", "1.02 s", "5 runs"):
        assert words in drawn
    assert ("~35.8 s" in drawn) == ("scaled up from a part of the passes" in drawn) == (count == "twenty")


def test_a_precision_is_called_by_its_name(tiny_bundle: Path, photograph: Path) -> None:
    report = measured(tiny_bundle, photograph, methods=["scorecam", "eigen-cam"], precisions=["FP32", "float32"])
    assert [(row.method, row.precision) for row in report.rows] == [("scorecam", "float32"), ("eigen-cam", "float32")]
    assert report.rows[0].overhead is not None
