"""Plugin execution providers: found by the wheel beside ONNX Runtime, on a device that is there, with its options."""

import importlib.util
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import ortcam
from ortcam.engine import SessionOptions, open_session, resolve_providers
from ortcam.engine.plugins import OPENVINO, QNN, plugin_devices, plugin_options

WHEEL = """
def get_library_path(): return "/nowhere/libtoy.so"
def get_ep_name(): return "{name}ExecutionProvider"
"""
names = (f"Toy{number}" for number in itertools.count())


def device(provider: str, kind: str, name: str, **metadata: str) -> SimpleNamespace:
    hardware = SimpleNamespace(type=SimpleNamespace(name=kind), vendor=name)
    return SimpleNamespace(ep_name=provider, ep_metadata=metadata, device=hardware)


class Machine:
    """An ONNX Runtime with plugins, whose devices a test says."""

    def __init__(self) -> None:
        self.toy = next(names)  # a name of its own, since a plugin is registered once in a process
        self.provider = f"{self.toy}ExecutionProvider"
        self.devices = [device("CPUExecutionProvider", "CPU", "Maker")]
        self.of_library: dict[str, list[SimpleNamespace]] = {}
        self.registered: list[tuple[str, str]] = []
        self.opened: list[tuple[list[Any], dict[str, str]]] = []

    def register(self, name: str, path: str) -> None:
        self.registered.append((name, path))
        self.devices += self.of_library.get(path, [])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    if not hasattr(ort, "get_ep_devices"):
        pytest.skip(f"ONNX Runtime {ort.__version__} has no plugins")
    machine = Machine()

    class Settings(ort.SessionOptions):
        def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
            machine.opened.append((devices, options))

    class Session(ort.InferenceSession):
        def get_providers(self) -> list[str]:
            named = [devices[0].ep_name for devices, _ in machine.opened[-1:]]
            return [*named, "CPUExecutionProvider"]

    monkeypatch.setattr(ort, "get_ep_devices", lambda: list(machine.devices))
    monkeypatch.setattr(ort, "register_execution_provider_library", machine.register)
    monkeypatch.setattr(ort, "SessionOptions", Settings)
    monkeypatch.setattr(ort, "InferenceSession", Session)
    (tmp_path / f"onnxruntime_ep_{machine.toy.lower()}.py").write_text(WHEEL.format(name=machine.toy))
    monkeypatch.syspath_prepend(tmp_path)
    return machine


