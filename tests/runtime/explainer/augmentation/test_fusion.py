"""Total-variation fusion: the terms of its objective, and what it finds. `test_fusion_in_pytorch` has its formula."""

import numpy as np
import pytest

from ortcam.explainer.augmentation.fusion import STEPS, TotalVariation
from ortcam.explainer.augmentation.taps import Taps, grid
from ortcam.explainer.augmentation.warps import Warp, draw_warp
from ortcam.methods import Augmentation
from ortcam.scoring import upsample

HEIGHT, WIDTH = 32, 40
CELLS = (4, 5)


def warps(copies: int) -> list[Warp]:
    return [draw_warp(Augmentation(copies), number, HEIGHT, WIDTH) for number in range(copies)]


def fused(raws: list[np.ndarray], chosen: list[Warp], steps: int = STEPS) -> np.ndarray:
    fusion = TotalVariation(CELLS, steps=steps)
    for raw, warp in zip(raws, chosen, strict=True):
        fusion.add(raw, warp)
    return fusion.combined()


def disc() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return ((y - 13) ** 2 + (x - 17) ** 2 < 49).astype(float)


def cells_of(warp: Warp, plane: np.ndarray) -> np.ndarray:
    """The means of the cells of a copy of a plane: what a map of the copy is that moves with the image."""
    fine = warp.to_image(grid(4 * 8, 5 * 8))
    values = Taps.of(fine, HEIGHT, WIDTH).sample(plane[None]) * fine.inside
    return values.reshape(1, 4, 8, 5, 8).mean(axis=(2, 4))


@pytest.mark.slow
def test_many_copies_find_what_one_does_not_resolve() -> None:
    chosen, plane = warps(100), disc()
    many = fused([cells_of(warp, plane) for warp in chosen], chosen, 1000)[0]
    one = fused([cells_of(chosen[0], plane)], chosen[:1], 1000)[0]
    coarse = upsample(cells_of(chosen[0], plane), HEIGHT, WIDTH)[0]
    alike = [np.corrcoef(found.ravel(), plane.ravel())[0, 1] for found in (one, coarse, many)]
    assert alike[2] > max(alike[:2]) + 0.02
    assert alike[2] > 0.88


def test_as_its_authors_stop_it_a_map_is_a_fifth_of_the_way() -> None:
    chosen = warps(10)
    found = fused([cells_of(warp, disc()) for warp in chosen], chosen)[0]
    assert found.shape == (HEIGHT, WIDTH)
    assert found.min() >= 0
    assert 0.15 < found.max() < 0.25  # 200 steps of about 0.001
    assert disc()[np.unravel_index(found.argmax(), found.shape)] == 1


def test_the_scale_of_a_copy_does_not_count_and_a_map_of_zeros_gives_zeros() -> None:
    chosen, generator = warps(5), np.random.default_rng(0)
    raws = [generator.random((1, *CELLS)) for _ in chosen]
    scaled = [raw * 2.0**place for place, raw in enumerate(raws)]  # powers of two, so that nothing is rounded
    np.testing.assert_array_equal(fused(raws, chosen), fused(scaled, chosen))
    assert (fused([np.zeros((2, *CELLS))] * 5, chosen) == 0).all()
    assert (fused([-raw for raw in raws], chosen) == 0).all()


def test_classes_do_not_mix() -> None:
    chosen, generator = warps(4), np.random.default_rng(1)
    raws = [generator.standard_normal((2, *CELLS)) for _ in chosen]
    both = fused(raws, chosen)
    np.testing.assert_array_equal(both[1], fused([raw[1:] for raw in raws], chosen)[0])


def test_a_map_of_image_size_counts_by_the_means_of_its_cells() -> None:
    chosen, generator = warps(4), np.random.default_rng(2)
    small = [generator.random((1, *CELLS)) for _ in chosen]
    large = [np.repeat(np.repeat(raw, 8, axis=1), 8, axis=2) for raw in small]
    # The means of equal values are rounded, and a step of Adam hangs on signs: a tenth of all that a pixel moves.
    np.testing.assert_allclose(fused(large, chosen), fused(small, chosen), rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", [(3, 7), (32, 40), (5, 3)])
def test_cells_that_do_not_divide_the_image_are_accepted(shape: tuple[int, int]) -> None:
    fusion = TotalVariation(shape)
    for warp in warps(3):
        fusion.add(np.ones((1, HEIGHT, WIDTH)), warp)
    found = fusion.combined()[0]
    assert found.shape == (HEIGHT, WIDTH)
    assert found[HEIGHT // 2, WIDTH // 2] > 0.1
