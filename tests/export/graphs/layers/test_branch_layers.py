"""Layers of branches, and behind operators that ONNX Runtime has fused."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from tests.export.graphs.networks import SAID, STRETCHED, Pooled, onnx_file, trunk
from tests.export.rounding import rounding_error
from tests.export.zoo.graphs import LABELS, GraphBuilder, classes_info, image_info
from torch import nn

import ortcam
from ortcam.cli import main
from ortcam_export import ExportError, Inspection, export, fuse, inspect_model


class Ensemble(nn.Module):
    """Two networks whose probabilities are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Pooled(trunk(2, 2), 24), Pooled(trunk(4), 16)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (self.a(image).softmax(1) + self.b(image).softmax(1)) / 2


def test_layers_of_branches_are_listed_and_named_by_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = onnx_file(Ensemble(), tmp_path, (48, 64))
    inspection: Inspection = inspect_model(path)
    assert inspection.default is None
    assert inspection.layers == ()
    assert {"a.f", "b.f"} <= {layer.cut.module for layer in inspection.branches}
    assert all(layer.inside_branch for layer in inspection.branches)
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert any(
        line.split()[:5] == ["-", "a.f", "/a/f/f.3/Relu_output_0", "nchw", "[24,12,16]"]
        for line in printed.splitlines()
    )
    with pytest.raises(ExportError, match=r"--layer a\.f or --layer b\.f"):
        export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS)
    bundle = export(path, tmp_path / "b.ortcam", layer="a.f", **SAID, labels=LABELS)
    assert (bundle.manifest.graphs.head, bundle.manifest.cut.channels) == (None, 24)


def fused_blocks(folder: Path, *, simplified: bool, biased: bool) -> Path:
    """Three blocks of tokens, each a SkipLayerNormalization whose sum and normalisation both go on."""
    g = GraphBuilder(name=lambda kind, number: f"/other/{kind}_{number}_output_0")
    maps = g.op("Reshape", g.conv("image", 3, 16, kernel=8, stride=8), g.constant(np.array([0, 16, -1])))
    tokens = g.op("Transpose", maps, perm=[0, 2, 1])
    normal = g.op("LayerNormalization", tokens, g.random(16, offset=1, scale=0.1), axis=-1)
    for number in range(3):
        made = g.op("Tanh", g.op("MatMul", normal, g.random(16, 16, scale=0.4)))
        gamma, beta, bias = g.random(16, offset=1, scale=0.1), g.random(16, scale=0.1), g.random(16, scale=0.3)
        inputs = [made, tokens, gamma, *([] if simplified else [beta]), *([bias] if biased else [])]
        kind = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
        normal, tokens = f"/norms/{number}/Norm_output_0", f"/blocks/blocks.{number}/Add_output_0"
        g.nodes.append(
            helper.make_node(
                kind, inputs, [normal, "", "", tokens], f"Skip_{number}", domain="com.microsoft", epsilon=1e-3
            )
        )
    both = g.op("Add", normal, tokens)
    g.dense(g.op("ReduceMean", both, axes=[1], keepdims=0), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], domains={"com.microsoft": 1})


@pytest.mark.slow
@pytest.mark.parametrize("simplified", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_residual_sum_fused_with_its_normalisation_is_found_again(
    simplified: bool, biased: bool, tmp_path: Path
) -> None:
    path = fused_blocks(tmp_path, simplified=simplified, biased=biased)
    inspection = inspect_model(path)
    assert {f"blocks.{number}" for number in range(3)} <= {
        path for layer in inspection.layers for path in layer.modules
    }
    bundle = export(path, tmp_path / "b.ortcam", layer="blocks.1", **SAID, labels=LABELS)
    cut = bundle.manifest.cut
    assert (cut.layout, cut.channels, cut.height, cut.width) == ("tokens", 16, 7, 9)
    assert bundle.manifest.parity.logits <= 1e-4, "the file itself, in ONNX Runtime, is the reference"


@pytest.mark.slow
def test_a_map_of_one_row_goes_into_one_file_that_explains(tmp_path: Path) -> None:
    front, size, shape = STRETCHED["one row"]
    path = onnx_file(Pooled(front(), shape[0]), tmp_path, size)
    bundle = export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS)
    explainer = ortcam.load(bundle.path)
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    expected = explainer.explain(picture, method="scorecam", top_k=1).maps
    fused = fuse(bundle.path, tmp_path / "e.onnx", method="scorecam", top_k=1)
    session = ort.InferenceSession(fused.path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["saliency"], {"image": explainer.preprocess(picture)})
    products = sum(25 * channels for channels in (3, 12, 16, 24)) + 18  # of four convolutions, and a mean
    np.testing.assert_allclose(found, expected, atol=rounding_error(2 * products))


@pytest.mark.long
def test_a_random_transformer_with_large_weights_keeps_its_last_block_but_one(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
    module = transformers.ViTForImageClassification(
        transformers.ViTConfig(**sizes, image_size=64, patch_size=8, num_labels=5)
    )
    for parameter in module.vit.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3)
    default = inspect_model(module.eval()).default
    assert default is not None
    assert default.cut.module == "vit.layers.1"
