"""What need not be asked of all files of the zoo: what the user says, layers by name, no PyTorch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from tests.export.rounding import rounding_error
from tests.export.zoo import ZOO
from tests.export.zoo.bundles import FEW, REPRESENTATIVES, Exported, difference, flags, logits_of
from tests.export.zoo.graphs import (
    FLOAT,
    HEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LABELS,
    WIDTH,
    GraphBuilder,
    InputForm,
    ZooFile,
    classes_info,
    image_info,
)
from tests.export.zoo.plain import plain
from tests.export.zoo.preprocessing import UINT8_PIXELS

import ortcam
from ortcam.bundle import Bundle, read_bundle
from ortcam.cli import main
from ortcam_export import export


@pytest.mark.slow
@pytest.mark.parametrize("name", REPRESENTATIVES, scope="module")
def test_the_same_file_gives_the_same_bundle(file: ZooFile, bundle: Bundle, tmp_path: Path) -> None:
    assert export(file.path, tmp_path / "b.ortcam", **file.arguments).sha256 == bundle.sha256


WITHOUT_TORCH = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "transformers"):
            raise ImportError(f"refused: {name}")

sys.meta_path.insert(0, Refuse())
try:
    import torch
except ImportError as error:
    assert "refused" in str(error)
else:
    raise AssertionError("the refusal does not refuse")
from ortcam_export import export

for path, bundle, arguments in json.load(sys.stdin):
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    print(export(path, bundle, **lists).sha256)
"""


@pytest.mark.slow
@pytest.mark.parametrize("names", [FEW, REPRESENTATIVES], ids=["few", "many"])
def test_an_onnx_file_is_exported_where_there_is_no_torch(
    names: tuple[str, ...], exported: Exported, tmp_path: Path
) -> None:
    jobs: list[tuple[str, str, dict[str, Any]]] = []
    expected = []
    for name in names:
        file, bundle = exported(name)
        assert isinstance(bundle, Bundle)
        jobs.append((str(file.path), str(tmp_path / f"{name}.ortcam"), file.arguments))
        expected.append(bundle.sha256)
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input=json.dumps(jobs), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == expected, "whether torch is there changes nothing"


