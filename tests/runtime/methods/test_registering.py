"""Methods of third parties: registered in a program or offered by an installed package, they work like ortcam's own."""

import dataclasses
import doctest
import importlib
import inspect
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.runtime.methods import toys
from tests.runtime.methods.toys import HEAD_ONLY, MASKED

import ortcam
from ortcam.benchmarking import benchmark
from ortcam.bundle.shipped import demo_image, sample_images
from ortcam.cli import main
from ortcam.errors import OptionError
from ortcam.methods import (
    METHODS,
    HeadScores,
    Method,
    Noise,
    Option,
    Plan,
    register,
    resolve_method,
    unregister,
)
from ortcam.methods.masked import MASKED_METHODS
from ortcam.methods.registry import Methods
from ortcam.methods.rules import RESERVED

SHIPPED = tuple(METHODS)


@pytest.fixture
def registered() -> Iterator[None]:
    for method in toys.TOYS:
        register(method)
    yield
    for method in toys.TOYS:
        unregister(method.name)


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load("shapes", providers=["CPUExecutionProvider"])


# In Python ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("registered")
def test_the_table_has_a_registered_method_behind_the_others() -> None:
    assert (*SHIPPED, MASKED, HEAD_ONLY) == tuple(ortcam.METHODS)
    assert resolve_method("ToyMask", {"steps": "2"}).plan.coefficients == (0.25, 0.5)
    assert (MASKED.masks_image, HEAD_ONLY.masks_image) == (True, False)


def test_a_method_that_is_taken_out_is_unknown_again() -> None:
    register(MASKED)
    unregister("toymask")
    assert tuple(METHODS) == SHIPPED
    with pytest.raises(OptionError, match="unknown method 'toy-mask'"):
        resolve_method("toy-mask", {})
    for name in ("toy-mask", "scorecam"):
        with pytest.raises(OptionError, match=f"'{name}' is no registered method"):
            unregister(name)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_masked_method_is_explained_by_its_plan(explainer: ortcam.Explainer) -> None:
    image = explainer.read(demo_image())
    toy = explainer.explain(image, method="toy-mask", batch_size=8)
    like = explainer.explain(image, method="iscam", num_samples=2, path="linear", batch_size=8)
    assert toy.title == "Toy mask"
    assert toy.stats.passes * 2 == like.stats.passes
    assert not np.array_equal(toy.weights, like.weights)
    assert explainer.explain(image, method="toy-mask", budget=10).stats.scored_channels == 10
    with pytest.raises(OptionError, match="toy-mask: steps=0 is not accepted; accepted: a whole number from 1 to 9"):
        explainer.explain(image, method="toy-mask", steps=0)


