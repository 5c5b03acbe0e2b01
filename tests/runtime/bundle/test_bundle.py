"""A bundle is trusted only when it is whole: every way of breaking one gives one clear error."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import reseal

import ortcam
from ortcam.bundle import MANIFEST_NAME, SCHEMA_VERSION, Manifest, read_bundle
from ortcam.bundle.migration import MIGRATIONS
from ortcam.bundle.shipped import bundle_path


def edit(bundle: Path, **changes: object) -> None:
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    manifest.update(changes)
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))


def as_schema_4(bundle: Path) -> dict:
    """The bundle's manifest as schema 4 wrote it."""
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    for entries, added in (
        (manifest, ("output_shape", "inputs", "output_parts")),
        (manifest["model"], ("embeddings_sha256", "logit_scale", "logit_bias")),
        (manifest["preprocessing"], ("value_range", "display")),
        (manifest["graphs"], ("score_terms", "static_batch")),
    ):
        for name in added:
            entries.pop(name, None)  # some may be missing in schema 5, too
    return manifest | {"schema": 4}


def as_schema_3(bundle: Path) -> dict:
    """The bundle's manifest as schema 3 wrote it."""
    manifest = as_schema_4(bundle)
    for entries, added in ((manifest, ("layers", "gradient", "no_gradient")), (manifest["probe"], ("gradient",))):
        for name in added:
            del entries[name]
    return manifest | {"schema": 3}


def without_gradient(manifest: Manifest) -> Manifest:
    """The manifest as a bundle has it whose schema knew no gradient."""
    why = "it was exported before gradients were part of a bundle; export the model again"
    assert manifest.probe is not None
    probe = dataclasses.replace(manifest.probe, gradient=None)
    return dataclasses.replace(without_scores(manifest), gradient=None, no_gradient=why, probe=probe)


def without_scores(manifest: Manifest) -> Manifest:
    """The manifest as a bundle has it whose scorers have no input `score`."""
    return dataclasses.replace(manifest, graphs=dataclasses.replace(manifest.graphs, score_terms=()))


def files_of(bundle: Path) -> dict:
    return json.loads((bundle / MANIFEST_NAME).read_text())["files"]


