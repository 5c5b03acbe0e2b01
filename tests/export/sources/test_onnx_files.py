"""Every `.onnx` file of the zoo: its bundle gives what the file gives, from graphs that are tidy, and explains it."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from tests.export.rounding import rounding_error
from tests.export.zoo import ZOO
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
from tests.export.zoo.plain import PRIVATE_PATH, plain
from tests.export.zoo.preprocessing import UINT8_PIXELS

import ortcam
from ortcam.bundle import Bundle, read_bundle
from ortcam.cli import main
from ortcam.errors import OrtcamError
from ortcam.images.encoding import encode_png
from ortcam_export import export

# One of each kind, for what need not be asked of all, and for `make test`.
REPRESENTATIVES = (
    "torch_old_transformer",
    "torch_new_view_one",
    "opset_7_with_weights_among_the_inputs",
    "opset_9_with_upsample",
    "int8_dynamic",
    "tf_mobilenet_v3_with_channels_last_inside",
    "ends_in_sigmoid_for_many_labels",
    "several_outputs",
    "zip_map",
    "float16",
    "int8_qdq_per_channel",
    "int8_qoperator_per_channel",
    "external_data_in_a_name_with_spaces",
    "uint8_channels_last_normalised_inside",
    "model_local_functions",
    "open_image_size",
)


# For what takes long and is the same for all: two that PyTorch wrote, an old opset, quantized.
FEW = ("torch_old_transformer", "torch_new_view_one", "opset_7_with_weights_among_the_inputs", "int8_qdq_per_channel")

Exported = Callable[[str], tuple[ZooFile, Bundle | OrtcamError]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A file of the zoo by name, and its bundle or why there is none; each is made once."""

    @functools.cache
    def made(name: str) -> tuple[ZooFile, Bundle | OrtcamError]:
        file = ZOO[name](tmp_path_factory.mktemp("zoo"))
        try:
            return file, export(file.path, file.path.with_suffix(".ortcam"), **file.arguments)
        except OrtcamError as error:
            return file, error

    return made


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in REPRESENTATIVES else pytest.mark.slow) for name in ZOO],
)
def name(request: pytest.FixtureRequest) -> str:
    """Of a file; `make test` takes one of each kind."""
    return str(request.param)


@pytest.fixture
def file(name: str, exported: Exported) -> ZooFile:
    return exported(name)[0]


@pytest.fixture
def bundle(name: str, exported: Exported) -> Bundle:
    """The file's bundle; where there is none, `test_the_file_exports` says why, once."""
    bundle = exported(name)[1]
    if isinstance(bundle, OrtcamError):
        pytest.skip("not exported")
    return bundle


