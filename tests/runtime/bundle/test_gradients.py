"""The gradient graph and the further layers of a bundle, as its reader checks them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import reseal

import ortcam
from ortcam.bundle import MANIFEST_NAME, Gradient, GradientParity, read_bundle
from ortcam.bundle.graph_contents import FLOAT32, GraphContents, Value
from ortcam.bundle.plausibility import check_graphs, check_manifest


def edit(bundle: Path, **changes: object) -> None:
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest | changes))


def with_gradient(bundle: Path, inputs: Sequence[str], shape: Sequence[int], changes: dict | None = None) -> None:
    """Add a gradient graph that sums its seed, of a shape, and say it in the manifest with these changes."""
    manifest = read_bundle(bundle).manifest
    float32, classes = onnx.TensorProto.FLOAT, len(manifest.labels)
    sides = manifest.preprocessing
    declared = {"features": manifest.cut.shape, "image": (3, sides.height, sides.width)}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ReduceSum", ["seed", "axes"], ["sums"]),
            onnx.helper.make_node("Expand", ["sums", "sides"], ["gradient"]),
        ],
        "gradient",
        [
            onnx.helper.make_tensor_value_info("seed", float32, ["K", classes]),
            *(onnx.helper.make_tensor_value_info(name, float32, ["N", *declared[name]]) for name in inputs),
        ],
        [onnx.helper.make_tensor_value_info("gradient", float32, ["K", *shape])],
        [
            onnx.numpy_helper.from_array(np.array([1]), "axes"),
            onnx.numpy_helper.from_array(np.array([1, *shape]), "sides"),
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), bundle / "gradient.onnx")
    parity = {"inputs": 2, "differences": 1e-6, "autograd": None, "tolerance": 1e-4}
    gradient = {"graph": "gradient.onnx", "inputs": [*inputs], "parity": parity, "attention_heads": None}
    gradient |= changes or {}
    edit(bundle, gradient=gradient, no_gradient=None)
    reseal(bundle)


def test_a_gradient_graph_is_read_and_held_with_the_others(bundle_copy: Path) -> None:
    shape = read_bundle(bundle_copy).manifest.cut.shape
    with_gradient(bundle_copy, ["features"], shape)
    bundle = read_bundle(bundle_copy)
    assert bundle.manifest.gradient is not None
    assert bundle.manifest.gradient.inputs == ("features",)
    assert "gradient.onnx" in bundle.files_of("float32")


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("inputs", "changes", "message"),
    [
        (["features"], {"graph": "absent.onnx"}, r"the graph 'absent\.onnx' is not among the bundle's files"),
        (["features"], {"inputs": ["image", "features"]}, r"the gradient takes .*; accepted are some of .*'image'"),
        (["features"], {"inputs": ["features", "features"]}, r"the gradient takes .*in this order"),
        (["features"], {"inputs": ["features_1"]}, r"the gradient takes .*in this order"),
        (["features"], {"inputs": ["features", "image"]}, r"gradient\.onnx: it has no input 'image'"),
        (["features"], {"attention_heads": 3}, r"attention_heads is 3, and the layout 'nchw'; accepted is null"),
        (["features"], {"inputs": "features"}, r"inputs is 'features'; accepted: a list"),
        (
            ["image"],
            {"parity": {"inputs": 0, "differences": 0, "autograd": None, "tolerance": 1}},
            r"parity\.inputs is 0",
        ),
    ],
)
def test_a_gradient_of_another_form_is_refused(
    bundle_copy: Path, inputs: list[str], changes: dict, message: str
) -> None:
    with_gradient(bundle_copy, inputs, read_bundle(bundle_copy).manifest.cut.shape, changes)
    with pytest.raises(ortcam.BundleError, match=message):
        read_bundle(bundle_copy)


def test_a_gradient_graph_of_another_shape_is_refused(bundle_copy: Path) -> None:
    channels, height, width = read_bundle(bundle_copy).manifest.cut.shape
    with_gradient(bundle_copy, [], (channels, height, width + 1))
    said = rf"its output 'gradient' is float32 \[\?,{channels},{height},{width + 1}\]; by bundle.json .*{width}\]"
    with pytest.raises(ortcam.BundleError, match=said):
        read_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("gradient", "why"),
    [
        (None, None),
        (
            {
                "graph": "head.onnx",
                "inputs": [],
                "parity": {"inputs": 1, "differences": 0, "autograd": 0, "tolerance": 1},
                "attention_heads": None,
            },
            "",
        ),
    ],
)
def test_a_bundle_has_a_gradient_or_says_why_not(bundle_copy: Path, gradient: dict | None, why: str | None) -> None:
    edit(bundle_copy, gradient=gradient, no_gradient=why)
    with pytest.raises(ortcam.BundleError, match=r"gradient is .* and no_gradient .*; accepted is exactly one"):
        read_bundle(bundle_copy)


def test_a_further_layer_without_its_output_is_refused(bundle_copy: Path) -> None:
    cut = json.loads((bundle_copy / MANIFEST_NAME).read_text())["cut"]
    edit(bundle_copy, layers=[cut])
    with pytest.raises(ortcam.BundleError, match=r"features\.onnx: it has no output 'features_1'"):
        read_bundle(bundle_copy)
    edit(bundle_copy, layers=[cut | {"width": 16_385}])
    with pytest.raises(ortcam.BundleError, match=r"layers\[0\]\.width is 16385; accepted is 1 to 16384"):
        read_bundle(bundle_copy)
    edit(bundle_copy, layers=[cut | {"channels": 0}])
    with pytest.raises(ortcam.BundleError, match="impossible cut"):
        read_bundle(bundle_copy)


def test_a_gradient_graph_without_the_attention_that_it_should_have_is_refused(bundle_copy: Path) -> None:
    manifest = read_bundle(bundle_copy).manifest
    value = {name: Value(FLOAT32, shape) for name, shape in (("seed", (None, None)), ("gradient", (None, 5, 4)))}
    contents = GraphContents({"seed": value["seed"]}, {"gradient": value["gradient"]}, frozenset())
    gradient = Gradient("gradient.onnx", (), GradientParity(1, 0.0, None, 1e-4), attention_heads=3)
    cut = dataclasses.replace(manifest.cut, layout="tokens", channels=4, height=2, width=2, prefix_tokens=1)
    manifest = dataclasses.replace(manifest, cut=cut, gradient=gradient, no_gradient=None)
    with pytest.raises(ortcam.BundleError, match=r"gradient\.onnx: it has no output 'attention_relevance'"):
        check_graphs(manifest, {"gradient.onnx": contents})
    for shape, right in (((None, 3, 5), True), ((None, 3, 4), False), ((None, 2, 5), False)):
        outputs = {**contents.outputs, "attention_relevance": Value(FLOAT32, shape)}
        found = {"gradient.onnx": dataclasses.replace(contents, outputs=outputs)}
        if right:
            check_graphs(manifest, found)
        else:
            with pytest.raises(ortcam.BundleError, match=r"'attention_relevance' is .*; by bundle.json .*\[\?,3,5\]"):
                check_graphs(manifest, found)
    no_heads = dataclasses.replace(manifest, gradient=dataclasses.replace(gradient, attention_heads=0))
    with pytest.raises(ortcam.BundleError, match=r"gradient\.attention_heads is 0; accepted is 1 to 65536"):
        check_manifest(no_heads)