def test_a_bundle_reads_back_as_it_was_written(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.manifest.to_json() == (tiny_bundle / MANIFEST_NAME).read_text("utf-8")
    assert bundle.manifest.cut.channels == 10
    assert set(bundle.manifest.files) == {path.name for path in tiny_bundle.iterdir()} - {MANIFEST_NAME}


@pytest.mark.parametrize("name", ["features.onnx", "head.onnx", "weights.bin", "scorer-linear.onnx"])
def test_a_missing_file_is_named(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    with pytest.raises(ortcam.BundleError, match=rf"{name}: missing"):
        ortcam.load(bundle_copy)


@pytest.mark.parametrize("name", ["features.onnx", "weights.bin"])
def test_a_truncated_file_is_named(bundle_copy: Path, name: str) -> None:
    content = (bundle_copy / name).read_bytes()
    (bundle_copy / name).write_bytes(content[:-7])
    with pytest.raises(ortcam.BundleError, match=rf"{name}: truncated, {len(content) - 7} bytes instead of"):
        ortcam.load(bundle_copy)


@pytest.mark.parametrize("name", ["head.onnx", "weights.bin"])
def test_one_altered_bit_is_noticed(bundle_copy: Path, name: str) -> None:
    content = bytearray((bundle_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / name).write_bytes(content)
    with pytest.raises(ortcam.BundleError, match=rf"{name}: altered"):
        ortcam.load(bundle_copy)


def test_a_newer_schema_is_refused_with_both_versions(bundle_copy: Path) -> None:
    edit(bundle_copy, schema=99)
    with pytest.raises(ortcam.BundleError, match=r"schema 99 is newer than this ortcam reads \(5\)"):
        ortcam.load(bundle_copy)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/hostname", "sub/file.bin", "..", "C:evil", "a\\b", ""])
def test_a_file_name_that_leaves_the_folder_is_refused(bundle_copy: Path, name: str) -> None:
    edit(bundle_copy, files=files_of(bundle_copy) | {name: {"size": 1, "sha256": "0"}})
    with pytest.raises(ortcam.BundleError, match="leaves the bundle's folder"):
        ortcam.load(bundle_copy)


def test_a_graph_outside_the_checked_files_is_refused(bundle_copy: Path) -> None:
    graphs = json.loads((bundle_copy / MANIFEST_NAME).read_text())["graphs"]
    edit(bundle_copy, graphs=graphs | {"head": "../head.onnx"})
    with pytest.raises(ortcam.BundleError, match=r"'\.\./head\.onnx' is not among the bundle's files"):
        ortcam.load(bundle_copy)


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_a_graph_whose_weights_lie_outside_the_folder_is_refused(
    bundle_copy: Path, tmp_path: Path, absolute: bool
) -> None:
    outside = shutil.copy(bundle_copy / "weights.bin", tmp_path / "outside.bin")
    graph = onnx.load(bundle_copy / "features.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(outside) if absolute else "../outside.bin"
    (bundle_copy / "features.onnx").write_bytes(graph.SerializeToString())
    content = (bundle_copy / "features.onnx").read_bytes()
    record = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(bundle_copy, files=files_of(bundle_copy) | {"features.onnx": record})
    with pytest.raises(ortcam.BundleError, match=r"features\.onnx: tensor .* is not one of the bundle's files"):
        ortcam.load(bundle_copy)


def test_files_may_be_links_and_what_they_lead_to_is_checked(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    """As in the caches of huggingface_hub and DVC and in the volumes of Kubernetes."""
    blobs, bundle = tmp_path / "blobs", tmp_path / "snapshots" / "tiny.ortcam"
    shutil.copytree(tiny_bundle, blobs)
    bundle.mkdir(parents=True)
    for path in blobs.iterdir():
        (bundle / path.name).symlink_to(Path("../../blobs", path.name))
    expected = ortcam.load(tiny_bundle).explain(photograph, method="scorecam++", batch_size=4)
    loaded = ortcam.load(bundle).explain(photograph, method="scorecam++", batch_size=4)
    np.testing.assert_array_equal(loaded.maps, expected.maps)
    (blobs / "head.onnx").write_bytes((blobs / "head.onnx").read_bytes()[::-1])
    with pytest.raises(ortcam.BundleError, match=r"head\.onnx: altered"):
        ortcam.load(bundle)
    (blobs / "head.onnx").unlink()
    with pytest.raises(ortcam.BundleError, match=r"head\.onnx: missing"):
        ortcam.load(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": "cat"}, "labels is 'cat'"),
        ({"labels": []}, r"0 labels for output_shape \(6,\); accepted are 6, one per output"),
        ({"output_shape": [6, 2]}, r"output_shape is \(6, 2\), and activation 'softmax'; accepted for a tensor is"),
        ({"output_shape": [0]}, r"output_shape is \(0,\); accepted are one or more sizes from 1"),
        ({"output_shape": []}, r"output_shape is \(\); accepted are one or more"),
        ({"output_shape": [6, 2], "activation": "identity"}, "6 labels for output_shape .*accepted are none"),
        (
            {"output_shape": [2**20, 2**20], "activation": "identity", "labels": []},
            "accepted are at most 268435456 outputs",
        ),
        (
            {"inputs": {"age": {"dtype": "float32", "shape": [-1], "value": "3", "sha256": "0" * 64}}},
            r"inputs\.age has the shape \[-1\]",
        ),
        ({"inputs": {"age": {"dtype": "float32", "shape": [], "value": "3", "sha256": ""}}}, "64 hexadecimal digits"),
        ({"precision": "float8"}, "precision is 'float8'; accepted: 'float32', 'int8'"),
        ({"opset": "20"}, "opset is '20'"),
        ({"surprise": 1}, "unknown entries surprise"),
        ({"cut": {}}, "cut lacks tensor"),
        ({"schema": None}, "not the manifest of an ortcam bundle"),
        ({"schema": True}, r"not the manifest of an ortcam bundle \(schema=True\)"),
        ({"schema": 0}, r"not the manifest of an ortcam bundle \(schema=0\)"),
        ({"activation": "tanh"}, "activation is 'tanh'; accepted: 'softmax', 'sigmoid', 'identity'"),
    ],
)
def test_a_manifest_of_another_form_is_refused(bundle_copy: Path, change: dict, message: str) -> None:
    edit(bundle_copy, **change)
    with pytest.raises(ortcam.BundleError, match=message):
        ortcam.load(bundle_copy)


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        ({"head": None}, "head is None and classifier None; accepted is exactly one of the two"),
        (
            {"classifier": "features.onnx"},
            r"'head\.onnx' and classifier 'features\.onnx'; accepted is exactly one",
        ),
        ({"head": None, "classifier": "../c.onnx"}, r"the graph '\.\./c\.onnx' is not among the bundle's files"),
    ],
)
def test_a_bundle_has_a_head_or_a_classifier(bundle_copy: Path, graphs: dict, message: str) -> None:
    edit(bundle_copy, graphs=json.loads((bundle_copy / MANIFEST_NAME).read_text())["graphs"] | graphs)
    with pytest.raises(ortcam.BundleError, match=message):
        ortcam.load(bundle_copy)


def test_a_probe_outside_the_checked_files_is_refused(bundle_copy: Path) -> None:
    edit(bundle_copy, probe={"images": "weights.bin", "logits": "/etc/hostname", "gradient": None})
    with pytest.raises(ortcam.BundleError, match="the probe '/etc/hostname' is not among the bundle's files"):
        ortcam.load(bundle_copy)


def as_schema_1(bundle: Path) -> Path:
    """The bundle's manifest as schema 1 wrote it."""
    manifest = as_schema_3(bundle)
    for entries, added in (
        (manifest, ("activation", "probe", "variants")),
        (manifest["preprocessing"], ("channel_order", "scale", "keep_aspect", "crop_rounding")),
        (manifest["graphs"], ("classifier",)),
        (manifest["parity"], ("scorer_tolerance",)),
    ):
        for name in added:
            del entries[name]
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest | {"schema": 1}))
    return bundle