@pytest.mark.slow
def test_a_normalisation_inside_the_graph_hides_to_the_mean_colour_all_the_same(tmp_path: Path) -> None:
    """The same weights with the normalisation outside and inside: the masks, and so the maps, are the same."""
    explanations = []
    (tmp_path / "outside").mkdir()
    outside = ZooFile(plain(tmp_path / "outside"), InputForm(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    inside = [ZOO["uint8_channels_last_normalised_inside"](tmp_path), outside]
    picture = outside.pictures(1)[0]
    for index, file in enumerate(inside):
        bundle = export(file.path, tmp_path / f"{index}.ortcam", **file.arguments)
        explanations.append(ortcam.load(bundle.path).explain(picture, method="scorecam", top_k=len(LABELS)))
    assert explanations[0].targets == explanations[1].targets
    np.testing.assert_allclose(explanations[0].maps, explanations[1].maps, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 18, 20])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_a_file_whose_operators_stay_as_they_are_is_compared_with_itself(
    dtype: type[np.generic], opset: int, tmp_path: Path
) -> None:
    """Below opset 18 a converter makes a new graph; from there on the copy must not change the file's own types."""
    floating = dtype is np.float16
    g = GraphBuilder(opset=opset, dtype=np.float16 if floating else np.float32)
    g.head(g.features("image" if floating else g.op("Cast", "image", to=FLOAT)), out="logits")
    info = classes_info("logits", dtype=np.float16) if floating else classes_info("logits")
    path = g.save(tmp_path / "net.onnx", [image_info(dtype=dtype)], [info])
    form = InputForm(dtype=dtype) if floating else UINT8_PIXELS
    file = ZooFile(path, form)
    bundle = export(path, tmp_path / "b.ortcam", **file.arguments)
    assert ("the logits are within" in bundle.manifest.preprocessing_source) == floating


@pytest.mark.slow
@pytest.mark.parametrize("name", ["label_and_probabilities", "zip_map"])
def test_the_only_output_of_numbers_needs_no_name(name: str, tmp_path: Path) -> None:
    file = ZOO[name](tmp_path)
    named = export(file.path, tmp_path / "named.ortcam", **file.arguments)
    unnamed = export(file.path, tmp_path / "unnamed.ortcam", **file.arguments | {"output": None})
    assert named.sha256 == unnamed.sha256


@pytest.mark.slow
def test_the_activation_that_the_user_names_is_taken(tmp_path: Path) -> None:
    file = ZOO["plain_batch_1"](tmp_path)
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments, activation="sigmoid")
    picture = file.pictures(1)
    logits = file.logits(picture)[0]
    products = 3 * 9 + 8 * 9 + 12 * 9 + 16 + HEIGHT // 4 * WIDTH // 4  # of three convolutions, a layer and a mean
    bound = rounding_error(products, max(1.0, float(np.abs(logits).max())))
    np.testing.assert_allclose(ortcam.load(bundle.path).predict(picture[0]), 1 / (1 + np.exp(-logits)), atol=bound)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "caffe_bgr",
        "nhwc_with_every_dimension_open",
        "several_outputs",
        "ends_in_one_logit_without_an_axis",
    ],
)
def test_the_command_line_says_all_of_it_too(name: str, tmp_path: Path) -> None:
    file = ZOO[name](tmp_path)
    by_call = export(file.path, tmp_path / "call.ortcam", **file.arguments)
    command = ["export", str(file.path), "-o", str(tmp_path / "command.ortcam"), *flags(file.arguments, tmp_path)]
    assert main(command) == 0
    assert read_bundle(tmp_path / "command.ortcam").sha256 == by_call.sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tensor", "layout", "channels", "grid"),
    [
        ("channels_last_where_the_shape_does_not_tell", "cells", "nhwc", 16, (16, 16)),
        ("maps_in_rows_that_could_be_tokens", "Relu_8", "nchw", 192, (12, 16)),
        ("tokens_before_images", "block_1_images_first", "tokens", 16, (6, 8)),
    ],
)
def test_the_default_layer_is_read_by_the_operators_around_it(
    name: str, tensor: str, layout: str, channels: int, grid: tuple[int, int], tmp_path: Path
) -> None:
    file = ZOO[name](tmp_path)
    cut = export(file.path, tmp_path / "b.ortcam", **file.arguments).manifest.cut
    assert (cut.tensor, cut.layout, cut.channels, (cut.height, cut.width)) == (tensor, layout, channels, grid)


def test_operators_that_onnx_runtime_has_fused_cost_what_they_did(tmp_path: Path) -> None:
    from ortcam_export import inspect_model

    path, fused = plain(tmp_path), tmp_path / "fused.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(fused)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert "FusedConv" in {node.op_type for node in onnx.load(fused).graph.node}
    before, after = inspect_model(path), inspect_model(fused)
    assert before.macs == after.macs
    assert before.default is not None
    assert after.default is not None
    assert before.default.macs_behind == after.default.macs_behind


@pytest.mark.slow
def test_a_layer_is_named_as_inspect_lists_it(tmp_path: Path) -> None:
    from ortcam_export import inspect_model

    file = ZOO["tf_mobilenet_v2"](tmp_path)
    layers = inspect_model(file.path).layers
    assert len(layers) > 2
    for index in (0, len(layers) // 2):
        bundle = export(file.path, tmp_path / f"{index}.ortcam", layer=str(index), **file.arguments)
        assert bundle.manifest.cut == layers[index].cut
        pictures = file.pictures()
        images = np.concatenate([bundle.manifest.preprocessing(picture) for picture in pictures])
        assert difference(file.comparable(logits_of(bundle, images)), file.logits(pictures)) <= file.tolerance
