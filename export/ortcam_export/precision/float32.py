"""The graphs of float32 that a bundle already has when its other precisions are made, run on the CPU."""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Cut, Graphs
from ortcam.engine import Session, open_session
from ortcam.engine.features import as_maps
from ortcam.engine.model import classify
from ortcam_export.graphs.running import cpu_options

__all__ = ["Float32Graphs"]


class Float32Graphs:
    """Clean passes of a bundle in the making.

    Args:
        folder: of the bundle.
        graphs: its own.
        cut: where the maps come from.

    Attributes:
        graphs: the same.
        cut: the same.
    """

    def __init__(self, folder: Path, graphs: Graphs, cut: Cut) -> None:
        self._folder = folder
        self.graphs = graphs
        self.cut = cut
        self._opened = functools.cache(self.open)

    def open(self, graph: str) -> Session:
        """Open a graph of the folder by its file name."""
        return open_session(self._folder / graph, cpu_options())

    def maps_and_logits(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The maps float32 [C,h,w] and the logits float32 [classes] of an image [1,C,H,W]."""
        features, logits = classify(self.graphs, self._opened, image)
        return as_maps(features, self.cut), logits[0]