def test_a_bundle_of_schema_1_means_what_it_meant(bundle_copy: Path, tiny_bundle: Path, photograph: Path) -> None:
    old, new = ortcam.load(as_schema_1(bundle_copy)), ortcam.load(tiny_bundle)
    assert (old.bundle.schema, new.bundle.schema) == (1, SCHEMA_VERSION)
    expected = dataclasses.replace(without_gradient(new.bundle.manifest), probe=None)
    assert old.bundle.manifest == expected
    assert (old.preprocess(photograph) == new.preprocess(photograph)).all()
    assert (old.predict(photograph) == new.predict(photograph)).all()


def test_a_bundle_of_schema_2_has_no_variants(bundle_copy: Path, tiny_bundle: Path) -> None:
    manifest = as_schema_3(bundle_copy)
    del manifest["variants"]
    (bundle_copy / MANIFEST_NAME).write_text(json.dumps(manifest | {"schema": 2}))
    old = read_bundle(bundle_copy)
    expected = without_gradient(read_bundle(tiny_bundle).manifest)
    assert (old.schema, old.manifest, old.precisions) == (2, expected, ("float32",))
    edit(bundle_copy, variants={})
    with pytest.raises(ortcam.BundleError, match="has unknown entries variants"):
        read_bundle(bundle_copy)