@pytest.mark.usefixtures("registered")
def test_a_head_only_method_gives_what_its_function_computes(explainer: ortcam.Explainer) -> None:
    image = explainer.read(demo_image())
    toy = explainer.explain(image, method="toy-head", top_k=2, dimming=1.0)
    np.testing.assert_allclose(toy.weights, np.repeat(toy.probabilities[:, None], toy.stats.channels, 1), atol=1e-6)
    features = explainer.features(image)
    np.testing.assert_allclose(toy.raw_maps, toy.probabilities[:, None, None] * features.sum(axis=0), rtol=1e-4)
    assert (toy.stats.head_passes, toy.stats.passes) == (1, 0)
    with pytest.raises(OptionError, match="budget with toy-head: goes with methods that mask the image"):
        explainer.explain(image, method="toy-head", budget=0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_what_is_saved_is_read_again_and_the_sheet_has_its_title(explainer: ortcam.Explainer, tmp_path: Path) -> None:
    found = [explainer.explain(demo_image(), method=name) for name in ("cam", "toy-head", "toy-mask")]
    for item in found:
        item.save(tmp_path / item.method)
    manifest = json.loads((tmp_path / "toy-head" / "manifest.json").read_text("utf-8"))
    assert (manifest["method"], manifest["options"]) == ("toy-head", {"dimming": 0.5, "score": "probability"})
    assert ortcam.sheet(found).ndim == 3
    (tmp_path / "toy-head" / "manifest.json").touch()
    found[1].save(tmp_path / "toy-head")  # the same again replaces nothing


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_benchmark_measures_them(tmp_path: Path) -> None:
    rows = benchmark("shapes", demo_image(), methods=["toy-mask", "toy-head"], runs=1, seconds=5).rows
    assert [row.method for row in rows] == ["toy-mask", "toy-head"]
    assert rows[0].all_passes > 0
    assert rows[1].head_passes == 1


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_an_evaluation_compares_them(tmp_path: Path) -> None:
    from ortcam.evaluation import evaluate

    images = [path for path in sample_images() if path.name != demo_image().name][:2]
    report = evaluate(
        "shapes", images, tmp_path / "out", methods=["toymask:steps=2:budget=20", "toy-head"], metrics=["complexity"]
    )
    assert not report.failures
    assert [item.title for item in report.results.variants[:2]] == ["Toy mask (steps 2, budget 20)", "Toy head"]
    table = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["table"]
    assert {"toy-mask:steps=2:budget=20", "toy-head"} < table.keys()
    with pytest.raises(OptionError, match="precision goes with methods that mask the image"):
        evaluate("shapes", images, tmp_path / "other", methods=["toy-head:precision=fp16"])


def test_eight_threads_may_register_at_once() -> None:
    table = Methods(MASKED_METHODS, plugins=list)
    threads = [
        threading.Thread(target=lambda place=place: table.register(dataclasses.replace(HEAD_ONLY, name=f"toy-{place}")))
        for place in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"toy-{place}" for place in range(8)} <= {method.name for method in table}


@pytest.mark.parametrize("module", ["method", "registry"])
def test_the_examples_of_the_documentation_work(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"ortcam.methods.{module}"))
    assert found.attempted
    assert not found.failed


# What is refused ------------------------------------------------------------------------------------------------------


