"""The gradient methods against plain loops with autograd in float64, and against torch-cam and pytorch-grad-cam."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ortcam import Explanation
from ortcam.methods import GRADIENT_METHODS, resolve_method
from tests.common.sharing import export_once
from tests.common.tolerances import EPS
from tests.parity.cases import (
    BOUND,
    Case,
    PooledNet,
    SmallNet,
    assert_mostly_close,
    assert_within_bound,
    open_case,
    real_case,
    small_case,
    small_image,
)
from tests.parity.reference import Result

pytestmark = pytest.mark.slow

ALL = [0, 1, 2, 3, 4]
# Options that are compared; `layer` has tests of its own.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "grad-cam": {},
    "grad-cam++": {"epsilon": [0, 1e-3]},
    "xgrad-cam": {"epsilon": [0, 1e-3]},
    "layer-cam": {},
    "hires-cam": {},
    "smooth-grad-cam++": {"num_samples": [4, 2], "std": [0.3, 0.1], "seed": [0, 5], "epsilon": [0, 1e-3]},
    "finer-cam": {"strength": [0.6, 1.5], "references": [3, 1], "weighting": ["mean", "probability"]},
}
NETWORKS = ["small", "small_signed", "small_transformer", "small_multilabel", "small_branch", "nhwc", "tokens"]
# A single block behind the layer: there the products of gradient and features cancel at each token.
CANCELLING = "small_transformer"


@pytest.fixture(scope="module")
def nhwc(shared) -> Case:
    return small_case(PooledNet("nhwc", hidden=True), shared / "nhwc", size=(48, 80))


@pytest.fixture(scope="module")
def tokens(shared) -> Case:
    """6 x 10 patches and no class token."""
    return small_case(PooledNet("tokens", hidden=True), shared / "tokens", size=(48, 80))


@pytest.fixture(scope="module")
def layered(shared) -> Case:
    """Three layers of 64 x 64 images: 8 channels of 16 x 16 behind a ReLU; before it the same, and 6 of 32 x 32."""
    folder = shared / "layered"
    folder.mkdir(exist_ok=True)
    module = SmallNet().eval()
    spec: dict[str, Any] = {"input_size": (64, 64), "mean": (0.4, 0.5, 0.6), "std": (0.25, 0.2, 0.3)}
    export_once(module, folder / "bundle", layer="first,last,features", labels=list("abcde"), **spec)
    return open_case(module, folder / "bundle", threads=1)


def picture(case: Case) -> NDArray[np.uint8]:
    preprocessing = case.explainer.bundle.manifest.preprocessing
    return small_image(preprocessing.height, preprocessing.width)


def expected(case: Case, image: Any, method: str, targets: list[int], *, jitter: float = 0, **options: Any) -> Result:
    name = method.replace("++", "-plus-plus").replace("-", "_")
    reference = case.gradient_reference(image)
    reference.jitter = jitter
    result: Result = getattr(reference, name)(targets, **options)
    return result


def relative(weights: Tensor, expected: Tensor) -> float:
    """How far weights [K,C] are from others, at most, relative to the largest of their class."""
    scale = expected.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    return float(((weights - expected).abs() / scale).max())


def bound_of(case: Case, image: Any, method: str, result: Result, layer: int = 0, **options: Any) -> float:
    """How far a map may be from the reference: 1e-4, but for Grad-CAM++ of features of either sign.

    There its denominator comes close to zero, so that the rounding of a gradient in float32 may change the map by more.
    What roundings of a few units in the last place change in the reference is then taken, three times over.
    """
    if "++" not in method or not (case.gradient_reference(image).A[layer] < 0).any():
        return BOUND
    found = [0.0]
    for roundings in (1, 2, 3, 4):
        options = options | ({"layer": layer} if layer else {})
        other = expected(case, image, method, ALL, jitter=roundings * EPS, **options)
        found.append(float((other.maps - result.maps).abs().max()))
        found.append(relative(other.weights, result.weights))
    return max(BOUND * (1 + EPS), 3 * max(found))  # another number than the promised one


def combinations(method: str) -> list[dict[str, Any]]:
    """Every value of every option, the others at their defaults."""
    grid = GRIDS[method]
    usual = {name: values[0] for name, values in grid.items()}
    return [usual, *(usual | {name: value} for name, values in grid.items() for value in values[1:])]


def assert_raw_within_bound(explanation: Explanation, result: Result, what: str) -> None:
    atol = BOUND * float(result.raw.abs().max())
    np.testing.assert_allclose(explanation.raw_maps, result.raw, rtol=0, atol=atol, err_msg=what)


def test_the_combinations_hold_every_option_and_name() -> None:
    assert [method.name for method in GRADIENT_METHODS] == list(GRIDS)
    for method in GRADIENT_METHODS:
        options = resolve_method(method.name, {}).options
        assert {name: options[name] for name in options if name != "layer"} == combinations(method.name)[0]
        for option in method.options:
            if isinstance(option.default, str) and option.name != "layer":
                assert GRIDS[method.name][option.name] == option.accepted.split(", ")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", GRIDS)
def test_every_combination_of_options_is_a_loop_with_autograd_in_float64(method, request) -> None:
    differences = []
    for network, options in itertools.product(NETWORKS, combinations(method)):
        if (method, network) == ("hires-cam", CANCELLING):
            continue
        case = request.getfixturevalue(network)
        image = picture(case)
        explanation = case.explainer.explain(image, method=method, target=ALL, **options)
        result = expected(case, image, method, ALL, **options)
        what = f"{network} {method} {options}"
        bound = bound_of(case, image, method, result, **options)
        found = assert_within_bound(explanation, result, what, bound=bound)
        if bound == BOUND:
            differences.append(found)
            assert_raw_within_bound(explanation, result, what)
    assert_mostly_close(differences)


@pytest.mark.usefixtures("one_thread")
def test_hires_cam_of_tokens_before_a_block_is_nothing(small_transformer) -> None:
    image = picture(small_transformer)
    explanation = small_transformer.explainer.explain(image, method="hires-cam", target=ALL)
    assert explanation.flat.all()
    reference = small_transformer.gradient_reference(image)
    exact = expected(small_transformer, image, "hires-cam", ALL).raw.abs().amax(dim=(1, 2))
    total = torch.stack(
        [(reference.gradients(lambda logits, c=c: logits[c]) * reference.A[0]).abs().sum(dim=0).max() for c in ALL]
    )
    assert (exact <= 1e-5 * total).all(), "the features are scaled away by a normalisation"


@pytest.mark.usefixtures("one_thread")
def test_one_sigmoid_is_explained(small_binary) -> None:
    image = picture(small_binary)
    for method in ("grad-cam", "grad-cam++", "xgrad-cam", "layer-cam", "hires-cam"):
        explanation = small_binary.explainer.explain(image, method=method)
        assert_within_bound(explanation, expected(small_binary, image, method, [0]), method)


# Several layers -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "xgrad-cam", "layer-cam", "hires-cam"])
def test_each_layer_of_a_bundle_is_explained_as_its_own(layered, method) -> None:
    image = picture(layered)
    manifest = layered.explainer.bundle.manifest
    names = [cut.module for cut in manifest.cuts.values()]
    assert names[0] == "features"
    assert set(names) == {"first", "last", "features"}
    for place, name in enumerate(names):
        explanation = layered.explainer.explain(image, method=method, target=ALL, layer=name)
        result = expected(layered, image, method, ALL, layer=place)
        what = f"{method} at {name}"
        bound = bound_of(layered, image, method, result, place)
        assert_within_bound(explanation, result, what, bound=bound)
        if bound == BOUND:
            assert_raw_within_bound(explanation, result, what)
        assert explanation.summary()["layers"] == [name]
        cut = list(manifest.cuts.values())[place]
        assert explanation.cells == explanation.raw_maps.shape[1:] == (cut.height, cut.width)


@pytest.mark.usefixtures("one_thread")
def test_layer_cam_fuses_the_layers(layered) -> None:
    image = picture(layered)
    explanation = layered.explainer.explain(image, method="layer-cam", target=ALL)
    result = layered.gradient_reference(image).fused_layer_cam(ALL)
    assert_within_bound(explanation, result, "fused")
    assert_raw_within_bound(explanation, result, "fused")
    assert explanation.cells == (32, 32)
    assert explanation.stats.runs == 1
    primary = layered.explainer.explain(image, method="layer-cam", target=ALL, layer="primary")
    assert np.abs(primary.maps - explanation.maps).max() > 0.05


def test_all_layers_of_another_method_are_fused_alike(layered) -> None:
    image = picture(layered)
    explanation = layered.explainer.explain(image, method="grad-cam", target=ALL, layer="all")
    single = [
        layered.explainer.explain(image, method="grad-cam", target=ALL, layer=name)
        for name in explanation.summary()["layers"]
    ]
    assert len(single) == 3
    np.testing.assert_array_equal(explanation.weights, np.concatenate([one.weights for one in single], axis=1))


# The libraries people know, on real weights and photographs -----------------------------------------------------------


@pytest.fixture(scope="module")
def resnet_112(data, shared) -> Case:
    return real_case("resnet18", data, shared / "resnet18", size=112)


@pytest.fixture(scope="module")
def deit(data, shared) -> Case:
    return real_case("deit_tiny", data, shared / "deit")


@pytest.fixture(scope="module")
def mobilenet_96(data, shared) -> Case:
    return real_case("mobilenet_v2", data, shared / "mobilenet_96", size=96)


PHOTOGRAPHS = ("val_0005.jpg", "val_0012.jpg")
REAL = ["squeezenet_96", "resnet_112", "mobilenet_96", "deit"]
# Small networks of tokens are compared above, within what rounding does to the reference.
POLES = (
    "behind eleven blocks in float32 the denominator of Grad-CAM++ comes so close to 0 that rounding decides the map"
)
# ortcam's method and the options with which it is theirs.
GRAD_CAM: dict[str, tuple[str, dict[str, Any]]] = {
    "GradCAM": ("grad-cam", {}),
    "GradCAMPlusPlus": ("grad-cam++", {"epsilon": 1e-6}),
    "XGradCAM": ("xgrad-cam", {"epsilon": 1e-7}),
    "LayerCAM": ("layer-cam", {}),
    "HiResCAM": ("hires-cam", {}),
}
TORCH_CAM: dict[str, tuple[str, dict[str, Any]]] = {
    "GradCAM": ("grad-cam", {}),
    "XGradCAM": ("xgrad-cam", {"epsilon": 1e-8}),
    "LayerCAM": ("layer-cam", {}),
}


def the_classes(case: Case, image: Any) -> list[int]:
    """The two most probable, and one that the image does not show."""
    order = np.argsort(-case.explainer.predict(image))
    return [int(order[0]), int(order[1]), int(order[-1])]


def token_transform(case: Case) -> Callable[[torch.Tensor], torch.Tensor] | None:
    from tests.parity.reference import maps_of

    cut = case.explainer.bundle.manifest.cut
    return maps_of(cut) if cut.layout == "tokens" else None


def low_resolution(raw: NDArray[Any]) -> NDArray[np.float64]:
    """ReLU and min-max of a raw map, [h,w]; zeros if nothing is positive."""
    positive = np.maximum(raw.astype(np.float64), 0)
    return (positive - positive.min()) / (np.ptp(positive) or 1)


def assert_same_map(ours: NDArray[np.float32], theirs: NDArray[Any], what: str) -> None:
    scale = np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= BOUND * scale, f"{what}: {np.abs(ours - theirs).max() / scale:.1e}"
    difference = np.abs(low_resolution(ours) - low_resolution(theirs)).max()
    assert difference <= BOUND, f"{what}: {difference:.1e}"


def grad_cam_map(cam_type: Any, case: Case, image: Any, target: int) -> NDArray[np.float32]:
    """The map of pytorch-grad-cam before ReLU, at the resolution of the layer."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = case.module.get_submodule(case.explainer.bundle.manifest.cut.module)
    with cam_type(case.module, [layer], reshape_transform=token_transform(case)) as theirs:
        X = torch.from_numpy(case.explainer.preprocess(image)).requires_grad_()
        logits = theirs.activations_and_grads(X)
        case.module.zero_grad()
        logits[0, target].backward()
        activations, gradients = (
            found[0].numpy()
            for found in (theirs.activations_and_grads.activations, theirs.activations_and_grads.gradients)
        )
        found: NDArray[np.float32] = theirs.get_cam_image(
            X, layer, [ClassifierOutputTarget(target)], activations, gradients, False
        )[0]
    return found


