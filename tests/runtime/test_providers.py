"""Execution providers with options: OpenVINO's precision in short, what it refuses, and no silent way round them."""

import json
from pathlib import Path

import onnxruntime as ort
import pytest

import ortcam
from ortcam.cli import main
from ortcam.session import SessionOptions, open_session, resolve_providers

OPENVINO = "OpenVINOExecutionProvider"


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that says it has OpenVINO."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [OPENVINO, "CPUExecutionProvider"])


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"precision": "fp32"}, {"precision": "FP32"}),
        ({"precision": "Accuracy"}, {"precision": "ACCURACY"}),
        ({"precision": "float16", "device_type": "GPU.0"}, {"precision": "FP16", "device_type": "GPU.0"}),
        ({"cache_dir": "/tmp/x"}, {"cache_dir": "/tmp/x"}),
    ],
)
def test_openvinos_options_are_spelled_as_its_provider_wants_them(given: dict, expected: dict) -> None:
    assert resolve_providers([("openvino", given), "cpu"]) == ((OPENVINO, expected), ("CPUExecutionProvider", {}))


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("device", ["CPU", "GPU.1"])
def test_openvinos_bf16_goes_through_its_configuration(device: str) -> None:
    """Its provider's `precision` has no bfloat16: 'CPU only supports FP32, ACCURACY'."""
    ((_, options),) = resolve_providers([("OpenVINO", {"precision": "bf16", "device_type": device})])
    assert set(options) == {"device_type", "load_config"}
    assert json.loads(options["load_config"]) == {device.partition(".")[0]: {"INFERENCE_PRECISION_HINT": "bf16"}}


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision='fp8': accepted is fp32, bf16, accuracy, or fp16 on a GPU or NPU"),
        ({"precision": "fp16"}, "precision='fp16': accepted is fp32"),
        ({"precision": "bf16", "load_config": "{}"}, "precision=bf16 and load_config: give one or the other"),
    ],
)
def test_a_precision_that_openvino_does_not_have_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ortcam.OptionError, match=message):
        resolve_providers([("openvino", options)])


def test_the_number_of_threads_reaches_openvinos_own_pool(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[list] = []

    class Recorded:
        def __init__(self, path: str, settings: object, providers: list, **_: object) -> None:
            opened.append(providers)

        def get_providers(self) -> list[str]:
            return [OPENVINO]

    monkeypatch.setattr("ortcam.session.Session", Recorded)
    for values in ({}, {"num_of_threads": "3"}):
        open_session(tiny_bundle / "head.onnx", SessionOptions(((OPENVINO, values),), threads=2))
    assert opened == [[(OPENVINO, {"num_of_threads": "2"})], [(OPENVINO, {"num_of_threads": "3"})]]


def test_a_provider_with_options_that_is_not_used_is_an_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime warns and goes on with the CPU when a provider cannot be made."""
    options = SessionOptions((("CUDAExecutionProvider", {"device_id": "7"}), ("CPUExecutionProvider", {})))
    with pytest.raises(ortcam.ProviderError, match="CUDAExecutionProvider cannot be had with the options"):
        open_session(tiny_bundle / "head.onnx", options)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--provider-option", "precision=bf16"], "--provider-option: goes with --provider NAME"),
        (["--provider", "cpu", "--provider-option", "precision"], "accepted is KEY=VALUE"),
        (["--provider", "openvino", "--provider-option", "precision=bf16"], "'openvino' is not available"),
    ],
)
def test_a_wrong_provider_option_is_one_clear_error(
    tiny_bundle: Path, photograph: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if OPENVINO in ort.get_available_providers() and "is not available" in message:
        pytest.skip("OpenVINO is here")
    assert main(["explain", str(tiny_bundle), str(photograph), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_provider_options_are_those_of_the_first_provider(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--provider", "cpu", "--provider-option", "arena_extend_strategy=kSameAsRequested", "-m", "scorecam"]
    assert main(["explain", str(tiny_bundle), str(photograph), *flags, "-o", str(tmp_path)]) == 0
    record = json.loads((tmp_path / photograph.stem / "scorecam" / "manifest.json").read_text())
    requested = [["CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"}]]
    assert record["requested_providers"] == requested


@pytest.mark.skipif(OPENVINO not in ort.get_available_providers(), reason="needs onnxruntime-openvino")
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.9999), ("bf16", 0.99)])
def test_openvino_explains_as_the_cpu_does(precision: str, bound: float, tiny_bundle: Path, photograph: Path) -> None:
    import numpy as np

    cpu, other = (
        ortcam.load(tiny_bundle, providers=[provider]).explain(photograph, method="scorecam")
        for provider in ("cpu", ("openvino", {"precision": precision}))
    )
    assert other.stats.providers[0] == OPENVINO
    assert np.corrcoef(cpu.maps.ravel(), other.maps.ravel())[0, 1] > bound
