"""Maps of the image: which tensors move with it, in what order, and what is refused because it does not."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from tests.export.rounding import rounding_error
from tests.export.zoo.graphs import LABELS, GraphBuilder, classes_info, image_info, tensor_info
from torch import nn

import ortcam
from ortcam.cli import main
from ortcam_export import ExportError, Inspection, export, fuse, inspect_model
from ortcam_export.graphs.layers.layouts import Arrangement, arrange, channel_axes
from ortcam_export.graphs.layers.painting import Answers, paint

SAID: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "channel_order": "rgb"}
IMAGE = (2, 3, 64, 96)


def onnx_file(module: nn.Module, folder: Path, size: tuple[int, int]) -> Path:
    """A module as an `.onnx` file by torch's old exporter, which writes a file in a moment."""
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the old one
        torch.onnx.export(
            module.eval(),
            (torch.rand(2, 3, *size),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )
    return path


def trunk(*strides: int | tuple[int, int]) -> nn.Sequential:
    """Convolutions of 3, 16, 24, 32, 32 ... channels, with a ReLU behind each."""
    widths = (3, 16, 24, 32, 32, 32)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in zip(widths, widths[1:], strides, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU()]
    return nn.Sequential(*layers)


def head(module: nn.Module, classes: int = 5) -> nn.Module:
    """Let a last layer have logits of about 1."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return module


# --- what a tensor is, by what answers in it -------------------------------------------------------------------------


def answers(places: np.ndarray, *, seed: int = 0, noise: float = 0.02, blur: float = 0.3) -> Answers:
    """What positions answer that lie at given rows and columns of the image, [2,...] in [-1,1], NaN for nowhere."""
    generator = np.random.default_rng(seed)
    found = np.where(np.isnan(places), 0, places * blur) + noise * generator.standard_normal(places.shape)
    return Answers(*found)


def grid(height: int, width: int) -> np.ndarray:
    """Rows and columns of a grid's cells, [2,h,w]."""
    return np.stack(np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"))


def nowhere(count: int) -> np.ndarray:
    return np.full((2, count), np.nan)


SEQUENCES = {
    "plain": ((), "rows", (), None),
    "class token": ((0,), "rows", (), None),
    "class token and registers": ((0,) * 5, "rows", (), None),
    "class token last": ((), "rows", (0,), (96, *range(96))),
    "first and last": ((0,), "rows", (0,), (0, 97, *range(1, 97))),
    "columns first": ((), "columns", (), tuple(column * 8 + row for row in range(8) for column in range(12))),
    "bottom up": ((), "mirrored", (), tuple(row * 12 + column for row in range(7, -1, -1) for column in range(12))),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("channels_first", [False, True])
def test_the_order_of_tokens_is_found(name: str, channels_first: bool) -> None:
    before, order, behind, expected = SEQUENCES[name]
    cells = {"rows": grid(8, 12), "columns": grid(8, 12).transpose(0, 2, 1), "mirrored": grid(8, 12)[:, ::-1]}[order]
    places = np.concatenate([nowhere(len(before)), cells.reshape(2, -1), nowhere(len(behind))], axis=1)
    tokens = places.shape[1]
    shape, axis = ((2, 7, tokens), 1) if channels_first else ((2, tokens, 7), 2)
    found = arrange(shape, IMAGE, {axis: answers(places)})
    others = len(before) + len(behind)
    assert found == Arrangement("tokens", 7, 8, 12, others, channels_first, expected)


def test_a_class_token_in_the_middle_is_found() -> None:
    cells = grid(8, 12).reshape(2, -1)
    places = np.concatenate([cells[:, :48], nowhere(1), cells[:, 48:]], axis=1)
    found = arrange((2, 97, 7), IMAGE, {2: answers(places)})
    assert found == Arrangement("tokens", 7, 8, 12, 1, order=(48, *range(48), *range(49, 97)))


@pytest.mark.parametrize("tokens", [20, 64, 97, 128])
@pytest.mark.parametrize("seed", range(5))
def test_what_lies_nowhere_is_no_grid(tokens: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    places = generator.uniform(-1, 1, (2, tokens))  # each prefers a place of its own
    assert isinstance(arrange((2, tokens, 7), IMAGE, {2: answers(places)}), str)


@pytest.mark.parametrize("tokens", [4, 5, 6])
def test_a_few_tokens_that_lie_nowhere_are_hardly_ever_a_grid(tokens: int) -> None:
    generator = np.random.default_rng(0)
    found = [arrange((2, tokens, 7), IMAGE, {2: answers(generator.uniform(-1, 1, (2, tokens)))}) for _ in range(50)]
    assert sum(isinstance(item, str) for item in found) >= 48


def test_four_tokens_in_order_are_a_grid() -> None:
    assert arrange((2, 4, 7), (2, 3, 64, 64), {2: answers(grid(2, 2).reshape(2, -1))}) == Arrangement("tokens", 7, 2, 2)


def test_windows_one_after_another_are_no_grid() -> None:
    cells = grid(8, 12).reshape(2, 2, 4, 3, 4).transpose(0, 1, 3, 2, 4).reshape(2, -1)
    assert "do not move as in a map" in str(arrange((2, 96, 7), IMAGE, {2: answers(cells)}))


def test_columns_alone_are_no_tokens_but_a_map_of_one_row() -> None:
    places = np.stack([np.zeros(24), np.linspace(-1, 1, 24)])
    assert isinstance(arrange((2, 24, 7), IMAGE, {2: answers(places)}), str)
    assert arrange((2, 7, 1, 24), IMAGE, {1: answers(places[:, None])}) == Arrangement("nchw", 7, 1, 24)


def test_patches_in_a_row_are_no_map_of_one_row_or_column() -> None:
    places = grid(6, 8).reshape(2, -1)
    for turned in (places[:, None], places[:, :, None]):
        assert isinstance(arrange((2, 7, *turned.shape[1:]), IMAGE, {1: answers(turned)}), str)


def test_positions_compared_with_positions_are_no_tokens() -> None:
    places = answers(grid(6, 8).reshape(2, -1))
    assert "both of its axes" in str(arrange((2, 48, 48), IMAGE, {1: places, 2: places}))


def test_axes_of_one_length_are_told_apart_by_what_moves() -> None:
    cells = grid(8, 8)
    still = answers(np.zeros((2, 8, 8)), seed=1)
    shape = (2, 8, 8, 8)
    image = (2, 3, 64, 64)
    assert channel_axes(shape, image) == {1, 3}
    assert arrange(shape, image, {1: answers(cells), 3: still}) == Arrangement("nchw", 8, 8, 8)
    assert arrange(shape, image, {1: still, 3: answers(cells)}) == Arrangement("nhwc", 8, 8, 8)
    turned = answers(cells.transpose(0, 2, 1))
    assert arrange(shape, image, {1: turned, 3: still}) == Arrangement("nchw", 8, 8, 8, transposed=True)
    assert arrange(shape, image, {1: answers(cells[:, :, ::-1]), 3: still}) == "which is mirrored"


def test_where_nothing_answers_the_shape_tells() -> None:
    nothing = Answers(np.full((8, 12), np.nan), np.full((8, 12), np.nan))
    assert arrange((2, 5, 8, 12), IMAGE, {1: nothing}) == Arrangement("nchw", 5, 8, 12)
    tokens = Answers(np.full(97, np.nan), np.full(97, np.nan))
    assert arrange((2, 97, 7), IMAGE, {2: tokens}) == Arrangement("tokens", 7, 8, 12, 1)


# --- orders of real networks -----------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """A small transformer of 4 x 6 patches, whose sequence is made and taken apart by two functions."""

    def __init__(self, arranged: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], extra: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, max(extra, 1), 16))
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.last = nn.Linear(16, 5)
        head(self)
        self.arranged = arranged

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.arranged(self.patches(image), self.token.expand(image.shape[0], -1, -1))
        mixed = self.norm(tokens)
        tokens = tokens + self.mix(mixed, mixed, mixed, need_weights=False)[0]
        return self.last((tokens + self.mlp(tokens)).mean(1))


def rows(maps: torch.Tensor) -> torch.Tensor:
    return maps.flatten(2).transpose(1, 2)


def middle(maps: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows(maps)[:, :12], token, rows(maps)[:, 12:]], 1)


ARRANGED: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], int]] = {
    "first": (lambda maps, token: torch.cat([token, rows(maps)], 1), 1),
    "last": (lambda maps, token: torch.cat([rows(maps), token], 1), 1),
    "both": (lambda maps, token: torch.cat([token[:, :1], rows(maps), token[:, 1:]], 1), 2),
    "middle": (middle, 1),
    "columns": (lambda maps, token: rows(maps.transpose(2, 3)), 0),
    "bottom up": (lambda maps, token: rows(maps.flip(2)), 0),
}


