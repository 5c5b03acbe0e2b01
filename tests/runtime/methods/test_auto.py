"""`method="auto"`: every kind of bundle gets a method that it can have, and the result says which and why."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import ortcam
from ortcam.bundle import Manifest
from ortcam.bundle.manifest import Gradient, GradientParity
from ortcam.cli import main
from ortcam.evaluation.entries import for_bundle, parse_entries
from ortcam.methods import AUTO, AUTO_METHOD, METHODS, AutoRow, auto, fits, register, resolve_method
from ortcam.methods.auto import KINDS, kind_of, row_of
from ortcam.request import ExplainRequest


def manifests(manifest: Manifest) -> list[Manifest]:
    """The manifest, as bundles of every kind have it."""
    parity = GradientParity(1, 0.0, None, 1e-4)
    of = itertools.product(((), ("features",), ("image",)), (None, 3))
    gradients = [None, *(Gradient("g.onnx", inputs, parity, heads) for inputs, heads in of)]
    return [
        dataclasses.replace(
            manifest,
            cut=dataclasses.replace(manifest.cut, layout=layout),
            graphs=dataclasses.replace(manifest.graphs, head=head, classifier=None if head else "classifier.onnx"),
            gradient=gradient,
            no_gradient=None if gradient else "it cannot be",
        )
        for layout, head, gradient in itertools.product(("nchw", "nhwc", "tokens"), ("head.onnx", None), gradients)
    ]


def test_every_kind_of_bundle_gets_a_method_that_it_can_have(tiny_bundle: Path) -> None:
    found = set()
    for manifest in manifests(ortcam.read_bundle(tiny_bundle).manifest):
        for limited in (False, True):
            row = row_of(manifest, limited=limited)
            found.add(row.kind)
            asked = ExplainRequest.of(budget=0.5 if limited else None).for_bundle(manifest)
            method = asked.settings.method
            assert method in METHODS
            assert fits(method, manifest)
            assert method.masks_image or not limited
            assert asked.chosen == row.line
            assert asked.limits.budget == (0.5 if limited else row.arguments.get("budget"))
    assert found == set(KINDS)


def test_each_kind_has_one_row_that_is_a_call_of_explain() -> None:
    assert sorted(row.kind for row in AUTO) == sorted(KINDS)
    for row in AUTO:
        ExplainRequest.of(method=row.method, **row.arguments)
        assert row.line.startswith(row.method)
        assert row.line.isprintable()
        assert not row.reason.endswith(".")


def test_the_kind_is_read_from_the_manifest_alone(tiny_bundle: Path) -> None:
    of = {}
    for item in manifests(ortcam.read_bundle(tiny_bundle).manifest):
        gradient = item.gradient and (item.gradient.inputs, item.gradient.attention_heads)
        of[item.cut.layout, item.graphs.head is None, gradient] = kind_of(item)
    assert of["nchw", False, ((), None)] == "affine"
    assert of["nhwc", True, (("image",), None)] == "convolutional"
    assert of["tokens", False, (("features",), 3)] == "attention"
    assert of["tokens", True, (("features",), 3)] == "attention"
    assert of["tokens", False, (("features",), None)] == "tokens"
    assert of["tokens", True, (("image",), None)] == "tokens-without-head"
    assert of["nchw", False, None] == "without-gradient"
    assert of["tokens", False, None] == "tokens-without-gradient"
    assert of["nchw", True, None] == "without-head"


def test_it_is_the_default_and_gives_what_the_method_gives(tiny_bundle: Path, photograph: Path) -> None:
    explainer = ortcam.load(tiny_bundle)
    e = explainer.explain(photograph)
    row = row_of(explainer.bundle.manifest)
    assert (e.method, e.chosen) == (row.method, row.line)
    same = explainer.explain(photograph, method=row.method, **row.arguments)
    np.testing.assert_array_equal(e.maps, same.maps)
    assert same.chosen is None
    assert {**e.summary(), "chosen": None, "stats": 0} == {**same.summary(), "stats": 0}
    assert explainer.check() == explainer.check(method=row.method, **row.arguments)


@pytest.mark.parametrize("limit", [{"budget": 4}, {"deadline": 60_000}, {"tolerance": 0.5}, {"completion": "none"}])
def test_a_limit_needs_a_method_that_masks_the_image(limit: dict, tiny_bundle: Path, photograph: Path) -> None:
    e = ortcam.load(tiny_bundle).explain(photograph, batch_size=4, **limit)
    assert e.method == "scorecam++"
    assert e.stats.passes > 0
    assert "limits and previews" in (e.chosen or "")
    assert e.provenance["limits"][next(iter(limit))] == next(iter(limit.values()))


def test_previews_need_one_too_unless_they_are_of_copies(tiny_bundle: Path, photograph: Path) -> None:
    explainer = ortcam.load(tiny_bundle)
    *_, last = explainer.explain_iter(photograph, batch_size=2)
    assert last.method == "scorecam++"
    *previews, last = explainer.explain_iter(photograph, augment=3)
    assert last.method == row_of(explainer.bundle.manifest).method
    assert [e.stats.copies for e in (*previews, last)] == [1, 2, 3]


def test_a_layer_inside_a_branch_has_a_method_too(branch_bundle: Path, photograph: Path) -> None:
    explainer = ortcam.load(branch_bundle)
    e = explainer.explain(photograph)
    assert e.method == row_of(explainer.bundle.manifest).method
    assert e.stats.passes or e.stats.gradient_passes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "sigmoid"}, r"auto: the option 'gate' goes with a method: name one that has it, scorecam\+\+"),
        ({"nonsense": 1}, "auto: unknown option 'nonsense'; accepted: none of its own, and of every method augment"),
        ({"sampling_error": 0.1}, "sampling_error with auto: goes with methods that take a mean over samples"),
    ],
)
def test_an_option_of_a_method_needs_its_name(options: dict, message: str) -> None:
    with pytest.raises(ortcam.OptionError, match=message):
        ExplainRequest.of(**options)


def test_the_name_is_taken_and_stands_in_no_table() -> None:
    assert resolve_method("AUTO", {}).method is AUTO_METHOD
    assert AUTO_METHOD not in tuple(METHODS)
    with pytest.raises(ortcam.OptionError, match="the name 'auto' is taken"):
        register(dataclasses.replace(METHODS[0], name="auto", aliases=()))


def test_an_evaluation_says_what_auto_stands_for(tiny_bundle: Path) -> None:
    manifest = ortcam.read_bundle(tiny_bundle).manifest
    first, other = for_bundle(parse_entries(["auto:augment=2", "cam"]), manifest)
    method = first.request.settings.method
    assert (first.name, first.title) == ("auto:augment=2", f"Automatic: {method.title} (augment 2)")
    assert first.chosen.startswith(method.name)
    assert first.request.settings.augmentation.copies == 2
    assert (other.title, other.chosen) == ("CAM", None)


@pytest.mark.slow
def test_the_command_line_says_it_in_a_line(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = row_of(ortcam.read_bundle(tiny_bundle).manifest)
    command = ["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path)]
    assert main(command) == 0
    assert f"auto: {row.line}" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "photo" / row.method / "manifest.json").is_file()
    assert main([*command, "-m", f"auto,{row.method}", "--json"]) == 0  # the same twice is explained once
    (explanation,) = json.loads(capsys.readouterr().out)["explanations"]
    assert explanation["chosen"] == row.line
    (tmp_path / "other.png").write_bytes(photograph.read_bytes())
    assert main([*command[:3], str(tmp_path / "other.png"), *command[3:]]) == 0
    assert capsys.readouterr().out.count(f"auto: {row.line}") == 1  # once for all images


@pytest.mark.slow
@pytest.mark.parametrize("names", ["auto,scorecam", "scorecam,auto"])
def test_a_method_that_is_named_goes_before_the_same_with_what_auto_adds(
    names: str, tiny_bundle: Path, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = kind_of(ortcam.read_bundle(tiny_bundle).manifest)
    monkeypatch.setattr(auto, "AUTO", (AutoRow(kind, "scorecam", {"budget": 0.5}, "so"),))
    command = ["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path), "-m", names]
    assert main(command) == 0
    (manifest,) = tmp_path.rglob("manifest.json")  # both would be in the same folder
    saved = json.loads(manifest.read_text("utf-8"))
    assert (saved["method"], saved["chosen"], saved["limits"]["budget"]) == ("scorecam", None, None)
    assert main(command) == 0  # nothing else is there that would be lost


def test_the_table_is_printed_with_the_common_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "auto"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    for row in AUTO:
        assert f"{KINDS[row.kind]} {row.line}" in words
    assert "augment_combine" in words
    assert main(["methods", "--json"]) == 0
    first, *others = json.loads(capsys.readouterr().out)
    assert (first["name"], first["default"]) == ("auto", True)
    assert not any(item["default"] for item in others)
