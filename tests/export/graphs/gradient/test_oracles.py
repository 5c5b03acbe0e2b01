"""Gradient graphs of small networks against PyTorch's autograd and against onnx-ad, an independent reverse mode."""

import dataclasses
import io
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import version_converter
from torch import nn

from ortcam_export.graphs.gradient import differentiate
from ortcam_export.graphs.running import quiet_session

# float32 sums on both sides; what a wrong rule gives is off by 1e-2 or more.
TOLERANCE = 3e-5


@dataclasses.dataclass(frozen=True)
class Network:
    """A head, and the shape of its features."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


class Residual(nn.Module):
    """Two convolutions and what goes around them, with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.SiLU()
        )
        self.around = nn.Conv2d(6, 8, 1, 2)
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid()
        )
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.inner(x)
        return self.last(torch.relu(inner * self.excite(inner) + self.around(x)).mean((2, 3)))


class Block(nn.Module):
    """A transformer's block before a class token's linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.last = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).reshape(-1, 7, 3, 2, 6).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1) / 6**0.5).softmax(-1)
        x = x + self.out((scores @ v).transpose(1, 2).reshape(-1, 7, 12))
        return self.last((x + self.mlp(x))[:, 0])


class Dense(nn.Module):
    """Features joined with what is made of them, pooled with overlap, upsampled and padded."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Sequential(nn.Conv2d(4, 3, 3, padding=2, dilation=2), nn.ELU())
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.last = nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.cat([x, self.more(x)], 1))
        x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
        x = nn.functional.pad(nn.functional.avg_pool2d(x, 3, 2, 1), (1, 0, 0, 1), mode="reflect")
        return self.last(nn.functional.adaptive_max_pool2d(torch.sigmoid(x), 1).flatten(1))


NETWORKS = {
    "one linear layer": Network(
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)), (6, 5, 4)
    ),
    "convolution and average": Network(
        lambda: nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (6, 5, 4)
    ),
    "pool and three layers": Network(
        lambda: nn.Sequential(
            *(nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(24, 9), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 5)),
        ),
        (6, 8, 8),
    ),
    "residual": Network(Residual, (6, 8, 6)),
    "block": Network(Block, (7, 12)),
    "dense": Network(Dense, (4, 8, 8)),
}


def _exported(module: nn.Module, shape: tuple[int, ...], *, fixed: bool) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is torch's old exporter
        torch.onnx.export(
            module,
            (torch.rand(1 if fixed else 2, *shape),),
            buffer,
            dynamo=False,
            opset_version=18,
            input_names=["features"],
            output_names=["logits"],
            dynamic_axes=None if fixed else {"features": {0: "N"}, "logits": {0: "N"}},
        )
    proto = onnx.load_from_string(buffer.getvalue())
    return onnx.shape_inference.infer_shapes(version_converter.convert_version(proto, 20))


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    found = NETWORKS[request.param]
    return found.make().eval(), found.shape


@pytest.mark.sample(every=2)
@pytest.mark.whole
def test_the_gradient_is_autograds(network: tuple[nn.Module, tuple[int, ...]]) -> None:
    module, shape = network
    gradient = quiet_session(differentiate(ir.from_proto(_exported(module, shape, fixed=False)), wrt=["features"]))
    features, seeds = torch.randn(3, *shape), torch.randn(3, 5)
    for rows in (features[:1], features):
        leaf = rows.expand(3, *shape).double().requires_grad_()
        (expected,) = torch.autograd.grad((module.double()(leaf) * seeds).sum(), leaf)
        module.float()
        feeds = {"seed": seeds.numpy(), "features": rows.numpy()}
        (found,) = gradient.run(None, {item.name: feeds[item.name] for item in gradient.get_inputs()})
        assert np.abs(found - expected.numpy()).max() < TOLERANCE * float(expected.abs().max())


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize(
    "network", sorted(NETWORKS.keys() - {"dense"}), indirect=True
)  # it has no padding by reflection
def test_the_gradient_is_onnx_ads(network: tuple[nn.Module, tuple[int, ...]]) -> None:
    reverse = pytest.importorskip("onnx_ad").reverse
    module, shape = network
    open_batch, one = (_exported(module, shape, fixed=fixed) for fixed in (False, True))
    gradient = quiet_session(differentiate(ir.from_proto(open_batch), wrt=["features"]))
    other = quiet_session(ir.from_proto(reverse(one, inputs=["features"], outputs=["logits"], layout="onnx")))
    features, seeds = torch.randn(1, *shape).numpy(), torch.randn(3, 5).numpy()
    seed, *_ = [item.name for item in other.get_inputs() if item.name != "features"]
    outputs = [item.name for item in other.get_outputs()]
    name = next(name for name in outputs if "features" in name)
    feeds = {"features": features, seed: np.ascontiguousarray(seeds.T[None])}
    expected = np.moveaxis(other.run([name], {item.name: feeds[item.name] for item in other.get_inputs()})[0][0], -1, 0)
    given = {"seed": seeds, "features": features}
    (found,) = gradient.run(None, {item.name: given[item.name] for item in gradient.get_inputs()})
    assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
