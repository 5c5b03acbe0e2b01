"""What the axes of a tensor inside a classifier mean: maps of the image with channels first or last, or its tokens."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ortcam_export.graphs.layers.painting import Answers

__all__ = ["NO_LAYOUT", "Arrangement", "arrange", "channel_axes"]

# Why a tensor holds no maps, if its shape alone says so.
NO_LAYOUT: Final = "which has no spatial or token layout"

_MAX_EXTRA_TOKENS: Final = 15
# How far the positions of maps follow the image along an axis, as a correlation. The last maps of real and of random
# networks reach 0.85 to 0.99, those of transformers with large random weights less. A sequence can be read in many
# ways, one of which may fit a little by chance: all but the plain ones have to fit better.
_LEAST_OF_GRIDS: Final = 0.5
_LEAST_OF_TOKENS: Final = 0.7
# A few tokens that lie nowhere fit some grid by chance.
_FEW: Final = 9
_LEAST_OF_FEW: Final = 0.95
# How far they move, relative to the image: behind a network that mixes everything, what is no map moves by nothing.
_LEAST_SLOPE: Final = 0.01
# How much of their spread the positions of one row may have along columns, or those of one column along rows.
_MOST_ACROSS: Final = 0.5
# How many cells of a map may lie where nothing is seen; the last cells of a network with long strides see little.
_MOST_UNSEEN: Final = 0.5
# Readings of a sequence that are as good as the best one: the plainest of them counts.
_AS_GOOD: Final = 0.02
_MOST_STRETCHED: Final = 8


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """How a tensor holds maps of the image.

    Attributes:
        layout: of the tensor, once it is in order: "nchw", "nhwc" or "tokens".
        channels: C.
        height: h, rows of a map.
        width: w, columns of a map.
        prefix_tokens: tokens in front of the patches, once they are in order.
        transposed: whether rows and columns are exchanged, or of tokens the tokens and the channels: a Transpose brings
            them in order.
        order: of tokens, which of them goes where: those that are no patches, then the patches row by row; None where
            they lie so already.
    """

    layout: Literal["nchw", "nhwc", "tokens"]
    channels: int
    height: int
    width: int
    prefix_tokens: int = 0
    transposed: bool = False
    order: tuple[int, ...] | None = None


def channel_axes(shape: tuple[int, ...], image: tuple[int, ...]) -> frozenset[int]:
    """The axes that may be the channels if a tensor [N,...] holds maps of the image, by its shape alone.

    Args:
        shape: with the images on axis 0.
        image: shape of the image, [N,C,H,W].
    """
    if len(shape) not in (3, 4) or shape[0] != image[0]:
        return frozenset()
    axes = (1, 3) if len(shape) == 4 else (1, 2)
    return frozenset(axis for axis in axes if _may_be_maps(shape, axis, image))


def _may_be_maps(shape: tuple[int, ...], axis: int, image: tuple[int, ...]) -> bool:
    sides = [side for index, side in enumerate(shape) if index not in (0, axis)]
    if len(shape) == 4:
        height, width = sides
        return height * width > 1 and (
            (height <= image[2] and width <= image[3]) or (height <= image[3] and width <= image[2])
        )
    return shape[axis] > 1 and bool(_grids(sides[0], image))


def arrange(shape: tuple[int, ...], image: tuple[int, ...], answers: Mapping[int, Answers]) -> Arrangement | str:
    """Find out how a tensor holds maps of the image, by its answers to painted bands; or why it holds none.

    If nothing answers, as behind a layer that has died, the shape alone decides.

    Args:
        shape: with the images on axis 0.
        image: shape of the image, [N,C,H,W].
        answers: channel axis -> what answers, for all of `channel_axes`.
    """
    if not answers:
        return NO_LAYOUT
    if all(np.isnan(answer.rows).all() and np.isnan(answer.columns).all() for answer in answers.values()):
        plain = _by_shape(shape, image)
        return "in which nothing moves with the image" if plain is None else plain
    readings = [
        reading
        for axis, answer in answers.items()
        for reading in (_as_grid if len(shape) == 4 else _as_tokens)(shape, axis, image, answer)
    ]
    if not readings:
        return NO_LAYOUT
    best = max(reading.score for reading in readings)
    chosen = next(reading for reading in readings if reading.score >= best - _AS_GOOD)
    if not chosen.passes:
        return (
            "in which painted parts of the image do not move as in a map of it (its positions follow the image's by "
            f"{chosen.score:.2f}; accepted is {chosen.least} to 1)"
        )
    if len(shape) == 3 and len({reading.axis for reading in readings if reading.passes}) > 1:
        return "which compares positions with positions: both of its axes move with the image"
    found = chosen.arrangement()
    if found is None:
        return "which is mirrored"
    unseen = answers[chosen.axis].unseen
    if max(unseen[0] * found.height, unseen[1] * found.width) > _MOST_UNSEEN:
        return "which sees a part of the image alone (a crop inside the graph?): its maps would be laid over all of it"
    return found


@dataclasses.dataclass(frozen=True)
class _Reading:
    """One way to take a tensor for maps of the image.

    Attributes:
        axis: of the channels.
        score: how well it fits, up to 1.
        least: how well it has to.
        moves: whether its positions answer to different parts of the image at all.
        arrangement: makes what it is then; None where it is mirrored.
    """

    axis: int
    score: float
    least: float
    moves: bool
    arrangement: Callable[[], Arrangement | None]

    @property
    def passes(self) -> bool:
        return self.moves and self.score >= self.least


def _as_grid(shape: tuple[int, ...], axis: int, image: tuple[int, ...], answer: Answers) -> Iterator[_Reading]:
    """Readings of [N,C,h,w], or [N,h,w,C], as it is and with rows and columns exchanged."""
    layout: Literal["nchw", "nhwc"] = "nchw" if axis == 1 else "nhwc"
    for transposed in (False, True):
        rows, columns = (answer.rows.T, answer.columns.T) if transposed else (answer.rows, answer.columns)
        height, width = rows.shape
        if height > image[2] or width > image[3]:
            continue
        arrangement = Arrangement(layout, shape[axis], height, width, transposed=transposed)
        place = np.meshgrid(_line(height), _line(width), indexing="ij")
        pairs = [(_centred(found), line) for found, line in zip((rows, columns), place, strict=True)]
        followed = [_follows(values.ravel(), line.ravel()) for values, line in pairs if line.any()]
        spreads = [float(np.linalg.norm(values)) for values, _ in pairs]
        if (height == 1 or width == 1) and min(spreads) > _MOST_ACROSS * max(spreads):
            continue  # patches in one row
        score, slope = (min(abs(value) for value in values) for values in zip(*followed, strict=True))
        mirrored = any(correlation < 0 for correlation, _ in followed)
        yield _Reading(
            axis, score, _LEAST_OF_GRIDS, slope >= _LEAST_SLOPE, functools.partial(_unless, mirrored, arrangement)
        )


def _unless(mirrored: bool, arrangement: Arrangement) -> Arrangement | None:
    return None if mirrored else arrangement


def _line(count: int) -> NDArray[np.float64]:
    """Where the rows or columns of a map lie, from -1 to 1; a single one in the middle."""
    return np.linspace(-1, 1, count) if count > 1 else np.zeros(1)


def _follows(found: NDArray[np.float64], place: NDArray[np.float64]) -> tuple[float, float]:
    """The correlation between where positions answer and where they lie, both centred, and the slope."""
    total = float(np.linalg.norm(found))
    if total == 0:
        return 0.0, 0.0
    dot = float(found @ place)
    return dot / (total * float(np.linalg.norm(place))), dot / float(place @ place)


def _centred(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract the mean. A position that does not answer becomes 0."""
    known = np.isfinite(found)
    if not known.any():
        return np.zeros_like(found)
    return np.where(known, found - found[known].mean(), 0)


