"""What a gradient graph is measured with: central differences in float64, and PyTorch's autograd."""

import numpy as np
import pytest
import torch
from torch import nn

from ortcam_export.gradients.autograd import ModuleGradients
from ortcam_export.gradients.differences import relative_gap, sample_differences

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.standard_normal((1, 4, 3, 5)).astype(np.float32)
MATRIX = GENERATOR.standard_normal((60, 7))
SEEDS = GENERATOR.standard_normal((2, 7))


def smooth(features: np.ndarray) -> np.ndarray:
    return np.tanh(0.3 * features.reshape(len(features), -1)) @ MATRIX


def slopes() -> list[np.ndarray]:
    """The gradients of `smooth`, by hand."""
    inner = 0.3 / np.cosh(0.3 * FEATURES.astype(np.float64).reshape(-1)) ** 2
    return [(inner * (MATRIX @ seed)).reshape(4, 3, 5).astype(np.float32) for seed in SEEDS]


def test_the_right_gradient_is_near_and_a_wrong_one_is_not() -> None:
    right = slopes()
    assert sample_differences(smooth, FEATURES, right, SEEDS, 32) < 1e-6
    shrunk = [gradient * np.float32(1.001) for gradient in right]
    assert sample_differences(smooth, FEATURES, shrunk, SEEDS, 32) > 5e-4
    half = [right[0], right[1] * (np.abs(right[1]) < np.median(np.abs(right[1])))]
    assert sample_differences(smooth, FEATURES, half, SEEDS, 32) > 0.1


def test_elements_at_a_kink_are_left_out() -> None:
    """Of the largest of pairs, half of which are equal: a maximum has no derivative there."""
    tied = np.repeat(FEATURES.reshape(1, -1)[:, :30], 2, axis=1)
    tied[:, :30:2] += 1

    def largest(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), 30, 2).max(axis=2) @ MATRIX[:30]

    first = np.zeros((2, 60), np.float32)
    first[:, ::2] = (SEEDS @ MATRIX[:30].T).astype(np.float32)
    assert sample_differences(largest, tied, [*first], SEEDS, 60) < 1e-6
    assert sample_differences(largest, tied, [*first[:, ::-1].copy()], SEEDS, 60) > 0.1


def test_a_function_of_kinks_alone_cannot_be_measured() -> None:
    def absolute(values: np.ndarray) -> np.ndarray:
        return np.abs(values.reshape(len(values), -1)) @ MATRIX

    zeros = np.zeros_like(FEATURES)
    assert sample_differences(absolute, zeros, [zeros[0]] * 2, SEEDS, 32) == float("inf")


def test_strong_curvature_is_no_kink() -> None:
    def steep(values: np.ndarray) -> np.ndarray:
        return np.tanh(3000 * values.reshape(len(values), -1)) @ MATRIX

    near_zero = FEATURES * np.float32(1e-4)
    inner = 3000 / np.cosh(3000 * near_zero.astype(np.float64).reshape(-1)) ** 2
    right = [(inner * (MATRIX @ seed)).reshape(4, 3, 5).astype(np.float32) for seed in SEEDS]
    assert sample_differences(steep, near_zero, right, SEEDS, 32) < 1e-4
    assert sample_differences(steep, near_zero, [1.01 * row for row in right], SEEDS, 32) > 5e-3


def test_a_gap_may_leave_out_the_most_different_elements() -> None:
    expected = np.linspace(1, 2, 100, dtype=np.float32)[None].repeat(2, axis=0)
    found = expected.copy()
    found[1, :5] += 1
    assert relative_gap(found, expected) == pytest.approx(0.5)
    assert relative_gap(found, expected, 0.9) == 0
    assert relative_gap(found, expected, 0.96) == pytest.approx(0.5)
    assert relative_gap(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)) == 0


class Net(nn.Module):
    """Maps that are laid out with the channels last, changed in place, and used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 6)

    def maps(self, image: torch.Tensor) -> torch.Tensor:
        return self.first(image).permute(0, 2, 3, 1)

    def behind(self, maps: torch.Tensor) -> torch.Tensor:
        return self.second((torch.relu(maps) + torch.sigmoid(maps)).mean((1, 2)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.behind(self.maps(image))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2)])
def test_autograd_is_taken_at_the_tensor_with_these_values_in_any_layout(order: tuple[int, ...]) -> None:
    net = Net().eval()
    image = torch.from_numpy(GENERATOR.standard_normal((1, 3, 6, 5)).astype(np.float32))
    maps = net.maps(image).detach()
    point = maps + 0.01 * torch.from_numpy(GENERATOR.standard_normal(maps.shape).astype(np.float32))
    leaf = point.clone().requires_grad_()
    logits = net.behind(leaf)
    seeds = GENERATOR.standard_normal((2, 6))
    expected = [
        torch.autograd.grad(logits[0], leaf, torch.from_numpy(seed).float(), retain_graph=True)[0] for seed in seeds
    ]
    gradients = ModuleGradients(net, image.numpy())
    wanted, moved = (tensor.permute(order).numpy() for tensor in (maps, point))
    tensors = [*gradients(0, wanted, moved, seeds, logits.detach().numpy())]
    assert len(tensors) == 2  # what the convolution makes, and the same with the channels last
    for found in tensors:
        for row, tensor in zip(found, expected, strict=True):
            np.testing.assert_allclose(row, tensor.permute(order).numpy()[0], rtol=1e-5, atol=1e-7)


def test_a_module_without_the_tensor_or_with_other_logits_has_no_gradient() -> None:
    net = Net().eval()
    image = GENERATOR.standard_normal((1, 3, 6, 5)).astype(np.float32)
    maps = net.maps(torch.from_numpy(image)).detach().numpy()
    logits = net(torch.from_numpy(image)).detach().numpy()
    seeds = np.eye(6)[:1]
    gradients = ModuleGradients(net, image)
    assert len([*gradients(0, maps, maps, seeds, logits)]) == 2
    assert not [*gradients(0, maps + 1, maps, seeds, logits)]
    assert not [*gradients(0, maps, maps, seeds, logits + 1)]


class StartsAsIdentity(Net):
    """Its block in the middle gives the maps as they are, until it is trained; its derivative is another."""

    def behind(self, maps: torch.Tensor) -> torch.Tensor:
        same = maps * 1
        return super().behind(same + 1e-9 * torch.sin(1e6 * same))


def test_all_tensors_with_these_values_are_tried() -> None:
    net = StartsAsIdentity().eval()
    image = torch.from_numpy(GENERATOR.standard_normal((1, 3, 6, 5)).astype(np.float32))
    with torch.no_grad():
        maps, logits = net.maps(image), net(image)
    leaf = maps.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Net.behind(net, leaf)[0, 2], leaf)
    found = [*ModuleGradients(net, image.numpy())(0, maps.numpy(), maps.numpy(), np.eye(6)[[2]], logits.numpy())]
    assert len(found) > 2
    gaps = [float(np.abs(each - expected.numpy()).max() / expected.abs().max()) for each in found]
    assert min(gaps) < 1e-5 < gaps[0]
