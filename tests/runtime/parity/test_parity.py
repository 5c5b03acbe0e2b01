"""Parity measured again: a bundle that is as it was exported passes, and one that computes something else does not."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import reseal

import ortcam
from ortcam.bundle import MANIFEST_NAME, Parity, read_bundle
from ortcam.images.preprocessing import Preprocessing
from ortcam.parity import measure_parity, parity_failure, probe_input, read_probe, verify


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))
    change(manifest)
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))


def failure(bundle: Path) -> str | None:
    reseal(bundle)
    checked = read_bundle(bundle)
    return parity_failure(verify(checked), checked.manifest.graphs)


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_a_bundle_measured_again_has_the_parity_recorded_at_export(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    measured = verify(bundle)
    assert measured == bundle.manifest.parity
    assert parity_failure(measured, bundle.manifest.graphs) is None


def test_a_bundle_cut_in_a_branch_is_measured_through_its_classifier(branch_bundle: Path, tiny_bundle: Path) -> None:
    measured = verify(read_bundle(branch_bundle))
    recorded = read_bundle(tiny_bundle).manifest.parity
    assert measured.logits == pytest.approx(recorded.logits, abs=1e-6)
    assert measured.scorer == pytest.approx(recorded.scorer, abs=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_pictures_at_input_size_are_not_resized(interpolation: str, antialias: bool) -> None:
    preprocessing = Preprocessing(16, 16, 64, (0, 0, 0), (1, 1, 1), interpolation, antialias, scale=255)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(probe_input(pictures, preprocessing), pictures.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(("scale", "bias", "fits"), [(100.0, 0.0, True), (1e-3, 0.0, False), (10.0, 500.0, False)])
def test_a_logit_scale_by_which_logits_are_no_cosines_is_found(
    scale: float, bias: float, fits: bool, bundle_copy: Path
) -> None:
    edit(bundle_copy, lambda manifest: manifest["model"].update(logit_scale=scale, logit_bias=bias))
    if fits:
        assert failure(bundle_copy) is None
        return
    with pytest.raises(ortcam.BundleError, match=rf"logits of its probe go from .*cosines .*scale of {scale:g}"):
        failure(bundle_copy)


def swap(bundle: Path, first: str, second: str) -> None:
    content = (bundle / first).read_bytes()
    shutil.copy(bundle / second, bundle / first)
    (bundle / second).write_bytes(content)


def alter_weights(bundle: Path) -> None:
    model = onnx.load(bundle / "head.onnx")
    tensor = max(model.graph.initializer, key=lambda tensor: onnx.numpy_helper.to_array(tensor).size)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] += 0.01 * np.abs(array).max()
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    (bundle / "head.onnx").write_bytes(model.SerializeToString())


def alter_logits(bundle: Path) -> None:
    logits = np.load(bundle / "probe-logits.npy")
    logits[-1, -1] += 1e-3 * np.abs(logits).max()
    (bundle / "probe-logits.npy").write_bytes(npy(logits))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (alter_logits, r"head\(features\(x\)\) differs from the model by 1\..e-03 relative; accepted is 1e-04"),
        (alter_weights, r"head\(features\(x\)\) differs"),
        (lambda bundle: swap(bundle, "scorer-tanh.onnx", "scorer-softsign.onnx"), "a scorer differs"),
        (lambda bundle: swap(bundle, "scorer-mish.onnx", "scorer-swish.onnx"), "a scorer differs"),
        (lambda bundle: swap(bundle, "scorer-sigmoid.onnx", "scorer-sigmoid-relu.onnx"), "a scorer differs"),
        (lambda bundle: edit(bundle, lambda m: m.update(activation="sigmoid")), "a scorer differs"),
        (lambda bundle: edit(bundle, lambda m: m["preprocessing"].update(channel_order="bgr")), "differs"),
        (lambda bundle: edit(bundle, lambda m: m["preprocessing"].update(mean=[0.5, 0.5, 0.6])), "differs"),
        (lambda bundle: edit(bundle, lambda m: m["parity"].update(tolerance=1e-12)), "accepted is 1e-12"),
    ],
)
def test_what_computes_something_else_fails_though_its_hashes_are_right(
    bundle_copy: Path, alter: Callable[[Path], object], message: str
) -> None:
    assert failure(bundle_copy) is None
    alter(bundle_copy)
    with pytest.raises(AssertionError, match=message):
        assert failure(bundle_copy) is None


def test_the_tolerance_is_the_callers_to_give(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    manifest = bundle.manifest
    pictures, logits = read_probe(bundle)
    loose = measure_parity(
        bundle.graph,
        manifest.graphs,
        manifest.cut,
        manifest.activation,
        images=probe_input(pictures, manifest.preprocessing),
        logits=logits * np.float32(1.01),
        reference="a quantized model",
        tolerance=0.02,
    )
    assert 0.005 < loose.logits < loose.tolerance == 0.02
    assert parity_failure(loose, manifest.graphs) is None


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_a_failure(tiny_bundle: Path, broken: float) -> None:
    graphs = read_bundle(tiny_bundle).manifest.graphs
    for parity in (Parity("", 2, broken, 0.0, 1e-4, 1e-4), Parity("", 2, 0.0, broken, 1e-4, 1e-4)):
        assert parity_failure(parity, graphs) is not None


def test_logits_and_scorers_are_held_to_their_own_tolerances(tiny_bundle: Path) -> None:
    graphs = read_bundle(tiny_bundle).manifest.graphs
    assert parity_failure(Parity("", 2, 1e-5, 1e-2, 1e-4, 1e-1), graphs) is None
    assert "head(features(x)) differs" in str(parity_failure(Parity("", 2, 1e-2, 1e-2, 1e-4, 1e-1), graphs))
    assert "a scorer differs" in str(parity_failure(Parity("", 2, 1e-5, 1e-2, 1e-1, 1e-4), graphs))


def huge_header() -> bytes:
    """An array of 4 TB, as its header has it, and no content."""
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), np.float32)) | {"shape": (10**6, 10**6)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, logits=np.zeros((2, 6), np.float32))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("probe.npy", b"", "cannot be read as a .npy file"),
        ("probe.npy", b"not an array", "cannot be read as a .npy file"),
        ("probe.npy", npy(np.zeros((2, 32, 48, 3), np.uint8))[:-5], "cannot be read as a .npy file"),
        (
            "probe.npy",
            npy(np.zeros((2, 48, 32, 3), np.uint8)),
            r"uint8 \[2, 48, 32, 3\]; accepted is uint8",
        ),
        ("probe.npy", npy(np.zeros((3, 32, 48, 3), np.uint8)), r"accepted is uint8 \[2, 32, 48, 3\]"),
        ("probe.npy", npy(np.zeros((2, 32, 48, 3), np.float32)), r"float32 \[2, 32, 48, 3\]; accepted is uint8"),
        ("probe-logits.npy", npy(np.zeros((2, 6), np.float64)), r"float64 \[2, 6\]; accepted is float32 \[2, 6\]"),
        ("probe-logits.npy", npy(np.zeros((2, 5), np.float32)), r"float32 \[2, 5\]; accepted is float32 \[2, 6\]"),
        ("probe-logits.npy", npy(np.full((2, 6), {}), allow_pickle=True), r"object \[2, 6\]; accepted is float32"),
        ("probe-logits.npy", huge_header(), r"float32 \[1000000, 1000000\]; accepted is float32 \[2, 6\]"),
        ("probe-logits.npy", archive(), "an archive; accepted is float32"),
    ],
)
def test_a_probe_of_another_form_is_named(bundle_copy: Path, name: str, content: bytes, message: str) -> None:
    (bundle_copy / name).write_bytes(content)
    reseal(bundle_copy)
    with pytest.raises(ortcam.BundleError, match=message) as caught:
        verify(read_bundle(bundle_copy))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bundle_without_a_probe_cannot_be_measured(bundle_copy: Path) -> None:
    edit(bundle_copy, lambda manifest: manifest.update(probe=None))
    with pytest.raises(ortcam.BundleError, match="no probe in this bundle"):
        verify(read_bundle(bundle_copy))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["cut"].update(layout="tokens"),
        lambda manifest: manifest["cut"].update(layout="nhwc"),
        lambda manifest: manifest["cut"].update(height=12, width=8),
        lambda manifest: manifest["graphs"].update(head="features.onnx"),
        lambda manifest: manifest["graphs"]["scorers"].update(linear="head.onnx"),
    ],
)
def test_graphs_that_do_not_fit_their_manifest_get_one_line(
    bundle_copy: Path, change: Callable[[dict], object]
) -> None:
    edit(bundle_copy, change)
    with pytest.raises(ortcam.BundleError, match=r"do not fit its bundle\.json|the cut in bundle\.json") as caught:
        verify(read_bundle(bundle_copy))
    assert "\n" not in str(caught.value)
