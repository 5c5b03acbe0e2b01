"""Images of maps: a heatmap, and its blend with the photograph."""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ortcam.errors import ImageError, OptionError
from ortcam.images.resampling.crop import CropGeometry
from ortcam.support.ranges import ALPHA, SHRUNK_SIDE

__all__ = [
    "BEGIN",
    "BLENDS",
    "BLOCK",
    "COLORMAPS",
    "DIM",
    "FULL",
    "GREY",
    "LONGEST_SIDE",
    "Blend",
    "Rendering",
    "as_uint8",
    "dimmed",
    "draw_map",
    "framed",
    "heatmap",
    "opacity",
    "overlay",
    "shrunk",
    "smoothed",
]

LONGEST_SIDE = 8192  # pixels of an overlay in a file: any photograph of 24 megapixels stays as large as it is
COLORMAPS = ("turbo", "viridis", "jet")
_OPENCV_COLORMAPS = {"jet": cv2.COLORMAP_JET, "turbo": cv2.COLORMAP_TURBO, "viridis": cv2.COLORMAP_VIRIDIS}
Blend = Literal["rising", "flat"]
BLENDS: Final = get_args(Blend)

# Chosen by eye, on light and dark photographs and in a simulation of red-green blindness.
_ALPHA: Final[dict[str, float]] = {"rising": 0.65, "flat": 0.5}
BEGIN, FULL = 0.1, 0.9  # of the map: below the first nothing is drawn, from the second on it is at its most opaque
DIM: Final = 0.6  # brightness of what the model did not see
BLOCK: Final = 1 << 20  # pixels that are drawn at a time
GREY: Final = 0.5  # how much of its colour is taken away


@dataclass(frozen=True)
class Rendering:
    """How a map is drawn over a photograph.

    Attributes:
        colormap: one of `COLORMAPS`.
        blend: "rising" draws a map the more opaque the higher it is, smooths its edges, dims what the model did not see
            and frames what it saw. "flat" draws all of the map equally opaque, and nothing else.
        alpha: opacity where the map is highest, in [0, 1]; None is 0.65 of "rising" and 0.5 of "flat".

    Raises:
        OptionError: an unknown colormap or blend, or `alpha` out of range.

    Example:
        >>> Rendering("viridis").record()
        {'colormap': 'viridis', 'alpha': 0.65, 'blend': 'rising'}
    """

    colormap: str = "turbo"
    blend: Blend = "rising"
    alpha: float | None = None

    def __post_init__(self) -> None:
        _check_colormap(self.colormap)
        if self.blend not in BLENDS:
            raise OptionError(f"blend {self.blend!r}: accepted is one of {', '.join(BLENDS)}")
        object.__setattr__(self, "alpha", _ALPHA[self.blend] if self.alpha is None else ALPHA.check(self.alpha))

    def record(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"colormap": self.colormap, "alpha": self.alpha, "blend": self.blend}


def heatmap(saliency: NDArray[np.float32], colormap: str = "turbo") -> NDArray[np.uint8]:
    """Colour a map.

    Args:
        saliency: float32 [H, W] in [0, 1]; values outside are clipped.
        colormap: one of `COLORMAPS`. "turbo" is a rainbow of even steps, "viridis" is perceptually uniform and safe for
            colour-blind readers, "jet" is what the papers print.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        OptionError: an unknown colormap.
        ImageError: the map is not a matrix.
    """
    _check_colormap(colormap)
    if saliency.ndim != 2 or saliency.size == 0:
        raise ImageError(f"a map is float32 [H, W], not {saliency.dtype} {list(saliency.shape)}")
    levels = np.rint(np.clip(saliency, 0, 1) * 255).astype(np.uint8)
    coloured = cv2.applyColorMap(levels, _OPENCV_COLORMAPS[colormap])
    return as_uint8(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB))


def opacity(saliency: NDArray[np.float32], alpha: float = 0.65) -> NDArray[np.float32]:
    """How opaque the colours of a map are drawn: 0 below 0.1, `alpha` from 0.9 on, a smooth rise between.

    alpha t^2 (3 - 2 t) with t = (S - 0.1) / 0.8, clipped to [0, 1]: the "smoothstep" of graphics.

    Args:
        saliency: float32 of any shape.
        alpha: the highest opacity, in [0, 1].

    Example:
        >>> print(opacity(np.array([0, 0.1, 0.5, 1], np.float32), 0.8).round(2))
        [0.  0.  0.4 0.8]
    """
    t = np.clip((saliency - np.float32(BEGIN)) / np.float32(FULL - BEGIN), 0, 1)
    rise: NDArray[np.float32] = (np.float32(alpha) * t * t * (3 - 2 * t)).astype(np.float32)
    return rise