@pytest.mark.sample("first", "bottom up")
@pytest.mark.parametrize("name", ARRANGED)
def test_the_patch_under_a_painted_part_is_the_one_that_moves(name: str, tmp_path: Path) -> None:
    arranged, extra = ARRANGED[name]
    path = onnx_file(Tokens(arranged, extra), tmp_path, (64, 96))
    bundle = export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS)
    cut = bundle.manifest.cut
    assert (cut.layout, cut.height, cut.width, cut.prefix_tokens) == ("tokens", 4, 6, extra)
    assert "Conv" not in cut.tensor, "the last tokens, not the patches in front of them"
    assert bundle.manifest.parity.logits <= 1e-4
    explainer = ortcam.load(bundle.path)
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 255, (64, 96, 3), np.uint8)
    for row, column in ((0, 0), (0, 5), (1, 3), (3, 1)):
        painted = picture.copy()
        painted[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] ^= 255
        change = np.abs(explainer.features(painted) - explainer.features(picture)).mean(axis=0)
        assert np.unravel_index(change.argmax(), change.shape) == (row, column)


class Turned(nn.Module):
    """Maps whose rows and columns are exchanged, or which are mirrored, inside."""

    def __init__(self, turn: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.front = trunk(2, 2)
        self.behind = nn.Sequential(nn.Conv2d(24, 12, 1), nn.ReLU())
        self.last = nn.Linear(12, 5)
        head(self)
        self.turn = turn

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.behind(self.turn(self.front(image))).mean((2, 3)))


