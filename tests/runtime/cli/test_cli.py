"""The command line as a user types it: right results, one clear error for bad input, exit codes, nothing lost."""

import errno
import inspect
import json
import math
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.common.tolerances import maps_apart
from tests.conftest import reseal

import ortcam
import ortcam_export
from ortcam.bundle import read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.cli import main
from ortcam.images.reading import read_image

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
            "image.jpg",
            *(f"class-{c}{end}" for c in (0, 1) for end in (".npy", "-heatmap.png", "-overlay.png")),
        }
        assert read_image(folder / "class-1-overlay.png").shape == (90, 120, 3)
    assert "dog" in result.stdout
    assert "%|" not in result.stderr, "no progress bar where nobody watches a terminal"


def test_strict_refuses_what_is_damaged(tiny_bundle: Path, tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", np.full((40, 50, 3), 99, np.uint8))[1].tobytes()
    start = whole.index(b"\xff\xda")
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(whole[: start + 2 + int.from_bytes(whole[start + 2 : start + 4])] + b"\xff\xd9")
    told = run("explain", tiny_bundle, empty, "-o", tmp_path / "out")
    assert told.returncode == 0
    (line,) = complaints(told)
    assert "warning: image" in line
    assert "its scan 1 holds no data" in line
    refused = run("explain", tiny_bundle, empty, "--strict", "-o", tmp_path / "strict")
    assert refused.returncode == 2
    (line,) = complaints(refused)
    assert "its scan 1 holds no data), and strict refuses it" in line
    assert not (tmp_path / "strict").exists()


def test_a_picture_above_the_limit_is_read_with_the_flag_that_its_error_names(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    refused = run("explain", tiny_bundle, photograph, "--max-pixels", 10_799, "-o", tmp_path / "out")
    assert refused.returncode == 2
    (line,) = complaints(refused)
    assert "120 x 90 = 10800 pixels, more than the limit of 10799" in line
    flag = re.search(r"--max-pixels \d+", line)
    assert flag is not None
    assert run("explain", tiny_bundle, photograph, *flag[0].split(), "-o", tmp_path / "out").returncode == 0


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
        "text.jpg": b"this is not an image\n" * 9,
        "truncated.jpg": jpeg.tobytes()[: len(jpeg) // 2],
        "truncated.png": photograph.read_bytes()[:-40],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in (*contents, "missing.jpg")}


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
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "photo", "photo.png"]


def test_a_folder_without_images_is_said_before_anything_is_explained(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["explain", str(tiny_bundle), str(photograph), str(tmp_path / "empty"), "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "empty' has no images" in line
    assert not (tmp_path / "out").exists()


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
    folders = sorted(path.name for path in (tmp_path / "o").iterdir() if path.is_dir())
    assert folders == ["photo", "photo-2", "photo-2-2"]


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
        (["--alpha", "1.5"], "alpha=1.5: accepted is a number from 0 to 1"),
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


@pytest.mark.skipif(sys.platform == "win32", reason="there a name that is too long is one that is not there")
@pytest.mark.parametrize(
    "arguments", [["inspect"], ["explain", "b", "i", "-o"], ["evaluate", "b", "i", "-o"], ["benchmark", "b", "--plot"]]
)
def test_a_name_that_is_too_long_gets_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "x" * 5000 + ".svg"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "File name too long" in lines[0]


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


@pytest.mark.sample(every=2)
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


@pytest.mark.sample(every=3)
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
        (["BUNDLE", "--input-layout", "nhwc", "--output", "x"], "--input-layout, --model-output: goes with a model"),
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
        "--input-size 8 9 --input-layout nhwc --model-output y --resize 10 --scale 255 --mean 1 2 3 --std 4 5 6 "
        "--opset 18 --channel-order bgr --interpolation bicubic --activation sigmoid --labels l.txt --weights W "
        "--checkpoint c "
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
    flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]*)", help_text)} - {"help", "help_all"}
    names = {"output": "bundle", "model_output": "output"}  # of the arguments, where a flag is called otherwise
    flags = {names.get(flag, flag) for flag in flags}
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
        (["--batch-size", "0"], "batch_size=0: accepted is a whole number from 1 to 65536, or 'auto'"),
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
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [stem, f"{stem}-2"]


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


def numeric_bundle(bundle: Path, labels: list[str]) -> Path:
    """The bundle with other labels; a copy."""
    manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"labels": labels}))
    return bundle


