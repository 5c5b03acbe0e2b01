"""`Score`: what a map is to explain, where that is not the usual score of a class."""

import dataclasses
import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Manifest
from ortcam.engine.score import ScoreMatrix, Term
from ortcam.errors import OptionError, OrtcamError, TargetError
from ortcam.images.arrays.npy import LONGEST_HEADER, npy_header, values_of
from ortcam.images.arrays.pixels import ArrayLike, as_array
from ortcam.images.reading import read_image
from ortcam.request.outputs import find_output, output_example, outputs_in_words
from ortcam.request.score_text import VALUES, WORDS, Item, parse_score
from ortcam.request.targets import class_index
from ortcam.support.ranges import shown
from ortcam.support.suggestions import did_you_mean

__all__ = ["Score"]

_LARGEST: Final = 1 << 28  # bytes of a file
_OF_EMBEDDINGS: Final = (
    ": they are the cosines with the embeddings of --classes already, and yours can be one more row of their file"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """A score to explain: of each class, or an expression over the outputs of the model.

    `explain(score=...)` takes the text alone, too. Arrays are what `cosine:NAME` and `output[...]@NAME` mean; a name
    that is not among them is the path of a file, which is read here and once.

    Attributes:
        text: "logit" or "probability" (of each class of `target` or `top_k`), or an expression such as "mug - key",
            "entropy", "cosine:text.npy", "0.5*output[0] - output[1]", "output[1, :, :]@mask.png", or of a
            model with several outputs "scores[0, 5] - offset[2]".
        arrays: by name; those of files are added.
        files: whether files are read. A server says no.

    Raises:
        OptionError: the text is not accepted, an array is missing or not used, or a file cannot be read.

    Example:
        >>> Score("mug - key").word is None
        True
        >>> Score("cosine:query", arrays={"query": np.ones(512)}).text
        'cosine:query'
    """

    text: str
    arrays: Mapping[str, ArrayLike | NDArray[Any]] = dataclasses.field(default_factory=dict)
    files: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise OptionError(f"score={shown(self.text)}: accepted is a text, or an ortcam.Score")
        if not isinstance(self.arrays, Mapping):
            raise OptionError(f"arrays={shown(self.arrays)}: accepted are arrays by name, such as {{'query': ...}}")
        given = dict(self.arrays)
        items = () if self.word is not None else parse_score(self.text)
        names = list(dict.fromkeys(item.name for item in items if item.kind in ("cosine", "output") and item.name))
        if unused := [name for name in given if name not in names]:
            raise OptionError(f"score={shown(self.text)}: does not use the array {shown(unused[0])}")
        found = {name: _numbers(given[name], name) if name in given else self._read(name) for name in names}
        object.__setattr__(self, "text", self.text.strip() if self.word is None else self.text.strip().lower())
        object.__setattr__(self, "arrays", found)
        object.__setattr__(self, "_items", items)
        object.__setattr__(self, "_matrices", {})

    @classmethod
    def of(cls, score: "Score | str | None") -> "Score | None":
        """A score, or the text of one.

        Raises:
            OptionError: as `Score`; or something else.
        """
        return score if score is None or isinstance(score, Score) else cls(score)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Score) and self.record() == other.record()

    def __hash__(self) -> int:
        return hash(self.text)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_matrices": {}}

    @property
    def word(self) -> Term | None:
        """The term of each class that is meant, "logits" or "probabilities"; None for an expression."""
        text = self.text.strip().lower()
        return None if text not in WORDS else "logits" if text == "logit" else "probabilities"

    def record(self) -> dict[str, Any]:
        """The text, and the SHA-256 of each array, as a manifest has them."""
        arrays = {name: hashlib.sha256(np.asarray(value).tobytes()).hexdigest() for name, value in self.arrays.items()}
        return {"score": self.text, **({"score_arrays": arrays} if arrays else {})}

    def matrix(self, manifest: Manifest) -> ScoreMatrix:
        """An expression as a row of numbers over the terms of a model's outputs.

        Args:
            manifest: of the bundle.

        Raises:
            OptionError: the model has no such outputs, or an array does not fit them.
            TargetError: it has no such class.
        """
        size = manifest.preprocessing.height, manifest.preprocessing.width
        key = manifest.labels, manifest.output_shape, manifest.output_parts, manifest.activation, size
        matrices: dict[Any, ScoreMatrix] = self._matrices  # type: ignore[attr-defined]
        if key not in matrices:
            matrices[key] = self._matrix(manifest)
        return matrices[key]

    def _matrix(self, manifest: Manifest) -> ScoreMatrix:
        weights: dict[Term, NDArray[np.float64]] = {}
        items: tuple[Item, ...] = self._items  # type: ignore[attr-defined]
        for item in items:
            term, row = self._row(item, manifest)
            weights[term] = weights.get(term, np.zeros((1, len(row)))) + item.factor * row
        if not all(np.isfinite(row.astype(np.float32)).all() for row in weights.values()):
            raise OptionError(f"score={shown(self.text)}: a factor is too large")
        if not any(row.any() for term, row in weights.items() if term != "one"):
            raise OptionError(f"score={shown(self.text)}: its terms cancel, so that it is the same for every image")
        return ScoreMatrix(weights, manifest.activation, manifest.outputs)

    def _row(self, item: Item, manifest: Manifest) -> tuple[Term, NDArray[np.float64]]:
        """A term, and the weights of its values."""
        if item.kind == "one":
            return "one", np.ones(1)
        if item.kind == "output" or (manifest.output_parts and item.kind == "logit"):
            return "logits", self._of_output(item, manifest)
        if not manifest.has_classes:
            raise OptionError(
                f"{self._said(item)}: {outputs_in_words(manifest)}; accepted is "
                f"{'output[...]' if not manifest.output_parts else 'NAME[...]'}, such as {output_example(manifest)!r}"
            )
        if manifest.activation == "identity" and item.kind in ("probability", "entropy"):
            raise OptionError(f"{self._said(item)}: {VALUES}")
        if item.kind == "entropy":
            return "entropy", np.ones(1)
        assert item.name is not None  # of all other kinds
        if item.kind == "cosine":
            return "direction", self._of_cosine(item.name, manifest)
        row = np.zeros(manifest.outputs)
        try:
            row[class_index(item.name, manifest.labels)] = 1
        except TargetError as error:
            raise TargetError(f"score={shown(self.text)}: {error}{_hint(item)}") from None
        return ("logits" if item.kind == "logit" else "probabilities"), row

    def _said(self, item: Item) -> str:
        """A term as messages name it, once where it is the whole score."""
        whole = f"score={shown(self.text)}"
        return whole if item.text == self.text else f"{whole}: {shown(item.text)}"

    def _of_cosine(self, name: str, manifest: Manifest) -> NDArray[np.float64]:
        vector, outputs = np.asarray(self.arrays[name], np.float64), manifest.outputs
        if vector.size != outputs or max(vector.shape, default=0) != outputs:
            raise OptionError(
                f"score={shown(self.text)}: {shown(name)} has shape {list(vector.shape)}; accepted is [{outputs}], as "
                f"the model has outputs{_OF_EMBEDDINGS if manifest.model.embeddings_sha256 else ''}"
            )
        largest = float(np.abs(vector).max())
        if largest == 0:
            raise OptionError(f"score={shown(self.text)}: {shown(name)} is all zeros, which has no direction")
        unit = vector.reshape(-1) / largest  # first, so that no square goes beyond float64
        return unit / np.linalg.norm(unit)

    def _of_output(self, item: Item, manifest: Manifest) -> NDArray[np.float64]:
        try:
            shape, first = find_output(item.output or "", manifest)
        except OptionError as error:
            raise OptionError(f"score={shown(self.text)}: {error}") from None
        if len(item.index) != len(shape) and not (shape == (1,) and not item.index):
            raise OptionError(
                f"score={shown(self.text)}: {item.text} has {_axes(len(item.index))}; accepted is one index or : for "
                f"each axis of the output {list(shape)}"
            )
        index = item.index or (0,) * len(shape)
        for axis, (place, size) in enumerate(zip(index, shape, strict=True)):
            if place is not None and place >= size:
                raise OptionError(f"score={shown(self.text)}: {item.text}: axis {axis} accepts 0 to {size - 1}, or :")
        weights = np.zeros(shape)
        free = tuple(size for place, size in zip(index, shape, strict=True) if place is None)
        where = tuple(slice(None) if place is None else place for place in index)
        mask = item.name if item.kind == "output" else None
        weights[where] = 1 / max(int(np.prod(free)), 1) if mask is None else self._mask(mask, free, manifest)
        flat = np.zeros(manifest.outputs)
        flat[first : first + weights.size] = weights.reshape(-1)
        return flat

    def _mask(self, name: str, shape: tuple[int, ...], manifest: Manifest) -> NDArray[np.float64]:
        """The weights of two axes, with a sum of 1."""
        mask = np.asarray(self.arrays[name], np.float64)
        size = manifest.preprocessing.height, manifest.preprocessing.width
        if mask.shape != shape and mask.shape == size:
            rows, columns = (_averages(big, small) for big, small in zip(size, shape, strict=True))
            mask = rows @ mask @ columns.T
        if mask.shape != shape:
            raise OptionError(
                f"score={shown(self.text)}: the mask {shown(name)} is {list(mask.shape)}; accepted is {list(shape)} as "
                f"the output{'' if shape == size else f', or {list(size)}'} as the model's input"
            )
        if mask.min() < 0 or mask.max() <= 0:
            wrong = "values below 0" if mask.min() < 0 else "no value above 0"
            raise OptionError(
                f"score={shown(self.text)}: the mask {shown(name)} has {wrong}; accepted are weights from 0, some above"
            )
        mask = mask / mask.max()  # first, so that no sum goes beyond float64
        weights: NDArray[np.float64] = mask / mask.sum()
        return weights

    def _read(self, name: str) -> NDArray[np.float64]:
        """The numbers in a file.

        Raises:
            OptionError: files are not read here, or this one cannot be.
        """
        if not self.files:
            raise OptionError(f"score={shown(self.text)}: no array is named {shown(name)}, and files are not read here")
        path = Path(name).expanduser()
        try:
            return _read_file(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            if "pickle" in str(error):  # numpy's advice is to trust the file
                reason = "it holds Python objects, or is no .npy file"
            raise OptionError(f"score={shown(self.text)}: {name}: cannot be read: {reason}") from None
        except OptionError:
            raise
        except OrtcamError as error:
            raise OptionError(f"score={shown(self.text)}: {error}; accepted is .npy, or an image as a mask") from None


def _hint(item: Item) -> str:
    """How the grammar is written, where a name that is no class looks like more than a name."""
    name = item.name or ""
    if any(sign in name for sign in "+-*/"):
        return "; + and - stand between spaces, and a number in front of its class, as in 'mug - 2*key'"
    if item.text == name and ":" in name:
        return "; accepted in front of : are logit, probability, cosine and index"
    return did_you_mean(name, ("entropy", *WORDS)) if item.text == name else ""


def _read_file(path: Path) -> NDArray[np.float64]:
    """An array of a .npy file, or the grey levels of an image in [0,1]."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OptionError(f"{path}: is no regular file; accepted is .npy, or an image as a mask")
    if found.st_size > _LARGEST:
        raise OptionError(f"{path}: has more than {_LARGEST >> 20} MB")
    if path.suffix.lower() == ".npy":
        data = path.read_bytes()
        return _numbers(values_of(data, npy_header(data[:LONGEST_HEADER], str(path)), str(path)), str(path))
    grey: NDArray[np.float64] = read_image(path).mean(axis=2) / 255
    return grey


def _numbers(value: Any, name: str) -> NDArray[np.float64]:
    """An array of finite numbers.

    Raises:
        OptionError: it is something else.
    """
    try:
        array = np.asarray(value if isinstance(value, list | tuple | np.ndarray) else as_array(value))
    except (ValueError, TypeError, OverflowError):
        raise OptionError(f"the array {shown(name)}: accepted are finite numbers in rows of one length") from None
    if array.dtype.kind not in "buif" or not array.size or not np.isfinite(array).all():
        raise OptionError(
            f"the array {shown(name)}: accepted are finite numbers, not {array.dtype} {list(array.shape)}"
        )
    return array.astype(np.float64)


def _axes(count: int) -> str:
    return f"{count} {'axis' if count == 1 else 'axes'}"


def _averages(size: int, parts: int) -> NDArray[np.float64]:
    """Averages over equal parts of an axis: float64 [parts,size]."""
    edges = np.linspace(0, size, parts + 1)
    cells = np.arange(size)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    averages: NDArray[np.float64] = np.maximum(overlap, 0) * (parts / size)
    return averages
