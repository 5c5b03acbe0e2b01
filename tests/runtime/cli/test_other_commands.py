"""What flags of other commands do: export, fuse, evaluate, benchmark, demo."""

import inspect
import re
import sys
import types
from pathlib import Path

import pytest
from tests.runtime.cli.running import run

import ortcam
import ortcam_export
from ortcam.cli import main
from ortcam.images.reading import read_image


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


@pytest.mark.slow
def test_every_flag_of_export_is_an_argument_of_export() -> None:
    accepted = set(inspect.signature(ortcam_export.export).parameters)
    help_text = run("export", "--help-all").stdout
    flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]*)", help_text)} - {"help", "help_all"}
    # Of the arguments, where a flag is called otherwise.
    names = {"output": "bundle", "model_output": "output", "input": "inputs", "display_bands": "display"}
    flags = {names.get(flag, flag) for flag in flags}
    assert flags <= accepted, "a flag that export() does not know"
    assert accepted - flags <= {"model", "report", "preprocessing"}, "an argument without a flag"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.png"], "-o x.png: accepted is the name of a file that ends in .onnx"),
        (["-o", "TAKEN"], "is there already; --force replaces it"),
        (["-o", "FOLDER/none/x.onnx"], "none does not exist"),
        (["--triton", "FOLDER/none"], "none does not exist"),
        (["-o", "FOLDER/x.onnx", "--top-k", "7"], "top_k=7: accepted is a whole number from 1 to 6"),
        (["-o", "FOLDER/x.onnx", "--batch-size", "0"], "batch_size=0: accepted is a whole number from 1"),
        (["-o", "FOLDER/x.onnx", "-m", "cam"], "cam: cannot be fused; accepted is scorecam"),
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


@pytest.mark.long
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


@pytest.mark.long
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