def logits_of(bundle: Bundle, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """By the graphs alone, the way a reader of the manifest would run them."""
    graphs = bundle.manifest.graphs

    def run(name: str, feeds: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        return ort.InferenceSession(bundle.file(name), providers=["CPUExecutionProvider"]).run(None, feeds)[0]

    if graphs.classifier is not None:
        return run(graphs.classifier, {"image": images})
    assert graphs.head is not None
    return run(graphs.head, {"features": run(graphs.features, {"image": images})})


def difference(value: NDArray[np.floating], expected: NDArray[np.float64]) -> float:
    assert value.shape == expected.shape
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def graphs_of(bundle: Bundle) -> list[Path]:
    return [bundle.file(name) for name in bundle.manifest.files if name.endswith(".onnx")]


# The zoo itself, so that a failure below is never its fault ----------------------------------------------------------


def test_the_file_runs_and_tells_pictures_apart(file: ZooFile) -> None:
    pictures = file.pictures()
    logits, probabilities = file.logits(pictures), file.probabilities(pictures)
    assert logits.shape == probabilities.shape == (len(pictures), len(file.labels))
    assert np.ptp(logits, axis=0).max() > 0.02 * np.abs(logits).max()
    assert probabilities.min() > 0
    assert probabilities.max() < 1
    if file.activation == "softmax":
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=2e-3)
    if len(file.labels) > 1:  # far enough from a tie for the first class to be a property
        first, second = np.sort(logits, axis=1)[:, :-3:-1].T
        assert (first - second).min() > 2 * file.tolerance * np.abs(logits).max()


def test_the_file_exports(name: str, exported: Exported) -> None:
    bundle = exported(name)[1]
    if isinstance(bundle, OrtcamError):
        raise bundle


# The classifier ------------------------------------------------------------------------------------------------------


def test_the_graphs_give_the_logits_of_the_file(file: ZooFile, bundle: Bundle) -> None:
    pictures = file.pictures()
    expected = file.logits(pictures)
    images = np.concatenate([bundle.manifest.preprocessing(picture) for picture in pictures])
    assert images.shape == (3, 3, *file.size)
    together = file.comparable(logits_of(bundle, images))
    single = file.comparable(np.concatenate([logits_of(bundle, image[None]) for image in images]))
    for logits in (together, single):
        relative = difference(logits, expected)
        assert relative <= file.tolerance, f"logits {relative:.1e} apart; accepted is {file.tolerance:.0e}"
        assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_predict_gives_the_probabilities_of_the_file(file: ZooFile, bundle: Bundle) -> None:
    explainer = ortcam.load(bundle.path)  # as files: an array of [3,3,3] does not tell where its channels are
    pictures = file.pictures()
    predicted = np.stack([explainer.predict(encode_png(picture)) for picture in pictures])
    np.testing.assert_allclose(predicted, file.probabilities(pictures), atol=file.tolerance)
    assert explainer.labels == file.labels


def test_the_manifest_says_what_the_file_is(file: ZooFile, bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.activation == file.activation
    assert manifest.precision == file.precision
    assert manifest.model.source == "onnx"
    assert manifest.preprocessing.channel_order == file.form.channel_order
    assert (manifest.graphs.head is None) != (manifest.graphs.classifier is None)
    assert manifest.opset >= 18


def test_the_probe_holds_the_logits_of_the_file(file: ZooFile, bundle: Bundle) -> None:
    probe = bundle.manifest.probe
    assert probe is not None
    pictures = np.load(bundle.file(probe.images), allow_pickle=False)
    logits = np.load(bundle.file(probe.logits), allow_pickle=False)
    assert (pictures.dtype, logits.dtype) == (np.uint8, np.float32)
    assert pictures.shape[1:] == (*file.size, 3)
    # Computed by the same file; only what stands between a picture and its input may round otherwise.
    assert difference(file.comparable(logits), file.logits(pictures)) <= file.tolerance


# The graphs ----------------------------------------------------------------------------------------------------------


def test_the_image_is_float32_nchw_with_an_open_batch(file: ZooFile, bundle: Bundle) -> None:
    model = onnx.load(bundle.file(bundle.manifest.graphs.features), load_external_data=False)
    (image,) = model.graph.input
    batch, *rest = image.type.tensor_type.shape.dim
    assert image.name == "image"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert batch.dim_param
    assert not batch.HasField("dim_value")
    assert [side.dim_value for side in rest] == [3, *file.size]


def used_names(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph reads, those of the graphs inside its nodes included."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                names |= used_names(inner)
    return names


def test_the_graphs_are_valid_and_hold_nothing_idle(bundle: Bundle) -> None:
    for path in graphs_of(bundle):
        onnx.checker.check_model(path)
        model = onnx.load(path, load_external_data=False)
        (opset,) = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
        assert opset >= 18, path.name
        assert not model.functions, path.name
        used = used_names(model.graph)
        idle = [node.op_type for node in model.graph.node if not used.intersection(node.output)]
        assert not idle, f"{path.name}: nothing uses {idle}"
        assert {tensor.name for tensor in model.graph.initializer} <= used, path.name


def test_batch_normalisation_is_folded_into_the_convolution_in_front(bundle: Bundle) -> None:
    for path in graphs_of(bundle):
        graph = onnx.load(path, load_external_data=False).graph
        uses = [name for node in graph.node for name in node.input] + [value.name for value in graph.output]
        # Weights that two convolutions share stay as they are: folded, they would be stored twice.
        convolved = {node.output[0] for node in graph.node if node.op_type == "Conv" and uses.count(node.input[1]) == 1}
        kept = [node.input[0] for node in graph.node if node.op_type == "BatchNormalization"]
        assert not [name for name in kept if name in convolved and uses.count(name) == 1], path.name


def test_weights_are_stored_once(file: ZooFile, bundle: Bundle) -> None:
    cut = bundle.manifest.cut
    interpolation = 4 * (cut.height * file.size[0] + cut.width * file.size[1])
    weights = 4 * file.weight_elements()
    # Constants that an exporter left as arithmetic may be written out; a second copy of large weights may not.
    assert bundle.file("weights.bin").stat().st_size <= 1.25 * weights + interpolation + 16_384


def test_the_bundle_names_no_path_of_another_machine_or_of_this_one(file: ZooFile, bundle: Bundle) -> None:
    for path in bundle.path.iterdir():
        content = path.read_bytes()
        for place in (PRIVATE_PATH, str(file.path.parent), str(Path.home() / "")):
            assert place.encode() not in content, path.name


# The explanation -----------------------------------------------------------------------------------------------------


def test_the_default_layer_has_a_grid(file: ZooFile, bundle: Bundle) -> None:
    cut = bundle.manifest.cut
    assert cut.height * cut.width > 1
    assert cut.height <= file.size[0]
    assert cut.width <= file.size[1]
    assert cut.channels > len(file.labels), "channels are features and not classes"


def test_it_explains_and_the_map_follows_picture_or_class(file: ZooFile, bundle: Bundle) -> None:
    explainer = ortcam.load(bundle.path)
    explanations = [
        explainer.explain(encode_png(picture), method="scorecam", top_k=len(file.labels))
        for picture in file.pictures(2)
    ]
    for explanation in explanations:
        assert explanation.maps.shape == (len(file.labels), *file.size)
        assert np.isfinite(explanation.maps).all()
        assert not explanation.flat.all()
        for one, flat in zip(explanation.maps, explanation.flat, strict=True):
            assert (one.min(), one.max()) == ((0, 0) if flat else (0, 1))
    peaks = {int(one.argmax()) for explanation in explanations for one in explanation.maps}
    if min(bundle.manifest.cut.height, bundle.manifest.cut.width) >= 4:
        assert len(peaks) > 1
    else:  # so few cells that the same one may win
        assert np.abs(explanations[0].maps[0] - explanations[1].maps[0]).max() > 0.05


@pytest.mark.sample(every=4)
@pytest.mark.parametrize("name", REPRESENTATIVES, scope="module")
def test_all_four_methods_explain_it(file: ZooFile, bundle: Bundle) -> None:
    explainer = ortcam.load(bundle.path)
    for method, options in (("scorecam", {}), ("scorecam++", {}), ("sscam", {"num_samples": 2}), ("iscam", {})):
        explanation = explainer.explain(file.pictures(1)[0], method=method, top_k=2, **options)
        assert np.isfinite(explanation.maps).all(), method
        assert explanation.stats.passes > 0, method


# What need not be asked of all ---------------------------------------------------------------------------------------


@pytest.mark.sample(*FEW)
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


@pytest.mark.parametrize("names", [FEW, pytest.param(REPRESENTATIVES, marks=pytest.mark.slow)], ids=["few", "many"])
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


@pytest.mark.sample(every=3)
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


@pytest.mark.parametrize("name", ["label_and_probabilities", "zip_map"])
def test_the_only_output_of_numbers_needs_no_name(name: str, tmp_path: Path) -> None:
    file = ZOO[name](tmp_path)
    named = export(file.path, tmp_path / "named.ortcam", **file.arguments)
    unnamed = export(file.path, tmp_path / "unnamed.ortcam", **file.arguments | {"output": None})
    assert named.sha256 == unnamed.sha256


def test_the_activation_that_the_user_names_is_taken(tmp_path: Path) -> None:
    file = ZOO["plain_batch_1"](tmp_path)
    bundle = export(file.path, tmp_path / "b.ortcam", **file.arguments, activation="sigmoid")
    picture = file.pictures(1)
    logits = file.logits(picture)[0]
    products = 3 * 9 + 8 * 9 + 12 * 9 + 16 + HEIGHT // 4 * WIDTH // 4  # of three convolutions, a layer and a mean
    bound = rounding_error(products, max(1.0, float(np.abs(logits).max())))
    np.testing.assert_allclose(ortcam.load(bundle.path).predict(picture[0]), 1 / (1 + np.exp(-logits)), atol=bound)


@pytest.mark.sample(every=4)
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


def flags(arguments: dict[str, Any], folder: Path) -> list[str]:
    """The arguments of `export` as those of the command line; labels go into a file."""
    said = []
    for key, value in arguments.items():
        if key == "labels":
            (folder / "labels.txt").write_text("\n".join(value))
            said += ["--labels", str(folder / "labels.txt")]
        else:
            values = value if isinstance(value, (tuple, list)) else [value]
            flag = "model-output" if key == "output" else key.replace("_", "-")
            said += [f"--{flag}", *map(str, values)]
    return said


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
