"""Bundles of the tiny classifier with any number of channels, made of the one in tests/data without an export."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ortcam.bundle import MANIFEST_NAME, FileRecord, file_sha256, read_bundle
from ortcam.images.preprocessing import Preprocessing
from ortcam.parity import sample_gradient
from tests.conftest import TINY_BUNDLE

__all__ = ["SIZE", "THIRTEEN", "drawn_samples", "with_channels"]

SIZE = {"height": 32, "width": 48}
_FIRST = "features.0.weight"  # [8,channels,3,3]

# One preprocessing per kind of channels: bytes, grey of 8 and of 16 bits, values around 0, bands of two ranges.
GREY = Preprocessing(**SIZE, resize=40, mean=(0.3,), std=(0.25,), channel_order="grey")
GREY_OPENCV = dataclasses.replace(GREY, channel_order="grey-opencv", scale=255.0, mean=(100.0,), std=(60.0,))
XRAY = dataclasses.replace(GREY, value_range=(0, 65535), mean=(0.5,), std=(1 / 2048,))
TWO = Preprocessing(**SIZE, resize=None, mean=(0.0, 0.5), std=(1.0, 0.25), channel_order="bands", value_range=(-20, 5))
FOUR = Preprocessing(**SIZE, resize=40, mean=(0.4,) * 4, std=(0.2,) * 4, channel_order="bands", display=(2, 1, 0))
THIRTEEN = Preprocessing(
    **SIZE,
    resize=40,
    mean=tuple(np.linspace(0.05, 0.4, 13).tolist()),
    std=(0.2,) * 13,
    channel_order="bands",
    value_range=(0, 10_000),
    display=(3, 2, 1),
    interpolation="bicubic",
)
RGB16 = Preprocessing(**SIZE, resize=40, mean=(0.5,) * 3, std=(0.25,) * 3, value_range=(0, 65535), channel_order="bgr")
KINDS = {
    "grey": GREY,
    "grey-opencv": GREY_OPENCV,
    "xray": XRAY,
    "two": TWO,
    "four": FOUR,
    "thirteen": THIRTEEN,
    "rgb16": RGB16,
}


def with_channels(folder: Path, preprocessing: Preprocessing) -> Path:
    """Write the tiny classifier with a first convolution of as many channels as the preprocessing has.

    Args:
        folder: that does not exist yet.
        preprocessing: of 32 x 48 pixels.
    """
    shutil.copytree(TINY_BUNDLE, folder)
    channels = preprocessing.channels
    weight = np.random.default_rng(channels).normal(0, 0.6 * (3 / channels) ** 0.5, (8, channels, 3, 3))
    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.name == _FIRST:
                tensor.CopyFrom(onnx.numpy_helper.from_array(weight.astype(np.float32), _FIRST))
        for value in model.graph.input:
            if value.name in ("image", "noise"):
                value.type.tensor_type.shape.dim[1].dim_value = channels
        del model.graph.value_info[:]
        path.write_bytes(model.SerializeToString())
    manifest = read_bundle(TINY_BUNDLE).manifest
    levels = np.random.default_rng(7).integers(0, 256, (manifest.parity.inputs, 32, 48, channels), np.uint8)
    images = np.concatenate([preprocessing.of_levels(picture) for picture in levels])
    (features,) = _run(folder / "features.onnx", image=images)
    (logits,) = _run(folder / "head.onnx", features=features)
    np.save(folder / "probe.npy", levels)
    np.save(folder / "probe-logits.npy", logits)
    assert manifest.gradient is not None
    sample = sample_gradient(
        folder.joinpath, manifest.graphs, manifest.gradient, manifest.cuts, images=images, logits=logits
    )
    np.save(folder / "probe-gradient.npy", sample)
    files = {
        path.name: FileRecord(path.stat().st_size, file_sha256(path))
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST_NAME
    }
    changed = dataclasses.replace(manifest, preprocessing=preprocessing, files=files)
    (folder / MANIFEST_NAME).write_text(changed.to_json())
    return folder


def _run(graph: Path, **inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, inputs)


def drawn_samples(preprocessing: Preprocessing, height: int = 50, width: int = 70) -> NDArray:
    """An image that the preprocessing takes: waves in each band over the middle of its range, and a bright square."""
    y, x = np.mgrid[:height, :width]
    bands = preprocessing.channels if preprocessing.needs_samples else 3
    waves = np.stack([np.sin(x / (4 + band) + band) * np.cos(y / (7 + band)) for band in range(bands)], axis=2)
    waves[height // 4 : height // 2, width // 3 : width // 2] += 1
    low, high = preprocessing.value_range or (0, 255)
    samples = low + (high - low) * (0.4 + 0.2 * waves)
    dtype = np.uint8 if not preprocessing.needs_samples else np.float32 if low < 0 else np.uint16
    return (
        np.rint(samples).clip(np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
        if dtype != np.float32
        else (samples.astype(np.float32))
    )
