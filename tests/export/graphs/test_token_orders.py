"""Tokens: the order in which they lie in the image is found by what answers in them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.graphs.networks import IMAGE, SAID, grid, head, onnx_file, trunk
from tests.export.zoo.graphs import LABELS
from torch import nn

import ortcam
from ortcam_export import ExportError, export, inspect_model
from ortcam_export.graphs.layers.layouts import Arrangement, arrange, channel_axes
from ortcam_export.graphs.layers.painting import Answers


def answers(places: np.ndarray, *, seed: int = 0, noise: float = 0.02, blur: float = 0.3) -> Answers:
    """What positions answer that lie at given rows and columns of the image, [2,...] in [-1,1], NaN for nowhere."""
    generator = np.random.default_rng(seed)
    found = np.where(np.isnan(places), 0, places * blur) + noise * generator.standard_normal(places.shape)
    return Answers(*found)


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


@pytest.mark.sample(every=2)
@pytest.mark.whole
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


@pytest.mark.slow
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


@pytest.mark.slow
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