def overlay(
    image: NDArray[np.uint8],
    saliency: NDArray[np.float32],
    *,
    colormap: str = "turbo",
    blend: Blend = "rising",
    alpha: float | None = None,
    covered: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Draw a map over a photograph: (1 - a) * image + a * heatmap.

    Args:
        image: uint8 [H, W, 3], RGB.
        saliency: float32 [H, W] in [0, 1].
        colormap: one of `COLORMAPS`.
        blend: "rising": a is `opacity(saliency, alpha)`, so that the photograph is untouched where the map is low, and
            pixels that are not covered are dimmed. "flat": a is `alpha` everywhere, and pixels that are not covered
            stay as they are.
        alpha: opacity of the heatmap in [0, 1], where the map is highest; None is 0.65 for "rising", 0.5 for "flat".
        covered: bool [H, W], where the map says something, as from `CropGeometry.to_original`. None covers all.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        OptionError: an unknown colormap or blend, or `alpha` outside [0, 1].
        ImageError: the image is not uint8 [H, W, 3], or the map or `covered` is of another size.

    Example:
        >>> grey = np.full((1, 2, 3), 128, np.uint8)
        >>> overlay(grey, np.array([[0, 1]], np.float32), colormap="viridis").tolist()
        [[[128, 128, 128], [209, 195, 69]]]
    """
    rendering = Rendering(colormap, blend, alpha)
    assert rendering.alpha is not None
    _check_rgb(image, "the image to draw on")
    for name, array in (("map", saliency), ("covered", covered)):
        if array is not None and array.shape != image.shape[:2]:
            raise ImageError(f"{name} is {list(array.shape)}, but the image is {list(image.shape[:2])}")
    colours = heatmap(saliency, colormap)
    if blend == "flat":
        drawn = as_uint8(cv2.addWeighted(colours, rendering.alpha, image, 1 - rendering.alpha, 0))
    else:
        a = opacity(saliency, rendering.alpha)
        drawn = as_uint8(cv2.blendLinear(colours, image, a, 1 - a))
    if covered is not None and not covered.all():
        np.copyto(drawn, dimmed(image) if blend == "rising" else image, where=~covered[..., None])
    return drawn


def dimmed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photograph darker and greyer, as the part is drawn that the model did not see: uint8 RGB [H, W, 3]."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return as_uint8(cv2.addWeighted(image, DIM * (1 - GREY), grey, DIM * GREY, 0))


def framed(image: NDArray[np.uint8], seen: tuple[int, int, int, int]) -> None:
    """Draw a thin frame around the part of a photograph that the model saw, outside of it, in place.

    The frame is white with a dark edge, so that it shows on light and on dark photographs. It is about 1/500 of the
    photograph wide. A side that coincides with the photograph's edge has none.

    Args:
        image: uint8 RGB [H, W, 3].
        seen: first row, first column, row and column behind the last, in pixels.
    """
    height, width = image.shape[:2]
    top, left, bottom, right = seen
    line = max(1, round(min(height, width) / 500))
    for reach, colour in ((2 * line, 32), (line, 255)):
        y0, x0, y1, x1 = max(0, top - reach), max(0, left - reach), bottom + reach, right + reach
        for part in (
            image[y0 : max(0, top), x0:x1],
            image[bottom:y1, x0:x1],
            image[y0:y1, x0 : max(0, left)],
            image[y0:y1, right:x1],
        ):
            part[:] = colour


def smoothed(saliency: NDArray[np.float32], cell: tuple[float, float]) -> NDArray[np.float32]:
    """A map without the creases that bilinear interpolation leaves between the cells of a layer.

    A Gaussian of a sixth of a cell is far narrower than what a map can show, so nothing moves; peaks get a little
    lower, and the map is scaled back to its own maximum.

    Args:
        saliency: float32 [H, W] in [0, 1].
        cell: height and width of a cell of the layer, in pixels of the map.

    Returns:
        float32 [H, W] in [0, 1].
    """
    sigma_y, sigma_x = (max(side / 6, 0.01) for side in cell)
    soft = cv2.GaussianBlur(saliency, (0, 0), sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REPLICATE)
    highest, peak = float(saliency.max()), float(soft.max())
    scaled = soft if peak <= 0 else soft * np.float32(highest / peak)
    return np.clip(scaled, 0, 1).astype(np.float32)


def shrunk(image: NDArray[np.uint8], longest_side: int) -> NDArray[np.uint8]:
    """An image with sides of at most so many pixels, its proportions kept; the same one where it has them already.

    Args:
        image: uint8 [H, W, 3].
        longest_side: in pixels.

    Raises:
        OptionError: `longest_side` below 1, or beyond any image.
    """
    SHRUNK_SIDE.check(longest_side)
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return as_uint8(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def draw_map(
    image: NDArray[np.uint8],
    saliency: NDArray[np.float32],
    geometry: CropGeometry,
    *,
    cells: tuple[int, int],
    rendering: Rendering,
) -> NDArray[np.uint8]:
    """Draw a map of the model's input over the photograph, or over a smaller or larger copy of it.

    Args:
        image: uint8 RGB [H, W, 3], the photograph at any size.
        saliency: float32 [h, w] in [0, 1], at the size of the model's input.
        geometry: where the input lies in the photograph; its size need not be that of `image`.
        cells: rows and columns of the layer that the map comes from.
        rendering: how.

    Returns:
        uint8 RGB [H, W, 3].
    """
    geometry = replace(geometry, height=image.shape[0], width=image.shape[1])
    rising = rendering.blend == "rising"
    if rising:
        saliency = smoothed(saliency, (saliency.shape[0] / cells[0], saliency.shape[1] / cells[1]))
    drawn = np.empty_like(image)
    step = max(1, BLOCK // image.shape[1])
    for first in range(0, len(image), step):  # the map at the photograph's size would take several times as much
        rows = slice(first, first + step)
        placed, covered = geometry.to_original(saliency, rows)
        drawn[rows] = overlay(image[rows], placed, covered=covered, **rendering.record())
    if rising:
        framed(drawn, geometry.seen())
    return drawn


def _check_colormap(colormap: str) -> None:
    if colormap not in _OPENCV_COLORMAPS:
        raise OptionError(f"colormap {colormap!r}: accepted is one of {', '.join(COLORMAPS)}")


def _check_rgb(image: NDArray[np.uint8], name: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"{name} is uint8 RGB [H, W, 3], not {image.dtype} {list(image.shape)}")


def as_uint8(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Say that an image is uint8: OpenCV's stubs do not say that uint8 in is uint8 out."""
    return image.astype(np.uint8, copy=False)
