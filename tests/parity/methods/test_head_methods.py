"""The methods that alter the features against plain loops in float64, and against torch-cam and pytorch-grad-cam."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray

from ortcam.methods import HEAD_METHODS, resolve_method
from tests.parity.cases import (
    BOUND,
    CLOSE,
    Case,
    PooledNet,
    assert_mostly_close,
    assert_within_bound,
    map_differences,
    small_case,
    small_image,
)
from tests.parity.reference import Result

pytestmark = pytest.mark.slow

ALL = [0, 1, 2, 3, 4]
GRIDS: dict[str, dict[str, list[Any]]] = {
    "recipro-cam": {"kernel": ["single", "gaussian", "gaussian-spread"], "score": ["probability", "logit"]},
    "ablation-cam": {"score": ["logit", "probability"]},
    "eigen-cam": {"center": [False, True]},
    "cam": {},
}
NETWORKS = ["small", "small_signed", "small_transformer", "small_multilabel", "nhwc", "tokens"]


@pytest.fixture(scope="module")
def nhwc(shared) -> Case:
    return small_case(PooledNet("nhwc", hidden=True), shared / "nhwc", size=(48, 80))


@pytest.fixture(scope="module")
def tokens(shared) -> Case:
    """6 x 10 patches and no class token."""
    return small_case(PooledNet("tokens", hidden=True), shared / "tokens", size=(48, 80))


def picture(case: Case) -> NDArray[np.uint8]:
    preprocessing = case.explainer.bundle.manifest.preprocessing
    return small_image(preprocessing.height, preprocessing.width)


def expected(case: Case, image: Any, method: str, targets: list[int], **options: Any) -> Result:
    reference = case.head_reference(image)
    result: Result = getattr(reference, method.replace("-", "_"))(targets, **options)
    return result


def combinations(method: str) -> list[dict[str, Any]]:
    grid = GRIDS[method]
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def test_the_combinations_hold_every_name_that_an_option_accepts():
    assert [method.name for method in HEAD_METHODS] == list(GRIDS)
    for method in HEAD_METHODS:
        grid = GRIDS[method.name]
        assert resolve_method(method.name, {}).options == {key: values[0] for key, values in grid.items()}
        for option in method.options:
            if isinstance(option.default, str):
                assert grid[option.name] == option.accepted.split(", ")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", ["recipro-cam", "ablation-cam", "eigen-cam"])
def test_every_combination_of_options_is_a_loop_over_positions_or_channels(method, request):
    differences = []
    for network, options in itertools.product(NETWORKS, combinations(method)):
        case = request.getfixturevalue(network)
        image = picture(case)
        explanation = case.explainer.explain(image, method=method, target=ALL, **options)
        result = expected(case, image, method, ALL, **options)
        what = f"{network} {method} {options}"
        differences.append(assert_within_bound(explanation, result, what))
        atol = BOUND * float(result.raw.abs().max())
        np.testing.assert_allclose(explanation.raw_maps, result.raw, rtol=0, atol=atol, err_msg=what)
    assert_mostly_close(differences)


def test_the_layouts_are_those_that_the_names_say(nhwc, tokens, small_transformer, small):
    cuts = [case.explainer.bundle.manifest.cut for case in (small, nhwc, tokens, small_transformer)]
    assert [cut.layout for cut in cuts] == ["nchw", "nhwc", "tokens", "tokens"]
    assert [cut.prefix_tokens for cut in cuts] == [0, 0, 0, 1]


def test_one_sigmoid_is_explained(small_binary):
    image = picture(small_binary)
    for method in ("recipro-cam", "ablation-cam", "eigen-cam"):
        explanation = small_binary.explainer.explain(image, method=method)
        assert_within_bound(explanation, expected(small_binary, image, method, [0]), method)


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_cam_sums_the_features_by_the_weights_of_the_linear_layer(layout, tmp_path):
    module = PooledNet(layout)
    case = small_case(module, tmp_path, size=(48, 80))
    assert case.explainer.bundle.manifest.cut.layout == layout
    image = picture(case)
    explanation = case.explainer.explain(image, method="cam", target=ALL)
    result = expected(case, image, "cam", ALL, linear=module.classifier)
    assert_within_bound(explanation, result, layout)
    assert map_differences(explanation, result).max() <= CLOSE


# The libraries people know.


@pytest.fixture(scope="module")
def resnet(shared) -> Case:
    torch.manual_seed(0)
    module = torchvision.models.resnet18(num_classes=5)
    return small_case(module, shared / "resnet", size=(96, 64), layer="layer4")


@pytest.fixture(scope="module")
def mobilenet(shared) -> Case:
    torch.manual_seed(0)
    module = torchvision.models.mobilenet_v2(num_classes=5)
    return small_case(module, shared / "mobilenet", size=(96, 64), layer="features")


@pytest.mark.parametrize(("network", "layer"), [("resnet", "fc"), ("mobilenet", "classifier.1")])
def test_cam_is_torch_cams(network, layer, request):
    CAM = pytest.importorskip("torchcam.methods").CAM
    case = request.getfixturevalue(network)
    image = picture(case)
    explanation = case.explainer.explain(image, method="cam", target=ALL)
    cut = case.explainer.bundle.manifest.cut.module
    for index, target in enumerate(ALL):
        with CAM(case.module, cut, layer) as extractor, torch.inference_mode():
            case.module(torch.from_numpy(case.explainer.preprocess(image)))
            (theirs,) = extractor(class_idx=target)
        raw = explanation.raw_maps[index].astype(np.float64)  # it does not cut at zero, as the paper does not
        full = (theirs[0].double() / theirs[0].double().max()).numpy()  # it adds 1e-8 to the span
        np.testing.assert_allclose((raw - raw.min()) / np.ptp(raw), full, rtol=0, atol=CLOSE)


def grad_cam_activations(cam: Any, case: Case, image: Any) -> tuple[torch.Tensor, NDArray[np.float32]]:
    X = torch.from_numpy(case.explainer.preprocess(image))
    cam.activations_and_grads(X)
    return X, cam.activations_and_grads.activations[0].numpy()


def test_ablation_cam_is_pytorch_grad_cams_but_for_the_sign_of_a_negative_logit(small):
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    image = picture(small)
    explanation = small.explainer.explain(image, method="ablation-cam", target=ALL)
    logits = small.head_reference(image).clean_logits
    assert (logits > 0).any()
    assert (logits < 0).any()
    for index, target in enumerate(ALL):
        layer = small.module.features
        with grad_cam.AblationCAM(small.module, [layer]) as theirs, torch.no_grad():
            X, activations = grad_cam_activations(theirs, small, image)
            assert activations.min() == 0, "where the features are signed it does not ablate to zero"
            weights = theirs.get_cam_weights(X, layer, [ClassifierOutputTarget(target)], activations, None)[0]
        assert small.module.features is layer
        theirs_for_the_class = weights * float(logits[target].sign())
        np.testing.assert_allclose(
            explanation.weights[index], theirs_for_the_class, rtol=0, atol=CLOSE * np.abs(weights).max()
        )


@pytest.mark.parametrize("network", ["small", "small_signed"])
def test_eigen_cam_with_the_mean_off_is_pytorch_grad_cams_but_for_its_sign(network, request):
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    case = request.getfixturevalue(network)
    image = picture(case)
    layer = case.module.get_submodule(case.explainer.bundle.manifest.cut.module)
    with grad_cam.EigenCAM(case.module, [layer]) as theirs, torch.no_grad():
        _, activations = grad_cam_activations(theirs, case, image)
        projected = theirs.get_cam_image(None, None, None, activations, None, False)[0]
    ours = case.explainer.explain(image, method="eigen-cam", center=True).raw_maps[0]
    sign = np.sign((ours * projected).sum())
    np.testing.assert_allclose(ours, sign * projected, rtol=0, atol=CLOSE * np.abs(projected).max())


# Real weights on photographs.


def test_the_head_methods_are_their_loops_on_real_weights(squeezenet_96, data):
    image = data / "images" / "val_0012.jpg"
    targets = np.argsort(-squeezenet_96.explainer.predict(image))[:5].tolist()
    differences = []
    for options in (
        {"method": "recipro-cam"},
        {"method": "recipro-cam", "kernel": "gaussian", "score": "logit"},
        {"method": "ablation-cam"},
        {"method": "eigen-cam"},
        {"method": "eigen-cam", "center": True},
    ):
        explanation = squeezenet_96.explainer.explain(image, target=targets, **options)
        result = expected(squeezenet_96, image, targets=targets, **options)
        differences.append(assert_within_bound(explanation, result, str(options)))
    assert_mostly_close(differences)
