"""Scorers in float16 and int8: the same interface, maps like float32's, and a refusal where they cannot be had."""

import collections
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tests.common.tiny import TinyNet
from tests.conftest import REPOSITORY, TINY_INPUT
from tests.export.zoo import ZOO
from tests.export.zoo.integers import int8_qdq_per_channel

import ortcam
from ortcam.bundle import MANIFEST_NAME, Bundle, read_bundle
from ortcam.bundle.shipped import sample_images
from ortcam.cli import main
from ortcam.images.encoding import write_png
from ortcam.images.preprocessing import Preprocessing
from ortcam_export import export
from ortcam_export.errors import ExportError
from ortcam_export.precision import calibration, fidelity

pytestmark = pytest.mark.slow

PRECISIONS = ("float32", "float16", "int8")


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 9 pictures, a hidden file, and two that are no pictures."""
    folder = tmp_path_factory.mktemp("somewhere") / "my photographs"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(9):
        coarse = generator.integers(0, 256, (6, 8, 3), np.uint8)
        write_png(folder / f"{index}.png", coarse.repeat(10, axis=0).repeat(10, axis=1))
    (folder / ".hidden").write_text("x")
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def tiny(photographs: Path, said: list[str], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "tiny.ortcam"
    arguments = {"precision": "fp32,fp16,int8", "calibration": photographs, "report": said.append}
    return export(TinyNet().eval(), path, **arguments, **TINY_INPUT)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped model with real weights, calibrated on what ships with it, its fidelity measured on few channels."""
    models = REPOSITORY / "models" / "shapes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "CHANNELS", (16, 16))
        return export(
            "shufflenet_v2_x0_5",
            tmp_path_factory.mktemp("bundles") / "shapes.ortcam",
            checkpoint=models / "shapes.pth",
            labels=models / "labels.txt",
            resize=224,
            precision=["int8", "float16"],
        )


def test_every_precision_that_was_asked_for_is_there_and_float32_is_first(tiny: Bundle, shapes: Bundle) -> None:
    assert tiny.precisions == PRECISIONS
    assert shapes.precisions == ("float32", "int8", "float16")
    assert tiny.manifest.precision == "float32"
    assert tiny.scorer("tanh") == tiny.scorer("tanh", "fp32") == tiny.path / "scorer-tanh.onnx"
    assert tiny.scorer("tanh", "fp16").name == tiny.scorer("tanh", "float16").name == "scorer-tanh-fp16.onnx"


def test_scorers_have_the_same_inputs_and_outputs_in_all_precisions(tiny: Bundle, shapes: Bundle) -> None:
    def interface(path: Path) -> list[str]:
        graph = onnx.load(path, load_external_data=False).graph
        return [str(value) for value in (*graph.input, *graph.output)]

    for bundle in (tiny, shapes):
        for kind in bundle.manifest.graphs.scorers:
            expected = interface(bundle.scorer(kind))
            assert all(interface(bundle.scorer(kind, precision)) == expected for precision in PRECISIONS[1:])


def test_the_weights_of_a_precision_are_stored_once_and_are_as_small_as_they_should_be(shapes: Bundle) -> None:
    for precision, short, factor in (("float16", "fp16", 0.55), ("int8", "int8", 0.3)):
        for file in shapes.manifest.variants[precision].scorers.values():
            graph = onnx.load(shapes.file(file), load_external_data=False).graph
            places = {
                entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"
            }
            assert places == {f"weights-{short}.bin", "weights.bin"}, "the second holds the interpolation matrices"
        sizes = {name: record.size for name, record in shapes.manifest.files.items()}
        # The head stays in float32 beside the integers, and small tensors lie in the graphs.
        assert sizes[f"weights-{short}.bin"] < factor * sizes["weights.bin"]