def _option(name: str, default: object = 1) -> Option:
    return Option(name, default, "a whole number", int, "for a test")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "changed", "message"),
    [
        (MASKED, {"name": "scorecam"}, "method 'scorecam': the name 'scorecam' is taken by 'scorecam'"),
        (MASKED, {"aliases": ("ss-cam",)}, "method 'toy-mask': the name 'ss-cam' is taken by 'sscam'"),
        (MASKED, {"name": "Toy/Mask"}, "the name 'Toy/Mask' is not accepted; accepted: small letters, digits"),
        (MASKED, {"aliases": ("",)}, "the name '' is not accepted"),
        (MASKED, {"title": ""}, "title='' is not accepted; accepted: a text of one line"),
        (MASKED, {"summary": "two\nlines"}, "a text of one line"),
        (MASKED, {"plan": None}, "neither plan= nor compute= is given; accepted is one of them"),
        (MASKED, {"compute": toys.compute}, "plan= and compute= are both given; accepted is one of them"),
        (MASKED, {"plan": lambda _: None}, "plan= gives None, which is not accepted"),
        (MASKED, {"plan": lambda _: Plan(None, gate="gelu")}, "the gate 'gelu' is not accepted; accepted: tanh"),
        (MASKED, {"plan": Plan("after-upsampling")}, "is not accepted; accepted: a function"),
        (MASKED, {"plan": lambda _: Plan("before")}, "normalize='before' in a plan is not accepted; accepted: after-"),  # type: ignore[arg-type]
        (MASKED, {"plan": lambda _: Plan(None, maps="x")}, "maps='x' in a plan is not accepted; accepted: raw, norm"),  # type: ignore[arg-type]
        (MASKED, {"plan": lambda _: Plan(None, coefficients=())}, "a plan without a pass for each channel"),
        (MASKED, {"plan": lambda _: Plan(None, gate_sum=True)}, "there are no gated maps to sum"),
        (
            MASKED,
            {"plan": lambda _: Plan(None, gate="relu", noise=Noise(2, 0.1, "input", 0))},
            "noise in a plan with a gate: no bundle has a graph for both",
        ),
        (MASKED, {"aliases": "toy"}, "aliases='toy' is not accepted; accepted: a tuple"),
        (HEAD_ONLY, {"options": _option("a")}, "is not accepted; accepted: a tuple"),
        (HEAD_ONLY, {"compute": 3}, "3 is not accepted; accepted: a function"),
        (HEAD_ONLY, {"options": (_option("budget"),)}, "the option name 'budget' is taken by an argument of explain"),
        (HEAD_ONLY, {"options": (_option("a"), _option("a"))}, "'a' is taken by another option of the method"),
        (HEAD_ONLY, {"options": (_option("no-word"),)}, "the option name 'no-word' is not accepted"),
        (HEAD_ONLY, {"options": (_option("a", "x"),)}, "the default a='x' is not accepted; accepted: a whole number"),
        (HEAD_ONLY, {"options": ("a",)}, "the option 'a' is not accepted; accepted: an ortcam.methods.Option"),
    ],
)
def test_a_method_that_is_not_well_formed_is_refused(method: Method, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as raised:
        register(dataclasses.replace(method, **changed))
    assert message in str(raised.value)
    assert tuple(METHODS) == SHIPPED


def test_what_is_no_method_is_refused_and_the_same_method_twice_changes_nothing() -> None:
    with pytest.raises(OptionError, match=r"'toy' is no method; accepted is an ortcam\.methods\.Method"):
        register("toy")  # type: ignore[arg-type]
    table = Methods(MASKED_METHODS, plugins=list)
    for _ in range(2):
        table.register(HEAD_ONLY)
    assert len(table) == len(MASKED_METHODS) + 1
    with pytest.raises(OptionError, match="the name 'toy-head' is taken by 'toy-head'"):
        table.register(dataclasses.replace(HEAD_ONLY, title="Another"))


def test_no_option_can_be_called_as_an_argument_of_explain_is() -> None:
    faces = (ortcam.Explainer.explain, ortcam.Explainer.explain_iter, ortcam.Explainer.explain_many)
    taken = {name for face in faces for name in inspect.signature(face).parameters}
    assert taken - {"options", "arguments", "score"} <= RESERVED  # `score` reaches an option of this name


@pytest.mark.parametrize("part", ["raw", "weights"])
def test_maps_of_another_shape_are_refused(explainer: ortcam.Explainer, part: str) -> None:
    def wrong(inputs: Any, options: Any) -> HeadScores:
        scores = toys.compute(inputs, options)
        return dataclasses.replace(scores, **{part: getattr(scores, part)[:, :-1]})

    register(dataclasses.replace(HEAD_ONLY, compute=wrong))
    try:
        with pytest.raises(OptionError, match=r"toy-head: gives maps \[1, .*\] and weights \[1, .*; accepted is \[1,"):
            explainer.explain(demo_image(), method="toy-head")
    finally:
        unregister("toy-head")


@pytest.mark.parametrize("wrong", [[[[0.0]]], np.array([[["a"]]])])
def test_what_is_no_array_of_numbers_is_refused(explainer: ortcam.Explainer, wrong: Any) -> None:
    register(dataclasses.replace(HEAD_ONLY, compute=lambda *_: HeadScores(wrong, wrong)))
    try:
        with pytest.raises(OptionError, match=r"toy-head: gives .*; accepted are arrays of numbers"):
            explainer.explain(demo_image(), method="toy-head")
    finally:
        unregister("toy-head")


def test_no_method_and_no_caller_can_alter_what_other_explanations_use(explainer: ortcam.Explainer) -> None:
    def alter(inputs: Any, options: Any) -> HeadScores:
        inputs.maps[:] = 0
        return toys.compute(inputs, options)

    photograph = explainer.read(demo_image())
    before = explainer.explain(photograph, method="eigen-cam")
    explainer.predict(photograph)[:] = 0
    explainer.features(photograph)[:] = 0
    register(dataclasses.replace(HEAD_ONLY, compute=alter))
    try:
        with pytest.raises(ValueError, match="read-only"):
            explainer.explain(photograph, method="toy-head")
    finally:
        unregister("toy-head")
    after = explainer.explain(photograph, method="eigen-cam")
    np.testing.assert_array_equal(after.maps, before.maps)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)


