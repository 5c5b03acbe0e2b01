"""What the study of batches computes: rates, ratios, costs, growth; and its parts, small."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.batch import costs_report, report
from benchmarks.batch.costs_report import Pace, million_hours, passes
from benchmarks.batch.loops import Grouping, Round, groupings
from benchmarks.batch.memory import growth
from benchmarks.batch.scale import names
from benchmarks.batch.throughput import rate, seconds_per_image
from tests.conftest import REPOSITORY


def timing(rate: float, seconds: float, processor_seconds: float) -> dict[str, float]:
    return {"rate": rate, "seconds": seconds, "processor_seconds": processor_seconds}


KIND: dict[str, Any] = {
    "name": "shapes, grad-cam",
    "images": 10,
    "default": "2 x 1",
    "batch": {"1 x 2": [timing(4, 5, 8), timing(6, 5, 8)], "2 x 1": [timing(9, 4, 8), timing(12, 4, 8)]},
    "loop": {"1 x 2": [timing(8, 4, 6), timing(20, 4, 6)], "2 x 1": [timing(10, 2, 6), timing(10, 2, 6)]},
}


def test_the_rate_is_of_the_images_behind_the_first_tenth() -> None:
    assert rate([0, 5, 10, 60, 100], [0.0, 50.0, 60.0, 65.0, 75.0]) == pytest.approx(90 / 15)
    with pytest.raises(ValueError, match="100 images were done at once"):
        rate([0, 100], [0.0, 3.0])


def test_ratios_are_above_one_where_the_batch_is_better() -> None:
    assert report.ratios(KIND, "1 x 2", "rate") == [0.5, 0.3]
    assert report.ratios(KIND, "1 x 2", "seconds") == [0.8, 0.8]
    assert report.ratios(KIND, "2 x 1", "processor_seconds") == [0.75, 0.75]


def test_the_default_is_compared_with_the_fastest_loops_of_its_round() -> None:
    assert report.best_ratios(KIND) == [0.9, 0.6]


def test_every_core_belongs_to_one_process() -> None:
    assert groupings(4) == [Grouping(1, 4), Grouping(2, 2), Grouping(4, 1)]
    assert groupings(3) == [Grouping(1, 3), Grouping(3, 1)]


def test_loops_end_with_the_last_of_them() -> None:
    found = Round.of(
        [
            {"started": 10.0, "ends": [12.0, 15.0], "stats": [{"passes": 1}, {"passes": 2}]},
            {"started": 11.0, "ends": [13.0], "stats": [{"passes": 3}]},
        ]
    )
    assert found.seconds == 5
    assert found.ends == [2, 3, 5]
    assert [item["passes"] for item in found.stats] == [1, 2, 3]


def test_a_million_images_cost_their_passes_and_the_rest() -> None:
    slow, fast = (
        {"pass_seconds": seconds, "rest_seconds": 0.1, "cheap_seconds": cheap, "batch_size": 4}
        for seconds, cheap in ((0.02, 0.018), (0.01, 0.036))
    )
    model = {"random": False, "channels": 350, "method": "grad-cam", "paces": {"1 x 2": slow, "2 x 1": fast}}
    model["best"] = "2 x 1"
    assert passes(350, 0.12) == 42
    assert Pace(**fast).image_seconds(42) == pytest.approx(0.52)
    assert million_hours(model, 0.12) == pytest.approx(0.52 * 1e6 / 3600)
    assert million_hours(model, 1.0) == pytest.approx(3.6 * 1e6 / 3600)
    assert million_hours(model, None) == pytest.approx(5), "the grouping that is best for that method"
    page = costs_report.text_of({"models": {"resnet18": model}}, "- Machine", price=0.1, cores=2)
    assert "| resnet18 | 350 | 1,000 h (100) | 144 h (14.4) |" in page
    assert "5.00 h (0.500), grad-cam |" in page
    assert {item.name for item in costs_report.figures({"models": {"resnet18": model}})} >= {
        "resnet18 / budget 0.12 / per million images",
        "resnet18 / 2 x 1 / pass",
    }


def test_memory_that_grows_after_the_first_quarter_is_growth() -> None:
    flat, rising = [40, 50, 50, 50], [40, 50, 60, 70]
    samples = [(float(at), a, b) for at, (a, b) in enumerate(zip(flat * 1, rising, strict=True))]
    assert growth(samples, 1) == 0
    assert growth(samples, 2) == 20


def test_what_a_driver_needs_per_image_leaves_out_its_start() -> None:
    answer = {"counts": [0, 100, 300], "processor": [1.0, 5.0, 5.4]}
    assert seconds_per_image(answer) == pytest.approx(0.002)


def test_names_of_images_are_different() -> None:
    assert len({*names(0, 3000), *names(3000, 2000)}) == 5000


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def medians(stem: Path) -> dict[str, float]:
    figures = json.loads(stem.with_suffix(".json").read_text("utf-8"))["figures"]
    return {item["name"]: item["median"] for item in figures}


@pytest.mark.long
def test_a_resumed_batch_finds_the_one_image_that_is_left(tmp_path: Path) -> None:
    stem = tmp_path / "scale"
    done = run(
        *("benchmarks.batch.scale", "--millions", "0.025", "--stages", "ids", "resume", "input"),
        *("--scratch", str(tmp_path), "-o", str(stem)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    raw = json.loads((tmp_path / "scale-raw.json").read_text("utf-8"))["sizes"]["0.025"]
    assert [raw[stage]["count"] for stage in ("input", "ids", "resume")] == [25_000, 24_999, 1]
    assert raw["parts"] == 3
    assert medians(stem)["0.025 million / resume / peak memory"] > 0


@pytest.mark.long
def test_batches_and_bare_loops_run_side_by_side(data: Path, tmp_path: Path) -> None:
    stem = tmp_path / "batch"
    small = ["--models", "shapes", "--images", "12", "--rounds", "1", "--watched", "60", "--pretended", "500"]
    small += ["--pretenders", "3"]
    done = run("benchmarks.batch", *small, "--parts", "throughput", "memory", "driver", "-o", str(stem))
    assert done.returncode == 0, done.stdout + done.stderr
    found = medians(stem)
    assert found["shapes, grad-cam / default by the best loop"] > 0
    assert found["driver / 3 processes / rate"] > 0
    assert "Aim: at least 0.97" in stem.with_suffix(".md").read_text("utf-8")