def _as_tokens(shape: tuple[int, ...], axis: int, image: tuple[int, ...], answer: Answers) -> Iterator[_Reading]:
    """Readings of [N,T,C], or [N,C,T], as patches and a few other tokens.

    The plainest come first: patches that tile the image, the others in front, row by row.
    """
    tokens = len(answer.rows)
    centred = np.stack([_centred(answer.rows), _centred(answer.columns)])
    norms = np.linalg.norm(centred, axis=1)
    if not norms.all():
        return
    for extra, height, width in _grids(tokens, image):
        lines = np.meshgrid(_line(height), _line(width), indexing="ij")
        for by_columns in (False, True):
            number = np.arange(height * width).reshape((width, height) if by_columns else (height, width))
            number = number.T if by_columns else number  # [h,w], which of the patches lies there
            place = np.stack(lines).reshape(2, -1)[:, np.argsort(number, axis=None)]
            lengths = np.linalg.norm(place, axis=1)
            for others in _placements(extra, height * width):
                dots = (np.delete(centred, others, axis=1) * place).sum(axis=1)
                followed = dots / (norms * lengths)
                moves = bool((np.abs(dots) / lengths**2 >= _LEAST_SLOPE).all())
                made = functools.partial(_ordered, shape[axis], number, others, followed < 0, transposed=axis == 1)
                plain = _tiles(height, width, image) and not by_columns and others == tuple(range(extra))
                least = _LEAST_OF_GRIDS if plain and (followed > 0).all() else _LEAST_OF_TOKENS
                least = _LEAST_OF_FEW if height * width <= _FEW else least
                yield _Reading(axis, float(np.abs(followed).min()), least, moves, made)


