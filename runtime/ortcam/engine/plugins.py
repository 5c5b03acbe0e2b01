"""Plugin execution providers: libraries that ONNX Runtime loads at run time, from wheels that lie beside its own.

A wheel `onnxruntime-ep-NAME` has a module `onnxruntime_ep_NAME` that says where its library is and what its provider is
called; that of Qualcomm is `onnxruntime-qnn`. A plugin runs on devices that ONNX Runtime has found, and it takes only
those that it supports: OpenVINO's takes Intel's, so on another processor it has none.
"""

import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ortcam.engine.forking import ForkLock
from ortcam.engine.runtime import ort
from ortcam.errors import ProviderError
from ortcam.support.ranges import shown
from ortcam.support.terminal import first_line

__all__ = ["OPENVINO", "QNN", "choose_devices", "plugin_devices", "plugin_named", "plugin_options"]

OPENVINO: Final = "OpenVINOExecutionProvider"
QNN: Final = "QNNExecutionProvider"

_MODULE: Final = "onnxruntime_ep_"
_OTHERS: Final = {"qnn": "onnxruntime_qnn"}  # wheels whose modules are called otherwise
_BUILT_IN: Final = ("CPUExecutionProvider", "CUDAExecutionProvider")  # though ONNX Runtime lists devices of them, too

# OpenVINO's options as the provider that is built into ONNX Runtime takes them -> its own properties. The plugin takes
# properties alone, in `load_config`, and ignores the rest.
_PROPERTIES: Final = {
    "num_of_threads": "INFERENCE_NUM_THREADS",
    "num_streams": "NUM_STREAMS",
    "cache_dir": "CACHE_DIR",
    "model_priority": "MODEL_PRIORITY",
}
_PRECISIONS: Final = {"FP32": "f32", "FP16": "f16", "bf16": "bf16"}
_PRECISION_HINT: Final = "INFERENCE_PRECISION_HINT"
_MODE_HINT: Final = "EXECUTION_MODE_HINT"

_registered: set[str] = set()
_registering = ForkLock()


def plugin_named(name: str) -> str | None:
    """The full name of a plugin that the caller or this function has registered with ONNX Runtime; None: no such wheel.

    Args:
        name: in lower case and short: "openvino", "webgpu". Of a wheel, or of what the caller has registered.

    Raises:
        ProviderError: the wheel is there, and ONNX Runtime cannot load its library, or is older than plugins.
    """
    for item in _all_devices():
        if item.ep_name.removesuffix("ExecutionProvider").lower() == name and plugin_devices(item.ep_name):
            return str(item.ep_name)
    module = _wheel(name)
    if module is None:
        return None
    if not hasattr(ort, "register_execution_provider_library"):
        raise ProviderError(
            f"execution provider {name!r}: {module} is a plugin, which ONNX Runtime {ort.__version__} cannot load; "
            "accepted is 1.24.1 or newer"
        )
    try:
        wheel = importlib.import_module(module)
        full = str(wheel.get_ep_name())
        with _registering:
            if module not in _registered and not plugin_devices(full):
                # The name of a registration is free, but QNN's provider is called by it.
                own = full if module in _OTHERS.values() else module
                ort.register_execution_provider_library(own, wheel.get_library_path())
            _registered.add(module)
    except Exception as error:
        raise ProviderError(
            f"execution provider {name!r}: ONNX Runtime {ort.__version__} cannot load {module}: {first_line(error)}"
        ) from error
    return full


def _wheel(name: str) -> str | None:
    """The module of the wheel of a name, which may have underscores that the provider's name lacks."""
    import pkgutil  # noqa: PLC0415 - nothing else of ortcam needs it

    letters = name.replace("_", "")
    if name in _OTHERS:
        return _OTHERS[name] if importlib.util.find_spec(_OTHERS[name]) is not None else None
    found = (item.name for item in pkgutil.iter_modules() if item.name.startswith(_MODULE))
    return next((module for module in found if module.removeprefix(_MODULE).replace("_", "") == letters), None)


def _all_devices() -> list[Any]:
    """What ONNX Runtime lists as devices; nothing where it is older than plugins, as 1.21 is."""
    return list(getattr(ort, "get_ep_devices", list)())


