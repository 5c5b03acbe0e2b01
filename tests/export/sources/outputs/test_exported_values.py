"""Bundles of models with values as outputs, or several inputs: on other pictures they give what the originals give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.zoo.graphs import GraphBuilder, image_info, pictures, tensor_info

from ortcam.bundle import Bundle
from ortcam.engine import SessionOptions, open_session, resolve_providers
from ortcam.engine.model import classify
from ortcam.parity import probe_input, verify
from ortcam_export import export

torchvision = pytest.importorskip("torchvision")
pytestmark = pytest.mark.long

HALF: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
# Of the largest value: what exports are refused for, too.
TOLERANCE = 1e-4


def values_of(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    options = SessionOptions(resolve_providers(["CPUExecutionProvider"]))
    return classify(bundle.manifest.graphs, lambda name: open_session(bundle.graph(name), options), images)[1]


def assert_the_same(bundle: Bundle, module: torch.nn.Module, pick: Any = lambda output: output) -> None:
    """On pictures that the export has not seen."""
    prepared = bundle.manifest.preprocessing
    images = probe_input(pictures(2, prepared.height, prepared.width, seed=5), prepared)
    with torch.inference_mode():
        expected = pick(module.eval()(torch.from_numpy(images))).flatten(1).numpy()
    found = values_of(bundle, images)
    assert found.shape == expected.shape == (2, bundle.manifest.outputs)
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    verify(bundle)


def test_a_segmentation_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    bundle = export(module, tmp_path / "a.ortcam", input_size=64, activation="identity", **HALF)
    manifest = bundle.manifest
    assert (manifest.output_shape, manifest.labels, manifest.activation) == ((21, 64, 64), (), "identity")
    assert manifest.gradient is not None, manifest.no_gradient
    assert_the_same(bundle, module, lambda output: output["out"])


def test_a_regression_and_a_face_embedding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for outputs in (1, 128):
        module = torchvision.models.mobilenet_v3_small(num_classes=outputs).eval()
        bundle = export(module, tmp_path / f"{outputs}.ortcam", input_size=64, activation="identity", **HALF)
        assert bundle.manifest.output_shape == (outputs,)
        assert bundle.manifest.labels == tuple(f"output {index}" for index in range(outputs))
        assert_the_same(bundle, module)


class WithMetadata(torch.nn.Module):
    """An image's features, and numbers that are known beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.image_model = torchvision.models.squeezenet1_1(num_classes=8)
        self.linear = torch.nn.Linear(8 + 2, 3)

    def forward(self, image: torch.Tensor, metadata: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.cat([self.image_model(image).tanh(), metadata], 1))


def test_a_model_of_two_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = WithMetadata().eval()
    metadata = [[0.25, -2.0]]
    bundle = export(module, tmp_path / "a.ortcam", input_size=64, inputs={"metadata": metadata}, **HALF)
    assert bundle.manifest.inputs["metadata"].shape == (1, 2)
    assert bundle.manifest.cut.module is not None
    assert bundle.manifest.cut.module.startswith("image_model.")
    wrapped = torch.nn.Module()
    wrapped.forward = lambda images: module(images, torch.tensor(metadata).expand(len(images), 2))  # type: ignore[method-assign]
    assert_the_same(bundle, wrapped)


def test_raw_boxes_of_a_detector_with_three_scales(tmp_path: Path) -> None:
    """A cut in front of all scales, and one inside the branch of the coarsest."""
    side, classes = 96, 20
    g = GraphBuilder()
    maps, channels, flat = "images", 3, []
    for width, stride in ((8, 4), (12, 2), (16, 2), (24, 2)):
        maps, channels = g.op("Relu", g.conv(maps, channels, width, stride=stride)), width
        if width > 8:
            scores = g.op("Sigmoid", g.conv(maps, channels, classes, kernel=1))
            both = g.op("Concat", g.conv(maps, channels, 4, kernel=1), scores, axis=1)
            flat.append(g.op("Reshape", both, g.constant(np.array([1, 4 + classes, -1], np.int64))))
    last = maps
    g.op("Concat", *flat, axis=2, out="output0")
    count = sum((side // stride) ** 2 for stride in (8, 16, 32))
    outputs = [tensor_info("output0", (1, 4 + classes, count))]
    path = g.save(tmp_path / "net.onnx", [image_info("images", batch=1, size=(side, side))], outputs)
    said: dict[str, Any] = {"activation": "identity", "mean": 0.0, "std": 1.0}
    for layer, graph in ((None, "head"), (last, "classifier")):
        bundle = export(path, tmp_path / f"{graph}.ortcam", layer=layer, **said)
        manifest = bundle.manifest
        assert manifest.output_shape == (4 + classes, count)
        assert getattr(manifest.graphs, graph) is not None
        assert manifest.gradient is not None, manifest.no_gradient
        session = open_session(path, SessionOptions(resolve_providers(["CPUExecutionProvider"])))
        images = probe_input(pictures(2, side, side, seed=5), manifest.preprocessing)
        expected = np.concatenate([session.run({"images": image[None]}, ["output0"])[0] for image in images])
        found = values_of(bundle, images)
        assert np.abs(found - expected.reshape(2, -1)).max() <= TOLERANCE * np.abs(expected).max()
        verify(bundle)


def test_an_encoder_of_open_clip(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-S-32-alt", pretrained=None, force_image_size=64).eval()
    rows = torch.nn.functional.normalize(torch.randn(5, 256), dim=1)
    bundle = export(
        model.visual, tmp_path / "a.ortcam", input_size=64, classes=rows.numpy(), labels=list("abcde"), **HALF
    )
    assert bundle.manifest.labels == tuple("abcde")
    assert bundle.manifest.model.embeddings_sha256 is not None

    def logits(embedding: torch.Tensor) -> torch.Tensor:
        return 100 * torch.nn.functional.normalize(embedding, dim=1) @ rows.T

    assert_the_same(bundle, model.visual, logits)
