"""Classifiers of 1, 2, 4 and 13 channels, exported, against the formulas in float64: every method."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from ortcam.images.preprocessing import Preprocessing
from ortcam.parity import parity_failure, verify
from tests.common.channels import KINDS, drawn_samples
from tests.common.sharing import export_once
from tests.common.tolerances import EPS
from tests.parity.cases import (
    Case,
    PooledNet,
    SmallNet,
    assert_within_bound,
    open_case,
    randomize,
)
from tests.parity.reference import DEFAULTS

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("one_thread")]

ALL = [0, 1, 2, 3, 4]
GRADIENTS: dict[str, dict[str, Any]] = {
    "grad-cam": {},
    "grad-cam++": {"epsilon": 0},
    "xgrad-cam": {"epsilon": 0},
    "layer-cam": {},
    "hires-cam": {},
    "smooth-grad-cam++": {"num_samples": 2, "std": 0.3, "seed": 5, "epsilon": 0},
    "finer-cam": {"strength": 0.6, "references": 3, "weighting": "mean"},
}
HEADS: dict[str, dict[str, Any]] = {"recipro-cam": {"kernel": "gaussian"}, "ablation-cam": {}, "eigen-cam": {}}
KIND_NAMES = ["grey", "grey-opencv", "xray", "two", "four", "thirteen", "rgb16"]


def with_first_convolution(module: nn.Module, name: str, preprocessing: Preprocessing) -> nn.Module:
    """The module with a first convolution of the channels, for inputs of their size; its other weights as they were."""
    channels, size = preprocessing.channels, 0.25 * preprocessing.scale / min(preprocessing.std)
    first = getattr(module, name)
    fresh = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding)
    randomize(fresh, 0.4 * (3 / channels) ** 0.5 / size)
    setattr(module, name, fresh)
    return module


def preprocessing_of(kind: str) -> Preprocessing:
    return dataclasses.replace(KINDS[kind], height=64, width=48, resize=72 if KINDS[kind].resize else None)


@pytest.fixture(scope="module", params=KIND_NAMES)
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    """64 x 48, 8 maps of 16 x 12, a convolution and a linear layer behind them."""
    preprocessing = preprocessing_of(request.param)
    module = with_first_convolution(SmallNet(), "first", preprocessing).eval()
    bundle = shared / f"channels-{request.param}"
    export_once(module, bundle, layer="features", preprocessing=preprocessing, labels=list("abcde"))
    return open_case(module, bundle, threads=1)


def image_of(case: Case) -> NDArray:
    return drawn_samples(case.explainer.bundle.manifest.preprocessing, 70, 90)


def test_the_bundle_is_the_model(case: Case) -> None:
    bundle = case.explainer.bundle
    preprocessing = bundle.manifest.preprocessing
    probe = np.load(bundle.path / "probe.npy")
    assert probe.shape[1:] == (64, 48, preprocessing.channels)
    parity = verify(bundle)
    assert parity_failure(parity, bundle.manifest.graphs) is None
    model_input = case.explainer.preprocess(image_of(case))
    with torch.no_grad():
        logits = case.module.double()(torch.from_numpy(model_input).double())
        case.module.float()
    expected = logits.softmax(1)[0].numpy()
    atol = 4 * EPS * float(logits.abs().max()) / 2
    np.testing.assert_allclose(case.explainer.predict(image_of(case)), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("method", DEFAULTS)
def test_masked_methods_are_their_formulas(method: str, case: Case) -> None:
    image = image_of(case)
    options: dict[str, Any] = {"num_samples": 2} if "num_samples" in DEFAULTS[method] else {}
    reference = case.reference(image)
    for changed in ({}, {"baseline": "zeros"}, {"weighting": "logit-softmax"}):
        explanation = case.explainer.explain(image, method=method, target=ALL, **options, **changed)
        expected = reference.explain(method, ALL, **options, **changed)
        assert_within_bound(explanation, expected, f"{method} {changed}")


@pytest.mark.parametrize("method", GRADIENTS)
def test_gradient_methods_are_their_formulas(method: str, case: Case) -> None:
    image, options = image_of(case), GRADIENTS[method]
    explanation = case.explainer.explain(image, method=method, target=ALL, **options)
    name = method.replace("++", "-plus-plus").replace("-", "_")
    expected = getattr(case.gradient_reference(image), name)(ALL, **options)
    assert_within_bound(explanation, expected, method)


@pytest.mark.parametrize("method", HEADS)
def test_head_methods_are_their_formulas(method: str, case: Case) -> None:
    image, options = image_of(case), HEADS[method]
    explanation = case.explainer.explain(image, method=method, target=ALL, **options)
    expected = getattr(case.head_reference(image), method.replace("-", "_"))(ALL, **options)
    assert_within_bound(explanation, expected, method)


def test_a_head_that_is_one_linear_layer_gives_cam(shared: Path) -> None:
    preprocessing = preprocessing_of("four")
    module = with_first_convolution(PooledNet("nchw"), "stem", preprocessing).eval()
    bundle = shared / "channels-pooled"
    export_once(module, bundle, layer="features", preprocessing=preprocessing, labels=list("abcde"))
    case = open_case(module, bundle, threads=1)
    image = image_of(case)
    expected = case.head_reference(image).cam(ALL, linear=module.classifier)
    assert_within_bound(case.explainer.explain(image, method="cam", target=ALL), expected, "cam")