def test_a_bundle_of_schema_3_says_how_to_get_a_gradient(bundle_copy: Path, tiny_bundle: Path) -> None:
    (bundle_copy / MANIFEST_NAME).write_text(json.dumps(as_schema_3(bundle_copy)))
    old = read_bundle(bundle_copy)
    assert (old.schema, old.manifest) == (3, without_gradient(read_bundle(tiny_bundle).manifest))
    edit(bundle_copy, layers=[])
    with pytest.raises(ortcam.BundleError, match="has unknown entries layers"):
        read_bundle(bundle_copy)


def test_a_bundle_of_schema_4_means_what_it_meant(bundle_copy: Path, tiny_bundle: Path, photograph: Path) -> None:
    (bundle_copy / MANIFEST_NAME).write_text(json.dumps(as_schema_4(bundle_copy)))
    old, new = ortcam.load(bundle_copy), ortcam.load(tiny_bundle)
    assert (old.bundle.schema, old.bundle.manifest) == (4, without_scores(new.bundle.manifest))
    assert (old.bundle.manifest.outputs, old.bundle.manifest.has_classes) == (6, True)
    np.testing.assert_array_equal(old.preprocess(photograph), new.preprocess(photograph))
    for name, value in (("output_shape", [6]), ("output_parts", [])):
        edit(bundle_copy, **{name: value})
        with pytest.raises(ortcam.BundleError, match=f"has unknown entries .*{name}"):
            read_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("float8", {}, r"a variant in 'float8'; accepted beside float32: \['float16', 'int8', 'qnn'\]"),
        ("float32", {}, "a variant in 'float32'"),
        ("int8", {"scorers": {"linear": "scorer-linear.onnx"}}, "the scorers in int8 are not those of the other"),
        ("int8", {"parity": "small"}, r"variants\.int8\.parity is 'small'"),
        ("int8", {"file": "../scorer.onnx"}, r"the graph '\.\./scorer\.onnx' is not among the bundle's files"),
    ],
)
def test_a_variant_of_another_form_is_refused(bundle_copy: Path, name: str, changes: dict, message: str) -> None:
    scorers = json.loads((bundle_copy / MANIFEST_NAME).read_text())["graphs"]["scorers"]
    variant = {
        "scorers": scorers | ({"noise": changes["file"]} if "file" in changes else {}),
        "parity": 0.1,
        "tolerance": 0.2,
        "calibration": None,
        "fidelity": {"images": 1, "held_out": True, "channels": 1, "top1": 1.0, "maps": {}},
    } | {key: value for key, value in changes.items() if key != "file"}
    edit(bundle_copy, variants={name: variant})
    with pytest.raises(ortcam.BundleError, match=message):
        read_bundle(bundle_copy)


def test_the_shipped_bundle_is_read_whatever_its_schema() -> None:
    bundle = read_bundle(bundle_path())
    assert bundle.manifest.schema == SCHEMA_VERSION
    assert bundle.manifest.activation == "softmax"


@pytest.mark.parametrize(
    ("where", "name"), [(None, "activation"), ("preprocessing", "scale"), ("graphs", "classifier")]
)
def test_an_entry_from_after_schema_1_is_refused_in_it(bundle_copy: Path, where: str | None, name: str) -> None:
    manifest = json.loads((as_schema_1(bundle_copy) / MANIFEST_NAME).read_text())
    (manifest if where is None else manifest[where])[name] = None
    edit(bundle_copy, **manifest)
    with pytest.raises(ortcam.BundleError, match=f"has unknown entries {name}"):
        ortcam.load(bundle_copy)


def test_a_broken_bundle_of_schema_1_is_named_as_such(bundle_copy: Path) -> None:
    edit(as_schema_1(bundle_copy), preprocessing=[], graphs=None)
    with pytest.raises(ortcam.BundleError, match=r"preprocessing is \[\], which is not an object"):
        ortcam.load(bundle_copy)