def plugin_devices(provider: str) -> list[Any]:
    """The devices (`OrtEpDevice`) that a registered plugin supports; none for a provider that is built in."""
    if provider in _BUILT_IN:
        return []
    # Where ONNX Runtime lists plugins among the available providers (1.24 does not), it says where their libraries are.
    built_in = provider in ort.get_available_providers()
    return [
        item
        for item in _all_devices()
        if item.ep_name == provider and (not built_in or "library_path" in item.ep_metadata)
    ]


def choose_devices(provider: str, options: Mapping[str, str]) -> list[Any]:
    """The device of a plugin that its options ask for, in a list as ONNX Runtime takes it.

    Args:
        provider: its full name.
        options: `device_type` is "CPU", "GPU", "NPU", or, where there are several, "GPU.1". Without it OpenVINO takes
            the CPU, and any other provider its first device.

    Raises:
        ProviderError: there is no such device; the message lists those that there are.
    """
    devices = plugin_devices(provider)
    wanted = options.get("device_type", "CPU" if provider == OPENVINO else "")
    kind, _, number = wanted.upper().partition(".")
    of_kind = [item for item in devices if kind in ("", item.device.type.name)]
    index = int(number) if number.isdecimal() else (0 if not number else len(of_kind))
    if index < len(of_kind):
        return [of_kind[index]]
    if not devices:
        raise ProviderError(
            f"execution provider {provider}: this machine has no device that it supports; ONNX Runtime sees "
            + ", ".join(dict.fromkeys(f"{item.device.type.name} ({item.device.vendor})" for item in _all_devices()))
        )
    raise ProviderError(
        f"execution provider {provider}: device_type={wanted!r} is not on this machine; accepted is one of "
        f"{_described(devices)}"
    )


def _described(devices: Sequence[Any]) -> str:
    """Devices in words: their types as `device_type` takes them, and what they are."""
    seen: dict[str, int] = {}
    words = []
    for item in devices:
        kind = item.device.type.name
        count = seen[kind] = seen.get(kind, -1) + 1
        name = item.ep_metadata.get("FULL_DEVICE_NAME") or item.device.vendor
        words.append(f"{kind}.{count} ({name})" if count else f"{kind} ({name})")
    return ", ".join(words)


def plugin_options(provider: str, options: Mapping[str, str]) -> dict[str, str]:
    """Options as a plugin takes them: without the device, OpenVINO's as properties of it, QNN's with a backend.

    OpenVINO on a CPU computes in float32 unless something else is said, as the provider does that is built in: left to
    itself it takes bfloat16 where the processor has it.

    Raises:
        ProviderError: OpenVINO's `load_config` is no such configuration.
    """
    given = {key: value for key, value in options.items() if key != "device_type"}
    if provider == QNN and not {"backend_path", "backend_type"} & set(given) and _wheel("qnn"):
        # The NPU, also where it is emulated: on a CPU the provider has no backend of its own choice.
        given["backend_path"] = str(importlib.import_module(_OTHERS["qnn"]).get_qnn_htp_path())
    if provider != OPENVINO:
        return given
    device = options.get("device_type", "CPU").upper()
    config = _parsed(given.pop("load_config", "{}"))
    if config is None:  # the plugin would print what is wrong with it
        raise ProviderError(
            f"execution provider {provider}: load_config={shown(options['load_config'])} is not accepted; accepted is "
            'JSON of properties by device, such as {"CPU": {"NUM_STREAMS": "1"}}'
        )
    properties = config.setdefault(device.partition(".")[0], {})
    for key in [key for key in _PROPERTIES if key in given]:
        properties.setdefault(_PROPERTIES[key], given.pop(key))
    precision = given.pop("precision", "FP32" if device == "CPU" else None)
    if precision == "ACCURACY":
        properties.setdefault(_MODE_HINT, precision)
    elif precision in _PRECISIONS and _MODE_HINT not in properties:
        properties.setdefault(_PRECISION_HINT, _PRECISIONS[precision])
    return given | ({"load_config": json.dumps(config)} if any(config.values()) else {})


def _parsed(text: str) -> dict[str, dict[str, Any]] | None:
    """OpenVINO's configuration, device -> property -> value; None where it is something else."""
    try:
        config = json.loads(text)
    except ValueError:
        return None
    return config if isinstance(config, dict) and all(isinstance(item, dict) for item in config.values()) else None
