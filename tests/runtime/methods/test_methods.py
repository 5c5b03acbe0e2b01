"""Methods and their options: names as people type them, the specification's defaults, errors that say what is taken."""

import subprocess
import sys
from pathlib import Path

import pytest

from ortcam.errors import OptionError
from ortcam.methods import METHODS, resolve_method


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("scorecam", "scorecam"),
        ("Score-CAM", "scorecam"),
        ("scorecam++", "scorecam++"),
        ("scorecampp", "scorecam++"),
        ("SS-CAM", "sscam"),
        ("sscam", "sscam"),
        ("is-cam", "iscam"),
        ("ISCAM", "iscam"),
    ],
)
def test_methods_have_the_names_people_type(typed: str, name: str) -> None:
    assert resolve_method(typed, {}).method.name == name


def test_defaults_are_those_of_the_specification() -> None:
    scorecam = resolve_method("scorecam", {}).plan
    assert (scorecam.normalize, scorecam.weighting, scorecam.baseline) == ("after-upsampling", "probability", False)
    assert (scorecam.maps, scorecam.gate, scorecam.samples) == ("raw", None, 1)
    gated = resolve_method("scorecam++", {}).plan
    assert (gated.gate, gated.gate_sum, gated.normalize) == ("tanh", True, None)
    noise = resolve_method("sscam", {}).plan.noise
    assert noise is not None
    assert (noise.samples, noise.std, noise.on, noise.seed) == (35, "authors", "input", 0)
    coefficients = resolve_method("iscam", {}).plan.coefficients
    assert coefficients == pytest.approx((0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8, 3.6, 4.5, 5.5))
    assert sum(value > 1 for value in coefficients) == 6


def test_options_come_as_values_or_as_the_strings_of_the_command_line() -> None:
    typed = resolve_method("sscam", {"num_samples": "4", "std": "0.5", "seed": "7", "maps": "normalized"})
    given = resolve_method("sscam", {"num_samples": 4, "std": 0.5, "seed": 7, "maps": "normalized"})
    assert typed == given
    assert resolve_method("scorecam++", {"gate_sum": "false"}).plan.gate_sum is False
    assert resolve_method("iscam", {"path": "linear", "num_samples": 4}).plan.coefficients == (0.25, 0.5, 0.75, 1.0)
    activation = resolve_method("sscam", {"noise": "activation"}).plan.noise
    assert activation is not None
    assert activation.std == 2.0


def test_the_minmax_gate_is_the_min_max_in_mask_and_sum() -> None:
    plan = resolve_method("scorecam++", {"gate": "minmax"}).plan
    assert (plan.gate, plan.normalize, plan.maps) == (None, "after-upsampling", "normalized")
    assert resolve_method("scorecam++", {"gate": "minmax", "gate_sum": False}).plan.maps == "raw"


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("fullgrad", {}, "unknown method 'fullgrad'; accepted: auto, scorecam, scorecam\\+\\+, sscam, iscam"),
        ("scorecan", {}, "did you mean 'scorecam'"),
        ("scorecam", {"gate": "tanh"}, "scorecam: unknown option 'gate'; accepted: weighting"),
        ("sscam", {"num_sample": 3}, "did you mean 'num_samples'"),
        ("sscam", {"num_samples": 0}, "num_samples=0 is not accepted; accepted: a whole number from 1"),
        ("sscam", {"num_samples": 2.5}, "num_samples=2.5"),
        ("sscam", {"num_samples": True}, "num_samples=True"),
        ("sscam", {"std": -1}, "std=-1"),
        ("sscam", {"std": "nan"}, "std='nan'"),
        ("sscam", {"seed": -3}, "seed=-3"),
        ("sscam", {"noise": "activation", "std": "authors"}, "std is a number"),
        ("iscam", {"path": "straight"}, "path='straight' is not accepted; accepted: cumulative, linear"),
        ("scorecam++", {"gate": "gelu"}, "accepted: tanh, sigmoid, sigmoid-relu, relu, mish, swish, softsign, minmax"),
        ("scorecam++", {"gate_sum": "maybe"}, "accepted: true or false"),
    ],
)
def test_an_error_names_the_value_and_what_is_accepted(method: str, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve_method(method, options)


def test_every_default_is_itself_accepted() -> None:
    for method in METHODS:
        for option in method.options:
            assert option.parse(option.default) == option.default


@pytest.mark.slow
def test_methods_that_mask_nothing_need_numpy_and_onnx_runtime_alone(tiny_bundle: Path, photograph: Path) -> None:
    names = [method.name for method in METHODS if not method.masks_image and not method.needs_attention]
    assert len(names) >= 11
    script = """
import sys, ortcam
explainer = ortcam.load(sys.argv[1])
for method in sys.argv[3:]:
    explainer.explain(sys.argv[2], method=method)
assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "onnx", "scipy", "ortcam_export")]
"""
    command = [sys.executable, "-c", script, str(tiny_bundle), str(photograph), *names]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""
