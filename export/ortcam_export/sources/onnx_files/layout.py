"""Which side of an `.onnx` file's image is its channels: as the user said, or as its shape and names tell."""

import dataclasses
from pathlib import Path
from typing import Final

import onnx_ir as ir

from ortcam_export.errors import ExportError
from ortcam_export.sources.onnx_files.file import describe
from ortcam_export.sources.types import InputLayout

__all__ = ["Sides", "sides_of"]

_USUAL: Final = 3
_MOST: Final = 64

_Side = int | None


@dataclasses.dataclass(frozen=True)
class Sides:
    """The sides of an image in one layout, each None where the graph leaves it open.

    Attributes:
        layout: the layout.
        channels: how many.
        height: rows.
        width: columns.
        named: whether the graph calls this side channels.
        guessed: whether the shape allows the other layout, too, and nobody said which it is.
    """

    layout: InputLayout
    channels: _Side
    height: _Side
    width: _Side
    named: bool = False
    guessed: bool = False

    @property
    def possible(self) -> bool:
        """Whether it can be an image: 1 to 64 channels, and more than one row and column."""
        return (self.channels or 1) <= _MOST and 1 not in (self.height, self.width)

    @property
    def likely(self) -> bool:
        """Whether it has fewer channels than rows and columns, as images have."""
        sides = [side for side in (self.height, self.width) if side is not None]
        return self.channels is not None and all(self.channels < side for side in sides)


def sides_of(image: ir.Value, layout: InputLayout | None, channels: int | None, path: Path) -> Sides:
    """The sides of an image.

    1. What the user said of layout and channels counts.
    2. As many channels as said, or else three, where only one layout has them.
    3. Fewer channels than rows and columns, where only one layout has: [1,13,64,64], or [1,28,28,1].
    4. A side that is named so, as Hugging Face's exporter names open ones: batch_size, num_channels, height, width.
    5. The only layout that can be an image at all.

    Args:
        image: of rank 3 or 4.
        layout: as the user said it, or None.
        channels: their number, as the user said it, or None.
        path: of the file, for messages.

    Raises:
        ExportError: no image, not as said, or one that could have either layout.
    """
    readings = _readings(image)
    if layout is not None:
        [reading] = [item for item in readings if item.layout == layout]
        if reading.possible and channels in (None, reading.channels or channels):
            return reading
        raise ExportError(
            f"{path}: --input-layout {layout}: the input is {describe(image)}, which would be an image of "
            f"{_counted(reading.channels)}{'' if channels is None else f', and --channels says {channels}'}"
        )
    possible = [item for item in readings if item.possible]
    said = [item for item in possible if channels in (None, item.channels or channels)]
    if possible and not said:
        raise ExportError(
            f"{path}: its input is {describe(image)}, an image of "
            f"{' or '.join(dict.fromkeys(_counted(item.channels) for item in possible))}; said are {channels}, "
            "by --channels, --mean, --std, --channel-order, --baseline-value or the preset"
        )
    usual = [item for item in said if item.channels == (channels or _USUAL)]
    for found in (usual, [item for item in said if item.likely], [item for item in said if item.named], said):
        if len(found) == 1:
            return dataclasses.replace(found[0], guessed=len(possible) > 1)
    if not possible:
        raise ExportError(
            f"{path}: its input is {describe(image)}; accepted is an image of 1 to {_MOST} channels, [N,C,H,W] or "
            "[N,H,W,C]"
        )
    raise ExportError(
        f"{path}: its input is {describe(image)}; say which side is the channels with --input-layout nchw or nhwc"
    )


def _readings(image: ir.Value) -> tuple[Sides, Sides]:
    """An image as NCHW and as NHWC; one of three sides has no batch."""
    assert image.shape is not None
    names = [str(side).lower() for side in image.shape][-3:]
    first, second, third = (side if isinstance(side, int) else None for side in list(image.shape)[-3:])
    nchw = Sides("nchw", first, second, third, first is None and "channel" in names[0])
    return nchw, Sides("nhwc", third, first, second, third is None and "channel" in names[2])


def _counted(channels: _Side) -> str:
    return "any number of channels" if channels is None else f"{channels} channel{'s' * (channels > 1)}"