def test_rows_and_columns_that_are_exchanged_are_exchanged_back(tmp_path: Path) -> None:
    path = onnx_file(Turned(lambda maps: maps.transpose(2, 3)), tmp_path, (48, 64))
    bundle = export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS)
    cut = bundle.manifest.cut
    assert (cut.layout, cut.channels, cut.height, cut.width) == ("nchw", 12, 12, 16)
    assert bundle.manifest.parity.logits <= 1e-4


def test_a_mirrored_map_is_no_default_and_refused_by_name(tmp_path: Path) -> None:
    path = onnx_file(Turned(lambda maps: maps.flip(3)), tmp_path, (48, 64))
    default = inspect_model(path).default
    assert default is not None
    assert default.cut.module == "front"
    with pytest.raises(ExportError, match=r"layer 'behind' gives \[1, 12, 12, 16\] for an image, which is mirrored"):
        export(path, tmp_path / "b.ortcam", layer="behind", **SAID, labels=LABELS)


# --- scales of their own along rows and columns ----------------------------------------------------------------------


class Pooled(nn.Module):
    """Maps of some front, pooled."""

    def __init__(self, front: nn.Module, channels: int) -> None:
        super().__init__()
        self.f, self.l = front, nn.Linear(channels, 5)
        head(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.l(self.f(image).mean((2, 3)))


class Resized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = trunk(2, 2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.f(nn.functional.interpolate(image, (64, 64), mode="bilinear"))


class Cropped(nn.Module):
    """Looks at a part of the image alone: its maps, laid over all of the image, would lie beside what they show."""

    def __init__(self) -> None:
        super().__init__()
        self.f = trunk(2, 2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.f(image[:, :, :48, 24:72])


def valid(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride), nn.ELU()]


STRETCHED: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], tuple[int, int, int]]] = {
    "text line": (lambda: trunk(2, (2, 1), (2, 1)), (48, 192), (32, 6, 96)),
    "one row": (
        lambda: nn.Sequential(*valid(3, 12, 5, 2), *valid(12, 16, 5, 2), *valid(16, 24, 5, 2), *valid(24, 32, 5)),
        (66, 200),
        (32, 1, 18),
    ),
    "one column": (lambda: trunk((2, 4), (2, 4), (1, 4)), (96, 64), (32, 24, 1)),
    "resized inside": (Resized, (96, 128), (32, 8, 8)),
}


