"""Total-variation fusion beside the same objective in PyTorch: its autograd, its Adam, its `grid_sample`."""

import numpy as np
import pytest

from ortcam.explainer.augmentation.fusion import TotalVariation
from ortcam.explainer.augmentation.taps import grid
from ortcam.explainer.augmentation.warps import Warp, draw_warp
from ortcam.methods import Augmentation

torch = pytest.importorskip("torch")

HEIGHT, WIDTH, ROWS, COLUMNS = 24, 32, 3, 4
RATE = 0.001


def by_pytorch(raws: list[np.ndarray], warps: list[Warp], side: int, steps: int) -> np.ndarray:
    """H of one class: float64 [H,W]; every cell is the mean of side x side points of the warped plane."""
    fine = grid(ROWS * side, COLUMNS * side)
    places, shown, kept, values = [], [], [], []
    for raw, warp in zip(raws, warps, strict=True):
        points = warp.to_image(fine)
        places.append(np.stack([2 * points.x - 1, 2 * points.y - 1], -1).reshape(ROWS * side, COLUMNS * side, 2))
        shown.append(points.inside.reshape(ROWS, side, COLUMNS, side))
        kept.append(warp.to_image(grid(ROWS, COLUMNS)).inside.reshape(ROWS, COLUMNS))
        positive = np.maximum(raw, 0)
        values.append(positive / positive.max())
    at, inside, use, wanted = (torch.tensor(np.stack(item)) for item in (places, shown, kept, values))
    h = torch.zeros(HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    adam, copies = torch.optim.Adam([h], lr=RATE), len(raws)
    for _ in range(steps):
        planes = h.expand(copies, 1, HEIGHT, WIDTH)
        sampled = torch.nn.functional.grid_sample(planes, at, padding_mode="border", align_corners=False)
        cells = sampled.reshape(copies, ROWS, side, COLUMNS, side) * inside
        means = cells.sum((2, 4)) / inside.sum((2, 4)).clamp(min=1)
        loss = ((means - wanted)[use] ** 2).sum()
        loss = loss + 0.002 * copies * (h.diff(dim=0).abs().sum() + h.diff(dim=1).abs().sum())
        loss = loss + 0.0001 * copies * (h**2).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return np.maximum(h.detach().numpy(), 0)


# With as many copies as make the points of all cells cover the image once: side^2 * 12 * copies >= 24 * 32 pixels.
@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(("copies", "side"), [(1, 8), (4, 4), (16, 2)])
@pytest.mark.parametrize("steps", [1, 200])
def test_it_is_what_pytorch_finds(copies: int, side: int, steps: int) -> None:
    generator = np.random.default_rng(copies)
    asked = Augmentation(copies, scale=0.2, flip=True)
    warps = [draw_warp(asked, number, HEIGHT, WIDTH) for number in range(copies)]
    raws = [generator.standard_normal((1, ROWS, COLUMNS)) + 0.5 for _ in range(copies)]
    fusion = TotalVariation((ROWS, COLUMNS), steps=steps)
    for raw, warp in zip(raws, warps, strict=True):
        fusion.add(raw, warp)
    expected = by_pytorch([raw[0] for raw in raws], warps, side, steps)
    # The derivative of |a - b| jumps where neighbours meet. Rounding decides on which side they are where they are
    # equal, as many are with a few copies: such pixels then walk along the same edge in other steps of the same length.
    # After one step, and with copies that tell all pixels apart, there is rounding alone.
    apart = np.abs(fusion.combined()[0] - expected)
    assert apart.mean() < (1e-12 if steps == 1 else RATE)
    assert apart.max() < (1e-9 if steps == 1 else RATE if copies == 16 else 30 * RATE)
