"""Entries that a bundle of schema 5 may lack: several outputs, what classes were made of, a fixed batch size."""

import json
from pathlib import Path

import pytest

import ortcam
from ortcam.bundle import MANIFEST_NAME, read_bundle


def edit(bundle: Path, **changes: object) -> None:
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    manifest.update(changes)
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_what_an_early_bundle_of_schema_5_does_not_say_has_its_default(bundle_copy: Path, tiny_bundle: Path) -> None:
    manifest = json.loads((bundle_copy / MANIFEST_NAME).read_text())
    for holder, names in (
        (manifest, ("output_parts",)),
        (manifest["model"], ("logit_scale", "logit_bias")),
        (manifest["graphs"], ("static_batch",)),
    ):
        for name in names:
            holder.pop(name, None)
    (bundle_copy / MANIFEST_NAME).write_text(json.dumps(manifest))
    early = read_bundle(bundle_copy)
    assert (early.schema, early.manifest) == (5, read_bundle(tiny_bundle).manifest)
    assert (early.manifest.output_parts, early.manifest.graphs.static_batch) == ((), None)
    assert (early.manifest.model.logit_scale, early.manifest.model.logit_bias) == (None, None)


def parts(*shapes: list[int], names: str = "ABCD") -> dict:
    """What a manifest says of several outputs."""
    listed = [{"name": name, "shape": shape} for name, shape in zip(names, shapes, strict=False)]
    return {"activation": "identity", "labels": [], "output_parts": listed}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            parts([2, 3], [2]),
            r"2 outputs of 8 numbers, output_shape \(6,\), 0 labels .*accepted .* are \(8,\), no labels",
        ),
        (
            parts([4], [2]) | {"activation": "softmax"},
            "activation 'softmax'; accepted for several outputs .*'identity'",
        ),
        (parts([4], [2]) | {"labels": list("abcdef")}, "6 labels and activation 'identity'; accepted"),
        (parts([4], [2]) | {"output_shape": [2, 3]}, r"output_shape \(2, 3\), 0 labels"),
        (parts([4], [2], names="AA"), r"the outputs \['A', 'A'\]; accepted are names that differ"),
        (parts([4], [0]), "accepted are sizes from 1"),
        (parts([4], [-2]), "accepted are sizes from 1"),
        (parts([6], [1] * 17), "up to 16 axes"),
        ({"output_parts": [{"name": "A"}]}, r"output_parts\[0\] lacks shape"),
        ({"output_parts": None}, "output_parts is None; accepted: a list"),
    ],
)
def test_several_outputs_have_to_make_up_that_of_the_graphs(bundle_copy: Path, changes: dict, message: str) -> None:
    edit(bundle_copy, **changes)
    with pytest.raises(ortcam.BundleError, match=message):
        read_bundle(bundle_copy)


def test_several_outputs_are_one_of_the_graphs(bundle_copy: Path) -> None:
    edit(bundle_copy, **parts([2, 2], [], [1]))
    manifest = read_bundle(bundle_copy).manifest
    assert [(part.name, part.shape) for part in manifest.output_parts] == [("A", (2, 2)), ("B", ()), ("C", (1,))]
    assert (manifest.has_classes, manifest.outputs) == (False, 6)


@pytest.mark.parametrize(
    ("entry", "name", "value", "message"),
    [
        ("graphs", "static_batch", 0, "static_batch is 0; accepted is 1 to 4096"),
        ("graphs", "static_batch", "4", "static_batch is '4'; accepted: a whole number"),
        ("model", "logit_scale", 100.0, "logit_scale is 100.0 and logit_bias None; accepted are two numbers"),
        ("model", "logit_bias", 1e9, "logit_bias"),
    ],
)
def test_entries_that_may_be_missing_are_checked(
    bundle_copy: Path, entry: str, name: str, value: object, message: str
) -> None:
    manifest = json.loads((bundle_copy / MANIFEST_NAME).read_text())
    edit(bundle_copy, **{entry: manifest[entry] | {name: value}})
    with pytest.raises(ortcam.BundleError, match=message):
        read_bundle(bundle_copy)