def test_an_option_may_be_called_as_an_argument_of_the_code_is(explainer: ortcam.Explainer) -> None:
    register(dataclasses.replace(HEAD_ONLY, options=(*HEAD_ONLY.options, _option("cls")), compute=_without_cls))
    try:
        assert explainer.explain(demo_image(), method="toy-head", cls=3).options["cls"] == 3
    finally:
        unregister("toy-head")


def _without_cls(inputs: Any, options: Any) -> HeadScores:
    return toys.compute(inputs, {key: value for key, value in options.items() if key != "cls"})


def test_a_head_only_method_that_returns_something_else_is_refused(explainer: ortcam.Explainer) -> None:
    register(dataclasses.replace(HEAD_ONLY, compute=lambda *_: None))  # type: ignore[arg-type,return-value]
    try:
        with pytest.raises(OptionError, match=r"toy-head: gives None; accepted is an ortcam\.methods\.HeadScores"):
            explainer.explain(demo_image(), method="toy-head")
    finally:
        unregister("toy-head")


# The command line -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_the_command_line_explains_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", "shapes", str(demo_image()), "-o", str(tmp_path), "-m", "toy-mask,toy-head,cam"]
    assert main([*arguments, "--option", "steps=2", "--option", "dimming=0.25", "--budget", "8"]) == 0
    assert "of the head" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "mug-umbrella" / "toy-mask" / "manifest.json").read_text("utf-8"))
    assert manifest["options"] == {"steps": 2}
    assert manifest["limits"]["budget"] == 8


@pytest.mark.usefixtures("registered")
def test_lists_and_help_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*arguments: str) -> str:
        try:
            assert main(arguments) == 0
        except SystemExit as ended:
            assert ended.code == 0  # noqa: PT017 - of --help
        return " ".join(capsys.readouterr().out.split())

    assert "toy-mask forward passes: 1 per channel Score-CAM with darker masks." in printed("methods")
    assert "limits none: it is quick as it is" in printed("methods", "toy-head")
    assert [item["name"] for item in json.loads(printed("methods", "--json"))][-2:] == ["toy-mask", "toy-head"]
    assert "toy-mask, toy-head; with options, such as cam:augment=10" in printed("benchmark", "--help")
    assert "grad-attention, toy-mask" in printed("fuse", "--help")
    assert "sscam, iscam: stop sampling" in printed("explain", "--help-all")


@pytest.mark.usefixtures("registered")
def test_a_head_only_method_cannot_be_fused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuse", "shapes", "-m", "toy-head", "-o", str(tmp_path / "e.onnx")]) == 2
    assert "toy-head: cannot be fused; accepted is scorecam" in capsys.readouterr().err


# Installed packages ---------------------------------------------------------------------------------------------------


def test_a_plugin_that_fails_takes_no_other_with_it_and_warns_once() -> None:
    def failing() -> object:
        raise RuntimeError("out of order")

    offered = [
        SimpleNamespace(name="a", value="a:A", load=failing),
        SimpleNamespace(name="b", value="b:B", load=lambda: MASKED_METHODS[0]),
        SimpleNamespace(name="c", value="c:C", load=lambda: dataclasses.replace(HEAD_ONLY, name="cam")),
        SimpleNamespace(name="d", value="d:D", load=lambda: HEAD_ONLY),
    ]
    table = Methods(SHIPPED, plugins=lambda: offered)
    assert table.find("scorecam") is SHIPPED[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert table.find("toy-head") is HEAD_ONLY
        assert tuple(table) == (*SHIPPED, HEAD_ONLY)
    assert [str(item.message) for item in caught] == [
        "the method plugin 'a' (a:A) cannot be loaded: RuntimeError: out of order",
        "the method plugin 'c' (c:C) cannot be loaded: method 'cam': the name 'cam' is taken by 'cam'",
    ]