def test_every_schema_before_todays_has_a_step_to_the_next() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("terms", [["one", "logits"], ["logits", "logits"], ["sum"]])
def test_score_terms_in_another_order_are_refused(bundle_copy: Path, terms: list[str]) -> None:
    edit(bundle_copy, graphs=json.loads((bundle_copy / MANIFEST_NAME).read_text())["graphs"] | {"score_terms": terms})
    with pytest.raises(ortcam.BundleError, match=r"accepted are some of .*, in this order"):
        ortcam.load(bundle_copy)


def test_scorers_without_the_score_that_the_manifest_promises_are_refused(bundle_copy: Path) -> None:
    graphs = json.loads((bundle_copy / MANIFEST_NAME).read_text())["graphs"]
    edit(bundle_copy, graphs=graphs | {"score_terms": ["logits", "entropy"], "scorers": {"linear": "features.onnx"}})
    with pytest.raises(ortcam.BundleError, match="it has no input 'score'"):
        ortcam.load(bundle_copy)


def test_impossible_preprocessing_is_refused(bundle_copy: Path) -> None:
    preprocessing = json.loads((bundle_copy / MANIFEST_NAME).read_text())["preprocessing"]
    edit(bundle_copy, preprocessing=preprocessing | {"std": [0, 1, 1]})
    with pytest.raises(ortcam.BundleError, match="std"):
        ortcam.load(bundle_copy)


@pytest.mark.usefixtures("torchvision_names")
@pytest.mark.parametrize("path", [None, 5, "a\0b", b"a\0b", "x" * 5000])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(ortcam.OrtcamError, match=r"accepted is|a model is|File name too long"):
        ortcam.load(path)


@pytest.mark.parametrize("change", [-1, 1])
def test_labels_that_are_not_one_a_class_are_refused(bundle_copy: Path, photograph: Path, change: int) -> None:
    labels = json.loads((bundle_copy / MANIFEST_NAME).read_text())["labels"]
    changed = labels[:change] if change < 0 else [*labels, "one more"]
    edit(bundle_copy, labels=changed)
    with pytest.raises(ortcam.BundleError, match=rf"{len(changed)} labels for output_shape \(6,\)"):
        ortcam.load(bundle_copy)
    edit(bundle_copy, output_shape=[len(changed)])
    message = f"has {len(labels)} classes.*{len(labels) + change} labels"
    with pytest.raises(ortcam.BundleError, match=message):
        ortcam.load(bundle_copy)
    for path in bundle_copy.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        for value in (*model.graph.input, *model.graph.output):
            if value.name in ("score", "seed") or (path.name, value.name) == ("head.onnx", "logits"):
                value.type.tensor_type.shape.dim[1].Clear()  # says nothing of it
        path.write_bytes(model.SerializeToString())
    reseal(bundle_copy)
    explainer = ortcam.load(bundle_copy)
    for use in (explainer.predict, explainer.explain):
        with pytest.raises(ortcam.BundleError, match=message):
            use(photograph)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders")
def test_a_pipe_in_the_place_of_a_manifest_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST_NAME)
    with pytest.raises(ortcam.BundleError, match="no regular file"):
        ortcam.load(tmp_path)


@pytest.mark.usefixtures("torchvision_names")
def test_what_is_not_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ortcam.BundleError, match="there is no such folder"):
        ortcam.load(tmp_path / "nowhere.ortcam")
    with pytest.raises(ortcam.BundleError, match=r"it has no bundle\.json"):
        ortcam.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ortcam.OrtcamError, match="holds no model that ortcam reads; a model is a bundle"):
        ortcam.load(tmp_path / "file")
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\x00 not json")
    with pytest.raises(ortcam.BundleError, match="not JSON"):
        ortcam.load(tmp_path)


def test_a_bundle_works_wherever_it_is_copied(tiny_bundle: Path, tmp_path: Path, photograph: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "ein anderer Ordner" / "bündel.ortcam")
    here = ortcam.load(tiny_bundle).predict(photograph)
    assert (ortcam.load(os.fspath(copy)).predict(photograph) == here).all()
