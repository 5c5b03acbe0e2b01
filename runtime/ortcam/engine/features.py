"""What the graphs of a classifier give: features and the maps in them, rows of logits, finite values, probabilities."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Activation, Cut
from ortcam.errors import BundleError, NotFiniteError

__all__ = [
    "CleanPass",
    "all_maps",
    "as_maps",
    "check_features",
    "check_finite",
    "check_rows",
    "exact_probabilities",
    "from_maps",
    "prefix_tokens",
    "to_probabilities",
]


@dataclasses.dataclass(frozen=True)
class CleanPass:
    """What the model makes of an image as it is. Several runs may share the arrays, which are read-only.

    Attributes:
        features: of the layers, as `Manifest.cuts` names them, float32 [1,...] in the layout of their cut.
        maps: float32 [C,h,w], those of the first layer, the bundle's cut.
        logits: float32 [classes].
        probabilities: float32 [classes].
    """

    features: Mapping[str, NDArray[np.float32]]
    maps: NDArray[np.float32]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def check_rows(what: str, value: object, rows: int, columns: int | None = None) -> None:
    """Refuse what a graph gives where float32 [rows,columns] is expected: its file may declare one and make another.

    Args:
        what: it is, in words.
        value: of the graph.
        rows: one for each image.
        columns: one for each class; None for any number from 1.

    Raises:
        BundleError: it is something else.
    """
    found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else "no tensor"
    if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.ndim == 2 and value.size:
        shape = value.shape
        if shape == (rows, shape[1] if columns is None else columns):
            return
    wanted = "classes" if columns is None else columns
    raise BundleError(f"the graphs of the bundle do not fit: {what} are {found}; accepted is float32 [{rows},{wanted}]")


def check_features(what: str, value: object, rows: int, cut: Cut) -> None:
    """Refuse what a graph gives where float32 [rows,*cut.shape] is expected.

    Args:
        what: it is, in words.
        value: of the graph.
        rows: one per image or seed.
        cut: whose layout it must have.

    Raises:
        BundleError: it is something else.
    """
    wanted = (rows, *cut.shape)
    if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.shape == wanted:
        return
    found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else "no tensor"
    raise BundleError(f"the graphs of the bundle do not fit: {what} are {found}; accepted is float32 {list(wanted)}")


def check_finite(what: str, *values: NDArray[np.floating[Any]]) -> None:
    """Refuse values that are infinite or not numbers: no map is made of them.

    Args:
        what: they are, in words.
        *values: of any shape.

    Raises:
        NotFiniteError: some of them are not finite; says how many, and what helps.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a sum is quick, and is finite only if all values are
        doubtful = [item for item in values if not np.isfinite(item.sum())]
    wrong = sum(int(np.count_nonzero(~np.isfinite(item))) for item in doubtful)
    if wrong:
        count = sum(item.size for item in values)
        raise NotFiniteError(
            f"{wrong} of {count} {what} are infinite or not numbers: the model is damaged, or its values go beyond "
            "what its precision holds (float16 ends at 65504; float32 holds more)"
        )


def as_maps(features: NDArray[np.float32], cut: Cut) -> NDArray[np.float32]:
    """The maps [C,h,w] in the features of one image: [1,C,h,w], [1,h,w,C], or tokens [1,T,C].

    Raises:
        BundleError: features of another shape than the cut has.
    """
    if features.shape != (1, *cut.shape):
        raise BundleError(f"features are {list(features.shape)}; the cut in bundle.json has {[1, *cut.shape]}")
    maps: NDArray[np.float32] = all_maps(features, cut)[0]
    return maps


def all_maps(features: NDArray[np.float32], cut: Cut) -> NDArray[np.float32]:
    """The maps in the features of N images, or in their gradients: float32 [N,C,h,w], without prefix tokens.

    Args:
        features: float32 [N,*cut.shape].
        cut: which layout.
    """
    if cut.layout == "nhwc":
        features = features.transpose(0, 3, 1, 2)
    elif cut.layout == "tokens":
        patches = features[:, cut.prefix_tokens :].transpose(0, 2, 1)
        features = patches.reshape(len(features), cut.channels, cut.height, cut.width)
    return np.ascontiguousarray(features, np.float32)


def prefix_tokens(features: NDArray[np.float32], cut: Cut) -> NDArray[np.float32]:
    """The prefix tokens in the features of one image: float32 [P,C], P = 0 for layouts that have none."""
    if cut.layout != "tokens":
        return np.zeros((0, cut.channels), np.float32)
    return features[0, : cut.prefix_tokens]


def from_maps(maps: NDArray[np.float32], prefix: NDArray[np.float32], cut: Cut) -> NDArray[np.float32]:
    """The features that maps stand for, as the head takes them: the inverse of `as_maps`, for a batch.

    Args:
        maps: float32 [N,C,h,w].
        prefix: float32 [P,C], the prefix tokens of all N (of no token, P = 0, for the other layouts).
        cut: which layout.

    Returns:
        float32 [N,C,h,w], [N,h,w,C] or [N,P + h w,C].
    """
    if cut.layout == "nchw":
        return maps
    if cut.layout == "nhwc":
        return np.ascontiguousarray(maps.transpose(0, 2, 3, 1))
    patches = maps.reshape(len(maps), cut.channels, -1).transpose(0, 2, 1)
    return np.concatenate([np.broadcast_to(prefix, (len(maps), *prefix.shape)), patches], axis=1)


def to_probabilities(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Probabilities of the classes, float32 of the shape of the logits; the classes are on the last axis."""
    return exact_probabilities(logits, activation).astype(np.float32)


def exact_probabilities(logits: NDArray[np.floating[Any]], activation: Activation) -> NDArray[np.float64]:
    """The same in float64, for differences of them: softmax over the classes, the sigmoid of each, or the values."""
    exact = logits.astype(np.float64)
    if activation == "identity":
        return exact
    if activation == "sigmoid":
        sigmoid: NDArray[np.float64] = np.exp(-np.logaddexp(0, -exact))
        return sigmoid
    shifted = np.exp(exact - exact.max(axis=-1, keepdims=True))
    softmax: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return softmax
