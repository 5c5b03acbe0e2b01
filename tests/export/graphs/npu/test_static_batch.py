"""Bundles with fixed shapes: no dimension is open, and every method gives the map of the bundle that has open ones."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.common.images import photograph
from tests.conftest import BANDS_BUNDLE, TENSOR_BUNDLE, TINY_BUNDLE, VALUES_BUNDLE
from tests.export.graphs.npu.fixed_bundles import fixed_bundle

import ortcam
from ortcam.bundle import Bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.cli import main
from ortcam.engine.memory import MemoryLimit, RowMemory, Usage
from ortcam.errors import BundleError, OptionError
from ortcam.images.encoding import write_png
from ortcam.parity import gradient_failure, parity_failure, verify, verify_gradient
from ortcam.web.site import site_of
from ortcam_export import fuse
from ortcam_export.errors import ExportError
from ortcam_export.graphs.batch_axis.fixing import fix_shapes, open_dimensions

BATCH = 4
# Of float32, relative to the largest value of a map, which is 1: sums of a few thousand products, in another order.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fixed_bundle(TINY_BUNDLE, tmp_path_factory.mktemp("fixed") / "tiny.ortcam", BATCH)


def dims(proto: onnx.ModelProto) -> list[onnx.TensorShapeProto.Dimension]:
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    return [dim for value in values for dim in value.type.tensor_type.shape.dim]


def test_no_dimension_is_open_and_no_graph_is_inside_a_graph(fixed: Bundle) -> None:
    graphs = fixed.manifest.graphs
    names = [graphs.features, graphs.head, "gradient.onnx", *graphs.scorers.values()]
    assert len(names) == 12
    for name in names:
        path = fixed.path / name
        assert open_dimensions(ir.load(path)) == []
        proto = onnx.load(path, load_external_data=False)
        assert all(dim.HasField("dim_value") for dim in dims(proto))
        assert {node.op_type for node in proto.graph.node} & {"Loop", "If", "Scan", "Shape"} == set()
    assert ir.load(fixed.path / "scorer-tanh.onnx").graph.inputs[2].shape == ir.Shape((BATCH,))


@pytest.mark.sample(every=5)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("scorecam", {}),
        ("scorecam", {"top_k": 6}),
        ("scorecam", {"score": "cat - dog"}),
        ("scorecam", {"budget": 7}),
        ("scorecam++", {"target": 2}),
        ("sscam", {"num_samples": 3}),
        ("iscam", {}),
        ("recipro-cam", {}),
        ("ablation-cam", {"top_k": 2}),
        ("cam", {}),
        ("grad-cam", {"top_k": 6}),
        ("smooth-grad-cam++", {"num_samples": 3}),
        ("grad-cam", {"augment": 2}),
    ],
)
def test_every_method_gives_the_map_of_the_bundle_with_open_dimensions(
    method: str, options: dict, fixed: Bundle
) -> None:
    image = photograph()
    expected = ortcam.load(TINY_BUNDLE).explain(image, method=method, batch_size=BATCH, **options)
    found = ortcam.load(fixed.path).explain(image, method=method, **options)
    np.testing.assert_allclose(found.maps, expected.maps, atol=ROUNDING)
    assert found.stats.passes == expected.stats.passes
    if method in ("scorecam", "sscam", "iscam"):  # the same products of matrices of the same shape
        np.testing.assert_array_equal(found.weights, expected.weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "score"), [(VALUES_BUNDLE, "age"), (TENSOR_BUNDLE, "output[0,1,2]"), (BANDS_BUNDLE, None)]
)
def test_values_tensors_and_bands(source: Path, score: str | None, tmp_path: Path) -> None:
    bundle = fixed_bundle(source, tmp_path / "fixed.ortcam", BATCH)
    image = bundle.manifest.preprocessing
    pixels = np.random.default_rng(0).integers(0, 200, (image.height, image.width, image.channels), np.uint8)
    given = {"method": "scorecam", "batch_size": BATCH} | ({} if score is None else {"score": score})
    expected, found = (ortcam.load(path).explain(pixels, **given) for path in (source, bundle.path))
    np.testing.assert_allclose(found.maps, expected.maps, atol=ROUNDING)


def test_a_bundle_with_fixed_shapes_is_verified_like_any_other(fixed: Bundle) -> None:
    assert parity_failure(verify(fixed), fixed.manifest.graphs) is None
    assert gradient_failure(verify_gradient(fixed), fixed.manifest.gradient) is None


def test_logits_of_many_inputs(fixed: Bundle) -> None:
    inputs = np.random.default_rng(0).standard_normal((11, 3, 32, 48)).astype(np.float32)
    expected, found = (ortcam.load(path).logits(11, lambda rows: inputs[rows]) for path in (TINY_BUNDLE, fixed.path))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_another_batch_size_is_refused_with_the_one_that_is_fixed(fixed: Bundle) -> None:
    explainer = ortcam.load(fixed.path)
    image = photograph()
    assert explainer.explain(image, method="scorecam", batch_size=BATCH).stats.batch_size == BATCH
    with pytest.raises(OptionError, match="fixed at 4 rows per run"):
        explainer.explain(image, batch_size=8)
    with pytest.raises(OptionError, match="accepted is 4 or auto"):
        explainer.logits(1, lambda rows: np.zeros((1, 3, 32, 48), np.float32), batch_size=2)


def test_a_limit_of_memory_is_checked_after_every_run(fixed: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(RowMemory, "begin", lambda _: None)  # where the system does not say what a process has
    monkeypatch.setattr(RowMemory, "end", lambda _, rows: ended.append(rows))
    monkeypatch.setattr(MemoryLimit, "used", lambda _: Usage(0, 0))
    with ortcam.load(fixed.path, memory_limit=10_000) as explainer:
        assert explainer.explain(photograph(), method="scorecam").stats.batch_size == BATCH
    assert ended == [BATCH] * 3  # of 10 channels


def test_what_runs_other_sizes_says_so(fixed: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="exported without --static-batch"):
        fuse(fixed, tmp_path / "fused.onnx")
    with pytest.raises(BundleError, match="exported without --static-batch"):
        site_of([("tiny", fixed)])
    assert not (tmp_path / "fused.onnx").exists()


def test_inspect_says_what_is_fixed(fixed: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(fixed.path)]) == 0
    assert "all shapes fixed: 4 rows per run of scorers and head, 1 of features and gradient" in capsys.readouterr().out


@pytest.mark.slow
def test_benchmark_and_batch_take_it(fixed: Bundle, tmp_path: Path) -> None:
    photograph_file = tmp_path / "in" / "a.png"
    photograph_file.parent.mkdir()
    write_png(photograph_file, photograph())
    assert main(["batch", str(fixed.path), str(photograph_file.parent), "-o", str(tmp_path / "out")]) == 0
    words = ["benchmark", str(fixed.path), "-m", "scorecam", "--runs", "1", "--seconds", "1"]
    assert main([*words, "--image", str(photograph_file)]) == 0


def test_a_shape_that_depends_on_values_is_refused() -> None:
    image = ir.Value(name="image", shape=ir.Shape(("N", 3)), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("NonZero", [image])
    node.outputs[0].name, node.outputs[0].dtype = "places", ir.DataType.INT64
    model = ir.Model(ir.Graph([image], [node.outputs[0]], nodes=[node], opset_imports={"": 20}), ir_version=10)
    with pytest.raises(ExportError, match="'places', an output of NonZero, depends on values"):
        fix_shapes(model, {"N": 2})


@pytest.mark.slow
def test_scorers_of_the_shipped_model_have_no_open_dimension(tmp_path: Path) -> None:
    bundle = fixed_bundle(bundle_path(), tmp_path / "shapes.ortcam", 8)
    for name in bundle.manifest.graphs.scorers.values():
        assert open_dimensions(ir.load(bundle.path / name)) == []
