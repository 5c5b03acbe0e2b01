"""The shipped model on scenes it has never seen: it knows the objects, and the maps of all methods fall on them."""

import json
from pathlib import Path

import pytest

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.cli import main
from ortcam.cli.commands import demo
from ortcam.cli.main import make_parser
from ortcam.images.reading import read_image
from ortcam.methods.auto import row_of
from shapes import evaluate
from shapes.scenes import CLASSES


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path())


def test_it_is_small_and_names_its_classes(explainer: ortcam.Explainer) -> None:
    assert sum(path.stat().st_size for path in bundle_path().iterdir()) <= 3_000_000
    assert explainer.labels == CLASSES
    assert explainer.bundle.manifest.model.source == "torchvision"


@pytest.mark.slow
@pytest.mark.parametrize("count", [140, 700])
def test_it_knows_at_least_98_percent_of_unseen_scenes(explainer: ortcam.Explainer, count: int) -> None:
    assert evaluate.accuracy(explainer, count) >= 0.98


# Fewer samples than the defaults of SS-CAM (35) and IS-CAM (10), for time; the model card has the figures with those.
@pytest.mark.slow
@pytest.mark.parametrize(("method", "samples"), [("scorecam", None), ("scorecam++", None), ("sscam", 2), ("iscam", 2)])
@pytest.mark.parametrize(("budget", "count"), [(0.1, 2), (1.0, 6)])
def test_maps_fall_on_their_objects(
    explainer: ortcam.Explainer, method: str, samples: int | None, budget: float, count: int
) -> None:
    options = {"budget": budget} | ({"num_samples": samples} if samples else {})
    scenes = evaluate.single_scenes(count // (samples or 1)) + evaluate.pair_scenes(2 * count // (samples or 1))
    found = evaluate.localisation(explainer, scenes, method, **options)
    assert found.energy.mean() >= 3, "energy inside the object, over chance"
    assert found.own.mean() >= 0.95, "with two objects, the map of each class prefers its own"


@pytest.mark.slow
def test_the_demo_draws_one_sheet_of_all_methods_and_both_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few, masked = {"budget": 8}, ("scorecam", "scorecam++", "sscam", "iscam")
    monkeypatch.setattr(demo, "DEMO_OPTIONS", {"auto": {}} | dict.fromkeys(masked, few))
    assert main(["demo", "-o", str(tmp_path)]) == 0
    sheet = read_image(tmp_path / f"{demo_image().stem}.png")
    assert sheet.shape[1] > 6 * 250
    assert "umbrella" in (tmp_path / "index.html").read_text("utf-8")
    printed = capsys.readouterr().out
    assert str(tmp_path / "index.html") in printed
    for command in [line.split("ortcam ")[1] for line in printed.splitlines() if line.startswith("  ortcam ")]:
        make_parser().parse_args(command.split())
    folder = tmp_path / demo_image().stem
    for method in (row_of(ortcam.read_bundle(bundle_path()).manifest).method, *masked):
        manifest = json.loads((folder / method / "manifest.json").read_text())
        assert {target["label"] for target in manifest["targets"]} == {"mug", "umbrella"}
        assert manifest["bundle"]["sha256"] == ortcam.read_bundle(bundle_path()).sha256
