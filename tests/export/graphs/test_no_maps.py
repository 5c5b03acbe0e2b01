"""What is no map of the image is no layer, and says why where it is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.export.graphs.networks import SAID, head, onnx_file, trunk
from tests.export.zoo.graphs import LABELS, GraphBuilder, classes_info, tensor_info
from torch import nn

from ortcam_export import ExportError, export, inspect_model
from ortcam_export.graphs.layers.painting import paint


class Queries(nn.Module):
    """A learnt query for each of 20 classes, as in Query2Label and ML-Decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.f = trunk(2, 2, 2)
        self.q = nn.Parameter(torch.randn(1, 20, 32))
        self.a = nn.MultiheadAttention(32, 4, batch_first=True)
        self.m = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.w = nn.Parameter(torch.randn(20, 32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.f(image).flatten(2).transpose(1, 2)
        queries = self.q.expand(image.shape[0], -1, -1)
        queries = queries + self.a(queries, tokens, tokens, need_weights=False)[0]
        return ((queries + self.m(queries)) * self.w).sum(-1)[:, :5]


class Columns(nn.Module):
    """A recurrent network over the columns of the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.r, self.l = trunk(2, 2, 2), nn.LSTM(256, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found, _ = self.r(self.f(image).permute(0, 3, 1, 2).flatten(2))
        return self.l(found[:, -1])


class Clusters(nn.Module):
    """NetVLAD: what lies near each of 64 clusters, wherever in the image."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.s, self.c = trunk(2, 2, 2), nn.Conv2d(32, 64, 1), nn.Parameter(torch.randn(64, 32))
        self.l = nn.Linear(32 * 64, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.f(image)
        share = self.s(maps).flatten(2).softmax(1)
        vlad = torch.bmm(share, maps.flatten(2).transpose(1, 2)) - share.sum(2)[..., None] * self.c
        return self.l(nn.functional.normalize(vlad, dim=2).flatten(1))


class Similar(nn.Module):
    """Every position compared with every other: a matrix of 64 x 64."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.l = trunk(2, 2, 2), nn.Linear(64 * 64, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.f(image).flatten(2)
        return self.l(torch.relu(tokens.transpose(1, 2) @ tokens)[:, None].flatten(1))


class Context(nn.Module):
    """Means of the maps, spread over a grid again: every cell is the same, then weighed by where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.w, self.l = trunk(2, 2, 2), nn.Parameter(torch.randn(32, 8, 8)), nn.Linear(32, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        spread = self.f(image).mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)
        return self.l(torch.relu(spread * self.w).mean((2, 3)))


class Capsules(nn.Module):
    """Capsules of all positions by kind, [N, 4 kinds x 64 positions, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.w, self.l = trunk(2, 2, 2), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        capsules = self.f(image).reshape(-1, 4, 8, 64).transpose(2, 3).reshape(-1, 256, 8)
        return self.l(torch.tanh(self.w(capsules)).mean(1))


NO_MAPS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind for kind in (Queries, Columns, Clusters, Similar, Context, Capsules)
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NO_MAPS)
def test_what_does_not_move_with_the_image_is_no_layer(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    inspection = inspect_model(onnx_file(NO_MAPS[name](), tmp_path, (64, 64)))
    assert inspection.default is not None
    cut = inspection.default.cut
    assert (cut.module, cut.layout, cut.channels, cut.height, cut.width) == ("f", "nchw", 32, 8, 8)
    for layer in inspection.layers:
        assert (layer.cut.height, layer.cut.width) in ((32, 32), (16, 16), (8, 8))


class Local(nn.Module):
    """What looks around a position, with what was pooled over the image multiplied in."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.norm, self.squeeze = trunk(2, 2, 2), nn.BatchNorm2d(32), nn.Conv2d(32, 32, 1)
        self.wide, self.last, self.l = nn.Conv2d(32, 8, 5, padding=2), nn.Conv2d(40, 48, 3, 2, 1), nn.Linear(48, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = nn.functional.hardswish(self.norm(self.f(image)))
        maps = maps * self.squeeze(maps.mean((2, 3), keepdim=True)).sigmoid()
        maps = torch.cat([maps, self.wide(maps)], 1)
        return self.l(torch.relu(self.last(maps)).mean((2, 3)))


def test_what_convolutions_make_is_a_map_whatever_its_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[str] = []

    def remember(model: object, wanted: dict[str, tuple[object, frozenset[int]]], *others: object) -> object:
        painted.extend(name for name, (_, axes) in wanted.items() if axes)
        return paint(model, wanted, *others)  # type: ignore[arg-type]

    monkeypatch.setattr("ortcam_export.graphs.layers.finding.paint", remember)
    inspection = inspect_model(onnx_file(head(Local()), tmp_path, (64, 48)))
    assert all("squeeze" in name for name in painted)  # of one cell, whose channels could be rows
    assert inspection.default is not None
    cut = inspection.default.cut
    assert (cut.layout, cut.channels, cut.height, cut.width) == ("nchw", 48, 4, 3)


def test_maps_of_a_few_cells_are_not_measured(tmp_path: Path) -> None:
    """Where the image is small, every cell sees all of it, and random weights let none answer to its own part more."""
    module = head(trunk(2, 2, 2, 2, 2)).append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(32, 5))
    cut = inspect_model(onnx_file(module, tmp_path, (64, 33))).default.cut  # type: ignore[union-attr]
    assert (cut.channels, cut.height, cut.width) == (32, 2, 2)


@pytest.mark.slow
def test_a_name_of_what_is_no_map_is_refused_and_says_why(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = onnx_file(Clusters(), tmp_path, (64, 64))
    name = next(node.output[0] for node in onnx.load(path).graph.node if node.op_type == "Sub")
    with pytest.raises(ExportError, match=r"gives \[1, 64, 32\] for an image, in which painted parts .* do not move"):
        export(path, tmp_path / "b.ortcam", layer=name, **SAID, labels=LABELS)


def dense(folder: Path, layout: str, front: Callable[[GraphBuilder, str], str]) -> Path:
    """A network of the flattened image, with something in front that is not learnt from its parts."""
    g = GraphBuilder()
    x = g.op("Flatten", front(g, "image"), axis=1)
    hidden = g.op("Relu", g.dense(x, 3 * 24 * 24, 32))
    g.dense(hidden, 32, out="logits")
    shape = ("N", 3, 24, 24) if layout == "nchw" else ("N", 24, 24, 3)
    return g.save(folder / "net.onnx", [tensor_info("image", shape)], [classes_info("logits")])


FRONTS: dict[str, tuple[str, Callable[[GraphBuilder, str], str]]] = {
    "nothing": ("nchw", lambda g, x: x),
    "channels last": ("nhwc", lambda g, x: x),
    "a mean image": ("nchw", lambda g, x: g.op("Sub", x, g.random(1, 3, 24, 24))),
    "exchanged channels": ("nchw", lambda g, x: g.op("Gather", x, g.constant(np.array([2, 1, 0])), axis=1)),
    "a depthwise convolution": (
        "nchw",
        lambda g, x: g.op("Conv", x, g.random(3, 1, 1, 1), group=3, kernel_shape=[1, 1]),
    ),
    "clipping": ("nhwc", lambda g, x: g.op("Tanh", g.op("Mul", x, g.constant(2.0)))),
}


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("name", FRONTS)
def test_the_image_itself_is_no_layer(name: str, tmp_path: Path) -> None:
    path = dense(tmp_path, *FRONTS[name])
    with pytest.raises(ExportError, match="nothing to explain"):
        export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS)
