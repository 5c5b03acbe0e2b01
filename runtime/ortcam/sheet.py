"""Sheet: one picture of an image, a row per class and a column per method."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ortcam.explanation import Explanation, comparison
from ortcam.files import write_whole
from ortcam.image import encode_png

__all__ = ["is_sheet", "save", "sheet"]


def sheet(explanations: Sequence[Explanation], *, title: str | None = None) -> NDArray[np.uint8]:
    """Draw explanations of one image: uint8 RGB [h, w, 3], a row per class and a column per method."""
    return comparison(explanations, title=title)


def save(folder: Path, explanations: Sequence[Explanation]) -> Path:
    """Write `FOLDER.png` beside the folder of an image, `OUT/STEM.png` beside `OUT/STEM`, and return its path.

    A file that ortcam did not write is never replaced: the sheet then goes to `OUT/STEM-sheet.png`.

    Args:
        folder: `OUT/STEM`, where the explanations are saved, one folder per method.
        explanations: of this image, just saved there. What earlier runs saved there is drawn, too.
    """
    path = folder.with_name(f"{folder.name}-sheet.png")
    write_whole(path, encode_png(sheet(explanations)))
    return path


def is_sheet(path: Path) -> bool:
    """Whether a PNG file is a sheet that ortcam wrote, and so no photograph to explain."""
    return path.name.endswith("-sheet.png")