def operators(bundle: Bundle, precision: str, folder: Path) -> collections.Counter[str]:
    """The operators of the linear scorer as ONNX Runtime runs them on the CPU."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(bundle.scorer("linear", precision), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(folder / "optimized.onnx", load_external_data=False)
    return collections.Counter(node.op_type for node in optimized.graph.node)


def test_every_convolution_runs_in_integers_with_no_float_in_between(shapes: Bundle, tmp_path: Path) -> None:
    float32, int8 = (operators(shapes, precision, tmp_path) for precision in ("float32", "int8"))
    convolutions = sum(count for name, count in float32.items() if "Conv" in name)
    assert int8["QLinearConv"] == convolutions
    assert not int8["Conv"]
    assert (int8["QuantizeLinear"], int8["DequantizeLinear"]) == (1, 1)


@pytest.mark.parametrize(("method", "precisions"), [("scorecam", ("float16", "int8")), ("scorecam++", ("int8",))])
def test_the_shipped_models_maps_are_those_of_float32(method: str, precisions: tuple[str, ...], shapes: Bundle) -> None:
    """Measured: float16 1.0000, int8 0.9999, calibrated on crops of this picture and another."""
    bounds = {"float16": 0.9999, "int8": 0.995}
    picture = sample_images()[0]
    target = ortcam.load(shapes.path, providers=["cpu"]).explain(picture, method=method)
    assert target.stats.precision == "float32"
    for precision in precisions:
        other = ortcam.load(shapes.path, providers=["cpu"], precision=precision).explain(picture, method=method)
        assert other.stats.precision == other.summary()["stats"]["precision"] == precision
        assert other.targets == target.targets
        assert other.probabilities == target.probabilities, "the clean pass is float32's"
        assert correlation(target.maps, other.maps) > bounds[precision]
        assert (target.weights != other.weights).any(), "the passes are not float32's"


def test_all_methods_run_in_all_precisions(tiny: Bundle, photograph: Path) -> None:
    for method in ("scorecam", "scorecam++", "sscam", "iscam"):
        maps = [
            ortcam.load(tiny.path, providers=["cpu"], precision=name).explain(photograph, method=method).maps
            for name in PRECISIONS
        ]
        assert correlation(maps[0], maps[1]) > 0.999
        assert correlation(maps[0], maps[2]) > 0.9


def test_the_manifest_says_what_was_measured_and_on_what(tiny: Bundle, shapes: Bundle, photographs: Path) -> None:
    variant = tiny.manifest.variants["int8"]
    assert variant.calibration == "7 of 9 pictures of my photographs (2 held out)"
    assert str(photographs.parent) not in (tiny.path / MANIFEST_NAME).read_text()
    assert (variant.fidelity.images, variant.fidelity.held_out, variant.fidelity.channels) == (2, True, 10)
    assert tiny.manifest.variants["float16"].calibration is None
    assert tiny.manifest.variants["float16"].fidelity.top1 == 1
    assert 0 < tiny.manifest.variants["float16"].parity < variant.parity <= variant.tolerance
    assert "drawings that come with ortcam" in str(shapes.manifest.variants["int8"].calibration)
    for bundle, least in ((tiny, 0.9), (shapes, 0.99)):
        for likeness in bundle.manifest.variants["int8"].fidelity.maps.values():
            assert least < likeness.pearson_min <= likeness.pearson_mean <= 1
            assert likeness.spearman_min <= likeness.spearman_mean <= 1


def test_files_that_are_no_pictures_are_skipped_with_a_note(tiny: Bundle, said: list[str]) -> None:
    assert "calibration: 2 files are no pictures that can be read, skipped: broken.png, notes.txt" in said
    assert not [line for line in said if "warning" in line]


def test_the_same_export_twice_gives_the_same_bundle(tiny: Bundle, photographs: Path, tmp_path: Path) -> None:
    arguments = {"precision": ("fp32", "fp16", "int8"), "calibration": photographs}
    again = export(TinyNet().eval(), tmp_path / "other name.ortcam", **arguments, **TINY_INPUT)
    assert again.sha256 == tiny.sha256


def test_no_more_than_the_first_64_pictures_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(70):
        write_png(folder / f"{index:02}.png", np.full((8, 8, 3), index, np.uint8))
    seen: list[int] = []

    def preprocess(picture: np.ndarray) -> np.ndarray:
        seen.append(int(picture[0, 0, 0]))
        return np.zeros((1, 3, 4, 4), np.float32)

    preprocess.needs_samples = False  # type: ignore[attr-defined]
    pictures = calibration.read_calibration(folder, preprocess, lambda _: None, integers=True)  # type: ignore[arg-type]
    assert seen == list(range(64))
    assert (len(pictures.calibrating), len(pictures.measuring), pictures.held_out) == (56, 8, True)


def test_few_pictures_are_calibrated_and_measured_on_alike(tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    write_png(folder / "0.png", np.zeros((8, 8, 3), np.uint8))
    pictures = calibration.read_calibration(
        folder, Preprocessing(4, 4, None, (0.5,) * 3, (0.5,) * 3), lambda _: None, integers=True
    )
    assert (len(pictures.calibrating), len(pictures.measuring), pictures.held_out) == (1, 1, False)
    assert pictures.words == "1 pictures of few"


def test_what_cannot_be_had_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no pictures").mkdir()
    (tmp_path / "no pictures" / "a.txt").write_text("x")
    for options, message in (
        (["--precision", "fp8"], "precision 'fp8': accepted is fp32 (float32), fp16 (float16), int8 or qnn"),
        (["--precision", "int8", "--calibration", str(tmp_path / "nowhere")], "does not exist; accepted is a folder"),
        (["--precision", "int8", "--calibration", str(tmp_path / "empty")], "no files in it; accepted is a folder"),
        (["--calibration", str(tmp_path)], "goes with a precision beside float32"),
        (["--precision", "int8", "--calibration", __file__], "is not a folder; accepted is a folder with pictures"),
    ):
        assert main(["export", "no such model", "-o", str(tmp_path / "x.ortcam"), *options]) == 2
        assert message in capsys.readouterr().err
    arguments = {"precision": "int8", "calibration": tmp_path / "no pictures"}
    with pytest.raises(ExportError, match="none of its 1 files is a picture"):
        export(TinyNet().eval(), tmp_path / "x.ortcam", **arguments, **TINY_INPUT)
    assert not list(tmp_path.glob("*.ortcam"))


def test_a_model_of_integers_has_no_other_precisions(tmp_path: Path) -> None:
    file = int8_qdq_per_channel(tmp_path)
    with pytest.raises(ExportError, match="precision int8: the model computes in 8-bit integers already"):
        export(file.path, tmp_path / "x.ortcam", precision="int8", **file.arguments)
    assert not (tmp_path / "x.ortcam").exists()


class Loud(TinyNet):
    """Values beyond 65504 inside, which float16 has not."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier((self.features(image) * 1e5).mean((2, 3))) / 1e5


