"""Every number that a command line or a caller can give has a range, and nothing outside of it begins any work."""

import argparse
import dataclasses
import doctest
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ortcam
import ortcam_export
from ortcam.benchmarking import benchmark
from ortcam.cli.main import make_parser
from ortcam.cli.parsers import Parser
from ortcam.cli.ray_cluster import read_actors
from ortcam.engine import Model, OnnxEngine, SessionOptions, resolve_providers
from ortcam.errors import OptionError, OrtcamError
from ortcam.evaluation.entries import parse_entries
from ortcam.evaluation.run import Evaluation
from ortcam.images.rendering import shrunk
from ortcam.methods import METHODS, resolve_method
from ortcam.request import ExplainRequest, read_batch_size, read_budget
from ortcam.support import ranges
from ortcam.support.ranges import Numbers, Range, shown

# Options whose value is a text; any other that takes a value has a `Range`, or is one of NUMBERS below. A new option of
# numbers that has neither fails the test.
TEXTS = {
    *(
        "model",
        "bundle",
        "images",
        "name",
        "-o/--bundle",
        "-o/--output",
        "--weights",
        "--checkpoint",
        "--layer",
        "--precision",
    ),
    *(  # of `ortcam serve`; `--limit` takes NAME=N, and the limits have ranges of their own
        "--name",
        "--host",
        "--token-file",
        "--cors",
        "--config",
        "--log-file",
        "--limit",
        "--model_name",
        "--predictor_host",
    ),
    *(
        "--calibration",
        "--channel-order",
        "--interpolation",
        "--labels",
        "--preset",
        "--annotations",
        "--model-output",
        "action",
        "shell",
        "--blend",
        "--input-layout",
        "--activation",
        "-m/--method",
    ),
    *("-t/--target", "--provider", "--provider-option", "--option", "--colormap", "--blend", "--completion", "--name"),
    *("--input", "--classes", "--score"),  # their values have rules of their own
    *("input", "--storage-option", "--engine", "--ray-address", "--maps", "--overlays"),  # of `ortcam batch`
    *(
        "--triton",
        "--metrics",
        "--protocol",
        "--batch-sizes",
        "--image",
        "--plot",
        "--public-key",
        "--required-operators",
        "--output",
        "--methods",
    ),
}
NUMBERS = (read_actors, read_batch_size, read_budget)
# No number at all, in a range of whole numbers or of real ones.
NO_NUMBERS = [
    "",
    "x",
    "1_000",
    "\u0661\u0662",
    "\uff11",
    "0x10",
    "1e",
    "--",
    "1 2",
    "9" * 5000,
    "-" + "9" * 5000,
    "1e4000",
]
NOT_FINITE = ["nan", "inf", "-inf", "1e400", "-1e400"]


def commands() -> Iterator[tuple[str, Parser]]:
    parser = make_parser()
    (subparsers,) = (item for item in parser.actions if isinstance(item, argparse._SubParsersAction))
    yield from subparsers.choices.items()


def valued() -> Iterator[tuple[str, Parser, argparse.Action]]:
    """Every option and argument of every command that takes a value."""
    for name, parser in commands():
        for action in parser.actions:
            if action.nargs != 0:
                yield name, parser, action


def numeric() -> list[Any]:
    return [
        pytest.param(parser, action, id=f"{name} {action.option_strings[-1]}")
        for name, parser, action in valued()
        if isinstance(action.type, Range) or action.type in NUMBERS
    ]


def test_the_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(ranges).failed == 0


def test_every_option_that_takes_a_value_is_a_text_or_has_a_range() -> None:
    without = []
    for command, _, action in valued():
        name = "/".join(action.option_strings) or action.dest
        if (command, name) == ("benchmark", "--batch-size"):
            continue  # several numbers, which the command takes apart
        if not (isinstance(action.type, Range) or action.type in NUMBERS or (action.type is None and name in TEXTS)):
            without.append(f"{command} {name}")
    assert without == []


