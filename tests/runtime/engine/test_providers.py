"""Execution providers with options: OpenVINO's precision in short, what it refuses, and no silent way round them."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from tests.common.tolerances import logits_apart, maps_apart

import ortcam
from ortcam.cli import main
from ortcam.engine import SessionOptions, open_session, resolve_providers
from ortcam.engine.providers import warn_left_out
from ortcam.errors import OutOfMemoryError

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

    class Recorded(ort.InferenceSession):
        def __init__(self, path: str, settings: object, providers: list, **others: object) -> None:
            opened.append(providers)
            super().__init__(path, settings, providers=["CPUExecutionProvider"], **others)

        def get_providers(self) -> list[str]:
            return [OPENVINO]

    monkeypatch.setattr(ort, "InferenceSession", Recorded)
    for values in ({}, {"num_of_threads": "3"}):
        open_session(tiny_bundle / "head.onnx", SessionOptions(((OPENVINO, values),), threads=2))
    assert opened == [[(OPENVINO, {"num_of_threads": "2"})], [(OPENVINO, {"num_of_threads": "3"})]]


@pytest.mark.parametrize("values", [{}, {"device_id": "7"}])
def test_a_provider_that_cannot_start_is_replaced_by_the_cpu_with_one_warning(
    tiny_bundle: Path, photograph: Path, values: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a GPU build of ONNX Runtime on a machine without a driver."""
    real = ort.InferenceSession

    def refuse(path: str, settings: object, providers: list, **others: object) -> ort.InferenceSession:
        if any(name[0] == "CUDAExecutionProvider" for name in providers):
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient\nmore")
        return real(path, settings, providers=providers, **others)

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", refuse)
    warn_left_out.cache_clear()
    explainer = ortcam.load(tiny_bundle, providers=[("cuda", values), "cpu"])
    with pytest.warns(RuntimeWarning, match=r"CUDAExecutionProvider cannot start \(CUDA failure 35") as caught:
        e = explainer.explain(photograph, method="scorecam")
    assert len(caught) == 1
    assert e.stats.providers == ("CPUExecutionProvider",)
    assert e.summary()["stats"]["providers"] == ("CPUExecutionProvider",)


class Refusing(ort.InferenceSession):
    """An ONNX Runtime with CUDA, whose provider has one option."""

    def __init__(self, model: object, settings: object, providers: list, **others: object) -> None:
        self.names = [item if isinstance(item, str) else item[0] for item in providers]
        for name, options in (item for item in providers if not isinstance(item, str)):
            if name == "CUDAExecutionProvider" and set(options) - {"device_id"}:
                raise RuntimeError("whatever it says of them")
        super().__init__(model, settings, providers=["CPUExecutionProvider"], **others)

    def get_providers(self) -> list[str]:
        return self.names


@pytest.mark.slow
def test_options_are_to_blame_where_a_provider_starts_without_them(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "InferenceSession", Refusing)
    graph = tiny_bundle / "head.onnx"
    cuda = "CUDAExecutionProvider"
    options = SessionOptions(((cuda, {"device_id": "0"}), ("CPUExecutionProvider", {})))
    assert open_session(graph, options).providers[0][0] == cuda
    with pytest.raises(ortcam.ProviderError, match=f"^{cuda} does not accept its options: whatever it says of them$"):
        open_session(graph, SessionOptions(((cuda, {"made_up": "1"}), ("CPUExecutionProvider", {}))))
    (tiny_bundle.parent / "none.onnx").write_bytes(b"no graph")
    with pytest.raises(ortcam.BundleError, match=r"none\.onnx: ONNX Runtime cannot open this graph"):
        open_session(tiny_bundle.parent / "none.onnx", options)