@pytest.mark.sample(every=4)
@pytest.mark.parametrize("name", STRETCHED)
def test_rows_and_columns_may_have_scales_of_their_own(name: str, tmp_path: Path) -> None:
    front, size, shape = STRETCHED[name]
    path = onnx_file(Pooled(front(), shape[0]), tmp_path, size)
    said: list[str] = []
    bundle = export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS, report=said.append)
    cut = bundle.manifest.cut
    assert (cut.channels, cut.height, cut.width) == shape
    assert not any("lie behind this layer" in sentence for sentence in said)
    explanation = ortcam.load(bundle.path).explain(np.zeros((*size, 3), np.uint8) + 90, method="scorecam", top_k=1)
    assert explanation.maps.shape == (1, *size)


def test_maps_of_a_part_of_the_image_are_refused(tmp_path: Path) -> None:
    path = onnx_file(Pooled(Cropped(), 32), tmp_path, (96, 96))
    for layer in (None, "f"):
        with pytest.raises(ExportError, match="which sees a part of the image alone"):
            export(path, tmp_path / "b.ortcam", layer=layer, **SAID, labels=LABELS)


def test_the_narrow_border_that_long_strides_leave_out_is_no_crop() -> None:
    found = Answers(*grid(4, 4), unseen=(0, 1 / 8))
    assert arrange((2, 5, 4, 4), IMAGE, {1: found}) == Arrangement("nchw", 5, 4, 4)
    assert "sees a part" in str(arrange((2, 5, 12, 12), IMAGE, {1: Answers(*grid(12, 12), unseen=(0, 1 / 8))}))


def test_a_network_that_is_mostly_behind_its_default_layer_says_so(tmp_path: Path) -> None:
    class Early(nn.Module):
        """Two networks behind one common layer."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = trunk(2), nn.Conv2d(16, 64, 3), nn.Conv2d(16, 64, 3)
            self.l = head(nn.Linear(64, 5))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            maps = self.stem(image)
            return self.l(self.a(maps).mean((2, 3)) * self.b(maps).amax((2, 3)))

    said: list[str] = []
    path = onnx_file(Early(), tmp_path, (48, 64))
    bundle = export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS, report=said.append)
    assert bundle.manifest.cut.module == "stem"
    assert any("of the model's multiply-adds lie behind this layer" in sentence for sentence in said)


class Stripes(nn.Module):
    """A head for each horizontal stripe of the maps, as networks that find persons again have them."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.heads = trunk(2, 2, 2), nn.ModuleList(nn.Linear(32, 5) for _ in range(4))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        stripes = self.f(image).chunk(4, dim=2)
        return sum(head(stripe.mean((2, 3))) for head, stripe in zip(self.heads, stripes, strict=True))


def test_maps_that_are_cut_into_parts_of_the_image_are_the_default_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inspection = inspect_model(onnx_file(Stripes(), tmp_path, (64, 64)))
    assert inspection.default is not None
    assert (inspection.default.cut.module, inspection.default.operator) == ("f", "Relu")


# --- what is no map of the image -------------------------------------------------------------------------------------


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


@pytest.mark.sample(every=3)
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


@pytest.mark.parametrize("name", FRONTS)
def test_the_image_itself_is_no_layer(name: str, tmp_path: Path) -> None:
    path = dense(tmp_path, *FRONTS[name])
    with pytest.raises(ExportError, match="nothing to explain"):
        export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS)


# --- branches --------------------------------------------------------------------------------------------------------