def _ordered(
    channels: int,
    number: NDArray[np.int64],
    others: tuple[int, ...],
    mirrored: NDArray[np.bool_],
    *,
    transposed: bool,
) -> Arrangement:
    """The arrangement of tokens, given which patch lies where, [h,w], and which tokens are no patches."""
    height, width = number.shape
    order: tuple[int, ...] | None = _order(number, others, mirrored)
    if order == tuple(range(height * width + len(others))):
        order = None
    return Arrangement("tokens", channels, height, width, len(others), transposed, order)


def _placements(extra: int, patches: int) -> Iterator[tuple[int, ...]]:
    """Where the tokens that are no patches may stand: in front, behind, in the middle, or at both ends, one at one."""
    yield tuple(range(extra))
    if extra:
        yield tuple(range(patches, patches + extra))
        yield tuple(range(patches // 2, patches // 2 + extra))
    for front in {1, extra - 1} if extra > 1 else ():
        yield (*range(front), *range(front + patches, patches + extra))


def _order(number: NDArray[np.int64], others: tuple[int, ...], mirrored: NDArray[np.bool_]) -> tuple[int, ...]:
    """The tokens that are no patches, then the patches row by row, as indices into the sequence."""
    for axis in (0, 1):
        if mirrored[axis]:
            number = np.flip(number, axis)
    patches = np.delete(np.arange(number.size + len(others)), others)
    return (*others, *(int(index) for index in patches[number.ravel()]))


@functools.lru_cache(maxsize=64)
def _grids(tokens: int, image: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """(extra, h, w) with extra + h w = tokens, plainest first: patches that tile the image, few other tokens."""
    found = []
    for extra in range(min(_MAX_EXTRA_TOKENS, tokens // 3) + 1):
        patches = tokens - extra
        for height in range(2, min(image[2], patches // 2) + 1):
            width, rest = divmod(patches, height)
            if rest or width < 2 or width > image[3]:
                continue
            down, across = image[2] / height, image[3] / width
            if max(down / across, across / down) <= _MOST_STRETCHED:
                found.append((not _tiles(height, width, image), extra, height, width))
    return tuple((extra, height, width) for _, extra, height, width in sorted(found))


def _tiles(height: int, width: int, image: tuple[int, ...]) -> bool:
    """Whether h x w patches tile the image and are square."""
    return image[2] % height == 0 and image[3] // width == image[2] // height


def _by_shape(shape: tuple[int, ...], image: tuple[int, ...]) -> Arrangement | None:
    """What a shape most plainly is: one scale on both axes, channels first, patches that tile the image."""
    if len(shape) == 4:
        for layout, channels, height, width in (("nchw", *shape[1:]), ("nhwc", shape[3], shape[1], shape[2])):
            stretched = abs(height * image[3] - width * image[2]) > max(image[2:]) * 1.5
            if height * width > 1 and height <= image[2] and width <= image[3] and not stretched:
                return Arrangement(layout, channels, height, width)  # type: ignore[arg-type]
        return None
    for extra, height, width in _grids(shape[1], image):
        if _tiles(height, width, image):
            return Arrangement("tokens", shape[2], height, width, extra)
    return None
