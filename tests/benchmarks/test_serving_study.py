"""What the load on the server computes: right and wrong answers, ratios, growth; and all of it, small."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.serving.report import growth, ratios
from benchmarks.serving.requests import DIFFERENCE, KINDS, Request, judged, mixed
from tests.conftest import REPOSITORY

REQUEST = Request("shapes", "grad-cam", Path("cat.jpg"))
EXPECTED = {
    "probabilities": np.array([0.1, 0.7, 0.2]),
    "classes": np.array([1]),
    "map": np.array([[[0.0, 0.5], [0.25, 1.0]]]),
}


def answer(**changed: Any) -> bytes:
    target = {"index": 1, "probability": 0.7, "map": {"data": [[0.0, 0.5], [0.25, 1.0]]}, **changed}
    return json.dumps({"explanations": [{"targets": [target]}]}).encode()


def test_the_right_answer_is_right() -> None:
    verdict = judged(REQUEST, answer(), EXPECTED)
    assert verdict.words == ""
    assert verdict.furthest == 0
    near = judged(REQUEST, answer(map={"data": [[0.0, 0.5], [0.25, 1 - DIFFERENCE / 2]]}), EXPECTED)
    assert near.words == ""
    assert near.furthest == pytest.approx(DIFFERENCE / 2)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"index": 0}, "probabilities of"),
        ({"probability": 0.71}, "probabilities"),
        ({"map": {"data": [[0.0, 0.5], [0.25, 1 - 2 * DIFFERENCE]]}}, "maps differ"),
        ({"map": {"data": [[0.0, 0.5]]}}, "maps differ by inf"),
        ({"map": None}, "NoneType"),
    ],
)
def test_an_answer_with_one_thing_wrong_is_wrong(changed: dict[str, Any], words: str) -> None:
    assert words in judged(REQUEST, answer(**changed), EXPECTED).words


def test_an_explanation_of_another_class_is_wrong() -> None:
    others = {**EXPECTED, "classes": np.array([2])}
    assert "classes [1] instead of [2]" in judged(REQUEST, answer(), others).words


def test_a_prediction_is_compared_by_its_classes() -> None:
    request = Request("shapes", "predict", Path("cat.jpg"))
    classes = [{"index": 1, "probability": 0.7}, {"index": 2, "probability": 0.2}]
    body = json.dumps({"predictions": [{"classes": classes}]}).encode()
    assert judged(request, body, EXPECTED).words == ""
    classes[1]["index"] = 0
    body = json.dumps({"predictions": [{"classes": classes}]}).encode()
    assert judged(request, body, EXPECTED).words


def test_the_mix_has_every_kind_for_every_bundle_and_is_the_same_again() -> None:
    photographs = [Path("a.jpg"), Path("b.jpg")]
    found = mixed(["x", "y"], photographs, turns=2)
    for kind in KINDS:
        for model in "xy":
            assert sum(item.kind == kind.name and item.model == model for item in found) == 2 * kind.often
    assert found == mixed(["x", "y"], photographs, turns=2)
    assert found != mixed(["x", "y"], photographs, turns=2, seed=1)


def test_ratios_are_of_the_same_round_and_above_one_where_the_server_is_faster() -> None:
    throughput = {"0": {"seconds": [2.0, 3.0]}, "4": {"seconds": [1.0, 6.0]}}
    assert ratios(throughput, "4") == [2.0, 0.5]


def test_memory_that_grows_after_the_first_third_is_growth() -> None:
    assert growth({"bytes": [1, 50, 100, 100, 100, 100, 130, 130, 130]}) == 30
    assert growth({"bytes": [1, 50, 99, 100, 100, 100, 100, 100, 100]}) == 0


@pytest.mark.long
def test_the_load_runs_and_finds_no_wrong_answer(data: Path, tmp_path: Path) -> None:
    stem = tmp_path / "serving"
    small = ["--models", "shapes", "--beside", "shapes", "--rounds", "1", "--photographs", "2"]
    small += ["--requests", "60", "--samples", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", *small, "-o", str(stem)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {item["name"]: item["median"] for item in json.loads(stem.with_suffix(".json").read_text())["figures"]}
    assert figures["wrong"] == figures["errors"] == 0
    assert "16 clients / ratio of throughput" in figures
    assert "0 wrong, 0 errors" in stem.with_suffix(".md").read_text("utf-8")
