"""The derivative of the logits with respect to the features, as a gradient method uses it: seeds in, gradients out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam.engine.batching import Batch, BatchSizer, Progress, run_batches
from ortcam.engine.features import all_maps

__all__ = ["Derivative", "Features", "Layer", "one_hot"]

# What the gradient graph may take beside the seeds: features of the layers and "image", float32 [1,...], by name.
Features = Mapping[str, NDArray[np.float32]]

_Made = TypeVar("_Made")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the bundle.

    Attributes:
        cut: where it is.
        maps: its features of the image, A, float32 [C,h,w]; of tokens the patches alone. Read-only.
    """

    cut: Cut
    maps: NDArray[np.float32]


@dataclasses.dataclass
class Derivative:
    """d logits / d features of a classifier, for many seeds at once. It counts its passes.

    A seed holds a factor per class: the gradient of sum_c seed_c logit_c is what comes back. `one_hot` has the seeds of
    plain classes. Any function of the logits is explained by its own derivative with respect to the logits as a seed.

    Attributes:
        run: seeds, float32 [B,classes], features, and layers by place -> float32 [B,*cut.shape] per layer.
        run_output: seeds, features, and the name of a further output of the gradient graph -> that output, [B,...].
        layers: of the bundle; the first is the one that has the head behind it, the others lie before it.
        clean: the features of the image.
        noisy: (standard deviation, seed, sample) -> the features of the image with Gaussian noise on the model's input.
            Costs a pass of the features.
        noisy_logits: the same three -> the logits of that image, float32 [classes]. Costs a pass of the head where the
            features of that image were the last that were asked for.
        batch_size: the most seeds per run.
        least: seeds that every run has, padded: a graph of fixed shapes takes no fewer.
        progress: called as progress(backward passes made, backward passes in all) after every run.
        passes: backward passes made, one per seed.
        runs: runs of the gradient graph.
    """

    run: Callable[[NDArray[np.float32], Features, Sequence[int]], tuple[NDArray[np.float32], ...]]
    run_output: Callable[[NDArray[np.float32], Features, str], NDArray[np.float32]]
    layers: tuple[Layer, ...]
    clean: Features
    noisy: Callable[[float, int, int], Features]
    batch_size: int
    progress: Progress | None = None
    passes: int = 0
    runs: int = 0
    noisy_logits: Callable[[float, int, int], NDArray[np.float32]] | None = None
    least: int = 1

    def at(
        self, seeds: NDArray[np.float32], features: Features | None = None, *, layers: Sequence[int] = (0,)
    ) -> tuple[NDArray[np.float32], ...]:
        """The gradients of some layers in one run: float32 [B,C,h,w] per layer, of tokens the patches alone.

        Args:
            seeds: float32 [B,classes], B at most `batch_size`.
            features: where the derivative is taken; None: at the image.
            layers: which, by their places in `layers`.
        """
        found = self.run(seeds, self.clean if features is None else features, layers)
        self.passes += len(seeds)
        self.runs += 1
        return tuple(all_maps(value, self.layers[place].cut) for value, place in zip(found, layers, strict=True))

    def output_at(self, seeds: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        """A further output of the gradient graph at the image in one run, [B,...]: say "attention_relevance".

        Args:
            seeds: float32 [B,classes], B at most `batch_size`.
            name: of the output, which the bundle must have.
        """
        found = self.run_output(seeds, self.clean, name)
        self.passes += len(seeds)
        self.runs += 1
        return found

    def each(
        self, seeds: NDArray[np.float32], make: Callable[[NDArray[np.float32]], _Made], *, runs: int = 1
    ) -> list[_Made]:
        """Make something of all seeds, a batch of them at a time, so that their gradients are never in memory together.

        A batch that does not fit into memory is halved, unless the graph takes no fewer seeds.

        Args:
            seeds: float32 [K,classes], K at least 1; or [K,n,classes], which `make` takes apart.
            make: takes the seeds of a batch, float32 [B,classes], calls `at` with them, and returns what to keep.
            runs: how often it calls `at`.

        Returns:
            What `make` returned, in the order of the seeds.

        Raises:
            OutOfMemoryError: not even one seed fits.
        """
        size = -(-len(seeds) // -(-len(seeds) // self.batch_size))
        sizer = BatchSizer([size], fixed_shape=False, least=self.least)

        def prepare(batch: Batch) -> NDArray[np.float32]:
            return seeds[batch.rows]

        made = []
        for done in run_batches(len(seeds), sizer, prepare, make):
            made.append(done.result)
            if self.progress is not None:
                left = len(seeds) - done.batch.start - done.batch.size
                self.progress(self.passes, self.passes + left * runs)
        if sizer.size < size:  # what did not fit into memory is not tried again
            self.batch_size = sizer.size
        return made


def one_hot(targets: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """The seeds of classes as they are: float32 [K,classes], row k is 1 at its class and 0 elsewhere.

    Args:
        targets: int64 [K].
        classes: of the model.

    Example:
        >>> one_hot(np.array([1]), 3).tolist()
        [[0.0, 1.0, 0.0]]
    """
    seeds = np.zeros((len(targets), classes), np.float32)
    seeds[np.arange(len(targets)), targets] = 1
    return seeds