@pytest.mark.parametrize("classifier", REAL)
@pytest.mark.parametrize("name", GRAD_CAM)
def test_the_maps_are_pytorch_grad_cams(classifier, name, data, request) -> None:
    cam_type = getattr(pytest.importorskip("pytorch_grad_cam"), name)
    case = request.getfixturevalue(classifier)
    method, options = GRAD_CAM[name]
    if (classifier, method) == ("deit", "grad-cam++"):
        pytest.skip(POLES)
    for photograph in PHOTOGRAPHS:
        image = data / "images" / photograph
        targets = the_classes(case, image)
        ours = case.explainer.explain(image, method=method, target=targets, **options)
        for index, target in enumerate(targets):
            theirs = grad_cam_map(cam_type, case, image, target)
            if (classifier, method) == ("deit", "hires-cam"):  # both are rounding
                assert ours.flat.all()
                continue
            assert_same_map(ours.raw_maps[index], theirs, f"{name} {photograph} {target}")


@pytest.mark.parametrize("classifier", REAL[:-1])
@pytest.mark.parametrize("name", TORCH_CAM)
def test_the_maps_are_torch_cams(classifier, name, data, request) -> None:
    cam_type = getattr(pytest.importorskip("torchcam.methods"), name)
    case = request.getfixturevalue(classifier)
    method, options = TORCH_CAM[name]
    layer = case.explainer.bundle.manifest.cut.module
    for photograph in PHOTOGRAPHS:
        image = data / "images" / photograph
        targets = the_classes(case, image)
        ours = case.explainer.explain(image, method=method, target=targets, **options)
        for index, target in enumerate(targets):
            with cam_type(case.module, layer) as extractor:
                X = torch.from_numpy(case.explainer.preprocess(image)).requires_grad_()
                scores = case.module(X)
                (theirs,) = extractor(target, scores, normalized=False)
            positive = np.maximum(ours.raw_maps[index], 0)  # it cuts at zero before it normalises
            assert_same_map(positive, theirs[0].numpy(), f"{name} {photograph} {target}")


