"""IMAGE on the command line: files, folders, patterns and standard input."""

import argparse
import os
from typing import Any

from ortcam.errors import ImageError, OptionError
from ortcam.images.inputs import STDIN, expand, is_image_name
from ortcam.models.opening import is_bundle

__all__ = ["add_images", "check_images", "image_names"]


def add_images(parser: Any) -> None:
    """Add the positional IMAGE, of which there may be several."""
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="file, folder, pattern such as 'a/*.jpg', or - (stdin)"
    )


def image_names(options: argparse.Namespace, *, arrays: bool) -> list[str]:
    """List the images of a command that takes MODEL and IMAGE, folders and patterns taken apart.

    Args:
        options: of the command; `images` counts, and `quiet`.
        arrays: whether arrays in folders (.npy, .npz) are images, too: where the model `needs_samples`.

    Raises:
        OrtcamError: a folder or a pattern without images.
    """
    return expand(options.images, tell=(lambda _: None) if options.quiet else None, arrays=arrays)


def check_images(options: argparse.Namespace) -> None:
    """Find out that there is no image before MODEL is opened, which may take an export.

    Args:
        options: of the command; `model` and `images` count.

    Raises:
        OrtcamError: a folder or a pattern without images, no image at all, or an image where the model belongs.
    """
    if is_image_name(options.model, arrays=True) and os.path.isfile(options.model):  # noqa: PTH113 - a text, as it was given
        example = f"ortcam {options.command} shapes {options.model}"
        raise OptionError(f"{options.model} is an image; the model comes first, such as `{example}`")
    names = expand(options.images, tell=lambda _: None, arrays=True)
    missing = [name for name in names if name != STDIN and not os.path.lexists(name)]
    if len(missing) == len(names) and not is_bundle(options.model):  # found before an export, which takes a while
        others = f" (the same of {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ImageError(f"{missing[0]}: there is no such file{others}")
