"""The randomised-weights check: when weights are shuffled, from the logits down, the maps must change.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that stays the same without the weights explains
the image, not the model. Here the entries of each weight are shuffled. That keeps their distribution, and so the scale
of the outputs. The similarity of two maps is Spearman's rank correlation.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.external_data_helper import uses_external_data
from scipy import stats

from ortcam.bundle import MANIFEST_NAME, Bundle, FileRecord, file_sha256
from ortcam.errors import BundleError
from ortcam.scoring.similarity import correlation

__all__ = ["DEPTHS", "Similarity", "Weight", "check_weights", "shuffled_bundle", "similarity"]

# Shares of the weights, from the logits down; 0 means the last weight alone.
DEPTHS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)

_FLOAT: Final[dict[int, type[np.floating[Any]]]] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
}


@dataclasses.dataclass(frozen=True)
class Similarity:
    """How similar a map is to that of the model with shuffled weights, for the same image and class.

    Attributes:
        image: name of the example.
        variant: name of the variant.
        depth: share of the weights shuffled, of `DEPTHS`.
        spearman: rank correlation of the maps, in [-1,1].
    """

    image: str
    variant: str
    depth: float
    spearman: float


def similarity(saliency: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Compute Spearman's rank correlation of two maps [H,W]; 0 if one is flat, 1 if both are."""
    return correlation(saliency, other, lambda a, b: float(stats.spearmanr(a.ravel(), b.ravel()).statistic))


def shuffled_bundle(bundle: Bundle, folder: Path, depth: float, *, seed: int) -> Path:
    """Copy a bundle, and shuffle the entries of its last weights, alike in all its float graphs.

    Args:
        bundle: to copy.
        folder: empty; the copy is written there.
        depth: share of the weights, from the logits down; 0 shuffles the last weight alone.
        seed: of the shuffling. A larger depth shuffles the same weights in the same way, and more of them.

    Raises:
        BundleError: the bundle keeps no float weights in a file of their own.
    """
    tensors = check_weights(bundle)
    count = max(1, round(depth * len(tensors)))
    copy = folder / f"shuffled-{count}.ortcam"
    copy.mkdir(parents=True)
    bundle.copy_to(copy)
    changed = set()
    # From the logits down: a weight draws the same numbers whatever the depth.
    for place, tensor in enumerate(reversed(tensors[-count:])):
        values = np.memmap(copy / tensor.file, tensor.dtype, "r+", tensor.offset, (tensor.size,))
        np.random.default_rng((seed, place)).shuffle(np.asarray(values))  # of a memmap itself it would be slow
        values.flush()
        changed.add(tensor.file)
    files = {name: FileRecord((copy / name).stat().st_size, file_sha256(copy / name)) for name in changed}
    manifest = dataclasses.replace(bundle.manifest, files=bundle.manifest.files | files)
    (copy / MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    return copy


def check_weights(bundle: Bundle) -> "list[Weight]":
    """List the weights that can be shuffled, in the order of the data flow.

    Raises:
        BundleError: there are none.
    """
    tensors = list(_weights(bundle))
    if not tensors:
        raise BundleError(f"{bundle.path}: has no float weights in a file of their own to shuffle")
    return tensors


@dataclasses.dataclass(frozen=True)
class Weight:
    """Where a weight lies: file, offset in bytes, number of values, and their type."""

    file: str
    offset: int
    size: int
    dtype: type[np.floating[Any]]


def _weights(bundle: Bundle) -> Iterator[Weight]:
    """Weights of at least two dimensions, in the order of the data flow."""
    graphs = bundle.manifest.graphs
    seen = set()
    for name in (graphs.features, graphs.head) if graphs.head is not None else (graphs.classifier,):
        model = onnx.load_model_from_string(bundle.content(str(name)).data)
        stored = {item.name: item for item in model.graph.initializer if uses_external_data(item)}
        for node in model.graph.node:
            for used in node.input:
                item = stored.get(used)
                if item is None or item.data_type not in _FLOAT or len(item.dims) < 2:
                    continue
                where = {entry.key: entry.value for entry in item.external_data}
                key = where["location"], int(where.get("offset", 0))
                if key not in seen:
                    seen.add(key)
                    yield Weight(*key, int(np.prod(item.dims)), _FLOAT[item.data_type])