def test_an_onnx_runtime_older_than_plugins_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("get_ep_devices", "register_execution_provider_library"):
        monkeypatch.delattr(ort, name, raising=False)
    (tmp_path / "onnxruntime_ep_early.py").write_text(WHEEL.format(name="Early"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ortcam.ProviderError, match=f"which ONNX Runtime {ort.__version__} cannot load; accepted is 1"):
        resolve_providers(["early"])


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Afterwards no test finds a wheel of Qualcomm's among the modules."""
    yield
    sys.modules.pop("onnxruntime_qnn", None)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_qnn") is not None, reason="onnxruntime-qnn itself is here")
@pytest.mark.usefixtures("forgotten")
def test_the_wheel_of_qualcomm_has_another_name_and_takes_the_npu(machine: Machine, tmp_path: Path) -> None:
    backend = 'def get_qnn_htp_path(): return "/nowhere/libQnnHtp.so"'
    (tmp_path / "onnxruntime_qnn.py").write_text(WHEEL.format(name="QNN") + backend)
    machine.of_library["/nowhere/libtoy.so"] = [device(QNN, "NPU", "Maker")]
    assert resolve_providers(["qnn"]) == ((QNN, {}),)
    assert machine.registered == [(QNN, "/nowhere/libtoy.so")]  # the provider is called as it was registered
    assert plugin_options(QNN, {"soc_model": "57"}) == {"soc_model": "57", "backend_path": "/nowhere/libQnnHtp.so"}
    assert plugin_options(QNN, {"backend_type": "cpu"}) == {"backend_type": "cpu"}


def test_without_the_wheel_of_qualcomm_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name in ("qnn", "QNNExecutionProvider"):
        with pytest.raises(ortcam.ProviderError, match=f"'{name}' is not available; .*; for qnn: pip install onnx"):
            resolve_providers([name])


def test_a_wheel_beside_onnx_runtime_is_found_registered_and_run(
    machine: Machine, tiny_bundle: Path, photograph: Path
) -> None:
    gpu = device(machine.provider, "GPU", "Toymaker")
    machine.of_library["/nowhere/libtoy.so"] = [gpu]
    assert resolve_providers([machine.toy]) == ((machine.provider, {}),)
    assert resolve_providers([(machine.provider, {"speed": 3})]) == ((machine.provider, {"speed": "3"}),)
    assert machine.registered == [(f"onnxruntime_ep_{machine.toy.lower()}", "/nowhere/libtoy.so")]
    explainer = ortcam.load(tiny_bundle, providers=[(machine.toy, {"speed": 3, "device_type": "gpu"}), "cpu"])
    e = explainer.explain(photograph, method="scorecam", batch_size=4)
    assert e.stats.providers == (machine.provider, "CPUExecutionProvider")
    assert machine.opened[0] == ([gpu], {"speed": "3"})


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(machine: Machine) -> None:
    machine.devices += [device(machine.provider, *of) for of in (("GPU", "One"), ("NPU", "Two"), ("GPU", "Three"))]
    assert resolve_providers([(machine.toy, {"device_type": "GPU.1"})])
    for wanted in ("CPU", "GPU.2", "GPU.first", "TPU"):
        with pytest.raises(ortcam.ProviderError) as caught:
            resolve_providers([(machine.toy, {"device_type": wanted})])
        assert str(caught.value) == (
            f"execution provider {machine.provider}: device_type={wanted!r} is not on this machine; accepted is one "
            "of GPU (One), NPU (Two), GPU.1 (Three)"
        )
    assert machine.registered == []  # by somebody before


def test_the_device_of_an_option_is_taken(machine: Machine, tiny_bundle: Path) -> None:
    machine.devices += [device(machine.provider, *of) for of in (("GPU", "One"), ("NPU", "Two"), ("GPU", "Three"))]
    for wanted, vendor in (({}, "One"), ({"device_type": "NPU"}, "Two"), ({"device_type": "gpu.1"}, "Three")):
        open_session(tiny_bundle / "head.onnx", SessionOptions(resolve_providers([(machine.toy, wanted)])))
        ((chosen,), _) = machine.opened[-1]
        assert chosen.device.vendor == vendor


def test_without_any_device_the_error_says_what_the_machine_has(machine: Machine) -> None:
    with pytest.raises(ortcam.ProviderError, match="no device that it supports; ONNX Runtime sees CPU") as caught:
        resolve_providers([machine.toy])
    assert str(caught.value).endswith("CPU (Maker)")


def test_a_library_that_cannot_be_loaded_is_one_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("libtoy.so: cannot open shared object file\nmore")

    monkeypatch.setattr(ort, "register_execution_provider_library", refuse)
    with pytest.raises(ortcam.ProviderError, match=r"cannot load onnxruntime_ep_toy\d+: libtoy\.so: .*file$"):
        resolve_providers([machine.toy])


def test_a_provider_that_is_built_in_needs_no_wheel(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where ONNX Runtime lists its devices, as it does for the CPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [machine.provider, "CPUExecutionProvider"])
    machine.devices.append(device(machine.provider, "CPU", "Maker"))
    assert resolve_providers([(machine.toy, {"device_type": "NPU"})]) == ((machine.provider, {"device_type": "NPU"}),)
    assert plugin_devices(machine.provider) == []
    machine.devices.append(device(machine.provider, "CPU", "Maker", library_path="/somewhere"))
    assert len(plugin_devices(machine.provider)) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}),
        ({"device_type": "GPU"}, None),
        ({"precision": "fp32"}, {"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}),
        ({"precision": "bf16"}, {"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}),
        ({"precision": "accuracy"}, {"CPU": {"EXECUTION_MODE_HINT": "ACCURACY"}}),
        ({"precision": "fp16", "device_type": "GPU.1"}, {"GPU": {"INFERENCE_PRECISION_HINT": "f16"}}),
        (
            {"num_of_threads": 2, "cache_dir": "/c"},
            {"CPU": {"INFERENCE_NUM_THREADS": "2", "CACHE_DIR": "/c", "INFERENCE_PRECISION_HINT": "f32"}},
        ),
        (
            {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}, "NPU": {"X": 1}}', "num_of_threads": "1"},
            {"CPU": {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": "1"}, "NPU": {"X": 1}},
        ),
    ],
)
def test_options_of_the_openvino_that_was_built_in_reach_the_plugin(
    machine: Machine, given: dict, expected: dict | None
) -> None:
    """It takes properties alone, and ignores `precision` and the like."""
    machine.devices += [device(OPENVINO, kind, "Intel") for kind in ("CPU", "GPU", "GPU")]
    ((_, options),) = resolve_providers([("openvino", given)])
    found = plugin_options(OPENVINO, options)
    assert {key: json.loads(value) for key, value in found.items()} == ({"load_config": expected} if expected else {})


@pytest.mark.parametrize("text", ["{", "[]", '{"CPU": 1}'])
def test_a_configuration_that_is_none_is_refused_in_one_line(text: str) -> None:
    """The plugin would print what is wrong with it."""
    with pytest.raises(ortcam.ProviderError) as refused:
        plugin_options(OPENVINO, {"load_config": text})
    assert f"load_config={text!r} is not accepted; accepted is JSON of properties by device" in str(refused.value)


def test_what_openvino_says_is_not_the_place_in_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: object, settings: ort.SessionOptions, **others: object) -> None:
        raise RuntimeError(
            "EP_FAIL : Exception from src/core.cpp:117:\nException from src/x.cpp:5:\nno such option\n\n"
        )

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    with pytest.raises(ortcam.BundleError, match=r"cannot open this graph: no such option$"):
        open_session("graph.onnx", SessionOptions((("CPUExecutionProvider", {}),)))


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_ep_openvino") is None, reason="needs onnxruntime-ep-openvino")
@pytest.mark.parametrize(
    ("options", "bound"), [({}, 0.9999), ({"precision": "bf16"}, 0.99), ({"device_type": "CPU"}, 0.9999)]
)
@pytest.mark.parametrize("method", ["scorecam", "scorecam++"])
def test_openvinos_plugin_explains_as_the_cpu_does(
    options: dict, bound: float, method: str, tiny_bundle: Path, photograph: Path
) -> None:
    try:
        other = ortcam.load(tiny_bundle, providers=[("openvino", options)])
    except ortcam.ProviderError as error:  # not an Intel
        assert "no device that it supports" in str(error)  # noqa: PT017
        pytest.skip(str(error))
    expected = ortcam.load(tiny_bundle, providers=["cpu"]).explain(photograph, method=method, batch_size=4)
    found = other.explain(photograph, method=method, batch_size=4)
    assert found.stats.providers[0] == OPENVINO
    assert np.corrcoef(expected.maps.ravel(), found.maps.ravel())[0, 1] > bound


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_ep_webgpu") is None, reason="needs onnxruntime-ep-webgpu")
def test_webgpus_plugin_runs_or_says_what_is_missing(tiny_bundle: Path, photograph: Path) -> None:
    try:
        explainer = ortcam.load(tiny_bundle, providers=["webgpu"])
    except ortcam.ProviderError as error:
        assert "no device that it supports; ONNX Runtime sees CPU" in str(error)  # noqa: PT017
        pytest.skip(str(error))
    assert (
        explainer.explain(photograph, method="scorecam", batch_size=4).stats.providers[0] == "WebGpuExecutionProvider"
    )
