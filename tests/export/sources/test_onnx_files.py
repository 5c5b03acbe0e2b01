"""Every `.onnx` file of the zoo: its bundle gives what the file gives, from graphs that are tidy, and explains it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.zoo.bundles import REPRESENTATIVES, Exported, difference, logits_of
from tests.export.zoo.graphs import (
    ZooFile,
)
from tests.export.zoo.plain import PRIVATE_PATH

import ortcam
from ortcam.bundle import Bundle
from ortcam.errors import OrtcamError
from ortcam.images.encoding import encode_png

pytestmark = pytest.mark.sample(every=6)  # of each test a few files


def graphs_of(bundle: Bundle) -> list[Path]:
    return [bundle.file(name) for name in bundle.manifest.files if name.endswith(".onnx")]


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_the_gradient_agrees_with_central_differences(bundle: Bundle) -> None:
    gradient = bundle.manifest.gradient
    assert gradient is not None, bundle.manifest.no_gradient
    assert gradient.parity.differences <= gradient.parity.tolerance == 1e-4
    assert gradient.parity.autograd is None
    assert ("image" in gradient.inputs) <= (bundle.manifest.graphs.head is None)


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


@pytest.mark.parametrize("name", REPRESENTATIVES, scope="module")
def test_all_four_methods_explain_it(file: ZooFile, bundle: Bundle) -> None:
    explainer = ortcam.load(bundle.path)
    for method, options in (("scorecam", {}), ("scorecam++", {}), ("sscam", {"num_samples": 2}), ("iscam", {})):
        explanation = explainer.explain(file.pictures(1)[0], method=method, top_k=2, **options)
        assert np.isfinite(explanation.maps).all(), method
        assert explanation.stats.passes > 0, method
