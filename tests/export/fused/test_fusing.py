"""One file that explains: its interface, what it says of itself, what it does at the edges, and what is refused."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT
from tests.export.rounding import TINY_MAPS

import ortcam
from ortcam.cli import main
from ortcam.errors import OrtcamError
from ortcam_export import export, fuse

REPOSITORY = Path(__file__).parents[3]
SHAPES = REPOSITORY / "models" / "shapes.ortcam"


@pytest.fixture(scope="module")
def saturated_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes that do not exclude each other, all of them certain, the later the more."""
    module = TinyNet()
    with torch.no_grad():
        module.classifier.weight.mul_(0.01)
        module.classifier.bias.copy_(torch.arange(6) * 5.0 + 20)
    path = tmp_path_factory.mktemp("bundles") / "saturated.ortcam"
    return export(module.eval(), path, activation="sigmoid", **TINY_INPUT).path


@pytest.fixture(scope="module")
def coarse_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "coarse.ortcam"
    return export(TinyNet().eval(), path, precision=["fp16", "int8"], **TINY_INPUT).path


@pytest.fixture(scope="module")
def dead_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose maps are zero whatever the image."""
    module = TinyNet()
    with torch.no_grad():
        module.features[4].weight.zero_()
        module.features[4].bias.fill_(-1)
    path = tmp_path_factory.mktemp("bundles") / "dead.ortcam"
    return export(module.eval(), path, layer="features", **TINY_INPUT).path


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> ortcam.Explainer:
    return ortcam.load(tiny_bundle, threads=1)


def run(file: Path, **inputs: Any) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, inputs), strict=True))


def test_it_has_the_documented_outputs(
    tiny_bundle: Path, explainer: ortcam.Explainer, photograph: Path, tmp_path: Path
) -> None:
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", method="scorecam", top_k=3)
    found = run(fused.path, image=explainer.preprocess(photograph))
    expected = explainer.explain(photograph, method="scorecam", top_k=3)
    assert {name: (value.dtype, value.shape) for name, value in found.items()} == {
        "logits": (np.float32, (1, 6)),
        "targets": (np.int64, (3,)),
        "saliency": (np.float32, (3, 32, 48)),
        "low_resolution": (np.float32, (3, 8, 12)),
        "flat": (np.bool_, (3,)),
    }
    assert tuple(found["targets"]) == expected.targets
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)
    np.testing.assert_allclose(
        found["low_resolution"], expected.raw_maps, atol=TINY_MAPS * np.abs(expected.raw_maps).max()
    )
    np.testing.assert_array_equal(found["flat"], expected.flat)
    assert fused.difference is not None
    assert fused.difference < TINY_MAPS
    assert fused.size == fused.path.stat().st_size


@pytest.mark.slow
def test_classes_chosen_at_run_time_are_clamped_and_flagged(
    tiny_bundle: Path, explainer: ortcam.Explainer, photograph: Path, tmp_path: Path
) -> None:
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", method="scorecam++", runtime_targets=True)
    image = explainer.preprocess(photograph)
    found = run(fused.path, image=image, classes=np.array([4, -1, 6, 1, 2**40]))
    np.testing.assert_array_equal(found["targets"], [4, 0, 5, 1, 5])
    np.testing.assert_array_equal(found["clamped"], [False, True, True, False, True])
    expected = explainer.explain(photograph, method="scorecam++", target=[4, 0, 5, 1])
    np.testing.assert_allclose(found["saliency"], expected.maps[[0, 1, 2, 3, 2]], atol=TINY_MAPS)
    assert len(run(fused.path, image=image, classes=np.array([3]))["saliency"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [(90, 120), (200, 64), (31, 33)])
def test_a_picture_of_any_size_goes_in_as_it_was_decoded(
    tiny_bundle: Path, explainer: ortcam.Explainer, tmp_path: Path, size: tuple[int, int]
) -> None:
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", method="scorecam++", uint8_input=True)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        run(fused.path, image=picture)["saliency"],
        explainer.explain(picture, method="scorecam++").maps,
        atol=TINY_MAPS,
    )


@pytest.mark.slow
@pytest.mark.parametrize("budget", [1, 4, 1000, 0.3, 1.0])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_budget_takes_the_channels_of_the_highest_energy(
    tiny_bundle: Path, explainer: ortcam.Explainer, photograph: Path, tmp_path: Path, budget: float, batch_size: int
) -> None:
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", budget=budget, batch_size=batch_size)
    found = run(fused.path, image=explainer.preprocess(photograph))
    expected = explainer.explain(photograph, budget=budget, completion="none")
    np.testing.assert_allclose(found["saliency"], expected.maps, atol=TINY_MAPS)


def test_a_budget_leaves_something_out(tiny_bundle: Path, explainer: ortcam.Explainer, photograph: Path) -> None:
    whole, part = (explainer.explain(photograph, budget=budget, completion="none") for budget in (None, 0.3))
    assert np.abs(whole.maps - part.maps).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scorecam", "scorecam++", "sscam", "iscam"])
@pytest.mark.parametrize("weighting", ["probability", "logit-softmax"])
def test_an_image_that_lights_no_channel_has_a_flat_map(
    tmp_path: Path, dead_bundle: Path, method: str, weighting: str
) -> None:
    options = {"weighting": weighting} | ({"num_samples": 2} if method in ("sscam", "iscam") else {})
    fused = fuse(dead_bundle, tmp_path / "e.onnx", method=method, top_k=2, **options)
    explainer = ortcam.load(dead_bundle)
    picture = np.full((40, 40, 3), 128, np.uint8)
    expected = explainer.explain(picture, method=method, top_k=2, **options)
    assert expected.stats.live_channels == 0
    found = run(fused.path, image=explainer.preprocess(picture))
    np.testing.assert_array_equal(found["flat"], [True, True])
    np.testing.assert_array_equal(found["saliency"], 0)
    np.testing.assert_array_equal(found["low_resolution"], 0)


@pytest.mark.slow
def test_noise_is_the_same_in_every_run_and_session(photograph: Path, tmp_path: Path) -> None:
    image = ortcam.load(SHAPES).preprocess(photograph)
    settings = {"method": "sscam", "num_samples": 2, "budget": 8, "verify": False}
    first, other = (fuse(SHAPES, tmp_path / f"{seed}.onnx", seed=seed, **settings).path for seed in (0, 1))
    session = ort.InferenceSession(first, providers=["CPUExecutionProvider"])
    saliency = run(first, image=image)["saliency"]
    for _ in range(2):
        np.testing.assert_array_equal(session.run(["saliency"], {"image": image})[0], saliency)
    assert np.abs(run(other, image=image)["saliency"] - saliency).max() > 1e-3


@pytest.mark.slow
def test_weights_are_once_in_the_file_or_beside_it(tmp_path: Path, photograph: Path) -> None:
    weights = (SHAPES / "weights.bin").stat().st_size
    inside = fuse(SHAPES, tmp_path / "inside.onnx", budget=3)
    beside = fuse(SHAPES, tmp_path / "beside.onnx", budget=3, external=True)
    graph = beside.path.stat().st_size
    assert graph < 0.15 * weights
    assert beside.external == tmp_path / "beside.onnx.data"
    assert beside.external.stat().st_size < 1.01 * weights
    assert inside.external is None
    assert inside.size < weights + 1.2 * graph
    image = ortcam.load(SHAPES).preprocess(photograph)
    np.testing.assert_array_equal(*(run(file.path, image=image)["saliency"] for file in (inside, beside)))


def test_weights_of_a_run_before_are_removed_and_files_of_others_stay(tiny_bundle: Path, tmp_path: Path) -> None:
    left = b"weights of a run that was killed"
    named = f"f.onnx.{hashlib.sha256(left).hexdigest()[:8]}.data"
    others = ("f.onnx.20261126.data", "f.onnx.data")
    (tmp_path / named).write_bytes(left)
    for other in others:
        (tmp_path / other).write_text("somebody's")
    for force in (False, True):
        fuse(tiny_bundle, tmp_path / "f.onnx", verify=False, force=force)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["f.onnx", *others])


def test_it_is_made_of_standard_operators_and_the_function_of_its_weights(tiny_bundle: Path, tmp_path: Path) -> None:
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", method="sscam", num_samples=2, uint8_input=True)
    model = onnx.load(fused.path)
    onnx.checker.check_model(model, full_check=True)

    def nodes(graph: Any) -> Any:
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from nodes(attribute.g)

    found = {(node.domain, node.op_type) for node in nodes(model.graph)}
    assert {domain for domain, _ in found} <= {"", "ortcam"}
    assert {name for domain, name in found if domain == "ortcam"} <= {function.name for function in model.functions}
    for function in model.functions:
        assert {(node.domain, node.op_type) for node in function.node} == {("", "Constant")}
    assert fused.nodes == len(list(nodes(model.graph)))


def test_it_says_what_it_is(tiny_bundle: Path, tmp_path: Path) -> None:
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", method="iscam", budget=0.5, path="linear")
    found = {entry.key: entry.value for entry in onnx.load(fused.path).metadata_props}
    assert found == fused.metadata
    assert found["ortcam.method"] == "iscam"
    assert json.loads(found["ortcam.options"])["path"] == "linear"
    assert json.loads(found["ortcam.budget"]) == 0.5
    assert json.loads(found["ortcam.labels"])[2] == "sea snake"
    assert json.loads(found["ortcam.preprocessing"])["mean"] == [0.5, 0.5, 0.5]
    assert found["ortcam.bundle_sha256"] == ortcam.load(tiny_bundle).bundle.sha256


def test_the_same_bundle_gives_the_same_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    first, second = (
        fuse(tiny_bundle, tmp_path / f"{name}.onnx", method="scorecam++").path.read_bytes() for name in "ab"
    )
    assert first == second


@pytest.mark.slow
def test_the_documented_example_runs_where_there_is_no_ortcam(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "how-to" / "fuse.md").read_text("utf-8")
    example = next(part for part in text.split("```python\n")[1:] if "InferenceSession" in part).split("```")[0]
    assert len(example.strip().splitlines()) <= 12
    fuse(SHAPES, tmp_path / "explainer.onnx", uint8_input=True, budget=8)
    shutil.copyfile(REPOSITORY / "models" / "shapes" / "samples" / "fish.png", tmp_path / "mug-umbrella.png")
    refuse = "import sys\nsys.modules['ortcam'] = sys.modules['ortcam_export'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", refuse + example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "fish" in done.stdout
    assert (tmp_path / "saliency.png").stat().st_size > 1000


REFUSALS: dict[str, tuple[list[str], str]] = {
    "a method that masks nothing": (["-m", "recipro-cam"], "cannot be fused; accepted is scorecam, scorecam++"),
    "no such method": (["-m", "scorekam"], "did you mean"),
    "a budget of nothing": (["--budget", "0"], "budget=0: accepted is a share"),
    "a budget beyond all": (["--budget", "120%"], "budget=1.2: accepted is a share"),
    "more classes than there are": (["--top-k", "7"], "top_k=7: accepted is a whole number from 1 to 6"),
    "no classes": (["--top-k", "0"], "top_k=0: accepted is a whole number from 1"),
    "no images at a time": (["--batch-size", "0"], "batch_size=0: accepted is a whole number from 1"),
    "an option of no method": (["-m", "scorecam++", "--option", "gates=tanh"], "did you mean 'gate'"),
    "a precision that is not there": (["--precision", "int8"], "no scorers in int8"),
    "another ending": (["-o", "{folder}/e.pb"], "ends in .onnx"),
    "no such folder": (["-o", "{folder}/none/e.onnx"], "does not exist"),
    "a file that is there": (["-o", "{folder}/there.onnx"], "--force replaces it"),
    "a folder of that name": (["-o", "{folder}/folder.onnx", "--force"], "exists and is not a file"),
    "two places": (["--triton", "{folder}"], "-o FILE writes a file, --triton DIR a model repository"),
    "an option that is an argument": (["-m", "scorecam++", "--option", "budget=3"], "unknown option 'budget'"),
    "a name without a repository": (["--name", "x"], "the folder of a Triton repository"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_one_line_and_leaves_nothing(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    before = sorted(tmp_path.rglob("*"))
    given = [text.format(folder=tmp_path) for text in arguments]
    output = [] if "-o" in given else ["-o", str(tmp_path / "e.onnx")]
    assert main(["fuse", str(tiny_bundle), *output, *given]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert sum(line.startswith("ortcam: ") for line in lines) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_numbers_may_be_those_of_numpy(tiny_bundle: Path, tmp_path: Path) -> None:
    counts = {"method": "scorecam++", "top_k": np.int64(2), "batch_size": np.int32(4)}
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", verify=False, **counts)
    assert (fused.metadata["ortcam.targets"], fused.metadata["ortcam.batch_size"]) == ("2", "4")
    with pytest.raises(OrtcamError, match="top_k=True: accepted is a whole number from 1"):
        fuse(tiny_bundle, tmp_path / "f.onnx", top_k=True)


def test_a_map_that_is_not_the_runtimes_is_not_written(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ortcam_export.fused.explainer_graph.maps.LEAST_RANGE", 2.0)  # every map is flat
    with pytest.raises(OrtcamError, match=r"differ from the runtime's by 1\.0e"):
        fuse(tiny_bundle, tmp_path / "e.onnx", method="scorecam++")
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_and_the_command_says_what_it_wrote(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "e.onnx"
    path.write_text("old")
    assert main(["fuse", str(tiny_bundle), "-o", str(path), "--force", "--top-k", "2", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["fuse", str(tiny_bundle), "-o", str(path), "--force", "--top-k", "2"]) == 0
    said = capsys.readouterr().out
    assert "saliency: float32 [2,32,48]" in said
    assert "maps differ from the runtime's by" in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["e.onnx"]


def test_numbers_beyond_the_channels_are_all_of_them(
    tiny_bundle: Path, explainer: ortcam.Explainer, photograph: Path, tmp_path: Path
) -> None:
    fused = fuse(tiny_bundle, tmp_path / "e.onnx", budget=1_000_000, batch_size=65_536)
    found = run(fused.path, image=explainer.preprocess(photograph))["saliency"]
    np.testing.assert_allclose(found, explainer.explain(photograph, method="scorecam++").maps, atol=TINY_MAPS)


def test_a_file_of_the_bundle_is_not_written_over(tiny_bundle: Path) -> None:
    before = (tiny_bundle / "features.onnx").read_bytes()
    with pytest.raises(OrtcamError, match="lies in the bundle"):
        fuse(tiny_bundle, tiny_bundle / "features.onnx", force=True)
    assert (tiny_bundle / "features.onnx").read_bytes() == before


@pytest.mark.long
def test_a_process_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    script = "import os, signal, sys, ortcam_export.fused.fuse as fusing\n"
    script += "fusing.check_model = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
    script += "from ortcam.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "fuse", str(SHAPES), "-o", str(tmp_path / "e.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr.strip().endswith("ortcam: terminated")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_classes_whose_probabilities_float32_cannot_tell_apart_are_ordered_by_their_logits(
    saturated_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    explainer = ortcam.load(saturated_bundle)
    explanation = explainer.explain(photograph, method="scorecam", top_k=3)
    assert np.ptp(explanation.probabilities[:2]) == 0
    logits = explainer.logits(1, lambda _: explainer.preprocess(photograph))[0]
    assert list(explanation.targets) == list(np.argsort(-logits)[:3]) != sorted(explanation.targets)
    fused = fuse(saturated_bundle, tmp_path / "e.onnx", method="scorecam", top_k=3)
    np.testing.assert_array_equal(
        run(fused.path, image=explainer.preprocess(photograph))["targets"], explanation.targets
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_coarser_scorers_are_those_of_the_runtime(
    coarse_bundle: Path, photograph: Path, tmp_path: Path, precision: str
) -> None:
    explainer = ortcam.load(coarse_bundle, precision=precision)
    for method, options in (("scorecam++", {}), ("sscam", {"num_samples": 2})):
        fused = fuse(coarse_bundle, tmp_path / "e.onnx", method=method, precision=precision, force=True, **options)
        found = run(fused.path, image=explainer.preprocess(photograph))["saliency"]
        expected = explainer.explain(photograph, method=method, batch_size=8, **options).maps
        np.testing.assert_allclose(found, expected, atol=TINY_MAPS)
