"""Heads made of a Python function, for tests."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam.methods import Head


def head_of(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    *,
    layout: str = "nchw",
    shape: tuple[int, int, int] = (2, 2, 2),
    prefix: int = 0,
    batch_size: int = 32,
) -> Head:
    return Head(run, Cut("features", None, layout, *shape, prefix), "sigmoid", batch_size)
