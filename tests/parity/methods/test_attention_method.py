"""grad-attention against PyTorch's autograd in float64, with the attention of the last block as its leaf."""

import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from tests.parity.cases import BOUND, Case, real_case, small_image
from tests.parity.reference.classifier import finish


@pytest.fixture(scope="module")
def deit(data, shared) -> Case:
    return real_case("deit_tiny", data, shared / "deit")


def attention_and_logits(module: VisionTransformer, X: Tensor) -> tuple[Tensor, Tensor]:
    """The attention of the last block, [heads,T,T], a leaf; and the logits [classes] that are computed with it."""
    module = copy.deepcopy(module).double().eval()
    tokens = module._process_input(X.double())
    tokens = torch.cat([module.class_token, tokens], dim=1) + module.encoder.pos_embedding
    *blocks, last = module.encoder.layers
    for block in blocks:
        tokens = block(tokens)
    tokens = tokens.detach()
    layer, normed = last.self_attention, last.ln_1(tokens)[0]
    q, k, v = F.linear(normed, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (layer.num_heads, -1)).transpose(0, 1) for part in (q, k, v))
    attention = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(dim=-1).detach().requires_grad_()
    tokens = tokens + layer.out_proj((attention @ v).transpose(0, 1).flatten(1))
    tokens = tokens + last.mlp(last.ln_2(tokens))
    return attention, module.heads(module.encoder.ln(tokens)[:, 0])[0]


def expected(case: Case, image: NDArray[np.uint8], target: int, positive: str) -> Tensor:
    """The map before ReLU, [h,w]: attention times its gradient, summed over queries and heads."""
    assert isinstance(case.module, VisionTransformer)
    attention, logits = attention_and_logits(case.module, torch.from_numpy(case.explainer.preprocess(image)))
    (slope,) = torch.autograd.grad(logits[target], attention)
    product = (attention * slope).detach()
    # The class token alone is read, so that a ReLU on each element is the ReLU on each head's sum.
    total = (product.relu() if positive == "heads" else product).sum(dim=(0, 1))
    side = math.isqrt(len(total))
    return total[1:].reshape(side, side)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("positive", ["sum", "heads"])
@pytest.mark.parametrize("classifier", ["small_transformer", "deit"])
def test_it_is_attention_times_its_gradient(classifier, positive, request) -> None:
    case: Case = request.getfixturevalue(classifier)
    sides = case.explainer.bundle.manifest.preprocessing
    image = small_image(sides.height, sides.width)
    targets = [3, 0, 4]
    found = case.explainer.explain(image, method="grad-attention", target=targets, positive=positive)
    for raw, saliency, target in zip(found.raw_maps, found.maps, targets, strict=True):
        exact = expected(case, image, target, positive)
        np.testing.assert_allclose(raw, exact, rtol=0, atol=BOUND * float(exact.abs().max()))
        size = sides.height, sides.width
        (large,) = F.interpolate(exact[None, None], size, mode="bilinear", align_corners=False)
        finished, _ = finish(large)
        np.testing.assert_allclose(saliency, finished[0], rtol=0, atol=BOUND)
    assert found.stats.gradient_passes == len(targets)