def test_a_model_whose_values_float16_does_not_hold_is_refused_in_it(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"float16: values inside the model reach .*, float16 ends at 65504; leave fp16 out"
    ):
        export(Loud().eval(), tmp_path / "x.ortcam", precision="fp16", calibration=photographs, **TINY_INPUT)
    assert not list(tmp_path.glob("*.ortcam"))


def test_a_transformer_is_refused_in_float16_and_does_not_crash(photographs: Path, tmp_path: Path) -> None:
    file = ZOO["torch_old_transformer"](tmp_path)
    with pytest.raises(ExportError, match="float16: a model with LayerNormalization"):
        export(file.path, tmp_path / "x.ortcam", precision="fp16", calibration=photographs, **file.arguments)


def test_a_precision_that_a_bundle_lacks_is_named_with_those_it_has(
    tiny: Bundle, tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path)]
    assert main([*command, "--precision", "int8"]) == 2
    assert "no scorers in int8 in this bundle; it has float32" in capsys.readouterr().err
    assert main([*command, "--precision", "double"]) == 2
    assert "precision 'double': accepted is fp32 (float32), fp16 (float16), int8 or qnn" in capsys.readouterr().err
    with pytest.raises(ortcam.BundleError, match="no scorer for 'cosine' in this bundle"):
        tiny.scorer("cosine", "int8")


def test_explain_says_in_which_precision_it_scored(tiny: Bundle, photograph: Path, tmp_path: Path) -> None:
    command = ["explain", str(tiny.path), str(photograph), "-o", str(tmp_path), "-m", "scorecam", "--precision", "fp16"]
    assert main(command) == 0
    record = json.loads((tmp_path / photograph.stem / "scorecam" / "manifest.json").read_text())
    assert record["stats"]["precision"] == "float16"


def test_inspect_shows_the_variants_and_measures_them_again(
    tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny.path), "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "variant        float16: scorers" in shown
    assert "calibrated on 7 of 9 pictures of my photographs (2 held out)" in shown
    assert "scorecam++: Pearson" in shown
    recorded = tiny.manifest.variants["int8"]
    assert f"  int8         scorers {recorded.parity:.1e} from float32's; recorded {recorded.parity:.1e}" in shown
    copy = Path(shutil.copytree(tiny.path, tmp_path / "copy.ortcam"))
    strict = dataclasses.replace(recorded, tolerance=recorded.parity / 2)
    manifest = dataclasses.replace(tiny.manifest, variants=tiny.manifest.variants | {"int8": strict})
    (copy / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    assert main(["inspect", str(copy), "--verify"]) == 2
    assert "the scorers in int8 differ from float32's by" in capsys.readouterr().err
    assert read_bundle(copy).precisions == PRECISIONS


def test_fidelity_is_measured_on_fewer_passes_the_larger_the_model() -> None:
    small, medium, large = (fidelity.plan_sample(macs) for macs in (40_000_000, 1_800_000_000, 20_000_000_000))
    assert (small.images, small.channels) == (8, 256)
    assert (medium.images, medium.channels) == (4, 69)
    assert (large.images, large.channels) == (4, 64)
    assert fidelity.plan_sample(None) == large


def test_likeness_is_one_of_equal_maps_and_counts_ranks_with_ties() -> None:
    values = np.array([[0.0, 0.0], [0.5, 1.0]])
    a = fidelity.ImageMaps({"scorecam": values, "scorecam++": values}, np.array([1, 2, 3]))
    b = fidelity.ImageMaps({"scorecam": values**3, "scorecam++": 1 - values}, np.array([1, 2, 0]))
    found = fidelity.compare([a], [b], held_out=True, channels=4)
    assert found.top1 == pytest.approx(2 / 3)
    assert found.maps["scorecam"].spearman_min == pytest.approx(1)
    assert found.maps["scorecam"].pearson_min < 1
    assert found.maps["scorecam++"].pearson_mean == pytest.approx(-1)
    assert found.maps["scorecam++"].spearman_mean == pytest.approx(-1)
    flat = fidelity.ImageMaps({name: np.zeros((2, 2)) for name in a.maps}, a.best)
    assert fidelity.compare([flat], [flat], held_out=True, channels=4).maps["scorecam"].pearson_min == 1
    assert fidelity.compare([a], [flat], held_out=True, channels=4).maps["scorecam"].pearson_min == 0
