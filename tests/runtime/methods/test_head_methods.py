"""Methods that mask no image: what they give, what they cost, and which heads they refuse; small numbers by hand."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.methods.heads import head_of

import ortcam
from ortcam.bundle import Cut
from ortcam.cli import main
from ortcam.engine.features import as_maps, from_maps, prefix_tokens
from ortcam.methods import GRADIENT_METHODS, HEAD_METHODS, MASKED_METHODS, METHODS, Head, resolve_method
from ortcam.methods.head_only import ablation_cam, eigen_cam, recipro_cam

NAMES = ("recipro-cam", "ablation-cam", "eigen-cam", "cam")
NO_PREFIX = np.zeros((0, 2), np.float32)


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> ortcam.Explainer:
    return ortcam.load(tiny_bundle, providers=["CPUExecutionProvider"])


# By hand ------------------------------------------------------------------------------------------------------------

# Two channels of 2 x 2 positions; one logit, twice the first channel's sum less the second's.
MAPS = np.array([[[1, 0], [2, 0]], [[0, 3], [0, 1]]], np.float32)


def two_less_one(features: NDArray[np.float32]) -> NDArray[np.float32]:
    sums = features.sum(axis=(2, 3))
    return (2 * sums[:, :1] - sums[:, 1:]).astype(np.float32)


def explained(method: Callable, head: Head, maps: NDArray[np.float32] = MAPS, **options: object) -> NDArray[np.float64]:
    return method(maps, NO_PREFIX, head, targets=np.array([0]), score="logit", **options)


def test_recipro_cam_reads_one_position_at_a_time() -> None:
    raw = explained(recipro_cam, head_of(two_less_one), kernel="single").raw[0]
    np.testing.assert_array_equal(raw, np.array([[2, -3], [4, -1]]) + 3)


def test_recipro_cam_leaves_a_gaussian_around_a_position_or_spreads_it() -> None:
    position = np.array([[2, -3], [4, -1]], np.float64)
    kernel = np.array([[4, 2], [2, 1]]) / 16
    left = [[(kernel[abs(i - r), abs(j - c)] * position[r, c], r, c) for r in (0, 1) for c in (0, 1)]
            for i in (0, 1) for j in (0, 1)]  # fmt: skip
    sums = np.array([sum(value for value, *_ in cell) for cell in left]).reshape(2, 2)
    raw = explained(recipro_cam, head_of(two_less_one), kernel="gaussian").raw[0]
    np.testing.assert_allclose(raw, sums - sums.min(), atol=1e-6)
    spread = position * kernel.sum()  # what of the kernel is inside, the same for all corners
    raw = explained(recipro_cam, head_of(two_less_one), kernel="gaussian-spread").raw[0]
    np.testing.assert_allclose(raw, spread - spread.min(), atol=1e-6)


def test_ablation_cam_weighs_by_the_share_of_the_logit_that_is_lost() -> None:
    result = explained(ablation_cam, head_of(two_less_one), logits=np.array([2], np.float32))
    np.testing.assert_array_equal(result.weights, [[(2 - -4) / 2, (2 - 6) / 2]])
    np.testing.assert_array_equal(result.raw[0], 3 * MAPS[0] - 2 * MAPS[1])


def test_ablation_cam_keeps_the_sign_of_what_is_lost_where_the_logit_is_negative_or_zero() -> None:
    for logit in (-8, 0):
        head = head_of(lambda features, logit=logit: two_less_one(features) + np.float32(logit - 2))
        result = explained(ablation_cam, head, logits=np.array([logit], np.float32))
        np.testing.assert_array_equal(np.sign(result.weights), [[1, -1]])


def test_ablation_cam_passes_over_channels_that_are_zero_and_gives_them_no_weight() -> None:
    head = head_of(two_less_one)
    maps = MAPS * np.array([1, 0], np.float32)[:, None, None]
    result = explained(ablation_cam, head, maps, logits=np.array([6], np.float32))
    np.testing.assert_array_equal(result.weights, [[1, 0]])
    assert head.passes == 1
    head = head_of(two_less_one)
    assert not explained(ablation_cam, head, 0 * MAPS, logits=np.array([0], np.float32)).raw.any()
    assert head.passes == head.runs == 0


def test_eigen_cam_finds_the_pattern_that_the_channels_share() -> None:
    pattern = np.array([[0, 1], [2, 3]], np.float32)
    for strengths in ([3, 4], [-3, -4], [3, -4]):
        maps = np.array(strengths, np.float32)[:, None, None] * pattern
        result = eigen_cam(maps, classes=2, center=False)
        np.testing.assert_allclose(result.raw, [5 * pattern] * 2, atol=1e-6)
        np.testing.assert_allclose(result.weights, [np.array(strengths) / 5] * 2, atol=1e-6)
        centred = eigen_cam(maps, classes=1, center=True)
        np.testing.assert_allclose(centred.raw[0], 5 * (pattern - pattern.mean()), atol=1e-6)


@pytest.mark.parametrize("center", [False, True])
def test_eigen_cam_of_nothing_is_nothing(center: bool) -> None:
    for maps in (0 * MAPS, *([np.full((2, 2, 2), 0.7, np.float32)] if center else [])):
        result = eigen_cam(maps, classes=1, center=center)
        assert not result.raw.any()
        assert not result.weights.any()


@pytest.mark.parametrize(
    ("layout", "prefix", "shape"), [("nchw", 0, (3, 2, 4)), ("nhwc", 0, (2, 4, 3)), ("tokens", 2, (10, 3))]
)
def test_maps_go_back_to_the_features_they_came_from(layout: str, prefix: int, shape: tuple[int, ...]) -> None:
    cut = Cut("features", None, layout, 3, 2, 4, prefix)
    features = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    maps = as_maps(features, cut)
    np.testing.assert_array_equal(from_maps(maps[None], prefix_tokens(features, cut), cut), features)


def test_prefix_tokens_are_left_as_they_are() -> None:
    seen: list[NDArray[np.float32]] = []

    def run(features: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(features)
        return features[:, :, 0].sum(axis=1, keepdims=True)

    prefix = np.array([[7, 8]], np.float32)
    head = head_of(run, layout="tokens", prefix=1)
    recipro_cam(MAPS, prefix, head, targets=np.array([0]), kernel="single", score="logit")
    ablation_cam(MAPS, prefix, head, logits=np.ones(1, np.float32), targets=np.array([0]), score="logit")
    for features in seen:
        np.testing.assert_array_equal(features[:, 0], np.broadcast_to(prefix, (len(features), 2)))


# On a bundle ----------------------------------------------------------------------------------------------------------


def test_the_masked_methods_come_first_and_the_others_behind_them() -> None:
    first = (*MASKED_METHODS, *HEAD_METHODS, *GRADIENT_METHODS)
    assert tuple(METHODS)[: len(first)] == first
    assert tuple(method.name for method in HEAD_METHODS) == NAMES


@pytest.mark.parametrize("method", NAMES)
def test_an_explanation_has_the_documented_shapes_types_and_counts(
    explainer: ortcam.Explainer, photograph: Path, method: str
) -> None:
    seen: list[tuple[int, int]] = []
    e = explainer.explain(photograph, method=method, top_k=3, progress=lambda *counts: seen.append(counts))
    assert e.maps.shape == (3, 32, 48)
    assert e.raw_maps.shape == (3, 8, 12)
    assert e.weights.shape == (3, 10)
    assert e.maps.dtype == e.raw_maps.dtype == e.weights.dtype == np.float32
    assert [float(m.max()) for m in e.maps[~e.flat]] == [1.0] * int((~e.flat).sum())
    assert e.maps.min() == 0
    assert e.stats.passes == 0
    live = e.stats.live_channels
    passes = {"recipro-cam": 96, "ablation-cam": live, "eigen-cam": 0, "cam": 10 + 17}[method]
    assert e.stats.head_passes == passes
    assert seen[-1:] == ([(passes, passes)] if passes else [])
    assert len(seen) == e.stats.runs
    np.testing.assert_array_equal(e.probabilities, explainer.predict(photograph)[list(e.targets)])
    assert f"{passes} {'passes of the head' if passes else 'forward passes'}" in repr(e)
    json.dumps(e.summary())


def test_cam_asks_the_head_once_for_all_images_and_classes(tiny_bundle: Path, picture: np.ndarray) -> None:
    explainer = ortcam.load(tiny_bundle, providers=["CPUExecutionProvider"])
    first = explainer.explain(picture, method="cam", target=[0, 1])
    second = explainer.explain(picture[:, ::-1], method="cam", target=[1, 2])
    assert (first.stats.head_passes, second.stats.head_passes) == (27, 0)
    np.testing.assert_array_equal(first.weights[1], second.weights[0])


def test_cam_is_ablation_cam_but_for_the_scale_where_the_head_is_linear(
    explainer: ortcam.Explainer, photograph: Path
) -> None:
    """There y - y_k = w_k mean A_k: the weights differ by the mean of each map and the logit."""
    by_layer, by_loss = (explainer.explain(photograph, method=m, target=[0, 3]) for m in ("cam", "ablation-cam"))
    means = explainer.features(photograph).mean((1, 2))
    lost = by_layer.weights * means
    ratio = (by_loss.weights * lost).sum(axis=1, keepdims=True) / (lost * lost).sum(axis=1, keepdims=True)
    assert (ratio > 0).all()
    np.testing.assert_allclose(by_loss.weights, ratio * lost, rtol=0, atol=1e-4 * np.abs(by_loss.weights).max())


def test_eigen_cam_gives_all_classes_one_map(explainer: ortcam.Explainer, photograph: Path) -> None:
    e = explainer.explain(photograph, method="eigen-cam", top_k=3)
    for index in (1, 2):
        np.testing.assert_array_equal(e.maps[index], e.maps[0])
        np.testing.assert_array_equal(e.weights[index], e.weights[0])
    assert e.raw_maps.min() >= 0  # its features are


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("method", ["recipro-cam", "ablation-cam", "cam"])
@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_the_batch_size_does_not_change_the_result(
    tiny_bundle: Path, photograph: Path, method: str, batch_size: int
) -> None:
    usual, other = (
        ortcam.load(tiny_bundle, providers=["CPUExecutionProvider"]).explain(
            photograph, method=method, target=[0, 1, 2], batch_size=size
        )
        for size in (32, batch_size)
    )
    np.testing.assert_allclose(other.maps, usual.maps, rtol=0, atol=1e-5)
    assert other.stats.head_passes == usual.stats.head_passes


@pytest.mark.parametrize("method", NAMES)
def test_several_targets_at_once_are_each_what_they_are_alone(
    explainer: ortcam.Explainer, photograph: Path, method: str
) -> None:
    together = explainer.explain(photograph, method=method, target=[4, 0, 2])
    for index, target in enumerate((4, 0, 2)):
        alone = explainer.explain(photograph, method=method, target=target)
        np.testing.assert_allclose(alone.maps[0], together.maps[index], rtol=0, atol=1e-6)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["recipro-cam", "ablation-cam", "cam"])
def test_a_cut_in_a_branch_leaves_no_head_to_ask(branch_bundle: Path, photograph: Path, method: str) -> None:
    explainer = ortcam.load(branch_bundle, providers=["CPUExecutionProvider"])
    message = (
        f"{method}: needs the head .* none, since its layer lies inside a branch; methods that work here: "
        r"scorecam, scorecam\+\+, sscam, iscam, eigen-cam, grad-cam, .*finer-cam"
    )
    with pytest.raises(ortcam.OptionError, match=message):
        explainer.explain(photograph, method=method)


def test_eigen_cam_needs_no_head(branch_bundle: Path, explainer: ortcam.Explainer, photograph: Path) -> None:
    branch = ortcam.load(branch_bundle, providers=["CPUExecutionProvider"])
    here, there = (e.explain(photograph, method="eigen-cam") for e in (branch, explainer))
    np.testing.assert_allclose(here.maps, there.maps, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("recipro-cam", {"kernel": "box"}, "kernel='box' is not accepted; accepted: single, gaussian, gaussian-spread"),
        ("recipro-cam", {"weighting": "probability"}, "unknown option 'weighting'; accepted: kernel, score"),
        ("ablation-cam", {"score": "logits"}, "accepted: logit, probability"),
        ("eigen-cam", {"center": "maybe"}, "accepted: true or false"),
        ("cam", {"score": "logit"}, "cam: unknown option 'score'; accepted: none"),
        ("reciprocam ", {}, "did you mean 'recipro-cam'"),
    ],
)
def test_an_option_that_is_not_accepted_is_named(method: str, options: dict, message: str) -> None:
    with pytest.raises(ortcam.OptionError, match=message):
        resolve_method(method, options)


# The command line -----------------------------------------------------------------------------------------------------


def test_the_command_line_takes_them_like_any_other(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["explain", str(tiny_bundle), str(photograph), "-o", str(tmp_path), "-m", "recipro-cam,EigenCAM,cam"]
    assert main([*arguments, "--option", "kernel=gaussian", "--option", "center=true"]) == 0
    printed = capsys.readouterr().out
    assert "96 passes of the head" in printed
    assert "no forward passes" in printed
    manifest = json.loads((tmp_path / "photo" / "recipro-cam" / "manifest.json").read_text("utf-8"))
    assert manifest["options"] == {"kernel": "gaussian", "score": "probability"}
    assert manifest["stats"]["head_passes"] == 96
    assert (tmp_path / "photo" / "eigen-cam" / "manifest.json").is_file()


def test_the_command_line_refuses_in_one_line(
    branch_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(branch_bundle), str(photograph), "-o", str(tmp_path), "-m", "ablation-cam"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("ortcam: ablation-cam: needs the head")


def test_stats_of_masked_methods_count_no_head_passes(explainer: ortcam.Explainer, photograph: Path) -> None:
    stats = explainer.explain(photograph, method="scorecam").stats
    assert stats.head_passes == 0
    assert dataclasses.replace(stats, passes=7).passes_in_words == "7 forward passes"