def test_a_strict_explainer_refuses_a_provider_that_cannot_start(
    tiny_bundle: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = ort.InferenceSession

    def refuse(path: str, settings: object, providers: list, **others: object) -> ort.InferenceSession:
        if any(name == "CUDAExecutionProvider" for name, _ in providers):
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient\nmore")
        return real(path, settings, providers=providers, **others)

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", refuse)
    message = r"CUDAExecutionProvider cannot start \(CUDA failure 35: CUDA driver version is insufficient\)"
    for providers in (["cuda"], None):
        with (
            ortcam.load(tiny_bundle, providers=providers, strict_providers=True) as explainer,
            pytest.raises(ortcam.ProviderError, match=message),
        ):
            explainer.predict(photograph)
    assert ortcam.load(tiny_bundle, providers=["cpu"], strict_providers=True).predict(photograph).any()
    with pytest.raises(ortcam.OptionError, match="strict_providers='yes': accepted is True or False"):
        ortcam.load(tiny_bundle, strict_providers="yes")  # type: ignore[arg-type]
    for command in (["explain", "-m", "scorecam"], ["predict"]):
        assert main([command[0], str(tiny_bundle), str(photograph), *command[1:], "--strict-provider"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "cannot start (CUDA failure 35" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            (
                "/onnxruntime_src/core/cuda_call.cc:154 std::conditional_t<THRW, void, Status> CudaCall(ERRTYPE) "
                "[with THRW = true] CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm ; "
            ),
            "CUDA failure 100: no CUDA-capable device is detected",
        ),
        (
            (
                "/onnxruntime_src/core/provider_info.cc:63 static Info FromOptions(const Options&) "
                "[ONNXRuntimeError] : 1 : FAIL : Invalid device ID: 99, must be between 0 and 1."
            ),
            "[ONNXRuntimeError] : 1 : FAIL : Invalid device ID: 99, must be between 0 and 1.",
        ),
        ("[ONNXRuntimeError] : 1 : FAIL : something", "[ONNXRuntimeError] : 1 : FAIL : something"),
    ],
)
def test_what_onnx_runtime_says_is_told_without_the_places_in_its_source(
    text: str, words: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an NVIDIA H200 said, the names in it shortened."""
    real, cuda = ort.InferenceSession, "CUDAExecutionProvider"

    def refuse(*arguments: object, **named: object) -> object:
        if named["providers"][0][0] == cuda:  # type: ignore[index]
            raise RuntimeError(text)
        return real(*arguments, **named)

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    options = SessionOptions(((cuda, {}), ("CPUExecutionProvider", {})), strict_providers=True)
    with pytest.raises(ortcam.ProviderError) as caught:
        open_session(tiny_bundle / "head.onnx", options)
    assert f"cannot start ({words})" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Failed to allocate memory for requested buffer of size 12", OutOfMemoryError),
        ("CUDA error 2: out of memory", OutOfMemoryError),
        ("CUDNN_STATUS_ALLOC_FAILED", OutOfMemoryError),
        ("Available memory of 1048576 is smaller than requested bytes of 67108864", OutOfMemoryError),
        ("std::bad_alloc", OutOfMemoryError),
        ("Invalid input shape", ortcam.ProviderError),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(
    text: str, expected: type[Exception], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(tiny_bundle / "head.onnx", SessionOptions((("CPUExecutionProvider", {}),)))

    def fail(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(session.runtime, "run_with_iobinding", fail)
    with session.bind(["logits"]) as bound, pytest.raises(ortcam.ProviderError) as caught:
        bound.run()
    assert type(caught.value) is expected


def test_inputs_are_copies_that_are_overwritten_in_place(tiny_bundle: Path) -> None:
    session = open_session(tiny_bundle / "head.onnx", SessionOptions((("CPUExecutionProvider", {}),)))
    shape = [2 if isinstance(size, str) else size for size in session.runtime.get_inputs()[0].shape]
    generator = np.random.default_rng(0)
    first, second, third = (generator.standard_normal((size, *shape[1:]), np.float32) for size in (2, 2, 3))
    kept = first.copy()
    results = []
    with session.bind(["logits"]) as bound:
        for features in (first, second, third, first):
            bound.put("features", features)
            bound.put("nothing of this graph", features)
            results.append(bound.run()[0])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(results[3], results[0])
    for features, logits in zip((first, second, third), results, strict=False):
        (expected,) = session.run({"features": features}, ["logits"])
        np.testing.assert_allclose(logits, expected, rtol=0, atol=logits_apart(expected))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threads": 1.5}, ortcam.OptionError, r"threads=1\.5: accepted is a whole number"),
        ({"threads": "2"}, ortcam.OptionError, "threads='2'"),
        ({"threads": True}, ortcam.OptionError, "threads=True"),
        ({"providers": [("cpu",)]}, ortcam.ProviderError, "accepted is a name, or a pair of a name and its options"),
        ({"providers": [3]}, ortcam.ProviderError, "provider 3: accepted"),
    ],
)
def test_a_session_that_cannot_be_asked_for(
    arguments: dict, error: type[Exception], message: str, tiny_bundle: Path
) -> None:
    with pytest.raises(error, match=message):
        ortcam.load(tiny_bundle, **{"providers": ["cpu"], **arguments})


def test_options_of_any_type_can_be_saved(tiny_bundle: Path, photograph: Path, tmp_path: Path) -> None:
    provider = ("cpu", {"where": tmp_path, "how_many": 3})
    assert resolve_providers([provider]) == (("CPUExecutionProvider", {"where": str(tmp_path), "how_many": "3"}),)
    explanation = ortcam.load(tiny_bundle, providers=["cpu"]).explain(
        photograph, budget=np.int64(2), deadline=np.float32(1e6), batch_size=np.int64(2)
    )
    folder = explanation.save(tmp_path / "saved")
    limits = json.loads((folder / "manifest.json").read_text())["limits"]
    assert limits == {
        "budget": 2,
        "deadline": 1e6,
        "tolerance": None,
        "completion": "gaussian-process",
        "sampling_error": None,
    }


def test_little_memory_changes_no_map(tiny_bundle: Path, photograph: Path) -> None:
    explainer = ortcam.load(tiny_bundle, providers=["cpu"])
    usual = explainer.explain(photograph, method="scorecam++")
    frugal = ortcam.load(tiny_bundle, providers=["cpu"], low_memory=True).explain(photograph, method="scorecam++")
    assert frugal.stats.batch_size == 1
    atol = maps_apart(explainer.logits(1, lambda _: explainer.preprocess(photograph)), channels=10)
    np.testing.assert_allclose(frugal.maps, usual.maps, rtol=0, atol=atol)


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
    cpu, other = (
        ortcam.load(tiny_bundle, providers=[provider]).explain(photograph, method="scorecam")
        for provider in ("cpu", ("openvino", {"precision": precision}))
    )
    assert other.stats.providers[0] == OPENVINO
    assert np.corrcoef(cpu.maps.ravel(), other.maps.ravel())[0, 1] > bound