@pytest.mark.slow
def test_help_tells_the_range_of_every_option_that_has_one() -> None:
    for _, parser, action in valued():
        if isinstance(action.type, Range):
            assert f"accepted: {action.type.bounds}" in " ".join(parser.format_complete_help().split())


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(("parser", "action"), numeric())
def test_what_is_no_number_of_the_range_is_refused_in_one_sentence(
    parser: argparse.ArgumentParser, action: argparse.Action
) -> None:
    assert callable(action.type)
    several = isinstance(action.type, Numbers) and action.type.fewest is not None  # to which "1 2" are two
    for text in (*(text for text in NO_NUMBERS if not (several and text == "1 2")), *NOT_FINITE):
        with pytest.raises((argparse.ArgumentTypeError, OptionError)) as raised:
            action.type(text)
        assert "accepted is" in str(raised.value)
        assert len(str(raised.value)) < 250


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(("parser", "action"), numeric())
def test_both_bounds_are_accepted_and_nothing_beyond(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
    if not isinstance(action.type, Range):
        return
    range_ = action.type
    step = 1 if range_.whole else max(abs(range_.most), 1) * 1e-9
    assert math.isfinite(range_.least)
    assert math.isfinite(range_.most)
    for bound, is_open, outside in (
        (range_.least, range_.open_below, range_.least - step),
        (range_.most, range_.open_above, range_.most + step),
    ):
        text = str(bound) if range_.whole else f"{bound:.1f}" if bound == int(bound) else f"{bound:e}"
        if not is_open:
            if not isinstance(range_, Numbers):
                assert range_(text) == bound
            elif range_.fewest is None:
                assert range_(text) == (bound,) * range_.count
            else:
                assert range_(",".join([text] * range_.fewest)) == (bound,) * range_.fewest
        with pytest.raises(OptionError, match="accepted is"):
            range_.check(outside)
    if action.default is not None and not isinstance(action.default, str):
        assert range_.check(action.default) == action.default


@pytest.mark.parametrize("value", [True, None, "1", 1.5, math.nan, [1], 1j, np.array([1, 2])])
def test_a_whole_number_is_one_of_python_or_numpy(value: object) -> None:
    range_ = Range("n", 1, 9)
    with pytest.raises(OptionError, match=r"n=.*accepted is a whole number from 1 to 9"):
        range_.check(value)
    assert [type(range_.check(number)) for number in (3, np.int8(3), np.uint64(3))] == [int] * 3


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_option_of_a_method_refuses_numbers_beyond_reason(method: ortcam.Method) -> None:
    beyond = [10**9, 10**12, -1, 10**5000, 2**63, "9" * 5000, "1_0", "\u0661", "1e400", math.inf, math.nan, "nan", None]
    for option in method.options:
        for value in beyond:
            if option.name == "std" and value in (None, 10**12):
                continue
            if option.name == "seed" and value in (10**9, 10**12):
                continue
            if option.name == "layer" and isinstance(value, str):  # a name, which only a bundle can refuse
                continue
            with pytest.raises(OptionError, match="accepted") as raised:
                resolve_method(method.name, {option.name: 1e9 if option.name == "std" and value == 10**9 else value})
            assert len(str(raised.value)) < 300
        if isinstance(option.default, int) and not isinstance(option.default, bool):
            assert "from" in option.accepted
            assert "to" in option.accepted


HUGE = [10**12, 10**5000, -1, math.nan, math.inf, "1", True]


@pytest.mark.parametrize("name", ["batch_size", "budget", "deadline", "tolerance", "sampling_error"])
@pytest.mark.parametrize("value", HUGE, ids=shown)
def test_limits_of_an_explanation_are_checked_before_it(name: str, value: Any) -> None:
    with pytest.raises(OrtcamError, match=f"{name}=.*accepted is"):
        ExplainRequest.of(method="iscam", **{name: value})


@pytest.mark.sample(every=4)
@pytest.mark.parametrize("value", HUGE, ids=shown)
def test_top_k_is_at_most_the_classes(value: Any, tiny_bundle: Path) -> None:
    with pytest.raises(ortcam.TargetError, match="accepted is a whole number from 1 to 6"):
        ortcam.load(tiny_bundle).explain("no.png", top_k=value)


@pytest.mark.parametrize("name", ["threads", "max_pixels", "white", "memory_limit"])
@pytest.mark.parametrize("value", HUGE, ids=shown)
def test_numbers_of_a_load_are_checked_before_it(name: str, value: Any, tiny_bundle: Path) -> None:
    with pytest.raises(OptionError, match=f"{name}="):
        ortcam.load(tiny_bundle, **{name: value})


@pytest.mark.parametrize(
    "name",
    ["limit", "seed", "step", "randomize", "batch_size", "threads", "max_pixels", "white", "memory_limit"],
)
@pytest.mark.parametrize("value", [10**5000, -1, math.nan, True], ids=shown)
def test_numbers_of_an_evaluation_are_checked_before_it(
    name: str, value: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=f"{name}="):
        Evaluation(tiny_bundle, tmp_path, tmp_path / "out", methods=["scorecam"], **{name: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["deadline=1e400", "sampling_error=nan", "tolerance=2", f"budget={'9' * 5000}"])
def test_limits_of_a_variant_are_checked(text: str) -> None:
    with pytest.raises((OptionError, argparse.ArgumentTypeError), match=r"accepted is|not a number"):
        parse_entries([f"iscam:{text}"])


@pytest.mark.parametrize(
    "given", [{"runs": 0}, {"runs": 10**9}, {"seconds": math.nan}, {"seconds": 1e12}, {"memory_limit": 0}]
)
def test_numbers_of_a_benchmark_are_checked_before_it(given: dict[str, Any], tiny_bundle: Path) -> None:
    with pytest.raises(OptionError, match="accepted is"):
        benchmark(tiny_bundle, "no.png", methods=["scorecam"], **given)


@pytest.mark.parametrize(
    "given", [{"top_k": 10**12}, {"batch_size": 10**9}, {"batch_size": True}, {"budget": 10**9}, {"num_samples": 10**9}]
)
def test_numbers_of_a_fused_file_are_checked_before_it(
    given: dict[str, Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(OrtcamError, match="accepted"):
        ortcam_export.fuse(tiny_bundle, tmp_path / "a.onnx", method="iscam", **given)


@pytest.mark.parametrize("given", [{"opset": 10**9}, {"opset": 10**5000}, {"opset": True}, {"resize": 0}])
def test_numbers_of_an_export_are_checked_before_it(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OrtcamError, match=r"=.*(accepted|expected)"):
        ortcam_export.export("resnet18", tmp_path / "a.ortcam", **given)


def test_every_public_number_is_known_here() -> None:
    """A parameter that is a number by its annotation is in one of the tests above."""
    known = {*(field.name for field in dataclasses.fields(ortcam.Preprocessing)), "count", "index", "alpha"}
    known |= {
        "top_k",
        "batch_size",
        "budget",
        "deadline",
        "tolerance",
        "sampling_error",
        "threads",
        "max_pixels",
        "white",
        "memory_limit",
    }
    known.add("progress")  # a function that is told numbers
    known |= {"channels", "logit_scale", "logit_bias", "baseline_value", "display", "value_range", "static_batch"}
    known |= {"limit", "seed", "step", "longest_side", "randomize", "runs", "seconds", "opset", "input_size", "target"}
    public = [ortcam.load, ortcam_export.export, ortcam_export.inspect_model, ortcam_export.fuse, benchmark, Evaluation]
    public += [member for _, member in inspect.getmembers(ortcam.Explainer, inspect.isfunction)]
    public += [member for _, member in inspect.getmembers(ortcam.Explanation, inspect.isfunction)]
    unknown = {
        f"{function.__qualname__} {name}"
        for function in public
        if not function.__name__.startswith("_")
        for name, parameter in inspect.signature(function).parameters.items()
        if {"int", "float"} & set(str(parameter.annotation).replace("|", " ").replace(",", " ").split())
        or parameter.annotation in (int, float)
        if name not in known
    }
    assert unknown == set()


def test_the_largest_batch_size_makes_no_more_inputs_at_a_time_than_fit(tiny_bundle: Path) -> None:
    made = []

    def inputs(rows: slice) -> np.ndarray[Any, Any]:
        made.append(rows.stop - rows.start)
        return np.zeros((made[-1], 3, 32, 48), np.float32)

    bundle = ortcam.read_bundle(tiny_bundle)
    model = Model(bundle, OnnxEngine(bundle, SessionOptions(resolve_providers(["cpu"]))))
    assert model.logits(8, inputs, batch_size=65536, most_pixels=3 * 32 * 48 + 1).shape == (8, 6)
    assert made == [3, 3, 2]


@pytest.mark.parametrize("value", HUGE, ids=shown)
def test_the_side_of_an_overlay_is_checked(value: Any) -> None:
    with pytest.raises(OptionError, match=r"longest_side=.*accepted is"):
        shrunk(np.zeros((4, 4, 3), np.uint8), value)
