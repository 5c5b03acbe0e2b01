"""Benchmarks of gradient methods: what is computed from timings, and entries that are measured in parts."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks.common.figures import median
from benchmarks.common.subjects import WITH_WEIGHTS
from benchmarks.compare import gradients as compared
from benchmarks.compare import gradients_report as comparison
from benchmarks.compare.gradients_report import FORWARD, LIBRARIES, OURS, Timing
from benchmarks.faithfulness import gradients as faithful
from benchmarks.faithfulness.parts import PROTOCOL, Part, measure
from benchmarks.faithfulness.studies import COARSE_STEP

import ortcam
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.evaluation.dataset import Example
from ortcam.evaluation.journal import Journal

CONFIDENCE = ("confidence", "pointing")


def timing(times: float, passes: float, backward: float = 1.5, *, random: bool = False) -> Timing:
    """A model whose bare pass takes 10, 20 and 10 ms as the machine goes, and everything else in proportion."""
    bare = [0.01, 0.02, 0.01]
    ours = [passes * value for value in bare]
    return Timing(
        layer="layer4",
        random=random,
        seconds={name: [value * (1 if name == OURS else times) for value in ours] for name in LIBRARIES},
        ten_seconds=[1.5 * value for value in ours],
        forward_seconds=bare,
        cpu_seconds={
            FORWARD: [0.01] * 3,
            **{name: [0.01 * passes * (1 if name == OURS else 2 * times)] * 3 for name in LIBRARIES},
        },
        cold_start_seconds={name: [0.5, 0.6] for name in LIBRARIES},
        peak_bytes={name: [100_000_000] for name in LIBRARIES},
        graphs={"layer4": {"head": [0.001, 0.002], "gradient": [0.001 * backward, 0.002 * backward]}},
        agreement={name: 1.0 for name in LIBRARIES if name != OURS},
    )


def settings() -> dict[str, Any]:
    return {"photograph": "x.jpg", "rounds": 3, "runs": 5, "cold_starts": 2, "threads": 2}


def run() -> dict[str, Any]:
    machine = {"cpu": "a processor", "cores": 2, "memory_bytes": 2**33, "os": "an OS", "load_average": 0.1}
    return {"machine": machine, "versions": {"ortcam": "1"}, "command": "python -m x", "date": "today"}


def test_a_turn_is_compared_with_its_own_pass_so_that_a_slow_machine_changes_no_ratio() -> None:
    found = timing(times=4.0, passes=1.2)
    assert found.by_pass(OURS) == pytest.approx(1.2)
    assert found.times("torch-cam") == pytest.approx(4.0)
    assert median(found.seconds[OURS]) / max(found.forward_seconds) != pytest.approx(1.2)


def test_targets_are_geometric_means_and_worst_models_by_kind_of_head() -> None:
    timings = {
        "resnet18": timing(2.0, 1.1),
        "mobilenet_v2": timing(8.0, 1.3, backward=3.0),
        "vgg16": timing(4.0, 1.9, random=True),
    }
    text = comparison.report(timings, settings(), run())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    targets = {row[0]: row[1:] for row in rows if len(row) == 4}
    assert targets["latency, torch-cam by ortcam, geometric mean"] == ["at least 3", "4.00", "8.00"]
    assert targets["latency, torch-cam, best settings by ortcam, geometric mean"] == ["-", "4.00", "8.00"]
    affine, other = (f"explanation by bare pass, {kind} heads, the worst model" for kind in ("affine", "other"))
    assert targets[affine] == ["at most 1.35", "1.30 (mobilenet_v2)", "1.30 (mobilenet_v2)"]
    assert targets[other] == ["at most 2", "1.90 (vgg16)", "1.90 (vgg16)"]
    assert targets["gradient graph by head, the worst model"] == ["at most 2.5", "", "3.00 (mobilenet_v2 layer4)"]
    assert "vgg16 (random)" in text


def test_figures_of_timings_have_unique_names() -> None:
    names = [figure.name for figure in compared.figures({"resnet18": timing(3.0, 1.2), "vgg16": timing(3.0, 1.8)})]
    assert len(set(names)) == len(names)
    assert "resnet18 / layer4 / gradient graph by head" in names


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "work", {"of": "a test"}, resume=True)


def examples(count: int) -> list[Example]:
    return [Example(path.name, path) for path in sample_images()[:count]]


@pytest.mark.long
def test_a_part_that_is_added_later_is_paired_with_what_was_measured(journal: Journal) -> None:
    explainer = ortcam.load(bundle_path(), threads=1)
    masked = Part("masked", ("scorecam++:budget=0.1",), CONFIDENCE, ())
    head = Part("head", ("recipro-cam",), ("confidence", "adcc", "deletion-zero"), ())
    gaussian = Part("baselines", ("centred-gaussian",), CONFIDENCE, ())
    with journal:
        measure(masked, explainer, examples(2), journal)
        measure(masked, explainer, examples(2), journal)
        assert len(list(journal.measured())) == 2, "nothing is measured twice"
        measure(gaussian, explainer, examples(2), journal)
        measure(head, explainer, examples(1), journal)
        entries = [entry for part in (masked, gaussian, head) for entry in part.entries]
        images = [item.name for item in examples(2)]
        before = faithful.summary(journal, entries, images)
        measure(head, explainer, examples(2), journal)
        found = faithful.summary(journal, entries, images)
    assert before["images"]["measured"] == found["images"]["measured"] == 2
    assert "recipro-cam" not in before["table"], "a run was stopped at it"
    assert [method["name"] for method in found["methods"]] == [
        "scorecam++:budget=0.1",
        "recipro-cam",
        "centred-gaussian",
    ]
    assert "deletion-zero" in found["table"]["recipro-cam"]
    assert "deletion-zero" not in found["table"]["centred-gaussian"]
    assert [method["name"] for method in found["contest"]["methods"]] == ["scorecam++:budget=0.1"]
    text = faithful.report({"squeezenet1_1": found}, run(), 1)
    assert "| less Recipro-CAM |" in text
    assert "| Centred Gaussian | - |" not in text, "no row of dashes alone"


def test_every_part_is_of_known_methods_and_metrics_and_no_entry_is_measured_in_two_of_a_model() -> None:
    for model in WITH_WEIGHTS:
        names = [entry.name for part in faithful.PARTS if model in part.models for entry in part.entries]
        assert len(set(names)) == len(names)
        assert {*faithful.OF_THE_PAPER} <= {*names}
        assert any(name.startswith("scorecam++") for name in names)


def test_the_entries_are_named_as_the_evaluation_names_them() -> None:
    for part in faithful.PARTS:
        assert tuple(entry.name for entry in part.entries) == part.methods, "or a part would be measured again"
    assert PROTOCOL.name == "soft-map"
    assert COARSE_STEP == 4 * 502
