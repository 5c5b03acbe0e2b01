"""The same weights and photograph in torch-cam and pytorch-grad-cam: with their options, ortcam gives their maps.

Both weigh by a softmax over channels of the class logit, where a baseline cancels, and sum the raw maps; they end at
the resolution of the features, so that is where the maps are compared, after ReLU and min-max.
"""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ortcam import Explanation
from tests.parity.cases import BOUND, CLOSE, Case, real_case
from tests.parity.reference import promised_noise

pytest.importorskip("torchcam")

from torchcam.methods import ISCAM, SSCAM, ScoreCAM

PHOTOGRAPH = "val_0005.jpg"
TORCH_CAM = {"weighting": "logit-softmax", "normalize": "before-upsampling"}
GRAD_CAM = {"weighting": "logit-softmax", "normalize": "after-upsampling"}


@pytest.fixture(scope="module")
def resnet_112(data, shared) -> Case:
    return real_case("resnet18", data, shared / "resnet18", size=112)


def low_resolution_map(raw: NDArray[Any]) -> NDArray[np.float64]:
    """ReLU and min-max of a raw map, [h,w]."""
    positive = np.maximum(raw.astype(np.float64), 0)
    return (positive - positive.min()) / (positive.max() - positive.min())


def explained(case: Case, image, **options) -> tuple[torch.Tensor, int, str, Explanation]:
    """X, the class, the layer, and ortcam's explanation."""
    X = torch.from_numpy(case.explainer.preprocess(image))
    explanation = case.explainer.explain(image, **options)
    layer = case.explainer.bundle.manifest.cut.module
    assert layer is not None
    return X, explanation.targets[0], layer, explanation


def torch_cam_map(extractor, case: Case, X: torch.Tensor, target: int) -> NDArray[np.float64]:
    with extractor, torch.inference_mode():
        case.module(X)
        (cam,) = extractor(class_idx=target)
    return cam[0].double().numpy()


def assert_same_map(ours: Explanation, theirs: NDArray[np.float64]) -> None:
    difference = np.abs(low_resolution_map(ours.raw_maps[0]) - theirs).max()
    assert difference <= CLOSE, f"{difference:.1e}"


@pytest.mark.long
@pytest.mark.parametrize("classifier", ["squeezenet", "resnet_112"])
def test_scorecam_is_torch_cams(classifier, data, request):
    case = request.getfixturevalue(classifier)
    X, target, layer, ours = explained(case, data / "images" / PHOTOGRAPH, method="scorecam", **TORCH_CAM)
    assert_same_map(ours, torch_cam_map(ScoreCAM(case.module, layer), case, X, target))


@pytest.mark.long
def test_iscam_is_torch_cams(squeezenet_96, data):
    X, target, layer, ours = explained(
        squeezenet_96, data / "images" / PHOTOGRAPH, method="iscam", num_samples=3, **TORCH_CAM
    )
    assert_same_map(ours, torch_cam_map(ISCAM(squeezenet_96.module, layer, num_samples=3), squeezenet_96, X, target))


@pytest.mark.long
def test_sscam_is_torch_cams_when_its_noise_is_shared_by_the_channels(squeezenet_96, data, monkeypatch):
    X, target, layer, ours = explained(
        squeezenet_96,
        data / "images" / PHOTOGRAPH,
        method="sscam",
        noise="activation",
        num_samples=2,
        seed=4,
        **TORCH_CAM,
    )
    extractor = SSCAM(squeezenet_96.module, layer, num_samples=2)
    samples = iter(range(2))

    def sample(shape: torch.Size) -> torch.Tensor:
        return (extractor.std * promised_noise(4, next(samples), tuple(shape[-2:]))).expand(shape)

    monkeypatch.setattr(extractor._distrib, "sample", sample)
    assert_same_map(ours, torch_cam_map(extractor, squeezenet_96, X, target))
    assert next(samples, None) is None


@pytest.mark.long
def test_scorecam_is_pytorch_grad_cams_but_for_the_corners_it_aligns(squeezenet, data, monkeypatch):
    pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam import ScoreCAM as GradCamScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    X, target, layer, ours = explained(squeezenet, data / "images" / PHOTOGRAPH, method="scorecam", **GRAD_CAM)

    def half_pixel(size: torch.Size) -> torch.nn.Module:
        return torch.nn.Upsample(size=tuple(size), mode="bilinear", align_corners=False)

    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", half_pixel)
    module = squeezenet.module.get_submodule(layer)
    with GradCamScoreCAM(model=squeezenet.module, target_layers=[module]) as theirs, torch.no_grad():
        theirs.outputs = theirs.activations_and_grads(X)
        activations = theirs.activations_and_grads.activations[0].numpy()
        weights = theirs.get_cam_weights(X, module, [ClassifierOutputTarget(target)], activations, None)[0]
    # It also scores flat channels, as an all-zero image; that only changes what the weights sum to.
    live = ours.weights[0] > 0
    difference = np.abs(weights[live] / weights[live].sum() - ours.weights[0][live]).max()
    assert difference <= CLOSE, f"{difference:.1e}"
    assert difference <= BOUND * ours.weights[0].max()
    assert_same_map(ours, low_resolution_map(np.tensordot(weights, activations[0], axes=1)))