def explained(output: Path) -> list[str]:
    """The maps below an output folder."""
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*.npy"))


def test_a_number_among_numeric_labels_means_one_class_or_is_refused(
    bundle_copy: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = numeric_bundle(bundle_copy, ["1", "10", "11", "2", "3", "4"])
    command = ["explain", str(bundle), str(photograph), "-m", "eigen-cam", "-o", str(tmp_path / "out")]
    for target in ("2", "1,2"):
        assert main([*command, "-t", target]) == 2
        assert "accepted is index:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "-t", "label:2,10", "-t", "index:2", "--json"]) == 0
    targets = json.loads(capsys.readouterr().out)["explanations"][0]["targets"]
    assert [(target["index"], target["label"]) for target in targets] == [(3, "2"), (1, "10"), (2, "11")]


def test_another_class_is_added_and_another_image_of_the_name_gets_a_number(
    tiny_bundle: Path, photograph: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    cv2.imwrite(str(tmp_path / "b" / "photo.png"), picture[::-1])
    other, out = tmp_path / "b" / "photo.png", tmp_path / "out"
    for image, target in ((photograph, 1), (photograph, 2), (other, 1), (photograph, 1), (other, 0)):
        arguments = ["explain", str(tiny_bundle), str(image), "-t", str(target), "-o", str(out), "-m", "eigen-cam"]
        assert main([*arguments, "--quiet"]) == 0
    folder = "eigen-cam/class"
    assert explained(out) == [
        f"photo-2/{folder}-0.npy",
        f"photo-2/{folder}-1.npy",
        f"photo/{folder}-1.npy",
        f"photo/{folder}-2.npy",
    ]


def test_results_with_other_settings_are_replaced_only_by_force_and_nothing_is_done_before(
    tiny_bundle: Path, photograph: Path, picture: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "second.png"), picture[::-1])
    cv2.imwrite(str(tmp_path / "third.png"), picture[:, ::-1])
    images = [str(photograph), str(tmp_path / "second.png")]
    command = ["explain", str(tiny_bundle), *images, "-t", "1", "-o", str(tmp_path / "out"), "--quiet"]
    assert main([*command, "--budget", "4"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for flags in (["--budget", "5"], ["--option", "gate=sigmoid"], ["--colormap", "jet"]):
        assert main([*command, *(["--budget", "4"] if "--budget" not in flags else []), *flags, "-t", "2"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "photo/scorecam++: holds class 1 explained with" in line
        assert "--force" in line
        assert "(the same of 1 more)" in line
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    arguments = [*command[:3], str(tmp_path / "third.png"), *command[3:]]
    assert main([*arguments, "--budget", "5", "--force"]) == 0
    manifest = json.loads((tmp_path / "out" / "photo" / "scorecam++" / "manifest.json").read_text())
    assert manifest["limits"]["budget"] == 5


@pytest.mark.parametrize("more", [[], ["--force"]])
def test_a_faster_command_with_another_image_of_the_name_loses_nothing(
    tiny_bundle: Path,
    photograph: Path,
    picture: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    other = ortcam.load(tiny_bundle).explain(picture[::-1], method="eigen-cam", target=5)
    real = ortcam.Explanation.save

    def save(self: ortcam.Explanation, folder: Path, **options: object) -> Path:
        if not (folder / "manifest.json").exists() and folder.parent.name == "photo":
            real(other, folder)  # another process
        return real(self, folder, **options)

    monkeypatch.setattr(ortcam.Explanation, "save", save)
    arguments = ["explain", str(tiny_bundle), str(photograph), "-t", "1", "-m", "eigen-cam", "-o", str(tmp_path)]
    assert main([*arguments, "--quiet", *more]) == 0
    assert explained(tmp_path) == ["photo-2/eigen-cam/class-1.npy", "photo/eigen-cam/class-5.npy"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_strange_names_are_explained_inside_the_output_and_printed_escaped(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    names = [b"...jpg", b"caf\xe9.png", b"a\nb\x1b[31m.png", "\u202egpj.png".encode(), b"x" * 251 + b".png", b"con.png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(photograph.read_bytes())
    command = [os.fsencode(sys.executable), b"-m", b"ortcam", b"explain", os.fsencode(tiny_bundle), *names]
    for more in ([], [b"--json"]):
        result = subprocess.run(
            [*command, b"-m", b"eigen-cam", b"-o", b"a/out", *more], capture_output=True, check=False, cwd=tmp_path
        )
        assert result.returncode == 0, result.stderr
        assert b"\x1b" not in result.stdout
        assert b"\xe2\x80\xae" not in result.stdout
        text = result.stdout.decode()
        assert "caf\\xe9.png" in (json.loads(text)["explanations"][1]["image"]["path"] if more else text)
    assert [path.name for path in tmp_path.glob("a/*")] == ["out"]
    folders = {path.name for path in (tmp_path / "a" / "out").iterdir() if path.is_dir()}
    assert folders == {"image", "caf_", "a_b_[31m", "_gpj", "x" * 240, "con_"}
    assert len(explained(tmp_path / "a" / "out")) == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-k", "100"], "top_k=100: accepted is a whole number from 1 to 6"),
        (["--top-k", "3", "-t", "1"], "--top-k 3 with -t 1: give one or the other"),
        (["-t", "cats"], "did you mean 'cat'"),
        (["-o", ""], "-o '': accepted is a folder"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_once_before_any_image_is_read(
    tiny_bundle: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(tmp_path / f"missing-{index}.png") for index in range(4)]
    assert main(["explain", str(tiny_bundle), *images, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_method_that_a_model_cannot_have_is_said_once(
    branch_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(branch_bundle), *[str(photograph)] * 3, "-o", str(tmp_path), "--json", "-m"]
    for methods, count in (("recipro-cam", 0), ("recipro-cam,eigen-cam", 3)):
        assert main([*command, methods]) == 2
        printed = capsys.readouterr()
        assert len(printed.err.splitlines()) == 1
        assert len(json.loads(printed.out)["explanations"]) == count


@pytest.mark.parametrize("error", [ortcam.ProviderError("broken"), ortcam.BundleError("altered")])
def test_an_error_that_every_image_would_meet_ends_the_method(
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def explain(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ortcam.Explainer, "explain_request", explain)
    assert main(["explain", str(tiny_bundle), *[str(photograph)] * 3, "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"ortcam: {error}\n"


def test_a_full_disk_is_said_once(
    tiny_bundle: Path,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write_bytes(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    arguments = ["explain", str(tiny_bundle), *[str(photograph)] * 3, "-m", "eigen-cam,cam", "-o", str(tmp_path)]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line


@pytest.mark.slow
def test_labels_that_the_terminal_lacks_are_escaped(bundle_copy: Path, photograph: Path, tmp_path: Path) -> None:
    labels = ["café", "a\x1b[31m", "x\ny", "\u202egnp", "日本", "\ud800"]
    bundle = numeric_bundle(bundle_copy, labels)
    command = ["explain", bundle, photograph, "-m", "eigen-cam", "--top-k", 6, "-o", tmp_path]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = run(*command, env=environment)
    assert result.returncode == 0, result.stderr
    for text in (r"caf\xe9", r"a\x1b[31m", r"x\ny", r"\u202egnp", r"\u65e5\u672c", r"\ud800"):
        assert f"  {text} " in result.stdout
    result = run(*command, "--json", env=environment)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["explanations"][0]["targets"]
    assert {target["label"] for target in found} == {*labels[:5], "\\ud800"}
    assert run("inspect", bundle, env=environment).returncode == 0


@pytest.mark.sample(every=2)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_an_output_that_takes_nothing_costs_one_line_and_no_result(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, redirection: str
) -> None:
    def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = shlex.join([sys.executable, "-m", "ortcam", *map(str, arguments)])
        return subprocess.run(f"{command} {redirection}", shell=True, capture_output=True, text=True, check=False)

    explain = ["explain", tiny_bundle, photograph, photograph, "-m", "eigen-cam", "-t", "1", "-o", tmp_path]
    for arguments in (explain, [*explain, "--json"], ["inspect", tiny_bundle], ["--help"]):
        result = shell(*arguments)
        assert result.returncode == 2
        assert len(complaints(result)) == len(result.stderr.splitlines()) == 1
        assert "standard output: cannot be written to" in result.stderr
    assert explained(tmp_path) == ["photo-2/eigen-cam/class-1.npy", "photo/eigen-cam/class-1.npy"]
    assert shell(*explain, "--quiet").returncode == 0


def test_a_reader_that_leaves_early_costs_no_result(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ortcam", "explain", str(tiny_bundle), str(photograph), str(photograph)]
    result = subprocess.run(
        [*command, "-m", "eigen-cam", "-t", "1", "-o", str(tmp_path)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(explained(tmp_path)) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_json_stays_json_without_a_standard_error(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    arguments = [
        "explain",
        tiny_bundle,
        tmp_path / "missing.png",
        photograph,
        "-m",
        "eigen-cam",
        "-o",
        tmp_path,
        "--json",
    ]
    command = shlex.join([sys.executable, "-m", "ortcam", *map(str, arguments)])
    result = subprocess.run(f"{command} 2>&-", shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    printed = json.loads(result.stdout)
    assert (len(printed["explanations"]), len(printed["errors"])) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["explain", "b.ortcam", "x.jpg", "--taget", "3"],
            "unknown flag --taget; did you mean '--target'?",
        ),
        (["explain", "b.ortcam", "x.jpg", "--topk=3"], "unknown flag --topk; did you mean '--top-k'?"),
        (["explain", "b.ortcam", "x.jpg", "--x\x1b[31m"], "unknown flag --x\\x1b[31m"),
    ],
)
def test_an_unknown_flag_is_named_safely_with_what_was_meant(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines() == [f"ortcam: {message}; see `ortcam explain --help`"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.png"], "-o x.png: accepted is the name of a file that ends in .onnx"),
        (["-o", "TAKEN"], "is there already; --force replaces it"),
        (["-o", "FOLDER/none/x.onnx"], "none does not exist"),
        (["--triton", "FOLDER/none"], "none does not exist"),
        (["-o", "FOLDER/x.onnx", "--top-k", "7"], "top_k=7: accepted is a whole number from 1 to 6"),
        (["-o", "FOLDER/x.onnx", "--batch-size", "0"], "batch_size=0: accepted is a whole number from 1"),
        (["-o", "FOLDER/x.onnx", "-m", "cam"], "cam: masks no image and cannot be fused"),
        (["-o", "FOLDER/x.onnx", "--budget", "0"], "budget=0"),
        (["-o", "FOLDER/x.onnx", "--precision", "fp16"], "no scorers in float16"),
    ],
)
def test_fuse_finds_what_is_wrong_before_it_imports_anything(
    tiny_bundle: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ortcam_export", None)
    (tmp_path / "taken.onnx").write_text("mine")
    words = [word.replace("FOLDER", str(tmp_path)).replace("TAKEN", str(tmp_path / "taken.onnx")) for word in arguments]
    assert main(["fuse", str(tiny_bundle), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert (tmp_path / "taken.onnx").read_text() == "mine"


def test_evaluate_writes_over_nothing_of_somebody_else(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.csv").write_text("mine")
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "journal.jsonl").write_text("{}")
    for output, message in (
        (tmp_path, "has results.csv of something else"),
        (tmp_path / "journal", "--resume goes on"),
    ):
        for flags in ([], ["--resume"]) if output == tmp_path else ([],):
            arguments = ["evaluate", str(tiny_bundle), str(photograph.parent), "-o", str(output), *flags]
            assert main(arguments) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "results.csv"]


@pytest.mark.slow
def test_a_plot_is_replaced_only_by_force(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.png"
    plot.write_text("mine")
    command = ["benchmark", str(tiny_bundle), "--methods", "eigen-cam", "--runs", "1", "--plot", str(plot)]
    assert main(command) == 2
    assert f"{plot}: is there already; --force replaces it" in capsys.readouterr().err
    assert plot.read_text() == "mine"
    assert main([*command, "--force"]) == 0
    assert read_image(plot).shape[2] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.slow
def test_a_second_demo_goes_over_the_first_and_over_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ortcam.cli.commands.demo.DEMO_OPTIONS", {"scorecam": {"budget": 8}})
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    assert main(["demo", "-o", str(tmp_path / "mine")]) == 2
    assert "is not a page that ortcam wrote" in capsys.readouterr().err
    assert (tmp_path / "mine" / "index.html").read_text() == "mine"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["index.html"]