def test_finer_cam_is_pytorch_grad_cams(squeezenet_96, data) -> None:
    """By probability and at full strength, where the similar classes have more than its epsilon of 1e-9 together."""
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget

    case = squeezenet_96
    layer = case.module.get_submodule(case.explainer.bundle.manifest.cut.module)
    for photograph in PHOTOGRAPHS:
        image = data / "images" / photograph
        ours = case.explainer.explain(image, method="finer-cam", strength=1, weighting="probability")
        (target,) = ours.targets
        logits = case.gradient_reference(image).logits.detach().numpy()
        order = np.argsort(np.abs(logits - logits[target]), kind="stable").tolist()
        assert order[0] == target
        assert torch.from_numpy(logits).softmax(0)[order[1:4]].sum() > 1e-4
        with grad_cam.GradCAM(case.module, [layer]) as theirs:
            X = torch.from_numpy(case.explainer.preprocess(image)).requires_grad_()
            output = theirs.activations_and_grads(X)
            FinerWeightedTarget(target, order[1:4], 1)(output[0]).backward()
            gradients = theirs.activations_and_grads.gradients[0].numpy()
            activations = theirs.activations_and_grads.activations[0].numpy()
            raw = np.tensordot(gradients[0].mean(axis=(1, 2)), activations[0], axes=1)
        assert_same_map(ours.raw_maps[0], raw, photograph)


