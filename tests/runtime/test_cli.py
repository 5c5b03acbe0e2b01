"""The command line as a user types it: right results, one clear error for bad input, exit codes, nothing lost."""

import inspect
import json
import math
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.conftest import reseal
from tests.tolerances import maps_apart

import ortcam
import ortcam_export
from ortcam.bundle import read_bundle
from ortcam.cli import main
from ortcam.image import read_image
from ortcam.shipped import bundle_path

# Channels of the tiny bundle that are not flat on the photograph.
LIVE = 10


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`ortcam ARGUMENTS` in a process of its own, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "ortcam", *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def complaints(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in result.stderr, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("ortcam: ")]


def test_explain_writes_a_folder_an_image_and_method(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    result = run("explain", tiny_bundle, photograph, "-m", "scorecam,scorecam++", "-t", "dog,0", "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    for method in ("scorecam", "scorecam++"):
        folder = tmp_path / "out" / "photo" / method
        assert {path.name for path in folder.iterdir()} == {
            "manifest.json",
            *(f"class-{c}{end}" for c in (0, 1) for end in (".npy", "-heatmap.png", "-overlay.png")),
        }
        assert read_image(folder / "class-1-overlay.png").shape == (90, 120, 3)
    assert "dog" in result.stdout
    assert "%|" not in result.stderr, "no progress bar where nobody watches a terminal"


def test_quiet_says_nothing_and_json_is_json(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    arguments = ["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path), "--json", "--top-k", "2"]
    assert main(arguments) == 0
    printed = json.loads(capfd.readouterr().out)
    assert [target["index"] for target in printed["explanations"][0]["targets"]] == list(
        np.argsort(-ortcam.load(tiny_bundle).predict(photograph))[:2]
    )
    assert printed["errors"] == []
    assert Path(printed["explanations"][0]["folder"]).is_dir()


def broken_pictures(folder: Path, photograph: Path) -> dict[str, Path]:
    """What users hand over by mistake, and a word of the error that each deserves."""
    ok, jpeg = cv2.imencode(".jpg", cv2.imread(str(photograph)))
    assert ok
    contents = {
        "zero-bytes.png": b"",
        "text.jpg": b"this is not a picture\n" * 9,
        "truncated.jpg": jpeg.tobytes()[: len(jpeg) // 2],
        "truncated.png": photograph.read_bytes()[:-40],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    return {name: folder / name for name in (*contents, "folder.png", "missing.jpg")}


def test_broken_images_get_one_line_each_and_the_others_are_explained(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    broken = broken_pictures(tmp_path, photograph)
    result = run("explain", tiny_bundle, *broken.values(), photograph, "-o", tmp_path / "out")
    assert result.returncode == 2
    lines = complaints(result)
    assert len(lines) == len(broken)
    for name, line in zip(broken, lines, strict=True):
        assert name in line
    assert (tmp_path / "out" / "photo" / "scorecam++" / "manifest.json").is_file()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo"]


def test_unusual_pictures_are_explained(tiny_bundle: Path, picture: np.ndarray, tmp_path: Path) -> None:
    bgr = picture[..., ::-1]
    pictures = {
        "pixel.png": bgr[:1, :1],
        "grey.png": bgr[..., 0],
        "alpha.png": np.dstack([bgr, np.full(bgr.shape[:2], 7, np.uint8)]),
        "deep.png": bgr.astype(np.uint16) * 257,
        "strip.png": np.repeat(bgr[:2], 1, axis=0),
    }
    for name, pixels in pictures.items():
        assert cv2.imwrite(str(tmp_path / name), pixels)
    result = run("explain", tiny_bundle, *(tmp_path / name for name in pictures), "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    for name, pixels in pictures.items():
        overlay = read_image(next((tmp_path / "out" / Path(name).stem / "scorecam++").glob("*-overlay.png")))
        assert overlay.shape[:2] == pixels.shape[:2]
    explainer = ortcam.load(tiny_bundle)
    plain = explainer.explain(picture).maps
    atol = maps_apart(explainer.logits(1, lambda _: explainer.preprocess(picture)), channels=10)
    for name in ("alpha.png", "deep.png"):
        np.testing.assert_allclose(ortcam.load(tiny_bundle).explain(tmp_path / name).maps, plain, rtol=0, atol=atol)


def test_a_huge_picture_is_refused_before_it_is_decoded_unless_asked(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    assert cv2.imwrite(str(tmp_path / "huge.png"), np.zeros((20000, 20000), np.uint8))
    result = run("explain", tiny_bundle, tmp_path / "huge.png", photograph, "-o", tmp_path / "out")
    assert result.returncode == 2
    (line,) = complaints(result)
    assert "20000" in line
    assert (tmp_path / "out" / "photo").is_dir()


def test_pictures_of_one_name_do_not_overwrite_each_other(
    tiny_bundle: Path, photograph: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    cv2.imwrite(str(tmp_path / "b" / "photo.jpg"), picture[::-1])
    (tmp_path / "photo-2.png").write_bytes(photograph.read_bytes())
    images = [photograph, tmp_path / "b" / "photo.jpg", tmp_path / "photo-2.png"]
    assert run("explain", tiny_bundle, *images, "-o", tmp_path / "o").returncode == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["photo", "photo-2", "photo-2-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "gradcam"], "unknown method 'gradcam'"),
        (["--option", "gate=gelu"], "gate='gelu' is not accepted; accepted: tanh"),
        (["--option", "gates=tanh"], "unknown option 'gates'"),
        (["--option", "gate"], "accepted is KEY=VALUE"),
        (["-m", "scorecam", "--option", "num_samples=3"], "scorecam: unknown option 'num_samples'"),
        (["-t", "99"], "target 99: the model has classes 0 to 5"),
        (["-t", "-1"], "target -1"),
        (["-t", "unicorn"], "target 'unicorn'"),
        (["--top-k", "9"], "top_k=9"),
        (["--top-k", "2", "-t", "1"], "give one or the other"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--provider", "tpu"], "execution provider 'tpu' is not available"),
        (["--alpha", "1.5"], "--alpha 1.5"),
        (["--threads", "0"], "threads=0"),
    ],
)
def test_a_wrong_argument_gets_one_line_and_exit_code_2(
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = main(["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path / "out"), *arguments])
    lines = capfd.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_options_go_to_the_methods_that_have_them(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    arguments = ["-m", "scorecam,sscam", "--option", "num_samples=2", "--option", "baseline=zeros", "-o", tmp_path]
    assert run("explain", tiny_bundle, photograph, *arguments).returncode == 0
    manifests = {
        method: json.loads((tmp_path / "photo" / method / "manifest.json").read_text())
        for method in ("scorecam", "sscam")
    }
    assert manifests["sscam"]["options"]["num_samples"] == 2
    assert "num_samples" not in manifests["scorecam"]["options"]
    assert {manifest["options"]["baseline"] for manifest in manifests.values()} == {"zeros"}


def test_a_label_with_a_comma_is_one_label(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    assert run("explain", tiny_bundle, photograph, "-t", "white, striped", "-o", tmp_path).returncode == 0
    assert (tmp_path / "photo" / "scorecam++" / "class-5.npy").is_file()


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_an_output_that_is_a_file_gets_one_line(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, output: str
) -> None:
    (tmp_path / "file").write_text("mine")
    result = run("explain", tiny_bundle, photograph, "-o", tmp_path / output)
    assert result.returncode == 2
    assert len(complaints(result)) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_missing_bundle_or_unknown_command_gets_exit_code_2(tmp_path: Path, photograph: Path) -> None:
    result = run("explain", tmp_path / "none.ortcam", photograph)
    assert result.returncode == 2
    assert "there is no such folder" in complaints(result)[0]
    assert run("explode").returncode == 2
    assert run().returncode == 2


def test_version_and_inspect(tiny_bundle: Path) -> None:
    assert run("--version").stdout == f"ortcam {ortcam.__version__}\n"
    inspected = run("inspect", tiny_bundle).stdout
    for text in ("maps [10,8,12]", "to 32 x 48", "parity", "scorers linear"):
        assert text in inspected


def test_inspect_says_what_is_unusual(tiny_bundle: Path, branch_bundle: Path, bundle_copy: Path) -> None:
    usual = run("inspect", tiny_bundle).stdout
    for text in ("; softmax", "2 pictures", "head(features(x))", "float32"):
        assert text in usual
    for text in ("channels", "scale", "inside a branch"):
        assert text not in usual
    branch = run("inspect", branch_bundle).stdout
    assert (
        "inside a branch: no head of its own, only the whole model; methods that work: scorecam, scorecam++, sscam, "
        "iscam, eigen-cam" in branch
    )
    assert "for the classifier," in branch
    manifest = json.loads((bundle_copy / "bundle.json").read_text("utf-8"))
    manifest["preprocessing"] |= {"channel_order": "bgr", "scale": 255}
    manifest |= {"activation": "sigmoid", "probe": None, "precision": "int8"}
    (bundle_copy / "bundle.json").write_text(json.dumps(manifest))
    unusual = run("inspect", bundle_copy).stdout
    for text in ("channels bgr, scale 255, mean", "; sigmoid", "probe          none", "int8"):
        assert text in unusual


def test_inspect_verify_prints_what_was_recorded_and_what_is_measured(tiny_bundle: Path, branch_bundle: Path) -> None:
    for bundle in (tiny_bundle, branch_bundle):
        result = run("inspect", bundle, "--verify")
        assert result.returncode == 0, result.stderr
        assert complaints(result) == []
        recorded = json.loads((bundle / "bundle.json").read_text("utf-8"))["parity"]
        (line,) = (line for line in result.stdout.splitlines() if line.startswith("  recorded"))
        assert f"{recorded['logits']:.1e}" in line
        assert f"{recorded['scorer']:.1e}" in line
        assert sum(line.startswith("  measured") for line in result.stdout.splitlines()) == 1


def altered_hash(bundle: Path) -> None:
    content = bytearray((bundle / "probe.npy").read_bytes())
    content[-1] ^= 1
    (bundle / "probe.npy").write_bytes(content)


def altered_logits(bundle: Path) -> None:
    logits = np.load(bundle / "probe-logits.npy")
    np.save(bundle / "probe-logits.npy", logits * np.float32(1.001))
    reseal(bundle)


def without_probe(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"probe": None}))


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (altered_hash, "probe.npy: altered"),
        (altered_logits, "head(features(x)) differs from the model by"),
        (without_probe, "no probe in this bundle"),
    ],
)
def test_inspect_verify_fails_in_one_line(bundle_copy: Path, alter: Callable[[Path], None], message: str) -> None:
    alter(bundle_copy)
    result = run("inspect", bundle_copy, "--verify")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert message in complaints(result)[0]


def test_the_shipped_bundle_verifies_unless_it_is_from_before_probes() -> None:
    result = run("inspect", bundle_path(), "--verify")
    if read_bundle(bundle_path()).manifest.probe is None:
        assert result.returncode == 2
        assert "no probe in this bundle (schema 1)" in complaints(result)[0]
    else:
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["BUNDLE", "--input-size", "32", "48"], "--input-size: goes with a model"),
        (["BUNDLE", "--input-layout", "nhwc", "--output", "x"], "--input-layout, --output: goes with a model"),
        (["resnet18", "--verify"], "--verify: goes with a bundle; resnet18 is none"),
    ],
)
def test_flags_of_a_model_and_of_a_bundle_do_not_mix(
    tiny_bundle: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *(argument.replace("BUNDLE", str(tiny_bundle)) for argument in arguments)]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert message in line


class Told(types.ModuleType):
    """Stands in for ortcam_export and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("ortcam_export")
        self.calls: list[tuple[tuple, dict]] = []

    def export(self, *arguments: object, **options: object) -> None:
        self.calls.append((arguments, options))
        raise ortcam.OrtcamError("told")

    inspect_model = export


def test_export_passes_on_only_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setitem(sys.modules, "ortcam_export", told)
    assert main(["export", "m.onnx", "-o", "b.ortcam"]) == 2
    flags = (
        "--input-size 8 9 --input-layout nhwc --output y --resize 10 --scale 255 --mean 1 2 3 --std 4 5 6 --opset 18 "
        "--channel-order bgr --interpolation bicubic --activation sigmoid --labels l.txt --weights W --checkpoint c "
        "--layer f --force --precision fp32,int8 --calibration d"
    )
    assert main(["export", "m.onnx", "--bundle", "b.ortcam", *flags.split()]) == 2
    assert main(["inspect", "m.onnx", "--input-size", "8", "9", "--input-layout", "nchw", "--output", "y"]) == 2
    (plain, plain_options), (_, options), (_, inspected) = told.calls
    assert plain == ("m.onnx", "b.ortcam")
    assert set(plain_options) == {"force", "report"}
    assert {name: value for name, value in options.items() if name != "report"} == {
        "input_size": (8, 9),
        "input_layout": "nhwc",
        "output": "y",
        "resize": 10,
        "scale": 255.0,
        "mean": (1.0, 2.0, 3.0),
        "std": (4.0, 5.0, 6.0),
        "opset": 18,
        "channel_order": "bgr",
        "interpolation": "bicubic",
        "activation": "sigmoid",
        "labels": "l.txt",
        "weights": "W",
        "checkpoint": "c",
        "layer": "f",
        "force": True,
        "precision": "fp32,int8",
        "calibration": "d",
    }
    assert inspected == {"input_size": (8, 9), "input_layout": "nchw", "output": "y"}


def test_every_flag_of_export_is_an_argument_of_export() -> None:
    accepted = set(inspect.signature(ortcam_export.export).parameters)
    help_text = run("export", "--help").stdout
    flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]*)", help_text)} - {"help"}
    assert flags <= accepted, "a flag that export() does not know"
    assert accepted - flags <= {"model", "report", "preprocessing"}, "an argument without a flag"


def test_a_reader_that_leaves_early_is_no_error(tiny_bundle: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "ortcam", "inspect", str(tiny_bundle)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("flags", "passes"),
    [
        (["--budget", "4"], 4),
        (["--budget", "40%"], math.ceil(0.4 * LIVE)),
        (["--budget", "0.4"], math.ceil(0.4 * LIVE)),
        (["--budget", "1000"], LIVE),
    ],
)
def test_limits_stop_early_and_the_summary_says_so(
    flags: list[str],
    passes: int,
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["explain", str(tiny_bundle), str(photograph), "-m", "scorecam", "-o", str(tmp_path), *flags]
    assert main([*arguments, "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)["explanations"][0]["stats"]
    assert (stats["live_channels"], stats["passes"]) == (LIVE, passes)
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert ("channels scored" in printed) == (passes < LIVE)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "0"], "budget=0: accepted is a share"),
        (["--budget", "2.5"], "budget=2.5: accepted is a share"),
        (["--deadline", "-1"], "deadline=-1.0: accepted is milliseconds above 0"),
        (["--tolerance", "7"], "tolerance=7.0: accepted is a number between 0 and 1"),
        (["--tolerance", "0.1", "--completion", "none"], "tolerance with completion='none'"),
        (["--batch-size", "0"], "batch_size=0: accepted is a whole number from 1, or 'auto'"),
        (["--sampling-error", "0.1"], "sampling_error with scorecam++"),
        (["-m", "eigen-cam", "--budget", "3"], "budget with eigen-cam"),
    ],
)
def test_a_wrong_limit_is_one_clear_error(
    flags: list[str], message: str, tiny_bundle: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(tiny_bundle), str(photograph), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(("flag", "value"), [("--budget", "some"), ("--budget", "x%"), ("--batch-size", "big")])
def test_a_limit_that_is_no_number_says_what_is_accepted(
    flag: str, value: str, tiny_bundle: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(tiny_bundle), str(photograph), flag, value])
    assert stopped.value.code == 2
    assert f"{value!r}: accepted is" in capsys.readouterr().err


def test_a_limit_holds_for_the_methods_that_it_goes_with(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["-m", "scorecam,eigen-cam", "--budget", "3", "-o", str(tmp_path), "--json"]
    assert main(["explain", str(tiny_bundle), str(photograph), *flags]) == 0
    masked, other = json.loads(capsys.readouterr().out)["explanations"]
    assert (masked["stats"]["passes"], other["stats"]["passes"]) == (3, 0)


def test_the_same_image_twice_keeps_a_folder_each(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.png"
    images = [str(photograph), str(missing), str(photograph)]
    assert main(["explain", str(tiny_bundle), *images, "-m", "scorecam", "-o", str(tmp_path / "out")]) == 2
    assert "missing.png" in capsys.readouterr().err
    stem = photograph.stem
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [stem, f"{stem}-2"]


def test_a_method_that_a_model_cannot_have_leaves_the_others_alone(
    branch_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["-m", "recipro-cam,scorecam", "-o", str(tmp_path), "--json"]
    assert main(["explain", str(branch_bundle), str(photograph), *flags]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert [item["method"] for item in printed["explanations"]] == ["scorecam"]
    assert [item["error"].partition(":")[0] for item in printed["errors"]] == ["recipro-cam"]


def test_a_wrong_option_is_found_before_any_image_is_read(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(tmp_path / f"missing-{index}.png") for index in range(3)]
    assert main(["explain", str(tiny_bundle), *images, "--budget", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "budget=0" in line
