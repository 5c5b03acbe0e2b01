"""Flags of `ortcam export` for channels, further inputs and embeddings, as it gets them; and what `inspect` prints."""

from typing import Any

import pytest

from ortcam.cli.commands import export as command
from ortcam.cli.main import main
from ortcam.cli.models import flag_of
from ortcam.cli.printing import print_preprocessing
from ortcam.errors import OrtcamError
from ortcam.images.preprocessing import Preprocessing


class Recorder:
    """An exporter that keeps what it is told."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def export(self, _: str, __: str, *, force: bool, report: Any, **given: Any) -> None:
        self.given = given
        raise OrtcamError("recorded")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(command, "import_exporter", lambda *_: made)
    return made


def given(recorder: Recorder, *words: str) -> dict[str, Any]:
    assert main(["export", "net.onnx", *words]) != 0
    return recorder.given


def test_values_per_channel_are_tuples_of_any_length(recorder: Recorder) -> None:
    words = ["--channels", "4", "--mean", ".1,.2,.3,.4", "--std", "0.5", "--channel-order", "bands"]
    words += ["--value-range", "-1024,1024", "--display-bands", "3,2,1", "--baseline-value", "zero"]
    assert given(recorder, *words) == {
        "channels": 4,
        "mean": (0.1, 0.2, 0.3, 0.4),
        "std": (0.5,),
        "channel_order": "bands",
        "value_range": (-1024.0, 1024.0),
        "display": (3, 2, 1),
        "baseline_value": "zero",
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--value-range", "5"], "--value-range: '5': accepted is 2 numbers"),
        (["--baseline-value", "black"], "a number from -1e+06 to 1e+06, mean or zero"),
    ],
)
def test_a_wrong_value_is_told_all_that_is_accepted(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "net.onnx", *words])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_numbers_may_stand_apart(recorder: Recorder) -> None:
    words = ["--mean", ".1", ".2", ".3", ".4", "--baseline-value", "-1", "2", "--value-range", "0", "65535"]
    assert given(recorder, *words) == {
        "mean": (0.1, 0.2, 0.3, 0.4),
        "baseline_value": (-1.0, 2.0),
        "value_range": (0.0, 65535.0),
    }


def test_inputs_and_embeddings(recorder: Recorder) -> None:
    words = ["--input", "size=1.5", "--input", "names=[1, 2]", "--classes", "texts.npy", "--logit-scale", "50"]
    assert given(recorder, *words, "--logit-bias", "-10", "--activation", "identity") == {
        "inputs": {"size": "1.5", "names": "[1, 2]"},
        "classes": "texts.npy",
        "logit_scale": 50.0,
        "logit_bias": -10.0,
        "activation": "identity",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--channels", "65"], "accepted is a whole number from 1 to 64"),
        (["--input", "size"], "accepted is NAME=VALUE"),
        (["--input", "a=1", "--input", "a=2"], "'a' is given twice"),
        (["--display-bands", "0,1,2,3"], "accepted is 1 to 3 numbers from 0 to 63"),
        (["--baseline-value", "black"], "accepted is"),
        (["--logit-scale", "0"], "accepted is a number above 0"),
    ],
)
def test_what_no_export_takes_is_refused_in_one_sentence(
    words: list[str], said: str, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        raise SystemExit(main(["export", "net.onnx", *words]))
    assert said in capsys.readouterr().err
    assert recorder.given == {}


def test_options_have_the_flags_that_set_them() -> None:
    assert [flag_of(name) for name in ("display", "inputs", "output", "value_range")] == [
        "--display-bands",
        "--input",
        "--model-output",
        "--value-range",
    ]


def test_inspect_prints_channels_range_baseline_and_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    bands = Preprocessing(
        8, 8, None, (0.1,) * 4, (1.0,) * 4, channel_order="bands", value_range=(0, 10_000), display=(2, 1, 0)
    )
    print_preprocessing(bands, "given by the user")
    said = capsys.readouterr().out
    assert "channels       4, bands; samples from 0 to 10000\n" in said
    assert "masks          hide to 0.1 0.1 0.1 0.1, of pixels in [0,1]\n" in said
    assert "display        bands 2 1 0, counted from 0" in said
    print_preprocessing(Preprocessing(8, 8, None, (0.5,), (1.0,), channel_order="grey"), "given by the user")
    said = capsys.readouterr().out
    assert "channels       grey, as Pillow weighs it; 8-bit levels\n" in said
    assert "display" not in said
    print_preprocessing(Preprocessing(8, 8, None, (0.5,) * 3, (1.0,) * 3), "given by the user")
    assert len(capsys.readouterr().out.splitlines()) == 1