class Ensemble(nn.Module):
    """Two networks whose probabilities are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Pooled(trunk(2, 2), 24), Pooled(trunk(4), 16)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (self.a(image).softmax(1) + self.b(image).softmax(1)) / 2


def test_layers_of_branches_are_listed_and_named_by_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = onnx_file(Ensemble(), tmp_path, (48, 64))
    inspection: Inspection = inspect_model(path)
    assert inspection.default is None
    assert inspection.layers == ()
    assert {"a.f", "b.f"} <= {layer.cut.module for layer in inspection.branches}
    assert all(layer.inside_branch for layer in inspection.branches)
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert any(
        line.split()[:5] == ["-", "a.f", "/a/f/f.3/Relu_output_0", "nchw", "[24,12,16]"]
        for line in printed.splitlines()
    )
    with pytest.raises(ExportError, match=r"--layer a\.f or --layer b\.f"):
        export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS)
    bundle = export(path, tmp_path / "b.ortcam", layer="a.f", **SAID, labels=LABELS)
    assert (bundle.manifest.graphs.head, bundle.manifest.cut.channels) == (None, 24)


# --- fused operators -------------------------------------------------------------------------------------------------


def fused_blocks(folder: Path, *, simplified: bool, biased: bool) -> Path:
    """Three blocks of tokens, each a SkipLayerNormalization whose sum and normalisation both go on."""
    g = GraphBuilder(name=lambda kind, number: f"/other/{kind}_{number}_output_0")
    maps = g.op("Reshape", g.conv("image", 3, 16, kernel=8, stride=8), g.constant(np.array([0, 16, -1])))
    tokens = g.op("Transpose", maps, perm=[0, 2, 1])
    normal = g.op("LayerNormalization", tokens, g.random(16, offset=1, scale=0.1), axis=-1)
    for number in range(3):
        made = g.op("Tanh", g.op("MatMul", normal, g.random(16, 16, scale=0.4)))
        gamma, beta, bias = g.random(16, offset=1, scale=0.1), g.random(16, scale=0.1), g.random(16, scale=0.3)
        inputs = [made, tokens, gamma, *([] if simplified else [beta]), *([bias] if biased else [])]
        kind = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
        normal, tokens = f"/norms/{number}/Norm_output_0", f"/blocks/blocks.{number}/Add_output_0"
        g.nodes.append(
            helper.make_node(
                kind, inputs, [normal, "", "", tokens], f"Skip_{number}", domain="com.microsoft", epsilon=1e-3
            )
        )
    both = g.op("Add", normal, tokens)
    g.dense(g.op("ReduceMean", both, axes=[1], keepdims=0), out="logits")
    return g.save(folder / "net.onnx", [image_info()], [classes_info("logits")], domains={"com.microsoft": 1})


@pytest.mark.sample(every=4)
@pytest.mark.parametrize("simplified", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_residual_sum_fused_with_its_normalisation_is_found_again(
    simplified: bool, biased: bool, tmp_path: Path
) -> None:
    path = fused_blocks(tmp_path, simplified=simplified, biased=biased)
    inspection = inspect_model(path)
    assert {f"blocks.{number}" for number in range(3)} <= {
        path for layer in inspection.layers for path in layer.modules
    }
    bundle = export(path, tmp_path / "b.ortcam", layer="blocks.1", **SAID, labels=LABELS)
    cut = bundle.manifest.cut
    assert (cut.layout, cut.channels, cut.height, cut.width) == ("tokens", 16, 7, 9)
    assert bundle.manifest.parity.logits <= 1e-4, "the file itself, in ONNX Runtime, is the reference"


def test_a_map_of_one_row_goes_into_one_file_that_explains(tmp_path: Path) -> None:
    front, size, shape = STRETCHED["one row"]
    path = onnx_file(Pooled(front(), shape[0]), tmp_path, size)
    bundle = export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS)
    explainer = ortcam.load(bundle.path)
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    expected = explainer.explain(picture, method="scorecam", top_k=1).maps
    fused = fuse(bundle.path, tmp_path / "e.onnx", method="scorecam", top_k=1)
    session = ort.InferenceSession(fused.path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["saliency"], {"image": explainer.preprocess(picture)})
    products = sum(25 * channels for channels in (3, 12, 16, 24)) + 18  # of four convolutions, and a mean
    np.testing.assert_allclose(found, expected, atol=rounding_error(2 * products))


@pytest.mark.slow
def test_a_random_transformer_with_large_weights_keeps_its_last_block_but_one(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
    module = transformers.ViTForImageClassification(
        transformers.ViTConfig(**sizes, image_size=64, patch_size=8, num_labels=5)
    )
    for parameter in module.vit.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3)
    default = inspect_model(module.eval()).default
    assert default is not None
    assert default.cut.module == "vit.layers.1"
