"""Sheet: one image of an image's explanations, a row per class and a column per method."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError, OutputError
from ortcam.images.encoding import encode_png, is_sheet, mark_sheet
from ortcam.images.rendering import Blend, Rendering
from ortcam.results.columns import column_of, columns_in, image_name
from ortcam.results.drawing import draw_sheet
from ortcam.results.explanation import Explanation
from ortcam.results.saved import image_sha256
from ortcam.support.files import write_whole

__all__ = ["save", "sheet"]


def sheet(
    explanations: Sequence[Explanation],
    *,
    title: str | None = None,
    colormap: str = "turbo",
    blend: Blend = "rising",
    alpha: float | None = None,
) -> NDArray[np.uint8]:
    """Draw explanations of one image as one sheet: a row per class, a column per method.

    Each row says label, index and probability, each column method, forward passes and time. The first column is the
    photograph. Where two explanations disagree on a probability, as two models do, the first one counts.

    Args:
        explanations: of one image, by any methods, classes and models. At most 12 columns and 20 rows are drawn; the
            last line says how many are not.
        title: first line; None is the name of the image's file, "" is none.
        colormap: "turbo", "viridis" or "jet".
        blend: "rising" or "flat", as of `Explanation.overlay`.
        alpha: opacity where the map is highest, in [0, 1]; None is the usual one of `blend`.

    Returns:
        uint8 RGB [h, w, 3].

    Raises:
        OptionError: no explanation, several images, or a value that is not accepted.

    Example:
        >>> ortcam.sheet([explainer.explain("cat.jpg", method=m) for m in ("scorecam", "cam")])  # doctest: +SKIP
    """
    if not explanations:
        raise OptionError("a sheet of no explanations: accepted is one or more")
    first = explanations[0].image
    for other in explanations[1:]:
        if other.image is not first and not np.array_equal(other.image, first):
            raise OptionError("a sheet of several images: accepted are explanations of one image")
    columns = [column_of(e.summary(), {target: e.maps[n] for n, target in enumerate(e.targets)}) for e in explanations]
    name = image_name(explanations[0].provenance["image"]) if title is None else title
    return draw_sheet(first, columns, name, Rendering(colormap, blend, alpha))


def save(
    folder: Path,
    explanations: Sequence[Explanation],
    *,
    colormap: str = "turbo",
    blend: Blend = "rising",
    alpha: float | None = None,
) -> Path:
    """Write the sheet of an image as `FOLDER.png`: `OUT/cat.png` beside `OUT/cat/`.

    It shows all that is saved in the folder for this image, by earlier runs, too: columns in the order of
    `ortcam methods`, rows in the order in which the columns have them. A file that is no sheet of ortcam's is never
    replaced: the sheet is then `OUT/cat-sheet.png`, or `OUT/cat-sheet-2.png` and so on.

    Args:
        folder: of the image, with a folder per method in which `Explanation.save` has just saved the explanations.
        explanations: of the image, at least one.
        colormap: as of `sheet`.
        blend: as of `sheet`.
        alpha: as of `sheet`.

    Returns:
        The path of the file.

    Raises:
        OptionError: no explanation, or a value that is not accepted.
        OutputError: it cannot be written.
    """
    if not explanations:
        raise OptionError("a sheet of no explanations: accepted is one or more")
    rendering = Rendering(colormap, blend, alpha)
    record = explanations[0].provenance["image"]
    try:
        columns = columns_in(folder, image_sha256(record), explanations[0].image.shape[:2])
        image = draw_sheet(explanations[0].image, columns, image_name(record), rendering) if columns else None
        encoded = encode_png(sheet(explanations, **rendering.record()) if image is None else image)
        path = _free_path(folder)
        write_whole(path, mark_sheet(encoded), durable=True)
    except OSError as error:
        raise OutputError(f"{folder}.png: cannot be written: {error.strerror or error}") from error
    return path


def _free_path(folder: Path) -> Path:
    """The first name that nothing has, or a sheet."""
    names = [f"{folder.name}.png", f"{folder.name}-sheet.png"]
    number = 1
    while True:
        path = folder.with_name(names[number - 1] if number <= len(names) else f"{folder.name}-sheet-{number - 1}.png")
        if is_sheet(path) or not (path.exists() or path.is_symlink()):
            return path
        number += 1
