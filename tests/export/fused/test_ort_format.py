"""ORT format: the same map, each weight once, read by onnxruntime's own tools, and a list of what runs in it."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.tools.reduced_build_config_parser import parse_config
from tests.export.rounding import TINY_MAPS

import ortcam
from ortcam.cli import main
from ortcam.errors import OptionError, OrtcamError
from ortcam_export import ExportError, fuse, required_operators

MASKED, GRADIENTS = "scorecam++", "grad-cam"


@pytest.fixture(scope="module")
def files(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file in ORT format of each kind, named by its method."""
    folder = tmp_path_factory.mktemp("files")
    return {
        method: fuse(tiny_bundle, folder / f"{method}.ort", method=method, ort=True, uint8_input=True).path
        for method in (MASKED, GRADIENTS)
    }


def operators_run(file: Path, image: np.ndarray, folder: Path) -> set[str]:
    """The operators that ONNX Runtime ran, as its profile has them."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.run(None, {"image": image})
    events = json.loads(Path(session.end_profiling()).read_text())
    return {event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")}


def listed(text: str, folder: Path) -> set[str]:
    """The operators of a list, as onnxruntime's own tools read it."""
    (folder / "operators.config").write_text(text)
    found, _ = parse_config(str(folder / "operators.config"), enable_type_reduction=True)
    return {name for sets in found.values() for names in sets.values() for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("method", [MASKED, GRADIENTS])
def test_its_map_is_the_runtimes(files: dict[str, Path], tiny_bundle: Path, photograph: Path, method: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    session = ort.InferenceSession(files[method], providers=["CPUExecutionProvider"])
    (saliency,) = session.run(["saliency"], {"image": image})
    expected = ortcam.load(tiny_bundle, threads=1).explain(image, method=method)
    np.testing.assert_allclose(saliency, expected.maps, atol=TINY_MAPS)
    assert expected.maps.max() == 1
    assert session.get_modelmeta().custom_metadata_map["ortcam.method"] == method


@pytest.mark.slow
def test_a_loop_and_the_model_share_their_weights(tmp_path: Path) -> None:
    """ORT format has no functions: what is in the place of a call would bring the weights again."""
    shapes = Path(__file__).parents[3] / "models" / "shapes.ortcam"
    fused = fuse(shapes, tmp_path / "e.ort", method=MASKED, ort=True, verify=False)
    assert fused.onnx_size is not None
    assert fused.size == fused.path.stat().st_size
    assert fused.size < 1.7 * fused.onnx_size  # twice the weights would be 2.3 times the size


def test_what_is_said_of_it(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuse", str(tiny_bundle), "-m", GRADIENTS, "--ort", "-o", str(tmp_path / "e.ort"), "--no-verify"]) == 0
    said = capsys.readouterr().out
    assert f"ORT format 6, written by ONNX Runtime {ort.__version__}" in said
    assert "as .onnx it has" in said
    assert "opset" in said
    assert [path.name for path in tmp_path.iterdir()] == ["e.ort"]


def test_another_name_is_refused_before_any_work(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, sentence in (
        (["--ort", "-o", str(tmp_path / "e.onnx")], "ends in .ort"),
        (["-o", str(tmp_path / "e.ort")], "--ort writes ORT format"),
        (["--ort", "--external", "-o", str(tmp_path / "e.ort")], "weights inside"),
        (["--ort", "--triton", str(tmp_path)], "Triton"),
    ):
        assert main(["fuse", str(tiny_bundle), *flags]) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(ExportError, match=r"ends in \.ort"):
        fuse(tiny_bundle, tmp_path / "e.onnx", ort=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("method", [MASKED, GRADIENTS])
@pytest.mark.parametrize("types", [False, True])
def test_the_list_has_every_operator_that_runs(
    files: dict[str, Path], tmp_path: Path, method: str, types: bool
) -> None:
    text = required_operators(files[method], types=types)
    found = listed(text, tmp_path)
    ran = operators_run(files[method], np.zeros((40, 50, 3), np.uint8), tmp_path)
    assert ran <= found
    assert "Conv" in {name.removeprefix("Fused") for name in ran}
    assert "LSTM" not in found
    assert ('"inputs"' in text) == types
    assert str(files[method].parent) not in text


@pytest.mark.slow
def test_the_list_of_an_onnx_file_has_what_it_becomes(tiny_bundle: Path, tmp_path: Path) -> None:
    file = fuse(tiny_bundle, tmp_path / "e.onnx", method=MASKED, uint8_input=True, verify=False).path
    found = listed(required_operators(file), tmp_path)
    assert operators_run(file, np.zeros((40, 50, 3), np.uint8), tmp_path) <= found
    assert {"Conv", "Relu"} <= found  # as they are in the file, before they are fused


def test_one_list_for_several_files(files: dict[str, Path], tmp_path: Path) -> None:
    """Their types stand together: of two lists that are joined, ONNX Runtime's tools take the types of the last."""
    text = required_operators(*files.values(), types=True)
    assert listed(text, tmp_path) == {
        name for file in files.values() for name in listed(required_operators(file), tmp_path)
    }
    for file in files.values():
        for line in required_operators(file, types=True).splitlines()[2:]:
            for name, types in re.findall(r"(\w+)(\{.*?\}\})", line):
                assert _types(types) <= _types(dict(re.findall(r"(\w+)(\{.*?\}\})", text))[name])
    assert all(file.name in text.splitlines()[0] for file in files.values())


def _types(entry: str) -> set[tuple[str, str, str]]:
    """Side, number and type of each input and output that an entry of a list admits."""
    return {
        (side, number, kind)
        for side, slots in json.loads(entry).items()
        for number, kinds in slots.items()
        for kind in kinds
    }


@pytest.mark.slow
def test_the_list_of_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    found = listed(required_operators(tiny_bundle), tmp_path)
    assert {"Conv", "Gemm", "Relu"} <= found


@pytest.mark.slow
def test_the_command_writes_the_list(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fuse", str(tiny_bundle), "-m", GRADIENTS, "--ort", "--no-verify", "-o", str(tmp_path / "e.ort")]
    assert main([*command, "--required-operators", str(tmp_path / "ops.config"), "--operator-types"]) == 0
    assert (tmp_path / "ops.config").read_text() == required_operators(tmp_path / "e.ort", types=True)
    assert main(["inspect", str(tiny_bundle), "--required-operators", str(tmp_path / "all.config")]) == 0
    assert (tmp_path / "all.config").read_text() == required_operators(tiny_bundle)
    capsys.readouterr()


def test_a_list_that_cannot_be_written_is_refused_before_any_work(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").write_text("mine")
    for flags, sentence in (
        (["--operator-types"], "--operator-types: goes with --required-operators FILE"),
        (["--required-operators", str(tmp_path / "there")], "is there already"),
        (["--required-operators", str(tmp_path / "no" / "ops")], "does not exist"),
    ):
        for command in (["fuse", str(tiny_bundle), "-o", str(tmp_path / "e.onnx")], ["inspect", str(tiny_bundle)]):
            assert main([*command, *flags]) == 2
            assert sentence in capsys.readouterr().err
    same = str(tmp_path / "e.onnx")
    assert main(["fuse", str(tiny_bundle), "-o", same, "--required-operators", same]) == 2
    assert "e.onnx: is the file of -o, too" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "mine"


def test_no_list_of_what_is_neither(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"")
    with pytest.raises(OptionError, match="accepted is one model or more"):
        required_operators()
    with pytest.raises(OptionError, match=r"accepted is a bundle, or a file"):
        required_operators(tmp_path / "image.png")
    (tmp_path / "not.ort").write_bytes(b"nothing of the kind")
    with pytest.raises(OrtcamError, match=r"not\.ort"):
        required_operators(tmp_path / "not.ort")
    with pytest.raises(OptionError, match=r"\['a.ort'\]: accepted is a bundle, or a file"):
        required_operators(["a.ort"])  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [0.001, 0.5])
def test_a_damaged_file_is_said_to_be(tiny_bundle: Path, tmp_path: Path, kept: float) -> None:
    whole = fuse(tiny_bundle, tmp_path / "e.ort", method=GRADIENTS, ort=True, verify=False).path.read_bytes()
    (tmp_path / "part.ort").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ExportError, match=r"part\.ort"):
        required_operators(tmp_path / "part.ort")


@pytest.mark.parametrize("flag", ["uint8_input", "runtime_targets", "external", "ort", "force", "verify"])
def test_a_flag_is_true_or_false(tiny_bundle: Path, tmp_path: Path, flag: str) -> None:
    with pytest.raises(OptionError, match=f"{flag}='no': accepted is True or False"):
        fuse(tiny_bundle, tmp_path / "e.onnx", method=GRADIENTS, **{flag: "no"})  # type: ignore[arg-type]
