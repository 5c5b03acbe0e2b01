"""The command line as a user types it: right results, one clear error for bad input, exit codes, nothing lost."""

import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.common.tolerances import maps_apart
from tests.runtime.cli.running import complaints, numeric_bundle, run

import ortcam
from ortcam.cli import main
from ortcam.images.reading import read_image


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_broken_images_get_one_line_each_and_the_others_are_explained(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    broken = broken_pictures(tmp_path, photograph)
    result = run("explain", tiny_bundle, *broken.values(), photograph, "-m", "scorecam++", "-o", tmp_path / "out")
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


@pytest.mark.slow
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
    names = [tmp_path / name for name in pictures]
    result = run("explain", tiny_bundle, *names, "-m", "scorecam++", "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    for name, pixels in pictures.items():
        overlay = read_image(next((tmp_path / "out" / Path(name).stem / "scorecam++").glob("*-overlay.png")))
        assert overlay.shape[:2] == pixels.shape[:2]
    explainer = ortcam.load(tiny_bundle)
    plain = explainer.explain(picture, method="scorecam++").maps
    atol = maps_apart(explainer.logits(1, lambda _: explainer.preprocess(picture)), channels=10)
    for name in ("alpha.png", "deep.png"):
        maps = ortcam.load(tiny_bundle).explain(tmp_path / name, method="scorecam++").maps
        np.testing.assert_allclose(maps, plain, rtol=0, atol=atol)


@pytest.mark.slow
def test_a_huge_picture_is_refused_before_it_is_decoded_unless_asked(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    assert cv2.imwrite(str(tmp_path / "huge.png"), np.zeros((20000, 20000), np.uint8))
    result = run("explain", tiny_bundle, tmp_path / "huge.png", photograph, "-o", tmp_path / "out")
    assert result.returncode == 2
    (line,) = complaints(result)
    assert "20000" in line
    assert (tmp_path / "out" / "photo").is_dir()


@pytest.mark.sample(every=3)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "fullgrad"], "unknown method 'fullgrad'"),
        (["-m", "scorecam++", "--option", "gate=gelu"], "gate='gelu' is not accepted; accepted: tanh"),
        (["--option", "gate=tanh"], "auto: the option 'gate' goes with a method: name one that has it, scorecam++"),
        (["--option", "augment=-1"], "auto: augment='-1' is not accepted; accepted: a whole number from 0 to 1000"),
        (["--option", "augment-flip=yes"], "auto: augment_flip without augment: goes with augment=N"),
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_label_with_a_comma_is_one_label(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    assert run("explain", tiny_bundle, photograph, "-m", "cam", "-t", "white, striped", "-o", tmp_path).returncode == 0
    assert (tmp_path / "photo" / "cam" / "class-5.npy").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("output", ["file", "file/below"])
def test_an_output_that_is_a_file_gets_one_line(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, output: str
) -> None:
    (tmp_path / "file").write_text("mine")
    result = run("explain", tiny_bundle, photograph, "-o", tmp_path / output)
    assert result.returncode == 2
    assert len(complaints(result)) == 1
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_missing_bundle_or_unknown_command_gets_exit_code_2(tmp_path: Path, photograph: Path) -> None:
    result = run("explain", tmp_path / "none.ortcam", photograph)
    assert result.returncode == 2
    assert "there is no such folder" in complaints(result)[0]
    assert run("explode").returncode == 2


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
        assert len([line for line in printed.err.splitlines() if " so far" not in line]) == 1
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