@pytest.mark.parametrize("classifier", REAL)
def test_the_methods_are_their_loops_on_real_weights(classifier, data, request) -> None:
    case = request.getfixturevalue(classifier)
    differences = []
    image = data / "images" / PHOTOGRAPHS[0]
    targets = the_classes(case, image)[:2]
    for method in GRIDS:
        if classifier == "deit" and (method == "hires-cam" or "++" in method):  # both are rounding; see POLES
            continue
        options = combinations(method)[0]
        explanation = case.explainer.explain(image, method=method, target=targets, **options)
        result = expected(case, image, method, targets, **options)
        bound = BOUND
        if (classifier, method) == ("deit", "xgrad-cam"):  # it divides by sums of 1 % of what is summed
            rounded = case.gradient_reference(image, torch.float32).xgrad_cam(targets, **options)
            bound = max(BOUND, 3 * relative(rounded.weights, result.weights))
        differences.append(assert_within_bound(explanation, result, f"{classifier} {method}", bound=bound))
    if classifier != "deit":  # eleven blocks in float32 move its maps by 2e-5, relative to those in float64
        assert_mostly_close(differences)


def test_the_module_is_left_as_it_was(squeezenet_96) -> None:
    """The comparisons above hook into it."""
    assert isinstance(squeezenet_96.module, nn.Module)
    assert not any(module._forward_hooks for module in squeezenet_96.module.modules())
